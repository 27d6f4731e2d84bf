//! Moving a workspace from one server to another, call by call, as a mover does that may be
//! killed between any two.

use anyhow::{Context, Result};
use postgres::{Client, GenericClient};
use serde_json::{Value, json};

/// What a mover does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    ExportBegin,
    ImportBegin,
    ExportPage,
    ImportPage,
    Hold,
    Depart,
    Arrive,
    /// The map names the new server.
    Map,
    Forget,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    Moved,
    /// Not allowed to take this step.
    Killed(Step),
}

pub struct Mover<'m> {
    pub workspace_id: &'m str,
    pub move_id: &'m str,
    pub to: &'m str,
}

impl Mover<'_> {
    /// Goes on where the servers are. Before each step `may` is asked.
    pub fn run(
        &self,
        from: &mut Client,
        to: &mut Client,
        mut may: impl FnMut(Step) -> bool,
    ) -> Result<Ended> {
        macro_rules! take {
            ($step:expr, $call:expr) => {{
                if !may($step) {
                    return Ok(Ended::Killed($step));
                }
                $call.with_context(|| format!("{:?}", $step))?
            }};
        }
        let begun =
            take!(Step::ExportBegin, self.call(from, "sync_export_begin($1, $2, $3)", self.to));
        let mut import = take!(Step::ImportBegin, self.with_json(to, "sync_import_begin", &begun));
        let mut held = false;
        while import["arrived"] == false {
            let page = take!(
                Step::ExportPage,
                self.with_json(from, "sync_export_page", &import["position"])
            );
            import = take!(Step::ImportPage, self.with_json(to, "sync_import_page", &page));
            let (through, head) = (import["through"].as_i64(), page["serverVersion"].as_i64());
            if import["isComplete"] == false || through < head {
                continue;
            }
            if !held {
                held = true;
                take!(Step::Hold, self.hold(from));
            }
            let through = through.context("no version")?.to_string();
            let last = take!(
                Step::Depart,
                self.call(from, "sync_export_depart($1, $2, $3::bigint)", &through)
            );
            if last["departed"] == true {
                take!(Step::Arrive, self.arrive(to, &last));
                break;
            }
        }
        take!(Step::Map, anyhow::Ok(()));
        take!(Step::Forget, self.forget(from));
        Ok(Ended::Moved)
    }

    /// Pushes are refused for a while. Nothing to be done where it has departed.
    fn hold(&self, from: &mut impl GenericClient) -> Result<()> {
        let sql = format!(
            "select sync_export_hold(m.workspace_id, m.move_id, 10) from sync_ext.move as m
              where m.workspace_id = '{}' and m.role = 'departing'",
            self.workspace_id
        );
        Ok(from.batch_execute(&sql)?)
    }

    pub fn arrive(&self, to: &mut impl GenericClient, last: &Value) -> Result<()> {
        let sql = "select sync_import_arrive($1, $2::text::uuid, $3::text::json)";
        to.execute(sql, &[&self.workspace_id, &self.move_id, &last.to_string()])?;
        Ok(())
    }

    pub fn forget(&self, from: &mut impl GenericClient) -> Result<()> {
        let sql = "select sync_export_forget($1, $2::text::uuid)";
        from.execute(sql, &[&self.workspace_id, &self.move_id])?;
        Ok(())
    }

    pub fn with_json(
        &self,
        client: &mut impl GenericClient,
        function: &str,
        argument: &Value,
    ) -> Result<Value> {
        self.call(client, &format!("{function}($1, $2, $3::json)"), &argument.to_string())
    }

    fn call(&self, client: &mut impl GenericClient, call: &str, argument: &str) -> Result<Value> {
        let call = call.replace("$2", "$2::text::uuid").replace("$3", "$3::text");
        let sql = format!("select {call}::text");
        let row = client.query_one(&sql, &[&self.workspace_id, &self.move_id, &argument])?;
        Ok(serde_json::from_str(row.get(0))?)
    }
}

/// The position of an import that has got nothing.
pub fn beginning() -> Value {
    json!({ "through": 0, "hasGraves": false, "graveTable": null, "gravePk": null })
}
