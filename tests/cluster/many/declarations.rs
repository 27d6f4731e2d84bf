//! The router has the functions of the extension, as they are declared there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use postgres::Client;
use regex::Regex;
use sha2::{Digest, Sha256};
use sync_ext_harness::document::Document;
use sync_ext_harness::router::{install, script};

use super::Many;

/// Arguments, result, volatility and comment of each function that callers know.
fn declared(session: &mut Client) -> BTreeMap<String, String> {
    let sql = "select proname::text, concat_ws('|', pg_get_function_arguments(oid),
                      pg_get_function_result(oid), provolatile, proisstrict, obj_description(oid))
                 from pg_proc where pronamespace = 'public'::regnamespace and proname ~ '^sync_'";
    session.query(sql, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn the_router_has_the_functions_of_the_extension() {
    let Some(many) = Many::new() else { return };
    let mut expected = declared(&mut many.shard(0));
    let mut documented = documented();
    assert!(OWN.iter().all(|name| documented.remove(*name).is_some()));
    assert_eq!(documented.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    expected.retain(|name, _| !documented[name].starts_with("not on a router"));
    // Functions of the app are on the shards.
    let registration = expected.get_mut("sync_register_table").unwrap();
    *registration = registration.replace("validation regprocedure", "validation text");
    *registration = registration.replace("NULL::regprocedure", "NULL::text");
    let mut here = declared(&mut many.session());
    assert!(OWN.iter().all(|name| here.remove(*name).is_some()));
    assert_eq!(here, expected);
}

/// Functions of a router alone.
const OWN: [&str; 2] = ["sync_move", "sync_move_cancel"];

/// Where each function runs, as docs/scaling.md has it.
fn documented() -> BTreeMap<String, String> {
    let document = Document::read("docs/scaling.md").unwrap();
    let (_, table) = document.text().split_once("\n| functions | run |\n").unwrap();
    let name = Regex::new("`(sync_[a-z_]+)`").unwrap();
    let mut runs = BTreeMap::new();
    for row in table.lines().take_while(|line| line.starts_with("| ")) {
        let (names, place) = row.trim_matches('|').split_once(" | ").unwrap();
        for found in name.captures_iter(names) {
            assert_eq!(runs.insert(found[1].to_owned(), place.trim().to_owned()), None, "{row}");
        }
    }
    runs
}

#[test]
fn nobody_may_call_them_until_it_is_granted() {
    let Some(many) = Many::new() else { return };
    let sql = "select coalesce(string_agg(proname, ' '), '') from pg_proc, aclexplode(proacl) as a
                where pronamespace = 'public'::regnamespace and proname ~ '^sync_' and a.grantee = 0";
    let mut session = many.session();
    let open: String = session.query_one(sql, &[]).unwrap().get(0);
    assert_eq!(open, "");
    let sql = "select count(*) from pg_proc
                where pronamespace = 'public'::regnamespace and proname ~ '^sync_' and proacl is null";
    assert_eq!(session.query_one(sql, &[]).unwrap().get::<_, i64>(0), 0);
}

#[test]
fn buckets_are_the_first_bits_of_the_hash() {
    let Some(many) = Many::new() else { return };
    let (mut session, mut shard) = (many.session(), many.shard(0));
    let mut seen = BTreeSet::new();
    let names = (0..2000).map(|n| format!("workspace {n}"));
    for name in names.chain(["", "é", "\u{1f600}", "a\nb", &"x".repeat(300)].map(str::to_owned)) {
        let digest = Sha256::digest(name.as_bytes());
        let expected = i32::from(digest[0]) << 2 | i32::from(digest[1]) >> 6;
        let bucket: i32 =
            session.query_one("select sync_router.bucket_of($1)", &[&name]).unwrap().get(0);
        let on_shard = shard.query_one("select sync_ext.bucket_of($1)", &[&name]).unwrap();
        assert_eq!((bucket, on_shard.get(0)), (expected, expected), "{name}");
        seen.insert(bucket);
    }
    assert!(seen.len() > 800 && *seen.last().unwrap() < 1024);
}

/// As a later version would find the functions of an earlier one.
#[test]
fn installing_again_keeps_the_map_and_the_rights() {
    let Some(many) = Many::new() else { return };
    many.grant("web", "sync_pull, sync_push");
    many.on_shards("select sync_own_buckets(null)");
    let mut session = many.session();
    session
        .batch_execute(
            "insert into sync_router.placed values ('elsewhere', 2);
             drop function sync_pull;
             create function sync_pull(workspace_id text) returns json language plpgsql as
               $$ begin return sync_router.older($1); end $$;
             create function sync_router.older(text) returns text language sql return $1;
             create function sync_mine() returns integer language sql return 1;
             grant execute on function sync_pull to web",
        )
        .unwrap();
    install(&many.servers.router, &many.database).unwrap();
    install(&many.servers.router, &many.database).unwrap();

    let mut expected = declared(&mut Many::on(many.servers.clone()).session());
    expected.insert("sync_mine".to_owned(), "|integer|v|f".to_owned());
    assert_eq!(declared(&mut session), expected);
    let left = "select count(*) from pg_proc where pronamespace = 'sync_router'::regnamespace
                   and proname = 'older'";
    assert_eq!(session.query_one(left, &[]).unwrap().get::<_, i64>(0), 0);
    let map = "select (select count(*) from sync_router.bucket), sync_router.shard_of('elsewhere')";
    let map = session.query_one(map, &[]).unwrap();
    assert_eq!((map.get::<_, i64>(0), map.get::<_, i32>(1)), (1024, 2));
    let mut web = many.session_as("web");
    web.batch_execute("select sync_pull('elsewhere'), sync_push('elsewhere', '[]')").unwrap();
    assert!(web.batch_execute("select sync_snapshot('elsewhere')").is_err());
}

#[test]
fn no_file_of_the_router_is_left_out() {
    let main = fs::read_to_string(script()).unwrap();
    for entry in fs::read_dir(script().parent().unwrap()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "router.sql" || main.contains(&format!("\\ir {name}\n")), "{name}");
    }
}
