//! The views in the hands of a role that may run queries of its own on them.

use std::sync::mpsc::{Receiver, channel};

use postgres::{Client, GenericClient, NoTls};
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::database::Database;
use sync_ext_harness::device::call;

use super::{bind, diary, furnished, refused, speak_for, speaking_for, web};

fn world() -> Database {
    let app = furnished();
    let mut admin = app.session();
    // A private tombstone, too.
    let gone = diary(6, "ann-gone", "ann").replace("\"put\"", "\"delete\"");
    let lost = |op: String| op.replace("\"clock\":1", "\"clock\":0");
    push(&mut admin, "team", &[gone, lost(put(7, "plan", 1)), lost(diary(8, "ann-1", "ann"))]);
    let grant = format!("grant create, temporary on database {} to web; analyze", app.name);
    for sql in
        ["select sync_update_cursor(w, 'phone', 1) from unnest('{team,den}'::text[]) w", &grant]
    {
        admin.batch_execute(sql).unwrap();
    }
    web(&app).batch_execute(LEAKS).unwrap();
    app
}

const RECORDS: &str = "select pk from sync_ext.current_record order by pk";
const TOMBSTONES: &str = "select pk from sync_ext.tombstone order by pk";

fn column(session: &mut impl GenericClient, sql: &str) -> Vec<String> {
    session.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn who_reads_sees_what_they_may_pull() {
    let app = &world();
    for (user, records, tombstones) in [
        ("ann", vec!["ann-1", "ann-gone", "done", "plan"], vec!["ann-gone", "done"]),
        ("bob", vec!["bob-1", "done", "plan"], vec!["done"]),
        ("vic", vec!["done", "plan"], vec!["done"]),
        ("eve", vec!["plot"], vec![]),
        ("nobody", vec![], vec![]),
        ("", vec!["ann-1", "ann-gone", "bob-1", "done", "plan", "plot"], vec!["ann-gone", "done"]),
    ] {
        let mut session = speaking_for(app, user);
        assert_eq!(column(&mut session, RECORDS), records, "{user}");
        assert_eq!(column(&mut session, TOMBSTONES), tombstones, "{user}");
        speak_for(&mut session, "");
        let claims = format!("{{\"sub\":\"{user}\"}}");
        let claims = if user.is_empty() { "" } else { claims.as_str() };
        session.execute("select set_config('request.jwt.claims', $1, false)", &[&claims]).unwrap();
        assert_eq!(column(&mut session, RECORDS), records, "{user} by claims");
    }
}

/// A session for a user, and the notices that come to it.
fn overhearing(app: &Database, user: &str) -> (Client, Receiver<String>) {
    let (sender, notices) = channel();
    let mut config = app.config();
    config.user("web").notice_callback(move |notice| {
        let _ = sender.send(notice.message().to_owned());
    });
    let mut session = config.connect(NoTls).unwrap();
    speak_for(&mut session, user);
    (session, notices)
}

/// Functions that tell what they are given, and cost so little that the planner
/// wants them called before everything else.
const LEAKS: &str = "
    create schema leaks;
    create function leaks.leak(text) returns boolean language plpgsql cost 0.0000001 as
      $$ begin raise notice '%', $1; return true; end $$;
    create function leaks.equals(text, text) returns boolean language plpgsql cost 0.0000001 as
      $$ begin raise notice '% %', $1, $2; return true; end $$;
    create operator leaks.=== (leftarg = text, rightarg = text, function = leaks.equals,
      restrict = eqsel, join = eqjoinsel);";

#[test]
fn functions_of_a_query_see_no_hidden_row() {
    let app = &world();
    for (user, own) in [("vic", vec!["plan"]), ("bob", vec!["plan", "bob-1"])] {
        let (mut session, notices) = overhearing(app, user);
        for sql in [
            "select pk from sync_ext.current_record where leaks.leak(pk)",
            "select pk from sync_ext.current_record where leaks.leak(workspace_id || pk)",
            "select pk from sync_ext.current_record where leaks.leak(pk || coalesce(payload::text, ''))",
            "select pk from sync_ext.current_record where leaks.leak(pk || revision::text)",
            "explain analyze select pk from sync_ext.current_record where leaks.leak(pk)",
            "select a.pk from sync_ext.current_record a
               join sync_ext.current_record b on leaks.equals(a.pk, b.pk)",
            "select pk from sync_ext.tombstone where leaks.leak(pk)",
            "select pk from sync_ext.tombstone where pk operator(leaks.===) 'done'",
            "select pk from sync_ext.current_record where pk operator(leaks.===) 'plan'",
        ] {
            session.batch_execute(sql).unwrap();
            let heard: Vec<String> = notices.try_iter().collect();
            assert!(!heard.is_empty(), "the function was called: {sql}");
            for notice in &heard {
                let is_own = own.iter().chain(&["done"]).any(|pk| notice.contains(pk));
                let is_hidden = notice.contains("ann") || notice.contains("plot");
                assert!(is_own && !is_hidden, "{user} heard {notice}: {sql}");
            }
        }
    }
}

#[test]
fn owners_see_what_is_theirs_and_members_see_lost_ops() {
    let app = &world();
    for (user, workspaces, lost) in [
        ("ann", vec!["team"], vec!["ann-1", "plan"]),
        ("bob", vec![], vec!["plan"]),
        ("vic", vec![], vec!["plan"]),
        ("eve", vec!["den"], vec![]),
        ("nobody", vec![], vec![]),
        ("", vec!["den", "team"], vec!["ann-1", "plan"]),
    ] {
        let (mut session, notices) = overhearing(app, user);
        for (view, column_of, expected) in [
            ("workspace_status", "workspace_id", &workspaces),
            ("device_status", "workspace_id", &workspaces),
            ("conflict", "pk", &lost),
        ] {
            let sql = format!(
                "select {column_of} from sync_ext.{view} where leaks.leak({column_of}) order by 1"
            );
            assert_eq!(&column(&mut session, &sql), expected, "{user}: {view}");
            let mut heard: Vec<String> = notices.try_iter().collect();
            heard.sort();
            assert_eq!(&heard, expected, "{user}: {view}");
        }
    }
}

/// To estimate, the planner may call an operator on values that it sampled.
#[test]
fn operators_of_a_query_see_no_statistics_of_hidden_rows() {
    let app = &world();
    let (mut session, notices) = overhearing(app, "vic");
    for column in ["pk", "workspace_id", "table_name"] {
        let view = "sync_ext.current_record";
        for sql in [
            format!("explain select pk from {view} where {column} operator(leaks.===) 'plan'"),
            format!(
                "explain select pk from {view} join {view} other using (pk)
                      where {view}.{column} operator(leaks.===) other.{column}"
            )
            .replace(&format!("{view}."), "current_record."),
        ] {
            session.batch_execute(&sql).unwrap();
            let heard: Vec<String> = notices.try_iter().collect();
            assert!(heard.is_empty(), "{heard:?}: {sql}");
        }
    }
    assert!(
        column(&mut session, "select tablename::text from pg_stats where schemaname = 'sync_ext'")
            .is_empty()
    );
}

#[test]
fn counts_and_conditions_are_about_visible_rows() {
    let app = &world();
    let mut session = speaking_for(app, "vic");
    for (sql, expected) in [
        ("select count(*)::text from sync_ext.current_record", "2"),
        ("select max(pk) from sync_ext.current_record", "plan"),
        ("select count(*)::text from sync_ext.current_record where workspace_id = 'den'", "0"),
        ("select count(*)::text from sync_ext.current_record where pk like 'ann%'", "0"),
        (
            "select exists (select from sync_ext.current_record where table_name = 'diary')::text",
            "false",
        ),
        ("select count(distinct server_version)::text from sync_ext.current_record", "2"),
        // It would fail on a row that is hidden.
        ("select sum(1 / (pk <> 'ann-1')::int)::text from sync_ext.current_record", "2"),
        (
            "select count(*)::text from sync_ext.current_record where 1 / (pk <> 'ann-1')::int = 1",
            "2",
        ),
    ] {
        assert_eq!(call(&mut session, sql, &[]).unwrap(), expected, "{sql}");
    }
    for sql in [
        "insert into sync_ext.current_record (pk) values ('x')",
        "update sync_ext.tombstone set pk = 'x'",
        "delete from sync_ext.tombstone",
        "select ctid from sync_ext.current_record",
        "create rule r as on select to sync_ext.tombstone do instead select 1",
        "alter view sync_ext.current_record reset (security_barrier)",
    ] {
        refused(&mut session, sql);
    }
}

#[test]
fn the_tables_below_stay_closed() {
    let app = &world();
    let mut session = speaking_for(app, "ann");
    for table in sync_ext_harness::state::TABLES {
        let told = refused(&mut session, &format!("select from sync_ext.{table}"));
        assert_eq!(told, ("42501".to_owned(), format!("permission denied for table {table}")));
    }
    assert_eq!(
        refused(&mut session, "select nextval('sync_ext.workspace_workspace_key_seq')").0,
        "42501"
    );
}

#[test]
fn a_bound_role_without_a_user_reads_nothing() {
    let app = &world();
    let admin = &mut app.session();
    bind(app);
    let mut session = web(app);
    for sql in [RECORDS, TOMBSTONES] {
        let told = refused(&mut session, sql);
        assert_eq!(told, ("42501".to_owned(), "no user is set".to_owned()));
    }
    speak_for(&mut session, "vic");
    assert_eq!(column(&mut session, RECORDS), ["done", "plan"]);
    // Who owns a view of theirs on ours lends its readers no more than that.
    admin
        .batch_execute(
            "create view public.everything as select pk from sync_ext.current_record;
             grant select on public.everything to web",
        )
        .unwrap();
    let everything = "select pk from public.everything order by pk";
    assert_eq!(column(&mut session, everything), ["done", "plan"]);
    speak_for(&mut session, "");
    assert_eq!(refused(&mut session, everything).1, "no user is set");
}
