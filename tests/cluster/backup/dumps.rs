//! pg_dump and pg_restore: nothing is lost, numbering goes on, and devices go
//! on as if nothing had happened; those that are ahead of an older dump are
//! told.

use serde_json::Value;
use sync_ext_harness::batch::{delete, op, push, put};
use sync_ext_harness::database::Database;
use sync_ext_harness::device::{Device, call};
use sync_ext_harness::dump::{Dump, dump};
use sync_ext_harness::loss::Loss;
use sync_ext_harness::state::{of_server, tables};
use sync_ext_harness::steps::{age, gc, share, unpin};

/// In a new database.
fn restored(dump: Dump) -> Database {
    let database = Database::empty();
    dump.restore_into(&database);
    database
}

#[test]
fn a_restored_dump_is_the_same_server() {
    let old = Database::new();
    let mut before = old.session();
    before.execute("select sync_register_table('notes', 'key')", &[]).unwrap();
    push(&mut before, "v", &[put(1, "a", 1)]);
    push(&mut before, "w", &[put(1, "a", 1), delete(2, "a", 2), put(3, "b", 1), put(4, "b", 2)]);
    // A log that GC has been through, with a grave.
    push(&mut before, "collected", &[delete(1, "a", 2), put(2, "b", 1), put(3, "b", 2)]);
    age(&mut before);
    assert_eq!(gc(&mut before, "collected")["tombstonesDeleted"], 1);
    share(&mut before);
    unpin(&mut before, "team");
    let register = "select sync_register_table('cards', scope_field => 'list')";
    before.batch_execute(register).unwrap();
    let card = |id, list: &str| {
        op(id, "c", id, "put", &format!(r#"{{"list":"{list}"}}"#)).replace("notes", "cards")
    };
    push(&mut before, "v", &[card(7, "x"), card(8, "y")]);
    before.batch_execute("call sync_set_scope_field('notes', null)").unwrap();
    let follow = "select sync_pull('v', 2, scopes => '{x}', proof => $1)::text";
    let followed = call(&mut before, follow, &[&None::<&str>]).unwrap();
    assert!(followed.contains(r#""pk":"c","op":"leave""#), "{followed}");
    let mut device = Device::new("phone", "w");
    device.pull(&mut before, 100, false).unwrap();
    device.acknowledge(&mut before).unwrap();

    let new = restored(dump(&old));
    let mut after = new.session();
    let (old, new) = (tables(&mut before).unwrap(), tables(&mut after).unwrap());
    assert!(old.values().all(|rows| !rows.is_empty()));
    assert_eq!(old, new);
    // A key that was erased with all of its rows is not given again either.
    let sql = "select last_value || ' ' || is_called from sync_ext.workspace_workspace_key_seq";
    assert_eq!(call(&mut after, sql, &[]).unwrap(), call(&mut before, sql, &[]).unwrap());

    // A new workspace gets a new key, an old one its next version.
    push(&mut after, "x", &[put(1, "a", 1)]);
    let sql = "select string_agg(workspace_key::text, ',' order by workspace_key)
                 from sync_ext.workspace";
    assert_eq!(call(&mut after, sql, &[]).unwrap(), "1,2,3,5,6");
    assert_eq!(push(&mut after, "w", &[put(4, "b", 2), put(5, "c", 1)]), [4, 5]);
    // GC goes on where it was, and the grave still stands.
    assert_eq!(gc(&mut after, "collected")["scanned"], 0);
    assert_eq!(push(&mut after, "collected", &[put(4, "a", 1)]), [4]);
    let sql = "select deleted::text from sync_ext.current_record
                where workspace_id = 'collected' and pk = 'a'";
    assert_eq!(call(&mut after, sql, &[]).unwrap(), "true");
    // Who may do what, and whose records are, is as it was.
    after.batch_execute("set sync_ext.user_id = 'bob'").unwrap();
    let sql = "select json_array_length(sync_pull('team') -> 'changes')::text";
    assert_eq!(call(&mut after, sql, &[]).unwrap(), "0");
    after.batch_execute("set sync_ext.user_id = 'ann'").unwrap();
    assert_eq!(call(&mut after, sql, &[]).unwrap(), "1");
    after.batch_execute("reset sync_ext.user_id").unwrap();
    after.batch_execute("select sync_gc()").unwrap();
    assert_eq!(tables(&mut after).unwrap()["dropped_workspace"], "");
    // Scopes mean what they did, and their proof holds.
    let proof: Value = serde_json::from_str(&followed).unwrap();
    let again = call(&mut after, follow, &[&proof["proof"].as_str()]).unwrap();
    assert_eq!(again, followed);
    // The device goes on: its proof holds, no snapshot is asked of it.
    assert_eq!(device.pull(&mut after, 100, false).unwrap(), 1);
    assert_eq!(device.state(), of_server(&mut after, "w").unwrap());
}

#[test]
fn devices_that_are_ahead_of_a_restored_dump_notice() {
    let newer = Database::new();
    let mut before = newer.session();
    let mut loss = Loss::before(&mut before);
    let older = dump(&newer);
    loss.lose(&mut before);
    loss.check(&mut restored(older).session());
}

#[test]
fn a_restored_dump_validates_as_before() {
    let old = Database::new();
    let mut before = old.session();
    before
        .batch_execute(
            "create schema \"The App\";
             create function \"The App\".\"check\"(json, json, json) returns text language sql
               as $$ select 'no ' || ($3 ->> 'pk') $$;
             select sync_register_table('notes', validation =>
               '\"The App\".\"check\"(json,json,json)'), sync_register_table('tasks')",
        )
        .unwrap();
    let error = "select coalesce(sync_put('w', $1, 'a', '{}') ->> 'error', 'none')";
    assert_eq!(call(&mut before, error, &[&"notes"]).unwrap(), "no a");

    let new = restored(dump(&old));
    let mut after = new.session();
    assert_eq!(call(&mut after, error, &[&"notes"]).unwrap(), "no a");
    assert_eq!(call(&mut after, error, &[&"tasks"]).unwrap(), "none");
}
