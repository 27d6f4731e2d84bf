//! Published tables: what subscribers could not follow is refused as it is for UPDATE
//! and DELETE.

use postgres::Client;
use sync_ext_harness::batch::{delete, put};

use super::{furnished, push_sql};

/// The SQLSTATE, and that nothing was stored; `None` if it was served.
fn outcome(admin: &mut Client, set_up: &str, sql: &str) -> Option<String> {
    let mut transaction = admin.transaction().unwrap();
    transaction.batch_execute(set_up).unwrap();
    transaction.batch_execute(sql).err().map(|error| error.code().unwrap().code().to_owned())
}

#[test]
fn what_no_subscriber_could_follow_is_refused() {
    let database = furnished();
    let mut admin = database.session();
    let new = push_sql(10, "z", 1);
    let update = push_sql(11, "a", 9);
    let deletion = format!("select sync_push('w', '[{}]')", delete(12, "a", 9));
    let large: Vec<String> = (0..20).map(|n| put(100 + n, &format!("l-{n}"), 1)).collect();
    let large = format!("select sync_push('w', '[{},{}]')", large.join(","), put(13, "a", 9));
    let acknowledge = "select sync_update_cursor('w', 'phone', 4)";
    let gc = "update sync_ext.change_log set created_at = created_at - interval '40 days';
              alter table sync_ext.change_log replica identity nothing;
              select sync_gc('w')";
    for (set_up, sql, expected) in [
        // A filter on what the replica identity does not have.
        (
            "create publication p for table sync_ext.record where (not deleted)",
            &*deletion,
            Some("42P10"),
        ),
        (
            "create publication p for table sync_ext.record where (not deleted)",
            &update,
            Some("42P10"),
        ),
        (
            "create publication p for table sync_ext.record where (not deleted)",
            &large,
            Some("42P10"),
        ),
        ("create publication p for table sync_ext.record where (pk > 'b')", &update, None),
        (
            "create publication p for table sync_ext.record where (not deleted) with (publish = insert)",
            &update,
            None,
        ),
        (
            "create publication p for table sync_ext.workspace; alter table sync_ext.workspace replica identity nothing",
            &new,
            Some("55000"),
        ),
        (
            "create publication p for table sync_ext.record; alter table sync_ext.record replica identity nothing",
            &update,
            Some("55000"),
        ),
        (
            "create publication p for table sync_ext.record; alter table sync_ext.record replica identity full",
            &update,
            None,
        ),
        (
            "create publication p for table sync_ext.device_cursor; alter table sync_ext.device_cursor replica identity nothing",
            acknowledge,
            Some("55000"),
        ),
        ("create publication p for table sync_ext.change_log", gc, Some("55000")),
        ("create publication p for all tables", &large, None),
        ("create publication p for all tables", acknowledge, None),
    ] {
        assert_eq!(outcome(&mut admin, set_up, sql).as_deref(), expected, "{set_up}: {sql}");
    }
}

#[test]
fn what_a_statement_is_refused_for_a_push_is() {
    let database = furnished();
    let admin = &mut database.session();
    let set_up = "create publication p for table sync_ext.record where (not deleted)";
    let by_sql = outcome(admin, set_up, "update sync_ext.record set clock = 9 where pk = 'a'");
    assert_eq!(outcome(admin, set_up, &push_sql(14, "a", 9)), by_sql);
    // A session that has pushed hears of a publication that somebody else makes.
    admin.batch_execute(&push_sql(15, "a", 9)).unwrap();
    admin.batch_execute(set_up).unwrap();
    let error = admin.batch_execute(&push_sql(16, "a", 10)).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42P10");
    admin.batch_execute("drop publication p").unwrap();
    admin.batch_execute(&push_sql(16, "a", 10)).unwrap();
}
