//! `sync_ext.require_user` binds the role that logs in, whatever it does before
//! or after the library is loaded, which the first call of a session does.

use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::{Client, NoTls};
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::database::Database;

use super::{GRANTS, alone, bind, furnished, json, refused, speak_for, web};

fn world() -> Database {
    let app = furnished();
    bind(&app);
    app
}

const CALL: &str = "select sync_list_workspaces()";
const OFF: [&str; 6] = [
    "set sync_ext.require_user = off",
    "set local sync_ext.require_user = off",
    "set session sync_ext.require_user to default",
    "set \"SYNC_EXT.Require_User\" = off",
    "select set_config('sync_ext.require_user', 'off', false)",
    "select set_config('sync_ext.require_user', 'off', true)",
];

fn is_bound(session: &mut Client, context: &str) {
    let told = refused(session, CALL);
    assert_eq!(told, ("42501".to_owned(), "no user is set".to_owned()), "{context}");
}

#[test]
fn a_bound_role_calls_for_a_user_or_not_at_all() {
    let app = &world();
    let mut session = web(app);
    is_bound(&mut session, "without a user");
    for (sql, expected) in [
        ("select sync_push('team', '[]')", "42501"),
        ("select sync_pull('team')", "42501"),
        ("select sync_snapshot('team')", "42501"),
        ("select sync_update_cursor('team', 'd', 0)", "42501"),
        ("select sync_gc()", "42501"),
        ("select sync_gc('team')", "42501"),
        ("select sync_register_table('t')", "42501"),
        ("select sync_unregister_table('notes')", "42501"),
        ("select sync_unregister_table(null)", "42501"),
        ("select sync_attach_table(null)", "42501"),
        ("select sync_detach_table(null)", "42501"),
        ("select sync_create_workspace('new', 'ann')", "42501"),
        ("select sync_drop_workspace('team')", "42501"),
        ("select sync_set_member('team', 'web', 'owner')", "42501"),
        ("select sync_remove_member('team', 'bob')", "42501"),
        ("select * from sync_ext.current_record", "42501"),
        ("select * from sync_ext.tombstone", "42501"),
        ("select sync_ext.calling_user()", "42501"),
        ("select sync_ext.may_read('team')", "42501"),
    ] {
        assert_eq!(refused(&mut session, sql).0, expected, "{sql}");
    }
    // Claims without a sub, as of somebody who has not logged in, are no user.
    session.batch_execute("set request.jwt.claims = '{\"role\":\"anon\"}'").unwrap();
    is_bound(&mut session, "claims without a sub");
    session.batch_execute("set request.jwt.claims = '{\"sub\":\"vic\"}'").unwrap();
    assert_eq!(
        json(&mut session, "select sync_list_workspaces()::text")["workspaces"][0]["role"],
        "viewer"
    );
    session.batch_execute("set request.jwt.claims = ''").unwrap();
    speak_for(&mut session, "bob");
    assert_eq!(
        json(&mut session, "select sync_list_workspaces()::text")["workspaces"][0]["role"],
        "editor"
    );
}

#[test]
fn nothing_that_a_session_says_takes_it_off() {
    let app = &world();
    for sql in OFF {
        let mut session = web(app);
        is_bound(&mut session, "before");
        session.batch_execute("begin").unwrap();
        let told = refused(&mut session, sql);
        assert_eq!(told.0, "42501", "{sql}: {told:?}");
        session.batch_execute("rollback").unwrap();
        is_bound(&mut session, sql);
    }
    let mut session = web(app);
    is_bound(&mut session, "before");
    for sql in ["reset all", "discard all"] {
        session.batch_execute(sql).unwrap();
    }
    is_bound(&mut session, "reset");
    assert_eq!(refused(&mut session, "reset sync_ext.require_user").0, "42501");
    is_bound(&mut session, "reset");
}

/// A name that no library has defined yet may be set by anybody.
#[test]
fn nothing_said_before_the_library_is_loaded_takes_it_off() {
    let app = &world();
    for sql in OFF.iter().chain(&["reset sync_ext.require_user", "reset all"]) {
        let mut session = web(app);
        session.batch_execute(&format!("begin; {sql}; savepoint a; {sql}; savepoint b")).unwrap();
        is_bound(&mut session, sql);
        for step in ["rollback to b", "rollback to a", "rollback to a; commit", "reset all"] {
            session.batch_execute(step).unwrap();
            is_bound(&mut session, &format!("{sql}; {step}"));
        }
    }
    for sql in OFF.iter().chain(&["discard all"]) {
        let mut session = web(app);
        session.batch_execute(sql).unwrap();
        is_bound(&mut session, sql);
    }

    // Nor does a function that takes it off around the call come to be.
    let sql = "create function pg_temp.off() returns json language plpgsql
        set sync_ext.require_user = off as $$ begin return public.sync_list_workspaces(); end $$";
    let mut session = web(app);
    assert_eq!(refused(&mut session, sql).0, "42501");
    is_bound(&mut session, "loads the library");
    assert_eq!(refused(&mut session, sql).0, "42501");
}

/// What comes with the connection hides what is set for the role, and is found
/// to be not allowed only when the library is loaded.
#[test]
fn nothing_that_comes_with_the_connection_takes_it_off() {
    let app = &world();
    for options in [
        "-c sync_ext.require_user=off",
        "-c sync_ext.require_user=on",
        "-csync_ext.require_user=off",
        "--sync_ext.require-user=off",
        "-c SYNC_EXT.Require_user=off",
        "-c sync_ext.require\\_user=o\\ff",
        "-c sync_ext.require_user=nonsense",
        "-c sync_ext.require_user=''",
        "-c sync_ext.require_user=on -c sync_ext.require_user=off",
        "-c sync_ext.membership_function=pg_catalog.concat",
        "-c sync_ext.max_page_limit=1000000",
    ] {
        let mut config = app.config();
        let mut session = config.user("web").options(options).connect(NoTls).unwrap();
        for context in ["at first", "again"] {
            let told = refused(&mut session, CALL);
            let expected = ("42501".to_owned(), "a setting was refused".to_owned());
            assert_eq!(told, expected, "{options}, {context}");
        }
        // Nor does it become another user's session then.
        speak_for(&mut session, "ann");
        assert_eq!(refused(&mut session, "select sync_pull('team')").0, "42501", "{options}");
        session.batch_execute("reset all").unwrap();
        assert_eq!(refused(&mut session, CALL).0, "42501", "{options}");
    }
    // The user may come so; and a superuser may say what they like.
    let mut config = app.config();
    let mut session = config.user("web").options("-c sync_ext.user_id=bob").connect(NoTls).unwrap();
    assert_eq!(
        json(&mut session, "select sync_list_workspaces()::text")["workspaces"][0]["role"],
        "editor"
    );
    let mut config = app.config();
    let mut session = config.options("-c sync_ext.require_user=on").connect(NoTls).unwrap();
    is_bound(&mut session, "a superuser binds its own session");
}

#[test]
fn the_role_cannot_be_altered_by_itself() {
    let app = &alone("altered");
    app.session().batch_execute("alter role web set sync_ext.require_user = on").unwrap();
    for is_loaded in [false, true] {
        let mut session = web(app);
        if is_loaded {
            is_bound(&mut session, "loads the library");
        }
        for sql in [
            "alter role web set sync_ext.require_user = off",
            &format!("alter role web in database {} set sync_ext.require_user = off", app.name),
            "alter role web reset sync_ext.require_user",
            "alter role web set sync_ext.membership_function = 'pg_catalog.concat'",
            &format!("alter database {} set sync_ext.require_user = off", app.name),
            "alter system set sync_ext.require_user = off",
        ] {
            assert_eq!(refused(&mut session, sql).0, "42501", "{sql}");
        }
        // Without a name it resets what the role may reset, which this is not.
        session.batch_execute("alter role web reset all").unwrap();
    }
    is_bound(&mut web(app), "in the next session");
}

/// It goes by who logged in: a role that a session takes on brings no settings
/// along, nor takes any off.
#[test]
fn it_stays_on_under_another_role() {
    let app = &world();
    let admin = &mut app.session();
    admin
        .batch_execute(
            "create role other; grant other to web;
             grant execute on function sync_list_workspaces to other",
        )
        .unwrap();
    let mut session = web(app);
    session.batch_execute("set role other").unwrap();
    is_bound(&mut session, "as another role");
    session.batch_execute("set role none; set session authorization default").unwrap();
    is_bound(&mut session, "as itself again");

    // So a role that nobody logs in as is not bound by what is set for it.
    admin.batch_execute("alter role other set sync_ext.require_user = on; set role other").unwrap();
    assert_eq!(
        json(admin, "select sync_list_workspaces()::text")["workspaces"][0]["role"],
        serde_json::Value::Null
    );
    admin.batch_execute("reset role; drop owned by other; drop role other").unwrap();
}

/// Before the library is loaded, nobody looks at what is set for a role.
#[test]
fn a_value_that_is_none_is_not_taken_for_off() {
    let app = &world();
    let admin = &mut app.session();
    let mut unaware = app.cluster.connect("postgres").unwrap();
    let set = |value| {
        format!("alter role web in database {} set sync_ext.require_user = {value}", app.name)
    };
    unaware.batch_execute(&set("'yess'")).unwrap();
    assert_eq!(refused(&mut web(app), CALL).1, "a setting was refused");
    admin.batch_execute(&set("on")).unwrap();
    is_bound(&mut web(app), "set right");
}

#[test]
fn it_can_be_set_for_a_database_and_for_all() {
    let app = &alone("required-user");
    let admin = &mut app.session();
    assert!(web(app).batch_execute(CALL).is_ok(), "bound by nothing");
    admin.batch_execute("alter database app set sync_ext.require_user = on").unwrap();
    is_bound(&mut web(app), "the database");
    is_bound(&mut app.session(), "superusers too");
    admin.batch_execute("alter role postgres set sync_ext.require_user = off").unwrap();
    assert!(app.session().batch_execute(CALL).is_ok(), "but for this role");
    admin.batch_execute("alter database app reset sync_ext.require_user").unwrap();
    admin.batch_execute("alter system set sync_ext.require_user = on").unwrap();
    admin.batch_execute("select pg_reload_conf()").unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut session = web(app);
    while session.query_one("show sync_ext.require_user", &[]).is_err() {
        // Not read yet: the name is not known.
        assert!(Instant::now() < deadline, "the configuration is not read");
        session = web(app);
    }
    is_bound(&mut session, "the configuration file");
}

#[test]
fn where_the_server_loads_the_library_a_connection_that_takes_it_off_fails() {
    let settings = ["shared_preload_libraries=sync_ext", "sync_ext.require_user=on", "fsync=off"];
    let cluster = Cluster::start("preloaded", &settings).unwrap();
    let app = &Database::within(cluster, "bound");
    let mut admin = app.session();
    admin.batch_execute("create role web login; set sync_ext.require_user = off").unwrap();
    admin.batch_execute(CALL).unwrap();
    admin.batch_execute(GRANTS).unwrap();
    let mut config = app.config();
    let session = config.user("web").options("-c sync_ext.require_user=off").connect(NoTls);
    assert_eq!(session.err().unwrap().code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    is_bound(&mut web(app), "the configuration file");
}
