//! Readers that follow a part of a workspace: one of a hundred scopes.

use anyhow::Result;
use postgres::Client;
use postgres::types::Type;

use crate::bench::Bench;
use crate::report::Row;
use crate::rounds::{Side, alternate, seconds};

/// Records, a hundredth of them in each scope, or in the table `rare`.
const RECORDS: i64 = 100_000;
const OF_SCOPE: i64 = RECORDS / 100;

/// Pushes a thousand records, the $2-th thousand, to workspace $1.
const PUSH: &str = "select pg_column_size(sync_push($1, json_agg(json_build_object(
      'tableName', case when $1 = 'scoped' then 'cards' when i % 100 = 7 then 'rare' else 'notes' end,
      'operation', 'put', 'pk', id,
      'payload', json_build_object('id', id, 'project', 'p' || i % 100, 'body', repeat(id, 16)),
      'stamp', json_build_object('deviceId', 'device-1', 'opId', gen_random_uuid(),
        'hlc', '1767225600000:0000:device-1', 'clock', 1)))))
    from (select i, md5(($2::int8 * 1000 + i)::text) as id from generate_series(1, 1000) i) x";

/// Ten of them, and that one more.
const TEN: &str = "{p10,p11,p12,p13,p14,p15,p16,p17,p18,p19}";
const ELEVEN: &str = "{p10,p11,p12,p13,p14,p15,p16,p17,p18,p19,p7}";

impl Bench {
    pub fn scopes(&mut self) -> Result<Vec<Row>> {
        self.admin.batch_execute(
            "select sync_register_table('cards', scope_field => 'project'), sync_register_table('rare')",
        )?;
        let push = self.admin.prepare_typed(PUSH, &[Type::TEXT])?;
        for thousand in 0..RECORDS / 1000 {
            for workspace in ["scoped", "tabled"] {
                self.admin.query_one(&push, &[&workspace, &thousand])?;
            }
        }
        for table in ["sync_ext.change_log", "sync_ext.record"] {
            self.admin.batch_execute(&format!("vacuum analyze {table}"))?;
        }
        Ok(vec![self.scoped_pull()?, self.scoped_snapshot()?, self.one_scope_more()?])
    }

    /// A whole log, of which a hundredth is told.
    fn scoped_pull(&mut self) -> Result<Row> {
        let side = |name, workspace, filter: &str| -> Result<Side<'static>> {
            let mut client = self.connect()?;
            let sql = format!("select pg_column_size(sync_pull('{workspace}', 0, 1000, {filter}))");
            let pull = client.prepare(&sql)?;
            Ok(Side::new(name, move |_| Ok(client.query_one(&pull, &[]).map(drop)?)))
        };
        let sides = vec![
            side("one scope", "scoped", "scopes => '{p7}'")?,
            side("one table", "tabled", "tables => '{rare}'")?,
        ];
        let series = alternate(&self.bar, self.rounds, 1, sides)?;
        Ok(series.row("pull, scope of 1 % of 100,000", "one scope", "one table"))
    }

    /// By the row.
    fn scoped_snapshot(&mut self) -> Result<Row> {
        let sides = vec![
            self.listing("one scope", "scopes => '{p7}'", OF_SCOPE)?,
            self.listing("all", "scopes => null", RECORDS)?,
        ];
        let series = alternate(&self.bar, self.rounds, 1, sides)?;
        Ok(series.row("snapshot of a scope, a row", "one scope", "all"))
    }

    /// A list that gets longer, by the new rows.
    fn one_scope_more(&mut self) -> Result<Row> {
        let proof = format!("select sync_pull('scoped', scopes => '{TEN}') ->> 'proof'");
        let proof: String = self.admin.query_one(&proof, &[])?.get(0);
        let more = format!("scopes => '{ELEVEN}', have => '{TEN}', proof => '{proof}'");
        let sides = vec![
            self.listing("one more", &more, OF_SCOPE)?,
            self.listing("that one alone", "scopes => '{p7}'", OF_SCOPE)?,
        ];
        let series = alternate(&self.bar, self.rounds, 1, sides)?;
        Ok(series.row("one scope more than 10, a row", "one more", "that one alone"))
    }

    fn listing(&self, name: &'static str, list: &str, rows: i64) -> Result<Side<'static>> {
        let mut client: Client = self.connect()?;
        let sql = format!(
            "select reply ->> 'nextPageToken' from sync_snapshot('scoped', $1, 1000, {list}) reply"
        );
        let page = client.prepare_typed(&sql, &[Type::TEXT])?;
        Ok(Side::timing_itself(name, move |_| {
            let all = seconds(|| {
                let mut token: Option<String> = None;
                loop {
                    token = client.query_one(&page, &[&token])?.get(0);
                    if token.is_none() {
                        return Ok(());
                    }
                }
            })?;
            Ok(all / rows as f64)
        }))
    }
}
