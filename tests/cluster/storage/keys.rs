//! Keys of workspaces, where their sequence lags behind the rows: as after failing over
//! to a subscriber of logical replication, which has the rows and its own sequence.

use postgres::Client;
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::steps::{Stage, outcome, pid};

const LAG: &str = "alter table sync_ext.workspace alter column workspace_key restart with 1";

fn keys(client: &mut Client) -> Vec<(String, i64)> {
    let sql = "select workspace_id, workspace_key from sync_ext.workspace order by workspace_key";
    client.query(sql, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn what_is_left_of_a_dropped_workspace_is_nobodys() {
    let mut stage = Stage::new();
    let admin = &mut stage.admin;
    push(admin, "first", &[put(1, "a", 1)]);
    let secrets: Vec<String> = (1..=5).map(|id| put(id, &format!("s-{id}"), 1)).collect();
    push(admin, "acme", &secrets);
    admin.batch_execute(&format!("select sync_drop_workspace('acme', 1); {LAG}")).unwrap();
    assert_eq!(push(admin, "newtenant", &[put(9, "mine", 1)]), [1]);
    let pulled = outcome(admin, "select sync_pull('newtenant')").unwrap();
    assert!(!pulled.contains("s-") && pulled.contains("mine"), "{pulled}");
    let listed = outcome(admin, "select sync_snapshot('newtenant')").unwrap();
    assert!(!listed.contains("s-") && listed.contains("mine"), "{listed}");
    admin.batch_execute("select sync_gc()").unwrap();
    assert!(outcome(admin, "select sync_pull('newtenant')").unwrap().contains("mine"));
    let left = "select count(*)::text from sync_ext.change_log";
    assert_eq!(outcome(admin, left).unwrap(), "2");
}

#[test]
fn a_key_in_use_is_not_given_again() {
    let mut stage = Stage::new();
    let admin = &mut stage.admin;
    for workspace in ["a", "b", "c"] {
        push(admin, workspace, &[put(1, "a", 1)]);
    }
    admin.batch_execute(LAG).unwrap();
    // One in a transaction, and more afterwards; by an owner, too.
    admin
        .batch_execute(&format!("begin; select sync_push('d', '[{}]'); rollback", put(1, "a", 1)))
        .unwrap();
    push(admin, "e", &[put(1, "a", 1)]);
    admin.batch_execute("select sync_create_workspace('f', 'ann')").unwrap();
    let names = ["a", "b", "c", "e", "f"].map(str::to_owned);
    let found = keys(admin);
    assert_eq!(found.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names);
    assert!(found.windows(2).all(|pair| pair[0].1 < pair[1].1), "{found:?}");
    // Rows whose workspace is gone have a key, too.
    admin
        .batch_execute(&format!("delete from sync_ext.workspace where workspace_id = 'f'; {LAG}"))
        .unwrap();
    admin
        .batch_execute("insert into sync_ext.device_cursor values (1000, 'd', 1, now(), '')")
        .unwrap();
    push(admin, "g", &[put(1, "a", 1)]);
    assert_eq!(keys(admin).last(), Some(&("g".to_owned(), 1001)));
    // And a sequence that does not lag is left alone.
    push(admin, "h", &[put(1, "a", 1)]);
    assert_eq!(keys(admin).last(), Some(&("h".to_owned(), 1002)));
}

#[test]
fn creators_meet_while_the_sequence_lags() {
    for end in ["commit", "rollback"] {
        let mut stage = Stage::new();
        push(&mut stage.admin, "a", &[put(1, "a", 1)]);
        push(&mut stage.admin, "b", &[put(1, "a", 1)]);
        stage.admin.batch_execute(LAG).unwrap();
        let create = |name: &str| format!("select sync_push('{name}', '[{}]')", put(1, "a", 1));
        let mut first = stage.holding("", &create("c"));
        let holder = pid(&mut first);
        let sql = create("d");
        let second = stage.blocked(holder, move |session| session.batch_execute(&sql));
        first.batch_execute(end).unwrap();
        second.join().unwrap().unwrap();
        push(&mut stage.admin, "e", &[put(1, "a", 1)]);
        let found = keys(&mut stage.admin);
        let mut distinct: Vec<i64> = found.iter().map(|(_, key)| *key).collect();
        distinct.dedup();
        assert_eq!(distinct.len(), if end == "commit" { 5 } else { 4 }, "{found:?}");
        assert!(distinct.iter().all(|key| *key > 0));
    }
}
