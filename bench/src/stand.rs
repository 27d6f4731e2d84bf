//! The cluster that everything is measured on, with all sides installed.

use anyhow::Result;
use postgres::Client;
use sync_ext_cluster::cluster::Cluster;

use crate::stage;

/// fsync is on. No autovacuum and no checkpoint but the ones that the benchmark
/// asks for, so that they fall on no side.
pub const SETTINGS: [&str; 8] = [
    "fsync=on",
    "shared_buffers=2GB",
    "min_wal_size=2GB",
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
           for i in 1 .. 2000 loop
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
