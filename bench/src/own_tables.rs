//! Attached tables: what capture adds to plain SQL, and what typed rows add to a push.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::Result;
use postgres::Client;

use crate::bench::Bench;
use crate::report::Row;
use crate::rounds::{Side, alternate, median};
use crate::sides::Function;
use crate::stage::{Ids, Kind};

const TABLES: [&str; 3] = ["bare", "attached", "by_trigger"];

/// The ops of a kind as ops of the attached table, and as some of which a few violate its
/// constraint.
const TYPED: &str = "insert into bench.staged
    select $1, batch, json_agg(json_build_object('tableName', 'typed_notes', 'operation', operation,
      'pk', pk, 'payload', case when i % 100 < $3
         then json_build_object('id', pk, 'body', 'bad') else payload end,
      'stamp', json_build_object('deviceId', device_id, 'opId', gen_random_uuid(), 'hlc', hlc,
        'clock', clock)) order by i)
    from bench.rows where kind = $2 group by batch";

/// The longest time for which a backfill may lock its workspaces.
const LOCK_MS: f64 = 15.0;

/// What a check would be in SQL.
const JOIN: &str = "select count(*)
    from (select workspace_id, id::text as pk, to_jsonb(filled) - 'workspace_id' as image
          from own.filled) as typed
    full join (select workspace_id, pk, payload::jsonb as image from sync_ext.current_record
               where table_name = 'filled' and not deleted) as record using (workspace_id, pk)
    where typed.image is distinct from record.image";

impl Bench {
    pub fn own_tables(&mut self) -> Result<Vec<Row>> {
        self.admin.batch_execute(include_str!("../peers/own_tables.sql"))?;
        self.admin.batch_execute(
            "select sync_attach_table('own.attached');
             select sync_attach_table('own.notes', 'typed_notes');",
        )?;
        let mut rows = Vec::new();
        rows.extend(self.captured("INSERT", 1000, insert)?);
        rows.extend(self.captured("UPDATE", 1000, update)?);
        rows.extend(self.captured("INSERT", 10, insert)?);
        rows.extend(self.applied()?);
        rows.extend(self.filled()?);
        Ok(rows)
    }

    /// A table that was there before: its backfill, and a check of it beside a join of both
    /// sides.
    fn filled(&mut self) -> Result<[Row; 3]> {
        let count = 10 * self.work;
        let begun = Instant::now();
        self.admin.batch_execute(&format!(
            "insert into own.filled (workspace_id, batch, title)
               select 'f' || i % 100, i % 1000, md5(i::text) from generate_series(1, {count}) i"
        ))?;
        let inserted = begun.elapsed();
        self.admin.batch_execute(
            "analyze own.filled; select sync_attach_table('own.filled'); checkpoint",
        )?;
        // One batch after the other, as the procedure does, but timed. Its workspaces are
        // locked while it commits.
        let (mut filled, mut commits) = (Duration::ZERO, Vec::new());
        let mut is_done = false;
        while !is_done {
            let begun = Instant::now();
            let mut transaction = self.admin.transaction()?;
            let sql =
                "select sync_ext.backfill_batch('own.filled', null, 1000, null) ->> 'position'";
            let position: Option<String> = transaction.query_one(sql, &[])?.get(0);
            let captured = Instant::now();
            transaction.commit()?;
            commits.push(captured.elapsed().as_secs_f64() * 1e3);
            filled += begun.elapsed();
            is_done = position.is_none();
        }
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
        for table in ["own.filled", "sync_ext.record", "sync_ext.change_log"] {
            self.admin.batch_execute(&format!("vacuum analyze {table}"))?;
        }
        self.admin.batch_execute("checkpoint")?;
        let (mut check, mut join) = (self.connect()?, self.connect()?);
        let sides = vec![
            Side::new("check", move |_| {
                Ok(check.query("select sync_check_table('own.filled')::text", &[]).map(drop)?)
            }),
            Side::new("hash join", move |_| Ok(join.query(JOIN, &[]).map(drop)?)),
        ];
        let series = alternate(&self.bar, self.rounds, count, sides)?;
        Ok([
            Row::new("backfill, a row", "us", micros(filled), "INSERT", micros(inserted)),
            Row::new("backfill, lock of 1000 rows", "ms", median(commits), "limit", LOCK_MS),
            series.row("check, a row", "check", "hash join"),
        ])
    }

    /// Statements of so many rows each, in a transaction of their own, beside the bare
    /// table and the trigger.
    fn captured(&self, name: &str, size: usize, statement: fn(&str) -> String) -> Result<[Row; 2]> {
        let per_round = (self.work / size).clamp(1, 200);
        let side = |table: &'static str| -> Result<Side<'_>> {
            let mut client = self.connect()?;
            // Rows to update, as many as are inserted.
            let batches = (self.rounds + 1) * per_round;
            if statement("") == update("") {
                fill(&mut client, table, size, batches)?;
            }
            let statement = client.prepare(&statement(table))?;
            Ok(Side::new(table, move |round| {
                for batch in round * per_round..(round + 1) * per_round {
                    client.execute(&statement, &[&(batch as i32), &(size as i32)])?;
                }
                Ok(())
            }))
        };
        let sides = TABLES.into_iter().map(side).collect::<Result<_>>()?;
        let series = alternate(&self.bar, self.rounds, per_round * size, sides)?;
        Ok([
            series.row(&format!("captured {name}, {size} rows"), "attached", "bare"),
            series.row(&format!("captured {name}, {size} / trigger"), "attached", "by_trigger"),
        ])
    }

    /// Pushes to a typed table beside the same pushes to a JSON table.
    fn applied(&mut self) -> Result<Vec<Row>> {
        let json = self.stage("as JSON", 1000, Ids::Random)?;
        let more = self.stage("as JSON, again", 1000, Ids::Random)?;
        let good = self.typed("typed", json, 0)?;
        let bad = self.typed("typed, some bad", more, 1)?;
        self.admin.batch_execute("checkpoint")?;
        let ours = self.sync_ext()?;
        let by_loop = RefCell::new(Function::new(self.connect()?, "own.push")?);
        let sides = vec![
            self.side("typed", good, |batch| ours.borrow_mut().push(&good, batch)),
            self.side("JSON", json, |batch| ours.borrow_mut().push(&json, batch)),
            self.side("bad", bad, |batch| ours.borrow_mut().push(&bad, batch)),
            self.side("loop", good, |batch| by_loop.borrow_mut().push(&good, batch)),
        ];
        let series = alternate(&self.bar, self.rounds, self.work_of(&json), sides)?;
        Ok(vec![
            series.row("push 1000, typed", "typed", "JSON"),
            series.row("push 1000, typed, 10 of them bad", "bad", "JSON"),
            series.row("push 1000, typed / loop", "typed", "loop"),
        ])
    }

    /// Lays out a kind for the attached table; of 100 ops so many are bad.
    fn typed(&mut self, name: &'static str, of: Kind, bad: i32) -> Result<Kind> {
        self.admin.execute(TYPED, &[&name, &of.name, &bad])?;
        Ok(Kind { name, ..of })
    }

    /// Single rows updated by several clients, each in a transaction of its own.
    pub fn own_tables_together(&mut self) -> Result<Vec<Row>> {
        for table in TABLES {
            fill(&mut self.admin, table, 8, 1000)?;
        }
        let update = |table: &str| {
            format!(
                "update own.{table} set title = md5(random()::text) where workspace_id = $1
                   and batch = floor(random() * 1000)::integer"
            )
        };
        let (attached, bare) = (update("attached"), update("bare"));
        let ways = [("attached", "", &*attached), ("bare", "", &*bare)];
        [("captured UPDATE, 1 client", (1, 8, 200)), ("captured UPDATE, 8 clients", (8, 8, 200))]
            .into_iter()
            .map(|(name, spread)| self.rates(name, spread, ways))
            .collect()
    }
}

/// New rows; $1 is the batch, $2 their number.
fn insert(table: &str) -> String {
    format!(
        "insert into own.{table} (workspace_id, batch, title)
           select 'w0', $1, md5(i::text) from generate_series(1, $2::integer) i"
    )
}

fn update(table: &str) -> String {
    format!(
        "update own.{table} set title = md5(title), done = not done
           where workspace_id = 'u0' and batch = $1 and $2::integer is not null"
    )
}

/// Rows in so many workspaces or batches. A transaction each: the trigger updates a workspace
/// once for each row, and in one transaction it would pass over all the versions before.
fn fill(client: &mut Client, table: &str, size: usize, batches: usize) -> Result<()> {
    let workspace = if size == 8 { "'w' || i" } else { "'u0'" };
    client.batch_execute(&format!(
        "do $$ begin
           for b in 0 .. {batches} - 1 loop
             insert into own.{table} (workspace_id, batch, title)
               select {workspace}, b, md5(i::text) from generate_series(1, {size}) i;
             commit;
           end loop;
         end $$"
    ))?;
    client.batch_execute(&format!("analyze own.{table}; checkpoint"))?;
    Ok(())
}
