//! Members who are removed or get another role, while they are at it. What is
//! written goes by what the members are when the workspace is locked, at every
//! isolation level; what is read, by what they are in its snapshot.

use sync_ext_harness::batch::{push, put};
use sync_ext_harness::device::call;
use sync_ext_harness::state::tables;
use sync_ext_harness::steps::{Stage, acknowledge, gc, outcome, refused, versions_seen};

/// A workspace `team` of ann and amy, owners, bob, an editor, and vic, a viewer,
/// who has a device at version 1; the head is 2.
fn team() -> Stage {
    let mut stage = Stage::new();
    stage
        .admin
        .batch_execute(
            "select sync_create_workspace('team', 'ann'), sync_set_member('team', 'amy', 'owner'),
               sync_set_member('team', 'bob', 'editor'), sync_set_member('team', 'vic', 'viewer')",
        )
        .unwrap();
    push(&mut stage.admin, "team", &[put(1, "a", 1), put(2, "b", 1)]);
    acknowledge(&mut stage.session_of("vic"), "team", "tablet", 1);
    stage
}

/// Somebody does something for a user, and waits for the backend `holder`.
fn members(stage: &mut Stage) -> String {
    let sql = "select coalesce(string_agg(user_id || ' ' || role, ', ' order by user_id), 'nobody')
                 from sync_ext.member where workspace_id = 'team'";
    call(&mut stage.admin, sql, &[]).unwrap()
}

fn devices(stage: &mut Stage) -> String {
    let sql =
        "select coalesce(string_agg(concat_ws(' ', user_id, device_id, last_seen_version), ', '
                 order by user_id, device_id), 'none') from sync_ext.device_cursor";
    call(&mut stage.admin, sql, &[]).unwrap()
}

/// A push of so many new records, the first of which is `from`.
fn pushing(from: u64, count: u64) -> String {
    let ops: Vec<String> = (from..from + count).map(|id| put(id, &format!("n-{id}"), 1)).collect();
    format!("select sync_push('team', '[{}]') ->> 'serverVersion'", ops.join(","))
}

/// Each keeps bob from pushing.
const CHANGES: [&str; 2] =
    ["select sync_remove_member('team', 'bob')", "select sync_set_member('team', 'bob', 'viewer')"];

#[test]
fn a_push_that_waited_is_refused_when_its_user_may_no_longer() {
    let mut stage = team();
    for change in CHANGES {
        // A push that looks its ops up, and a large one that presumes.
        for count in [1, 20] {
            stage.admin.execute("select sync_set_member('team', 'bob', 'editor')", &[]).unwrap();
            let mut holder = stage.holding("ann", change);
            let push = stage.waiting(&mut holder, "bob", &pushing(10, count));
            holder.batch_execute("commit").unwrap();
            assert_eq!(push.join().unwrap(), refused(), "{change}");
            assert_eq!(versions_seen(&mut stage.admin, "team"), [1, 2], "{change}");
        }
    }
}

#[test]
fn a_push_that_waited_lands_when_the_change_is_rolled_back() {
    let mut stage = team();
    for (change, version) in CHANGES.into_iter().zip(["3", "4"]) {
        let mut holder = stage.holding("ann", change);
        let id = version.parse().unwrap();
        let push = stage.waiting(&mut holder, "bob", &pushing(id, 1));
        holder.batch_execute("rollback").unwrap();
        assert_eq!(push.join().unwrap(), Ok(version.to_owned()), "{change}");
    }
}

#[test]
fn who_is_not_allowed_yet_does_not_even_wait() {
    let stage = team();
    let mut holder = stage.holding(
        "ann",
        "select sync_set_member('team', 'vic', 'editor'), sync_set_member('team', 'eve', 'owner')",
    );
    for user in ["vic", "eve"] {
        let mut session = stage.session_of(user);
        session.batch_execute("set lock_timeout = '30s'").unwrap();
        assert_eq!(outcome(&mut session, &pushing(3, 1)), refused(), "{user}");
        assert_eq!(outcome(&mut session, "select sync_gc('team')"), refused(), "{user}");
    }
    holder.batch_execute("commit").unwrap();
    assert_eq!(outcome(&mut stage.session_of("vic"), &pushing(3, 1)), Ok("3".to_owned()));
}

const OUT: [&str; 2] =
    ["select sync_remove_member('team', $)", "select sync_set_member('team', $, 'viewer')"];

#[test]
fn of_two_owners_who_remove_each_other_one_stays() {
    for (change, left) in OUT.into_iter().zip(["", "amy viewer, "]) {
        let mut stage = team();
        let [ann_out, amy_out] = ["'ann'", "'amy'"].map(|user| change.replace('$', user));
        let mut holder = stage.holding("ann", &amy_out);
        let amy = stage.waiting(&mut holder, "amy", &ann_out);
        holder.batch_execute("rollback").unwrap();
        assert_eq!(amy.join().unwrap(), Ok(String::new()), "nobody was removed before");
        stage.admin.execute("select sync_set_member('team', 'ann', 'owner')", &[]).unwrap();

        let mut holder = stage.holding("ann", &amy_out);
        let amy = stage.waiting(&mut holder, "amy", &ann_out);
        holder.batch_execute("commit").unwrap();
        assert_eq!(amy.join().unwrap(), refused());
        assert_eq!(members(&mut stage), format!("{left}ann owner, bob editor, vic viewer"));
    }
}

#[test]
fn two_owners_who_leave_at_once_cannot_both() {
    for change in OUT {
        // By themselves, and by a trusted caller.
        for (user, other) in [("ann", "amy"), ("", "")] {
            let mut stage = team();
            let [ann_out, amy_out] = ["'ann'", "'amy'"].map(|user| change.replace('$', user));
            let mut holder = stage.holding(user, &ann_out);
            let amy = stage.waiting(&mut holder, other, &amy_out);
            holder.batch_execute("commit").unwrap();
            assert_eq!(amy.join().unwrap(), Err("55000".to_owned()));
            assert!(members(&mut stage).contains("amy owner"));
        }
    }
}

#[test]
fn an_owner_who_waited_governs_no_longer_when_removed() {
    let mut stage = team();
    for step in [
        "select sync_set_member('team', 'eve', 'owner')",
        "select sync_remove_member('team', 'vic')",
        "select sync_remove_member('team', 'nobody')",
        "select sync_gc('team')",
        "select sync_drop_workspace('team')",
    ] {
        stage.admin.execute("select sync_set_member('team', 'amy', 'owner')", &[]).unwrap();
        let mut holder = stage.holding("ann", "select sync_set_member('team', 'amy', 'editor')");
        let amy = stage.waiting(&mut holder, "amy", step);
        holder.batch_execute("commit").unwrap();
        assert_eq!(amy.join().unwrap(), refused(), "{step}");
    }
    assert_eq!(members(&mut stage), "amy editor, ann owner, bob editor, vic viewer");
}

const FIRST: &str = "select sync_update_cursor('team', 'phone', 2)";
const REMOVAL: &str = "select sync_remove_member('team', 'vic')";

#[test]
fn a_removed_users_first_acknowledgement_leaves_no_device() {
    let mut stage = team();
    // The acknowledgement is in flight: who removes waits for it to end.
    for end in ["commit", "rollback"] {
        let mut holder = stage.holding("vic", FIRST);
        let removal = stage.waiting(&mut holder, "ann", REMOVAL);
        holder.batch_execute(end).unwrap();
        assert_eq!(removal.join().unwrap(), Ok(String::new()));
        assert_eq!(devices(&mut stage), "none", "{end}");
        assert_eq!(outcome(&mut stage.session_of("vic"), FIRST), refused());
        stage.admin.execute("select sync_set_member('team', 'vic', 'viewer')", &[]).unwrap();
    }
    // The removal is in flight: the acknowledgement waits.
    let mut holder = stage.holding("ann", REMOVAL);
    let first = stage.waiting(&mut holder, "vic", FIRST);
    holder.batch_execute("commit").unwrap();
    assert_eq!(first.join().unwrap(), refused());
    assert_eq!(devices(&mut stage), "none");
    stage.admin.execute("select sync_set_member('team', 'vic', 'viewer')", &[]).unwrap();
    let mut holder = stage.holding("ann", REMOVAL);
    let first = stage.waiting(&mut holder, "vic", FIRST);
    holder.batch_execute("rollback").unwrap();
    assert!(first.join().unwrap().is_ok());
    assert_eq!(devices(&mut stage), "vic phone 2");
}

#[test]
fn a_removed_users_known_device_is_gone() {
    const AGAIN: &str = "select sync_update_cursor('team', 'tablet', 2) ->> 'lastSeenVersion'";
    for end in ["commit", "rollback"] {
        let mut stage = team();
        let mut holder = stage.holding("vic", AGAIN);
        let removal = stage.waiting(&mut holder, "ann", REMOVAL);
        holder.batch_execute(end).unwrap();
        assert_eq!(removal.join().unwrap(), Ok(String::new()));
        assert_eq!(devices(&mut stage), "none", "{end}");
    }
    for (end, told, left) in
        [("commit", refused(), "none"), ("rollback", Ok("2".to_owned()), "vic tablet 2")]
    {
        let mut stage = team();
        let mut holder = stage.holding("ann", REMOVAL);
        let again = stage.waiting(&mut holder, "vic", AGAIN);
        holder.batch_execute(end).unwrap();
        assert_eq!(again.join().unwrap(), told);
        assert_eq!(devices(&mut stage), left, "{end}");
    }
}

/// It keeps its user a member, and the workspace there, and nothing more.
#[test]
fn a_first_acknowledgement_holds_up_neither_pushes_nor_new_roles() {
    let mut stage = team();
    let mut holder = stage.holding("vic", FIRST);
    // The session that looks on would not wait for ever.
    assert_eq!(push(&mut stage.admin, "team", &[put(3, "c", 1)]), [3]);
    gc(&mut stage.admin, "team");
    stage
        .admin
        .batch_execute(
            "select sync_set_member('team', 'vic', 'editor'), sync_set_member('team', 'eve', 'viewer'),
               sync_remove_member('team', 'bob')",
        )
        .unwrap();
    assert!(outcome(&mut stage.admin, FIRST).is_ok(), "another user's device of that name");
    holder.batch_execute("commit").unwrap();
    assert_eq!(devices(&mut stage), " phone 2, vic phone 2, vic tablet 1");
}

#[test]
fn devices_of_others_stay_when_a_user_is_removed() {
    let mut stage = team();
    stage.admin.batch_execute("select sync_create_workspace('den', 'vic')").unwrap();
    for (user, workspace) in [("", "team"), ("bob", "team"), ("vic", "den"), ("vic", "team")] {
        acknowledge(&mut stage.session_of(user), workspace, "phone", 0);
    }
    stage.admin.execute(REMOVAL, &[]).unwrap();
    assert_eq!(devices(&mut stage), " phone 0, bob phone 0, vic phone 0");
}

/// At these levels a transaction sees the members that there were; but nobody
/// changes anything by what they were.
#[test]
fn a_transaction_that_sees_old_members_changes_nothing() {
    const GONE: &str = "select sync_remove_member('team', 'ann')";
    const DEMOTED: &str = "select sync_set_member('team', 'ann', 'viewer')";
    const ADDED: &str = "select sync_set_member('team', 'eve', 'editor')";
    for level in ["repeatable read", "serializable"] {
        for (user, change, step) in [
            ("bob", CHANGES[0], pushing(3, 1)),
            ("bob", CHANGES[1], pushing(3, 20)),
            ("vic", REMOVAL, FIRST.to_owned()),
            ("vic", REMOVAL, FIRST.replace("phone", "tablet")),
            ("ann", GONE, OUT[0].replace('$', "'amy'")),
            ("ann", DEMOTED, OUT[0].replace('$', "'amy'")),
            ("ann", GONE, "select sync_gc('team')".to_owned()),
            ("ann", GONE, "select sync_drop_workspace('team')".to_owned()),
            // A trusted caller, who sees two owners, does not remove the last.
            ("", GONE, OUT[0].replace('$', "'amy'")),
            ("", DEMOTED, OUT[1].replace('$', "'amy'")),
            // Nor does a drop leave behind a member whom it does not see, to
            // whoever takes the name.
            ("ann", ADDED, "select sync_remove_member('team', 'eve')".to_owned()),
            ("ann", ADDED, "select sync_drop_workspace('team')".to_owned()),
        ] {
            let mut stage = team();
            let mut session = stage.session_of(user);
            session.batch_execute(&format!("begin isolation level {level}")).unwrap();
            let seen = versions_seen(&mut session, "team");
            stage.admin.execute(change, &[]).unwrap();
            let before = tables(&mut stage.admin).unwrap();
            assert_eq!(versions_seen(&mut session, "team"), seen, "it goes on reading");
            assert_eq!(outcome(&mut session, &step), Err("40001".to_owned()), "{user}: {step}");
            session.batch_execute("rollback").unwrap();
            assert_eq!(tables(&mut stage.admin).unwrap(), before, "{user}: {step}");
        }
    }
}

#[test]
fn two_create_one_workspace() {
    let mut stage = team();
    let create = |user: &str| format!("select sync_create_workspace('new', '{user}')");
    for (end, told, owner) in [("commit", refused(), "bob"), ("rollback", Ok(String::new()), "eve")]
    {
        let mut holder = stage.holding("bob", &create("bob"));
        let eve = stage.waiting(&mut holder, "eve", &create("eve"));
        holder.batch_execute(end).unwrap();
        assert_eq!(eve.join().unwrap(), told);
        let sql = "select string_agg(user_id, ' ') from sync_ext.member where workspace_id = 'new'";
        assert_eq!(call(&mut stage.admin, sql, &[]).unwrap(), owner);
        stage.admin.execute("select sync_drop_workspace('new')", &[]).unwrap();
    }
    let mut session = stage.session_of("eve");
    session.batch_execute("begin isolation level repeatable read").unwrap();
    session.batch_execute("select from sync_ext.workspace").unwrap();
    stage.admin.batch_execute(&create("bob")).unwrap();
    assert_eq!(outcome(&mut session, &create("eve")), Err("40001".to_owned()));
}
