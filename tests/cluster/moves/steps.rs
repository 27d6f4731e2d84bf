//! Each call again, out of order, lost, or after a restore.

use serde_json::{Value, json};
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::database::Database;
use sync_ext_harness::dump::dump;
use sync_ext_harness::moves::{Ended, Mover, beginning};
use sync_ext_harness::state::of_server;
use sync_ext_harness::steps::{Stage, age, gc};

use super::{FIRST, SECOND, Servers, Step, elsewhere, error, text};

/// Enough for several pages of entries and of graves.
fn large() -> Servers {
    let mut servers = Servers::new();
    let admin = &mut servers.a.admin;
    let of = |range: std::ops::Range<u64>, clock: u64| {
        range.map(|n| put(n * 10 + clock, &format!("r{n}"), clock)).collect::<Vec<_>>()
    };
    for clock in 1..=2 {
        for start in (0..2500).step_by(500) {
            push(admin, "w", &of(start..start + 500, clock));
        }
    }
    let deletes =
        (0..1200).map(|n| sync_ext_harness::batch::delete(n * 10 + 3, &format!("r{n}"), 3));
    let deletes: Vec<_> = deletes.collect();
    for some in deletes.chunks(400) {
        push(admin, "w", some);
    }
    age(admin);
    push(admin, "w", &[put(99_999, "last", 1)]);
    assert_eq!(gc(admin, "w")["tombstonesDeleted"], 1200);
    servers
}

#[test]
fn a_mover_that_is_killed_before_any_call_goes_on() {
    let mut servers = large();
    let state = of_server(&mut servers.a.admin, "w").unwrap();
    let mut calls = 0;
    for allowed in 1.. {
        let mut left = allowed % 3 + 1;
        let ended = servers.there_until(FIRST, |_| {
            calls += 1;
            left -= 1;
            left >= 0
        });
        if ended == Ended::Moved {
            break;
        }
        // Each incarnation calls the first two again; give it a chance.
        if allowed % 3 == 2 {
            servers.there_until(FIRST, |step| step != Step::Hold);
        }
        assert!(allowed < 100, "it does not come to an end");
        if allowed > 6 {
            servers.move_there(FIRST);
            break;
        }
    }
    assert!(calls > 10);
    assert_eq!(of_server(&mut servers.b.admin, "w").unwrap(), state);
    let graves = "select count(*)::text from sync_ext.record where deleted";
    assert_eq!(text(&mut servers.b.admin, graves), "1200");
}

#[test]
fn pages_follow_each_other() {
    let mut servers = large();
    let mover = Mover { workspace_id: "w", move_id: FIRST, to: "b" };
    servers.there_until(FIRST, |step| step != Step::ExportPage);
    let mut page = |position: &Value| {
        mover.with_json(&mut servers.a.admin, "sync_export_page", position).unwrap()
    };
    let first = page(&beginning());
    let second = page(&first["next"]);
    let last =
        page(&json!({ "through": 6000, "hasGraves": true, "graveTable": "notes", "gravePk": "z" }));
    let there = &mut servers.b.admin;
    let import =
        |page: &Value| format!("select sync_import_page('w', '{FIRST}', $page${page}$page$)");
    for skipping in [&second, &last, &json!({})] {
        assert_eq!(error(there, &import(skipping)).0, "55000", "{}", skipping["after"]);
    }
    there.batch_execute(&import(&first)).unwrap();
    there.batch_execute(&import(&first)).unwrap();
    there.batch_execute(&import(&second)).unwrap();
    assert_eq!(error(there, &import(&first)).0, "55000", "an older one");
    assert_eq!(text(there, "select count(*)::text from sync_ext.record"), "1200");
    servers.move_there(FIRST);
    servers.b.admin.batch_execute(&import(&first)).unwrap();
    assert_eq!(
        text(&mut servers.b.admin, "select count(*)::text from sync_ext.change_log"),
        "1301"
    );
}

#[test]
fn nothing_is_missing_when_it_arrives() {
    let mut servers = large();
    let mover = Mover { workspace_id: "w", move_id: FIRST, to: "b" };
    servers.there_until(FIRST, |step| step != Step::ImportPage);
    // A last page that was not made for what is here.
    for page in [
        json!({}),
        json!({ "departed": true, "serverVersion": 0 }),
        json!({ "departed": false, "serverVersion": 0 }),
        json!({ "departed": true, "serverVersion": 6201 }),
    ] {
        let failed = mover.arrive(&mut servers.b.admin, &page).unwrap_err();
        assert_eq!(failed.downcast::<postgres::Error>().unwrap().code().unwrap().code(), "55000");
    }
    // All entries, but no graves.
    servers.b.admin.batch_execute("update sync_ext.move set through = 6201").unwrap();
    let agreed: Value =
        serde_json::from_str(&text(&mut servers.b.admin, "select sync_ext.agreed()::text"))
            .unwrap();
    let mut page = json!({
        "departed": true, "serverVersion": 6201, "horizon": 0, "gcThrough": 0, "createdAt": "now",
        "scopeEpoch": 0, "agreed": agreed, "members": [], "devices": []
    });
    let failed = mover.arrive(&mut servers.b.admin, &page).unwrap_err();
    assert!(format!("{failed:#}").contains("rows are missing"), "{failed:#}");
    // It is that page which would do.
    servers.b.admin.batch_execute("update sync_ext.move set has_graves = true").unwrap();
    page["serverVersion"] = json!(6200);
    assert!(mover.arrive(&mut servers.b.admin, &page).is_err());
    page["serverVersion"] = json!(6201);
    mover.arrive(&mut servers.b.admin, &page).unwrap();
}

#[test]
fn another_move_is_not_mistaken_for_this_one() {
    let mut servers = Servers::new();
    push(&mut servers.a.admin, "w", &[put(1, "a", 1)]);
    servers.there_until(FIRST, |step| step != Step::Hold);
    for (stage, calls) in [
        (
            &mut servers.a,
            &[
                "export_page('w', 'ID')",
                "export_hold('w', 'ID', 1)",
                "export_depart('w', 'ID', 1)",
                "export_cancel('w', 'ID')",
            ][..],
        ),
        (
            &mut servers.b,
            &[
                "import_page('w', 'ID', '{}')",
                "import_arrive('w', 'ID', '{}')",
                "import_cancel('w', 'ID')",
            ][..],
        ),
    ] {
        for call in calls {
            let call = format!("select sync_{}", call.replace("ID", SECOND));
            let another = ("55000".to_owned(), "The workspace has another one here.".to_owned());
            assert_eq!(error(&mut stage.admin, &call), another, "{call}");
        }
    }
    let begin = format!("select sync_export_begin('w', '{SECOND}', 'c')");
    assert_eq!(error(&mut servers.a.admin, &begin).0, "55006");
    let begin = format!("select sync_import_begin('w', '{SECOND}', '{{}}')");
    assert_eq!(error(&mut servers.b.admin, &begin).0, "55006");
}

#[test]
fn a_name_that_is_dropped_on_the_way_does_not_depart() {
    let mut servers = Servers::new();
    push(&mut servers.a.admin, "w", &[put(1, "a", 1)]);
    servers.there_until(FIRST, |step| step != Step::Hold);
    servers.a.admin.batch_execute("select sync_drop_workspace('w')").unwrap();
    let depart = format!("select sync_export_depart('w', '{FIRST}', 1)");
    assert_eq!(error(&mut servers.a.admin, &depart).0, "42704");
    push(&mut servers.a.admin, "w", &[put(2, "other", 1)]);
    assert_eq!(error(&mut servers.a.admin, &depart).0, "42704", "another of its name");
    servers.a.admin.batch_execute(&format!("select sync_export_cancel('w', '{FIRST}')")).unwrap();
    servers.b.admin.batch_execute(&format!("select sync_import_cancel('w', '{FIRST}')")).unwrap();
    servers.move_there(SECOND);
    assert_eq!(
        text(
            &mut servers.b.admin,
            "select string_agg(pk, ',') from sync_ext.record where deleted is false and pk = 'other'"
        ),
        "other"
    );
}

/// A dump of a server, restored in its place.
fn restore(stage: &mut Stage, dumped: sync_ext_harness::dump::Dump) {
    let database = Database::empty();
    dumped.restore_into(&database);
    *stage = Stage::on(database);
}

/// From the rows that the first one keeps until it is told to forget them.
#[test]
fn a_server_that_lost_the_arrival_imports_again() {
    let mut servers = Servers::new();
    push(&mut servers.a.admin, "w", &[put(1, "a", 1), put(2, "b", 1)]);
    let before = dump(&servers.b.database);
    servers.there_until(FIRST, |step| step != Step::Forget);
    restore(&mut servers.b, before);
    assert_eq!(servers.there_until(FIRST, |_| true), Ended::Moved);
    assert_eq!(text(&mut servers.b.admin, "select sync_pull('w') ->> 'serverVersion'"), "2");
}

/// Before it is opened, so that no op is taken by a copy that is dead.
#[test]
fn a_server_that_lost_the_departure_disowns_what_the_map_places_elsewhere() {
    for killed_at in [Step::ExportBegin, Step::Depart] {
        let mut servers = Servers::new();
        push(&mut servers.a.admin, "w", &[put(1, "a", 1), put(2, "b", 1)]);
        servers.there_until(FIRST, |step| step != killed_at);
        let before = dump(&servers.a.database);
        servers.move_there(FIRST);
        restore(&mut servers.a, before);
        servers.a.admin.batch_execute("select sync_disown('{w}', 'b')").unwrap();
        let told = error(&mut servers.a.admin, "select sync_put('w', 'notes', 'c', '{}')");
        assert_eq!(told, elsewhere("It was moved to \"b\"."));
        push(&mut servers.b.admin, "w", &[put(3, "c", 1)]);
        servers.move_back(SECOND);
        assert_eq!(text(&mut servers.a.admin, "select sync_pull('w') ->> 'serverVersion'"), "3");
    }
}

#[test]
fn a_dump_has_what_a_server_owns() {
    let mut servers = Servers::new();
    push(&mut servers.a.admin, "w", &[put(1, "a", 1)]);
    servers.a.admin.batch_execute("select sync_own_buckets(array[323])").unwrap();
    servers.move_there(FIRST);
    let dumped = dump(&servers.a.database);
    restore(&mut servers.a, dumped);
    assert_eq!(
        error(&mut servers.a.admin, "select sync_pull('w')"),
        elsewhere("It was moved to \"b\".")
    );
    let other = "This server does not own its bucket, 181.";
    assert_eq!(error(&mut servers.a.admin, "select sync_pull('x')"), elsewhere(other));
    servers.a.admin.batch_execute("select sync_own_buckets(null)").unwrap();
    push(&mut servers.a.admin, "x", &[put(1, "a", 1)]);
    let range = "select (workspace_key >> 40)::text from sync_ext.workspace";
    assert_eq!(text(&mut servers.a.admin, range), "1", "the keys of its range");
}
