//! What it costs to ask who calls: calls that are checked beside trusted ones,
//! and refused ones beside each other.

use anyhow::{Context, Result, ensure};
use postgres::Client;
use postgres::error::SqlState;
use postgres::types::Type;

use crate::bench::Bench;
use crate::pulls::{ENDS, idle};
use crate::report::Row;
use crate::rounds::{Side, seconds, take_turns_by_median};
use crate::stage::{self, Ids, Kind, PAYLOAD};

/// Calls per side and round: the differences are small.
const CALLS: usize = 2000;

/// Pushes that the server does on its own, one transaction each. Whether the
/// client sleeps when its answer comes is luck, and larger than the difference.
const STRETCH: usize = 20;

/// How a session is known: not at all, by our members, by a membership function.
const TRUSTED: (&str, &str) = ("trusted", "");
const CHECKED: (&str, &str) = ("checked", "set sync_ext.user_id = 'ann'");
const BY_FUNCTION: (&str, &str) = (
    "by a function",
    "set sync_ext.user_id = 'ann'; set sync_ext.membership_function = 'bench.role_of'",
);
const WAYS: [(&str, &str); 3] = [TRUSTED, CHECKED, BY_FUNCTION];

const PUSH_EACH: &str =
    "create procedure bench.push_each(of_kind text, first integer, last integer)
    language plpgsql as $$ begin
      for n in first .. last loop
        perform pg_column_size(sync_push('access', ops)) from bench.staged
          where kind = of_kind and batch = n;
        commit;
      end loop;
    end $$";

const MEMBERS: &str =
    "select sync_create_workspace('access', 'bob'), sync_create_workspace('bobs', 'bob'),
      sync_set_member('access', 'ann', 'editor'), sync_set_member('pulled', 'ann', 'editor');
    create table bench.member (workspace_id text, user_id text, role text,
      primary key (workspace_id, user_id));
    insert into bench.member select workspace_id, user_id, role from sync_ext.member;
    create function bench.role_of(of_user text, of_workspace text) returns text stable language sql
      return (select role from bench.member
        where user_id = of_user and workspace_id = of_workspace)";

impl Bench {
    pub fn access(&mut self) -> Result<Vec<Row>> {
        self.lay_out_log()?;
        self.admin.batch_execute(MEMBERS)?;
        self.admin.batch_execute(PUSH_EACH)?;
        let mut rows = Vec::new();
        let sync = ["trusted 1", "checked 1", "by function 1"];
        rows.extend(self.checked_pushes("push 1, sync commit", sync, "on")?);
        let waits_not = ["trusted 1, async", "checked 1, async", "by function 1, async"];
        rows.extend(self.checked_pushes("push 1, async commit", waits_not, "off")?);
        rows.extend(self.checked_pulls()?);
        rows.extend(self.refusals()?);
        Ok(rows)
    }

    /// One op each, all to one workspace.
    fn checked_pushes(
        &mut self,
        name: &str,
        kinds: [&'static str; 3],
        synchronous_commit: &str,
    ) -> Result<Vec<Row>> {
        let mut sides = Vec::new();
        for (kind, (side, way)) in kinds.into_iter().zip(WAYS) {
            let batches = CALLS * (self.rounds + 1);
            let ids = Ids::Random;
            let kind = Kind { name: kind, size: 1, batches, payload_bytes: PAYLOAD, ids };
            stage::fill(&mut self.admin, &kind)?;
            let mut client = self.session(way)?;
            client.batch_execute(&format!("set synchronous_commit = {synchronous_commit}"))?;
            let push = client.prepare("call bench.push_each($1, $2, $3)")?;
            sides.push(Side::timing_itself(side, move |stretch| {
                let first = (stretch * STRETCH) as i32;
                let last = first + STRETCH as i32 - 1;
                let seconds = seconds(|| {
                    client.execute(&push, &[&kind.name, &first, &last])?;
                    Ok(())
                })?;
                Ok(seconds / STRETCH as f64)
            }));
        }
        self.admin.batch_execute("checkpoint")?;
        self.beside_trusted(name, CALLS / STRETCH, sides)
    }

    /// Pages that stay in the server.
    fn checked_pulls(&mut self) -> Result<Vec<Row>> {
        let mut sides = Vec::new();
        for (side, way) in WAYS {
            let mut client = self.session(way)?;
            let sql = "select pg_column_size(sync_pull('pulled', $1, 100))";
            let pull = client.prepare_typed(sql, &[Type::INT8])?;
            sides.push(Side::new(side, move |call| {
                client.query_one(&pull, &[&(call as i64 * 100 % ENDS)])?;
                Ok(())
            }));
        }
        self.beside_trusted("pull, pages of 100", CALLS, sides)
    }

    fn beside_trusted(&self, name: &str, calls: usize, sides: Vec<Side<'_>>) -> Result<Vec<Row>> {
        let series = take_turns_by_median(&self.bar, self.rounds, calls, sides)?;
        let row = |way| series.row(&format!("{name}, {way}"), way, TRUSTED.0);
        Ok([CHECKED.0, BY_FUNCTION.0].map(row).into())
    }

    /// Whole calls by a user who is no member: what they take must not tell
    /// whether the workspace exists.
    fn refusals(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (name, call) in [
            ("refused pull", "select sync_pull($1)"),
            ("refused push", "select sync_push($1, '[]')"),
        ] {
            let mut sides = Vec::new();
            for (side, workspace) in [("unknown workspace", "cobs"), ("no member", "bobs")] {
                let mut client = self.session(CHECKED.1)?;
                let call = client.prepare_typed(call, &[Type::TEXT])?;
                sides.push(Side::timing_itself(side, move |_| {
                    idle();
                    seconds(|| {
                        let answer = client.query_one(&call, &[&workspace]);
                        let error = answer.err().context("a call that is refused")?;
                        ensure!(error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE), error);
                        Ok(())
                    })
                }));
            }
            let series = take_turns_by_median(&self.bar, self.rounds, CALLS, sides)?;
            rows.push(series.row(name, "unknown workspace", "no member"));
        }
        Ok(rows)
    }

    fn session(&self, way: &str) -> Result<Client> {
        let mut client = self.connect()?;
        client.batch_execute(way)?;
        Ok(client)
    }
}
