//! The ops, laid out before the clock runs: as JSON batches for those who take
//! a push, as rows for those who write them with plain SQL.

use anyhow::Result;
use postgres::Client;

/// About what the payload of an ordinary op takes; the op has 0.7 KB then.
pub const PAYLOAD: usize = 550;

/// Batches of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub name: &'static str,
    /// Ops in a batch.
    pub size: usize,
    pub batches: usize,
    /// About what one payload takes.
    pub payload_bytes: usize,
    pub ids: Ids,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// New records, version 4 UUIDs.
    Random,
    /// New records, ascending as version 7 UUIDs are.
    TimeOrdered,
    /// New ops on the records of another kind, with this clock.
    Of { kind: &'static str, clock: i64 },
    /// Six of ten ops on new records, three puts and a delete on those of
    /// another kind.
    Mixed { kind: &'static str },
}

pub fn create(client: &mut Client) -> Result<()> {
    client.batch_execute(
        "create schema bench;
         create unlogged table bench.rows (kind text, batch integer, i integer, table_name text,
           pk text, operation text, payload json, clock bigint, hlc text, device_id text, op_id uuid);
         create index on bench.rows (kind, batch, i);
         create unlogged table bench.staged (kind text, batch integer, ops json, primary key (kind, batch));
         alter table bench.staged alter column ops set storage external;
         create sequence bench.ordered;",
    )?;
    Ok(())
}

/// Lays out the batches of a kind, numbered from 0.
pub fn fill(client: &mut Client, kind: &Kind) -> Result<()> {
    let Kind { name, size, batches, payload_bytes, ids } = *kind;
    let ordered = |call: &str| {
        format!(
            "overlay(gen_random_uuid()::text placing to_hex({call}('bench.ordered') + 268435456) from 1 for 8)"
        )
    };
    let known = |kind: &str| {
        format!(
            "(select pk from bench.rows r where r.kind = '{kind}' and r.batch = b and r.i = n.i)"
        )
    };
    let random = "gen_random_uuid()".to_owned();
    let put = "'put'".to_owned();
    let (pk, op_id, clock, operation) = match ids {
        Ids::Random => (random.clone(), random, 1, put),
        Ids::TimeOrdered => (ordered("nextval"), ordered("currval"), 1, put),
        Ids::Of { kind, clock } => (known(kind), random, clock, put),
        Ids::Mixed { kind } => (
            format!("case when n.i % 10 < 6 then gen_random_uuid()::text else {} end", known(kind)),
            random,
            3,
            "case when i % 10 = 9 then 'delete' else 'put' end".to_owned(),
        ),
    };
    // Whatever is large enough to be compressed must be as hard to compress as
    // real data; the rest need not cost as much to make up.
    let body = match payload_bytes {
        0..=1000 => format!("repeat(md5(random()::text || i), greatest(1, {payload_bytes} / 32))"),
        _ => format!(
            "(select string_agg(md5(random()::text || k || i), '')
               from generate_series(1, {payload_bytes} / 32) k)"
        ),
    };
    client.batch_execute(&format!(
        "insert into bench.rows
           select '{name}', b, i, 'notes', pk, operation,
             case when operation = 'put' then json_build_object('id', pk, 'body', body) end, {clock},
             '1767225600000:0000:device-1', 'device-1', op_id
           from (select b, i, ({pk})::text as pk, ({op_id})::uuid as op_id, {operation} as operation,
               {body} as body
             from generate_series(0, {batches} - 1) b, generate_series(1, {size}) as n (i)) x;
         insert into bench.staged
           select kind, batch, json_agg(json_build_object('tableName', table_name, 'operation', operation,
             'pk', pk, 'payload', payload, 'stamp', json_build_object('deviceId', device_id, 'opId', op_id,
             'hlc', hlc, 'clock', clock)) order by i)
           from bench.rows where kind = '{name}' group by kind, batch;
         analyze bench.rows; analyze bench.staged;"
    ))?;
    Ok(())
}

/// The JSON of a batch, for those who are not in the database.
pub fn json(client: &mut Client, kind: &str, batch: usize) -> Result<String> {
    let sql = "select ops::text from bench.staged where kind = $1 and batch = $2";
    Ok(client.query_one(sql, &[&kind, &(batch as i32)])?.get(0))
}
