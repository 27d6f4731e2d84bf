//! GC of few workspaces among many: a batch costs by what is due.

use anyhow::{Result, ensure};
use postgres::Client;

use crate::bench::Bench;
use crate::report::Row;
use crate::rounds::{Series, Side, percentile, seconds, take_turns_by_median};

/// Each has a record, two entries of which GC has read the first, and a device that has seen
/// all.
const WORKSPACES: i64 = 400_000;
/// So many of them get an entry that makes one due, in each round.
const DUE: i64 = 1000;
/// Batches of a few milliseconds do them all.
const MAX_BATCHES: usize = 1000;

const LAY_OUT: &str = "
    insert into sync_ext.workspace
      (workspace_id, head, gc_through, unread_since, devices_since)
      select 'idle-' || n, 2, 1, null, now() from generate_series(1, $1::int8) n";
const ENTRIES: &str = "
    insert into sync_ext.change_log (workspace_key, server_version, table_name, pk, operation, payload,
      clock, hlc, device_id, op_id, applied, supersedes, created_at)
      select workspace_key, n, 'notes', 'a', 'put', '{}', n, 'h', 'd', gen_random_uuid(), true,
        nullif(n - 1, 0), now() - interval '60 days'
      from sync_ext.workspace, generate_series(1, 2) n where workspace_id like 'idle-%';
    insert into sync_ext.record (workspace_key, table_name, pk, server_version, clock, hlc, op_id, deleted)
      select workspace_key, 'notes', 'a', 2, 2, 'h', gen_random_uuid(), false
      from sync_ext.workspace where workspace_id like 'idle-%';
    insert into sync_ext.device_cursor (workspace_key, device_id, last_seen_version, updated_at)
      select workspace_key, 'd', 1000, now() from sync_ext.workspace where workspace_id like 'idle-%';
    analyze";

/// As a push to each of some workspaces that are spread over all.
const MAKE_DUE: &str = "
    with due as (
      update sync_ext.workspace set head = head + 1, unread_since = '-infinity'
       where workspace_id in (select 'idle-' || n * $1::int8 from generate_series(1, $2::int8) n)
      returning workspace_key, head),
    logged as (
      insert into sync_ext.change_log (workspace_key, server_version, table_name, pk, operation, payload,
        clock, hlc, device_id, op_id, applied, supersedes, created_at)
      select workspace_key, head, 'notes', 'a', 'put', '{}', head, 'h', 'd', gen_random_uuid(), true,
        head - 1, now() - interval '60 days' from due)
    update sync_ext.record r set server_version = head, clock = head
      from due where r.workspace_key = due.workspace_key";

/// Without one of the marks GC looks at every workspace, as where the extension is not updated.
const FORGET_MARKS: &str =
    "alter table sync_ext.workspace rename column devices_since to devices_before";
const KNOW_MARKS: &str =
    "alter table sync_ext.workspace rename column devices_before to devices_since";

impl Bench {
    pub fn many(&mut self) -> Result<Vec<Row>> {
        self.admin.execute(LAY_OUT, &[&WORKSPACES])?;
        self.admin.batch_execute(ENTRIES)?;
        self.admin.batch_execute("checkpoint")?;
        let mut rows = self.due_among_many()?;
        rows.push(self.nothing_due()?);
        rows.push(self.slowest_batch()?);
        Ok(rows)
    }

    /// All that is due in one batch, by the marks and by looking at every workspace.
    fn due_among_many(&mut self) -> Result<Vec<Row>> {
        let mut sides = [("marks", Vec::new()), ("every workspace", Vec::new())];
        self.bar.inc_length(2 * self.rounds as u64);
        for round in 0..=self.rounds {
            for (side, times) in &mut sides {
                let is_walk = *side != "marks";
                make_due(&mut self.admin)?;
                if is_walk {
                    self.admin.batch_execute(FORGET_MARKS)?;
                }
                let mut collector = self.connect()?;
                let mut scanned = 0;
                let time = seconds(|| {
                    scanned = batch(&mut collector)?.0;
                    Ok(())
                })?;
                ensure!(scanned == DUE, "{scanned} entries were due");
                if is_walk {
                    self.admin.batch_execute(KNOW_MARKS)?;
                    // It has raised no mark.
                    batch(&mut collector)?;
                }
                if round > 0 {
                    times.push(time * 1e3);
                    self.bar.inc(1);
                }
            }
        }
        let name = "GC, 1000 due of 400,000 workspaces";
        Ok(vec![Series::new("ms", sides).row(name, "marks", "every workspace")])
    }

    /// A batch without work.
    fn nothing_due(&mut self) -> Result<Row> {
        let (mut collector, mut other) = (self.connect()?, self.connect()?);
        let sides = vec![
            Side::timing_itself("GC", |_| seconds(|| batch(&mut collector).map(drop))),
            Side::timing_itself("select 1", |_| seconds(|| Ok(other.batch_execute("select 1")?))),
        ];
        let series = take_turns_by_median(&self.bar, self.rounds, 200, sides)?;
        Ok(series.row("GC, nothing due of 400,000", "GC", "select 1"))
    }

    /// The slowest of a hundred batches of sync_gc_all, beside its limit.
    fn slowest_batch(&mut self) -> Result<Row> {
        let mut collector = self.connect()?;
        collector.batch_execute("set sync_ext.gc_lock_time = '3ms'")?;
        let mut times = Vec::new();
        self.bar.inc_length(self.rounds as u64);
        for _ in 0..self.rounds {
            make_due(&mut self.admin)?;
            for n in 0.. {
                let mut has_more = false;
                times.push(seconds(|| {
                    has_more = batch(&mut collector)?.1;
                    Ok(())
                })?);
                ensure!(n < MAX_BATCHES, "GC does not end");
                if !has_more {
                    break;
                }
            }
            self.bar.inc(1);
        }
        let slowest = percentile(times, 0.99) * 1e3;
        Ok(Row::new("GC batch p99, 400,000 workspaces", "ms", slowest, "limit", 10.0))
    }
}

fn make_due(admin: &mut Client) -> Result<()> {
    admin.execute(MAKE_DUE, &[&(WORKSPACES / DUE), &DUE])?;
    Ok(())
}

/// The entries that a batch reads, and whether there are more.
fn batch(collector: &mut Client) -> Result<(i64, bool)> {
    let sql = "select (r ->> 'scanned')::int8, (r ->> 'hasMore')::boolean from sync_gc() r";
    let row = collector.query_one(sql, &[])?;
    Ok((row.get(0), row.get(1)))
}
