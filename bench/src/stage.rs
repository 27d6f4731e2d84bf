//! The ops, laid out before the clock runs: as JSON batches for those who take
//! a push, as rows for those who write them with plain SQL.

use anyhow::Result;
use postgres::Client;

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
    /// Version 4 UUIDs.
    Random,
    /// Ascending, as version 7 UUIDs are.
    TimeOrdered,
    /// New ops on the records of another kind, with this clock.
    Of { kind: &'static str, clock: i64 },
}

/// About what the payload of an ordinary op takes.
pub const PAYLOAD: usize = 550;

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
    let (ids, clock) = match ids {
        Ids::Random => ("gen_random_uuid()::text as pk, gen_random_uuid() as op_id".to_owned(), 1),
        Ids::TimeOrdered => (
            "overlay(gen_random_uuid()::text placing to_hex(nextval('bench.ordered') + 268435456) from 1 for 8) as pk,
             overlay(gen_random_uuid()::text placing to_hex(currval('bench.ordered') + 268435456) from 1 for 8)::uuid as op_id"
                .to_owned(),
            1,
        ),
        Ids::Of { kind, clock } => (
            format!(
                "(select pk from bench.rows r where r.kind = '{kind}' and r.batch = b and r.i = n.i) as pk,
                 gen_random_uuid() as op_id"
            ),
            clock,
        ),
    };
    client.batch_execute(&format!(
        "insert into bench.rows
           select '{name}', b, i, 'notes', pk, 'put', json_build_object('id', pk, 'body', body), {clock},
             '1767225600000:0000:device-1', 'device-1', op_id
           from (select b, i, {ids},
               (select string_agg(md5(random()::text || k || i), '') from generate_series(1, greatest(1, {payload_bytes} / 32)) k) as body
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
