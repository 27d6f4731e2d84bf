//! Sessions that push as fast as they can, and what must be stored of that.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use postgres::Client;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use sync_ext_harness::batch;

use crate::common::tally::Tally;

/// A batch whose push may or may not have come through.
#[derive(Clone)]
struct Batch {
    first: u64,
    ops: Vec<String>,
}

/// A session that pushes to the workspace `pushed`.
pub struct Pusher {
    number: u64,
    random: StdRng,
    ops_made: u64,
    unanswered: Option<Batch>,
    /// Batches of this round and the versions in their replies.
    acknowledged: Vec<(Batch, Vec<i64>)>,
}

impl Pusher {
    pub fn new(number: u64, seed: u64) -> Pusher {
        let random = StdRng::seed_from_u64(seed);
        Pusher { number, random, ops_made: 0, unanswered: None, acknowledged: Vec::new() }
    }

    fn batch(&mut self) -> Batch {
        // With and without the subtransaction that large batches use.
        let count = *[1, 3, 7, 8, 40].choose(&mut self.random).unwrap_or(&1);
        let first = self.number << 40 | self.ops_made;
        self.ops_made += count;
        let ops = (first..first + count).map(|id| {
            let clock = self.random.random_range(1..4);
            match self.random.random_range(0..4) {
                0 => batch::delete(id, &format!("hot {}", id % 7), clock + 1),
                1 => batch::put(id, &format!("hot {}", id % 7), clock + 1),
                // Two pushers now and then create the same record.
                _ => batch::put(id, &format!("new {}", id & 0xffff), 1),
            }
        });
        Batch { first, ops: ops.collect() }
    }

    /// Pushes until the server dies.
    pub fn run(&mut self, client: &mut Client, pushed: &AtomicUsize) {
        self.acknowledged.clear();
        loop {
            let batch = self.unanswered.take().unwrap_or_else(|| self.batch());
            let ops = format!("[{}]", batch.ops.join(","));
            self.unanswered = Some(batch.clone());
            let sql = "select sync_push('pushed', $1::text::json)::text";
            let Ok(row) = client.query_one(sql, &[&ops]) else { return };
            self.unanswered = None;
            self.acknowledged.push((batch, batch::versions(row.get(0), "results")));
            pushed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

pub fn check_round(client: &mut Client, pushers: &[Pusher], tally: &mut Tally) -> Result<()> {
    let row = client.query_one(
        "select count(*), coalesce(min(server_version), 1), coalesce(max(server_version), 0),
                count(distinct op_id), w.head
           from sync_ext.workspace w left join sync_ext.change_log l using (workspace_key)
          where w.workspace_id = 'pushed' group by w.head",
        &[],
    )?;
    let (count, min, max, ops, head): (i64, i64, i64, i64, i64) =
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
    ensure!((count, min, max, ops) == (head, 1, head, head), "not 1..head: {row:?}");
    for pusher in pushers {
        for (batch, versions) in &pusher.acknowledged {
            let stored = stored(client, batch)?;
            ensure!(stored == *versions, "answered {versions:?}, stored {stored:?}");
            tally.add("ops acknowledged", versions.len() as u64);
        }
        if let Some(batch) = &pusher.unanswered {
            let stored = stored(client, batch)?;
            let whole = stored.len() == batch.ops.len();
            ensure!(stored.is_empty() || whole, "a push was stored in part: {stored:?}");
            tally.add(if whole { "pushes stored but unanswered" } else { "pushes lost whole" }, 1);
        }
    }
    let wrong: i64 = client
        .query_one(
            "select count(*) from sync_ext.record r
               join (select distinct on (workspace_key, table_name, pk) * from sync_ext.change_log
                      order by workspace_key, table_name, pk, clock desc, hlc desc, op_id desc) l
                 using (workspace_key, table_name, pk)
               join sync_ext.workspace w using (workspace_key)
              where w.workspace_id = 'pushed' and (r.server_version, r.clock, r.hlc, r.op_id, r.deleted)
                 is distinct from (l.server_version, l.clock, l.hlc, l.op_id, l.operation = 'delete')",
            &[],
        )?
        .get(0);
    ensure!(wrong == 0, "{wrong} records are not their ops of the highest revision");
    Ok(())
}

/// The versions of a batch's ops in the log, in its order.
fn stored(client: &mut Client, batch: &Batch) -> Result<Vec<i64>> {
    let ids: Vec<String> =
        (batch.first..batch.first + batch.ops.len() as u64).map(batch::op_id).collect();
    let rows = client.query(
        "select l.server_version from unnest($1::text[]) with ordinality as i (id, place)
           join sync_ext.change_log l on l.op_id = i.id::uuid
           join sync_ext.workspace w using (workspace_key)
          where w.workspace_id = 'pushed' order by i.place",
        &[&ids],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
