//! What a device says, and its backend and administrator before it: every call, with every
//! kind of result.

use postgres::Client;
use serde_json::{Value, json};
use sync_ext_harness::batch::{delete, op, op_id, put, with, with_parent};
use sync_ext_harness::wire::{self, Said};

const SET_UP: [&str; 4] = [
    "create extension if not exists sync_ext",
    "create function no_swearing(payload json, previous json, op json) returns text language sql
       as $$ select 'no swearing' where payload ->> 'text' = 'damn' $$",
    "create table lists (id text primary key, workspace_id text not null, name text not null check (name <> ''));
     create table items (id text primary key, workspace_id text not null,
       list_id text not null references lists, done boolean not null default false);
     create table plans (id text primary key, workspace_id text not null)",
    "select sync_register_table('notes', patches => true), sync_register_table('diary', owner_field => 'by'),
            sync_register_table('chat', validation => 'no_swearing(json, json, json)'),
            sync_attach_table('lists'), sync_attach_table('items'), sync_attach_table('plans', direction => 'down'),
            sync_create_workspace('family', 'ann'), sync_set_member('family', 'bob', 'editor'),
            sync_set_member('family', 'vic', 'viewer')",
];

struct Device<'c> {
    client: &'c mut Client,
    said: Vec<Said>,
}

impl Device<'_> {
    fn say(&mut self, request: Value) -> Value {
        let reply = wire::execute(self.client, &request);
        self.said.push(Said { request, reply: reply.clone() });
        reply
    }

    fn run(&mut self, sql: &str) {
        let reply = self.say(json!({ "run": sql }));
        assert!(reply.is_null(), "{sql}: {reply}");
    }

    fn call(&mut self, sql: &str, arguments: &[Option<&str>]) -> Value {
        self.say(wire::statement(sql, arguments))
    }

    fn push(&mut self, workspace: &str, ops: &[String]) -> Value {
        self.push_text(workspace, Some(&format!("[{}]", ops.join(","))))
    }

    fn push_text(&mut self, workspace: &str, ops: Option<&str>) -> Value {
        self.call("select sync_push($1, $2::text::json)::text", &[Some(workspace), ops])
    }

    fn pull(&mut self, workspace: &str, rest: [Option<&str>; 5]) -> Value {
        let sql = "select sync_pull($1, $2::text::bigint, $3::text::integer, $4::text::text[],
                     $5::text::boolean, $6)::text";
        let [cursor, limit, tables, latest, proof] = rest;
        self.call(sql, &[Some(workspace), cursor, limit, tables, latest, proof])
    }

    fn pull_from(&mut self, workspace: &str, cursor: &str) -> Value {
        self.pull(workspace, [Some(cursor), Some("100"), None, None, None])
    }

    fn snapshot(&mut self, workspace: &str, rest: [Option<&str>; 3]) -> Value {
        let sql = "select sync_snapshot($1, $2, $3::text::integer, $4::text::text[])::text";
        let [token, limit, tables] = rest;
        self.call(sql, &[Some(workspace), token, limit, tables])
    }

    fn acknowledge(&mut self, version: Option<&str>) -> Value {
        let sql = "select sync_update_cursor('team', 'laptop', $1::text::bigint)::text";
        self.call(sql, &[version])
    }

    fn exchange(&mut self, cursor: &str, ops: &[String], proof: Option<&str>) -> Value {
        let sql = "select sync_exchange('team', 'laptop', $1::text::bigint, $2::text::json, 2,
                     proof => $3)::text";
        self.call(sql, &[Some(cursor), Some(&format!("[{}]", ops.join(","))), proof])
    }

    fn speak_for(&mut self, user: &str) {
        self.run(&format!("set sync_ext.user_id = '{user}'"));
    }
}

/// Of another table.
fn of(table: &str, op: String) -> String {
    op.replacen("notes", table, 1)
}

fn patch(id: u64, pk: &str, clock: u64, base: u64, payload: &str) -> String {
    let base = format!(r#"{{"clock":1,"hlc":"h","opId":"{}"}}"#, op_id(base));
    with(&op(id, pk, clock, "patch", payload), "base", &base)
}

/// In a database of its own, without the extension.
pub fn said(client: &mut Client) -> Vec<Said> {
    let mut device = Device { client, said: Vec::new() };
    SET_UP.iter().for_each(|sql| device.run(sql));
    pushes(&mut device);
    own_tables(&mut device);
    users(&mut device);
    pulls(&mut device);
    snapshots_and_gc(&mut device);
    refused_calls(&mut device);
    backends(&mut device);
    device.said
}

fn pushes(device: &mut Device<'_>) {
    device.push("team", &[]);
    device.push("team", &[put(1, "a", 1), put(2, "b", 1), put(3, "c", 1), delete(4, "nothing", 1)]);
    // It loses to a put; a delete wins; what loses to that.
    device.push("team", &[put(0, "a", 1), delete(5, "b", 2), put(6, "b", 1)]);
    // Replays of an op that won, one that lost and one that was superseded.
    device.push("team", &[put(1, "a", 1), put(0, "a", 1), put(2, "b", 1), put(1, "a", 1)]);
    device.push(
        "team",
        &[with_parent(&put(7, "a", 2), "none"), with_parent(&put(8, "c", 2), &op_id(3))],
    );
    let (taken, twice) = (put(1, "z", 1), put(9, "y", 1));
    device.push("team", &[taken, twice.clone(), twice, put(10, "x", 1), put(10, "x", 2)]);
    device.push("team", &[put(11, "p", 1), patch(12, "p", 2, 11, r#"{"x": [1,  2]}"#)]);
    device.push(
        "team",
        &[
            patch(13, "p", 1, 11, r#"{"x": 0, "y": 1}"#),
            patch(12, "p", 2, 11, r#"{"x": [1,  2]}"#),
            patch(14, "p", 3, 99, r#"{"y": 2}"#),
            with(&put(15, "p", 4), "expected", r#""none""#),
            with(&put(16, "p", 4), "expected", &format!("{:?}", op_id(11))),
            with(
                &patch(17, "p", 4, 11, r#"{"x": 3}"#),
                "expected",
                &format!(r#"{{"x": {:?}}}"#, op_id(11)),
            ),
        ],
    );
    let flat = r#"{"id": 17, "table_name": "notes", "operation": "put", "pk": "flat", "payload": {"n": 1, "n": 2},
        "device_id": "old", "op_id": "00000000-0000-4000-8000-0000000000FF", "hlc": "h", "clock": 1, "attempts": 3}"#;
    device.push_text("team", Some(&format!("[{flat}]")));
    device.run("set sync_ext.max_payload_bytes = '100B'; set sync_ext.max_payload_depth = 3");
    device.push(
        "team",
        &[
            "7".into(),
            "{}".into(),
            of("nodes", put(20, "a", 1)),
            put(21, "a", 1).replace(r#""clock":1"#, r#""clock":1.0"#),
            put(22, "a", 1).replace(&op_id(22), "22"),
            put(23, "a", 1).replace(r#"{"n":23}"#, "null"),
            put(24, "a", 1).replace(r#"{"n":24}"#, r#"{"id":"b"}"#),
            put(25, "a", 1).replace(r#"{"n":25}"#, r#"{"workspace_id":"b"}"#),
            op(26, "a", 1, "merge", "{}"),
            put(27, "", 1),
            put(28, "a", 9).replace("\"h\"", "\"\""),
            op(29, "a", 9, "put", &format!(r#"{{"text":"{}"}}"#, "x".repeat(100))),
            op(30, "a", 9, "put", r#"{"a":{"b":{"c":{}}}}"#),
            patch(31, "a", 1, 31, r#"{"a":1}"#),
            of("diary", patch(32, "d", 2, 31, r#"{"a":1}"#)),
            of("diary", put(33, "d", 1)),
            of("chat", op(34, "a", 1, "put", r#"{"text":"damn"}"#)),
            of("chat", op(35, "a", 1, "put", r#"{"text":"hello"}"#)),
            of("chat", op(36, "a", 2, "put", r#"{"text":"damn"}"#)),
        ],
    );
    device.run("reset sync_ext.max_payload_bytes; reset sync_ext.max_payload_depth");
}

fn own_tables(device: &mut Device<'_>) {
    device.run("insert into lists values ('l0', 'team', 'by SQL')");
    device.push(
        "team",
        &[
            of("items", op(40, "i1", 1, "put", r#"{"list_id":"l1"}"#)),
            of("lists", op(41, "l1", 1, "put", r#"{"name":"Food"}"#)),
            of("lists", op(42, "l2", 1, "put", r#"{"name":""}"#)),
            of("lists", op(43, "l3", 1, "put", r#"{"name":7}"#)),
            of("plans", op(44, "p1", 1, "put", "{}")),
        ],
    );
    device.push(
        "team",
        &[
            of("items", op(40, "i1", 1, "put", r#"{"list_id":"l1"}"#)),
            of("items", op(45, "i2", 1, "put", r#"{"list_id":"gone"}"#)),
            of("lists", op(46, "l1", 2, "delete", "null")),
            of("lists", op(47, "l0", 0, "put", r#"{"name":"late"}"#)),
        ],
    );
    device.run("update items set done = true; update lists set name = 'Foods' where id = 'l1'");
}

fn users(device: &mut Device<'_>) {
    device.speak_for("ann");
    device.push("family", &[of("diary", put(50, "d1", 1)), put(51, "shared", 1)]);
    let other = of("diary", op(52, "d2", 1, "put", r#"{"by":"bob"}"#));
    device.push("family", &[other, of("diary", put(50, "d1", 1))]);
    device.pull_from("family", "0");
    device.call("select sync_list_workspaces()::text", &[]);
    device.call("select sync_get_role('family')::text", &[]);
    device.call("select sync_update_cursor('family', 'phone', 1)::text", &[]);
    device.call("select sync_forget_device('family', 'phone')::text", &[]);
    device.speak_for("bob");
    device.push("family", &[of("diary", delete(53, "d1", 2)), put(54, "shared", 2)]);
    device.pull_from("family", "0");
    device.snapshot("family", [None, None, None]);
    device.speak_for("vic");
    device.push("family", &[put(55, "shared", 3)]);
    device.pull_from("family", "1");
    device.speak_for("eve");
    device.pull_from("family", "0");
    device.pull_from("nowhere", "0");
    device.snapshot("family", [None, Some("1"), None]);
    device.run("reset sync_ext.user_id");
    device.call("select sync_get_role('family', 'vic')::text", &[]);
}

fn pulls(device: &mut Device<'_>) {
    let page = device.pull("team", [Some("0"), Some("3"), None, None, None]);
    let proof = page["proof"].as_str().expect("a proof").to_owned();
    let cursor = page["nextCursor"].to_string();
    device.pull("team", [Some(&cursor), Some("100"), None, None, Some(&proof)]);
    device.pull("team", [Some("0"), Some("100"), Some("{notes,items}"), Some("true"), None]);
    device.pull("team", [Some("0"), Some("2"), Some("{lists}"), Some("false"), Some(&proof)]);
    let head = page["serverVersion"].to_string();
    device.pull("team", [Some(&head), Some("100"), None, None, Some(&proof)]);
    device.acknowledge(Some("3"));
    device.acknowledge(Some("2"));
    let reply = device.exchange(&head, &[put(60, "e", 1), put(0, "a", 1)], Some(&proof));
    let proof = reply["pull"]["proof"].as_str().expect("a proof").to_owned();
    device.exchange("4", &[put(60, "e", 1)], Some(&proof));
    device.pull_from("unborn", "0");
    device.pull_from("unborn", "7");
    device.pull_from("team", "1000");
    device.exchange("1000", &[], None);
    let other = proof.replace(&proof[proof.len() - 4..], "0000");
    device.pull("team", [Some("4"), Some("100"), None, None, Some(&other)]);
    device.exchange("4", &[put(61, "f", 1)], Some(&other));
}

fn snapshots_and_gc(device: &mut Device<'_>) {
    let first = device.snapshot("team", [None, Some("4"), None]);
    let token = first["nextPageToken"].as_str().map(str::to_owned);
    let second = device.snapshot("team", [token.as_deref(), Some("4"), None]);
    assert!(second["nextPageToken"].is_string());
    device.snapshot("team", [token.as_deref(), Some("4"), Some("{notes}")]);
    device.snapshot("team", [None, None, Some("{lists,diary}")]);
    // What was deleted is purged: the horizon is above an old cursor, and above the snapshot.
    device.push("team", &[delete(70, "c", 9), put(71, "g", 1)]);
    device.run("update sync_ext.change_log set created_at = created_at - interval '40 days'");
    device.call("select sync_update_cursor('team', 'laptop', (select head from sync_ext.workspace where workspace_id = 'team'))::text", &[]);
    device.call("select sync_gc('team')::text", &[]);
    device.snapshot("team", [token.as_deref(), Some("4"), None]);
    device.pull_from("team", "3");
    device.push("team", &[put(72, "c", 1), put(1, "a", 1)]);
    device.snapshot("team", [None, Some("500"), None]);
    device.pull_from("team", "0");
}

fn refused_calls(device: &mut Device<'_>) {
    device.push_text("team", None);
    device.push_text("team", Some("{}"));
    device.push_text("team", Some("[{"));
    device.push_text("", Some("[]"));
    device.run("set sync_ext.max_ops_per_push = 1");
    device.push("team", &[put(80, "h", 1), put(81, "i", 1)]);
    device.run("reset sync_ext.max_ops_per_push");
    device.pull("team", [None, Some("100"), None, None, None]);
    device.pull("team", [Some("-1"), Some("100"), None, None, None]);
    device.pull("team", [Some("0"), Some("100"), None, None, Some("p1.x")]);
    device.snapshot("team", [Some("s1.x"), Some("100"), None]);
    device.acknowledge(None);
    device.acknowledge(Some("1000"));
    device.run("begin read only");
    device.push("team", &[]);
    device.run("rollback");
    device.run("create rule other as on delete to sync_ext.record do instead nothing");
    device.push("team", &[put(82, "h", 1)]);
    device.run("drop rule other on sync_ext.record");
}

fn backends(device: &mut Device<'_>) {
    device.call(r#"select sync_put('team', 'notes', 's1', '{"text": "by SQL"}')::text"#, &[]);
    device.call(r#"select sync_patch('team', 'notes', 's1', '{"more": 1}')::text"#, &[]);
    device.call("select sync_delete('team', 'notes', 's1')::text", &[]);
    device.call("select sync_delete('team', 'notes', 'none')::text", &[]);
    device.call("select sync_list_members('family')::text", &[]);
    device.call("select sync_check_table('lists')::text", &[]);
    device.call("select sync_explain('team', 'notes', 'p')::text", &[]);
    device.call("select sync_explain('team', 'notes', 'c')::text", &[]);
    device.call("select to_json(p)::text from sync_hlc_parse('1767225600000:0007:phone') p", &[]);
    device.call("select sync_drop_workspace('family')::text", &[]);
    device.pull_from("family", "1");
}
