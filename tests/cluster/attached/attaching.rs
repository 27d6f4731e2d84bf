//! Attaching beside other sessions: it waits for writers, goes by what the catalogues say
//! once it has its lock, and makes nobody wait who may not be made to.

use postgres::Client;
use sync_ext_harness::steps::{Stage, outcome, pid};

const TASKS: &str =
    "create table tasks (id uuid primary key, workspace_id text not null, title text)";
const ATTACH: &str = "select sync_attach_table('tasks')";
const DETACH: &str = "select sync_detach_table('tasks')";
const INSERT: &str = "insert into tasks values (gen_random_uuid(), 'w')";

fn stage() -> Stage {
    let mut stage = Stage::new();
    stage.admin.batch_execute(TASKS).unwrap();
    stage
}

/// A session in a transaction that has taken this step.
fn holding(stage: &Stage, step: &str) -> Client {
    let mut session = stage.session();
    session.batch_execute(&format!("begin; {step}")).unwrap();
    session
}

fn attached(client: &mut Client) -> Vec<String> {
    let sql = "select format('%s as %s: %s', \"table\", table_name, trigger)
                 from sync_ext.attached_table order by 1";
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

fn triggers(client: &mut Client) -> i64 {
    let sql = "select count(*) from pg_trigger where tgname like 'sync\\_ext%'";
    client.query_one(sql, &[]).unwrap().get(0)
}

/// The outcome of `step` while `holder` holds the table, once that has ended.
fn after(stage: &mut Stage, mut holder: Client, step: &'static str) -> Result<String, String> {
    let waiting = stage.blocked(pid(&mut holder), move |session| outcome(session, step));
    holder.batch_execute("commit").unwrap();
    waiting.join().unwrap()
}

#[test]
fn attaching_and_detaching_wait_for_a_writer() {
    let mut stage = stage();
    for (step, expected) in [(ATTACH, vec!["tasks as tasks: ok"]), (DETACH, vec![])] {
        let writer = holding(&stage, INSERT);
        assert!(after(&mut stage, writer, step).is_ok());
        assert_eq!(attached(&mut stage.admin), expected);
    }
    assert_eq!(triggers(&mut stage.admin), 0);
}

#[test]
fn a_writer_waits_for_attaching_and_a_reader_does_not() {
    let mut stage = stage();
    let first = holding(&stage, ATTACH);
    assert_eq!(outcome(&mut stage.admin, "select count(*) from tasks"), Ok("0".to_owned()));
    assert!(after(&mut stage, first, INSERT).is_ok());
}

#[test]
fn a_rolled_back_attachment_leaves_nothing() {
    let mut stage = stage();
    let mut first = holding(&stage, ATTACH);
    first.batch_execute("rollback").unwrap();
    first.batch_execute(&format!("begin; savepoint s; {ATTACH}; rollback to s; commit")).unwrap();
    assert_eq!(attached(&mut stage.admin), [""; 0]);
    assert_eq!(triggers(&mut stage.admin), 0);
    stage.admin.batch_execute(ATTACH).unwrap();
    first.batch_execute(&format!("begin; {DETACH}; rollback")).unwrap();
    assert_eq!(attached(&mut stage.admin), ["tasks as tasks: ok"]);
}

#[test]
fn a_table_that_was_altered_meanwhile_is_looked_at_as_it_is() {
    for (step, expected) in [
        ("alter table tasks drop column workspace_id", Err("42703")),
        ("alter table tasks drop constraint tasks_pkey", Err("0A000")),
        ("alter table tasks enable row level security", Err("55000")),
        ("drop table tasks", Err("42P01")),
        ("alter table tasks add column more text", Ok("")),
    ] {
        let mut stage = stage();
        let first = holding(&stage, step);
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(after(&mut stage, first, ATTACH), expected, "{step}");
        let sql = "select columns_changed from sync_ext.attached_table";
        for row in stage.admin.query(sql, &[]).unwrap() {
            assert!(!row.get::<_, bool>(0));
        }
    }
}

#[test]
fn two_tables_do_not_get_one_name_nor_one_table_two() {
    let mut stage = stage();
    stage.admin.batch_execute("create table other (like tasks including all)").unwrap();
    let taken = Err("42710".to_owned());
    let first = holding(&stage, ATTACH);
    let same_name = "select sync_attach_table('other', 'tasks')";
    assert_eq!(after(&mut stage, first, same_name), taken);
    stage.admin.batch_execute(DETACH).unwrap();
    let first = holding(&stage, ATTACH);
    let same_table = "select sync_attach_table('tasks', 'again')";
    assert_eq!(after(&mut stage, first, same_table), taken);
    stage.admin.batch_execute(DETACH).unwrap();
    let first = holding(&stage, ATTACH);
    let registering = "select sync_register_table('tasks')";
    assert_eq!(after(&mut stage, first, registering), Err("55000".to_owned()));
    assert_eq!(attached(&mut stage.admin), ["tasks as tasks: ok"]);
}

#[test]
fn a_stranger_is_refused_without_waiting_and_a_former_owner_after_it() {
    let mut stage = stage();
    stage.database.ensure_role("attaching_owner");
    stage.database.ensure_role("attaching_stranger");
    stage
        .admin
        .batch_execute(
            "alter table tasks owner to attaching_owner;
             grant execute on all functions in schema public to attaching_owner, attaching_stranger",
        )
        .unwrap();
    let refused = Err("42501".to_owned());
    let _writer = holding(&stage, INSERT);
    let mut stranger = stage.database.session_as("attaching_stranger");
    stranger.batch_execute("set lock_timeout = '10ms'").unwrap();
    for step in [ATTACH, DETACH] {
        assert_eq!(outcome(&mut stranger, step), refused, "{step}");
    }
    let mut owner = stage.database.session_as("attaching_owner");
    owner.batch_execute("set lock_timeout = '10ms'").unwrap();
    assert_eq!(outcome(&mut owner, ATTACH), Err("55P03".to_owned()));
    drop(_writer);
    let first = holding(&stage, "alter table tasks owner to attaching_stranger");
    let attach = "set role attaching_owner; select sync_attach_table('tasks')";
    assert_eq!(after(&mut stage, first, attach), refused);
    assert_eq!(triggers(&mut stage.admin), 0);
}

/// An owner needs no right on the schema of the extension, and members of the owner's role
/// are owners.
#[test]
fn an_owner_attaches_without_further_rights() {
    let mut stage = stage();
    for role in ["attaching_owner", "attaching_member"] {
        stage.database.ensure_role(role);
    }
    stage
        .admin
        .batch_execute(
            "grant attaching_owner to attaching_member;
             create schema hidden;
             alter table tasks set schema hidden;
             alter table hidden.tasks owner to attaching_owner;
             grant execute on function sync_attach_table, sync_detach_table to attaching_member",
        )
        .unwrap();
    let oid: u32 =
        stage.admin.query_one("select 'hidden.tasks'::regclass::oid", &[]).unwrap().get(0);
    let mut member = stage.database.session_as("attaching_member");
    member.execute("select sync_attach_table($1::oid::regclass)", &[&oid]).unwrap();
    assert_eq!(attached(&mut stage.admin), ["hidden.tasks as tasks: ok"]);
    member.execute("select sync_detach_table($1::oid::regclass)", &[&oid]).unwrap();
    assert_eq!(triggers(&mut stage.admin), 0);
}

/// Two texts that differ are one key, or one workspace, under such a collation.
#[test]
fn a_collation_that_is_not_deterministic_is_refused() {
    let mut stage = Stage::new();
    let collation = "create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";
    if let Err(error) = stage.admin.batch_execute(collation) {
        assert!(error.as_db_error().unwrap().message().contains("ICU"), "{error}");
        println!("not tested: this Postgres has no ICU");
        return;
    }
    stage
        .admin
        .batch_execute(
            "create domain blind_text as text collate blind;
             create table by_text (id text collate blind primary key, workspace_id text);
             create table by_varchar (id varchar(9) collate blind primary key, workspace_id text);
             create table by_domain (id blind_text primary key, workspace_id text);
             create table of_text (id uuid primary key, workspace_id text collate blind);
             create table fine (id uuid primary key, workspace_id text, x text collate blind)",
        )
        .unwrap();
    for table in ["by_text", "by_varchar", "by_domain", "of_text"] {
        let attach = format!("select sync_attach_table('{table}')");
        assert_eq!(outcome(&mut stage.admin, &attach), Err("0A000".to_owned()), "{table}");
    }
    stage.admin.batch_execute("select sync_attach_table('fine')").unwrap();
}

#[test]
fn a_generated_column_that_is_not_stored_is_refused() {
    let mut stage = Stage::new();
    let table = "create table virtual (id uuid primary key, workspace_id text, a integer,
                   b integer generated always as (a + 1) virtual)";
    if stage.admin.batch_execute(table).is_err() {
        println!("not tested: before Postgres 18 there are none");
        return;
    }
    let attach = "select sync_attach_table('virtual')";
    assert_eq!(outcome(&mut stage.admin, attach), Err("0A000".to_owned()));
    let attach = "select sync_attach_table('virtual', columns => '{\"id\": \"id\", \"a\": \"a\"}')";
    assert!(outcome(&mut stage.admin, attach).is_ok());
}

const OP: &str = r#"{"tableName":"tasks","operation":"put","pk":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","payload":{"title":"A"},"stamp":{"deviceId":"d","opId":"11111111-1111-4111-8111-111111111111","hlc":"h","clock":1}}"#;

fn push() -> String {
    format!("select sync_push('w', '[{OP}]') -> 'results' -> 0 ->> 'success'")
}

#[test]
fn a_push_in_a_transaction_from_before_the_attaching_writes_the_row() {
    for isolation in ["read committed", "repeatable read", "serializable"] {
        let mut stage = stage();
        stage.admin.batch_execute("select sync_register_table('tasks')").unwrap();
        // A session that knows which tables are attached, and has all locks that a push takes.
        let other = push().replace("a0ee", "b0ee").replace("1111", "2222");
        let mut device =
            holding(&stage, &format!("set local transaction isolation level {isolation}; {other}"));
        stage.admin.batch_execute(ATTACH).unwrap();
        assert_eq!(outcome(&mut device, &push()), Ok("true".to_owned()), "{isolation}");
        device.batch_execute("commit").unwrap();
        let rows = "select string_agg(title, ',') from tasks";
        assert_eq!(outcome(&mut stage.admin, rows), Ok("A".to_owned()), "{isolation}");
    }
}

#[test]
fn a_push_that_waits_while_its_table_is_attached_is_tried_again() {
    let put = "select sync_put('w', 'tasks', 'c0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{}')";
    for write in [push(), put.to_owned()] {
        let mut stage = stage();
        stage.admin.batch_execute("select sync_register_table('tasks')").unwrap();
        let other = push().replace("a0ee", "b0ee").replace("1111", "2222");
        let mut holder = holding(&stage, &other);
        let waiting = stage.blocked(pid(&mut holder), move |session| outcome(session, &write));
        stage.admin.batch_execute(ATTACH).unwrap();
        holder.batch_execute("commit").unwrap();
        assert_eq!(waiting.join().unwrap(), Err("40001".to_owned()));
        assert_eq!(outcome(&mut stage.admin, &push()), Ok("true".to_owned()));
        assert_eq!(outcome(&mut stage.admin, "select title from tasks"), Ok("A".to_owned()));
    }
}

const DIARIES: &str =
    "create table diaries (id text primary key, workspace_id text not null, by text, list text);
     select sync_register_table('diaries')";
const ATTACH_DIARIES: &str =
    "select sync_attach_table('diaries', owner_column => 'by', scope_column => 'list')";
const REGISTER_WITH_BOTH: &str =
    "select sync_register_table('diaries', owner_field => 'by', scope_field => 'list')";

const OF_ANN: &str = "select sync_create_workspace('w', 'ann')";

/// The owner has to be filled in.
fn push_to_diary() -> String {
    let op = OP.replace("tasks", "diaries").replace("\"title\":\"A\"", "\"list\":\"x\"");
    let op = op.replace("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a");
    format!("select sync_push('w', '[{op}]') -> 'results' -> 0 ->> 'success'")
}

fn records(client: &mut Client) -> Result<String, String> {
    let sql = "select coalesce(string_agg(format('%s %s %s', pk, owner, scope), ','), '')
                 from sync_ext.record";
    outcome(client, sql)
}

#[test]
fn a_push_in_a_transaction_from_before_goes_by_what_is_registered_now() {
    for change in [ATTACH_DIARIES, REGISTER_WITH_BOTH] {
        for isolation in ["read committed", "repeatable read", "serializable"] {
            let mut stage = stage();
            stage.admin.batch_execute(&format!("{DIARIES}; {OF_ANN}")).unwrap();
            let begin = format!("set local transaction isolation level {isolation}; select 1");
            let mut device = holding(&stage, &begin);
            device.batch_execute("set local sync_ext.user_id = 'ann'").unwrap();
            stage.admin.batch_execute(change).unwrap();
            let pushed = outcome(&mut device, &push_to_diary());
            assert_eq!(pushed, Ok("true".to_owned()), "{change}, {isolation}");
            device.batch_execute("commit").unwrap();
            assert_eq!(
                records(&mut stage.admin),
                Ok("a ann x".to_owned()),
                "{change}, {isolation}"
            );
            if change == ATTACH_DIARIES {
                let rows = "select string_agg(concat_ws(' ', id, by, list), ',') from diaries";
                assert_eq!(outcome(&mut stage.admin, rows), Ok("a ann x".to_owned()));
            }
        }
    }
}

/// Whoever gives a table without records a scope field, or takes it, keeps pushes out until the
/// end, and may have to lock a workspace then.
#[test]
fn a_push_that_waits_for_a_change_of_its_table_goes_by_it() {
    let attach = format!("{ATTACH_DIARIES}; insert into diaries values ('b', 'w', 'ann', 'x')");
    let unregister = "select sync_unregister_table('diaries')".to_owned();
    let (ok, no) = (|word: &str| Ok(word.to_owned()), Err("40001".to_owned()));
    for (before, change, pushed, stored) in [
        ("select 1", REGISTER_WITH_BOTH.to_owned(), ok("true"), "a ann x"),
        ("select 1", attach, no, "b ann x"),
        (REGISTER_WITH_BOTH, unregister, ok("false"), ""),
    ] {
        let mut stage = stage();
        stage.admin.batch_execute(&format!("{DIARIES}; {OF_ANN}; {before}")).unwrap();
        let mut holder = holding(&stage, &change);
        let waiting = stage.blocked(pid(&mut holder), move |session| {
            session.batch_execute("set sync_ext.user_id = 'ann'").unwrap();
            outcome(session, &push_to_diary())
        });
        holder.batch_execute("commit").unwrap();
        assert_eq!(waiting.join().unwrap(), pushed, "{change}");
        assert_eq!(records(&mut stage.admin), ok(stored), "{change}");
    }
}

#[test]
fn rows_that_are_captured_while_a_table_is_attached_wait_without_their_workspace() {
    let mut stage = stage();
    stage.admin.batch_execute(&format!("{DIARIES}; {ATTACH}")).unwrap();
    stage.admin.batch_execute(INSERT).unwrap();
    let attach = format!("{ATTACH_DIARIES}; insert into diaries values ('b', 'w', 'ann', 'x')");
    let mut holder = holding(&stage, &attach);
    let waiting = stage.blocked(pid(&mut holder), |session| session.batch_execute(INSERT));
    holder.batch_execute("commit").unwrap();
    waiting.join().unwrap().unwrap();
    let count = "select count(*) from sync_ext.record";
    assert_eq!(outcome(&mut stage.admin, count), Ok("3".to_owned()));
}
