//! While a workspace moves: who serves it, and who waits for what.

use fallible_iterator::FallibleIterator;
use serde_json::json;
use sync_ext_harness::batch::{op, push, put};
use sync_ext_harness::moves::Ended;
use sync_ext_harness::steps::{age, gc, outcome, pid, speak_for};

use super::{CALLS, FIRST, SECOND, Servers, Step, collect, elsewhere, error, text};

const DEPARTED: &str = "It was moved to \"b\".";
const ARRIVING: &str = "It has not arrived yet.";

/// With a member, whose rows go along.
fn pushed() -> Servers {
    let mut servers = Servers::new();
    servers.a.admin.batch_execute("select sync_create_workspace('w', 'ann')").unwrap();
    push(&mut servers.a.admin, "w", &[put(1, "a", 1), put(2, "b", 1)]);
    servers
}

/// As operators see it.
const AWAY: &str = "select away from sync_ext.workspace_status where workspace_id = 'w'";

#[test]
fn at_each_step_one_server_serves_at_most() {
    let mut servers = pushed();
    let all = [
        Step::ExportBegin,
        Step::ImportBegin,
        Step::ExportPage,
        Step::ImportPage,
        Step::Hold,
        Step::Depart,
        Step::Arrive,
        Step::Map,
        Step::Forget,
    ];
    for killed_at in all {
        assert_eq!(servers.there_until(FIRST, |step| step != killed_at), Ended::Killed(killed_at));
        // What is arriving is not served before; what has departed is not served any more.
        let (here, there) = match killed_at {
            Step::ExportBegin | Step::ImportBegin => (None, None),
            Step::ExportPage | Step::ImportPage | Step::Hold | Step::Depart => {
                (None, Some(ARRIVING))
            }
            Step::Arrive => (Some(DEPARTED), Some(ARRIVING)),
            Step::Map | Step::Forget => (Some(DEPARTED), None),
        };
        for (stage, fence) in [(&mut servers.a, here), (&mut servers.b, there)] {
            match fence {
                Some(detail) => {
                    let away = if detail == ARRIVING { "arriving" } else { "departed" };
                    assert_eq!(text(&mut stage.admin, AWAY), away, "{killed_at:?}");
                    for user in ["", "ann", "eve"] {
                        speak_for(&mut stage.admin, user);
                        // Eve may not create it for others anyway.
                        for call in
                            CALLS.iter().filter(|call| user != "eve" || !call.contains("create"))
                        {
                            let told = error(&mut stage.admin, &format!("select {call}"));
                            assert_eq!(told, elsewhere(detail), "{killed_at:?} {user} {call}");
                        }
                    }
                    speak_for(&mut stage.admin, "");
                    assert_eq!(
                        text(
                            &mut stage.admin,
                            "select count(*)::text from sync_ext.current_record"
                        ),
                        "0"
                    );
                }
                None => stage.admin.batch_execute("select sync_pull('w')").unwrap(),
            }
        }
    }
    assert_eq!(servers.there_until(FIRST, |_| true), Ended::Moved);
    // The marker stays.
    for call in CALLS {
        assert_eq!(
            error(&mut servers.a.admin, &format!("select {call}")),
            elsewhere(DEPARTED),
            "{call}"
        );
    }
    assert_eq!(
        text(&mut servers.b.admin, "select count(*)::text from sync_ext.current_record"),
        "2"
    );
}

#[test]
fn it_is_in_a_list_at_each_step() {
    let mut servers = pushed();
    let listed = |servers: &mut Servers, user| {
        let of = |admin: &mut postgres::Client| {
            speak_for(admin, user);
            let told = text(admin, "select sync_list_workspaces()::text").contains(r#""w""#);
            speak_for(admin, "");
            told
        };
        [of(&mut servers.a.admin), of(&mut servers.b.admin)]
    };
    for (killed_at, expected) in [
        (Step::ExportPage, [true, false]),
        (Step::Arrive, [true, false]),
        (Step::Map, [true, true]),
    ] {
        servers.there_until(FIRST, |step| step != killed_at);
        assert_eq!(listed(&mut servers, "ann"), expected, "{killed_at:?}");
        assert_eq!(listed(&mut servers, ""), expected, "{killed_at:?}");
    }
    servers.move_there(FIRST);
    assert_eq!(
        (listed(&mut servers, ""), listed(&mut servers, "ann")),
        ([false, true], [false, true])
    );
}

#[test]
fn a_held_workspace_refuses_pushes_until_the_time_is_up() {
    let mut servers = pushed();
    servers.there_until(FIRST, |step| step != Step::Depart);
    let admin = &mut servers.a.admin;
    let pushes = &CALLS[..4];
    for call in pushes {
        assert_eq!(
            error(admin, &format!("select {call}")),
            elsewhere("It is about to be moved."),
            "{call}"
        );
    }
    let exchange = format!("select sync_exchange('w', 'd', 0, '[{}]')", put(9, "c", 1));
    assert_eq!(error(admin, &exchange), elsewhere("It is about to be moved."));
    admin.batch_execute("select sync_pull('w'), sync_update_cursor('w', 'd', 1), sync_set_member('w', 'bob', 'viewer')").unwrap();
    // The row keeps the time when others write it.
    assert_eq!(error(admin, "select sync_put('w', 'notes', 'c', '{}')").0, "SX004");
    admin.batch_execute("update sync_ext.workspace set held_until = clock_timestamp()").unwrap();
    push(admin, "w", &[put(9, "c", 1)]);
    // The mover reads on.
    servers.move_there(FIRST);
    assert_eq!(text(&mut servers.b.admin, "select sync_pull('w') ->> 'serverVersion'"), "3");
}

#[test]
fn a_hold_is_as_long_as_it_is_asked_for() {
    let mut servers = pushed();
    servers.there_until(FIRST, |step| step != Step::Hold);
    let admin = &mut servers.a.admin;
    admin.batch_execute(&format!("select sync_export_hold('w', '{FIRST}', 60)")).unwrap();
    let left = "select (held_until - clock_timestamp() between interval '30 seconds' and interval '60 seconds')::text
                  from sync_ext.workspace_status";
    assert_eq!(text(admin, left), "true");
    admin.batch_execute(&format!("select sync_export_hold('w', '{FIRST}', 0)")).unwrap();
    let held = "select count(held_until)::text from sync_ext.workspace_status";
    assert_eq!(text(admin, held), "0");
    push(admin, "w", &[put(9, "c", 1)]);
}

/// So that who listens at a server asks there, and is told where it is.
#[test]
fn listeners_are_told_of_a_departure_and_an_arrival() {
    let mut servers = pushed();
    let mut heard = Vec::new();
    for stage in [&mut servers.a, &mut servers.b] {
        stage.admin.batch_execute("set sync_ext.notify = 'hint'").unwrap();
        let mut listener = stage.session();
        listener.batch_execute("listen sync_ext").unwrap();
        heard.push(listener);
    }
    servers.move_there(FIRST);
    let told: Vec<String> = heard
        .iter_mut()
        .map(|listener| {
            let mut notifications = listener.notifications();
            let mut coming = notifications.timeout_iter(std::time::Duration::from_secs(30));
            coming.next().unwrap().expect("a hint").payload().to_owned()
        })
        .collect();
    let hint = |version| format!(r#"{{"workspaceId":"w","serverVersion":{version}}}"#);
    assert_eq!(told, [hint(3), hint(2)], "above every cursor where it has gone");
}

#[test]
fn depart_waits_for_a_push_and_then_is_behind() {
    let mut servers = pushed();
    servers.there_until(FIRST, |step| step != Step::Hold);
    let mut pusher = servers.a.holding("", "select sync_put('w', 'notes', 'late', '{}')");
    let depart = servers.a.blocked(pid(&mut pusher), |session| {
        text(session, &format!("select sync_export_depart('w', '{FIRST}', 2)::text"))
    });
    pusher.batch_execute("commit").unwrap();
    let told: serde_json::Value = serde_json::from_str(&depart.join().unwrap()).unwrap();
    assert_eq!(told, json!({ "departed": false, "serverVersion": 3 }));
    servers.move_there(FIRST);
    assert_eq!(text(&mut servers.b.admin, "select sync_pull('w') ->> 'serverVersion'"), "3");
}

#[test]
fn a_push_that_waited_for_the_departure_is_told() {
    let mut servers = pushed();
    servers.there_until(FIRST, |step| step != Step::Depart);
    servers.a.admin.batch_execute("update sync_ext.workspace set held_until = null").unwrap();
    let depart = format!("select sync_export_depart('w', '{FIRST}', 2)");
    let mut mover = servers.a.holding("", &depart);
    let waiting = servers.a.waiting(&mut mover, "", "select sync_put('w', 'notes', 'late', '{}')");
    mover.batch_execute("commit").unwrap();
    assert_eq!(waiting.join().unwrap(), Err("SX004".to_owned()));
}

/// A device that registers is among the devices that go along.
#[test]
fn depart_waits_for_a_first_acknowledgement() {
    let mut servers = pushed();
    servers.there_until(FIRST, |step| step != Step::Depart);
    let mut device = servers.a.holding("", "select sync_update_cursor('w', 'd', 1)");
    let depart = servers.a.blocked(pid(&mut device), |session| {
        text(session, &format!("select sync_export_depart('w', '{FIRST}', 2) ->> 'devices'"))
    });
    device.batch_execute("commit").unwrap();
    assert!(depart.join().unwrap().contains(r#""device_id" : "d""#));
}

#[test]
fn nobody_creates_what_is_arriving() {
    let mut servers = pushed();
    let mut creator = servers.b.holding("", "select sync_put('w', 'notes', 'a', '{}')");
    let begun =
        text(&mut servers.a.admin, &format!("select sync_export_begin('w', '{FIRST}', 'b')::text"));
    let begin = format!("select sync_import_begin('w', '{FIRST}', '{begun}')");
    let arriving = servers.b.waiting(&mut creator, "", &begin);
    creator.batch_execute("commit").unwrap();
    assert_eq!(arriving.join().unwrap(), Err("42710".to_owned()));
    servers.b.admin.batch_execute("select sync_drop_workspace('w')").unwrap();
    let mut mover = servers.b.holding("", &begin);
    let creating = servers.b.waiting(&mut mover, "", "select sync_put('w', 'notes', 'a', '{}')");
    mover.batch_execute("commit").unwrap();
    assert_eq!(creating.join().unwrap(), Err("SX004".to_owned()));
}

/// What it purges there would be missing here, and its horizon with it.
#[test]
fn gc_passes_over_what_is_being_copied() {
    let mut servers = pushed();
    push(&mut servers.a.admin, "w", &[put(3, "a", 2), put(4, "b", 2)]);
    age(&mut servers.a.admin);
    servers.there_until(FIRST, |step| step != Step::Hold);
    for sql in ["select sync_gc()::text", "select sync_gc('w')::text"] {
        assert!(text(&mut servers.a.admin, sql).contains("\"changesDeleted\":0"), "{sql}");
    }
    assert!(text(&mut servers.b.admin, "select sync_gc()::text").contains("\"changesDeleted\":0"));
    servers.move_there(FIRST);
    assert!(text(&mut servers.b.admin, "select sync_gc()::text").contains("\"changesDeleted\":1"));
}

#[test]
fn gc_goes_on_when_the_move_is_given_up() {
    let mut servers = pushed();
    push(&mut servers.a.admin, "w", &[put(3, "a", 2)]);
    age(&mut servers.a.admin);
    servers.there_until(FIRST, |step| step != Step::Depart);
    servers.a.admin.batch_execute(&format!("select sync_export_cancel('w', '{FIRST}')")).unwrap();
    push(&mut servers.a.admin, "w", &[put(4, "c", 1)]);
    assert_eq!(gc(&mut servers.a.admin, "w")["changesDeleted"], 1);
}

#[test]
fn a_move_that_is_given_up_leaves_one_copy() {
    let mut servers = pushed();
    // There was one before: that server knew that it has gone.
    servers.move_there(FIRST);
    let cancel = |stage: &mut sync_ext_harness::steps::Stage, side| {
        stage.admin.batch_execute(&format!("select sync_{side}_cancel('w', '{SECOND}')")).unwrap();
    };
    let mover = sync_ext_harness::moves::Mover { workspace_id: "w", move_id: SECOND, to: "a" };
    mover.run(&mut servers.b.admin, &mut servers.a.admin, |step| step != Step::Depart).unwrap();
    for _ in 0..2 {
        cancel(&mut servers.a, "import");
        cancel(&mut servers.b, "export");
    }
    assert_eq!(error(&mut servers.a.admin, "select sync_pull('w')").0, "SX004");
    push(&mut servers.b.admin, "w", &[put(9, "c", 1)]);
    collect(&mut servers.a.admin);
    assert_eq!(text(&mut servers.a.admin, "select count(*)::text from sync_ext.change_log"), "0");
    // And it may begin again.
    servers.move_back("00000000-0000-4000-8000-000000000003");
    assert_eq!(text(&mut servers.a.admin, "select sync_pull('w') ->> 'serverVersion'"), "3");
}

#[test]
fn after_the_departure_there_is_no_way_back() {
    let mut servers = pushed();
    servers.there_until(FIRST, |step| step != Step::Arrive);
    let cancel = format!("select sync_export_cancel('w', '{FIRST}')");
    assert_eq!(
        error(&mut servers.a.admin, &cancel),
        ("55000".to_owned(), "It is departed.".to_owned())
    );
    let again = format!("select sync_export_begin('w', '{SECOND}', 'c')");
    assert_eq!(error(&mut servers.a.admin, &again).0, "55006");
    servers.move_there(FIRST);
    let arrived = format!("select sync_import_cancel('w', '{FIRST}')");
    assert_eq!(error(&mut servers.b.admin, &arrived).0, "55000");
}

#[test]
fn what_belongs_to_attached_tables_stays() {
    let mut servers = pushed();
    let admin = &mut servers.a.admin;
    admin
        .batch_execute(
            "create table orders (id text primary key, workspace_id text);
             select sync_attach_table('orders')",
        )
        .unwrap();
    for _ in 0..2 {
        servers
            .b
            .admin
            .batch_execute(
                "create table if not exists orders (id text primary key, workspace_id text)",
            )
            .unwrap();
    }
    servers.b.admin.batch_execute("select sync_attach_table('orders')").unwrap();
    servers.there_until(FIRST, |step| step != Step::Depart);
    servers
        .a
        .admin
        .batch_execute(
            "update sync_ext.workspace set held_until = null; insert into orders values ('o', 'w')",
        )
        .unwrap();
    // It was copied, but does not depart.
    let mover = sync_ext_harness::moves::Mover { workspace_id: "w", move_id: FIRST, to: "b" };
    let failed = mover.run(&mut servers.a.admin, &mut servers.b.admin, |_| true).unwrap_err();
    assert!(format!("{failed:#}").contains("rows of attached tables"), "{failed:#}");
    servers.a.admin.batch_execute(&format!("select sync_export_cancel('w', '{FIRST}')")).unwrap();
    let begin = format!("select sync_export_begin('w', '{SECOND}', 'b')");
    let table = "Table \"orders\" is attached.".to_owned();
    assert_eq!(error(&mut servers.a.admin, &begin), ("55000".to_owned(), table));
}

#[test]
fn servers_that_differ_exchange_nothing() {
    let mut servers = pushed();
    servers.b.admin.batch_execute("select sync_register_table('more')").unwrap();
    let begun =
        text(&mut servers.a.admin, &format!("select sync_export_begin('w', '{FIRST}', 'b')::text"));
    let begin = format!("select sync_import_begin('w', '{FIRST}', '{begun}')");
    let (code, detail) = error(&mut servers.b.admin, &begin);
    assert!(code == "55000" && detail.starts_with("tables is "), "{code} {detail}");
    let older = begin.replace(r#""version" : ""#, r#""version" : "older "#);
    assert_ne!(older, begin);
    servers.b.admin.batch_execute("select sync_unregister_table('more')").unwrap();
    let (code, detail) = error(&mut servers.b.admin, &older);
    assert!(code == "55000" && detail.starts_with("version is "), "{code} {detail}");
    let function = format!("set sync_ext.membership_function = 'public.role_of'; {begin}");
    assert_eq!(error(&mut servers.b.admin, &function).0, "55000");
    servers.b.admin.batch_execute("reset sync_ext.membership_function").unwrap();

    // Nor if they come to differ on the way, on either side.
    servers.there_until(FIRST, |step| step != Step::Depart);
    servers.a.admin.batch_execute("select sync_register_table('more')").unwrap();
    let depart = format!("select sync_export_depart('w', '{FIRST}', 2)");
    assert_eq!(error(&mut servers.a.admin, &depart).0, "55000");
    servers.a.admin.batch_execute("select sync_unregister_table('more')").unwrap();
    servers.there_until(FIRST, |step| step != Step::Arrive);
    servers.b.admin.batch_execute("select sync_register_table('more')").unwrap();
    let mover = sync_ext_harness::moves::Mover { workspace_id: "w", move_id: FIRST, to: "b" };
    let failed = mover.run(&mut servers.a.admin, &mut servers.b.admin, |_| true).unwrap_err();
    assert!(format!("{failed:#}").contains("servers differ"), "{failed:#}");
    servers.b.admin.batch_execute("select sync_unregister_table('more')").unwrap();
    servers.move_there(FIRST);
}

/// Of what was copied before, nobody would know the new scopes.
#[test]
fn a_scope_field_changes_before_or_after_a_move() {
    let mut servers = Servers::new();
    for stage in [&mut servers.a, &mut servers.b] {
        stage
            .admin
            .batch_execute("select sync_register_table('cards', scope_field => 'in')")
            .unwrap();
    }
    let card = |id, pk| op(id, pk, 1, "put", r#"{"in":"x","at":"y"}"#).replace("notes", "cards");
    push(&mut servers.a.admin, "w", &[card(1, "a"), card(2, "b")]);
    servers.there_until(FIRST, |step| step != Step::Hold);
    for sql in
        ["call sync_set_scope_field('cards', 'at')", "call sync_set_scope_field('cards', 'in')"]
    {
        servers.a.admin.batch_execute(sql).unwrap();
    }
    let depart = format!("select sync_export_depart('w', '{FIRST}', 2)");
    assert_eq!(error(&mut servers.a.admin, &depart).0, "55000");
    assert_eq!(
        outcome(&mut servers.b.admin, "call sync_set_scope_field('cards', 'at')"),
        Err("SX004".to_owned())
    );
}
