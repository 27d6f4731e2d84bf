//! What a router costs: whole calls through one, beside the same calls without it. The router is a
//! database of the same server, so that no network is between them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use postgres::Client;
use postgres::types::Type;

use crate::bench::Bench;
use crate::report::Row;
use crate::rounds::{Side, seconds, take_turns};

/// Calls per side and round.
const CALLS: usize = 500;

/// Ops of new ids, $2 of them.
const PUSH: &str = "select pg_column_size(sync_push($1, json_agg(json_build_object(
      'tableName', 'notes', 'operation', 'put', 'pk', gen_random_uuid(),
      'payload', json_build_object('body', repeat('x', 500)),
      'stamp', json_build_object('deviceId', 'device-1', 'opId', gen_random_uuid(),
        'hlc', '1767225600000:0000:device-1', 'clock', 1)))))
    from generate_series(1, $2::int4)";
const POLL: &str = "select pg_column_size(sync_pull($1, 1000)) where $2 = 0";
const PULL: &str = "select pg_column_size(sync_pull($1, 0, $2))";
const ACKNOWLEDGE: &str = "select pg_column_size(sync_update_cursor($1, 'phone', 0)) where $2 = 0";
const FAIL: &str = "select sync_pull($1, $2)";

const WAYS: [(&str, &str); 2] = [("router", "routed"), ("direct", "bench")];

impl Bench {
    pub fn router(&mut self) -> Result<Vec<Row>> {
        let sql = "select from pg_available_extensions where name = 'plproxy'";
        if self.admin.query(sql, &[])?.is_empty() {
            self.bar.println("PL/Proxy is not available here: the router is not measured");
            return Ok(Vec::new());
        }
        self.install_router()?;
        let mut pushed = self.connect()?;
        pushed.query_one(PUSH, &[&"polled", &1000])?;
        let mut rows = Vec::new();
        for (name, sql, argument) in [
            ("push 1", PUSH, 1),
            ("push 100", PUSH, 100),
            ("empty poll", POLL, 0),
            ("pull 100", PULL, 100),
            ("acknowledge", ACKNOWLEDGE, 0),
            ("an error", FAIL, -1),
        ] {
            rows.push(self.routed(&format!("{name}, through a router"), sql, argument)?);
        }
        Ok(rows)
    }

    fn install_router(&self) -> Result<()> {
        let cluster = &self.stand.cluster;
        cluster.connect("bench")?.batch_execute("create database routed")?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql/router/router.sql");
        let printed = cluster.psql_quietly("routed", &script)?;
        ensure!(printed.is_empty(), "{printed}");
        let address = cluster.address("bench").replace('\'', "''");
        Ok(cluster.connect("routed")?.batch_execute(&format!(
            "create server sync foreign data wrapper plproxy options (p0 '{address}');
             create user mapping for public server sync;
             insert into sync_router.bucket select b, 0 from generate_series(0, 1023) as b"
        ))?)
    }

    fn routed(&self, name: &str, sql: &str, argument: i32) -> Result<Row> {
        let mut sides = Vec::new();
        for (side, database) in WAYS {
            let mut client: Client = self.stand.cluster.connect(database)?;
            let call = client.prepare_typed(sql, &[Type::TEXT, Type::INT4])?;
            let workspace = if sql == PUSH { side } else { "polled" };
            sides.push(Side::timing_itself(side, move |_| {
                seconds(|| {
                    let answer = client.query_one(&call, &[&workspace, &argument]);
                    if sql == FAIL {
                        answer.err().context("a call that fails")?;
                    } else {
                        answer?;
                    }
                    Ok(())
                })
            }));
        }
        let series = take_turns(&self.bar, self.rounds, CALLS, sides)?;
        Ok(series.row(name, WAYS[0].0, WAYS[1].0))
    }
}
