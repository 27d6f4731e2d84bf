//! Errors that are raised below us arrive as they were raised: their SQLSTATE, also one
//! that Postgres does not know, their context, and what they are about.

use postgres::Client;
use postgres::error::DbError;
use sync_ext_harness::database::Database;

use super::furnished;

fn error(session: &mut Client, sql: &str) -> DbError {
    session.batch_execute(sql).unwrap_err().as_db_error().unwrap().clone()
}

/// Where a constraint, an index and a function of somebody's may fail.
fn world() -> Database {
    let app = furnished();
    app.session()
        .batch_execute(
            "alter table sync_ext.member add constraint no_bots check (user_id not like 'bot%');
             create unique index once on sync_ext.change_log (hlc) where hlc = 'once';
             create function fails(text, text) returns text language plpgsql as $$
             begin
               begin
                 raise exception 'first' using errcode = 'AB002';
               exception when others then
                 null;
               end;
               raise exception 'not today' using errcode = 'AB001', detail = 'd', hint = 'h',
                 column = 'c', constraint = 'k', datatype = 't', table = 'r', schema = 's';
             end $$",
        )
        .unwrap();
    app
}

#[test]
fn a_constraint_is_named() {
    let app = &world();
    let admin = &mut app.session();
    let told = error(admin, "select sync_set_member('team', 'bot-7', 'viewer')");
    assert_eq!(told.code().code(), "23514");
    assert_eq!((told.schema(), told.table()), (Some("sync_ext"), Some("member")));
    assert_eq!(told.constraint(), Some("no_bots"));
    assert!(told.detail().unwrap().contains("bot-7"), "{told:?}");
    assert!(told.where_().unwrap().contains("insert into sync_ext.member"), "{told:?}");
}

#[test]
fn an_index_is_named() {
    let app = &world();
    let admin = &mut app.session();
    let ops = |id: u32| {
        format!(
            r#"select sync_push('team', '[{{"tableName":"notes","operation":"put","pk":"p{id}",
               "payload":{{}},"stamp":{{"deviceId":"d","hlc":"once","clock":1,
               "opId":"00000000-0000-4000-8000-00000000a00{id}"}}}}]')"#
        )
    };
    admin.batch_execute(&ops(1)).unwrap();
    let told = error(admin, &ops(2));
    assert_eq!((told.code().code(), told.constraint()), ("23505", Some("once")));
    assert_eq!(told.table(), Some("change_log"));
}

#[test]
fn a_function_of_somebodys_is_heard() {
    let app = &world();
    let admin = &mut app.session();
    admin
        .batch_execute(
            "set sync_ext.membership_function = 'public.fails'; set sync_ext.user_id = 'ann'",
        )
        .unwrap();
    let told = error(admin, "do $$ begin perform public.sync_pull('team'); end $$");
    assert_eq!((told.code().code(), told.message()), ("AB001", "not today"));
    assert_eq!((told.detail(), told.hint()), (Some("d"), Some("h")));
    let about = (told.schema(), told.table(), told.column());
    assert_eq!(about, (Some("s"), Some("r"), Some("c")));
    assert_eq!((told.datatype(), told.constraint()), (Some("t"), Some("k")));
    // From the function to the block around the call, each once.
    let context = told.where_().unwrap();
    for part in ["function public.fails(text,text) line 8", "inline_code_block line 1 at PERFORM"] {
        assert_eq!(context.matches(part).count(), 1, "{part}: {context}");
    }
}

/// The latest error that was raised need not be the one that ends the call.
#[test]
fn an_error_that_was_caught_does_not_arrive() {
    let app = &world();
    let admin = &mut app.session();
    admin
        .batch_execute(
            "create function recovers(text, text) returns text language plpgsql as $$
             begin
               raise exception 'caught' using errcode = 'AB003';
             exception when others then
               return null;
             end $$;
             set sync_ext.membership_function = 'public.recovers'; set sync_ext.user_id = 'ann'",
        )
        .unwrap();
    let told = error(admin, "select sync_pull('team')");
    assert_eq!((told.code().code(), told.message()), ("42501", "permission denied for workspace"));
    assert_eq!(told.where_(), None);
}

/// Nor need it be the latest, when it is raised again after another one was caught.
#[test]
fn an_error_that_is_raised_again_arrives() {
    let app = &world();
    let admin = &mut app.session();
    admin
        .batch_execute(
            "create function insists(text, text) returns text language plpgsql as $$
             begin
               raise exception 'first' using errcode = '22012';
             exception when others then
               begin
                 raise exception 'second' using errcode = '22012';
               exception when others then
                 null;
               end;
               raise;
             end $$;
             set sync_ext.membership_function = 'public.insists'; set sync_ext.user_id = 'ann'",
        )
        .unwrap();
    let told = error(admin, "select sync_pull('team')");
    assert_eq!((told.code().code(), told.message()), ("22012", "first"));
}
