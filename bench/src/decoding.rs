//! What every engine needs that follows the WAL: decoding it, once for all who listen, before
//! anything is filtered or sent. Beside pulls of the same entries.

use anyhow::Result;
use postgres::Client;
use sync_ext_harness::cluster::Cluster;

use crate::bench::Bench;
use crate::report::Row;
use crate::rounds::{Side, alternate};
use crate::stage::{self, Ids, Kind, PAYLOAD};
use crate::stand::SETTINGS;

const DECODED: Kind =
    Kind { name: "decoded", size: 1000, batches: 20, payload_bytes: PAYLOAD, ids: Ids::Random };

impl Bench {
    /// On a server of its own: decoding needs more in the WAL.
    pub fn decoding(&mut self) -> Result<Vec<Row>> {
        let settings = [&SETTINGS[..], &["wal_level=logical"]].concat();
        let cluster = Cluster::start("bench-decoding", &settings)?;
        let mut admin = cluster.create_database("bench")?;
        admin.batch_execute("select sync_register_table('notes')")?;
        stage::create(&mut admin)?;
        stage::fill(&mut admin, &DECODED)?;
        admin.batch_execute("create publication log for table sync_ext.change_log")?;
        admin.batch_execute("select pg_create_logical_replication_slot('log', 'pgoutput')")?;
        let push = "select count(sync_push('w', ops)) from bench.staged where kind = $1";
        admin.execute(push, &[&DECODED.name])?;
        admin.batch_execute("vacuum analyze sync_ext.change_log")?;
        admin.batch_execute("checkpoint")?;
        let (mut ours, mut decoding): (Client, Client) =
            (cluster.connect("bench")?, cluster.connect("bench")?);
        let pull = ours.prepare("select pg_column_size(sync_pull('w', $1, 1000))")?;
        let sides = vec![
            Side::new("sync_ext", |_| {
                (0..DECODED.batches as i64)
                    .try_for_each(|page| Ok(ours.query_one(&pull, &[&(page * 1000)]).map(drop)?))
            }),
            // The changes stay in the slot, so that each round decodes them.
            Side::new("pgoutput", |_| {
                let peek = "select sum(length(data)) from pg_logical_slot_peek_binary_changes(
                    'log', null, null, 'proto_version', '1', 'publication_names', 'log')";
                Ok(decoding.batch_execute(peek)?)
            }),
        ];
        let series = alternate(&self.bar, self.rounds, DECODED.batches, sides)?;
        Ok(vec![series.row("pull, pages of 1000 / WAL", "sync_ext", "pgoutput")])
    }
}
