//! Where memory is short, a call that needs too much of it fails alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use postgres::Client;
use sync_ext_harness::batch::{op, op_id, push, put};
use sync_ext_harness::database::Database;

use super::{alone, refused};
use crate::patching::{allow_patches, patch};

/// What each process of the server may map, in kB: hardly more than it needs.
const ADDRESS_SPACE: u64 = 600_000;

/// A push whose text is `count` times this.
fn many(element: &str, count: u32) -> String {
    format!(
        "select sync_push('team', ('[' || repeat('{element},', {count}) || '{element}]')::json)"
    )
}

#[test]
fn who_takes_too_much_fails_alone() {
    let mut app = alone("memory");
    let mut admin = app.session();
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(262_000));
    push(&mut admin, "team", &[op(1000, "large", 9, "put", &large)]);
    admin
        .batch_execute(
            "alter database app set sync_ext.max_ops_per_push = 1000000;
             alter database app set sync_ext.max_payload_bytes = '256MB';
             alter database app set sync_ext.max_page_bytes = '512MB';
             alter role web set sync_ext.user_id = 'nobody'",
        )
        .unwrap();
    allow_patches(&mut admin);
    drop(admin);
    // Of more members than there is memory for, once it is short.
    let wide = format!("{{{}\"b\":1}}", "\"a\":1,".repeat(5_000_000));
    push(&mut app.session(), "team", &[op(1001, "wide", 9, "put", &wide)]);
    Arc::get_mut(&mut app.cluster).unwrap().restart_within(ADDRESS_SPACE).unwrap();
    let app = app;

    // A patch of as many members itself.
    let wide_patch = format!(
        "select sync_push('team', ('[{{\"tableName\":\"notes\",\"operation\":\"patch\",\"pk\":\"a\",
           \"opId\":\"{}\",\"deviceId\":\"d\",\"hlc\":\"h\",\"clock\":9,\"payload\":{{'
           || repeat('\"a\":1,', 6000000) || '\"b\":1}}}}]')::json)",
        op_id(1003)
    );
    // One whose fields and revisions would be many times as long.
    let many_fields = format!(
        "select sync_push('team', ('[{{\"tableName\":\"notes\",\"operation\":\"patch\",\"pk\":\"large\",
           \"base\":{{\"opId\":\"{}\",\"hlc\":\"h\",\"clock\":9}},
           \"opId\":\"{}\",\"deviceId\":\"d\",\"clock\":10,\"hlc\":\"' || repeat('\\u0001', 512)
           || '\",\"payload\":{{' || string_agg('\"' || i || '\":1', ',') || '}}}}]')::json)
         from generate_series(1, 200000) as i",
        op_id(1000),
        op_id(1004)
    );
    let members = r#"{"payload":{"a":1,"a":1,"a":1,"a":1,"a":1,"a":1,"a":1,"a":1}}"#;
    let losers: Vec<String> = (2000..3000).map(|id| op(id, "large", 1, "put", "{}")).collect();
    let losers = format!("select sync_push('team', '[{}]')", losers.join(","));
    let patch_of_wide = patch(1002, "wide", 10, (1001, 9), "{\"b\":2}");
    let patch_of_wide = format!("select sync_push('team', '[{patch_of_wide}]')");
    let hostile: Vec<(&str, String)> = vec![
        ("trusted", many(members, 900_000)),
        ("trusted", many("{}", 999_999)),
        ("trusted", many("[[[[]]]]", 900_000)),
        ("trusted", losers),
        ("trusted", patch_of_wide),
        ("trusted", wide_patch),
        ("trusted", many_fields),
        ("trusted", "select sync_push('team', ('[{\"opId\":\"' || repeat('x', 250000000) || '\"}]')::json)".to_owned()),
        ("trusted", "select sync_push('team', ('[{\"' || repeat('\\u0061', 40000000) || '\":1}]')::json)".to_owned()),
        ("trusted", "select sync_pull('team', 0, 1, array_fill('a'::text, array[5000000]))".to_owned()),
        ("trusted", "select sync_snapshot('team', repeat('s', 250000000))".to_owned()),
        ("trusted", "set request.jwt.claims = ''; select sync_pull('team', proof => repeat('p', 250000000))".to_owned()),
        ("nobody", "select sync_pull('x', 0, 1, array_fill('a'::text, array[5000000]))".to_owned()),
    ];
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let honest = scope.spawn(|| honest(&app, &is_over));
        let attackers: Vec<_> =
            hostile.iter().map(|(who, sql)| scope.spawn(|| attack(&app, who, sql))).collect();
        let codes: Vec<Vec<String>> = attackers.into_iter().map(|it| it.join().unwrap()).collect();
        is_over.store(true, Ordering::Relaxed);
        println!("{codes:?}");
        assert!(honest.join().unwrap() > 0);
        let is_short = |code: &&String| *code == "53200";
        assert!(codes.iter().flatten().filter(is_short).count() > 0, "memory was never short");
    });
    let log = app.cluster.log();
    assert!(!log.contains("terminated by signal") && !log.contains("abort"), "{log}");
}

/// Each in a session that goes on: the backend is the same at the end.
fn attack(app: &Database, who: &str, sql: &str) -> Vec<String> {
    let mut session = match who {
        "nobody" => super::web(app),
        _ => app.session(),
    };
    let before = sync_ext_harness::steps::pid(&mut session);
    let codes = (0..3)
        .map(|_| match session.batch_execute(sql) {
            Ok(()) => "served".to_owned(),
            Err(error) => {
                let code = super::told(&error).0;
                let may = ["53200", "54000", "22023", "42501"];
                assert!(
                    may.contains(&&*code),
                    "{code} for {}: {error:?}",
                    &sql[..sql.len().min(200)]
                );
                code
            }
        })
        .collect();
    assert_eq!(sync_ext_harness::steps::pid(&mut session), before);
    codes
}

/// Somebody who just works meanwhile.
fn honest(app: &Database, is_over: &AtomicBool) -> u64 {
    let mut session: Client = app.session();
    let mut pushed = 0;
    while !is_over.load(Ordering::Relaxed) {
        pushed += 1;
        push(&mut session, "den", &[put(5000 + pushed, &format!("n-{pushed}"), 1)]);
        assert_eq!(refused(&mut session, "select sync_pull('den', -1)").0, "22023");
    }
    pushed
}
