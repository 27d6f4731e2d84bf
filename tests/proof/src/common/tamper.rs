//! Bugs put into a running server, to see that a run sees them.

use anyhow::Result;
use postgres::Client;

/// Puts a function of ours in the place of one of the extension's, which it
/// can call by the name of `genuine`; `body` sets `reply` and returns.
pub fn tamper(client: &mut Client, name: &str, body: &str) -> Result<()> {
    let sql = format!("select pg_get_function_arguments('{name}'::regproc)");
    let arguments: String = client.query_one(&sql, &[])?.get(0);
    client.batch_execute(&format!(
        "alter function {name} rename to genuine;
         create function {name}({arguments}) returns json language plpgsql
         as $$ declare reply json; begin {body} end $$"
    ))?;
    Ok(())
}
