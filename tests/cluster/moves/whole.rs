//! After a move everything goes on as if nothing had happened.

use sync_ext_harness::batch::{delete, op, push, put, versions};
use sync_ext_harness::device::{Device, call};
use sync_ext_harness::state::{of_server, tables};
use sync_ext_harness::steps::{age, gc, speak_for};

use super::{FIRST, SECOND, Servers, collect, text};

/// A workspace with everything that one may have: JSON that few parsers take as it is, a grave
/// and a tombstone, patches, scopes, private records, losers, members, devices.
fn furnished() -> Servers {
    let mut servers = Servers::new();
    for stage in [&mut servers.a, &mut servers.b] {
        stage
            .admin
            .batch_execute(
                "select sync_register_table('cards', patches => true, scope_field => 'in'),
                        sync_register_table('diary', owner_field => 'by')",
            )
            .unwrap();
    }
    let admin = &mut servers.a.admin;
    admin
        .batch_execute(
            "select sync_create_workspace('w', 'ann'), sync_set_member('w', 'bob', 'editor')",
        )
        .unwrap();
    push(
        admin,
        "w",
        &[put(1, "grave", 1), delete(2, "grave", 2), put(3, "old", 1), put(4, "old", 2)],
    );
    age(admin);
    assert_eq!(gc(admin, "w")["tombstonesDeleted"], 1);
    let odd = r#"{ "nul":"\u0000", "half":"\ud800", "long": 123456789012345678901234567890,
                   "a":1, "a":2, "slash":"\/", "emoji":"😀" }"#;
    let card =
        |id, pk, clock, payload: &str| op(id, pk, clock, "put", payload).replace("notes", "cards");
    let ops = [
        op(5, "odd", 1, "put", odd),
        delete(6, "dead", 2),
        put(7, "dead", 1),
        card(8, "c", 1, r#"{"in":"x","n":1}"#),
        card(9, "c", 2, r#"{"in":"y","n":1}"#),
    ];
    push(admin, "w", &ops);
    admin.batch_execute(r#"select sync_patch('w', 'cards', 'c', '{"n":"\u0000"}')"#).unwrap();
    speak_for(admin, "ann");
    push(admin, "w", &[put(10, "mine", 1).replace("notes", "diary")]);
    admin.batch_execute("select sync_update_cursor('w', 'phone', 3)").unwrap();
    speak_for(admin, "");
    servers
}

/// The rows of a server, without their keys and what its GC has noted. JSON as its text.
fn rows(admin: &mut postgres::Client) -> String {
    let of = |table| {
        format!(
            "select string_agg(t::text, '|' order by t::text)
               from (select to_jsonb(r) - '{{workspace_key,unread_since,pinned_since,devices_since}}'::text[] from (select * FROM sync_ext.{table}) r) t"
        )
    };
    let entries =
        "select string_agg(concat(payload, base, patch, fields), '|' order by server_version)
                     from sync_ext.change_log";
    let log = "select string_agg(concat_ws(' ', server_version, table_name, pk, operation, clock, hlc, device_id,
                 op_id, applied, supersedes, created_at, owner, filled_field, overwrote, pushed_digest, scope,
                 left_scope), '|' order by server_version)
               from sync_ext.change_log";
    let mut texts = ["workspace", "record", "device_cursor", "member"].map(of).to_vec();
    texts.extend([entries.to_owned(), log.to_owned()]);
    texts.iter().map(|sql| text(admin, sql)).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_row_arrives_as_it_was() {
    let mut servers = furnished();
    let before = rows(&mut servers.a.admin);
    let state = of_server(&mut servers.a.admin, "w").unwrap();
    servers.move_there(FIRST);
    assert_eq!(rows(&mut servers.b.admin), before);
    assert_eq!(of_server(&mut servers.b.admin, "w").unwrap(), state);
    // What is left there is erased.
    collect(&mut servers.a.admin);
    let left = tables(&mut servers.a.admin).unwrap();
    for table in
        ["workspace", "change_log", "record", "device_cursor", "member", "dropped_workspace"]
    {
        assert_eq!(left[table], "", "{table}");
    }
}

/// A column that the pages do not have would be lost.
#[test]
fn pages_have_every_column() {
    let mut servers = furnished();
    servers.there_until(FIRST, |step| step != super::Step::ExportPage);
    for (key, table) in [("entries", "change_log"), ("records", "record")] {
        let sql = format!(
            "with pages as (select sync_export_page('w', '{FIRST}') as page
                      union all select sync_export_page('w', '{FIRST}', '{{\"through\":0,\"hasGraves\":true}}'))
             select coalesce(string_agg(attname, ','), '') from pg_attribute
              where attrelid = 'sync_ext.{table}'::regclass and attnum > 0 and attname <> 'workspace_key'
                and attname not in (select k from pages, json_array_elements(page -> '{key}') e, json_object_keys(e) k)"
        );
        assert_eq!(text(&mut servers.a.admin, &sql), "", "{table}");
    }
    // And the last one those of the others.
    servers.there_until(FIRST, |step| step != super::Step::Arrive);
    let last =
        text(&mut servers.a.admin, &format!("select sync_export_depart('w', '{FIRST}', 0)::text"));
    let last: serde_json::Value = serde_json::from_str(&last).unwrap();
    for (key, table, but) in
        [("devices", "device_cursor", "workspace_key"), ("members", "member", "workspace_id")]
    {
        let sql = format!(
            "select string_agg(attname, ',' order by attname) from pg_attribute
              where attrelid = 'sync_ext.{table}'::regclass and attnum > 0 and attname <> '{but}'"
        );
        let told: Vec<_> = last[key][0].as_object().unwrap().keys().cloned().collect();
        assert_eq!(told.join(","), text(&mut servers.a.admin, &sql), "{table}");
    }
}

#[test]
fn devices_go_on() {
    let mut servers = furnished();
    let mut device = Device::new("tablet", "w");
    device.pull(&mut servers.a.admin, 100, false).unwrap();
    let (cursor, state) = (device.cursor, device.synced.len());
    let first = text(&mut servers.a.admin, "select sync_snapshot('w', page_limit => 1)::text");
    let first: serde_json::Value = serde_json::from_str(&first).unwrap();

    servers.move_there(FIRST);
    let there = &mut servers.b.admin;
    // A retry is known by its opId, and an old put loses to a grave.
    let reply = call(
        there,
        "select sync_push('w', $1::text::json)::text",
        &[&format!("[{},{}]", put(4, "old", 2), put(20, "grave", 1))],
    )
    .unwrap();
    let reply: serde_json::Value = serde_json::from_str(&reply).unwrap();
    assert_eq!(
        (&reply["results"][0]["serverVersion"], &reply["results"][1]["applied"]),
        (&4.into(), &false.into()),
        "{reply}"
    );
    assert_eq!(versions(&reply.to_string(), "results")[0], 4);
    push(there, "w", &[put(21, "later", 1)]);
    let pulled = device.pull_page(there, 100, false).unwrap();
    assert!(matches!(pulled, sync_ext_harness::device::Pulled::Page { .. }), "{pulled:?}");
    assert!(device.cursor > cursor && device.synced.len() == state + 1);
    device.acknowledge(there).unwrap();
    let sql = "select sync_snapshot('w', $1)::text";
    let rest = call(there, sql, &[&first["nextPageToken"].as_str()]).unwrap();
    assert!(rest.contains(r#""pk":"odd""#), "{rest}");

    // Private records stay private, members members, and a device its user's.
    speak_for(there, "bob");
    assert!(!text(there, "select sync_snapshot('w')::text").contains("diary"));
    speak_for(there, "ann");
    assert!(text(there, "select sync_snapshot('w')::text").contains("diary"));
    assert!(
        text(there, "select sync_update_cursor('w', 'phone', 1)::text")
            .contains("\"lastSeenVersion\":3")
    );
    speak_for(there, "");
}

#[test]
fn it_comes_back_and_goes_again() {
    let mut servers = furnished();
    let before = rows(&mut servers.a.admin);
    servers.move_there(FIRST);
    servers.move_back(SECOND);
    // Rows of its first stay wait for GC, under another key.
    collect(&mut servers.a.admin);
    assert_eq!(rows(&mut servers.a.admin), before);
    let third = "00000000-0000-4000-8000-000000000003";
    servers.move_there(third);
    collect(&mut servers.b.admin);
    assert_eq!(rows(&mut servers.b.admin), before);
}

/// With the key that it has there, for rows that come by replication.
#[test]
fn a_key_may_be_kept_where_no_row_has_it() {
    let mut servers = furnished();
    let begun =
        text(&mut servers.a.admin, &format!("select sync_export_begin('w', '{FIRST}', 'b')::text"));
    let key: String =
        text(&mut servers.a.admin, "select workspace_key::text from sync_ext.workspace");
    let begin = format!("select sync_import_begin('w', '{FIRST}', '{begun}', keep_key => true)");
    let admin = &mut servers.b.admin;
    let left = format!("insert into sync_ext.device_cursor values ({key}, 'd', 0, now(), '')");
    admin.batch_execute(&left).unwrap();
    assert_eq!(super::error(admin, &begin).0, "55000");
    admin.batch_execute("delete from sync_ext.device_cursor").unwrap();
    admin.batch_execute(&begin).unwrap();
    assert_eq!(text(admin, "select workspace_key::text from sync_ext.workspace"), key);
    // Further keys are of the own range.
    push(admin, "x", &[put(1, "a", 1)]);
    let of = "select (workspace_key >> 40)::text from sync_ext.workspace where workspace_id = 'x'";
    assert_eq!(text(admin, of), "2");
}
