//! What stays of an attachment.

use sync_ext_harness::database::Database;
use sync_ext_harness::dump::dump;
use sync_ext_harness::state::tables;

const VIEW: &str =
    "select string_agg(v::text, ';' order by table_name) from sync_ext.attached_table as v";
const TRIGGERS: &str =
    "select string_agg(pg_get_triggerdef(oid), ';' order by tgname) from pg_trigger
                         where tgrelid = 'app.\"To do\"'::regclass";

#[test]
fn a_restored_dump_has_the_attachments_and_their_triggers() {
    let old = Database::new();
    let mut before = old.session();
    before
        .batch_execute(
            "create schema app;
             create type app.mood as enum ('ok');
             create table app.\"To do\" (id uuid primary key, tenant text not null, mood app.mood);
             insert into app.\"To do\" values (gen_random_uuid(), 'w', 'ok');
             select sync_attach_table('app.\"To do\"', workspace_column => 'tenant')",
        )
        .unwrap();
    let new = Database::empty();
    dump(&old).restore_into(&new);
    let mut after = new.session();
    assert_eq!(tables(&mut after).unwrap(), tables(&mut before).unwrap());
    for sql in [VIEW, TRIGGERS] {
        let [was, is] = [&mut before, &mut after]
            .map(|client| client.query_one(sql, &[]).unwrap().get::<_, String>(0));
        assert_eq!(was, is);
        assert!(!is.is_empty());
    }
    // Types are named in the same way whatever the search_path is.
    after.batch_execute("set search_path = app, public").unwrap();
    let sql = "select trigger, columns_changed from sync_ext.attached_table";
    let row = after.query_one(sql, &[]).unwrap();
    assert_eq!((row.get(0), row.get(1)), ("ok", false));
    let refused = after.batch_execute("truncate app.\"To do\"").unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "0A000");
    after
        .batch_execute("select sync_detach_table('app.\"To do\"'); truncate app.\"To do\"")
        .unwrap();
}

#[test]
fn the_extension_is_not_dropped_under_an_attached_table() {
    let database = Database::new();
    let mut admin = database.session();
    admin
        .batch_execute(
            "create table tasks (id uuid primary key, workspace_id text not null);
             select sync_attach_table('tasks')",
        )
        .unwrap();
    let refused = admin.batch_execute("drop extension sync_ext").unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "2BP01");
    admin.batch_execute("select sync_detach_table('tasks'); drop extension sync_ext").unwrap();
}
