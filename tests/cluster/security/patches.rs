//! Patches of private records by other users, and of their owner by anybody.

use postgres::Client;
use serde_json::{Value, json};
use sync_ext_harness::batch::{op_id, put};
use sync_ext_harness::database::Database;
use sync_ext_harness::steps::speak_for;

use super::{furnished, json, speaking_for};
use crate::patching::{patch, results, with};

/// With patches of private records allowed; `ann-1` of ann was put by op 2.
fn patchable() -> Database {
    let app = furnished();
    let sql = "select sync_register_table('diary', owner_field => 'by', patches => true)";
    app.session().execute(sql, &[]).unwrap();
    app
}

/// A patch of ann's record.
fn of_anns(id: u64, payload: &str) -> String {
    patch(id, "ann-1", 2, (2, 1), payload).replace("\"notes\"", "\"diary\"")
}

fn result(session: &mut Client, op: String) -> Value {
    results(session, "team", &[op]).remove(0)
}

fn is_unauthorized(session: &mut Client, op: String) {
    let refused = result(session, op);
    assert_eq!(refused["errorCode"], "UNAUTHORIZED", "{refused}");
    assert!(refused.get("current").is_none() && refused.get("winner").is_none(), "{refused}");
}

#[test]
fn another_user_cannot_patch_a_private_record() {
    let app = patchable();
    let mut bob = speaking_for(&app, "bob");
    is_unauthorized(&mut bob, of_anns(10, r#"{"text":"bob's"}"#));
    is_unauthorized(&mut bob, of_anns(10, r#"{"by":"bob"}"#));
    // The owner is asked before the base and the condition, which would show the record.
    for expected in [r#""none""#.to_owned(), format!("{{\"n\":\"{}\"}}", op_id(77))] {
        let op = with(&of_anns(10, r#"{"n":0}"#), &format!("\"expected\":{expected}"));
        is_unauthorized(&mut bob, op);
    }
    let never = patch(10, "ann-1", 9, (77, 8), r#"{"n":0}"#).replace("\"notes\"", "\"diary\"");
    is_unauthorized(&mut bob, never);
    let put = with(&put(10, "ann-1", 9).replace("\"notes\"", "\"diary\""), r#""expected":"none""#);
    is_unauthorized(&mut bob, put);
    // The same among many, which presume that nothing is there.
    let many: Vec<String> = (20..32).map(|id| of_anns(id, r#"{"n":0}"#)).collect();
    let refused = results(&mut bob, "team", &many);
    assert!(refused.iter().all(|refused| refused["errorCode"] == "UNAUTHORIZED"), "{refused:?}");
}

#[test]
fn another_user_learns_nothing_of_a_patch_of_a_private_record() {
    let app = patchable();
    let mut ann = speaking_for(&app, "ann");
    let secret = of_anns(10, r#"{"text":"secret"}"#);
    assert_eq!(result(&mut ann, secret.clone())["applied"], true);
    for (user, sees) in [("ann", true), ("bob", false), ("vic", false)] {
        let mut session = speaking_for(&app, user);
        for sql in [
            "select sync_pull('team')::text",
            "select sync_snapshot('team')::text",
            "select coalesce(json_agg(r), '[]')::text from sync_ext.current_record as r",
        ] {
            let told = json(&mut session, sql).to_string();
            assert_eq!(told.contains("secret"), sees, "{user}: {sql}: {told}");
        }
    }
    // To the owner of the workspace another user's record is unknown, too.
    let mut bob = speaking_for(&app, "bob");
    let bobs = patch(11, "bob-1", 2, (3, 1), r#"{"text":"secret"}"#);
    assert_eq!(result(&mut bob, bobs.replace("\"notes\"", "\"diary\""))["applied"], true);
    let told = json(&mut ann, "select sync_explain('team', 'diary', 'bob-1')::text");
    assert_eq!(told["state"], "unknown", "{told}");
    // Nor does the same op, sent by another user, show that it is there.
    let told = result(&mut bob, secret);
    assert_eq!((&told["success"], &told["errorCode"]), (&json!(false), &json!("CONFLICT")));
}

#[test]
fn a_patch_cannot_change_the_owner() {
    let app = patchable();
    for user in ["ann", ""] {
        let mut session = app.session();
        speak_for(&mut session, user);
        is_unauthorized(&mut session, of_anns(10, r#"{"by":"bob"}"#));
        is_unauthorized(&mut session, of_anns(10, r#"{"by":null}"#));
        is_unauthorized(&mut session, of_anns(10, r#"{"n":1,"\u0062y":"bob"}"#));
    }
    let mut ann = speaking_for(&app, "ann");
    assert_eq!(result(&mut ann, of_anns(10, r#"{"by":"ann","n":1}"#))["applied"], true);
    // Without the field the owner stays, and is not added to the patch.
    let again = result(&mut ann, of_anns(11, r#"{"n":2}"#).replace("\"clock\":2", "\"clock\":3"));
    assert_eq!(again["applied"], true, "{again}");
    let pulled = json(&mut ann, "select sync_pull('team', latest => true)::text");
    let changes = pulled["changes"].as_array().unwrap();
    let anns = changes.iter().find(|change| change["pk"] == "ann-1").unwrap();
    assert_eq!(anns["patch"], json!({"n": 2}));
    assert_eq!(anns["payload"], json!({"by": "ann", "n": 2}));
}
