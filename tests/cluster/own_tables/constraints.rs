//! Constraints: all rows of a push are one statement to foreign keys, and what is deferred
//! is checked before the push ends, as far as it is the push's.

use postgres::Client;
use sync_ext_harness::steps::outcome;

use super::{Own, TASKS, codes, delete, push_sql, put};

const TREE: &str = "create table nodes (id text primary key, workspace_id text, parent text references nodes, x text not null default '');
                    select sync_attach_table('nodes');";

fn under(pk: &str, parent: &str) -> String {
    put("nodes", pk, 1, &format!(r#"{{"parent":"{parent}"}}"#))
}

fn root(pk: &str) -> String {
    put("nodes", pk, 1, r#"{"parent":null}"#)
}

#[test]
fn a_child_may_come_before_its_parent() {
    let mut own = Own::new(
        "create table z_parents (id text primary key, workspace_id text);
         create table a_children (id text primary key, workspace_id text, parent text not null references z_parents);
         select sync_attach_table('a_children'), sync_attach_table('z_parents')",
    );
    let child = |pk, parent| put("a_children", pk, 1, &format!(r#"{{"parent":"{parent}"}}"#));
    let codes = own.codes(&[child("c", "p"), put("z_parents", "p", 1, "{}")]);
    assert_eq!(codes, ["ok", "ok"]);
    let codes = own.codes(&[child("d", "none"), child("e", "q"), put("z_parents", "q", 1, "{}")]);
    assert_eq!(codes, ["CONSTRAINT 23503", "ok", "ok"]);
    let codes = own.codes(&[delete("z_parents", "p", 2), delete("a_children", "c", 2)]);
    assert_eq!(codes, ["ok", "ok"]);
}

#[test]
fn a_missing_parent_may_come() {
    let mut own = Own::new(TREE);
    let child = under("c", "p");
    let results = own.push(std::slice::from_ref(&child));
    assert_eq!(codes(&results), ["CONSTRAINT 23503"]);
    assert_eq!(results[0]["retry"], true);
    assert_eq!(results[0]["constraint"], "nodes_parent_fkey");
    assert_eq!(own.head(), 0);
    assert_eq!(own.codes(&[root("p"), child]), ["ok", "ok"]);
}

#[test]
fn rows_may_refer_to_themselves_and_in_cycles() {
    let mut own = Own::new(&format!(
        "{TREE} create table a (id text primary key, workspace_id text);
         create table b (id text primary key, workspace_id text, a text not null references a);
         alter table a add b text not null references b;
         select sync_attach_table('a'), sync_attach_table('b')"
    ));
    let ops = [under("self", "self"), under("a", "b"), under("b", "c"), under("c", "a")];
    assert_eq!(own.codes(&ops), ["ok"; 4]);
    let pair = [put("a", "1", 1, r#"{"b":"1"}"#), put("b", "1", 1, r#"{"a":"1"}"#)];
    assert_eq!(own.codes(&pair), ["ok"; 2]);
    // One by one no row of the cycle could be deleted.
    let bad = put("nodes", "bad", 1, r#"{"x":null}"#);
    let codes = own.codes(&[delete("a", "1", 2), delete("b", "1", 2), bad]);
    assert_eq!(codes, ["ok", "ok", "CONSTRAINT 23502"]);
}

#[test]
fn a_referenced_row_may_be_replaced_and_not_deleted() {
    let mut own = Own::new(TREE);
    own.push(&[root("p"), under("c", "p")]);
    let results = own.push(&[delete("nodes", "p", 2)]);
    assert_eq!(codes(&results), ["CONSTRAINT 23503"]);
    assert_eq!(results[0]["winner"]["kind"], "put");
    let moved = put("nodes", "c", 2, r#"{"parent":"q"}"#);
    assert_eq!(own.codes(&[delete("nodes", "p", 2), moved, root("q")]), ["ok"; 3]);
}

/// Nor does it take long: each row refers to the one after it.
#[test]
fn a_long_chain_with_one_bad_op_is_written_without_it() {
    let mut own = Own::new(TREE);
    let name = |at: u32| format!("n{at:04}");
    let mut ops: Vec<String> = (0..999).map(|at| under(&name(at), &name(at + 1))).collect();
    ops.push(root(&name(999)));
    ops.push(put("nodes", "bad", 1, r#"{"x":null}"#));
    own.sql("set sync_ext.max_ops_per_push = 2000; set statement_timeout = '60s'");
    let mut expected = vec!["ok"; 1000];
    expected.push("CONSTRAINT 23502");
    assert_eq!(own.codes(&ops), expected);
    assert_eq!(own.rows("select count(*) from nodes"), ["(1000)"]);
}

/// Half of them have no ancestor.
#[test]
fn a_broken_chain_is_written_as_far_as_it_holds() {
    let mut own = Own::new(TREE);
    let name = |at: u32| format!("n{at:04}");
    let mut ops: Vec<String> = (0..499).map(|at| under(&name(at), &name(at + 1))).collect();
    ops.extend((501..999).map(|at| under(&name(at), &name(at + 1))));
    ops.push(root(&name(999)));
    own.sql("set statement_timeout = '60s'");
    let codes = own.codes(&ops);
    assert!(codes[..499].iter().all(|code| code == "CONSTRAINT 23503"), "{codes:?}");
    assert!(codes[499..].iter().all(|code| code == "ok"), "{codes:?}");
}

#[test]
fn unique_values_move_between_rows() {
    let mut own = Own::new(
        "create table slots (id text primary key, workspace_id text, n integer unique, m integer,
           unique (m) deferrable initially deferred, k integer unique deferrable);
         select sync_attach_table('slots')",
    );
    let slot =
        |pk, clock, n, m: i32| put("slots", pk, clock, &format!(r#"{{"n":{n},"m":{m},"k":{m}}}"#));
    assert_eq!(own.codes(&[slot("a", 1, 1, 1), slot("b", 1, 2, 2)]), ["ok"; 2]);
    assert_eq!(own.codes(&[delete("slots", "a", 2), slot("c", 1, 1, 1)]), ["ok"; 2]);
    let swap = |field: &str| {
        [
            put("slots", "b", 3, &format!(r#"{{"{field}":1}}"#)),
            put("slots", "c", 3, &format!(r#"{{"{field}":2}}"#)),
        ]
    };
    assert_eq!(
        own.codes(&swap("m")),
        ["ok"; 2],
        "a deferred key is checked when all rows are written"
    );
    assert_eq!(own.codes(&swap("k")), ["ok"; 2], "a deferrable key, at the end of the statement");
    let duplicate = own.push(&[put("slots", "d", 1, r#"{"n":4,"m":1}"#), slot("e", 1, 5, 5)]);
    assert_eq!(codes(&duplicate), ["CONSTRAINT 23505", "ok"]);
    assert_eq!(duplicate[0]["constraint"], "slots_m_key");
    assert_eq!(own.codes(&[slot("f", 1, 2, 9)]), ["CONSTRAINT 23505"]);
}

const DEFERRED: &str = "create table parents (id text primary key, workspace_id text);
   create table children (id text primary key, workspace_id text, n integer,
     parent text constraint parent references parents deferrable initially deferred,
     other text constraint other references parents deferrable,
     constraint n unique (n) deferrable initially deferred);
   select sync_attach_table('parents'), sync_attach_table('children');";

fn child(pk: &str, parent: &str) -> String {
    put("children", pk, 1, &format!(r#"{{"parent":"{parent}"}}"#))
}

#[test]
fn a_deferred_constraint_refuses_its_op_and_not_the_commit() {
    let mut own = Own::new(DEFERRED);
    let ops = [child("a", "none"), child("b", "p"), put("parents", "p", 1, "{}")];
    assert_eq!(own.codes(&ops), ["CONSTRAINT 23503", "ok", "ok"]);
    assert_eq!(own.codes(&[delete("parents", "p", 2)]), ["CONSTRAINT 23503"]);
}

/// The row that violates it is of a table that the push does not name.
#[test]
fn a_deferred_constraint_that_a_cascade_violates_refuses_its_op() {
    let mut own = Own::new(
        "create table lists (id text primary key, workspace_id text);
         create table steps (id text primary key, list text references lists on delete cascade);
         create table audit (step text references steps deferrable initially deferred);
         select sync_attach_table('lists')",
    );
    own.push(&[put("lists", "used", 1, "{}"), put("lists", "free", 1, "{}")]);
    own.sql(
        "insert into steps values ('s', 'used'), ('t', 'free'); insert into audit values ('s')",
    );
    let codes = own.codes(&[delete("lists", "used", 2), delete("lists", "free", 2)]);
    assert_eq!(codes, ["CONSTRAINT 23503", "ok"]);
}

/// Names of constraints are unique within a table only.
#[test]
fn a_constraint_of_the_same_name_that_is_not_deferrable_does_no_harm() {
    let mut own = Own::new(DEFERRED);
    own.sql("create table strangers (id text constraint parent references parents)");
    let ops = [child("a", "none"), child("b", "p"), put("parents", "p", 1, "{}")];
    assert_eq!(own.codes(&ops), ["CONSTRAINT 23503", "ok", "ok"]);
}

/// After its push the caller inserts a row that violates a constraint; at which moment
/// that fails shows how the constraint is set.
fn fails_at_once(session: &mut Client, setting: &str, column: &str, ops: &[String]) -> bool {
    let push = push_sql("w", ops);
    session.batch_execute(&format!("begin; {setting}; {push}")).unwrap();
    let insert = format!("insert into children (id, {column}) values ('x', 'none')");
    let is_immediate = outcome(session, &insert) == Err("23503".to_owned());
    session.batch_execute("rollback").unwrap();
    is_immediate
}

#[test]
fn the_callers_set_constraints_are_kept() {
    let mut own = Own::new(DEFERRED);
    own.push(&[put("parents", "p", 1, "{}")]);
    let mut session = own.stage.session();
    for (setting, column, expected) in [
        ("select", "parent", false),
        ("select", "other", true),
        ("set constraints parent immediate", "parent", true),
        ("set constraints all immediate", "parent", true),
        ("set constraints all deferred", "parent", false),
        ("set constraints all deferred", "other", false),
        ("set constraints other deferred", "other", false),
        ("set constraints other deferred", "parent", false),
    ] {
        let mut ops = vec![child("a", "p"), put("children", "b", 1, r#"{"other":"p"}"#)];
        let said = |ops: &[String]| format!("{setting}, {column}, {} ops", ops.len());
        assert_eq!(fails_at_once(&mut session, setting, column, &ops), expected, "{}", said(&ops));
        ops.push(child("c", "none"));
        assert_eq!(fails_at_once(&mut session, setting, column, &ops), expected, "{}", said(&ops));
    }
}

#[test]
fn what_the_caller_deferred_refuses_its_op_too() {
    let mut own = Own::new(DEFERRED);
    own.sql("begin; set constraints all deferred");
    let codes =
        own.codes(&[put("children", "a", 1, r#"{"other":"none"}"#), put("children", "b", 1, "{}")]);
    assert_eq!(codes, ["CONSTRAINT 23503", "ok"]);
    own.sql("commit");
}

/// What the caller's transaction left open is not the fault of an op.
#[test]
fn what_the_caller_still_has_to_mend_refuses_no_op() {
    let mut own = Own::new(DEFERRED);
    own.sql("begin; insert into children values ('x', 'w', 1, 'late'), ('y', 'w', 1, null)");
    assert_eq!(own.codes(&[child("a", "p"), put("parents", "p", 1, "{}")]), ["ok"; 2]);
    own.sql("update children set n = 2 where id = 'y'; insert into parents values ('late', 'w'); commit");
    let mut other = own.stage.session();
    other.batch_execute("begin; insert into children values ('z', 'w', 3, 'never')").unwrap();
    assert!(outcome(&mut other, &push_sql("w", &[put("parents", "r", 1, "{}")])).is_ok());
    assert_eq!(outcome(&mut other, "commit"), Err("23503".to_owned()));
}

#[test]
fn cascades_of_a_push_are_captured() {
    let mut own = Own::new(&format!(
        "{TASKS} create table labels (id text primary key, workspace_id text, task text references tasks on delete set null);
         create table steps (id text primary key, workspace_id text, task text references tasks on delete cascade);
         select sync_attach_table('labels'), sync_attach_table('steps')"
    ));
    let of_a = r#"{"task":"a"}"#;
    own.push(&[
        put("labels", "l", 1, of_a),
        put("steps", "s", 1, of_a),
        put("tasks", "a", 1, r#"{"title":"A"}"#),
    ]);
    // The delete of the step is the record's own, whatever the cascade did before it.
    assert_eq!(own.codes(&[delete("tasks", "a", 2), delete("steps", "s", 2)]), ["ok"; 2]);
    assert_eq!(own.payload("l"), Some(serde_json::json!({"id": "l", "task": null})));
    assert_eq!(own.head(), 6);
}
