//! Tests that run inside a backend, by topic; each in a transaction that is rolled
//! back. The golden tests cover what SQL users see; these need Rust, or access the
//! tables directly.

mod calls;
mod tables;

use pgrx::Spi;

/// A put of `notes`/`pk`; `id` determines the opId.
fn put(id: u32, pk: &str, clock: u32) -> String {
    format!(
        r#"{{"tableName":"notes","operation":"put","pk":"{pk}","payload":{{"n":{clock}}},"stamp":{{"deviceId":"d","opId":"{id:08x}-0000-4000-8000-000000000000","hlc":"h","clock":{clock}}}}}"#
    )
}

fn push(workspace: &str, ops: &[String]) -> String {
    let ops = format!("[{}]", ops.join(","));
    text("select sync_push($1, $2::json)::text", &[workspace.into(), ops.into()])
}

fn text(sql: &str, arguments: &[pgrx::datum::DatumWithOid<'_>]) -> String {
    Spi::get_one_with_args::<String>(sql, arguments)
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
        .unwrap_or_else(|| panic!("{sql}: no value"))
}

fn register() {
    Spi::run("select sync_register_table('notes')").expect("registers");
}
