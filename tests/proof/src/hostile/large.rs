//! Inputs of up to a gigabyte, and the memory that they take.
//!
//! What is measured is the peak of a backend's own memory during a push of ops
//! that stand in a table, less that of `json_typeof` of the same value, which
//! holds one copy of it: neither what a client's bytes cost on their way in nor
//! shared memory counts. The rest is ours; a fixed [`FIXED`] is allowed for it,
//! and on top of that, with what was measured at the largest sizes:
//!
//! | input | allowed | measured |
//! | --- | --- | --- |
//! | white space, 900 MB | 0 | 0 |
//! | a million ops where 1000 are allowed | 0 | 0 |
//! | a million `{}`, each refused | 560 bytes per op | 510 |
//! | 100,000 new ops | 640 bytes per op | 567 |
//! | 100,000 replays | 800 bytes per op | 614 |
//! | a payload of 250 MB, new | 2.5 times its size | 2.0 |
//! | the same replayed | 1.5 times its size | 1.0 |
//! | a small op that loses to it | 10.5 times the winner's size | 10.0 |
//! | an opId of 250 MB, which is none | 5.5 times its size | 5.0 |
//! | 100,000 arrays in arrays, in conflict | 64 bytes per array | 53 |
//!
//! A loser's reply shows the winner's payload twice, and in the end it stands
//! there as the reply, as the function's result, as a text and as a message;
//! what is echoed of an opId takes the same way.
//!
//! So a further copy of a large payload or of the text as a whole is noticed.

use anyhow::{Context, Result, bail, ensure};
use postgres::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use sync_ext_harness::batch;
use sync_ext_harness::cluster::Cluster;

use super::allowed;
use crate::common::backend::Backend;
use crate::common::tally::Tally;

/// How large each input is.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of white space.
    pub space: usize,
    /// Tiny ops.
    pub ops: usize,
    /// Containers in containers.
    pub depth: usize,
    /// Bytes of one payload, and of one opId.
    pub payload: usize,
}

/// Of the server: few shared buffers, as they count until they are mapped.
pub const SETTINGS: [&str; 3] = ["fsync=off", "shared_buffers=8MB", "max_wal_size=4GB"];

const DATABASE: &str = "large";

/// Pushes one input of each kind; the cluster should have [`SETTINGS`].
pub fn run(cluster: &Cluster, seed: u64, sizes: Sizes) -> Result<Tally> {
    prepare(cluster)?;
    measure(cluster, seed, sizes)
}

pub fn prepare(cluster: &Cluster) -> Result<Client> {
    let mut client = cluster.create_database(DATABASE)?;
    client.execute("select sync_register_table('notes')", &[])?;
    client.batch_execute(&format!(
        "alter database {DATABASE} set sync_ext.max_payload_bytes = '256MB';
         alter database {DATABASE} set sync_ext.max_payload_depth = 1000000;
         create unlogged table given (name text, ops json);
         alter table given alter ops set storage external"
    ))?;
    Ok(client)
}

/// The run, in the database that [`prepare`] made.
pub fn measure(cluster: &Cluster, seed: u64, sizes: Sizes) -> Result<Tally> {
    let mut large = Large { cluster, tally: Tally::default() };
    large.white_space(sizes.space)?;
    large.tiny_ops(sizes.ops)?;
    large.good_ops(sizes.ops / 10)?;
    large.payload(seed, sizes.payload)?;
    large.op_id(sizes.payload)?;
    large.nesting(sizes.depth)?;
    large.arguments(sizes.payload, sizes.ops)?;
    Ok(large.tally)
}

struct Large<'c> {
    cluster: &'c Cluster,
    tally: Tally,
}

/// What a push may take beyond what Postgres takes to receive it.
struct Bound {
    bytes: f64,
    what: &'static str,
}

/// The default of sync_ext.max_page_bytes.
const MAX_PAGE_BYTES: f64 = 8.0 * 1024.0 * 1024.0;

/// What every call may take, whatever its input.
const FIXED: f64 = 2.0 * 1024.0 * 1024.0;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    results: Vec<PushResult>,
    server_version: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PushResult {
    success: bool,
    server_version: Option<i64>,
    #[serde(default)]
    replayed: bool,
}

impl Large<'_> {
    /// A push of a text, within its bound.
    fn push(&mut self, ops: &str, bound: Bound) -> Result<Result<Reply, String>> {
        let mut client = self.cluster.connect(DATABASE)?;
        client.execute("truncate given", &[])?;
        client.execute("insert into given values ('', $1::text::json)", &[&ops])?;
        self.push_given("", bound)
    }

    /// A push of what is in the table, by a session of its own.
    fn push_given(&mut self, name: &str, bound: Bound) -> Result<Result<Reply, String>> {
        let (theirs, _) = self.peak("json_typeof(ops)", name)?;
        let (ours, answer) = self.peak("sync_push('w', ops)::text", name)?;
        let beyond = ours.saturating_sub(theirs);
        ensure!(
            beyond as f64 <= bound.bytes,
            "{}: {beyond} bytes of memory beyond what Postgres takes, {} at most",
            bound.what,
            bound.bytes
        );
        self.tally.add("large inputs", 1);
        self.tally.add(bound.what, beyond);
        Ok(match answer {
            Ok(reply) => Ok(serde_json::from_str(&reply)?),
            Err(error) => Err(allowed::code(&error)?),
        })
    }

    fn peak(&self, call: &str, name: &str) -> Result<(u64, Result<String, postgres::Error>)> {
        let mut client = self.cluster.connect(DATABASE)?;
        let backend = Backend::of(&mut client)?;
        // What every session needs once is no input's.
        let warm = format!("[{}]", batch::put(1, "a", 1));
        client.query("select sync_push('warm', $1::text::json)::text", &[&warm])?;
        let sql = format!("select {call} from given where name = $1");
        client.query(&sql, &[&"none"])?;
        let statement = client.prepare(&sql)?;
        backend.peak_of(|| Ok(client.query_one(&statement, &[&name]).map(|row| row.get(0))))
    }

    fn white_space(&mut self, bytes: usize) -> Result<()> {
        let ops = format!("[{}]", " ".repeat(bytes));
        let reply = self.push(&ops, Bound { bytes: FIXED, what: "memory of white space" })?;
        let reply = answered(reply)?;
        ensure!(reply.results.is_empty() && reply.server_version == 0);
        Ok(())
    }

    /// First more than are allowed, then as many as are.
    fn tiny_ops(&mut self, count: usize) -> Result<()> {
        let ops = format!("[{}]", vec!["{}"; count].join(","));
        let refused = self.push(&ops, Bound { bytes: FIXED, what: "memory of too many ops" })?;
        ensure!(refused.err().as_deref() == Some("54000"), "too many ops");
        self.set("max_ops_per_push", "1000000")?;
        let bytes = 560.0 * count as f64 + FIXED;
        let reply = self.push(&ops, Bound { bytes, what: "memory of tiny ops" })?;
        let reply = answered(reply)?;
        ensure!(reply.results.len() == count && reply.server_version == 0);
        ensure!(reply.results.iter().all(|result| !result.success));
        Ok(())
    }

    /// New ones, then the same again.
    fn good_ops(&mut self, count: usize) -> Result<()> {
        let ops: Vec<String> =
            (0..count as u64).map(|n| batch::op(n, &n.to_string(), 1, "put", "{}")).collect();
        let ops = format!("[{}]", ops.join(","));
        for (replayed, what) in [(false, "memory of new ops"), (true, "memory of replays")] {
            let bytes = if replayed { 800.0 } else { 640.0 } * count as f64 + FIXED;
            let reply = self.push(&ops, Bound { bytes, what })?;
            let reply = answered(reply)?;
            ensure!(reply.results.len() == count && reply.server_version == count as i64);
            for (result, version) in reply.results.iter().zip(1..) {
                ensure!(result.server_version == Some(version) && result.replayed == replayed);
            }
        }
        Ok(())
    }

    /// New, again, and as the winner that another op loses to.
    fn payload(&mut self, seed: u64, bytes: usize) -> Result<()> {
        let payload = format!("{{\"noise\":\"{}\"}}", noise(seed, bytes - 12));
        let op = batch::op(1 << 40, "large", 9, "put", &payload);
        let size = payload.len() as f64;
        let ops = format!("[{op}]");
        for (replayed, what) in [(false, "memory of a payload"), (true, "memory of its replay")] {
            let bytes = if replayed { 1.5 } else { 2.5 } * size + FIXED;
            let reply = answered(self.push(&ops, Bound { bytes, what })?)?;
            let result = &reply.results[0];
            ensure!(result.success && result.replayed == replayed);
        }
        let sql = "select payload::text = $1 from sync_ext.change_log where pk = 'large'";
        let mut client = self.cluster.connect(DATABASE)?;
        let is_stored: bool = client.query_one(sql, &[&payload])?.get(0);
        ensure!(is_stored, "the payload is not stored as it was sent");
        let ops = format!("[{}]", batch::op(2 << 40, "large", 1, "put", "{}"));
        // As a winner it is shown if it fits on a page, else not.
        let bytes = 5.5 * size.min(MAX_PAGE_BYTES) + 1.5 * size + FIXED;
        let reply = self.push(&ops, Bound { bytes, what: "memory of its loser" })?;
        ensure!(answered(reply)?.results[0].success);
        Ok(())
    }

    /// An opId that is none, echoed.
    fn op_id(&mut self, bytes: usize) -> Result<()> {
        let ops = format!("[{{\"opId\":\"{}\"}}]", "é".repeat(bytes / 2));
        let bytes = 5.5 * ops.len() as f64 + FIXED;
        let reply = self.push(&ops, Bound { bytes, what: "memory of an opId" })?;
        ensure!(!answered(reply)?.results[0].success);
        Ok(())
    }

    /// What Postgres' functions build is not read by its parser again: so deep
    /// a value can only be met this way.
    fn nesting(&mut self, depth: usize) -> Result<()> {
        let mut client = self.cluster.connect(DATABASE)?;
        client.batch_execute(DEEP_OPS)?;
        client.batch_execute("truncate given; select sync_register_table('deep')")?;
        for (name, op_id, leaf) in [("first", 1, "a"), ("other", 1, "b"), ("loser", 2, "a")] {
            let op_id = batch::op_id(op_id << 50);
            let clock: i64 = if name == "loser" { 1 } else { 2 };
            let sql = "insert into given select $1, deep_ops($2::text, $3, $4, $5)";
            client.execute(sql, &[&name, &op_id, &clock, &(depth as i32), &leaf])?;
        }
        let mut push = |name: &str, what| {
            let bytes = 64.0 * depth as f64 + FIXED;
            self.push_given(name, Bound { bytes, what })
        };
        let stored = answered(push("first", "memory of nesting")?)?;
        ensure!(stored.results[0].success);
        ensure!(answered(push("first", "memory of nesting, replayed")?)?.results[0].replayed);
        ensure!(!answered(push("other", "memory of nesting, in conflict")?)?.results[0].success);
        ensure!(answered(push("loser", "memory of nesting, lost")?)?.results[0].success);

        // It comes back as it went in, though Postgres itself reads no further.
        let error = client.query("select ops -> 0 ->> 'payload' from given", &[]).err();
        ensure!(allowed::code(&error.context("Postgres reads as deep")?)? == "54001");
        let sql = "select payload::text from sync_ext.change_log
                    where table_name = 'deep' and applied";
        let payload: String = client.query_one(sql, &[])?.get(0);
        ensure!(payload.contains(&"[".repeat(depth)), "the payload lost its depth");
        for sql in [
            "select sync_pull('w', 0, tables => '{deep}')::text",
            "select sync_snapshot('w', tables => '{deep}')::text",
        ] {
            let page: String = client.query_one(sql, &[])?.get(0);
            ensure!(page.contains(&payload), "{sql} has another payload");
        }
        Ok(())
    }

    /// Texts where names and tokens are due, and a filter of many tables.
    fn arguments(&mut self, bytes: usize, tables: usize) -> Result<()> {
        let mut client = self.cluster.connect(DATABASE)?;
        for (call, code) in [
            ("sync_push(repeat('w', $1), '[]')", "22023"),
            ("sync_pull(repeat('w', $1))", "22023"),
            ("sync_pull('w', 0, proof => repeat('p', $1))", "22023"),
            ("sync_pull('w', 0, proof => 'p1.' || repeat('1', $1) || '.')", "22023"),
            ("sync_snapshot('w', 's1.' || repeat('0', 32) || '.' || repeat('61', $1))", "22023"),
            ("sync_update_cursor('w', repeat('d', $1), 0)", "22023"),
            ("sync_gc(repeat('w', $1))", "22023"),
            ("sync_register_table(repeat('t', $1))", "22023"),
            ("sync_register_table('t', repeat('f', $1))", "22023"),
        ] {
            let sql = format!("select {call}");
            let error = client.query(&sql, &[&(bytes as i32)]).err().context("not refused")?;
            ensure!(allowed::code(&error)? == code, "{sql}: {error}");
        }
        for call in
            ["sync_pull('w', 0, 1, all_of.them)", "sync_snapshot('w', null, 1, all_of.them)"]
        {
            let sql = format!(
                "select ({call} ->> 'proof') is not null
                   from (select array_agg('t' || n) as them from generate_series(1, $1) n) as all_of"
            );
            let is_served: bool = client.query_one(&sql, &[&1000])?.get(0);
            ensure!(is_served, "{sql}");
            let error = client.query(&sql, &[&(tables as i32)]).err().context("not refused")?;
            ensure!(allowed::code(&error)? == "22023", "{sql}: {error}");
        }
        self.tally.add("large arguments", 11);
        Ok(())
    }

    fn set(&self, setting: &str, value: &str) -> Result<()> {
        let sql = format!("alter database {DATABASE} set sync_ext.{setting} = '{value}'");
        Ok(self.cluster.connect("postgres")?.batch_execute(&sql)?)
    }
}

fn answered(answer: Result<Reply, String>) -> Result<Reply> {
    match answer {
        Ok(reply) => Ok(reply),
        Err(code) => bail!("refused with {code}"),
    }
}

/// Builds a batch that may be deeper than Postgres' parser goes.
const DEEP_OPS: &str = "
create function deep_ops(op_id text, clock bigint, depth int, leaf text) returns json
language plpgsql as $$
declare
  value json := to_json(leaf);
begin
  for n in 1..depth loop
    value := json_build_array(value);
  end loop;
  return json_build_array(json_build_object(
    'tableName', 'deep', 'operation', 'put', 'pk', 'a', 'opId', op_id, 'deviceId', 'd',
    'hlc', 'h', 'clock', clock, 'payload', json_build_object('deep', value)));
end
$$";

/// Letters that no compression makes less of.
fn noise(seed: u64, length: usize) -> String {
    let mut random = StdRng::seed_from_u64(seed);
    (0..length)
        .map(|_| char::from(random.random_range(b'0'..=b'z')))
        .map(|c| if c == '\\' { '~' } else { c })
        .collect()
}
