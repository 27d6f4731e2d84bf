//! The cluster that everything is measured on, with all sides installed.

use std::thread::available_parallelism;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};
use postgres::Client;
use sync_ext_harness::cluster::Cluster;

use crate::stage;

/// fsync is on. No autovacuum and no checkpoint but the ones that the benchmark
/// asks for, so that they fall on no side.
pub const SETTINGS: [&str; 10] = [
    "fsync=on",
    "shared_buffers=2GB",
    "min_wal_size=1GB",
    "max_wal_size=32GB",
    "checkpoint_timeout=1d",
    "autovacuum=off",
    "jit=off",
    "max_connections=50",
    "shared_preload_libraries=sync_ext",
    "sync_ext.notify=off",
];

pub struct Stand {
    pub cluster: Cluster,
}

impl Stand {
    pub fn connect(&self) -> Result<Client> {
        Ok(self.cluster.connect("bench")?)
    }

    /// A session whose backend stays on the second CPU, if there is one. See
    /// [`keep_to`].
    pub fn connect_pinned(&self) -> Result<Client> {
        let mut client = self.connect()?;
        let pid: i32 = client.query_one("select pg_backend_pid()", &[])?.get(0);
        if has_two_cpus() {
            keep_to([1], Pid::from_raw(pid))?;
        }
        Ok(client)
    }

    pub fn version(&self) -> Result<String> {
        let sql = "select current_setting('server_version')";
        Ok(self.connect()?.query_one(sql, &[])?.get(0))
    }
}

/// One for the client and one for backends.
/// Online, also where this process may not run at the moment.
pub fn cpus() -> Result<usize> {
    let online = sysconf(SysconfVar::_NPROCESSORS_ONLN)?.context("no number of CPUs")?;
    Ok(usize::try_from(online)?)
}

pub fn has_two_cpus() -> bool {
    available_parallelism().is_ok_and(|count| count.get() >= 2)
}

/// Keeps a process (its first thread and those that it starts from now on) to
/// some CPUs. What a short call takes depends most of all on whether the
/// scheduler put its two ends on one CPU; so that is not left to chance.
pub fn keep_to(cpus: impl IntoIterator<Item = usize>, process: Pid) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(cpu)?;
    }
    Ok(sched_setaffinity(process, &set)?)
}

pub fn start(name: &str) -> Result<Stand> {
    let cluster = Cluster::start(name, &SETTINGS)?;
    let mut admin = cluster.create_database("bench")?;
    admin.batch_execute("select sync_register_table('notes')")?;
    for peer in [
        include_str!("../peers/floor.sql"),
        include_str!("../peers/expert.sql"),
        include_str!("../peers/tutorial.sql"),
        include_str!("../peers/timestamp.sql"),
    ] {
        admin.batch_execute(peer)?;
    }
    stage::create(&mut admin)?;
    season(&mut admin)?;
    Ok(Stand { cluster })
}

/// Makes it a server that has run for a while: WAL files are there to be used
/// again, and the kernel has handed out the memory of the shared buffers. Else
/// who first needs them pays, some more for that than for the work.
fn season(admin: &mut Client) -> Result<()> {
    admin.batch_execute(
        "do $$ begin
           for i in 1 .. 1000 loop
             perform pg_logical_emit_message(false, 'season', repeat('x', 1000000));
             if i % 500 = 0 then perform pg_switch_wal(); end if;
           end loop;
         end $$;
         checkpoint;
         create unlogged table bench.season with (fillfactor = 10) as
           select repeat('x', 800) from generate_series(1, 2 * 128 * 1024);
         drop table bench.season;",
    )?;
    Ok(())
}

/// Bytes of WAL that were ever written.
pub fn wal_position(client: &mut Client) -> Result<f64> {
    let sql = "select (pg_current_wal_insert_lsn() - '0/0')::float8";
    Ok(client.query_one(sql, &[])?.get(0))
}

pub fn head(client: &mut Client, workspace: &str) -> Result<i64> {
    let sql = "select head from sync_ext.workspace where workspace_id = $1";
    Ok(client.query_one(sql, &[&workspace])?.get(0))
}
