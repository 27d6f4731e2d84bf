//! Calls: what passes through, who they are for, how errors are answered.

use postgres::Client;
use serde_json::{Value, json};
use sync_ext_harness::batch::{delete, op, put};
use sync_ext_harness::cluster::{Cluster, Stop};
use sync_ext_harness::device::call;
use sync_ext_harness::steps::{age, gc};

use crate::support::process::{Answer, Gateway, until};
use crate::support::stand::{SERVER, Stand, trust_gateway};

const ANN: Option<&str> = Some("ann");
const NO_MEMBER: (&str, &str) =
    ("permission denied for workspace", "It does not exist, or the user is not a member of it.");

#[test]
fn calls_pass_through() {
    let mut cluster = Cluster::start("gateway-calls", &SERVER).unwrap();
    replies_are_the_functions_byte_for_byte(&cluster);
    scopes_pass_through(&cluster);
    payloads_are_stored_byte_for_byte(&cluster);
    workspaces_have_any_name(&cluster);
    absent_arguments_have_the_functions_defaults(&cluster);
    errors_of_the_request_are_400(&cluster);
    an_expired_snapshot_is_409(&cluster);
    a_request_without_one_user_is_401(&cluster);
    what_the_user_may_not_do_is_403(&cluster);
    a_connection_forgets_its_user_with_the_call(&cluster);
    each_sqlstate_has_its_status(&cluster);
    a_call_that_met_another_is_made_again(&cluster);
    a_call_that_always_meets_another_is_503(&cluster);
    while_the_database_is_away_calls_are_503(&mut cluster);
}

/// The reply of a call in SQL, as text.
fn sql(client: &mut Client, call_of: &str) -> String {
    call(client, &format!("select {call_of}::text"), &[]).unwrap()
}

fn ok(answer: Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// An error's status, code and message.
fn error(answer: &Answer) -> (u16, String, String) {
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    (answer.status, answer.code(), message)
}

fn replies_are_the_functions_byte_for_byte(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "bytes");
    let ops = format!("[{}, {}, {{}}]", put(1, "a", 1), put(2, "b", 1));
    let post = |what: &str, body: &str| {
        ok(stand.gateway.post(&format!("/workspaces/w/{what}"), None, body))
    };
    let admin = &mut stand.admin;

    // What was stored already is answered alike each time.
    post("push", &ops);
    assert_eq!(post("push", &ops), sql(admin, &format!("sync_push('w', '{ops}')")));

    let page = post("pull", r#"{"cursor": 0, "pageLimit": 1}"#);
    assert_eq!(page, sql(admin, "sync_pull('w', 0, 1)"));
    let proof = serde_json::from_str::<Value>(&page).unwrap()["proof"].clone();
    let all = json!({"cursor": 1, "pageLimit": 2, "tables": ["notes", null], "latest": true, "proof": proof});
    let in_sql =
        format!("sync_pull('w', 1, 2, '{{notes,null}}', true, '{}')", proof.as_str().unwrap());
    assert_eq!(post("pull", &all.to_string()), sql(admin, &in_sql));

    post("cursor", r#"{"deviceId": "laptop", "version": 2}"#);
    assert_eq!(
        post("cursor", r#"{"deviceId": "laptop", "version": 2}"#),
        sql(admin, "sync_update_cursor('w', 'laptop', 2)")
    );

    // A snapshot's id is made up by its first page and is in the token.
    let first: Value =
        serde_json::from_str(&post("snapshot", r#"{"pageLimit": 1, "tables": ["notes"]}"#))
            .unwrap();
    let token = first["nextPageToken"].as_str().unwrap();
    let next = json!({"pageToken": token, "pageLimit": 1, "tables": ["notes"]});
    let in_sql = format!("sync_snapshot('w', '{token}', 1, '{{notes}}')");
    assert_eq!(post("snapshot", &next.to_string()), sql(admin, &in_sql));

    let exchange = format!(
        r#"{{"deviceId": "laptop", "cursor": 1, "ops": {ops}, "pageLimit": 9, "tables": ["notes"],
            "latest": true, "proof": {proof}}}"#
    );
    let in_sql = format!(
        "sync_exchange('w', 'laptop', 1, '{ops}', 9, '{{notes}}', true, '{}')",
        proof.as_str().unwrap()
    );
    assert_eq!(post("exchange", &exchange), sql(admin, &in_sql));
}

fn scopes_pass_through(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "scopes");
    let admin = &mut stand.admin;
    let register = "select sync_register_table('notes', scope_field => 'list')";
    admin.batch_execute(register).unwrap();
    let lists = [op(1, "a", 1, "put", r#"{"list":"x"}"#), op(2, "b", 1, "put", r#"{"list":"y"}"#)];
    let mut post = |what: &str, body: Value, in_sql: &str| {
        let path = format!("/workspaces/w/{what}");
        let answer = ok(stand.gateway.post(&path, None, &body.to_string()));
        assert_eq!(answer, sql(&mut stand.admin, in_sql));
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    let ops: Value = serde_json::from_str(&format!("[{}]", lists.join(","))).unwrap();
    let exchange = json!({"deviceId": "d", "cursor": 0, "ops": ops, "scopes": ["y"]});
    ok(stand.gateway.post("/workspaces/w/exchange", None, &exchange.to_string()));
    let exchanged = post(
        "exchange",
        exchange,
        &format!("sync_exchange('w', 'd', 0, '{ops}', scopes => '{{y}}')"),
    );
    assert_eq!(exchanged["pull"]["changes"][0]["pk"], "b");
    let none = post("pull", json!({"scopes": []}), "sync_pull('w', scopes => '{}')");
    assert_eq!(none["changes"], json!([]));
    let pulled =
        post("pull", json!({"scopes": ["x", null]}), "sync_pull('w', scopes => '{x,null}')");
    let proof = pulled["proof"].as_str().unwrap();
    let body = json!({"scopes": ["x", "y"], "have": ["x"], "proof": proof});
    let path = "/workspaces/w/snapshot";
    let more = ok(stand.gateway.post(path, None, &body.to_string()));
    let items = &serde_json::from_str::<Value>(&more).unwrap()["items"];
    assert_eq!((items.as_array().unwrap().len(), &items[0]["pk"]), (1, &json!("b")));
    let (status, code, _) =
        error(&stand.gateway.post(path, None, &json!({"have": ["x"]}).to_string()));
    assert_eq!((status, &*code), (400, "22023"));
}

fn payloads_are_stored_byte_for_byte(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "payloads");
    let payload =
        "{\"z\" : 1.0e400,\r\n \"a\":123456789012345678901234567890, \"s\":\"\\u0000\\ud800é\\/\"}";
    let (pushed, exchanged) = (op(1, "a", 1, "put", payload), op(2, "b", 1, "put", payload));
    ok(stand.gateway.post("/workspaces/w/push", None, &format!("[{pushed}]")));
    let exchange = format!(r#"{{"deviceId":"d","cursor":0,"ops":[{exchanged}]}}"#);
    ok(stand.gateway.post("/workspaces/w/exchange", None, &exchange));
    let stored = stand.admin.query("select payload::text from sync_ext.change_log", &[]).unwrap();
    let stored: Vec<String> = stored.iter().map(|row| row.get(0)).collect();
    assert_eq!(stored, [payload, payload]);
    let pulled = ok(stand.gateway.post("/workspaces/w/pull", None, "{}"));
    assert_eq!(pulled.matches(payload).count(), 2, "{pulled}");
}

fn workspaces_have_any_name(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "names");
    let body = format!("[{}]", put(1, "a", 1));
    ok(stand.gateway.post("/workspaces/team%2F1%20%C3%A9%25%27/push", None, &body));
    let name: String = stand
        .admin
        .query_one("select workspace_id from sync_ext.workspace where head = 1", &[])
        .unwrap()
        .get(0);
    assert_eq!(name, "team/1 é%'");
}

fn absent_arguments_have_the_functions_defaults(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "defaults");
    let ops: Vec<String> = (1..=101).map(|id| put(id, &format!("r{id}"), 1)).collect();
    ok(stand.gateway.post("/workspaces/w/push", None, &format!("[{}]", ops.join(","))));
    let pulled = ok(stand.gateway.post("/workspaces/w/pull", None, "{}"));
    assert_eq!(pulled, sql(&mut stand.admin, "sync_pull('w')"));
    let null = stand.gateway.post("/workspaces/w/pull", None, r#"{"cursor": null}"#);
    assert_eq!(error(&null), (400, "22023".into(), "invalid cursor".into()));
    let listed = stand.gateway.post("/workspaces/w/snapshot", None, "{}").json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 101);
}

fn errors_of_the_request_are_400(cluster: &Cluster) {
    let stand = Stand::new(
        cluster,
        "requests",
        &[("GATEWAY_TRUSTED", "on"), ("GATEWAY_MAX_BODY_BYTES", "100000")],
    );
    let too_many = format!("[{}]", vec!["{}"; 1001].join(","));
    let long = format!("/workspaces/{}/pull", "w".repeat(257));
    for (path, body, code, message) in [
        ("/workspaces/w/push", "{}", "22023", "ops must be a JSON array"),
        ("/workspaces/w/push", "[", "22P02", "invalid input syntax for type json"),
        ("/workspaces/w/push", "", "22P02", "invalid input syntax for type json"),
        ("/workspaces/w/push", &too_many, "54000", "too many ops in one push"),
        ("/workspaces/w/pull", r#"{"cursor": -1}"#, "22023", "invalid cursor"),
        ("/workspaces/w/pull", r#"{"proof": "x"}"#, "22023", "invalid proof"),
        ("/workspaces/w/snapshot", r#"{"pageToken": "x"}"#, "22023", "invalid page_token"),
        ("/workspaces/w/cursor", r#"{"version": 0}"#, "22023", "invalid device_id"),
        ("/workspaces/w/cursor", r#"{"deviceId": "d"}"#, "22023", "invalid version"),
        (
            "/workspaces/w/exchange",
            r#"{"deviceId":"d","cursor":0}"#,
            "22023",
            "ops must be a JSON array",
        ),
        ("/workspaces/w/exchange", r#"{"deviceId":"d","ops":[]}"#, "22023", "invalid cursor"),
        (&long, "{}", "22023", "invalid workspace_id"),
        // What the gateway itself reads.
        ("/workspaces/w/pull", "", "22023", "invalid request"),
        ("/workspaces/w/pull", "[]", "22023", "invalid request"),
        ("/workspaces/w/pull", r#"{"cursor": "1"}"#, "22023", "invalid request"),
        ("/workspaces/w/pull", r#"{"cursor": 1.5}"#, "22023", "invalid request"),
        ("/workspaces/w/pull", r#"{"page_limit": 1}"#, "22023", "invalid request"),
        ("/workspaces/w/pull", r#"{"pageLimit": 3000000000}"#, "22023", "invalid request"),
        (
            "/workspaces/w/exchange",
            r#"{"deviceId":"d","cursor":0,"ops":[}"#,
            "22023",
            "invalid request",
        ),
    ] {
        let answer = stand.gateway.post(path, None, body);
        assert_eq!(error(&answer), (400, code.into(), message.into()), "{path} {body:.50}");
    }
    let with_nul = stand.gateway.post("/workspaces/a%00b/pull", None, "{}");
    assert_eq!((with_nul.status, &*with_nul.code()), (400, "22021"));
    let latin = stand.gateway.post_bytes("/workspaces/w/push", &[], b"[\"\xe9\"]").unwrap();
    assert_eq!(error(&latin), (400, "22023".into(), "invalid request".into()));
    let latin = stand.gateway.post("/workspaces/%E9/pull", None, "{}");
    assert_eq!(error(&latin), (400, "22023".into(), "invalid request".into()));
    let large = stand.gateway.post("/workspaces/w/push", None, &" ".repeat(100_001));
    assert_eq!((large.status, &*large.code()), (413, "54000"));
    for (path, status) in [("/workspaces/w/gc", 404), ("/workspaces/w/pull", 405)] {
        let answer = stand.gateway.get(path, None);
        assert_eq!((answer.status, &*answer.code()), (status, "42883"), "{path}");
    }

    // All of an error, as sync_ext raises it.
    let answer = stand.gateway.post("/workspaces/w/push", None, &too_many);
    let detail = "sync_ext.max_ops_per_push allows 1000.";
    let hint = "Push the ops in several batches.";
    let told = json!({"code": "54000", "message": "too many ops in one push", "detail": detail, "hint": hint});
    assert_eq!(answer.json(), json!({ "error": told }));
}

fn an_expired_snapshot_is_409(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "expired");
    let path = "/workspaces/w/push";
    ok(stand.gateway.post(path, None, &format!("[{}, {}]", put(1, "a", 1), put(2, "b", 1))));
    let first = stand.gateway.post("/workspaces/w/snapshot", None, r#"{"pageLimit": 1}"#).json();
    ok(stand.gateway.post(path, None, &format!("[{}, {}]", delete(3, "a", 2), put(4, "c", 1))));
    age(&mut stand.admin);
    gc(&mut stand.admin, "w");
    let next = json!({"pageToken": first["nextPageToken"], "pageLimit": 1}).to_string();
    let answer = stand.gateway.post("/workspaces/w/snapshot", None, &next);
    assert_eq!(error(&answer), (409, "SX001".into(), "snapshot expired".into()));
}

fn a_request_without_one_user_is_401(cluster: &Cluster) {
    let mut stand = Stand::new(cluster, "users", &[]);
    let pull = |gateway: &Gateway, users: &[&str]| {
        let users: Vec<&[u8]> = users.iter().map(|user| user.as_bytes()).collect();
        gateway.post_bytes("/workspaces/team/pull", &users, b"{}").unwrap()
    };
    assert_eq!(pull(&stand.gateway, &["ann"]).status, 200);
    let anonymous: &[&[&str]] = &[&[], &[""], &["ann", "ann"], &["", "ann"]];
    for users in anonymous {
        let answer = pull(&stand.gateway, users);
        assert_eq!((answer.status, &*answer.code()), (401, "28000"), "{users:?}");
    }
    assert_eq!(stand.gateway.get("/workspaces/team/live", None).status, 401);

    // Whom the gateway trusts, its role may not.
    let trusted = [("GATEWAY_TRUSTED", "on")];
    let answer = pull(&Gateway::start(&stand.url(), &trusted), &[]);
    assert_eq!(error(&answer), (403, "42501".into(), "no user is set".into()));
    trust_gateway(&mut stand.admin, "users");
    let trusting = Gateway::start(&stand.url(), &trusted);
    assert_eq!(pull(&trusting, &[]).status, 200);
    // A user who is named badly is never a trusted caller.
    for users in &anonymous[1..] {
        assert_eq!(pull(&trusting, users).status, 401, "{users:?}");
    }
    let other = Gateway::start(&stand.url(), &[("GATEWAY_USER_HEADER", "x-subject")]);
    assert_eq!(pull(&other, &["ann"]).status, 401);
}

fn what_the_user_may_not_do_is_403(cluster: &Cluster) {
    let stand = Stand::new(cluster, "access", &[]);
    let ops = format!("[{}]", put(1, "a", 1));
    let post = |what: &str, user, body: &str| {
        stand.gateway.post(&format!("/workspaces/{what}"), Some(user), body)
    };
    assert_eq!(post("team/push", "bob", &ops).status, 200);
    assert_eq!(post("team/pull", "vic", "{}").status, 200);
    let viewer = post("team/push", "vic", &ops);
    assert_eq!(error(&viewer), (403, "42501".into(), NO_MEMBER.0.into()));
    assert_eq!(viewer.json()["error"]["detail"], "The user's role is viewer; this needs editor.");
    let exchange = format!(r#"{{"deviceId":"d","cursor":0,"ops":{ops}}}"#);
    for (what, body) in [
        ("push", &*ops),
        ("pull", "{}"),
        ("snapshot", "{}"),
        ("cursor", r#"{"deviceId":"d","version":0}"#),
        ("exchange", &exchange),
    ] {
        let denied = post(&format!("team/{what}"), "eve", body);
        assert_eq!(error(&denied), (403, "42501".into(), NO_MEMBER.0.into()), "{what}");
        assert_eq!(denied.json()["error"]["detail"], NO_MEMBER.1);
        assert_eq!(denied, post(&format!("nowhere/{what}"), "eve", body), "{what}");
    }
    for workspace in ["team", "nowhere"] {
        let path = format!("/workspaces/{workspace}/live");
        assert_eq!(stand.gateway.get(&path, Some("eve")), post("nowhere/pull", "eve", "{}"));
    }
}

/// One connection serves all, so that each call meets what the one before left.
fn a_connection_forgets_its_user_with_the_call(cluster: &Cluster) {
    let settings = [("GATEWAY_TRUSTED", "on"), ("GATEWAY_POOL_SIZE", "1")];
    let stand = Stand::new(cluster, "connection", &settings);
    let secret = put(1, "a", 1).replace("notes", "diary");
    ok(stand.gateway.post("/workspaces/team/push", ANN, &format!("[{secret}]")));
    let changes = |user| {
        let reply = stand.gateway.post("/workspaces/team/pull", user, "{}").json();
        reply["changes"].as_array().unwrap().len()
    };
    assert_eq!([changes(ANN), changes(Some("bob")), changes(None)], [1, 0, 1]);
    // A call that failed leaves nothing behind, either.
    assert_eq!(stand.gateway.post("/workspaces/team/push", Some("eve"), "[]").status, 403);
    assert_eq!(changes(None), 1);
}

/// Has the gateway's role find a function in the place of sync_pull.
fn raise(admin: &mut Client, code: &str) {
    admin
        .batch_execute(&format!(
            "create or replace function instead.sync_pull
               (text, bigint, integer, text[], boolean, text) returns json language plpgsql as
               $$ begin raise exception using errcode = '{code}', message = 'as told',
               detail = 'a payload'; end $$"
        ))
        .unwrap();
}

fn each_sqlstate_has_its_status(cluster: &Cluster) {
    let mut stand = Stand::new(cluster, "states", &[]);
    stand
        .admin
        .batch_execute(
            "create schema instead;
             grant usage on schema instead to gateway;
             alter role gateway in database states set search_path = instead, public",
        )
        .unwrap();
    let gateway = Gateway::start(&stand.url(), &[]);
    for (code, status, message) in [
        ("22012", 400, "as told"),
        ("54000", 400, "as told"),
        ("42501", 403, "as told"),
        ("SX001", 409, "as told"),
        ("SX003", 409, "as told"),
        ("SX002", 503, "as told"),
        ("55000", 503, "as told"),
        ("40001", 503, "as told"),
        ("40P01", 503, "as told"),
        ("55P03", 503, "as told"),
        ("57014", 503, "as told"),
        ("53100", 503, "as told"),
        ("53200", 503, "as told"),
        ("25006", 503, "as told"),
        // What is not for callers stays here.
        ("XX001", 500, "internal error"),
        ("42883", 500, "internal error"),
    ] {
        raise(&mut stand.admin, code);
        let answer = gateway.post("/workspaces/team/pull", ANN, "{}");
        assert_eq!(error(&answer), (status, code.into(), message.into()));
    }
    let log = gateway.log();
    assert!(log.contains("XX001") && log.contains("cause=as told"), "{log}");
    assert!(!log.contains("a payload"), "{log}");
}

/// The gateway's sessions that wait for a lock.
fn waiting(admin: &mut Client) -> i64 {
    let sql = "select count(*) from pg_stat_activity where datname = current_database()
                and application_name = 'sync_ext_gateway' and wait_event_type = 'Lock'";
    admin.query_one(sql, &[]).unwrap().get(0)
}

fn a_call_that_met_another_is_made_again(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "again");
    let strict = "alter database again set default_transaction_isolation = 'repeatable read'";
    stand.admin.batch_execute(strict).unwrap();
    let gateway = Gateway::start(&stand.url(), &[("GATEWAY_TRUSTED", "on")]);
    let mut session = stand.session();
    let mut first = session.transaction().unwrap();
    sync_ext_harness::batch::push(&mut first, "team", &[put(1, "a", 1)]);
    let body = format!("[{}]", put(2, "b", 1));
    let answer = std::thread::scope(|scope| {
        let second = scope.spawn(|| gateway.post("/workspaces/team/push", None, &body));
        until("the push waits", || waiting(&mut stand.admin) == 1);
        first.commit().unwrap();
        second.join().unwrap()
    });
    let answer: Value = serde_json::from_str(&ok(answer)).unwrap();
    assert_eq!(answer["results"][0]["serverVersion"], 2);
}

fn a_call_that_always_meets_another_is_503(cluster: &Cluster) {
    let mut stand = Stand::new(cluster, "always", &[]);
    stand
        .admin
        .batch_execute(
            "create sequence calls;
             grant usage on sequence calls to gateway;
             create function meet(text, text) returns text language plpgsql as $$
               begin
                 perform nextval('public.calls');
                 raise exception using errcode = '40001';
               end $$;
             alter database always set sync_ext.membership_function = 'public.meet'",
        )
        .unwrap();
    let gateway = Gateway::start(&stand.url(), &[]);
    assert_eq!(gateway.post("/workspaces/team/pull", ANN, "{}").status, 503);
    let calls: i64 = stand.admin.query_one("select last_value from calls", &[]).unwrap().get(0);
    assert_eq!(calls, 4);
}

fn while_the_database_is_away_calls_are_503(cluster: &mut Cluster) {
    let Stand { gateway, admin, .. } = Stand::trusting(cluster, "away");
    drop(admin);
    let pull = || gateway.post("/workspaces/team/pull", None, "{}");
    assert_eq!(pull().status, 200);
    cluster.stop_server(Stop::Immediately).unwrap();
    let answer = pull();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(["08001", "08006"].contains(&&*answer.code()), "{answer:?}");
    until("the gateway knows", || gateway.get("/health", None).status == 503);
    cluster.start_server().unwrap();
    assert_eq!(pull().status, 200);
    gateway.until_listening();
}
