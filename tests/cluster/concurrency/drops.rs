//! Dropping a workspace while others are at it: what waited for it finds it gone,
//! what comes after begins anew, what began before still sees it, and in the end
//! nothing is left of it.

use postgres::{Client, GenericClient};
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::device::{Device, Listed, Listing, Pulled, call};
use sync_ext_harness::state::{of_server, tables};
use sync_ext_harness::steps::{Stage, acknowledge, outcome, pull, refused, versions_seen};

const DROP: &str = "select sync_drop_workspace('team')";

/// A workspace `team` of ann, with bob as editor and vic as viewer, at head 3; vic
/// and a trusted caller have a device there.
fn team() -> Stage {
    let mut stage = Stage::new();
    stage
        .admin
        .batch_execute(
            "select sync_create_workspace('team', 'ann'), sync_set_member('team', 'bob', 'editor'),
               sync_set_member('team', 'vic', 'viewer')",
        )
        .unwrap();
    push(&mut stage.admin, "team", &[put(1, "a", 1), put(2, "b", 1), put(3, "a", 2)]);
    acknowledge(&mut stage.session_of("vic"), "team", "tablet", 1);
    acknowledge(&mut stage.admin, "team", "backend", 1);
    stage
}

fn pushing(from: u64, count: u64) -> String {
    let ops: Vec<String> = (from..from + count).map(|id| put(id, &format!("n-{id}"), 1)).collect();
    format!("select sync_push('team', '[{}]') ->> 'serverVersion'", ops.join(","))
}

/// Of no workspace that is dropped is a row left, once GC has been there; and
/// `rows` are left of the others.
fn nothing_is_left(stage: &mut Stage, rows: i64) {
    stage.admin.execute("select sync_gc()", &[]).unwrap();
    let sql = "with keys as (
          select workspace_key from sync_ext.change_log
          union all select workspace_key from sync_ext.record
          union all select workspace_key from sync_ext.device_cursor
        )
        select (select count(*) from keys where workspace_key not in
                 (select workspace_key from sync_ext.workspace))
             + (select count(*) from sync_ext.dropped_workspace)
             + (select count(*) from sync_ext.member where workspace_id not in
                 (select workspace_id from sync_ext.workspace)),
               (select count(*) from keys)";
    let row = stage.admin.query_one(sql, &[]).unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, rows));
}

#[test]
fn a_trusted_push_that_waited_begins_the_workspace_anew() {
    for (count, head) in [(1, "1"), (20, "20")] {
        let mut stage = team();
        let mut holder = stage.holding("ann", DROP);
        let push = stage.waiting(&mut holder, "", &pushing(1, count));
        holder.batch_execute("commit").unwrap();
        assert_eq!(push.join().unwrap(), Ok(head.to_owned()));
        let versions: Vec<i64> = (1..=count as i64).collect();
        assert_eq!(versions_seen(&mut stage.admin, "team"), versions);
        assert_eq!(outcome(&mut stage.session_of("ann"), "select sync_pull('team')"), refused());
        nothing_is_left(&mut stage, 2 * count as i64);
    }
}

#[test]
fn a_users_push_that_waited_is_refused() {
    for (user, count) in [("bob", 1), ("bob", 20), ("ann", 1)] {
        let mut stage = team();
        let mut holder = stage.holding("ann", DROP);
        let push = stage.waiting(&mut holder, user, &pushing(1, count));
        holder.batch_execute("commit").unwrap();
        assert_eq!(push.join().unwrap(), refused());
        let sql = "select count(*)::text from sync_ext.workspace";
        assert_eq!(call(&mut stage.admin, sql, &[]).unwrap(), "0", "none was made for it");
        nothing_is_left(&mut stage, 0);
    }
}

#[test]
fn what_waited_for_a_drop_that_is_rolled_back_goes_on() {
    let mut stage = team();
    let before = tables(&mut stage.admin).unwrap();
    for (user, step) in [
        ("bob", pushing(1, 1).replace("select", "begin; select")),
        ("ann", "select sync_gc('team')".to_owned()),
        ("ann", "begin; select sync_drop_workspace('team')".to_owned()),
        ("ann", "begin; select sync_set_member('team', 'eve', 'owner')".to_owned()),
        ("vic", "begin; select sync_update_cursor('team', 'tablet', 3)".to_owned()),
        ("vic", "begin; select sync_update_cursor('team', 'phone', 3)".to_owned()),
        ("", "begin; select sync_update_cursor('team', 'phone', 3)".to_owned()),
    ] {
        let mut holder = stage.holding("ann", DROP);
        let waiting = stage.waiting(&mut holder, user, &step);
        holder.batch_execute("rollback").unwrap();
        assert!(waiting.join().unwrap().is_ok(), "{user}: {step}");
    }
    assert_eq!(tables(&mut stage.admin).unwrap(), before);
}

#[test]
fn gc_and_drops_that_waited_find_nothing() {
    for step in ["select sync_gc('team')", DROP, "select sync_remove_member('team', 'bob')"] {
        for (user, told) in [("ann", refused()), ("", Ok(String::new()))] {
            let mut stage = team();
            let mut holder = stage.holding("ann", DROP);
            let second = stage.waiting(&mut holder, user, step);
            holder.batch_execute("commit").unwrap();
            let reply = second.join().unwrap();
            if let Ok(reply) = &reply {
                let nothing = ["\"dropped\":false", "\"workspaces\":0", ""];
                assert!(nothing.iter().any(|told| reply.contains(told)), "{step}: {reply}");
            }
            assert_eq!(reply.map(|_| ()), told.map(|_| ()), "{user}: {step}");
            nothing_is_left(&mut stage, 0);
        }
    }
    // GC of all neither waits nor erases what is not committed.
    let mut stage = team();
    let mut holder = stage.holding("ann", DROP);
    let reply = call(&mut stage.admin, "select sync_gc()::text", &[]).unwrap();
    assert!(reply.contains("\"changesDeleted\":0"), "{reply}");
    holder.batch_execute("rollback").unwrap();
    assert_eq!(versions_seen(&mut stage.admin, "team"), [1, 2, 3]);
}

#[test]
fn a_name_is_free_when_its_drop_is_committed() {
    const CREATE: &str = "select sync_create_workspace('team', 'eve')";
    for (end, told, owner) in [("commit", Ok(String::new()), "eve"), ("rollback", refused(), "ann")]
    {
        let mut stage = team();
        let mut holder = stage.holding("ann", DROP);
        let eve = stage.waiting(&mut holder, "eve", CREATE);
        holder.batch_execute(end).unwrap();
        assert_eq!(eve.join().unwrap(), told);
        let sql = "select string_agg(user_id, ' ') from sync_ext.member where role = 'owner'";
        assert_eq!(call(&mut stage.admin, sql, &[]).unwrap(), owner);
        if end == "commit" {
            // Nothing of what was there before is hers.
            assert!(versions_seen(&mut stage.session_of("eve"), "team").is_empty());
            assert_eq!(
                outcome(&mut stage.session_of("bob"), "select sync_pull('team')"),
                refused()
            );
            nothing_is_left(&mut stage, 0);
        }
    }
}

const FIRST: &str = "select sync_update_cursor('team', 'phone', 3)";

#[test]
fn a_first_acknowledgement_in_flight_leaves_no_device() {
    // Whose drop comes later waits for it; a trusted caller's as a user's.
    for user in ["vic", ""] {
        for end in ["commit", "rollback"] {
            let mut stage = team();
            let mut holder = stage.holding(user, FIRST);
            let drop = stage.waiting(&mut holder, "ann", DROP);
            holder.batch_execute(end).unwrap();
            assert!(drop.join().unwrap().unwrap().contains("\"hasMore\":false"));
            nothing_is_left(&mut stage, 0);
        }
    }
    // It waits for a drop that came first.
    for (user, step, told) in [
        ("vic", FIRST, refused()),
        ("", FIRST, Err("SX003".to_owned())),
        (
            "",
            "select sync_update_cursor('team', 'phone', 0) ->> 'advanced'",
            Ok("false".to_owned()),
        ),
    ] {
        let mut stage = team();
        let mut holder = stage.holding("ann", DROP);
        let first = stage.waiting(&mut holder, user, step);
        holder.batch_execute("commit").unwrap();
        assert_eq!(first.join().unwrap(), told);
        nothing_is_left(&mut stage, 0);
    }
}

#[test]
fn an_acknowledgement_of_a_known_device_in_flight_leaves_none() {
    let known =
        [("vic", FIRST.replace("phone", "tablet")), ("", FIRST.replace("phone", "backend"))];
    for (user, again) in &known {
        for end in ["commit", "rollback"] {
            // Its row is locked; whoever drops leaves it to GC.
            let mut stage = team();
            let mut holder = stage.holding(user, again);
            let dropped = outcome(&mut stage.session_of("ann"), DROP).unwrap();
            assert!(dropped.contains("\"hasMore\":true"), "{dropped}");
            holder.batch_execute(end).unwrap();
            nothing_is_left(&mut stage, 0);
        }
    }
    for ((user, again), told) in known.into_iter().zip(["42501", "SX003"]) {
        let mut stage = team();
        let mut holder = stage.holding("ann", DROP);
        let user: &'static str = user;
        let waiting = stage.waiting(&mut holder, user, &again);
        holder.batch_execute("commit").unwrap();
        assert_eq!(waiting.join().unwrap(), Err(told.to_owned()));
        nothing_is_left(&mut stage, 0);
    }
}

/// All that the session can read of it.
fn read(session: &mut impl GenericClient) -> Vec<Result<String, String>> {
    [
        "select sync_pull('team')",
        "select sync_snapshot('team')::jsonb - 'snapshotId'",
        "select sync_list_workspaces()",
        "select json_agg(r)::text from sync_ext.current_record r",
        "select sync_ext.may_read('team')",
    ]
    .into_iter()
    .map(|sql| outcome(session, sql))
    .collect()
}

#[test]
fn who_sees_the_past_still_reads_it() {
    for user in ["vic", ""] {
        let mut stage = team();
        let mut session = stage.session_of(user);
        let before = read(&mut session);
        assert!(before.iter().all(Result::is_ok), "{before:?}");
        session.batch_execute("begin isolation level repeatable read; select 1").unwrap();
        stage.admin.execute(DROP, &[]).unwrap();
        stage.admin.execute("select sync_gc()", &[]).unwrap();
        push(&mut stage.admin, "team", &[put(9, "new", 1)]);
        assert_eq!(read(&mut session), before);
        session.batch_execute("commit").unwrap();
        let after = read(&mut session);
        if user == "vic" {
            assert_eq!(after[..2], [refused(), refused()]);
            assert_eq!(
                after[2..],
                ["{\"workspaces\":[]}", "", "f"].map(|told| Ok(told.to_owned()))
            );
        } else {
            assert_eq!(versions_seen(&mut session, "team"), [1]);
        }
    }
}

#[test]
fn who_sees_the_past_cannot_write_there() {
    for level in ["repeatable read", "serializable"] {
        for (user, step) in [
            ("", pushing(10, 1)),
            ("bob", pushing(10, 20)),
            ("", FIRST.to_owned()),
            ("vic", FIRST.to_owned()),
            ("vic", FIRST.replace("phone", "tablet")),
            ("ann", "select sync_gc('team')".to_owned()),
            ("ann", "select sync_set_member('team', 'eve', 'viewer')".to_owned()),
            ("ann", "select sync_remove_member('team', 'vic')".to_owned()),
            ("ann", DROP.to_owned()),
        ] {
            let mut stage = team();
            let mut session = stage.session_of(user);
            session.batch_execute(&format!("begin isolation level {level}; select 1")).unwrap();
            stage.admin.execute(DROP, &[]).unwrap();
            assert_eq!(outcome(&mut session, &step), Err("40001".to_owned()), "{user}: {step}");
            session.batch_execute("rollback").unwrap();
            nothing_is_left(&mut stage, 0);
        }
    }
}

#[test]
fn old_cursors_proofs_and_tokens_are_refused() {
    let mut stage = team();
    let admin = &mut stage.admin;
    let mut device = Device::new("phone", "team");
    device.pull(admin, 100, false).unwrap();
    device.acknowledge(admin).unwrap();
    let mut listing = Listing::default();
    assert_eq!(device.clone().snapshot_page(&mut listing, admin, 1).unwrap(), Listed::More);
    let reason = |admin: &mut Client, cursor: i64, proof: Option<&str>| {
        pull(admin, "team", cursor, 100, proof)["reason"].as_str().unwrap_or("none").to_owned()
    };
    let proof = device.proof.clone();
    let expires =
        |admin: &mut Client| device.clone().snapshot_page(&mut listing.clone(), admin, 1).unwrap();

    admin.execute(DROP, &[]).unwrap();
    assert_eq!(reason(admin, 3, None), "unknown_workspace");
    assert_eq!(reason(admin, 0, proof.as_deref()), "unknown_workspace");
    assert_eq!(expires(admin), Listed::Expired);
    assert_eq!(outcome(admin, FIRST), Err("SX003".to_owned()));

    // A new beginning, shorter than what there was.
    push(admin, "team", &[put(1, "a", 1)]);
    assert_eq!(reason(admin, 3, None), "cursor_ahead");
    assert_eq!(reason(admin, 3, proof.as_deref()), "history_diverged");
    assert_eq!(reason(admin, 0, proof.as_deref()), "history_diverged");
    assert_eq!(expires(admin), Listed::Expired);
    assert_eq!(outcome(admin, FIRST), Err("SX003".to_owned()));
    // As long, of the very same ops, and longer.
    push(admin, "team", &[put(2, "b", 1), put(3, "a", 2)]);
    assert_eq!(reason(admin, 3, proof.as_deref()), "history_diverged");
    push(admin, "team", &[put(4, "c", 1)]);
    assert_eq!(reason(admin, 3, proof.as_deref()), "history_diverged");
    assert_eq!(expires(admin), Listed::Expired);

    let told = device.pull_page(admin, 100, false).unwrap();
    assert_eq!(told, Pulled::SnapshotRequired { reason: "history_diverged".to_owned() });
    device.pull(admin, 100, false).unwrap();
    device.acknowledge(admin).unwrap();
    assert_eq!(device.state(), of_server(admin, "team").unwrap());
    // To who is no member any more it is told as everything else is.
    let mut vic = stage.session_of("vic");
    for sql in ["select sync_pull('team', 3)", "select sync_snapshot('team')", FIRST] {
        assert_eq!(outcome(&mut vic, sql), refused(), "{sql}");
    }
    nothing_is_left(&mut stage, 8);
}
