//! What one user got, in the hands of another: page tokens, cursors, proofs and
//! the names of devices.

use postgres::GenericClient;
use serde_json::Value;
use sync_ext_harness::batch::push;
use sync_ext_harness::database::Database;
use sync_ext_harness::device::call;
use uuid::Uuid;

use super::{diary, furnished, pks, refused, speak_for, speaking_for, told, web};

fn world() -> Database {
    let app = furnished();
    let more = [diary(6, "ann-2", "ann"), diary(7, "bob-2", "bob")];
    push(&mut app.session(), "team", &more);
    app
}

const PAGE: &str = "select sync_snapshot($1, $2, 1)::text";

fn page(session: &mut impl GenericClient, workspace: &str, token: Option<&str>) -> Value {
    let reply = call(session, PAGE, &[&workspace, &token]).unwrap();
    serde_json::from_str(&reply).unwrap()
}

/// The token of the first page; without a user, a trusted caller's.
fn first_token(app: &Database, user: &str) -> String {
    let mut session = speaking_for(app, user);
    page(&mut session, "team", None)["nextPageToken"].as_str().unwrap().to_owned()
}

/// All that the session can list, from a page token on.
fn listed(session: &mut impl GenericClient, mut token: Option<String>) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let reply = page(session, "team", token.as_deref());
        all.extend(pks(&reply, "items"));
        match reply["nextPageToken"].as_str() {
            Some(next) => token = Some(next.to_owned()),
            None => return all,
        }
    }
}

#[test]
fn page_tokens_are_their_users() {
    let app = &world();
    let users = ["ann", "bob", "vic", ""];
    let tokens = users.map(|user| first_token(app, user));
    for (owner, token) in users.iter().zip(&tokens) {
        for user in users.iter().chain(&["eve", "Ann", "ann "]) {
            let mut session = speaking_for(app, user);
            let context = format!("{owner}'s for {user}");
            match session.query_one(PAGE, &[&"team", token]) {
                Ok(_) => assert_eq!(owner, user, "{context}"),
                Err(error) => {
                    assert_ne!(owner, user, "{context}");
                    let (code, message) = match users.contains(user) {
                        true => ("22023", "invalid page_token"),
                        false => ("42501", "permission denied for workspace"),
                    };
                    let expected = (code.to_owned(), message.to_owned());
                    assert_eq!(super::told(&error), expected, "{context}");
                }
            }
        }
    }
    // The same user by other means.
    let mut session = web(app);
    session.batch_execute("set request.jwt.claims = '{\"sub\":\"ann\"}'").unwrap();
    assert_eq!(listed(&mut session, Some(tokens[0].clone())), ["ann-2", "done", "plan"]);
}

/// A token as the server would write it for a page that ended at this record.
fn forge(user: Option<&str>, watermark: i64, proof: &str, table: &str, pk: &str) -> String {
    let body = serde_json::json!({
        "s": Uuid::nil().simple().to_string(), "w": watermark, "p": proof, "t": table, "k": pk,
    });
    let body = body.to_string();
    let bound = serde_json::json!(["team", user, null, body]).to_string();
    let digits: String = body.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("s1.{}.{digits}", Uuid::new_v5(&Uuid::NAMESPACE_OID, bound.as_bytes()).simple())
}

fn proof_of(session: &mut impl GenericClient) -> String {
    page(session, "team", None)["proof"].as_str().unwrap().to_owned()
}

const PLACES: [(&str, &str); 8] = [
    ("", ""),
    ("diary", ""),
    ("diary", "ann"),
    ("diary", "ann-1"),
    ("diary", "ann-2"),
    ("diary", "bob-1"),
    ("notes", "done"),
    ("zzz", "zzz"),
];

#[test]
fn a_forged_token_shows_what_its_forger_may_list() {
    let app = &world();
    for (user, all) in [
        ("ann", vec!["ann-1", "ann-2", "done", "plan"]),
        ("bob", vec!["bob-1", "bob-2", "done", "plan"]),
        ("vic", vec!["done", "plan"]),
    ] {
        let mut session = speaking_for(app, user);
        assert_eq!(listed(&mut session, None), all);
        let proof = proof_of(&mut session);
        for watermark in [0, 1, 6, 1 << 52] {
            for (table, pk) in PLACES {
                let token = forge(Some(user), watermark, &proof, table, pk);
                let shown = listed(&mut session, Some(token));
                assert!(all.ends_with(&shown.iter().map(String::as_str).collect::<Vec<_>>()));
                // From the start it is all of it: the token was taken for ours.
                assert!(!table.is_empty() || shown == all, "{user}: {shown:?}");
            }
        }
        // Made up for others, it is not this user's.
        for other in [None, Some("eve"), Some("postgres"), Some("")] {
            let token = forge(other, 6, &proof, "", "");
            let error = session.query_one(PAGE, &[&"team", &token]).unwrap_err();
            assert_eq!(told(&error).0, "22023", "{other:?}");
        }
        let guessed = format!("p1.6.{}", Uuid::nil().simple());
        let token = forge(Some(user), 6, &guessed, "", "");
        let error = session.query_one(PAGE, &[&"team", &token]).unwrap_err();
        assert_eq!(told(&error), ("SX001".to_owned(), "snapshot expired".to_owned()));
    }
}

#[test]
fn a_forged_token_is_no_way_into_a_workspace() {
    let app = &world();
    let proof = proof_of(&mut web(app));
    let mut session = speaking_for(app, "eve");
    for (table, pk) in PLACES {
        let token = forge(Some("eve"), 6, &proof, table, pk);
        let error = session.query_one(PAGE, &[&"team", &token]).unwrap_err();
        assert_eq!(told(&error).1, "permission denied for workspace");
    }
}

#[test]
fn cursors_and_proofs_show_what_their_reader_may_see() {
    let app = &world();
    let proofs: Vec<Option<String>> = ["ann", "bob", ""]
        .iter()
        .map(|user| Some(proof_of(&mut speaking_for(app, user))))
        .chain([None])
        .collect();
    for (user, visible) in [
        ("ann", vec![(1, "plan"), (2, "ann-1"), (4, "done"), (5, "ann-2")]),
        ("bob", vec![(1, "plan"), (3, "bob-1"), (4, "done"), (6, "bob-2")]),
        ("vic", vec![(1, "plan"), (4, "done")]),
    ] {
        let mut session = speaking_for(app, user);
        for proof in &proofs {
            for cursor in 0..=6_i64 {
                let sql = "select sync_pull($1, $2, proof => $3)::text";
                let reply = call(&mut session, sql, &[&"team", &cursor, proof]).unwrap();
                let reply: Value = serde_json::from_str(&reply).unwrap();
                let expected: Vec<&str> =
                    visible.iter().filter(|(v, _)| *v > cursor).map(|(_, pk)| *pk).collect();
                assert_eq!(pks(&reply, "changes"), expected, "{user} from {cursor}");
                assert_eq!(reply["nextCursor"], 6, "passes over what is hidden");
            }
        }
        speak_for(&mut session, "eve");
        for proof in &proofs {
            let error = session
                .query_one("select sync_pull('team', 3, proof => $1)::text", &[proof])
                .unwrap_err();
            assert_eq!(told(&error).1, "permission denied for workspace");
        }
    }
    // In a workspace of her own a proof of another is one that fails.
    let mut session = speaking_for(app, "eve");
    let sql = "select sync_pull('den', 1, proof => $1)::text";
    let reply = call(&mut session, sql, &[&proofs[0]]).unwrap();
    assert!(reply.contains("history_diverged"), "{reply}");
}

#[test]
fn a_device_of_the_same_name_is_another_users_own() {
    let app = &world();
    let admin = &mut app.session();
    let acknowledge = |user: &str, version: i64| {
        let mut session = speaking_for(app, user);
        let sql = "select sync_update_cursor('team', 'phone', $1)::text";
        let reply = call(&mut session, sql, &[&version]).unwrap();
        let reply: Value = serde_json::from_str(&reply).unwrap();
        (reply["lastSeenVersion"].as_i64().unwrap(), reply["advanced"].as_bool().unwrap())
    };
    assert_eq!(acknowledge("ann", 2), (2, true));
    assert_eq!(acknowledge("bob", 6), (6, true));
    assert_eq!(acknowledge("", 5), (5, true));
    assert_eq!(acknowledge("ann", 1), (2, false), "nobody moved hers");
    let mut eve = speaking_for(app, "eve");
    let told = refused(&mut eve, "select sync_update_cursor('team', 'phone', 6)");
    assert_eq!(told.1, "permission denied for workspace");
    let sql = "select string_agg(user_id || last_seen_version, ' ' order by user_id)
                 from sync_ext.device_cursor";
    assert_eq!(call(admin, sql, &[]).unwrap(), "5 ann2 bob6");
}
