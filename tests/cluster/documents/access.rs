//! Who may do what: every function called by everybody who may come, each time
//! on the same state, and what comes of it as a table. It is that of docs/access.md; with
//! SYNC_EXT_ACCEPT set it is written there instead: read the diff.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use postgres::error::{DbError, SqlState};
use postgres::{Client, GenericClient, SimpleQueryMessage};
use serde_json::Value;
use sync_ext_harness::batch::{delete, push, put};
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::database::Database;
use sync_ext_harness::state::tables;
use sync_ext_harness::steps::{acknowledge, age_all};

/// Who calls, as the session tells it.
#[derive(Clone, Copy)]
enum Caller {
    Trusted,
    /// Bound to tell a user, and tells none.
    Nobody,
    User(&'static str),
}

/// What heads a column of the table, who calls, and for which workspace.
struct Column(&'static str, Caller, &'static str);

const KNOWN: &str = "team";
const UNKNOWN: &str = "nowhere";

const COLUMNS: [Column; 9] = [
    Column("trusted", Caller::Trusted, KNOWN),
    Column("no user", Caller::Nobody, KNOWN),
    Column("owner", Caller::User("ann"), KNOWN),
    Column("editor", Caller::User("bob"), KNOWN),
    Column("viewer", Caller::User("vic"), KNOWN),
    Column("no member", Caller::User("eve"), KNOWN),
    Column("removed", Caller::User("ex"), KNOWN),
    Column("unknown: trusted", Caller::Trusted, UNKNOWN),
    Column("unknown: a user", Caller::User("ann"), UNKNOWN),
];
/// Who must not be told whether a workspace exists.
const STRANGERS: [usize; 3] = [5, 6, 8];

const MEMBERS: [(&str, &str, &str); 4] = [
    ("ann", KNOWN, "owner"),
    ("bob", KNOWN, "editor"),
    ("vic", KNOWN, "viewer"),
    ("eve", "other", "owner"),
];

/// What shows that a call has done something.
#[derive(Clone, Copy)]
enum Shown {
    /// It stored something.
    Stored,
    /// It answers with items under this key.
    Items(&'static str),
    /// It answers with workspaces: those of a member, or those of an owner.
    Workspaces,
    Owned,
}

/// A row: its name, the SQL with `{w}` for the workspace, `{me}` for the user and
/// `{other}` for another, and the workspace if it is not the column's.
struct Call(&'static str, String, Shown, Option<&'static str>);

const ATTACH: &str = "`sync_attach_table`, by the table's owner";
const DETACH: &str = "`sync_detach_table`, by the table's owner";
const BACKFILL: &str = "`sync_backfill_table`, by the table's owner";
const REPAIR: &str = "`sync_repair_table`, by the table's owner";
const SET_SCOPE: &str = "`sync_set_scope_field`";
const CREATE: &str = "`sync_create_workspace`, for oneself";
const CREATE_FOR_ANOTHER: &str = "`sync_create_workspace`, for another";
const CREATE_TAKEN: &str = "`sync_create_workspace`, a name that is taken";
const LIST_MEMBERS: &str = "`sync_list_members`";
const SET_MEMBER: &str = "`sync_set_member`";

fn calls() -> Vec<Call> {
    use Shown::{Items, Owned, Stored, Workspaces};
    let call = |name, sql: &str, shown| Call(name, format!("select {sql}"), shown, None);
    let always = |workspace, Call(name, sql, shown, _)| Call(name, sql, shown, Some(workspace));
    let view = |name, view: &str, shown| {
        let workspaces = "json_agg(distinct jsonb_build_object('workspaceId', workspace_id))";
        let sql = format!("json_build_object('workspaces', {workspaces}) from sync_ext.{view}");
        always(KNOWN, call(name, &sql, shown))
    };
    let role = |call| format!("json_build_object('roles', array_remove(array[{call}], null))");
    let counters = "json_build_object('counters', json_agg(counter)) from sync_ext.counter";
    let attached = "json_build_object('tables', json_agg(table_name)) from sync_ext.attached_table";
    let new_one = |name, sql| always(UNKNOWN, call(name, sql, Stored));
    let op = put(9, "c", 1);
    vec![
        call("`sync_push`", &format!("sync_push('{{w}}', '[{op}]')"), Stored),
        call("`sync_put`", "sync_put('{w}', 'notes', 'c', '{}')", Stored),
        call("`sync_patch`", "sync_patch('{w}', 'notes', 'a', '{\"n\": 1}')", Stored),
        call("`sync_delete`", "sync_delete('{w}', 'notes', 'c')", Stored),
        call("`sync_pull`", "sync_pull('{w}')", Items("changes")),
        call("`sync_snapshot`", "sync_snapshot('{w}')", Items("items")),
        call("`sync_update_cursor`", "sync_update_cursor('{w}', 'd', 0)", Stored),
        call("`sync_exchange`", &format!("sync_exchange('{{w}}', 'd', 0, '[{op}]')"), Stored),
        call("`sync_exchange`, without ops", "sync_exchange('{w}', 'd', 1, '[]')", Stored),
        always(KNOWN, call("`sync_list_workspaces`", "sync_list_workspaces()", Workspaces)),
        view("view `current_record`", "current_record", Workspaces),
        view("view `tombstone`", "tombstone", Workspaces),
        view("view `conflict`", "conflict", Workspaces),
        new_one(CREATE, "sync_create_workspace('{w}', '{me}')"),
        new_one(CREATE_FOR_ANOTHER, "sync_create_workspace('{w}', '{other}')"),
        always(KNOWN, call(CREATE_TAKEN, "sync_create_workspace('{w}', '{me}')", Stored)),
        call(LIST_MEMBERS, "sync_list_members('{w}')", Items("members")),
        call("`sync_get_role`, one's own", &role("sync_get_role('{w}')"), Items("roles")),
        call("`sync_get_role`, another's", &role("sync_get_role('{w}', 'zoe')"), Items("roles")),
        call("`sync_forget_device`", "sync_forget_device('{w}', 'vic')", Stored),
        call(SET_MEMBER, "sync_set_member('{w}', 'eve', 'viewer')", Stored),
        call("`sync_remove_member`", "sync_remove_member('{w}', 'vic')", Stored),
        call("`sync_drop_workspace`", "sync_drop_workspace('{w}')", Stored),
        call("`sync_gc`, one workspace", "sync_gc('{w}')", Stored),
        always(KNOWN, call("`sync_gc`, all", "sync_gc()", Stored)),
        Call("`sync_gc_all`", "call sync_gc_all()".to_owned(), Stored, Some(KNOWN)),
        call("`sync_status`, one workspace", "sync_status('{w}')", Items("workspaces")),
        always(KNOWN, call("`sync_status`, all", "sync_status()", Owned)),
        view("view `workspace_status`", "workspace_status", Owned),
        view("view `device_status`", "device_status", Owned),
        always(KNOWN, call("view `counter`", counters, Items("counters"))),
        call("`sync_explain`", "sync_explain('{w}', 'notes', 'a')", Items("ops")),
        always(KNOWN, call("`sync_register_table`", "sync_register_table('tasks')", Stored)),
        Call(SET_SCOPE, "call sync_set_scope_field('notes', 'n')".to_owned(), Stored, Some(KNOWN)),
        always(KNOWN, call("`sync_unregister_table`", "sync_unregister_table('notes')", Stored)),
        always(KNOWN, call(ATTACH, "sync_attach_table('papers')", Stored)),
        always(KNOWN, call(DETACH, "sync_detach_table('pictures')", Stored)),
        Call(BACKFILL, "call sync_backfill_table('pictures')".to_owned(), Stored, Some(KNOWN)),
        Call(REPAIR, "call sync_repair_table('pictures', 'log')".to_owned(), Stored, Some(KNOWN)),
        always(
            KNOWN,
            call("`sync_check_table`", "sync_check_table('pictures')", Items("differences")),
        ),
        always(KNOWN, call("view `attached_table`", attached, Items("tables"))),
    ]
}

/// How the user is told.
#[derive(Clone, Copy)]
enum Told {
    BySetting,
    ByClaims,
}

/// A line of the table: a call's name, and what comes of it in each column.
type Line = (&'static str, Vec<String>);

#[test]
fn who_may_do_what_is_what_the_readme_says() {
    // Where the library is not preloaded nothing is counted.
    let settings = ["fsync=off", "shared_preload_libraries=sync_ext"];
    let cluster = Cluster::start("access", &settings).unwrap();
    let database = furnish(Database::within(cluster, "app"), Members::Ours);
    let table = table(&matrix(&mut database.session(), Told::BySetting));
    println!("{table}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/access.md");
    let document = fs::read_to_string(&path).unwrap();
    let (_, rest) = document.split_once("\n## Every call\n\n| ").expect("the table");
    let (told, _) = rest.split_once("\n\n").expect("the table ends");
    let told = format!("| {told}\n");
    if std::env::var_os("SYNC_EXT_ACCEPT").is_some() {
        fs::write(&path, document.replace(&told, &table)).unwrap();
    } else {
        assert_eq!(told, table, "docs/access.md tells something else:\n{told}");
    }
}

#[test]
fn claims_name_the_user_as_the_setting_does() {
    let database = furnish(Database::new(), Members::Ours);
    let mut admin = database.session();
    assert_eq!(matrix(&mut admin, Told::ByClaims), matrix(&mut admin, Told::BySetting));
}

#[test]
fn a_membership_function_gives_roles_as_our_own_members_do() {
    let by_own = matrix(&mut furnish(Database::new(), Members::Ours).session(), Told::BySetting);
    let by_function =
        matrix(&mut furnish(Database::new(), Members::Elsewhere).session(), Told::BySetting);
    let elsewhere = |name: &str| by_function.iter().find(|line| line.0 == name).unwrap().1.clone();
    // We are not the ones to make members, whoever asks who may.
    for name in [CREATE, CREATE_FOR_ANOTHER, CREATE_TAKEN, LIST_MEMBERS] {
        let codes = BTreeSet::from_iter(elsewhere(name));
        assert!(codes.is_subset(&["55000", "42501", "–"].map(str::to_owned).into()), "{codes:?}");
    }
    assert_eq!(elsewhere(CREATE)[..3], ["55000", "42501", "55000"]);
    assert_eq!(
        elsewhere(SET_MEMBER),
        ["55000", "42501", "55000", "42501", "42501", "42501", "42501", "55000", "42501"]
    );
    let rest = |lines: Vec<Line>| -> Vec<Line> {
        let ours = [CREATE, CREATE_FOR_ANOTHER, CREATE_TAKEN, LIST_MEMBERS, SET_MEMBER];
        lines.into_iter().filter(|line| !ours.contains(&line.0)).collect()
    };
    assert_eq!(rest(by_function), rest(by_own));
}

/// Who keeps the members: we, or a table of the app's.
#[derive(PartialEq, Eq)]
enum Members {
    Ours,
    Elsewhere,
}

/// Two workspaces, each with a record, a tombstone and a loser that were pushed long
/// ago, and a device; one with every kind of member, one whose owner is no member of the first.
/// And a role, `app`, that may call everything and owns two tables, one of them attached.
fn furnish(database: Database, members: Members) -> Database {
    database.ensure_role("app");
    let own = members == Members::Ours;
    let mut admin = database.session();
    admin
        .batch_execute(
            "load 'sync_ext';
             grant execute on all routines in schema public to app;
             grant usage on schema sync_ext to app;
             grant execute on function sync_ext.set_scope_field to app;
             grant select on sync_ext.current_record, sync_ext.tombstone, sync_ext.conflict,
               sync_ext.workspace_status, sync_ext.device_status, sync_ext.counter,
               sync_ext.attached_table to app;
             create table papers (id uuid primary key, workspace_id text not null);
             create table pictures (id uuid primary key, workspace_id text not null);
             insert into pictures values ('00000000-0000-4000-8000-000000000001', 'team');
             select sync_attach_table('pictures');
             alter table papers owner to app;
             alter table pictures owner to app;
             create table membership (user_id text, workspace_id text, role text);
             grant select on membership to app;
             create function role_of(text, text) returns text language sql stable as
               'select role from public.membership where user_id = $1 and workspace_id = $2';
             select sync_register_table('notes')",
        )
        .unwrap();
    for (workspace, owner) in [(KNOWN, "ann"), ("other", "eve")] {
        if own {
            let sql = "select sync_create_workspace($1, $2)";
            admin.execute(sql, &[&workspace, &owner]).unwrap();
        }
        push(&mut admin, workspace, &[put(1, "a", 1), put(2, "b", 1), delete(3, "b", 2)]);
        push(&mut admin, workspace, &[put(4, "a", 0)]);
    }
    age_all(&mut admin);
    for (user, workspace, role) in MEMBERS.into_iter().chain([("ex", KNOWN, "editor")]) {
        let sql = if own { "select sync_set_member($2, $1, $3)" } else { ADD };
        admin.execute(sql, &[&user, &workspace, &role]).unwrap();
    }
    if !own {
        let set = "set sync_ext.membership_function = 'public.role_of'";
        admin.batch_execute(&format!("alter database {} {set}; {set}", database.name)).unwrap();
    }
    for (user, workspace) in [("ex", KNOWN), ("vic", KNOWN), ("eve", "other")] {
        admin.execute("select set_config('sync_ext.user_id', $1, false)", &[&user]).unwrap();
        acknowledge(&mut admin, workspace, user, 3);
    }
    admin.batch_execute("reset sync_ext.user_id").unwrap();
    let removal = "select sync_remove_member('team', 'ex'); delete from membership
                    where user_id = 'ex'";
    admin.batch_execute(removal).unwrap();
    database
}

const ADD: &str = "insert into membership values ($1, $2, $3)";

fn matrix(admin: &mut Client, told: Told) -> Vec<Line> {
    calls()
        .iter()
        .map(|call| {
            let (mut words, mut refusals) = (Vec::new(), Vec::new());
            for (place, column) in COLUMNS.iter().enumerate() {
                let (word, refusal) = outcome(admin, call, column, told);
                words.push(word);
                if STRANGERS.contains(&place) {
                    refusals.extend(refusal);
                }
            }
            refusals.dedup();
            assert!(refusals.len() <= 1, "{} tells strangers {refusals:?}", call.0);
            (call.0, words)
        })
        .collect()
}

/// What comes of one call, and is undone.
fn outcome(
    admin: &mut Client,
    Call(name, sql, shown, always): &Call,
    Column(heading, caller, workspace): &Column,
    told: Told,
) -> (String, Option<[String; 4]>) {
    if *always == Some(KNOWN) && *workspace == UNKNOWN {
        return ("–".to_owned(), None);
    }
    let me = if let Caller::User(user) = caller { user } else { "ann" };
    let sql = sql
        .replace("{w}", always.unwrap_or(workspace))
        .replace("{me}", me)
        .replace("{other}", if me == "bob" { "ann" } else { "bob" });

    let before = tables(admin).unwrap();
    let mut transaction = admin.transaction().unwrap();
    become_caller(&mut transaction, *caller, told);
    transaction.batch_execute("savepoint call").unwrap();
    let answer = transaction.simple_query(&sql);
    let undo = if answer.is_err() { "rollback to call; " } else { "" };
    transaction.batch_execute(&format!("{undo}reset role")).unwrap();
    let wrote = "select pg_current_xact_id_if_assigned() is not null";
    let wrote: bool = transaction.query_one(wrote, &[]).unwrap().get(0);
    let stored = tables(&mut transaction).unwrap() != before;
    transaction.rollback().unwrap();
    let context = format!("{name} by {heading}, {workspace}");
    match answer {
        Err(error) => {
            let error = error.as_db_error().unwrap_or_else(|| panic!("{context}: {error}"));
            if *error.code() == SqlState::INVALID_TRANSACTION_TERMINATION {
                // A procedure that commits has come to its first COMMIT.
                return ("ok".to_owned(), None);
            }
            // Who is refused has not even made others wait. (Whether a name is
            // taken shows only by trying to take it.)
            assert!(!stored && (!wrote || *name == CREATE_TAKEN), "{context}: {error} has written");
            (error.code().code().to_owned(), Some(parts(error)))
        }
        Ok(answer) => {
            assert!(matches!(shown, Shown::Stored) || !wrote, "{context}: a reader has written");
            (word(*shown, stored, &answer, *caller), None)
        }
    }
}

fn become_caller(session: &mut impl GenericClient, caller: Caller, told: Told) {
    let claims = |sub: &str| format!("select set_config('request.jwt.claims', '{sub}', true)");
    let tell = match (caller, told) {
        (Caller::User(user), Told::BySetting) => format!("set local sync_ext.user_id = '{user}'"),
        (Caller::User(user), Told::ByClaims) => {
            claims(&format!(r#"{{"role":"app","sub":"{user}"}}"#))
        }
        (_, Told::BySetting) => String::new(),
        (_, Told::ByClaims) => claims(r#"{"role":"app"}"#),
    };
    let bound = if let Caller::Trusted = caller { "off" } else { "on" };
    let sql = format!("set local sync_ext.require_user = {bound}; {tell}; set local role app");
    session.batch_execute(&sql).unwrap();
}

fn parts(error: &DbError) -> [String; 4] {
    let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
    let code = error.code().code().to_owned();
    [code, error.message().to_owned(), text(error.detail()), text(error.hint())]
}

/// In a word, what a call did that did not fail.
fn word(shown: Shown, stored: bool, answer: &[SimpleQueryMessage], caller: Caller) -> String {
    let reply = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let reply: Value = serde_json::from_str(reply.unwrap_or_default()).unwrap_or_default();
    let refused = reply["results"][0]["success"] == false;
    let items = |key: &str| reply[key].as_array().cloned().unwrap_or_default();
    let word = match shown {
        _ if refused => "refused",
        Shown::Stored if stored => "ok",
        Shown::Stored => "ok: nothing done",
        Shown::Items(key) if items(key).is_empty() => "ok: empty",
        Shown::Items(_) => "ok",
        Shown::Workspaces | Shown::Owned => {
            let listed = items("workspaces");
            let listed: BTreeSet<&str> =
                listed.iter().map(|item| item["workspaceId"].as_str().unwrap()).collect();
            let is_owned = matches!(shown, Shown::Owned);
            let is_theirs = |member: &&(&str, &str, &str)| {
                let (of, _, role) = **member;
                matches!(caller, Caller::User(user) if user == of) && (!is_owned || role == "owner")
            };
            let theirs: BTreeSet<&str> =
                MEMBERS.iter().filter(is_theirs).map(|member| member.1).collect();
            match listed {
                listed if listed == [KNOWN, "other"].into() => "ok: all",
                listed if listed.is_empty() && theirs.is_empty() => "ok: none",
                listed if listed == theirs && is_owned => "ok: owned",
                listed if listed == theirs => "ok: theirs",
                listed => panic!("{listed:?} instead of {theirs:?}"),
            }
        }
    };
    word.to_owned()
}

/// The matrix in Markdown.
fn table(lines: &[Line]) -> String {
    let mut table = String::from("| |");
    table.extend(COLUMNS.iter().map(|column| format!(" {} |", column.0)));
    table += "\n|";
    table += &" --- |".repeat(COLUMNS.len() + 1);
    table += "\n";
    for (name, words) in lines {
        table += &format!("| {name} | {} |\n", words.join(" | "));
    }
    table
}
