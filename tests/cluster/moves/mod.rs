//! Several servers: what each of them serves, and workspaces that go from one to another.
//!
//! The servers are databases of one cluster, or clusters where scripts split, replicate and restore
//! them. Each test names a moment or an order in which a
//! wrong step would lose an op, serve two copies, or show a device another history.

mod fences;
mod followers;
mod ownership;
mod replicated;
mod restoring;
mod scripts;
mod splitting;
mod steps;
mod whole;

use postgres::{Client, GenericClient};
use sync_ext_harness::device::call;
use sync_ext_harness::moves::{Ended, Mover, Step};
use sync_ext_harness::steps::Stage;

const FIRST: &str = "00000000-0000-4000-8000-000000000001";
const SECOND: &str = "00000000-0000-4000-8000-000000000002";

/// Two servers, `a` and `b`, with keys of their own.
struct Servers {
    a: Stage,
    b: Stage,
}

impl Servers {
    fn new() -> Servers {
        let (mut a, mut b) = (Stage::new(), Stage::new());
        for (number, stage) in [(1, &mut a), (2, &mut b)] {
            let register = "select sync_register_table('notes', patches => true)";
            stage.admin.batch_execute(register).unwrap();
            stage.admin.execute("select sync_set_key_range($1)", &[&number]).unwrap();
        }
        Servers { a, b }
    }

    /// Moves `w` from `a` to `b`, and forgets it there.
    fn move_there(&mut self, move_id: &str) {
        self.there_until(move_id, |_| true);
    }

    /// The same until a step is not to be taken.
    fn there_until(&mut self, move_id: &str, may: impl FnMut(Step) -> bool) -> Ended {
        let mover = Mover { workspace_id: "w", move_id, to: "b" };
        mover.run(&mut self.a.admin, &mut self.b.admin, may).unwrap()
    }

    fn move_back(&mut self, move_id: &str) {
        let mover = Mover { workspace_id: "w", move_id, to: "a" };
        let ended = mover.run(&mut self.b.admin, &mut self.a.admin, |_| true).unwrap();
        assert_eq!(ended, Ended::Moved);
    }
}

/// The SQLSTATE and DETAIL of the error with which a statement fails.
fn error(client: &mut impl GenericClient, sql: &str) -> (String, String) {
    let error = client.batch_execute(sql).expect_err(sql);
    let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}"));
    (error.code().code().to_owned(), error.detail().unwrap_or_default().to_owned())
}

/// That of a workspace that is elsewhere.
fn elsewhere(detail: &str) -> (String, String) {
    ("SX004".to_owned(), detail.to_owned())
}

/// Until nothing is left to do.
fn collect(admin: &mut Client) {
    while text(admin, "select sync_gc() ->> 'hasMore'") == "true" {}
}

fn text(client: &mut Client, sql: &str) -> String {
    call(client, sql, &[]).unwrap()
}

/// Every function that names a workspace.
const CALLS: [&str; 17] = [
    r#"sync_push('w', '[{"opId":"00000000-0000-4000-8000-0000000000ff","tableName":"notes",
       "operation":"put","pk":"new","payload":{},"clock":1,"hlc":"1","deviceId":"d"}]')"#,
    "sync_put('w', 'notes', 'new', '{}')",
    "sync_patch('w', 'notes', 'a', '{\"n\":1}')",
    "sync_delete('w', 'notes', 'a')",
    "sync_pull('w')",
    "sync_snapshot('w')",
    "sync_update_cursor('w', 'd', 0)",
    "sync_exchange('w', 'd', 0, '[]')",
    "sync_gc('w')",
    "sync_create_workspace('w', 'ann')",
    "sync_drop_workspace('w')",
    "sync_set_member('w', 'ann', 'owner')",
    "sync_remove_member('w', 'ann')",
    "sync_list_members('w')",
    "sync_get_role('w', 'ann')",
    "sync_forget_device('w', 'd')",
    "sync_status('w')",
];
