//! Reading: pages of the log, what is new since a while ago, snapshots. Pages
//! stay in the server, as what COPY writes to /dev/null does; polls are whole
//! calls.

use anyhow::Result;
use postgres::types::Type;

use crate::bench::Bench;
use crate::report::Row;
use crate::rounds::{Side, alternate, seconds, take_turns};
use crate::stand::head;

const COPY: &str = "COPY to /dev/null";

/// What a pull tells of the entries of workspace `pulled`. Not as a join: the key is known
/// when the log is planned.
const ENTRIES: &str = "select server_version, table_name, pk, operation, applied, payload,
      clock, hlc, device_id, op_id
    from sync_ext.change_log l
    where workspace_key = (select workspace_key from sync_ext.workspace where workspace_id = 'pulled')";

const LATEST: &str = "exists (select from sync_ext.record r
      where r.workspace_key = l.workspace_key and r.table_name = l.table_name
        and r.pk = l.pk and r.server_version = l.server_version)";

/// What a snapshot tells.
const RECORDS: &str =
    "select r.table_name, r.pk, l.payload, r.clock, r.hlc, r.op_id, r.server_version
    from sync_ext.record r join sync_ext.change_log l using (workspace_key, server_version)
    where workspace_key = (select workspace_key from sync_ext.workspace where workspace_id = 'pulled')
    order by r.table_name, r.pk";

/// A table of the newest entries alone, with the index that suits one table's best. An app would
/// have to keep it up.
const NEWEST: &str = "create table bench.latest as select l.* from sync_ext.change_log l
      join sync_ext.record r using (workspace_key, table_name, pk, server_version)
    where workspace_key = (select workspace_key from sync_ext.workspace where workspace_id = 'pulled');
    create index on bench.latest (table_name, server_version)";

/// Pushes a thousand records with clock $1, the $2-th thousand, a quarter of
/// them tasks and a tenth tags.
const PUSH: &str = "select pg_column_size(sync_push('pulled', json_agg(json_build_object(
      'tableName', case when i % 10 = 1 then 'tags' when i % 4 = 0 then 'tasks' else 'notes' end,
      'operation', 'put', 'pk', id,
      'payload', json_build_object('id', id, 'body', repeat(id, 17)),
      'stamp', json_build_object('deviceId', 'device-1', 'opId', gen_random_uuid(),
        'hlc', '1767225600000:0000:device-1', 'clock', $1::int8)))))
    from (select i, md5(($2::int8 * 1000 + i)::text) as id from generate_series(1, 1000) i) x";

/// The rows of the pull by time stamps, a millisecond apart.
const TIMESTAMPS: &str = "insert into \"timestamp\".row
    select workspace_key, table_name, pk, payload,
      '2026-01-01'::timestamptz + server_version * interval '1 ms'
    from sync_ext.change_log join sync_ext.workspace using (workspace_key)
    where workspace_id = 'pulled' and clock = 1";

/// Entries that pages are read of.
pub const ENDS: i64 = 30_000;

/// Devices poll now and then, so a poll meets processes that sleep. Back to back
/// it meets, or not, a processor that still spins for the next one, and what is
/// measured is luck.
pub fn idle() {
    std::thread::sleep(std::time::Duration::from_micros(500));
}

impl Bench {
    /// A log to read: records, then updates of half of them, so that `latest`
    /// has something to leave out. Gives its head.
    pub fn lay_out_log(&mut self) -> Result<i64> {
        let sql = "select count(*) from sync_ext.workspace where workspace_id = 'pulled'";
        if self.admin.query_one(sql, &[])?.get::<_, i64>(0) == 0 {
            let register = "select sync_register_table(t) from unnest('{tasks,tags}'::text[]) t";
            self.admin.batch_execute(register)?;
            let push = self.admin.prepare(PUSH)?;
            let thousands = ENDS / 1000;
            for (clock, batches) in [(1i64, thousands), (2, thousands / 2)] {
                for batch in 0..batches {
                    self.admin.query_one(&push, &[&clock, &batch])?;
                }
            }
            self.admin.batch_execute(TIMESTAMPS)?;
            let (log, record) = ("sync_ext.change_log", "sync_ext.record");
            for table in ["sync_ext.workspace", log, record, "\"timestamp\".row"] {
                self.admin.batch_execute(&format!("vacuum analyze {table}"))?;
            }
        }
        head(&mut self.admin, "pulled")
    }

    /// Pages of the whole log against COPY of the same rows, and against pulls
    /// built by json_agg.
    pub fn pages(&mut self) -> Result<Vec<Row>> {
        const BY_TIME: &str = "pg_column_size(\"timestamp\".pull(
            (select workspace_key from sync_ext.workspace where workspace_id = 'pulled'),
            '2026-01-01'::timestamptz + $1 * interval '1 ms', $2))";
        self.lay_out_log()?;
        let mut rows = Vec::new();
        for page in [1000, 100] {
            let sides = vec![
                self.reader("sync_ext", "pg_column_size(sync_pull('pulled', $1, $2))", page)?,
                self.copy(page, move |from| {
                    let to = from + page;
                    format!("server_version > {from} and server_version <= {to}")
                })?,
                self.reader("json_agg", "pg_column_size(expert.pull('pulled', $1, $2))", page)?,
                self.reader("updated_at > since", BY_TIME, page)?,
            ];
            let series = alternate(&self.bar, self.rounds, (ENDS / page) as usize, sides)?;
            let name = format!("pull, pages of {page}");
            rows.push(series.row(&name, "sync_ext", COPY));
            for (peer, short) in [("json_agg", "json_agg"), ("updated_at > since", "updated_at")] {
                rows.push(series.row(&format!("{name} / {short}"), "sync_ext", peer));
            }
        }
        Ok(rows)
    }

    /// A side that reads pages from versions 0, `page`, ..., by an expression of
    /// a cursor and a limit.
    fn reader(&self, name: &'static str, expression: &str, page: i64) -> Result<Side<'static>> {
        let mut client = self.connect()?;
        let sql = format!("select {expression}");
        let statement = client.prepare_typed(&sql, &[Type::INT8, Type::INT4])?;
        let limit = page as i32;
        Ok(Side::new(name, move |_| {
            (0..ENDS / page).try_for_each(|n| {
                client.query_one(&statement, &[&(n * page), &limit])?;
                Ok(())
            })
        }))
    }

    /// A side that copies the entries of a condition, given each page's cursor.
    fn copy(
        &self,
        page: i64,
        condition: impl Fn(i64) -> String + 'static,
    ) -> Result<Side<'static>> {
        let mut client = self.connect()?;
        Ok(Side::new(COPY, move |_| {
            (0..ENDS / page).try_for_each(|n| {
                let condition = condition(n * page);
                Ok(client.batch_execute(&format!(
                    "copy ({ENTRIES} and {condition} order by server_version limit {page})
                       to '/dev/null'"
                ))?)
            })
        }))
    }

    /// Pages without what was superseded, and of one table.
    pub fn filters(&mut self) -> Result<Vec<Row>> {
        self.lay_out_log()?;
        let mut rows = Vec::new();
        for (name, arguments, condition) in [
            ("pull, latest", "latest => true", LATEST),
            ("pull, one table of two", "tables => '{tasks}'", "table_name = 'tasks'"),
        ] {
            let pull = format!("pg_column_size(sync_pull('pulled', $1, $2, {arguments}))");
            let sides = vec![
                self.reader("sync_ext", &pull, 1000)?,
                self.copy(1000, move |from| format!("server_version > {from} and {condition}"))?,
            ];
            let series = alternate(&self.bar, self.rounds, (ENDS / 1000) as usize, sides)?;
            rows.push(series.row(name, "sync_ext", COPY));
        }
        rows.push(self.latest_of_a_tenth()?);
        Ok(rows)
    }

    /// The newest entries of a table that is a tenth of the log, all in one page.
    fn latest_of_a_tenth(&mut self) -> Result<Row> {
        self.admin.batch_execute(NEWEST)?;
        self.admin.batch_execute("vacuum analyze bench.latest")?;
        let (mut ours, mut copy) = (self.connect()?, self.connect()?);
        let limit = ENDS as i32;
        ours.batch_execute(&format!("set sync_ext.max_page_limit = {limit}"))?;
        let pull = "select pg_column_size(sync_pull('pulled', 0, $1, '{tags}', true))";
        let pull = ours.prepare(pull)?;
        let select =
            "copy (select server_version, table_name, pk, operation, applied, payload, clock, hlc,
            device_id, op_id from bench.latest where table_name = 'tags' and server_version > 0
            order by server_version) to '/dev/null'";
        let sides = vec![
            Side::new("sync_ext", move |_| Ok(ours.query_one(&pull, &[&limit]).map(drop)?)),
            Side::new(COPY, move |_| Ok(copy.batch_execute(select)?)),
        ];
        let series = alternate(&self.bar, self.rounds, 1, sides)?;
        Ok(series.row("pull, latest of a tenth", "sync_ext", COPY))
    }

    /// Whole calls of devices that are up to date, a change or a page behind.
    pub fn polls(&mut self) -> Result<Vec<Row>> {
        let head = self.lay_out_log()?;
        let mut rows = Vec::new();
        for (name, behind, polls) in
            [("empty poll", 0, 200), ("poll, 1 behind", 1, 200), ("poll, 1000 behind", 1000, 50)]
        {
            let cursor = head - behind;
            let (mut ours, mut other) = (self.connect()?, self.connect()?);
            let pull = ours.prepare("select sync_pull('pulled', $1, 1000)")?;
            // What the poll reads, by SQL that tells nothing else.
            let (base, sql) = match behind {
                0 => ("select 1", "select 1".to_owned()),
                _ => (
                    "SELECT",
                    format!(
                        "{ENTRIES} and server_version > {cursor} order by server_version limit 1000"
                    ),
                ),
            };
            let select = other.prepare(&sql)?;
            let sides = vec![
                Side::timing_itself("sync_ext", move |_| {
                    idle();
                    seconds(|| ours.query_one(&pull, &[&cursor]).map(drop).map_err(Into::into))
                }),
                Side::timing_itself(base, move |_| {
                    idle();
                    seconds(|| other.query(&select, &[]).map(drop).map_err(Into::into))
                }),
            ];
            let series = take_turns(&self.bar, self.rounds, polls, sides)?;
            rows.push(series.row(name, "sync_ext", base));
        }
        Ok(rows)
    }

    /// A whole snapshot, page by page. The pages' tokens are known, as a client finds them in
    /// the replies that it gets; in the server that would be another parse of each.
    pub fn snapshots(&mut self) -> Result<Vec<Row>> {
        self.lay_out_log()?;
        let (mut ours, mut copy) = (self.connect()?, self.connect()?);
        let sql = "select reply ->> 'nextPageToken' from sync_snapshot('pulled', $1, 1000) reply";
        let next = ours.prepare_typed(sql, &[Type::TEXT])?;
        let mut tokens: Vec<Option<String>> = vec![None];
        while let Some(token) = ours.query_one(&next, &[&tokens.last()])?.get(0) {
            tokens.push(Some(token));
        }
        let sql = "select pg_column_size(sync_snapshot('pulled', $1, 1000))";
        let page = ours.prepare_typed(sql, &[Type::TEXT])?;
        let sides = vec![
            Side::new("sync_ext", move |_| {
                tokens.iter().try_for_each(|token| Ok(ours.query_one(&page, &[token]).map(drop)?))
            }),
            Side::new(COPY, move |_| {
                Ok(copy.batch_execute(&format!("copy ({RECORDS}) to '/dev/null'"))?)
            }),
        ];
        let series = alternate(&self.bar, self.rounds, (ENDS / 1000) as usize, sides)?;
        Ok(vec![series.row("snapshot, pages of 1000", "sync_ext", COPY)])
    }
}
