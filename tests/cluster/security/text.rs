//! Hostile text wherever a caller may put text: in each argument of each
//! function and in each field of an op. It is a name like any other or it is
//! refused, and no other row changes.

use std::collections::BTreeSet;

use postgres::{Client, GenericClient};
use serde_json::{Value, json};
use sync_ext_harness::database::Database;
use sync_ext_harness::device::call;
use sync_ext_harness::state::TABLES;

use super::{furnished, told};

fn world() -> Database {
    let app = furnished();
    app.session().batch_execute("select sync_update_cursor('team', 'd', 1)").unwrap();
    app
}

pub fn hostile() -> Vec<String> {
    let mut texts: Vec<String> = [
        "",
        " ",
        "'",
        "''",
        "\"",
        "\\",
        "\\'; drop table sync_ext.member; --",
        "'; delete from sync_ext.change_log; --",
        "' or '1' = '1",
        "x' union select user_id from sync_ext.member --",
        "$$ begin end $$",
        "$1",
        "%s%n%I%L",
        "/* ",
        "-- ",
        ";",
        "null",
        "NULL",
        "team'--",
        "team\n",
        "team ",
        " team",
        "TEAM",
        "{\"a\":1}",
        "[\"ann\"]",
        "\\u0000",
        "\\x00",
        "a\u{1}b\u{7f}",
        "\t\r\n",
        "\u{202e}maet",
        "te\u{200b}am",
        "e\u{301}",
        "\u{e9}",
        "\u{feff}ann",
        "😀",
        "../../etc/passwd",
        "{\"sub\": }",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.extend([128, 129, 256, 257, 100_000].map(|length| "x".repeat(length)));
    texts
}

/// What a call with hostile text may come to.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// New rows of these tables, the text a value of one of them.
    Stored(&'static [&'static str]),
    Nothing,
    Refused(&'static str),
}
use Outcome::{Nothing, Refused, Stored};

/// All rows, each with its table.
fn rows(session: &mut impl GenericClient) -> BTreeSet<(String, String)> {
    let of = |table| format!("select '{table}', to_jsonb(t)::text from sync_ext.{table} t");
    let sql = TABLES.map(of).join(" union all ");
    session.query(&sql, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Makes the call in a transaction that is rolled back, and compares with the
/// rows that there were before.
fn comes_to(
    session: &mut Client,
    before: &BTreeSet<(String, String)>,
    sql: &str,
    argument: &str,
    text: &str,
    expected: &Outcome,
) {
    let shown: String = text.chars().take(60).collect();
    let context = format!("{sql} with {shown:?}");
    let mut transaction = session.transaction().unwrap();
    let result = transaction.query(sql, &[&argument]);
    let (expected, is_named) = match expected {
        Refused(code) => {
            let error = result.err().unwrap_or_else(|| panic!("not refused: {context}"));
            assert_eq!(told(&error).0, *code, "{context}");
            return;
        }
        Nothing => (&[] as &[&str], false),
        Stored(tables) => (*tables, true),
    };
    result.unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let after = rows(&mut transaction);
    assert!(after.is_superset(before), "rows that were there changed: {context}");
    let new: Vec<_> = after.difference(before).collect();
    let tables: Vec<&str> = new.iter().map(|(table, _)| table.as_str()).collect();
    assert_eq!(tables, expected, "{context}");
    let names = |row: &Value| row.as_object().unwrap().values().any(|value| value == text);
    let is_stored = new.iter().any(|(_, row)| names(&serde_json::from_str(row).unwrap()));
    assert!(is_stored || !is_named, "not stored as it is: {context}");
}

/// A name that must have 1 to `max` bytes.
fn named(text: &str, max: usize, outcome: Outcome) -> Outcome {
    if (1..=max).contains(&text.len()) { outcome } else { Refused("22023") }
}

const OP: &str = r#"[{"tableName":"notes","operation":"put","pk":"p","payload":{},"stamp":
    {"deviceId":"d","opId":"00000000-0000-4000-8000-0000000000aa","hlc":"h","clock":1}}]"#;
const UNKNOWN: Outcome = Refused("42704");
const WORKSPACE: Outcome = Stored(&["member", "workspace"]);
const MEMBER: Outcome = Stored(&["member"]);
const TABLE: Outcome = Stored(&["synced_table"]);

#[test]
fn every_argument_takes_it_as_a_name_or_refuses_it() {
    let app = &world();
    let admin = &mut app.session();
    let before = rows(admin);
    for text in hostile() {
        let t = text.as_str();
        let pushed = Stored(&["change_log", "record", "workspace"]);
        let calls: [(&str, Outcome); 30] = [
            ("sync_create_workspace($1, 'ann')", named(t, 256, WORKSPACE)),
            ("sync_create_workspace('fresh', $1)", named(t, 256, WORKSPACE)),
            ("sync_set_member('team', $1, 'viewer')", named(t, 256, MEMBER)),
            ("sync_set_member($1, 'ann', 'viewer')", named(t, 256, UNKNOWN)),
            ("sync_set_member('team', 'ann', $1)", Refused("22023")),
            ("sync_remove_member('team', $1)", named(t, 256, Nothing)),
            ("sync_remove_member($1, 'ann')", named(t, 256, Nothing)),
            ("sync_drop_workspace($1)", named(t, 256, Nothing)),
            ("sync_gc($1)", named(t, 256, Nothing)),
            ("sync_update_cursor($1, 'd', 0)", named(t, 256, Nothing)),
            ("sync_update_cursor('team', $1, 0)", named(t, 256, Stored(&["device_cursor"]))),
            ("sync_pull($1)", named(t, 256, Nothing)),
            ("sync_pull('team', tables => array[$1])", Nothing),
            ("sync_pull('team', proof => $1)", Refused("22023")),
            ("sync_snapshot($1)", named(t, 256, Nothing)),
            ("sync_snapshot('team', $1)", Refused("22023")),
            ("sync_snapshot('team', tables => array[$1, 'notes', null])", Nothing),
            ("sync_register_table($1)", named(t, 128, TABLE)),
            ("sync_register_table('fresh', $1)", named(t, 128, TABLE)),
            ("sync_register_table('fresh', 'id', $1)", named(t, 128, TABLE)),
            ("sync_unregister_table($1)", Nothing),
            ("sync_ext.may_read($1)", Nothing),
            ("sync_push($1, '[]')", named(t, 256, Nothing)),
            (&format!("sync_push($1, '{OP}')"), named(t, 256, pushed)),
            ("sync_put('team', $1, 'p', '{}')", Nothing),
            ("sync_patch('team', 'notes', 'plan', to_json($1::text))", Nothing),
            ("sync_push('team', json_build_array($1::text))", Nothing),
            ("sync_push('team', to_json($1::text))", Refused("22023")),
            ("sync_push('team', json_build_object('a', $1::text))", Refused("22023")),
            ("sync_push('team', json_build_array(json_build_object($1::text, $1::text)))", Nothing),
        ];
        for (call, outcome) in &calls {
            comes_to(admin, &before, &format!("select {call}"), t, t, outcome);
        }
    }
}

/// A valid op, for changing one thing in it.
pub fn op() -> Value {
    json!({
        "tableName": "notes", "operation": "put", "pk": "p", "payload": {"n": 1},
        "stamp": {
            "deviceId": "d", "opId": "00000000-0000-4000-8000-0000000000aa", "hlc": "h", "clock": 1,
        },
    })
}

#[test]
fn every_field_of_an_op_does() {
    let app = &world();
    let admin = &mut app.session();
    // Into a workspace that it creates: all that it stores is new.
    const PUSH: &str = "select sync_push('fresh', $1::text::json)::text";
    const PUSHED: Outcome = Stored(&["change_log", "record", "workspace"]);
    let stored = |text: &str, max| match named(text, max, PUSHED) {
        // What is wrong with an op is told in its result.
        Refused(_) => Nothing,
        outcome => outcome,
    };
    let before = rows(admin);
    let push_of = |admin: &mut Client, op: &str, text: &str, expected: &Outcome| {
        comes_to(admin, &before, PUSH, &format!("[{op}]"), text, expected);
    };
    for text in hostile() {
        for (pointer, outcome) in [
            ("/tableName", Nothing),
            ("/operation", Nothing),
            ("/pk", stored(&text, 1024)),
            ("/payload", Nothing),
            ("/stamp", Nothing),
            ("/stamp/deviceId", stored(&text, 256)),
            ("/stamp/opId", Nothing),
            ("/stamp/hlc", stored(&text, 512)),
            ("/stamp/clock", Nothing),
        ] {
            let mut op = op();
            *op.pointer_mut(pointer).unwrap() = text.as_str().into();
            push_of(admin, &op.to_string(), &text, &outcome);
        }
        // In a payload it is neither read nor changed, but for these two fields.
        let mut op = op();
        op["payload"] = json!({ text.as_str(): text.as_str() });
        let sql = "select payload::text from sync_ext.change_log where op_id = $1::text::uuid";
        let mut transaction = admin.transaction().unwrap();
        call(&mut transaction, PUSH, &[&format!("[{op}]")]).unwrap();
        let payload = call(&mut transaction, sql, &[&op["stamp"]["opId"].as_str()]).unwrap();
        assert_eq!(payload, op["payload"].to_string());
        transaction.rollback().unwrap();
        for field in ["id", "workspace_id"] {
            op["payload"] = json!({ field: text.as_str() });
            push_of(admin, &op.to_string(), &text, &Nothing);
        }
    }
    for escape in ["\\u0000", "a\\u0000b", "\\ud800", "\\udc00\\ud800"] {
        for field in ["\"p\"", "\"d\"", "\"h\"", "\"notes\"", "\"put\""] {
            let op = op().to_string().replace(field, &format!("\"{escape}\""));
            push_of(admin, &op, escape, &Nothing);
        }
    }
}
