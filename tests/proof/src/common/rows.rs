//! What a server stores, against the model.

use anyhow::{Result, bail, ensure};
use postgres::Client;
use postgres::types::ToSql;
use serde_json::Value;
use sync_ext_model::Server;
use sync_ext_model::rows::{STORED_LOG, STORED_REST, difference};

/// Every row must be what the model says, byte for byte, and there must be no
/// others. Times are compared if `beginning` says when the model's began.
pub fn check(client: &mut Client, model: &Server, beginning: Option<i64>) -> Result<()> {
    let all = None::<String>;
    let mut stored = lines(client, STORED_LOG, &[&all, &0_i64, &beginning])?;
    stored.append(&mut lines(client, STORED_REST, &[&beginning])?);
    stored.sort_unstable();
    same(&stored, &model.lines(beginning.is_some()))
}

/// The entries of one workspace above a version, without their times.
pub fn check_log(client: &mut Client, model: &Server, workspace: &str, above: i64) -> Result<()> {
    let mut stored = lines(client, STORED_LOG, &[&workspace, &above, &None::<i64>])?;
    let state = model.workspaces.get(workspace);
    let mut expected: Vec<String> =
        state.into_iter().flat_map(|state| state.log_lines(workspace, above, false)).collect();
    stored.sort_unstable();
    expected.sort_unstable();
    same(&stored, &expected)
}

fn lines(client: &mut Client, sql: &str, arguments: &[&(dyn ToSql + Sync)]) -> Result<Vec<String>> {
    Ok(client.query(sql, arguments)?.iter().map(|row| row.get(0)).collect())
}

fn same(stored: &[String], expected: &[String]) -> Result<()> {
    difference(stored, expected).map_or(Ok(()), |difference| bail!(difference))
}

/// A reply must be what the model says.
pub fn check_reply(what: &str, reply: &Value, expected: &Value) -> Result<()> {
    ensure!(reply == expected, "{what} was answered\n  {reply}\nwhere\n  {expected}\nis right");
    Ok(())
}
