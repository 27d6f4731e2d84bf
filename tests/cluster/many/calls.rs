//! Where calls go, and what comes back.

use std::collections::BTreeSet;

use postgres::error::DbError;
use postgres::types::ToSql;
use postgres::{Client, GenericClient};
use serde_json::Value;
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::device::call;
use sync_ext_harness::steps::{age_all, gc};

use super::Many;

/// Calls of all functions that are about the workspace `$1`.
const CALLS: [&str; 17] = [
    "select sync_create_workspace($1, 'ann')",
    "select sync_push($1, '[]')",
    "select sync_put($1, 'notes', 'a', '{}')",
    "select sync_patch($1, 'notes', 'a', '{\"n\": 1}')",
    "select sync_delete($1, 'notes', 'a')",
    "select sync_pull($1)",
    "select sync_snapshot($1)",
    "select sync_update_cursor($1, 'd', 0)",
    "select sync_exchange($1, 'd', 0, '[]')",
    "select sync_set_member($1, 'bob', 'viewer')",
    "select sync_remove_member($1, 'bob')",
    "select sync_list_members($1)",
    "select sync_get_role($1, 'ann')",
    "select sync_forget_device($1, 'd')",
    "select sync_status($1)",
    "select sync_explain($1, 'notes', 'a')",
    "select sync_drop_workspace($1)",
];
/// Of these the ones that read only.
const READS: [&str; 6] = ["pull", "snapshot", "list_members", "get_role", "status", "explain"];

/// All that an error tells, as far as the router passes it on.
fn told(
    client: &mut impl GenericClient,
    sql: &str,
    arguments: &[&(dyn ToSql + Sync)],
) -> [String; 4] {
    let error = client.query(sql, arguments).err().unwrap_or_else(|| panic!("no error: {sql}"));
    parts(error.as_db_error().unwrap_or_else(|| panic!("not the server's: {error}")))
}

fn parts(error: &DbError) -> [String; 4] {
    [Some(error.code().code()), Some(error.message()), error.detail(), error.hint()]
        .map(|part| part.unwrap_or_default().to_owned())
}

fn json(client: &mut Client, sql: &str) -> Value {
    serde_json::from_str(&call(client, sql, &[]).unwrap()).unwrap()
}

#[test]
fn a_call_runs_on_the_shard_of_its_workspace_alone() {
    let Some(many) = Many::new() else { return };
    let mut router = many.session();
    for shard in 0..3 {
        let workspace = many.workspace_on(shard, 0);
        for sql in CALLS {
            router.execute(sql, &[&workspace]).unwrap_or_else(|error| panic!("{sql}: {error}"));
            if sql.contains("sync_drop_workspace") {
                continue;
            }
            for other in 0..3 {
                let sql = "select count(*) from sync_ext.workspace where workspace_id = $1";
                let found: i64 =
                    many.shard(other as usize).query_one(sql, &[&workspace]).unwrap().get(0);
                assert_eq!(found == 1, other == shard, "{workspace} on {other}");
            }
        }
    }
    many.on_shards("select sync_own_buckets(null)");
    router.execute("insert into sync_router.placed values ('elsewhere', 2)", &[]).unwrap();
    assert_eq!(push(&mut router, "elsewhere", &[put(1, "a", 1)]), [1]);
    assert_eq!(json(&mut many.shard(2), "select sync_pull('elsewhere')::text")["serverVersion"], 1);
}

#[test]
fn replies_are_passed_on_byte_for_byte() {
    let Some(many) = Many::new() else { return };
    let mut router = many.session();
    let payload =
        r#"{ "a" : 123456789012345678901234567890.10, "b":"\u0000\/", "a":1,  "é😀": [ null ] }"#;
    let workspace = many.workspace_on(1, 0);
    router
        .execute("select sync_put($1, 'notes', 'a', $2::text::json)", &[&workspace, &payload])
        .unwrap();
    let sql = "select sync_pull($1)::text";
    let routed = call(&mut router, sql, &[&workspace]).unwrap();
    assert!(routed.contains(payload), "{routed}");
    assert_eq!(call(&mut many.shard(1), sql, &[&workspace]).unwrap(), routed);
}

#[test]
fn what_is_wrong_with_a_workspace_the_shard_says() {
    let Some(many) = Many::new() else { return };
    let (mut router, mut shard) = (many.session(), many.shard(0));
    let (empty, long) = (Some(String::new()), Some("é".repeat(129)));
    for workspace in [None, empty, long] {
        for sql in CALLS.iter().chain(&["select sync_gc($1)"]) {
            if workspace.is_none()
                && ["sync_status", "sync_gc"].iter().any(|name| sql.contains(name))
            {
                continue;
            }
            let expected = told(&mut shard, sql, &[&workspace]);
            assert_eq!(expected[..2], ["22023", "invalid workspace_id"], "{sql}");
            assert_eq!(told(&mut router, sql, &[&workspace]), expected, "{sql} {workspace:?}");
        }
    }
    let sql = "select sync_snapshot('w', 'of another server')";
    assert_eq!(told(&mut router, sql, &[]), told(&mut shard, sql, &[]));
}

#[test]
fn a_map_with_a_hole_is_an_error() {
    let Some(many) = Many::new() else { return };
    let mut router = many.session();
    router
        .execute("delete from sync_router.bucket where bucket = sync_router.bucket_of('w')", &[])
        .unwrap();
    let error = told(&mut router, "select sync_put('w', 'notes', 'a', '{}')", &[]);
    assert_eq!(error[..2], ["55000", "sync_router.bucket is not complete"]);
}

/// Nothing is written on the router, so without a check Postgres would let them through.
#[test]
fn a_read_only_transaction_reads() {
    let Some(many) = Many::new() else { return };
    let mut router = many.session();
    let on_all = [
        "select sync_gc()",
        "select sync_register_table('t')",
        "select sync_unregister_table('t')",
    ];
    for sql in CALLS.iter().chain(&on_all) {
        let sql = sql.replace("$1", "'w'");
        let mut transaction = router.build_transaction().read_only(true).start().unwrap();
        if READS.iter().any(|name| sql.contains(&format!("sync_{name}("))) {
            transaction.batch_execute(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        } else {
            let error = told(&mut transaction, &sql, &[]);
            let name = &sql["select ".len()..sql.find('(').unwrap()];
            let expected = format!("cannot execute {name}() in a read-only transaction");
            assert_eq!(error[..2], ["25006", &expected], "{sql}");
        }
        transaction.rollback().unwrap();
    }
    for number in 0..3 {
        let sql = "select (select count(*) from sync_ext.workspace) + count(*) from sync_ext.synced_table";
        assert_eq!(many.shard(number).query_one(sql, &[]).unwrap().get::<_, i64>(0), 1, "{number}");
    }
}

/// As docs/scaling.md warns.
#[test]
fn a_push_stays_when_its_transaction_is_rolled_back() {
    let Some(many) = Many::new() else { return };
    let mut router = many.session();
    let mut transaction = router.transaction().unwrap();
    assert_eq!(push(&mut transaction, "w", &[put(1, "a", 1)]), [1]);
    transaction.rollback().unwrap();
    assert_eq!(json(&mut router, "select sync_pull('w')::text")["serverVersion"], 1);
}

#[test]
fn what_is_about_all_workspaces_is_asked_of_all_shards() {
    let Some(many) = Many::new() else { return };
    let mut router = many.session();
    let workspaces: Vec<String> =
        (0..9).map(|n| many.workspace_on(n % 3, (n / 3).into())).collect();
    for workspace in &workspaces {
        let ops = [put(1, "a", 1), put(2, "a", 2), put(3, "b", 1)];
        assert_eq!(push(&mut router, workspace, &ops), [1, 2, 3]);
        router.execute("select sync_set_member($1, 'ann', 'owner')", &[workspace]).unwrap();
    }
    let names = |reply: &Value| -> Vec<String> {
        let listed = reply["workspaces"].as_array().unwrap().iter();
        listed.map(|item| item["workspaceId"].as_str().unwrap().to_owned()).collect()
    };
    let sorted: Vec<String> = BTreeSet::from_iter(workspaces.clone()).into_iter().collect();
    assert_eq!(names(&json(&mut router, "select sync_list_workspaces()::text")), sorted);
    assert_eq!(names(&json(&mut router, "select sync_status()::text")), sorted);
    let one = format!("select sync_status('{}')::text", workspaces[0]);
    assert_eq!(names(&json(&mut router, &one)), workspaces[..1]);

    router.batch_execute("set sync_ext.user_id = 'ann'").unwrap();
    let listed = json(&mut router, "select sync_list_workspaces()::text");
    assert_eq!(names(&listed), sorted);
    assert_eq!(listed["workspaces"][0]["role"], "owner");
    router.batch_execute("set sync_ext.user_id = 'eve'").unwrap();
    assert_eq!(
        call(&mut router, "select sync_list_workspaces()::text", &[]).unwrap(),
        r#"{"workspaces":[]}"#
    );
    router.batch_execute("reset sync_ext.user_id").unwrap();

    (0..3).for_each(|number| age_all(&mut many.shard(number)));
    assert_eq!(gc(&mut router, &workspaces[4])["changesDeleted"], 1);
    let reply = json(&mut router, "select sync_gc()::text");
    assert_eq!(
        (&reply["changesDeleted"], &reply["hasMore"]),
        (&8.into(), &false.into()),
        "{reply}"
    );
    // Each shard reads so many entries at most.
    for workspace in &workspaces {
        push(&mut router, workspace, &[put(4, "c", 1), put(5, "c", 2)]);
    }
    let reply = json(&mut router, "select sync_gc(batch_size => 1)::text");
    assert_eq!((&reply["scanned"], &reply["hasMore"]), (&3.into(), &true.into()), "{reply}");

    router.batch_execute("select sync_register_table('tasks', owner_field => 'by'), sync_unregister_table('notes')").unwrap();
    for number in 0..3 {
        let sql =
            "select string_agg(table_name || ' ' || owner_field, ',') from sync_ext.synced_table";
        assert_eq!(call(&mut many.shard(number), sql, &[]).unwrap(), "tasks by");
    }
}

/// As while a workspace moves: the shard that it leaves lists it too.
#[test]
fn a_workspace_of_two_shards_is_listed_once() {
    let Some(many) = Many::new() else { return };
    many.on_shards("select sync_own_buckets(null)");
    push(&mut many.shard(0), "w", &[put(1, "a", 1)]);
    push(&mut many.shard(2), "w", &[put(1, "a", 1), put(2, "b", 1)]);
    push(&mut many.shard(1), "v", &[put(1, "a", 1)]);
    let mut router = many.session();
    assert_eq!(
        call(&mut router, "select sync_list_workspaces()::text", &[]).unwrap(),
        r#"{"workspaces":[{"workspaceId":"v","role":null,"serverVersion":1},{"workspaceId":"w","role":null,"serverVersion":2}]}"#
    );
    let status = json(&mut router, "select sync_status()::text");
    let heads: Vec<&Value> = status["workspaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["serverVersion"])
        .collect();
    assert_eq!(heads, [1, 2]);
}

#[test]
fn a_validation_function_is_one_of_the_shards() {
    let Some(many) = Many::new() else { return };
    many.on_shards(
        "create function check_note(payload json, previous json, op json) returns text
         language sql return 'no ' || (op ->> 'pk')",
    );
    let mut router = many.session();
    let register =
        "select sync_register_table('notes', validation => 'check_note(json, json, json)')";
    router.batch_execute(register).unwrap();
    let reply = json(&mut router, "select sync_put('w', 'notes', 'a', '{}')::text");
    assert_eq!(reply["error"], "no a");
    let unknown = "select sync_register_table('notes', validation => 'nothing(json)')";
    assert_eq!(told(&mut router, unknown, &[])[..1], ["42883"]);
}

#[test]
fn hybrid_logical_clocks_are_made_here() {
    let Some(many) = Many::new() else { return };
    let sql = "select (sync_hlc_parse(sync_hlc_now())).node";
    assert_eq!(call(&mut many.session(), sql, &[]).unwrap(), "$server");
}

/// A validation function stands for the fence of a shard that a workspace has left.
#[test]
fn a_call_for_a_workspace_that_is_elsewhere_follows_the_map() {
    let Some(many) = Many::new() else { return };
    many.on_shards("select sync_own_buckets(null)");
    let workspace = many.workspace_on(0, 0);
    many.shard(0)
        .batch_execute(
            "create function fence(payload json, previous json, op json) returns text language plpgsql as $$
             begin
               perform pg_advisory_xact_lock_shared(1);
               raise exception 'workspace is elsewhere' using errcode = 'SX004', detail = 'It departed.', hint = 'Look.';
             end $$;
             select sync_register_table('notes', validation => 'fence(json, json, json)')",
        )
        .unwrap();
    let (sql, mut router) = ("select sync_put($1, 'notes', 'a', '{}')::text", many.session());
    let expected = ["SX004", "workspace is elsewhere", "It departed.", "Look."];
    assert_eq!(told(&mut router, sql, &[&workspace]), expected);

    // The map changes while the call is on its way.
    let mut holder = many.shard(0);
    holder.batch_execute("select pg_advisory_lock(1)").unwrap();
    std::thread::scope(|scope| {
        let (many, workspace) = (&many, &workspace);
        let put = scope.spawn(move || call(&mut many.session(), sql, &[workspace]));
        let waiting =
            "select count(*)::text from pg_locks where locktype = 'advisory' and not granted";
        sync_ext_harness::replica::until(&mut many.shard(0), waiting, "1");
        let place = "insert into sync_router.placed values ($1, 2)";
        many.session().execute(place, &[workspace]).unwrap();
        holder.batch_execute("select pg_advisory_unlock(1)").unwrap();
        let reply: Value = serde_json::from_str(&put.join().unwrap().unwrap()).unwrap();
        assert_eq!(
            (&reply["success"], &reply["serverVersion"]),
            (&true.into(), &1.into()),
            "{reply}"
        );
    });
    let sql = format!("select sync_pull('{workspace}')::text");
    assert_eq!(json(&mut many.shard(2), &sql)["serverVersion"], 1);
}

/// Pages of several shards, each with some of the workspaces, are those of one server.
#[test]
fn lists_of_all_shards_page() {
    let Some(many) = Many::new() else { return };
    let mut router = many.session();
    let names: Vec<String> = (0..23).map(|n| format!("w{n:02} \"é\\")).collect();
    for name in &names {
        push(&mut router, name, &[put(1, "a", 1)]);
    }
    // One has smaller pages.
    let smaller = format!("alter database {} set sync_ext.max_page_limit = 2", many.database);
    many.shard(1).batch_execute(&smaller).unwrap();
    let mut router = many.session();
    for function in ["list_workspaces", "status"] {
        for limit in [1, 3, 22, 23, 24] {
            let (mut listed, mut token) = (Vec::new(), Value::Null);
            for page in 1.. {
                let sql = format!(
                    "select sync_{function}(page_token => $1, page_limit => {limit})::text"
                );
                let reply = call(&mut router, &sql, &[&token.as_str()]).unwrap();
                let reply: Value = serde_json::from_str(&reply).unwrap();
                let items = reply["workspaces"].as_array().unwrap();
                assert!(items.len() <= limit && page < 30, "{function} {limit}: {reply}");
                listed.extend(
                    items.iter().map(|item| item["workspaceId"].as_str().unwrap().to_owned()),
                );
                token = reply["nextPageToken"].clone();
                if token.is_null() {
                    break;
                }
            }
            assert_eq!(listed, names, "{function} by {limit}");
        }
        let whole = json(&mut router, &format!("select sync_{function}()::text"));
        assert_eq!(whole["workspaces"].as_array().unwrap().len(), 23);
        assert_eq!(whole.get("nextPageToken"), None);
    }
}
