//! What a server owns of several: keys, buckets, names.

use sync_ext_harness::batch::{push, put};
use sync_ext_harness::steps::{Stage, outcome, pid, refused, speak_for};

use super::{CALLS, FIRST, SECOND, Servers, Step, collect, elsewhere, error, text};

const OF_W: &str = "This server does not own its bucket, 323.";

/// Owns all but these.
fn disown_buckets(stage: &mut Stage, buckets: &str) {
    let sql = format!(
        "select sync_own_buckets(array(select generate_series(0, 1023) except select unnest('{buckets}'::int[])))"
    );
    stage.admin.batch_execute(&sql).unwrap();
}

/// By another implementation of SHA-256.
#[test]
fn the_bucket_is_the_first_bits_of_the_hash() {
    let stage = &mut Stage::new();
    for (name, bucket) in [("w", "323"), ("", "910"), ("x", "181")] {
        let sql = format!("select sync_ext.bucket_of('{name}')::text");
        assert_eq!(text(&mut stage.admin, &sql), bucket);
    }
    let sql = "select string_agg(sync_ext.bucket_of('team ' || n)::text, ' ' order by n) from generate_series(1, 200) n";
    let buckets = text(&mut stage.admin, sql);
    stage.admin.batch_execute("select sync_own_buckets('{0}')").unwrap();
    let mut told = Vec::new();
    for n in 1..=200 {
        told.push(match error_of_pull(stage, n) {
            Some(detail) => detail.split_once(", ").unwrap().1.trim_end_matches('.').to_owned(),
            None => "0".to_owned(),
        });
    }
    assert_eq!(told.join(" "), buckets, "the library and SQL");
}

fn error_of_pull(stage: &mut Stage, n: i32) -> Option<String> {
    let pulled = stage.admin.batch_execute(&format!("select sync_pull('team {n}')"));
    pulled.err().map(|error| error.as_db_error().unwrap().detail().unwrap().to_owned())
}

#[test]
fn a_workspace_of_a_foreign_bucket_is_not_created() {
    let stage = &mut Servers::new().a;
    push(&mut stage.admin, "x", &[put(1, "a", 1)]);
    disown_buckets(stage, "{323,181}");
    for call in CALLS {
        assert_eq!(error(&mut stage.admin, &format!("select {call}")), elsewhere(OF_W), "{call}");
    }
    // One that is here is served, whatever its bucket is, and others are created.
    push(&mut stage.admin, "x", &[put(2, "b", 1)]);
    push(&mut stage.admin, "y", &[put(3, "b", 1)]);
    // Also for those who are no members of anything.
    speak_for(&mut stage.admin, "ann");
    assert_eq!(error(&mut stage.admin, "select sync_pull('w')"), elsewhere(OF_W));
    assert_eq!(outcome(&mut stage.admin, "select sync_pull('y')"), refused());
    speak_for(&mut stage.admin, "");
    stage.admin.batch_execute("select sync_own_buckets(null)").unwrap();
    push(&mut stage.admin, "w", &[put(1, "a", 1)]);
}

/// Else the new owner of the bucket and this one would both create it.
#[test]
fn buckets_are_disowned_when_those_who_create_are_done() {
    let mut stage = Stage::new();
    let mut creator = stage.holding("", "select sync_put('w', 'notes', 'a', '{}')");
    let disowning = stage.blocked(pid(&mut creator), |session| {
        session.batch_execute("select sync_own_buckets('{0}')").unwrap();
    });
    // Who comes now waits for that, and then may not.
    let waiting = "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let disowner = stage.admin.query_one(waiting, &[]).unwrap().get(0);
    let late = stage
        .blocked(disowner, |session| outcome(session, "select sync_put('x', 'notes', 'a', '{}')"));
    creator.batch_execute("commit").unwrap();
    disowning.join().unwrap();
    assert_eq!(late.join().unwrap(), Err("SX004".to_owned()));
    assert_eq!(
        text(&mut stage.admin, "select string_agg(workspace_id, ',') from sync_ext.workspace"),
        "w"
    );
}

/// Its snapshot is from before.
#[test]
fn a_repeatable_read_creates_nothing_that_is_disowned() {
    let mut stage = Stage::new();
    let mut early = stage.holding("", "set transaction isolation level repeatable read; select 1");
    stage.admin.batch_execute("select sync_own_buckets('{0}')").unwrap();
    assert_eq!(error(&mut early, "select sync_put('w', 'notes', 'a', '{}')").0, "SX004");
}

#[test]
fn what_a_map_places_elsewhere_is_disowned_and_erased() {
    let mut stage = Stage::new();
    let admin = &mut stage.admin;
    for name in ["w", "x", "y", "z"] {
        admin.batch_execute(&format!("select sync_create_workspace('{name}', 'ann')")).unwrap();
        push(admin, name, &[put(1, "a", 1), put(2, "b", 1)]);
    }
    assert_eq!(
        text(admin, "select sync_disown()::text"),
        r#"{"disowned" : 0, "hasMore" : false}"#,
        "all is ours"
    );
    disown_buckets(&mut stage, "{323,181}");
    let admin = &mut stage.admin;
    assert_eq!(
        text(admin, "select sync_disown(batch_size => 1)::text"),
        r#"{"disowned" : 1, "hasMore" : true}"#
    );
    assert_eq!(
        text(admin, "select sync_disown(batch_size => 2)::text"),
        r#"{"disowned" : 1, "hasMore" : false}"#
    );
    assert_eq!(error(admin, "select sync_pull('w')"), elsewhere(OF_W));
    // A name whose bucket is ours.
    assert_eq!(
        text(admin, "select sync_disown('{y,unknown}', 'b')::text"),
        r#"{"disowned" : 1, "hasMore" : false}"#
    );
    for name in ["y", "unknown"] {
        assert_eq!(
            error(admin, &format!("select sync_pull('{name}')")),
            elsewhere("It was moved to \"b\".")
        );
    }
    collect(admin);
    for table in ["workspace", "member"] {
        let sql = format!("select string_agg(workspace_id, ',') from sync_ext.{table}");
        assert_eq!(text(admin, &sql), "z", "{table}");
    }
    assert_eq!(text(admin, "select count(*)::text from sync_ext.change_log"), "2");
}

/// It may be at two servers' hands otherwise.
#[test]
fn what_was_moved_here_is_not_disowned_by_its_bucket() {
    let mut servers = Servers::new();
    push(&mut servers.a.admin, "w", &[put(1, "a", 1)]);
    disown_buckets(&mut servers.b, "{323}");
    servers.move_there(FIRST);
    let there = &mut servers.b.admin;
    assert_eq!(text(there, "select sync_disown()::text"), r#"{"disowned" : 0, "hasMore" : false}"#);
    // It stays a name of this server when it is dropped.
    there.batch_execute("select sync_drop_workspace('w')").unwrap();
    assert_eq!(push(there, "w", &[put(1, "a", 1)]), [1]);
    assert_eq!(
        error(&mut servers.a.admin, "select sync_pull('w')"),
        elsewhere("It was moved to \"b\".")
    );
    // Also after a move away that was given up.
    servers.b.admin.batch_execute(&format!("select sync_export_begin('w', '{SECOND}', 'a'), sync_export_cancel('w', '{SECOND}'), sync_drop_workspace('w')")).unwrap();
    assert_eq!(push(&mut servers.b.admin, "w", &[put(1, "a", 1)]), [1]);
}

#[test]
fn what_leaves_is_served_nowhere_until_it_arrives() {
    let mut servers = Servers::new();
    for name in ["w", "x", "y", "z"] {
        push(&mut servers.a.admin, name, &[put(1, "a", 1)]);
    }
    servers.there_until(FIRST, |step| step != Step::ImportBegin);
    disown_buckets(&mut servers.a, "{323,181}");
    let admin = &mut servers.a.admin;
    let depart = |after: &str| {
        format!(
            "sync_split_depart('{SECOND}', '{{323,181}}', '{{y,unknown}}', 'b', '{after}', batch_size => 1)::text"
        )
    };
    let moving = ("55006".to_owned(), String::new());
    assert_eq!(error(admin, &format!("select {}", depart(""))), moving);
    admin.batch_execute(&format!("select sync_export_cancel('w', '{FIRST}')")).unwrap();
    // By a move that was given up it is an exception here, and stays.
    assert_eq!(
        text(admin, &format!("select {}", depart(""))),
        r#"{"departed" : 1, "after" : "x", "hasMore" : true}"#
    );
    push(admin, "w", &[put(2, "b", 1)]);
    admin.batch_execute("delete from sync_ext.move where workspace_id = 'w'").unwrap();
    for (after, reply) in [
        ("", r#"{"departed" : 1, "after" : "w", "hasMore" : true}"#),
        ("w", r#"{"departed" : 1, "after" : "y", "hasMore" : true}"#),
        ("y", r#"{"departed" : 0, "after" : null, "hasMore" : false}"#),
    ] {
        assert_eq!(text(admin, &format!("select {}", depart(after))), reply);
    }
    for call in CALLS {
        let told = error(admin, &format!("select {call}"));
        assert_eq!(told, elsewhere("It was moved to \"b\"."), "{call}");
    }
    assert!(text(admin, "select sync_gc()::text").contains("\"workspaces\":0"));
    push(admin, "z", &[put(2, "b", 1)]);
    let arrive = |n| format!("select sync_split_arrive('{SECOND}', {n})::text");
    assert_eq!(text(admin, &arrive(1)), r#"{"arrived" : 1, "hasMore" : true}"#);
    assert_eq!(text(admin, &arrive(9)), r#"{"arrived" : 2, "hasMore" : false}"#);
    assert_eq!(text(admin, &arrive(9)), r#"{"arrived" : 0, "hasMore" : false}"#);
    for name in ["w", "x", "y"] {
        push(admin, name, &[put(3, "c", 1)]);
    }
    // What has not its bucket is an exception.
    let roles = "select string_agg(workspace_id || ' ' || role, ', ' order by workspace_id) from sync_ext.move";
    assert_eq!(text(admin, roles), "w arrived, x arrived");
}

/// It is marked before the standby can become a server, or is on neither.
#[test]
fn a_push_that_is_under_way_goes_before_what_leaves() {
    let mut stage = Stage::new();
    push(&mut stage.admin, "w", &[put(1, "a", 1)]);
    disown_buckets(&mut stage, "{323}");
    let mut pusher = stage.holding("", "select sync_put('w', 'notes', 'late', '{}')");
    let leaving = stage.blocked(pid(&mut pusher), |session| {
        session.batch_execute(&format!("select sync_split_depart('{FIRST}', '{{323}}')")).unwrap();
    });
    pusher.batch_execute("commit").unwrap();
    leaving.join().unwrap();
    let told = error(&mut stage.admin, "select sync_put('w', 'notes', 'later', '{}')");
    assert_eq!(told, elsewhere("It was moved."));
    let head = "select head::text from sync_ext.workspace";
    assert_eq!(text(&mut stage.admin, head), "2");
}

#[test]
fn keys_are_taken_from_the_servers_own_range() {
    let mut stage = Stage::new();
    let admin = &mut stage.admin;
    let range = "select string_agg((workspace_key >> 40) || ':' || (workspace_key & 1023), ' ' order by workspace_key) from sync_ext.workspace";
    push(admin, "a", &[put(1, "a", 1)]);
    admin.batch_execute("select sync_set_key_range(3)").unwrap();
    push(admin, "b", &[put(1, "a", 1)]);
    // Rows of another server, and one of the own range beyond the sequence.
    admin
        .batch_execute(
            "insert into sync_ext.device_cursor values ((7::bigint << 40) + 5, 'd', 0, now(), ''), ((3::bigint << 40) + 9, 'd', 0, now(), '')",
        )
        .unwrap();
    push(admin, "c", &[put(1, "a", 1)]);
    admin.batch_execute("select sync_set_key_range(0)").unwrap();
    push(admin, "d", &[put(1, "a", 1)]);
    assert_eq!(text(admin, range), "0:1 0:2 3:1 3:10");
    for bad in ["-1", "8388608", "null"] {
        assert_eq!(error(admin, &format!("select sync_set_key_range({bad})")).0, "22023");
    }
}

#[test]
fn only_trusted_callers_govern_servers() {
    let mut servers = Servers::new();
    push(&mut servers.a.admin, "w", &[put(1, "a", 1)]);
    servers.there_until(FIRST, |step| step != Step::Depart);
    let stage = &mut servers.a;
    speak_for(&mut stage.admin, "ann");
    for call in [
        "sync_own_buckets('{}')",
        "sync_set_key_range(1)",
        "sync_disown()",
        "sync_disown('{w}')",
        "sync_export_begin('w', 'ID', 'b')",
        "sync_export_page('w', 'ID')",
        "sync_export_hold('w', 'ID', 1)",
        "sync_export_depart('w', 'ID', 1)",
        "sync_export_cancel('w', 'ID')",
        "sync_export_forget('w', 'ID')",
        "sync_import_begin('w', 'ID', '{}')",
        "sync_import_page('w', 'ID', '{}')",
        "sync_import_arrive('w', 'ID', '{}')",
        "sync_import_cancel('w', 'ID')",
        "sync_split_depart('ID', '{}')",
        "sync_split_arrive('ID')",
    ] {
        let (code, _) = error(&mut stage.admin, &format!("select {}", call.replace("ID", FIRST)));
        assert_eq!(code, "42501", "{call}");
    }
}

#[test]
fn bad_arguments_are_named() {
    let admin = &mut Stage::new().admin;
    push(admin, "w", &[put(1, "a", 1)]);
    for (call, code) in [
        ("sync_own_buckets('{1024}')", "22023"),
        ("sync_own_buckets('{-1}')", "22023"),
        ("sync_own_buckets('{null}')", "22023"),
        ("sync_disown(batch_size => 0)", "22023"),
        ("sync_disown(batch_size => null)", "22023"),
        ("sync_export_begin('w', null, 'b')", "22023"),
        ("sync_export_begin('unknown', 'ID', 'b')", "42704"),
        ("sync_export_begin(null, 'ID', 'b')", "42704"),
        ("sync_export_page('w', 'ID')", "55000"),
        ("sync_export_depart('w', 'ID', 1)", "55000"),
        ("sync_export_hold('w', 'ID', 1)", "55000"),
        ("sync_export_cancel('w', 'ID')", "55000"),
        ("sync_export_forget('w', 'ID')", "55000"),
        ("sync_import_begin(null, 'ID', '{}')", "22023"),
        ("sync_import_begin(repeat('w', 257), 'ID', '{}')", "22023"),
        ("sync_import_begin('new', null, '{}')", "22023"),
        ("sync_import_begin('new', 'ID', '{}')", "55000"),
        ("sync_import_begin('new', 'ID', null)", "55000"),
        ("sync_import_begin('w', 'ID', '{}')", "42710"),
        ("sync_import_page('new', 'ID', '{}')", "55000"),
        ("sync_import_arrive('new', 'ID', '{}')", "55000"),
        ("sync_import_cancel('new', 'ID')", "55000"),
        ("sync_split_depart(null, '{}')", "22023"),
        ("sync_split_depart('ID', '{}', batch_size => 0)", "22023"),
        ("sync_split_depart('ID', '{1}')", "55000"),
        ("sync_split_arrive('ID', 0)", "22023"),
        ("sync_split_arrive('ID', null)", "22023"),
    ] {
        let (told, _) = error(admin, &format!("select {}", call.replace("ID", FIRST)));
        assert_eq!(told, code, "{call}");
    }
    admin.batch_execute(&format!("select sync_export_begin('w', '{FIRST}', 'b')")).unwrap();
    for seconds in ["null", "-1", "61", "'NaN'"] {
        let call = format!("select sync_export_hold('w', '{FIRST}', {seconds})");
        assert_eq!(error(admin, &call).0, "22023", "{seconds}");
    }
}
