//! A database that routes calls to several servers, by PL/Proxy and the scripts in `sql/router`.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::cluster::Cluster;

/// Whether there is PL/Proxy; if not, says so.
pub fn is_possible(cluster: &Cluster) -> Result<bool> {
    let sql = "select from pg_available_extensions where name = 'plproxy'";
    let is_there = !cluster.connect("postgres")?.query(sql, &[])?.is_empty();
    if !is_there {
        println!("PL/Proxy is not available here: the router is not tried");
    }
    Ok(is_there)
}

pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql/router/router.sql")
}

/// Makes a database a router.
pub fn install(cluster: &Cluster, database: &str) -> Result<()> {
    let printed = cluster.psql_quietly(database, &script())?;
    ensure!(printed.is_empty(), "{printed}");
    Ok(())
}

/// The statements that tell PL/Proxy where the shards are.
pub fn foreign_server(name: &str, addresses: &[String]) -> String {
    let places: Vec<String> = addresses
        .iter()
        .enumerate()
        .map(|(number, address)| format!(", p{number} '{}'", address.replace('\'', "''")))
        .collect();
    format!(
        "create server {name} foreign data wrapper plproxy options (modular_mapping '1'{});
         create user mapping for public server {name}",
        places.concat()
    )
}
