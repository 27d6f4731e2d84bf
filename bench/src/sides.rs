//! Who takes part in pushes: each takes a staged batch and makes it durable.
//!
//! The ops lie in the database already and of a reply only its length leaves
//! it: what is compared is the work, not the transport.

use anyhow::Result;
use postgres::types::ToSql;
use postgres::{Client, Statement};
use rusqlite::Connection;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::stage::Kind;

/// What rows call the floor where one statement inserts.
pub const FLOOR: &str = "INSERT ... SELECT";

/// A function that takes a batch: sync_ext's, the expert's, the loop's.
pub struct Function {
    client: Client,
    staged: Statement,
    given: Statement,
}

impl Function {
    /// `function` is called with a workspace and a batch.
    pub fn new(mut client: Client, function: &str) -> Result<Function> {
        let staged = client.prepare(&format!(
            "select pg_column_size({function}($3, ops)) from bench.staged where kind = $1 and batch = $2"
        ))?;
        let given = client.prepare(&format!("select {function}($1, $2::text::json)::text"))?;
        Ok(Function { client, staged, given })
    }

    pub fn push(&mut self, kind: &Kind, batch: usize) -> Result<()> {
        self.push_to("w0", kind.name, batch)
    }

    pub fn push_to(&mut self, workspace: &str, kind: &str, batch: usize) -> Result<()> {
        self.client.query_one(&self.staged, &[&kind, &(batch as i32), &workspace])?;
        Ok(())
    }

    /// A whole call: the batch comes in and the reply goes out.
    pub fn call(&mut self, workspace: &str, ops: &str) -> Result<String> {
        Ok(self.client.query_one(&self.given, &[&workspace, &ops])?.get(0))
    }

    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// The floor: plain SQL that writes the same rows and the counter.
pub struct Floor {
    client: Client,
    insert: Statement,
    update: Statement,
    upsert: Statement,
    steps: [Statement; 3],
}

const COUNTER: &str = "with counter as (update floor.workspace set head = head + $3
       where workspace_id = $4 returning workspace_key, head - $3 as before),
     logged as (insert into floor.change_log
       select workspace_key, before + i, table_name, pk, operation, payload, clock, hlc, device_id,
         op_id, true, null, clock_timestamp()
       from bench.rows, counter where kind = $1 and batch = $2)";

impl Floor {
    pub fn new(mut client: Client) -> Result<Floor> {
        // Otherwise statistics of what other groups have staged make it plan every call anew.
        client.batch_execute("set plan_cache_mode = force_generic_plan")?;
        let record = "select workspace_key, table_name, pk, before + i, clock, hlc, op_id, operation = 'delete'
             from bench.rows, counter where kind = $1 and batch = $2";
        let insert = client.prepare(&format!("{COUNTER} insert into floor.record {record}"))?;
        let upsert = client.prepare(&format!(
            "{COUNTER} insert into floor.record {record}
             on conflict (workspace_key, table_name, pk) do update set
               server_version = excluded.server_version, clock = excluded.clock, hlc = excluded.hlc,
               op_id = excluded.op_id, deleted = excluded.deleted"
        ))?;
        let update = client.prepare(&format!(
            "{COUNTER} update floor.record as r set server_version = before + b.i, clock = b.clock,
               hlc = b.hlc, op_id = b.op_id, deleted = false
             from bench.rows b, counter where b.kind = $1 and b.batch = $2
               and r.workspace_key = counter.workspace_key and r.table_name = b.table_name and r.pk = b.pk"
        ))?;
        let steps = [
            client.prepare(
                "update floor.workspace set head = head + 1 where workspace_id = 'w0'
                   returning workspace_key, head",
            )?,
            client.prepare(
                "insert into floor.change_log
                   select $3, $4, table_name, pk, operation, payload, clock, hlc, device_id, op_id,
                     true, null, clock_timestamp()
                   from bench.rows where kind = $1 and batch = $2",
            )?,
            client.prepare(
                "insert into floor.record
                   select $3, table_name, pk, $4, clock, hlc, op_id, false
                   from bench.rows where kind = $1 and batch = $2",
            )?,
        ];
        Ok(Floor { client, insert, update, upsert, steps })
    }

    /// New records.
    pub fn insert(&mut self, kind: &Kind, batch: usize) -> Result<()> {
        self.insert_to("w0", kind.name, batch, kind.size)
    }

    pub fn insert_to(
        &mut self,
        workspace: &str,
        kind: &str,
        batch: usize,
        size: usize,
    ) -> Result<()> {
        let values: [&(dyn ToSql + Sync); 4] = [&kind, &(batch as i32), &(size as i64), &workspace];
        self.client.execute(&self.insert, &values)?;
        Ok(())
    }

    /// Known records.
    pub fn update(&mut self, kind: &Kind, batch: usize) -> Result<()> {
        Floor::run(&mut self.client, &self.update, kind, batch)
    }

    /// Some new, some known.
    pub fn upsert(&mut self, kind: &Kind, batch: usize) -> Result<()> {
        Floor::run(&mut self.client, &self.upsert, kind, batch)
    }

    fn run(client: &mut Client, statement: &Statement, kind: &Kind, batch: usize) -> Result<()> {
        client.execute(statement, &[&kind.name, &(batch as i32), &(kind.size as i64), &"w0"])?;
        Ok(())
    }

    /// A new record by five statements: begin, counter, log, record, commit.
    pub fn insert_stepwise(&mut self, kind: &Kind, batch: usize) -> Result<()> {
        let [counter, log, record] = &self.steps;
        let mut transaction = self.client.transaction()?;
        let row = transaction.query_one(counter, &[])?;
        let (key, version): (i64, i64) = (row.get(0), row.get(1));
        for step in [log, record] {
            transaction.execute(step, &[&kind.name, &(batch as i32), &key, &version])?;
        }
        Ok(transaction.commit()?)
    }

    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// What a sync server on one machine does with SQLite: a transaction per batch,
/// log, rows and counter, LWW by upsert; WAL, synchronous = FULL.
pub struct Sqlite(Connection);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Op<'a> {
    table_name: &'a str,
    pk: &'a str,
    operation: &'a str,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    stamp: Stamp<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stamp<'a> {
    device_id: &'a str,
    op_id: &'a str,
    hlc: &'a str,
    clock: i64,
}

impl Sqlite {
    pub fn create(path: &std::path::Path) -> Result<Sqlite> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "pragma journal_mode = wal; pragma synchronous = full;
             create table counter (head integer);
             insert into counter values (0);
             create table log (version integer primary key, table_name text, pk text, operation text,
               payload text, clock integer, hlc text, device_id text, op_id text unique, applied integer);
             create table record (table_name text, pk text, version integer, clock integer, hlc text,
               op_id text, deleted integer, primary key (table_name, pk)) without rowid;",
        )?;
        Ok(Sqlite(connection))
    }

    pub fn push(&mut self, ops: &str) -> Result<String> {
        let ops: Vec<Op<'_>> = serde_json::from_str(ops)?;
        let transaction = self.0.transaction()?;
        let mut results = Vec::with_capacity(ops.len());
        {
            let mut head: i64 =
                transaction.query_row("select head from counter", [], |row| row.get(0))?;
            let mut seen =
                transaction.prepare_cached("select version from log where op_id = ?1")?;
            let mut store = transaction.prepare_cached(
                "insert into record values (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 on conflict do update set version = excluded.version, clock = excluded.clock,
                   hlc = excluded.hlc, op_id = excluded.op_id, deleted = excluded.deleted
                 where (excluded.clock, excluded.hlc, excluded.op_id) > (clock, hlc, op_id)",
            )?;
            let mut append = transaction.prepare_cached(
                "insert into log values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?;
            for Op { table_name, pk, operation, payload, stamp } in &ops {
                let Stamp { device_id, op_id, hlc, clock } = stamp;
                let mut known = seen.query([op_id])?;
                if let Some(row) = known.next()? {
                    results.push((row.get::<_, i64>(0)?, false));
                    continue;
                }
                head += 1;
                let deleted = *operation == "delete";
                let applied =
                    store.execute((table_name, pk, head, clock, hlc, op_id, deleted))? == 1;
                append.execute((
                    head,
                    table_name,
                    pk,
                    operation,
                    payload.map(RawValue::get),
                    clock,
                    hlc,
                    device_id,
                    op_id,
                    applied,
                ))?;
                results.push((head, applied));
            }
            transaction.execute("update counter set head = ?1", [head])?;
        }
        transaction.commit()?;
        Ok(serde_json::to_string(&results)?)
    }
}
