//! What people and tools do to the tables, by hand and by command: what is harmless
//! goes on, the rest is refused, and nothing is lost.

mod access_path;
mod by_hand;
mod counters;
mod cron;
mod differential;
mod in_turn;
mod keys;
mod limits;
mod publications;
mod repack;
mod server_ops;
mod shapes;
mod under_load;

use postgres::GenericClient;
use sync_ext_harness::batch::{delete, push, put};
use sync_ext_harness::database::Database;

/// A database with a workspace `w` in which there are a record, a tombstone, a loser
/// and a device, and a member of `team`.
fn furnished() -> Database {
    let database = Database::new();
    let mut admin = database.session();
    admin
        .batch_execute("select sync_register_table('notes'), sync_create_workspace('team', 'ann')")
        .unwrap();
    let ops = [put(1, "a", 1), put(2, "b", 1), delete(3, "b", 2), put(4, "a", 0)];
    push(&mut admin, "w", &ops);
    admin.execute("select sync_update_cursor('w', 'phone', 4)", &[]).unwrap();
    database
}

/// A push of one op, as SQL.
fn push_sql(id: u64, pk: &str, clock: u64) -> String {
    format!("select sync_push('w', '[{}]')", put(id, pk, clock))
}

/// SQLSTATE and DETAIL of a statement that must fail.
fn refusal(session: &mut impl GenericClient, sql: &str) -> (String, String) {
    let Err(error) = session.batch_execute(sql) else { panic!("not refused: {sql}") };
    let Some(error) = error.as_db_error() else { panic!("not the server's: {error:?}") };
    (error.code().code().to_owned(), error.detail().unwrap_or_default().to_owned())
}
