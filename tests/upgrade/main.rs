//! Upgrades: of the extension, from its last release to what is here, and of Postgres under
//! it. Whatever an upgrade meets goes on: data, and devices in the middle of everything.
//!
//! * `catalogue`: what the extension has in a database, object by object
//! * `world`: data of every kind, and devices
//!
//! `scripts/upgrade_test.sh` sets the environment: `SYNC_EXT_PG_BIN` (a Postgres with the
//! release), `SYNC_EXT_RELEASE` (its version), `SYNC_EXT_NEW` (the files that replace it, by
//! their paths) and, for pg_upgrade, `SYNC_EXT_LATER_PG_BIN` (a later Postgres with what is here).

mod catalogue;
mod world;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use postgres::Client;
use sync_ext_harness::cluster::{Cluster, Stop};
use sync_ext_harness::device::call;
use sync_ext_harness::steps::pid;
use sync_ext_harness::wire;

use crate::world::{Data, GRANTS, World, data, follow_a_scope};

/// Servers that pg_upgrade starts say which processes they start.
const SETTINGS: [&str; 4] =
    ["fsync=off", "autovacuum=off", "log_min_messages=debug1", "shared_preload_libraries=sync_ext"];

fn main() -> Result<()> {
    let release = variable("SYNC_EXT_RELEASE")?;
    let later = env::var_os("SYNC_EXT_LATER_PG_BIN").map(PathBuf::from);
    let mut cluster = Cluster::start("release", &SETTINGS[..2])?;
    cluster.connect("postgres")?.batch_execute("create role backend login")?;
    replay(&cluster, &release)?;
    let mut client = cluster.create_database("app")?;
    ensure!(version(&mut client)? == release, "{} is installed", version(&mut client)?);
    let mut world = World::load(&mut client)?;
    let loaded = data(&mut client)?;
    drop(client);
    println!("{release} is loaded on {}: {}", server(&cluster)?, described(&loaded));

    if let Some(later) = &later {
        let copy = upgrade_server(&mut cluster, later, &[], &loaded)?;
        update(&copy, &loaded)?;
        finish(&copy, "app", &world)?;
        drop(copy);
        cluster.start_server()?;
    }

    both_libraries_serve(&cluster, &mut world)?;
    replay(&cluster, &release)?;
    clone(&cluster, "app", "not_updated")?;
    finish(&cluster, "not_updated", &world)?;
    println!("the new library serves the old schema");
    let loaded = data(&mut cluster.connect("app")?)?;
    update(&cluster, &loaded)?;
    clone(&cluster, "app", "updated")?;
    finish(&cluster, "updated", &world)?;
    follow_a_scope(&mut cluster.connect("updated")?)?;
    println!("and of what is updated a part can be followed");

    if let Some(later) = &later {
        let linked = upgrade_server(&mut cluster, later, &["--link"], &loaded)?;
        compare(&linked)?;
        finish(&linked, "app", &world)?;
    }
    println!("all is there, and all devices went on");
    Ok(())
}

/// By pg_upgrade.
fn upgrade_server(
    cluster: &mut Cluster,
    later: &Path,
    options: &[&str],
    loaded: &Data,
) -> Result<Cluster> {
    cluster.stop_server(Stop::Cleanly)?;
    let options = [options, &["--retain"]].concat();
    let upgraded = cluster.upgraded("upgraded", later, &SETTINGS, &options)?;
    println!("pg_upgrade {} has made it {}", options.join(" "), server(&upgraded)?);
    require_no_workers(&upgraded)?;
    require_same(&upgraded, loaded)?;
    Ok(upgraded)
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set: run `make upgrade-test`"))
}

fn version(client: &mut Client) -> Result<String> {
    call(client, "select extversion from pg_extension where extname = 'sync_ext'", &[])
}

fn server(cluster: &Cluster) -> Result<String> {
    let version = "select 'Postgres ' || current_setting('server_version')";
    call(&mut cluster.connect("app")?, version, &[])
}

fn described(data: &Data) -> String {
    let sizes: Vec<String> =
        data.iter().map(|(name, rows)| format!("{} {name}", rows.split('\n').count())).collect();
    sizes.join(", ")
}

/// A session that loaded the library before its file was replaced keeps it; later ones load
/// the new one.
fn both_libraries_serve(cluster: &Cluster, world: &mut World) -> Result<()> {
    let mut old = cluster.connect("app")?;
    old.batch_execute("load 'sync_ext'")?;
    let status = Command::new("cp")
        .args(["-rT", "--remove-destination"])
        .arg(variable("SYNC_EXT_NEW")?)
        .arg("/")
        .status()?;
    ensure!(status.success(), "the new files are not in place: {status}");
    let mut new = cluster.connect("app")?;
    new.batch_execute("load 'sync_ext'")?;
    ensure!(has_deleted_library(&mut old)? && !has_deleted_library(&mut new)?);
    for turn in 0..4 {
        world.disturb(if turn % 2 == 0 { &mut new } else { &mut old })?;
    }
    println!("sessions with the old library and with the new one take turns");
    Ok(())
}

fn has_deleted_library(client: &mut Client) -> Result<bool> {
    let maps = fs::read_to_string(Path::new("/proc").join(pid(client).to_string()).join("maps"))?;
    let library: Vec<&str> = maps.lines().filter(|line| line.contains("/sync_ext.so")).collect();
    ensure!(!library.is_empty(), "the library is not loaded");
    Ok(library.iter().all(|line| line.ends_with(" (deleted)")))
}

/// What a device of the release says is answered as then, by whichever library is installed.
fn replay(cluster: &Cluster, release: &str) -> Result<()> {
    cluster.connect("postgres")?.batch_execute("create database recorded")?;
    let mut client = cluster.connect("recorded")?;
    client.batch_execute(&format!("create extension sync_ext version '{release}'"))?;
    let said = wire::of_version(release, "sql.json")?;
    wire::replay(&said, |request| wire::execute(&mut client, request))?;
    drop(client);
    cluster.connect("postgres")?.batch_execute("drop database recorded")?;
    println!("{} recorded requests are answered as then", said.len());
    Ok(())
}

fn update(cluster: &Cluster, loaded: &Data) -> Result<()> {
    let mut client = cluster.connect("app")?;
    let before = version(&mut client)?;
    client.batch_execute("alter extension sync_ext update")?;
    println!("updated from {before} to {}", version(&mut client)?);
    drop(client);
    require_same(cluster, loaded)?;
    compare(cluster)
}

fn require_same(cluster: &Cluster, loaded: &Data) -> Result<()> {
    let found = data(&mut cluster.connect("app")?)?;
    for (name, rows) in loaded {
        ensure!(found[name] == *rows, "{name}: {}\ninstead of {rows}", found[name]);
    }
    Ok(())
}

/// The extension is as a fresh one.
fn compare(cluster: &Cluster) -> Result<()> {
    let mut fresh = cluster.create_database("fresh")?;
    fresh.batch_execute(GRANTS)?;
    let catalogue = catalogue::of(&mut fresh)?;
    let found = catalogue::of(&mut cluster.connect("app")?)?;
    println!("{}", catalogue::require_equal(&found, &catalogue)?);
    catalogue::require_sharp(&mut fresh, &catalogue)?;
    drop(fresh);
    Ok(cluster.connect("postgres")?.batch_execute("drop database fresh")?)
}

/// A copy of a database in the same cluster.
fn clone(cluster: &Cluster, from: &str, to: &str) -> Result<()> {
    let sql = format!("create database {to} template {from}");
    Ok(cluster.connect("postgres")?.batch_execute(&sql)?)
}

/// All devices go on to the end there.
fn finish(cluster: &Cluster, database: &str, world: &World) -> Result<()> {
    let mut client = cluster.connect(database)?;
    world.clone().finish(&mut client).with_context(|| format!("in database {database}"))
}

/// pg_upgrade's own servers have none of our workers: they would be in its way.
fn require_no_workers(cluster: &Cluster) -> Result<()> {
    let logs = cluster.logs_of_upgrade().concat();
    let started: Vec<&str> =
        logs.lines().filter(|line| line.contains("starting background worker")).collect();
    ensure!(!started.iter().any(|line| line.contains("sync_ext")), "{started:#?}");
    ensure!(logs.contains("DEBUG:"), "the logs do not tell which processes are started");
    Ok(())
}
