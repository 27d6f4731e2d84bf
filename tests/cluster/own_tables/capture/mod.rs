//! What SQL changes in attached tables becomes ops of the server.

mod around;
mod cascades;
mod commits;
mod images;
mod isolation;
mod limits;
mod presumed;
mod pushes;
mod replication;
mod restoring;
mod rows;

use postgres::Client;
pub use sync_ext_harness::attached::require_equal as compare;
use sync_ext_harness::steps::Stage;

/// A table of tasks in workspaces, attached.
const TASKS: &str = "create table tasks (id int primary key, workspace_id text, title text,
                       done boolean not null default false);
                     select sync_attach_table('tasks')";

/// A database with what `sql` makes.
fn stage(sql: &str) -> Stage {
    let mut stage = Stage::new();
    stage.admin.batch_execute(sql).unwrap();
    stage
}

/// The ops of a workspace, in their order: operation, pk, and what it writes.
fn ops(client: &mut Client, workspace: &str) -> Vec<String> {
    let sql = "select concat_ws(' ', operation, pk, coalesce(patch, payload)::text)
                 from sync_ext.change_log join sync_ext.workspace using (workspace_key)
                where workspace_id = $1 order by server_version";
    client.query(sql, &[&workspace]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// The ops that `sql` makes in workspace `w`, sorted. Log and tables are then compared.
fn ops_of(client: &mut Client, sql: &str) -> Vec<String> {
    let before = ops(client, "w").len();
    client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    compare(client);
    let mut made = ops(client, "w").split_off(before);
    made.sort();
    made
}

/// The payload of a task.
fn task(id: i32, title: &str) -> String {
    format!(r#"{{"id":{id},"title":"{title}","done":false}}"#)
}
