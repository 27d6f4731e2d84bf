//! Users of any name: whatever their names are made of, each is one user, sees
//! what is theirs, and is nobody else.

use postgres::Client;
use serde_json::{Value, json};
use sync_ext_harness::device::call;

use super::text::{hostile, op};
use super::{furnished, told, web};

#[test]
fn an_owner_field_of_any_name_is_filled_in() {
    let app = &furnished();
    let admin = &mut app.session();
    for field in hostile() {
        let mut transaction = admin.transaction().unwrap();
        let register = "select sync_register_table('notes', 'id', $1)";
        if transaction.query(register, &[&field]).is_err() {
            continue;
        }
        let users = [field.as_str(), "ann", "\"", "\\", "\u{1}"];
        for (n, user) in users.iter().enumerate() {
            transaction
                .execute("select set_config('sync_ext.user_id', $1, true)", &[user])
                .unwrap();
            let workspace = format!("fresh {n}");
            transaction.query("select sync_create_workspace($1, $2)", &[&workspace, user]).unwrap();
            let push = "select sync_push($1, $2::text::json)::text";
            let reply =
                call(&mut transaction, push, &[&workspace, &format!("[{}]", op())]).unwrap();
            assert!(reply.contains("\"applied\":true"), "{field:?} for {user:?}: {reply}");
            let pull = "select sync_pull($1) #>> '{changes,0,payload}'";
            let payload = call(&mut transaction, pull, &[&workspace]).unwrap();
            let payload: Value = serde_json::from_str(&payload).unwrap();
            assert_eq!(payload, json!({"n": 1, field.as_str(): user}));
            // Sent again it is the same op.
            let reply =
                call(&mut transaction, push, &[&workspace, &format!("[{}]", op())]).unwrap();
            assert!(reply.contains("\"replayed\":true"), "{field:?} for {user:?}: {reply}");
        }
        transaction.rollback().unwrap();
    }
}

/// By a trusted caller any text is an owner; by a user only their own name is.
#[test]
fn owners_are_taken_as_they_are_written() {
    let app = &furnished();
    let admin = &mut app.session();
    for owner in hostile() {
        let mut op = op();
        op["tableName"] = "diary".into();
        op["payload"] = json!({"by": owner});
        let ops = format!("[{op}]");
        let mut transaction = admin.transaction().unwrap();
        let push = "select sync_push('team', $1::text::json)::text";
        let sql = "set local sync_ext.user_id = 'bob'";
        transaction.batch_execute(sql).unwrap();
        let reply = call(&mut transaction, push, &[&ops]).unwrap();
        assert!(reply.contains("UNAUTHORIZED"), "{owner:?}: {reply}");
        transaction.batch_execute("set local sync_ext.user_id = ''").unwrap();
        let reply = call(&mut transaction, push, &[&ops]).unwrap();
        let fits = (1..=256).contains(&owner.len());
        assert_eq!(reply.contains("\"applied\":true"), fits, "{owner:?}: {reply}");
        let sql = "select coalesce(max(owner), '') from sync_ext.record where pk = 'p'";
        let stored = call(&mut transaction, sql, &[]).unwrap();
        assert_eq!(stored, if fits { owner.as_str() } else { "" });
        transaction.rollback().unwrap();
    }
}

/// Sets the user by a setting, and does what that user may do for themselves.
fn is_user(session: &mut Client, setting: &str, value: &str, user: &str) {
    let mut transaction = session.transaction().unwrap();
    transaction.execute("select set_config($1, $2, true)", &[&setting, &value]).unwrap();
    let calling = call(&mut transaction, "select sync_ext.calling_user()", &[]).unwrap();
    assert_eq!(calling, user);
    transaction.query("select sync_create_workspace('mine', $1)", &[&user]).unwrap();
    let list = call(&mut transaction, "select sync_list_workspaces()::text", &[]).unwrap();
    let mine = r#"{"workspaces":[{"workspaceId":"mine","role":"owner","serverVersion":0}]}"#;
    assert_eq!(list, mine, "{user:?}");
    let sql = "select count(*)::text from sync_ext.current_record";
    assert_eq!(call(&mut transaction, sql, &[]).unwrap(), "0", "{user:?}");
    transaction.rollback().unwrap();
}

fn is_refused(session: &mut Client, setting: &str, value: &str) {
    let before =
        ["sync_list_workspaces()", "sync_pull('team')", "sync_gc()", "sync_ext.calling_user()"];
    for call in before {
        let mut transaction = session.transaction().unwrap();
        transaction.execute("select set_config($1, $2, true)", &[&setting, &value]).unwrap();
        let error = transaction.query(&format!("select {call}"), &[]).err();
        let shown: String = value.chars().take(60).collect();
        let error = error.unwrap_or_else(|| panic!("{setting} = {shown:?} is nobody's: {call}"));
        assert_eq!(told(&error).0, "22023", "{shown:?}");
    }
}

#[test]
fn a_user_of_any_name_is_that_user() {
    let app = &furnished();
    let mut session = web(app);
    for user in hostile().iter().filter(|user| !user.is_empty()) {
        match user.len() {
            1..=256 => is_user(&mut session, "sync_ext.user_id", user, user),
            _ => is_refused(&mut session, "sync_ext.user_id", user),
        }
    }
}

#[test]
fn claims_of_any_text_are_a_user_or_refused() {
    let app = &furnished();
    let mut session = web(app);
    let setting = "request.jwt.claims";
    for text in hostile().iter().filter(|text| !text.is_empty()) {
        let claims = json!({"role": "web", "sub": text}).to_string();
        match text.len() {
            1..=256 => is_user(&mut session, setting, &claims, text),
            _ => is_refused(&mut session, setting, &claims),
        }
        // As it is it is no object, but for one, which has no sub.
        if text != "{\"a\":1}" {
            is_refused(&mut session, setting, text);
        }
    }
    for claims in
        [r#"{"sub":"a\u0000"}"#, r#"{"sub":"\ud800"}"#, r#"{"sub":"ann"}{}"#, r#"{"sub":["ann"]}"#]
    {
        is_refused(&mut session, setting, claims);
    }
    is_user(&mut session, setting, r#"{"\u0073ub":"\u0064an"}"#, "dan");
    is_user(&mut session, setting, r#"{"sub":"ann","a":{"sub":"bob"},"sub":"dan"}"#, "dan");
}

#[test]
fn users_that_look_alike_are_different_users() {
    let app = &furnished();
    let alike = [
        "\u{e9}va",
        "e\u{301}va",
        "\u{c9}va",
        "\u{e9}va ",
        " \u{e9}va",
        "\u{e9}va\u{a0}",
        "\u{ff45}\u{301}va",
    ];
    let mut admin = app.session();
    for (n, user) in alike.iter().enumerate() {
        let sql = "select sync_create_workspace($1, $2)";
        admin.query(sql, &[&format!("of {n}"), user]).unwrap();
    }
    let mut session = web(app);
    for (n, user) in alike.iter().enumerate() {
        let sql = "select set_config('sync_ext.user_id', $1, false)";
        session.execute(sql, &[user]).unwrap();
        let list = call(&mut session, "select sync_list_workspaces()::text", &[]).unwrap();
        let own = format!(
            r#"{{"workspaces":[{{"workspaceId":"of {n}","role":"owner","serverVersion":0}}]}}"#
        );
        assert_eq!(list, own, "{user:?}");
        for other in (0..alike.len()).filter(|other| *other != n) {
            let error = session.query("select sync_pull($1)", &[&format!("of {other}")]);
            assert_eq!(told(&error.err().unwrap()).0, "42501", "{user:?}");
        }
    }
}
