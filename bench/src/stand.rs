//! The cluster that everything is measured on, with all sides installed.

use anyhow::Result;
use postgres::Client;
use sync_ext_cluster::cluster::Cluster;

use crate::stage;

/// fsync is on. No autovacuum and no checkpoint but the ones that the benchmark
/// asks for, so that they fall on no side.
pub const SETTINGS: [&str; 7] = [
    "fsync=on",
    "shared_buffers=2GB",
    "max_wal_size=32GB",
    "checkpoint_timeout=1d",
    "autovacuum=off",
    "jit=off",
    "max_connections=50",
];

pub struct Stand {
    pub cluster: Cluster,
}

impl Stand {
    pub fn connect(&self) -> Result<Client> {
        Ok(self.cluster.connect("bench")?)
    }
}

pub fn start(name: &str) -> Result<Stand> {
    let cluster = Cluster::start(name, &SETTINGS)?;
    let mut admin = cluster.create_database("bench")?;
    admin.batch_execute("select sync_register_table('notes')")?;
    for peer in [
        include_str!("../peers/floor.sql"),
        include_str!("../peers/expert.sql"),
        include_str!("../peers/tutorial.sql"),
    ] {
        admin.batch_execute(peer)?;
    }
    stage::create(&mut admin)?;
    Ok(Stand { cluster })
}
