//! Tables, columns, indexes, triggers and rules that are not as installed.

use postgres::Client;
use sync_ext_harness::batch::{op, push, put};
use sync_ext_harness::database::Database;
use sync_ext_harness::soundness;
use sync_ext_harness::state::tables;

use super::{furnished, push_sql, refusal};

const PUSH: &str = r#"select sync_push('w', '[{"tableName":"notes","operation":"put","pk":"z","payload":{},
    "stamp":{"deviceId":"d","opId":"00000000-0000-4000-8000-0000000000ff","hlc":"h","clock":9}}]')"#;

/// What each call writes to.
const WRITERS: [(&str, &str); 9] = [
    ("change_log", PUSH),
    ("record", PUSH),
    ("workspace", PUSH),
    ("workspace", "select sync_create_workspace('new', 'ann')"),
    ("device_cursor", "select sync_update_cursor('w', 'new', 1)"),
    ("device_cursor", "select sync_update_cursor('w', 'phone', 4)"),
    ("member", "select sync_set_member('team', 'bob', 'viewer')"),
    ("synced_table", "select sync_register_table('new')"),
    ("dropped_workspace", "select sync_drop_workspace('team')"),
];

const READERS: [&str; 2] = ["select sync_pull('w')", "select sync_snapshot('w')"];

/// Every write to the table is refused for this, and stores nothing; reads go on.
fn writes_are_refused(admin: &mut Client, table: &str, change: &str, detail: &str) {
    let mut transaction = admin.transaction().unwrap();
    transaction.batch_execute(change).unwrap();
    let before = tables(&mut transaction).unwrap();
    let writers: Vec<&str> =
        WRITERS.iter().filter(|(of, _)| *of == table).map(|(_, sql)| *sql).collect();
    assert!(!writers.is_empty(), "{table}");
    for sql in writers {
        let mut tried = transaction.transaction().unwrap();
        assert_eq!(refusal(&mut tried, sql), ("55000".to_owned(), detail.to_owned()), "{change}");
        tried.rollback().unwrap();
    }
    for sql in READERS {
        transaction.batch_execute(sql).unwrap();
    }
    assert_eq!(tables(&mut transaction).unwrap(), before, "{change}");
    transaction.rollback().unwrap();
}

/// With functions for triggers, and a domain.
fn world() -> Database {
    let database = furnished();
    database
        .session()
        .batch_execute(
            "create function nothing() returns trigger language plpgsql as $$ begin return null; end $$;
             create function fails() returns trigger language plpgsql as $$
               begin raise exception 'no' using errcode = 'AB001'; end $$;
             create domain full_text as text not null",
        )
        .unwrap();
    database
}

#[test]
fn triggers_and_rules_are_refused() {
    let database = world();
    let admin = &mut database.session();
    for (table, _) in WRITERS {
        for (when, function) in [
            ("before insert or update or delete", "nothing"),
            ("after insert or update or delete", "fails"),
            ("after insert or update or delete or truncate", "nothing"),
        ] {
            for each in ["row", "statement"] {
                if each == "row" && when.contains("truncate") {
                    continue;
                }
                let change = format!(
                    "create trigger t {when} on sync_ext.{table} for each {each} execute function {function}()"
                );
                let detail = format!("Trigger t of sync_ext.{table} is enabled.");
                writes_are_refused(admin, table, &change, &detail);
            }
        }
        let change = format!("create rule r as on insert to sync_ext.{table} do instead nothing");
        let detail = format!("A rule of sync_ext.{table} is enabled.");
        writes_are_refused(admin, table, &change, &detail);
    }
    // So have foreign keys of the app's and constraints that are checked later.
    for (change, trigger) in [
        (
            "create table app (id bigint references sync_ext.workspace (workspace_key))",
            "Trigger RI_ConstraintTrigger",
        ),
        (
            "alter table sync_ext.change_log drop constraint change_log_pkey;
             alter table sync_ext.change_log add constraint change_log_pkey
               primary key (workspace_key, server_version) deferrable",
            "Trigger PK_ConstraintTrigger",
        ),
    ] {
        let mut transaction = admin.transaction().unwrap();
        transaction.batch_execute(change).unwrap();
        let (code, detail) = refusal(&mut transaction, &push_sql(10, "z", 1));
        assert_eq!(code, "55000");
        assert!(detail.starts_with(trigger), "{detail}");
    }
}

#[test]
fn triggers_that_do_not_fire_are_harmless() {
    let database = world();
    let admin = &mut database.session();
    let create =
        "create trigger t before insert on sync_ext.record for each row execute function nothing()";
    let alter = |how: &str| format!("alter table sync_ext.record {how} trigger t");
    for (how, role, is_served) in [
        ("disable", "origin", true),
        ("enable replica", "origin", true),
        ("enable replica", "replica", false),
        ("enable", "replica", true),
        ("enable always", "replica", false),
        ("enable always", "origin", false),
    ] {
        let mut transaction = admin.transaction().unwrap();
        let setting = format!("set local session_replication_role = {role}");
        transaction.batch_execute(&format!("{create}; {}; {setting}", alter(how))).unwrap();
        let is_ok = transaction.batch_execute(&push_sql(11, "z", 1)).is_ok();
        assert_eq!(is_ok, is_served, "{how}, {role}");
    }
    let truncate = "create trigger t before truncate on sync_ext.record execute function nothing()";
    let mut transaction = admin.transaction().unwrap();
    transaction.batch_execute(truncate).unwrap();
    transaction.batch_execute(&push_sql(11, "z", 1)).unwrap();
}

/// It knows the table as one that it may write to.
#[test]
fn a_session_that_becomes_a_replica_fires_other_triggers() {
    let database = world();
    let session = &mut database.session();
    session
        .batch_execute(
            "create trigger t before insert on sync_ext.record for each row execute function nothing();
             alter table sync_ext.record enable replica trigger t",
        )
        .unwrap();
    for (id, role) in [(11, "origin"), (12, "replica"), (13, "origin")] {
        session.batch_execute(&format!("set session_replication_role = {role}")).unwrap();
        let is_ok = session.batch_execute(&push_sql(id, "z", id)).is_ok();
        assert_eq!(is_ok, role == "origin", "{id}");
    }
}

#[test]
fn columns_that_cannot_be_filled_or_read_are_refused() {
    let database = world();
    let admin = &mut database.session();
    for (change, detail) in [
        (
            "add column tier text not null default 'zz'",
            "Column tier of sync_ext.change_log does not allow NULL.",
        ),
        (
            "add column tier full_text default 'zz'",
            "Column tier of sync_ext.change_log has a domain with constraints.",
        ),
        (
            "add column n bigint generated always as (clock + 1) stored",
            "Column n of sync_ext.change_log is generated.",
        ),
        (
            "add column n bigint generated by default as identity",
            "Column n of sync_ext.change_log does not allow NULL.",
        ),
    ] {
        let change = format!("alter table sync_ext.change_log {change}");
        writes_are_refused(admin, "change_log", &change, detail);
    }
    // Other columns of ours cannot be read either.
    for (change, detail) in [
        ("rename clock to tick", "Column 7 of sync_ext.change_log is not clock bigint."),
        ("drop column hlc", "Column 8 of sync_ext.change_log is not hlc text collate \"C\"."),
        (
            "alter column payload type jsonb using payload::jsonb",
            "Column 6 of sync_ext.change_log is not payload json.",
        ),
        (
            "alter column device_id type text collate \"default\"",
            "Column 9 of sync_ext.change_log is not device_id text collate \"C\".",
        ),
    ] {
        let change = format!(
            "drop view sync_ext.current_record, sync_ext.tombstone, sync_ext.conflict, sync_ext.counter,
               sync_ext.workspace_status, sync_ext.device_status cascade; drop function sync_explain;
             alter table sync_ext.change_log {change}"
        );
        nothing_goes_on(admin, &change, detail);
    }
}

/// Refused for reads, too, which would be wrong.
fn nothing_goes_on(admin: &mut Client, change: &str, detail: &str) {
    let mut transaction = admin.transaction().unwrap();
    // What the extension owns is not dropped but with it.
    let loose = "update pg_depend set deptype = 'n' where deptype = 'e'";
    transaction.batch_execute(&format!("{loose}; {change}")).unwrap();
    for sql in READERS.into_iter().chain([push_sql(12, "z", 1).as_str()]) {
        let mut tried = transaction.transaction().unwrap();
        assert_eq!(refusal(&mut tried, sql), ("55000".to_owned(), detail.to_owned()), "{change}");
    }
}

#[test]
fn tables_of_another_kind_are_refused() {
    let database = world();
    let admin = &mut database.session();
    let change = "alter table sync_ext.change_log set unlogged";
    let detail = "sync_ext.change_log is not a permanent table.";
    writes_are_refused(admin, "change_log", change, detail);
    for (kind, change) in [
        (
            "partitioned",
            "alter table sync_ext.change_log rename to before;
             create table sync_ext.change_log (like sync_ext.before including all)
               partition by range (workspace_key);
             create table sync_ext.part partition of sync_ext.change_log default",
        ),
        (
            "view",
            "alter table sync_ext.change_log rename to before;
             create view sync_ext.change_log as select * from sync_ext.before",
        ),
    ] {
        println!("{kind}");
        nothing_goes_on(admin, change, "sync_ext.change_log is not an ordinary table.");
    }
    let change = "alter table sync_ext.change_log rename to before";
    nothing_goes_on(admin, change, "sync_ext.change_log is missing.");
}

#[test]
fn indexes_that_lead_elsewhere_are_refused() {
    let database = world();
    let admin = &mut database.session();
    let anew = |unique: &str, how: &str| {
        format!(
            "alter table sync_ext.change_log drop constraint change_log_pkey;
             create {unique} index change_log_pkey on sync_ext.change_log {how}"
        )
    };
    let detail = "Index sync_ext.change_log_pkey is not a valid unique btree index of \
                  sync_ext.change_log on (workspace_key, server_version).";
    for change in [
        anew("unique", "(workspace_key, server_version desc)"),
        anew("unique", "(workspace_key desc, server_version)"),
        anew("unique", "(workspace_key, server_version) where applied"),
        anew("", "(workspace_key, server_version)"),
        anew("unique", "(workspace_key, server_version, clock)"),
        anew("unique", "(server_version, workspace_key)"),
        anew("unique", "((workspace_key + 0), server_version)"),
        anew("", "using brin (workspace_key, server_version)"),
        "update pg_index set indisvalid = false where indexrelid = 'sync_ext.change_log_pkey'::regclass"
            .to_owned(),
    ] {
        nothing_goes_on(admin, &change, detail);
    }
    let change = "alter table sync_ext.change_log drop constraint change_log_pkey";
    nothing_goes_on(admin, change, "sync_ext.change_log_pkey is missing.");
    let detail = "Index sync_ext.workspace_workspace_id_key is not a valid unique btree index of \
                  sync_ext.workspace on (workspace_id).";
    for how in ["(workspace_id text_pattern_ops)", "(workspace_id collate \"default\")"] {
        let change = format!(
            "alter table sync_ext.workspace drop constraint workspace_workspace_id_key;
             create unique index workspace_workspace_id_key on sync_ext.workspace {how}"
        );
        nothing_goes_on(admin, &change, detail);
    }
}

#[test]
fn what_is_harmless_goes_on() {
    let database = world();
    let admin = &mut database.session();
    admin
        .batch_execute(
            "alter table sync_ext.change_log add column region text default 'eu', add column n bigint;
             alter table sync_ext.record add column gone text not null default '';
             alter table sync_ext.record drop column gone;
             alter table sync_ext.record set (fillfactor = 70), alter column hlc set statistics 10;
             alter table sync_ext.change_log drop constraint change_log_pkey;
             create unique index change_log_pkey on sync_ext.change_log (workspace_key, server_version) include (clock);
             alter table sync_ext.change_log drop constraint change_log_workspace_key_op_id_key;
             create unique index change_log_workspace_key_op_id_key on sync_ext.change_log (workspace_key, op_id) include (applied);
             create index on sync_ext.record (server_version desc);
             create index on sync_ext.change_log ((payload ->> 'n')) where applied;
             create unique index on sync_ext.member (user_id, workspace_id)",
        )
        .unwrap();
    for _ in ["new", "a replay"] {
        assert_eq!(push(admin, "w", &[put(20, "c", 1), put(21, "a", 3)]), [5, 6]);
    }
    for (_, sql) in WRITERS {
        let mut transaction = admin.transaction().unwrap();
        transaction.batch_execute(sql).unwrap();
    }
    let region =
        "select array_agg(coalesce(region, '-') order by server_version) from sync_ext.change_log";
    let region: Vec<String> = admin.query_one(region, &[]).unwrap().get(0);
    assert_eq!(region, ["eu", "eu", "eu", "eu", "-", "-"]);
    if soundness::is_checkable(admin).unwrap() {
        soundness::check(admin).unwrap();
    }
}

/// A session knows the tables and indexes that it has used, until another one changes them.
#[test]
fn what_another_session_changes_is_noticed() {
    let database = world();
    let (session, admin) = (&mut database.session(), &mut database.session());
    // What the extension owns is not dropped but with it.
    admin.batch_execute("update pg_depend set deptype = 'n' where deptype = 'e'").unwrap();
    admin
        .batch_execute(
            "create domain loose as text; alter table sync_ext.record add column d loose",
        )
        .unwrap();
    let mut next = 100;
    let mut goes_on = |session: &mut Client| {
        next += 1;
        for sql in READERS.into_iter().chain([push_sql(next, "z", next).as_str()]) {
            session.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
    };
    for (change, back, detail) in [
        (
            "create trigger t before insert on sync_ext.record for each row execute function nothing()",
            "drop trigger t on sync_ext.record",
            "Trigger t of sync_ext.record is enabled.",
        ),
        (
            "create rule r as on insert to sync_ext.change_log do also nothing",
            "drop rule r on sync_ext.change_log",
            "A rule of sync_ext.change_log is enabled.",
        ),
        (
            "alter table sync_ext.change_log add column tier text not null default 'zz'",
            "alter table sync_ext.change_log drop column tier",
            "Column tier of sync_ext.change_log does not allow NULL.",
        ),
        (
            "alter domain loose add constraint filled check (value <> '')",
            "alter domain loose drop constraint filled",
            "Column d of sync_ext.record has a domain with constraints.",
        ),
        (
            "alter index sync_ext.change_log_workspace_key_op_id_key rename to gone",
            "alter index sync_ext.gone rename to change_log_workspace_key_op_id_key",
            "sync_ext.change_log_workspace_key_op_id_key is missing.",
        ),
        (
            "alter table sync_ext.record drop constraint record_pkey;
             create index record_pkey on sync_ext.record (pk)",
            "drop index sync_ext.record_pkey;
             alter table sync_ext.record add constraint record_pkey primary key (workspace_key, table_name, pk)",
            "Index sync_ext.record_pkey is not a valid unique btree index of sync_ext.record on \
             (workspace_key, table_name, pk).",
        ),
        (
            "alter table sync_ext.record rename to gone",
            "alter table sync_ext.gone rename to record",
            "sync_ext.record is missing.",
        ),
        (
            "alter schema sync_ext rename to gone",
            "alter schema gone rename to sync_ext",
            "sync_ext.record is missing.",
        ),
    ] {
        goes_on(session);
        admin.batch_execute(change).unwrap();
        let told = refusal(session, &push_sql(99, "z", 1));
        assert_eq!(told, ("55000".to_owned(), detail.to_owned()), "{change}");
        admin.batch_execute(back).unwrap();
    }
    goes_on(session);
    // Anew, with other numbers.
    let anew = "drop extension sync_ext cascade; create extension sync_ext;
                select sync_register_table('notes')";
    admin.batch_execute(anew).unwrap();
    assert_eq!(push(session, "w", &[put(1, "a", 1)]), [1]);
}

/// Before an update some columns are missing, and after it they come after columns of others.
#[test]
fn columns_that_an_update_adds_may_be_missing_or_anywhere() {
    let database = Database::empty();
    let admin = &mut database.session();
    admin
        .batch_execute(
            "create extension sync_ext version '0.1.0';
             select sync_register_table('notes'), sync_create_workspace('team', 'ann');
             alter table sync_ext.workspace add column note text;
             alter table sync_ext.synced_table add column note text;
             alter table sync_ext.change_log add column note text;
             alter table sync_ext.record add column note text",
        )
        .unwrap();
    assert_eq!(push(admin, "w", &[put(1, "a", 1), put(2, "b", 1), put(3, "a", 2)]), [1, 2, 3]);
    for (_, sql) in WRITERS.iter().filter(|(_, sql)| !sql.contains("'phone'")) {
        let mut transaction = admin.transaction().unwrap();
        transaction.batch_execute(sql).unwrap();
    }
    admin
        .batch_execute(
            "update sync_ext.record set note = 'mine'; update sync_ext.workspace set note = 'mine';
             alter extension sync_ext update",
        )
        .unwrap();
    admin.batch_execute("call sync_set_scope_field('notes', 'list')").unwrap();
    let to = |id, pk, list: &str| op(id, pk, id, "put", &format!(r#"{{"list":"{list}"}}"#));
    assert_eq!(
        push(admin, "w", &[to(30, "a", "x"), to(31, "d", "x"), to(32, "a", "y")]),
        [4, 5, 6]
    );
    let of_records = "select string_agg(concat(pk, ' ', note, ' ', scope), ', ' order by pk) from sync_ext.record";
    let of_workspace = "select concat(note, ' ', scope_epoch > 0) from sync_ext.workspace where workspace_id = 'w'";
    for (sql, expected) in [
        ("select sync_pull('w', 3, scopes => '{x}') -> 'changes' -> 2 ->> 'op'", "leave"),
        ("select sync_snapshot('w', scopes => '{x}') -> 'items' -> 0 ->> 'pk'", "d"),
        (of_records, "a mine y, b mine , d  x"),
        (of_workspace, "mine t"),
    ] {
        let found: String = admin.query_one(sql, &[]).unwrap().get(0);
        assert_eq!(found, expected, "{sql}");
    }
}
