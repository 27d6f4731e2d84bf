//! Tables of the app, attached: what other sessions see of it, and what stays; their rows
//! as records, backfilled, checked and repaired.

mod attaching;
mod backfill;
mod checking;
mod kept;
mod keys;

use postgres::{Client, GenericClient};
use serde_json::Value;
use sync_ext_harness::database::Database;
use sync_ext_harness::device::call;
use sync_ext_harness::steps::Stage;

/// Attached table `tasks` with rows that are no records yet: `count` of them, the first
/// half in workspace `a`, the rest in `b`.
fn tasks(count: i32) -> Stage {
    tasks_in(Database::new(), count)
}

fn tasks_in(database: Database, count: i32) -> Stage {
    let mut stage = Stage::on(database);
    let sql = format!(
        "create table tasks (id integer primary key, workspace_id text not null, title text not null);
         insert into tasks select n, case when n <= {count} / 2 then 'a' else 'b' end, 'task ' || n
         from generate_series(1, {count}) as n;
         select sync_attach_table('tasks')"
    );
    stage.admin.batch_execute(&sql).unwrap();
    stage
}

/// Runs statements one by one: a procedure that commits is called alone.
fn run(client: &mut Client, statements: &str) {
    for statement in statements.split(';') {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
}

fn check(client: &mut impl GenericClient, table: &str) -> Value {
    let reply = call(client, "select sync_check_table($1::text::regclass)::text", &[&table]);
    serde_json::from_str(&reply.unwrap()).unwrap()
}

/// The log of table and records agree.
fn assert_same(client: &mut impl GenericClient, table: &str) {
    let reply = check(client, table);
    assert_eq!(reply["differencesTotal"], 0, "{reply}");
    assert_eq!(reply["rows"], reply["records"], "{reply}");
}
