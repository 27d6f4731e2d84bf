//! What capture presumes of marked rows, to save look-ups: that a row is where it was
//! changed last, and that the record of an inserted row is unknown. Neither need be so.

use super::{TASKS, compare, ops, ops_of, stage, task};

const TWENTY: &str = "insert into tasks select n, 'w', 'a' from generate_series(1, 20) n";

#[test]
fn records_of_inserted_rows_may_be_known() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    ops_of(admin, TWENTY);
    ops_of(admin, "delete from tasks");
    // Tombstones, among new ones.
    assert_eq!(ops_of(admin, &TWENTY.replace("1, 20", "11, 30")).len(), 20);
    let sql = "select clock from sync_ext.record where pk in ('11', '30') order by pk";
    let clocks: Vec<i64> = admin.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(clocks, [3, 1]);
}

#[test]
fn rows_that_others_inserted_after_a_savepoint_gave_their_keys_free_are_captured() {
    for change in
        ["delete from tasks", "update tasks set title = 'b'", "update tasks set workspace_id = 'v'"]
    {
        let mut stage = stage(TASKS);
        let mut session = stage.session();
        let undone = format!("begin; savepoint s; {TWENTY}; rollback to s");
        session.batch_execute(&undone).unwrap();
        stage.admin.batch_execute(TWENTY).unwrap();
        session.batch_execute(&format!("{change}; commit")).unwrap();
        compare(&mut stage.admin);
        assert_eq!(ops(&mut stage.admin, "w").len(), 40, "{change}");
    }
}

#[test]
fn rows_that_were_inserted_after_a_push_deleted_them_are_captured_if_it_is_rolled_back() {
    let mut stage = stage(TASKS);
    stage.admin.batch_execute(TWENTY).unwrap();
    let delete = |n: u64| {
        format!(
            r#"{{"tableName":"tasks","operation":"delete","pk":"{n}","stamp":{{"deviceId":"d","opId":"{}","hlc":"h","clock":9}}}}"#,
            sync_ext_harness::batch::op_id(n)
        )
    };
    let deletes: Vec<_> = (1..=20).map(delete).collect();
    let sql = format!(
        "begin; savepoint s; select sync_push('w', '[{}]'); {TWENTY}; rollback to s;
         delete from tasks where id > 10; update tasks set title = 'b' where id < 3; commit",
        deletes.join(",")
    );
    assert_eq!(ops_of(&mut stage.admin, &sql).len(), 12);
}

#[test]
fn rows_are_found_after_their_table_was_rewritten() {
    for rewrite in [
        "alter table tasks alter column title type varchar(50)",
        "cluster tasks using tasks_pkey",
        "alter table tasks add column at timestamptz default clock_timestamp()",
    ] {
        let mut stage = stage(TASKS);
        let sql = format!(
            "begin; insert into tasks select n, 'w', repeat('x', 50) from generate_series(1, 3000) n;
             delete from tasks where id < 2990; update tasks set title = 'b'; {rewrite}; commit"
        );
        assert_eq!(ops_of(&mut stage.admin, &sql).len(), 11, "{rewrite}");
    }
}

#[test]
fn a_place_that_another_row_has_now_is_not_taken_for_it() {
    let mut stage = stage(TASKS);
    let rows = "begin; insert into tasks select 10 - n, 'w', 10 - n from generate_series(1, 9) n;
                cluster tasks using tasks_pkey; commit";
    let expected: Vec<_> =
        (1..10).map(|id| format!("put {id} {}", task(id, &id.to_string()))).collect();
    assert_eq!(ops_of(&mut stage.admin, rows), expected);
}

#[test]
fn many_rows_are_captured_when_they_are_prepared() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    ops_of(admin, TWENTY);
    ops_of(admin, "delete from tasks where id < 11");
    let sql = format!(
        "begin; delete from tasks; {}; prepare transaction 'own_many'",
        TWENTY.replace("1, 20", "1, 30")
    );
    admin.batch_execute(&sql).unwrap();
    assert_eq!(ops_of(admin, "commit prepared 'own_many'").len(), 20);
}
