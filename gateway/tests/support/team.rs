//! A team and its gateway, as an administrator makes them.

use postgres::error::SqlState;
use postgres::{Client, Error};

const README: &str = include_str!("../../README.md");

/// As the README says, the gateway's role, which may do nothing but call, notes,
/// which are everybody's, and ann's workspace `team`. To that the editor bob and the
/// viewer vic, and diaries, whose records are their owners'.
pub fn prepare(admin: &mut Client, database: &str) -> Result<(), Error> {
    let (_, sql) = README.split_once("```sql\n").expect("a block of SQL");
    let (sql, _) = sql.split_once("```").expect("its end");
    let sql = sql.replace("DATABASE app", &format!("DATABASE {database}"));
    for statement in sql.split(';') {
        match admin.batch_execute(statement) {
            // Roles are all databases'.
            Err(error) if error.code() == Some(&SqlState::DUPLICATE_OBJECT) => {}
            done => done?,
        }
    }
    admin.batch_execute(
        "select sync_register_table('diary', owner_field => 'by'),
                sync_set_member('team', 'bob', 'editor'),
                sync_set_member('team', 'vic', 'viewer')",
    )
}
