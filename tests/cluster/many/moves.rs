//! Workspaces that go from one shard to another by `sync_move`, while devices use them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use postgres::{Client, GenericClient};
use serde_json::{Value, json};
use sync_ext_harness::batch::{delete, op_id, push, put, versions};
use sync_ext_harness::device::call;
use sync_ext_harness::replica::{pause_replay, resume_replay, until_replayed};
use sync_ext_harness::state::of_server;
use sync_ext_harness::steps::{age, gc, outcome, pull, speak_for, versions_seen};

use sync_ext_harness::router::foreign_server;

use super::{Many, Servers};

const STEPS: [&str; 6] = ["begin", "import", "copy", "depart", "forget", "done"];

fn json(client: &mut impl GenericClient, sql: &str) -> Value {
    serde_json::from_str(&call(client, sql, &[]).unwrap()).unwrap()
}

fn start_move(client: &mut impl GenericClient, workspace: &str, shard: i32) {
    client.batch_execute(&format!("call sync_move('{workspace}', {shard})")).unwrap();
}

fn shard_of(client: &mut Client, workspace: &str) -> i32 {
    client.query_one("select sync_router.shard_of($1)", &[&workspace]).unwrap().get(0)
}

/// How many rows there are of a workspace on a shard, in all tables, after GC.
fn rows_left(shard: &mut Client) -> i64 {
    while json(shard, "select sync_gc()::text")["hasMore"] == true {}
    let tables =
        ["workspace", "change_log", "record", "device_cursor", "member", "dropped_workspace"];
    let counts = tables.map(|table| format!("(select count(*) from sync_ext.{table})")).join(" + ");
    shard.query_one(&format!("select {counts}"), &[]).unwrap().get(0)
}

/// A workspace on shard 0 that has members, a device, a private record, a grave, a tombstone
/// and more entries than fit on a page.
fn furnished(many: &Many) -> String {
    let workspace = many.workspace_on(0, 0);
    let mut session = many.session();
    let members = format!(
        "select sync_register_table('diary', owner_field => 'by');
         select sync_create_workspace('{workspace}', 'ann'), sync_set_member('{workspace}', 'bob', 'editor')"
    );
    session.batch_execute(&members).unwrap();
    push(
        &mut session,
        &workspace,
        &[put(1, "grave", 1), delete(2, "grave", 2), put(3, "old", 1), put(4, "old", 2)],
    );
    age(&mut many.shard(0));
    assert_eq!(gc(&mut session, &workspace)["tombstonesDeleted"], 1);
    for batch in 0..3 {
        let ops: Vec<String> =
            (0..500).map(|n| put(100 + 500 * batch + n, &format!("{n}"), batch + 1)).collect();
        push(&mut session, &workspace, &ops);
    }
    push(&mut session, &workspace, &[delete(5, "dead", 1)]);
    speak_for(&mut session, "ann");
    push(&mut session, &workspace, &[put(6, "mine", 1).replace("notes", "diary")]);
    session.execute("select sync_update_cursor($1, 'phone', 1000)", &[&workspace]).unwrap();
    workspace
}

/// What callers learn of a workspace, but for what differs from call to call.
fn seen(many: &Many, workspace: &str, held: &Held) -> Vec<Value> {
    let mut session = many.session();
    let mut seen = Vec::new();
    for user in ["", "ann", "bob", "eve"] {
        speak_for(&mut session, user);
        for sql in [
            format!("select sync_pull('{workspace}', 1490, proof => '{}')::text", held.proof),
            format!("select sync_pull('{workspace}', 0)::text"),
            format!("select sync_snapshot('{workspace}', '{}')::text", held.token),
            format!("select sync_list_members('{workspace}')::text"),
            format!("select sync_explain('{workspace}', 'notes', '7')::text"),
            "select sync_list_workspaces()::text".to_owned(),
        ] {
            seen.push(outcome(&mut session, &sql).map_or_else(
                |code| json!(code),
                |reply| {
                    let mut reply: Value = serde_json::from_str(&reply).unwrap();
                    if let Some(id) = reply.get_mut("snapshotId") {
                        *id = Value::Null;
                    }
                    reply
                },
            ));
        }
    }
    speak_for(&mut session, "");
    let mut status = json(&mut session, &format!("select sync_status('{workspace}')::text"));
    for device in status["workspaces"][0]["devices"].as_array_mut().unwrap() {
        device["heartbeatAgeSeconds"] = Value::Null;
    }
    seen.push(status);
    seen
}

/// What a device keeps from before a move.
struct Held {
    proof: String,
    token: String,
}

fn held(many: &Many, workspace: &str) -> Held {
    let mut session = many.session();
    let proof = pull(&mut session, workspace, 1490, 1, None)["proof"].as_str().unwrap().to_owned();
    let token =
        json(&mut session, &format!("select sync_snapshot('{workspace}', null, 100)::text"));
    Held { proof, token: token["nextPageToken"].as_str().unwrap().to_owned() }
}

#[test]
fn devices_and_members_do_not_notice_a_move() {
    let Some(many) = Many::new() else { return };
    let workspace = furnished(&many);
    let held = held(&many, &workspace);
    let (before, state) =
        (seen(&many, &workspace, &held), of_server(&mut many.shard(0), &workspace).unwrap());
    let mut session = many.session();
    start_move(&mut session, &workspace, 1);
    assert_eq!(shard_of(&mut session, &workspace), 1);
    assert_eq!(seen(&many, &workspace, &held), before);
    assert_eq!(of_server(&mut many.shard(1), &workspace).unwrap(), state);
    assert_eq!(rows_left(&mut many.shard(0)), 0);

    // A replay, an old put against a grave, a cursor, and what is new.
    let reply = "select sync_push($1, $2::text::json)::text";
    let ops = format!("[{},{},{}]", put(107, "7", 1), put(9, "grave", 1), put(10, "new", 1));
    let reply: Value =
        serde_json::from_str(&call(&mut session, reply, &[&workspace, &ops]).unwrap()).unwrap();
    let head = before.last().unwrap()["workspaces"][0]["serverVersion"].as_i64().unwrap();
    assert_eq!(reply["results"][0]["replayed"], true, "{reply}");
    assert_eq!(
        (&reply["results"][1]["applied"], &reply["results"][1]["serverVersion"]),
        (&json!(false), &json!(head + 1)),
        "{reply}"
    );
    assert_eq!(reply["serverVersion"], head + 2);
    speak_for(&mut session, "ann");
    let acknowledged = json(
        &mut session,
        &format!("select sync_update_cursor('{workspace}', 'phone', 900)::text"),
    );
    assert_eq!(
        (&acknowledged["advanced"], &acknowledged["lastSeenVersion"]),
        (&json!(false), &json!(1000))
    );
    speak_for(&mut session, "");

    // And back.
    start_move(&mut session, &workspace, 0);
    assert_eq!(shard_of(&mut session, &workspace), 0);
    let exceptions = session.query_one("select count(*) from sync_router.placed", &[]).unwrap();
    assert_eq!(exceptions.get::<_, i64>(0), 0);
    assert_eq!(
        versions(&pull(&mut session, &workspace, head, 9, None).to_string(), "changes"),
        [head + 1, head + 2]
    );
    assert_eq!(rows_left(&mut many.shard(1)), 0);

    // There is nothing to do.
    start_move(&mut session, &workspace, 0);
    // A new one of the name is where the map says.
    start_move(&mut session, &workspace, 2);
    session.execute("select sync_drop_workspace($1)", &[&workspace]).unwrap();
    assert_eq!(push(&mut session, &workspace, &[put(11, "a", 1)]), [1]);
    assert!(of_server(&mut many.shard(0), &workspace).unwrap().is_empty());
    assert_eq!(of_server(&mut many.shard(2), &workspace).unwrap().len(), 1);
}

/// A step as it is recorded, or as a mover leaves it that is killed before it commits.
fn take_step(client: &mut Client, workspace: &str, is_recorded: bool) -> String {
    let mut transaction = client.transaction().unwrap();
    let step = "select step from sync_router.move_step($1)";
    let step: String = transaction.query_one(step, &[&workspace]).unwrap().get(0);
    if is_recorded {
        transaction.commit().unwrap();
    } else {
        transaction.rollback().unwrap();
    }
    step
}

/// Begins a move and takes steps until the next one would be this.
fn until_step(client: &mut Client, workspace: &str, shard: i32, step: &str) {
    let begin = "select step from sync_router.move_to($1, $2)";
    let mut next: String = client.query_one(begin, &[&workspace, &shard]).unwrap().get(0);
    while next != step {
        next = take_step(client, workspace, true);
    }
}

#[test]
fn a_mover_that_is_killed_anywhere_goes_on() {
    let Some(many) = Many::new() else { return };
    let workspace = furnished(&many);
    let held = held(&many, &workspace);
    let before = seen(&many, &workspace, &held);
    let mut session = many.session();
    let mut at = 0;
    for step in &STEPS[..5] {
        for is_recorded in [true, false] {
            let target = (at + 1) % 3;
            until_step(&mut session, &workspace, target, step);
            take_step(&mut session, &workspace, is_recorded);
            start_move(&mut session, &workspace, target);
            assert_eq!(shard_of(&mut session, &workspace), target, "{step} {is_recorded}");
            assert_eq!(seen(&many, &workspace, &held), before, "{step} {is_recorded}");
            assert_eq!(rows_left(&mut many.shard(at as usize)), 0, "{step} {is_recorded}");
            at = target;
        }
    }
    let moves = "select count(*)::text from sync_router.move";
    assert_eq!(call(&mut session, moves, &[]).unwrap(), "0");
}

#[test]
fn a_move_can_be_cancelled_until_it_departs() {
    let Some(many) = Many::new() else { return };
    let workspace = furnished(&many);
    let held = held(&many, &workspace);
    let before = seen(&many, &workspace, &held);
    let mut session = many.session();
    let cancel = format!("call sync_move_cancel('{workspace}')");
    for step in &STEPS[..4] {
        for is_recorded in [true, false] {
            if *step == "depart" && is_recorded {
                continue;
            }
            until_step(&mut session, &workspace, 1, step);
            if *step != "depart" {
                take_step(&mut session, &workspace, is_recorded);
            }
            session.batch_execute(&cancel).unwrap_or_else(|error| panic!("{step}: {error:?}"));
            assert_eq!(seen(&many, &workspace, &held), before, "{step} {is_recorded}");
            assert_eq!(rows_left(&mut many.shard(1)), 0, "{step} {is_recorded}");
        }
    }
    assert_eq!(outcome(&mut session, &cancel), Err("42704".to_owned()));

    // One that has begun to be cancelled does not go on.
    until_step(&mut session, &workspace, 1, "copy");
    session.batch_execute("update sync_router.move set step = 'cancel'").unwrap();
    let go_on = format!("call sync_move('{workspace}', 1)");
    assert_eq!(outcome(&mut session, &go_on), Err("55006".to_owned()));
    session.batch_execute(&cancel).unwrap();
    assert_eq!(rows_left(&mut many.shard(1)), 0);

    // Departed, whether that is recorded or not.
    until_step(&mut session, &workspace, 1, "depart");
    take_step(&mut session, &workspace, false);
    assert_eq!(outcome(&mut session, &cancel), Err("55000".to_owned()));
    start_move(&mut session, &workspace, 1);
    assert_eq!(seen(&many, &workspace, &held), before);
}

#[test]
fn what_cannot_be_moved_is_refused_and_can_be_cancelled() {
    let Some(many) = Many::new() else { return };
    let workspace = many.workspace_on(0, 0);
    let mut session = many.session();
    let message = |session: &mut Client, sql: &str| {
        let error = session.batch_execute(sql).expect_err(sql);
        let error = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
        (error.code().code().to_owned(), error.message().to_owned())
    };
    let expected = |code: &str, message: &str| (code.to_owned(), message.to_owned());
    let move_it = format!("call sync_move('{workspace}', 1)");
    let moves = "select count(*)::text from sync_router.move";
    assert_eq!(message(&mut session, &move_it), expected("42704", "workspace does not exist"));
    assert_eq!(
        message(&mut session, "call sync_move(null, 1)"),
        expected("22023", "invalid workspace_id")
    );
    for shard in ["3", "-1", "null"] {
        let sql = format!("call sync_move('{workspace}', {shard})");
        assert_eq!(message(&mut session, &sql), expected("22023", "no such shard"));
    }
    many.shard(0)
        .batch_execute(&format!(
            "create table lists (id text primary key, workspace_id text not null);
             select sync_attach_table('lists');
             insert into lists values ('l', '{workspace}')"
        ))
        .unwrap();
    assert_eq!(
        message(&mut session, &move_it),
        expected("55000", "workspace has rows of attached tables")
    );
    assert_eq!(call(&mut session, moves, &[]).unwrap(), "0", "nothing is left of it");

    // What the target refuses can be mended, or cancelled.
    let other = many.workspace_on(0, 1);
    push(&mut session, &other, &[put(1, "a", 1)]);
    many.shard(1).batch_execute("select sync_register_table('unknown elsewhere')").unwrap();
    many.shard(0).batch_execute("select sync_unregister_table('lists')").unwrap();
    let move_it = format!("call sync_move('{other}', 1)");
    assert_eq!(message(&mut session, &move_it), expected("55000", "servers differ"));
    let error = message(&mut session, &format!("call sync_move('{other}', 2)"));
    assert_eq!(error, expected("55006", "workspace is being moved"));
    many.shard(1).batch_execute("select sync_unregister_table('unknown elsewhere')").unwrap();
    session.batch_execute(&format!("call sync_move_cancel('{other}')")).unwrap();
    session.batch_execute(&move_it).unwrap();
    assert_eq!(shard_of(&mut session, &other), 1);

    let in_block = format!("begin; call sync_move('{other}', 0); commit");
    assert_eq!(outcome(&mut session, &in_block), Err("2D000".to_owned()));
    many.grant("mover", "sync_push");
    let mut mover = many.session_as("mover");
    for sql in [
        &move_it,
        "call sync_move_cancel('w')",
        "select sync_router.place('w', 1)",
        "select sync_router.move_to('w', 1)",
        "select sync_router.move_step('w')",
        "select sync_router.export_begin(0, 'w', gen_random_uuid(), '1')",
        "select sync_router.own_buckets(0, null)",
    ] {
        assert_eq!(outcome(&mut mover, sql), Err("42501".to_owned()), "{sql}");
    }
}

/// Pushes go on through the router, as fast as they can.
#[test]
fn a_busy_workspace_is_caught_up_with() {
    let Some(many) = Many::new() else { return };
    let workspace = furnished(&many);
    let is_moved = AtomicBool::new(false);
    let acknowledged = thread::scope(|scope| {
        let (many, workspace, is_moved) = (&many, &workspace, &is_moved);
        let devices: Vec<_> = (0..3)
            .map(|device| {
                scope.spawn(move || {
                    let mut session = many.session();
                    let mut acknowledged = Vec::new();
                    let mut last = false;
                    for number in (10_000 + device..).step_by(3) {
                        let op = put(number, &format!("b{number}"), 1);
                        let sql = format!(
                            "select sync_push('{workspace}', '[{op}]') -> 'results' -> 0 ->> 'serverVersion'"
                        );
                        loop {
                            match outcome(&mut session, &sql) {
                                Ok(version) => break acknowledged.push((number, version)),
                                Err(code) => assert_eq!(code, "SX004"),
                            }
                        }
                        // One push after the move.
                        if std::mem::replace(&mut last, is_moved.load(Ordering::Relaxed)) {
                            return acknowledged;
                        }
                    }
                    unreachable!()
                })
            })
            .collect();
        let mut session = many.session();
        for shard in [1, 2] {
            start_move(&mut session, workspace, shard);
        }
        is_moved.store(true, Ordering::Relaxed);
        devices.into_iter().flat_map(|device| device.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(acknowledged.len() > 10, "{}", acknowledged.len());
    let sql = "select op_id::text, server_version::text from sync_ext.change_log";
    let rows = many.shard(2).query(sql, &[]).unwrap();
    let stored: HashMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for (number, version) in &acknowledged {
        assert_eq!(stored.get(&op_id(*number)), Some(version), "{number}");
    }
    assert_eq!(rows_left(&mut many.shard(0)) + rows_left(&mut many.shard(1)), 0);
}

/// As if pushes came faster than a mover copies: it makes them wait at the end.
#[test]
fn a_move_ends_though_a_push_comes_after_every_step() {
    let Some(many) = Many::new() else { return };
    let workspace = furnished(&many);
    let mut session = many.session();
    session.execute("select sync_router.move_to($1, 1)", &[&workspace]).unwrap();
    let (mut refused, mut progress) = (0, Vec::new());
    for number in 10_000.. {
        assert!(number < 10_100, "it does not end: {progress:?}");
        // Now and then its mover is killed, and it goes on.
        let is_killed = number % 5 == 4;
        if take_step(&mut session, &workspace, !is_killed) == "done" && !is_killed {
            break;
        }
        if is_killed {
            session.execute("select sync_router.move_to($1, 1)", &[&workspace]).unwrap();
        }
        let row =
            session.query_one("select step, through, head from sync_router.move", &[]).unwrap();
        progress.push((row.get::<_, String>(0), row.get::<_, i64>(1), row.get::<_, i64>(2)));
        let op = put(number, "a", 1);
        let pushed = outcome(&mut session, &format!("select sync_push('{workspace}', '[{op}]')"));
        match pushed {
            Ok(_) => {}
            Err(code) if code == "SX004" => refused += 1,
            Err(code) => panic!("{code}"),
        }
    }
    assert!(refused > 0, "{progress:?}");
    assert!(
        progress
            .iter()
            .any(|(step, through, head)| step == "copy" && 0 < *through && through < head),
        "{progress:?}"
    );
}

/// Repeats a call that is refused because the workspace is elsewhere.
fn until_answered(client: &mut Client, sql: &str, expected: &str) {
    loop {
        match outcome(client, sql) {
            Err(code) => assert_eq!(code, "SX004"),
            Ok(answer) => return assert_eq!(answer, expected),
        }
    }
}

/// It is asked for again, and would have the push too.
#[test]
fn a_page_that_is_there_and_not_recorded_is_followed_by_the_next() {
    let Some(many) = Many::new() else { return };
    let workspace = many.workspace_on(0, 0);
    let mut session = many.session();
    push(&mut session, &workspace, &[put(1, "a", 1), put(2, "b", 1)]);
    until_step(&mut session, &workspace, 1, "copy");
    // Of graves, then of entries.
    take_step(&mut session, &workspace, true);
    take_step(&mut session, &workspace, false);
    // Pushes wait for the mover, but not for one that does not come.
    let pushed =
        format!("select sync_push('{workspace}', '[{}]') ->> 'serverVersion'", put(3, "c", 1));
    until_answered(&mut session, &pushed, "3");
    start_move(&mut session, &workspace, 1);
    assert_eq!(versions_seen(&mut many.shard(1), &workspace), [1, 2, 3]);
}

/// Calls and lists from its departure to its arrival; and those by an old map.
#[test]
fn a_workspace_that_is_nowhere_is_listed_and_not_served() {
    let Some(many) = Many::new() else { return };
    let workspace = furnished(&many);
    let mut session = many.session();
    until_step(&mut session, &workspace, 1, "depart");
    let depart =
        "select (sync_router.export_depart(source, workspace_id, move_id, through) ->> 'departed')
                    from sync_router.move";
    assert_eq!(call(&mut session, depart, &[]).unwrap(), "true");
    let list = "select sync_list_workspaces() ->> 'workspaces'";
    let expected = outcome(&mut session, list);
    assert!(expected.as_ref().unwrap().contains(&workspace), "{expected:?}");
    let put = format!("select sync_put('{workspace}', 'notes', 'a', '{{}}')");
    let elsewhere = Err("SX004".to_owned());
    assert_eq!(outcome(&mut session, &put), elsewhere);
    for shard in 0..3 {
        let by_old_map =
            format!("select sync_router.put({shard}, '', '', '{workspace}', 'notes', 'a', '{{}}')");
        assert_eq!(outcome(&mut session, &by_old_map), elsewhere, "{shard}");
    }
    session.batch_execute(&format!("call sync_move('{workspace}', 1, forget => false)")).unwrap();
    assert_eq!(outcome(&mut session, list), expected, "listed once, though two shards have it");
    assert!(outcome(&mut session, &put).is_ok());
    for shard in [0, 2] {
        let by_old_map =
            format!("select sync_router.put({shard}, '', '', '{workspace}', 'notes', 'a', '{{}}')");
        assert_eq!(outcome(&mut session, &by_old_map), elsewhere, "{shard}");
    }
    // Nor is a workspace created where its bucket is not.
    let new = many.workspace_on(0, 1);
    let elsewhere_created =
        format!("select sync_router.put(1, '', '', '{new}', 'notes', 'a', '{{}}')");
    assert_eq!(outcome(&mut session, &elsewhere_created), elsewhere);

    start_move(&mut session, &workspace, 1);
    assert_eq!(rows_left(&mut many.shard(0)), 0);
}

/// The target is restored to a state from before the move, while the source still has it.
#[test]
fn a_target_that_has_lost_the_arrival_gets_it_again() {
    let Some(servers) = Servers::start("restored", 2) else { return };
    let mut many = Many::on(Arc::new(servers));
    let workspace = furnished(&many);
    let held = held(&many, &workspace);
    let before = seen(&many, &workspace, &held);
    Arc::get_mut(&mut many.servers).unwrap().shards[1].back_up().unwrap();
    let keep = format!("call sync_move('{workspace}', 1, forget => false)");
    many.session().batch_execute(&keep).unwrap();
    assert_eq!(seen(&many, &workspace, &held), before);

    Arc::get_mut(&mut many.servers).unwrap().shards[1].restore().unwrap();
    let put = format!("select sync_put('{workspace}', 'notes', 'a', '{{}}')");
    assert_eq!(outcome(&mut many.session(), &put), Err("SX004".to_owned()));
    start_move(&mut many.session(), &workspace, 1);
    assert_eq!(seen(&many, &workspace, &held), before);
    assert_eq!(rows_left(&mut many.shard(0)), 0);
}

/// Reads go to a standby of the target that has not heard of the workspace.
#[test]
fn a_standby_that_lags_behind_a_move_has_its_readers_wait() {
    let Some(servers) = Servers::start("lagging", 2) else { return };
    let many = Many::on(Arc::new(servers));
    let workspace = furnished(&many);
    let standby = many.servers.shards[1].standby("lagging-standby").unwrap();
    let mut on_standby = standby.connect(&many.database).unwrap();
    let mut session = many.session();
    let mut addresses = many.addresses();
    addresses[1] = standby.address(&many.database);
    let again = foreign_server("sync_reads", &addresses);
    session.batch_execute(&format!("drop server sync_reads cascade; {again}")).unwrap();
    let proof = pull(&mut session, &workspace, 1000, 1, None)["proof"].as_str().unwrap().to_owned();

    pause_replay(&mut on_standby);
    start_move(&mut session, &workspace, 1);
    session.batch_execute("set sync_router.reads = standby").unwrap();
    let sql = format!("select sync_pull('{workspace}', 1000, proof => '{proof}')");
    assert_eq!(outcome(&mut session, &sql), Err("SX004".to_owned()));
    resume_replay(&mut on_standby);
    until_replayed(&mut many.shard(1), &mut on_standby);
    let page = pull(&mut session, &workspace, 1000, 1, Some(&proof));
    assert_eq!(page["changes"][0]["serverVersion"], 1001, "{page}");
}
