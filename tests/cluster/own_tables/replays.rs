//! Ops whose payload was replaced by the image of their row, when they come again.

use serde_json::json;

use super::{Own, TASKS, codes, patch, put};

const TOUCHED: &str = "create table docs (id text primary key, workspace_id text, x numeric(5,1), updated_at timestamptz);
    create function touch() returns trigger language plpgsql as $$ begin new.updated_at := clock_timestamp(); return new; end $$;
    create trigger touch before insert or update on docs for each row execute function touch();
    select sync_attach_table('docs', patches => true);";

fn with_payload(op: &str, from: &str, to: &str) -> String {
    assert!(op.contains(from));
    op.replace(from, to)
}

#[test]
fn an_op_whose_payload_was_replaced_is_a_replay() {
    let mut own = Own::new(TOUCHED);
    let op = put("docs", "a", 1, r#"{"id":"a","x":1.25}"#);
    let first = own.push(std::slice::from_ref(&op));
    assert_eq!(first[0]["payload"]["x"], "1.3");
    let again = own.push(std::slice::from_ref(&op));
    assert_eq!(codes(&again), ["replay"]);
    assert_eq!(again[0]["applied"], true);
    let spelled = with_payload(&op, r#"{"id":"a","x":1.25}"#, r#"{ "x" : 1.25, "\u0069d":"a" }"#);
    assert_eq!(own.codes(&[spelled]), ["replay"]);
    for other in
        [r#"{"id":"a","x":1.3}"#, r#"{"id":"a","x":"1.3"}"#, r#"{"id":"a","x":"1.25"}"#, "{}"]
    {
        let other = with_payload(&op, r#"{"id":"a","x":1.25}"#, other);
        assert_eq!(own.codes(&[other]), ["CONFLICT"], "what is stored is not what was pushed");
    }
    assert_eq!(own.head(), 1);
    assert_eq!(own.rows("select x from docs"), ["(1.3)"]);
}

#[test]
fn a_put_with_the_image_that_was_told_is_another_op() {
    let mut own = Own::new(TOUCHED);
    let op = put("docs", "a", 1, r#"{"id":"a","x":1.25}"#);
    let told = own.push(std::slice::from_ref(&op))[0]["payload"].to_string();
    let same_id = with_payload(&op, r#"{"id":"a","x":1.25}"#, &told);
    assert_eq!(own.codes(&[same_id]), ["CONFLICT"]);
}

#[test]
fn the_next_offline_edit_wins_over_what_a_trigger_set() {
    let mut own = Own::new(TOUCHED);
    own.push(&[put("docs", "a", 1, r#"{"id":"a","x":1}"#)]);
    let results = own.push(&[put("docs", "a", 2, r#"{"id":"a","x":2}"#)]);
    assert_eq!(codes(&results), ["ok"], "no op of the server came between");
    assert_eq!(own.head(), 2);
}

#[test]
fn replays_of_replaced_patches_and_of_superseded_ops_are_recognised() {
    let mut own = Own::new(TOUCHED);
    let base = put("docs", "a", 1, r#"{"x":1.25}"#);
    let first = patch("docs", "a", 2, &base, r#"{"x":2.25}"#);
    let second = patch("docs", "a", 3, &base, r#"{"x":3.25}"#);
    let ops = [base, first, second];
    assert_eq!(own.codes(&ops), ["ok"; 3]);
    assert_eq!(own.codes(&ops), ["replay"; 3]);
    let doubled = [ops[2].clone(), ops[2].clone(), put("docs", "b", 1, r#"{"x":"9"}"#)];
    assert_eq!(own.codes(&doubled), ["replay", "replay", "ok"]);
    let other = with_payload(&ops[2], "3.25", "3.3");
    assert_eq!(own.codes(&[other]), ["CONFLICT"]);
    assert_eq!(own.head(), 4);
}

#[test]
fn a_replay_changes_no_row() {
    let mut own = Own::new(&TASKS.replace(", patches => true", ""));
    let op = put("tasks", "a", 1, r#"{"title":"A"}"#);
    own.push(std::slice::from_ref(&op));
    own.sql("update tasks set title = 'by SQL'");
    let results = own.push(&[op.clone(), put("tasks", "b", 1, r#"{"title":"B"}"#)]);
    assert_eq!(codes(&results), ["replay", "ok"]);
    assert_eq!(results[0]["winner"]["payload"]["title"], "by SQL");
    own.sql("delete from tasks where id = 'a'");
    assert_eq!(own.codes(&[op]), ["replay"]);
    assert_eq!(own.rows("select id from tasks"), ["(b)"]);
}

#[test]
fn a_put_to_which_the_owner_was_added_is_a_replay() {
    let mut own = Own::new(
        "create table diary (id text primary key, workspace_id text, by text, x text);
         select sync_attach_table('diary', owner_column => 'by'); select sync_create_workspace('w', 'ann')",
    );
    let mut ann = own.stage.session_of("ann");
    for payload in [r#"{"x":"1"}"#, r#"{"id":"b","x":"1","more":1}"#, r#"{"id":"c","x":null}"#] {
        let pk = &payload[..].find("\"id\":\"").map_or("a", |at| &payload[at + 6..at + 7]);
        let op = put("diary", pk, 1, payload);
        assert_eq!(super::push_as(&mut ann, "w", std::slice::from_ref(&op)), ["ok"]);
        assert_eq!(super::push_as(&mut ann, "w", &[op]), ["replay"], "{payload}");
    }
    assert_eq!(own.rows("select count(*) from diary where by = 'ann'"), ["(3)"]);
}

/// A winner that an op lost to is shown as it is stored, not as it was pushed.
#[test]
fn the_winner_is_shown_as_its_row_is() {
    let mut own = Own::new(TOUCHED);
    let results =
        own.push(&[put("docs", "a", 2, r#"{"x":"2.25"}"#), put("docs", "a", 1, r#"{"x":1}"#)]);
    assert_eq!(results[1]["winner"]["payload"]["x"], json!("2.3"));
    assert_eq!(results[0]["payload"], results[1]["winner"]["payload"]);
}
