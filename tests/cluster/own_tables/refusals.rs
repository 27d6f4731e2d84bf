//! Whose fault an error is: an op's, which is refused alone, or that of nobody who pushes,
//! so that the call fails and nothing is stored.

use sync_ext_harness::steps::outcome;
use uuid::Uuid;

use super::{Own, TASKS, codes, delete, patch, push_as, push_sql, put};

const CHECKED: &str = "create domain small as text check (length(value) < 3);
    create table checked (id integer primary key, workspace_id text, s small, v varchar(3), i smallint,
      d date, j jsonb, t text, u text unique, r int4range, c integer check (c > 0) not null default 1,
      exclude using gist (r with &&));
    select sync_attach_table('checked');";

#[test]
fn every_data_fault_is_its_ops() {
    let mut own = Own::new(CHECKED);
    let fine = put("checked", "1", 1, r#"{"u":"x","r":"[1,5)"}"#);
    own.push(&[fine]);
    let (data, constraint) = ("VALIDATION_ERROR", "CONSTRAINT");
    own.sql("create index on checked (t)");
    let noise: String = (0..300).map(|_| Uuid::from_u128(rand::random()).to_string()).collect();
    let too_long = serde_json::json!({"t": noise}).to_string();
    for (at, (payload, code, state)) in [
        (too_long.as_str(), data, "54000"),
        (r#"{"s":"long"}"#, constraint, "23514"),
        (r#"{"c":0}"#, constraint, "23514"),
        (r#"{"c":null}"#, constraint, "23502"),
        (r#"{"u":"x"}"#, constraint, "23505"),
        (r#"{"r":"[2,3)"}"#, constraint, "23P01"),
        (r#"{"v":"long"}"#, data, "22001"),
        (r#"{"i":40000}"#, data, "22003"),
        (r#"{"i":"x"}"#, data, "22P02"),
        (r#"{"i":{}}"#, data, "22P02"),
        (r#"{"d":"2001-02-30"}"#, data, "22008"),
        (r#"{"d":"soon"}"#, data, "22007"),
        (r#"{"u":"\u0000"}"#, data, "22P05"),
        (r#"{"u":"\ud800"}"#, data, "22P02"),
        (r#"{"j":{"a":"\u0000"}}"#, data, "22P05"),
        (r#"{"r":"[5,1]"}"#, data, "22000"),
    ]
    .into_iter()
    .enumerate()
    {
        let (bad, good) = (format!("{}", 2 * at + 10), format!("{}", 2 * at + 11));
        let ops = [put("checked", &bad, 1, payload), put("checked", &good, 9, r#"{"v":"ok"}"#)];
        let results = own.push(&ops);
        assert_eq!(
            codes(&results),
            [format!("{code} {state}"), "ok".to_owned()],
            "{payload}: {results:?}"
        );
        assert!(results[0]["error"].is_string());
    }
}

#[test]
fn bad_ops_of_a_thousand_are_refused_alone() {
    for bad in [1, 10, 1000] {
        let mut own = Own::new(TASKS);
        let is_bad = |at: usize| at.is_multiple_of(1000 / bad);
        let op = |at: usize| {
            let title = if is_bad(at) { "null".to_owned() } else { format!("\"{at}\"") };
            put("tasks", &format!("{at:04}"), 1, &format!(r#"{{"title":{title}}}"#))
        };
        let ops: Vec<String> = (0..1000).map(op).collect();
        let codes = own.codes(&ops);
        for (at, code) in codes.iter().enumerate() {
            assert_eq!(
                code,
                if is_bad(at) { "CONSTRAINT 23502" } else { "ok" },
                "{bad} bad, op {at}"
            );
        }
        assert_eq!(own.head(), 1000 - bad as i64);
        assert_eq!(own.rows("select count(*) from tasks"), [format!("({})", 1000 - bad)]);
    }
}

#[test]
fn a_workspace_in_which_every_op_is_refused_does_not_come_to_be() {
    let mut own = Own::new(TASKS);
    assert_eq!(own.codes(&[put("tasks", "a", 1, "{}")]), ["CONSTRAINT 23502"]);
    assert_eq!(own.rows("select count(*) from sync_ext.workspace"), ["(0)"]);
}

#[test]
fn what_no_row_can_be_is_refused_for_that_in_an_unknown_workspace_too() {
    let mut own = Own::new(
        "create table keyed (id integer primary key, workspace_id text);
         select sync_attach_table('keyed', patches => true)",
    );
    let base = put("keyed", "7", 1, "{}");
    assert_eq!(own.codes(&[patch("keyed", "007", 2, &base, r#"{"x":1}"#)]), ["VALIDATION_ERROR"]);
    let sql = "select sync_patch('w', 'keyed', '007', '{\"x\":1}') ->> 'errorCode'";
    assert_eq!(own.rows(sql), ["(VALIDATION_ERROR)"]);
}

#[test]
fn a_missing_right_fails_the_call() {
    // Roles last as long as the server, and that as long as a test that uses it.
    let server = Own::new("");
    for role in ["apply_caller", "apply_table_owner"] {
        server.stage.database.ensure_role(role);
    }
    let mut own = Own::new(&format!(
        "{TASKS} grant execute on all functions in schema public to apply_caller; insert into tasks values ('x', 'w', '')"
    ));
    let mut caller = own.stage.database.session_as("apply_caller");
    let push = |caller: &mut _, op: String| {
        outcome(caller, &push_sql("w", &[put("tasks", "ok", 1, r#"{"title":""}"#), op]))
    };
    for (right, op) in [
        ("insert, update, delete", put("tasks", "x", 9, "{\"n\":1}")),
        ("select, update, delete", put("tasks", "y", 9, "{\"title\":\"\"}")),
        ("select, insert, delete", put("tasks", "x", 9, "{\"n\":1}")),
        ("select, insert, update", delete("tasks", "x", 9)),
        ("select, insert, delete, update (title)", put("tasks", "x", 9, "{\"n\":1}")),
    ] {
        own.sql(&format!(
            "revoke all on tasks from apply_caller; grant {right} on tasks to apply_caller"
        ));
        assert_eq!(push(&mut caller, op), Err("42501".to_owned()), "{right}");
    }
    assert_eq!(own.head(), 1);
    own.sql("grant all on tasks to apply_caller");
    assert!(push(&mut caller, delete("tasks", "x", 9)).is_ok());
}

#[test]
fn a_broken_trigger_fails_the_call_and_nothing_is_stored() {
    let mut own = Own::new(&format!(
        "{TASKS} create function act() returns trigger language plpgsql as $$ begin perform no_such_function(); end $$;
         create trigger act before insert on tasks for each row when (new.title = 'x') execute function act()"
    ));
    let ops = [put("tasks", "a", 1, r#"{"title":"A"}"#), put("tasks", "b", 1, r#"{"title":"x"}"#)];
    assert_eq!(own.failure(&ops), "42883");
    assert_eq!((own.head(), own.rows("select id from tasks")), (0, vec![]));
    assert_eq!(own.rows("select count(*) from sync_ext.workspace"), ["(0)"]);
}

#[test]
fn devices_only_read_a_table_of_direction_down() {
    let mut own = Own::new(
        "create table prices (id text primary key, workspace_id text);
         insert into prices values ('old', 'w');
         select sync_attach_table('prices', direction => 'down', patches => true);
         insert into prices values ('a', 'w')",
    );
    own.sql("update prices set id = 'old!' where id = 'old'");
    let base = put("prices", "a", 5, "{}");
    let results = own.push(&[
        base.clone(),
        put("prices", "b", 5, "{}"),
        delete("prices", "a", 5),
        patch("prices", "a", 6, &base, r#"{"x":1}"#),
    ]);
    assert_eq!(codes(&results), ["READ_ONLY"; 4]);
    assert_eq!(results[0]["winner"]["payload"]["id"], "a");
    assert!(results[1].get("winner").is_none());
    // So many are first taken for ops of new records.
    let many: Vec<String> = (0..8).map(|_| put("prices", "a", 1, "{}")).collect();
    assert_eq!(own.push(&many)[0]["winner"]["payload"]["id"], "a");
}

#[test]
fn a_session_of_a_replica_cannot_push_to_rows() {
    let mut own = Own::new(TASKS);
    own.sql("set session_replication_role = replica");
    assert_eq!(own.failure(&[put("tasks", "a", 1, r#"{"title":"A"}"#)]), "55000");
    let note = put("notes", "a", 1, "{}");
    assert_eq!(own.codes(&[note]), ["ok"], "records without rows do not need triggers");
    own.sql("reset session_replication_role");
    assert_eq!(own.codes(&[put("tasks", "a", 1, r#"{"title":"A"}"#)]), ["ok"]);
}

#[test]
fn the_highest_clocks_are_the_servers() {
    let mut own = Own::new(&TASKS.replace(", patches => true", ""));
    let highest = (1 << 53) - 1 - (1 << 20);
    let titled = |clock| put("tasks", "a", clock, r#"{"title":"A"}"#);
    assert_eq!(own.codes(&[titled(highest + 1), titled(highest)]), ["VALIDATION_ERROR", "ok"]);
    own.sql("update tasks set n = 1");
    own.sql("update tasks set n = 2");
    assert_eq!(own.codes(&[titled(highest)]), ["lost"]);
    let title = r#"{"title":"C"}"#;
    own.sql(&format!("select sync_put('w', 'tasks', 'a', '{title}')"));
    assert_eq!(
        own.rows("select revision ->> 'clock', payload ->> 'title' from sync_ext.current_record"),
        [format!("({},C)", highest + 3)]
    );
    own.sql("delete from tasks");
    assert_eq!(own.codes(&[put("notes", "a", (1 << 53) - 1, "{}")]), ["ok"]);
}

#[test]
fn a_key_that_is_not_written_as_its_type_writes_it_is_refused() {
    for (kind, right, wrong) in [
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc999c0b4ef8bb6d6bb9bd380a11"),
        ("integer", "7", "007"),
        ("integer", "-7", " -7"),
        ("bigint", "9007199254740993", "+9007199254740993"),
        ("smallint", "0", "-0"),
        ("boolean", "true", "t"),
        ("date", "2001-02-03", "20010203"),
        ("timestamptz", "2001-02-03T04:05:06+00:00", "2001-02-03T05:05:06+01:00"),
        ("timestamp", "2001-02-03T04:05:06", "2001-02-03 04:05:06"),
        ("mood", "happy", "merry"),
        ("varchar(3)", "abc", "abc "),
        ("varchar(3)", "abc", "abcd"),
        ("code", "abc", "abc "),
        ("timestamp(0)", "2001-02-03T04:05:06", "2001-02-03T04:05:06.4"),
        ("text", "a ", "no wrong one"),
    ] {
        let mut own = Own::new(&format!(
            "create type mood as enum ('happy'); create domain code as varchar(3);
             create table keyed (id {kind} primary key, workspace_id text, x text); select sync_attach_table('keyed')"
        ));
        assert_eq!(own.codes(&[put("keyed", right, 1, r#"{"x":"1"}"#)]), ["ok"], "{kind} {right}");
        if kind != "text" {
            let code = own.codes(&[put("keyed", wrong, 2, r#"{"x":"2"}"#)]).remove(0);
            assert!(code.starts_with("VALIDATION_ERROR"), "{kind} {wrong}: {code}");
        }
        assert_eq!(own.codes(&[put("keyed", right, 3, r#"{"x":"3"}"#)]), ["ok"], "{kind} {right}");
        assert_eq!(own.codes(&[delete("keyed", right, 4)]), ["ok"], "{kind} {right}");
    }
}

#[test]
fn a_refused_op_can_be_pushed_again_and_is_no_replay() {
    let mut own = Own::new(TASKS);
    let op = put("tasks", "a", 1, r#"{"n":1}"#);
    assert_eq!(own.codes(std::slice::from_ref(&op)), ["CONSTRAINT 23502"]);
    own.sql("alter table tasks alter title set default 'untitled'");
    assert_eq!(own.codes(&[op.clone(), op]), ["ok", "ok"]);
    assert_eq!(own.head(), 1);
}

/// A batch of so many ops is first taken for new ops of new records.
#[test]
fn refused_ops_of_a_large_batch_are_those_that_are_not_stored() {
    let mut own = Own::new(TASKS);
    let stored = put("tasks", "a", 1, r#"{"title":"A","n":1}"#);
    own.push(&[stored.clone(), delete("tasks", "b", 1)]);
    own.sql("delete from tasks; alter table tasks add check (n > 1)");
    let mut ops: Vec<String> =
        (0..8).map(|at| put("tasks", &format!("c{at}"), 1, r#"{"title":"C"}"#)).collect();
    ops.extend([stored, put("tasks", "b", 1, r#"{"title":"B","n":0}"#)]);
    let results = own.push(&ops);
    assert_eq!(codes(&results)[7..], ["ok", "replay", "CONSTRAINT 23514"]);
    assert_eq!(results[9]["winner"]["kind"], "delete", "{}", results[9]);
}

#[test]
fn a_table_that_is_gone_fails_its_pushes_and_no_others() {
    let mut own = Own::new(TASKS);
    own.sql("drop table tasks");
    assert_eq!(own.failure(&[put("tasks", "a", 1, r#"{"title":"A"}"#)]), "55000");
    let mut session = own.stage.session();
    assert_eq!(push_as(&mut session, "w", &[put("notes", "a", 1, "{}")]), ["ok"]);
    own.sql("select sync_unregister_table('tasks')");
}

/// Each is the record's winner once those above it are refused.
#[test]
fn many_bad_ops_of_one_record_are_refused_and_the_good_one_wins() {
    let mut own = Own::new(TASKS);
    let bad = |clock| put("tasks", "a", clock, r#"{"n":"x"}"#);
    let mut ops: Vec<String> = (2..100).map(bad).collect();
    ops.push(put("tasks", "a", 1, r#"{"title":"good"}"#));
    let codes = own.codes(&ops);
    assert!(codes[..98].iter().all(|code| code == "VALIDATION_ERROR 22P02"), "{codes:?}");
    assert_eq!(codes[98..], ["ok"]);
}

#[test]
fn ops_that_reach_the_limit_of_captured_rows_together_are_not_refused() {
    let mut own = Own::new(
        "create table parents (id text primary key, workspace_id text not null, n integer);
         create table children (id text primary key, workspace_id text not null,
           parent text references parents on delete cascade);
         select sync_attach_table('parents'), sync_attach_table('children');
         insert into parents values ('p', 'w'), ('q', 'w'), ('r', 'w');
         insert into children select p || n, 'w', p
           from unnest('{p,q}'::text[]) p, generate_series(1, 6) n;
         insert into children select 'r' || n, 'w', 'r' from generate_series(1, 12) n;
         set sync_ext.max_captured_rows = 10",
    );
    let [p, q, r] = ["p", "q", "r"].map(|pk| delete("parents", pk, 9));
    // Of these the last one is refused, and then the one before is all that is left to write.
    let more = vec![p.clone(), q.clone(), put("parents", "q", 10, r#"{"n":"x"}"#)];
    // By the first message clients halve their batch; the other one is for an operator.
    for (ops, message) in [
        (vec![p.clone(), q.clone()], "too many ops in one push"),
        (more, "too many ops in one push"),
        (vec![r], "too many rows captured in one transaction"),
    ] {
        let error = own.stage.admin.batch_execute(&push_sql("w", &ops)).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!((error.code().code(), error.message()), ("54000", message));
    }
    assert_eq!(own.rows("select count(*) from parents"), ["(3)"]);
    assert_eq!((own.codes(&[p]), own.codes(&[q])), (vec!["ok".to_owned()], vec!["ok".to_owned()]));
    assert_eq!(own.rows("select count(*) from children"), ["(12)"]);
}

#[test]
fn rows_that_are_larger_than_what_was_pushed_are_refused_together_and_not_alone() {
    let mut own = Own::new(
        "create table texts (id text primary key, workspace_id text, title text, body text);
         select sync_attach_table('texts');
         insert into texts select n, 'w', '', repeat('x', 1024 * 1024) from generate_series(1, 100) n",
    );
    let short = |pk: i32| put("texts", &pk.to_string(), 9, r#"{"title":"T"}"#);
    let ops: Vec<String> = (1..=100).map(short).collect();
    let error = own.stage.admin.batch_execute(&push_sql("w", &ops)).unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!((error.code().code(), error.message()), ("54000", "too many ops in one push"));
    assert_eq!(own.rows("select from texts where title <> ''").len(), 0);
    for half in ops.chunks(50) {
        assert!(own.codes(half).iter().all(|code| code == "ok"));
    }
    own.sql("update texts set body = repeat('y', 65 * 1024 * 1024) where id = '1'");
    assert_eq!(own.codes(&[put("texts", "1", 99, r#"{"title":"T"}"#)]), ["ok"]);
}
