//! Pushes while GC purges: what the slowest of a hundred waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, anyhow, ensure};
use postgres::Client;

use crate::bench::Bench;
use crate::report::Row;
use crate::rounds::{Series, percentile, seconds};

/// Entries that GC has to purge in each round.
const DUE: i64 = 100_000;
/// Ops of one push.
const OPS: i32 = 10;

/// Pushes $2 new records to workspace $1.
const PUSH: &str = "select pg_column_size(sync_push($1, json_agg(json_build_object(
      'tableName', 'notes', 'operation', 'put', 'pk', id,
      'payload', json_build_object('id', id, 'body', body),
      'stamp', json_build_object('deviceId', 'device-1', 'opId', gen_random_uuid(),
        'hlc', '1767225600000:0000:device-1', 'clock', 1)))))
    from (select gen_random_uuid() as id, repeat(md5(random()::text), 17) as body
      from generate_series(1, $2)) x";

impl Bench {
    /// p99 of a push of ten while sync_gc_all purges entries, over the same without: in
    /// the workspace that is purged, and in another.
    pub fn gc(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (name, workspace) in [("push p99, GC there", "due"), ("push p99, GC elsewhere", "w1")] {
            self.bar.inc_length(self.rounds as u64);
            let (mut with, mut without) = (Vec::new(), Vec::new());
            for _ in 0..self.rounds {
                lay_out_due(&mut self.admin)?;
                let (during, pushes) = self.during_gc(workspace)?;
                with.push(during);
                without.push(self.alone(workspace, pushes)?);
                self.bar.inc(1);
            }
            let series = Series::new("us", [("with GC", with), ("without GC", without)]);
            rows.push(series.row(name, "with GC", "without GC"));
        }
        Ok(rows)
    }

    /// The p99 of pushes while GC works, and how many there were.
    fn during_gc(&self, workspace: &str) -> Result<(f64, usize)> {
        let (mut pusher, mut collector) = (self.stand.connect()?, self.stand.connect()?);
        let push = pusher.prepare(PUSH)?;
        for _ in 0..20 {
            pusher.query_one(&push, &[&workspace, &OPS])?;
        }
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let gc = scope.spawn(|| {
                let purged = collect(&mut collector);
                is_over.store(true, Ordering::Relaxed);
                purged
            });
            let mut times = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let call = || Ok(pusher.query_one(&push, &[&workspace, &OPS]).map(drop)?);
                times.push(seconds(call)? * 1e6);
            }
            let purged = gc.join().map_err(|_| anyhow!("the collector panicked"))??;
            ensure!(purged >= DUE - 2000, "GC purged {purged} entries only");
            let pushes = times.len();
            Ok((percentile(times, 0.99), pushes))
        })
    }

    fn alone(&self, workspace: &str, pushes: usize) -> Result<f64> {
        let mut pusher = self.stand.connect()?;
        let push = pusher.prepare(PUSH)?;
        let mut times = Vec::new();
        for n in 0..pushes + 20 {
            let call = || Ok(pusher.query_one(&push, &[&workspace, &OPS]).map(drop)?);
            let seconds = seconds(call)?;
            if n >= 20 {
                times.push(seconds * 1e6);
            }
        }
        Ok(percentile(times, 0.99))
    }
}

/// Purges all that is due; how many entries that was.
fn collect(client: &mut Client) -> Result<i64> {
    let deleted = "select ops.n - log.n from
        (select head as n from sync_ext.workspace where workspace_id = 'due') ops,
        (select count(*) as n from sync_ext.change_log join sync_ext.workspace using (workspace_key)
          where workspace_id = 'due') log";
    let before: i64 = client.query_one(deleted, &[])?.get(0);
    // The server of the benchmark has no limit.
    client.batch_execute("set sync_ext.gc_lock_time = '3ms'")?;
    client.batch_execute("call sync_gc_all('due', time_budget => null)")?;
    Ok(client.query_one(deleted, &[])?.get::<_, i64>(0) - before)
}

/// Makes sure that workspace `due` exists.
const FIRST: &str = r#"select sync_push('due', '[{"tableName":"notes","operation":"put","pk":"first",
    "payload":{},"stamp":{"deviceId":"d","opId":"00000000-0000-4000-8000-000000000000",
    "hlc":"h","clock":1}}]')"#;

const LAY_OUT: &str = "with old as (
      select workspace_key, head from sync_ext.workspace where workspace_id = 'due'),
    laid as (
      insert into sync_ext.change_log
      select workspace_key, head + n, 'notes', 'pk-' || n % 1000, 'put',
        json_build_object('body', repeat(md5(n::text), 17)), head + n, 'h', 'd',
        gen_random_uuid(), true, case when n > 1000 then head + n - 1000 end,
        now() - interval '60 days'
      from old, generate_series(1, $1::int8) n),
    winners as (
      insert into sync_ext.record
      select workspace_key, 'notes', 'pk-' || n % 1000, head + n, head + n, 'h',
        gen_random_uuid(), false
      from old, generate_series($1::int8 - 999, $1::int8) n
      on conflict (workspace_key, table_name, pk) do update set
        server_version = excluded.server_version, clock = excluded.clock)
    update sync_ext.workspace set head = head + $1::int8, gc_through = head
    where workspace_id = 'due'";

/// Puts entries of a thousand records into workspace `due` that lie long back;
/// all but the last of each record are superseded. GC does not look at what was
/// pushed there before.
fn lay_out_due(client: &mut Client) -> Result<()> {
    client.batch_execute(FIRST)?;
    client.execute(LAY_OUT, &[&DUE])?;
    Ok(())
}
