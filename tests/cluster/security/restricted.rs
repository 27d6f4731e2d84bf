//! Code of a role that is bound, run in a session that is not: an index expression or
//! a materialized view that a superuser's command, or autovacuum, evaluates.

use std::time::{Duration, Instant};

use postgres::{Client, GenericClient};
use sync_ext_harness::database::Database;

use super::{alone, refused};

/// A function that reads what it can of `team`, or tells why it cannot, in a table of
/// the role's own; immutable, so that an index may have it.
const SPIES: &str = "
    create table spied (what text);
    create function note(text) returns void language sql volatile as $$
      insert into public.spied values ($1)
    $$;
    create function spy(text) returns text language plpgsql immutable as $$
    begin
      perform public.note(public.sync_pull('team')::text);
      return $1;
    exception when others then
      perform public.note(sqlstate || ' ' || sqlerrm);
      return $1;
    end $$;
    create table bait (v text);
    insert into bait values ('a'), ('b');
    create index on bait (spy(v));
    truncate spied";

fn spied(client: &mut impl GenericClient) -> Vec<String> {
    let sql = "select coalesce(array_agg(distinct what), '{}') from public.spied";
    client.query_one(sql, &[]).unwrap().get(0)
}

/// What the spy was told, if it ran.
fn learns_nothing(client: &mut Client, what: &str) {
    assert_eq!(spied(client), ["42501 no user is set"], "{what}");
    client.batch_execute("truncate public.spied").unwrap();
}

#[test]
fn code_that_others_evaluate_learns_nothing() {
    let app = &alone("restricted");
    let mut admin = app.session();
    admin
        .batch_execute(
            "alter role web set sync_ext.require_user = on;
             grant create on schema public to web",
        )
        .unwrap();
    let mut web = super::web(app);
    web.batch_execute(SPIES).unwrap();
    commands_learn_nothing(&mut admin);
    autovacuum_learns_nothing(app, &mut admin);
    a_user_that_is_set_is_believed(&mut admin);
}

fn commands_learn_nothing(admin: &mut Client) {
    for command in ["analyze bait", "reindex table bait", "create index on bait (upper(spy(v)))"] {
        admin.batch_execute(command).unwrap();
        learns_nothing(admin, command);
    }
    // A view needs no table to spy into: it shows what it was told.
    for (name, call) in [("pulled", "sync_pull('team')"), ("listed", "sync_list_workspaces()")] {
        let create = format!("create materialized view {name} as select {call}");
        let told = refused(admin, &create);
        assert_eq!(told, ("42501".to_owned(), "no user is set".to_owned()), "{name}");
        let create = format!("{create} with no data; alter materialized view {name} owner to web");
        admin.batch_execute(&create).unwrap();
        let told = refused(admin, &format!("refresh materialized view {name}"));
        assert_eq!(told.0, "42501", "{name}");
    }
    let views = "create materialized view seen as select * from sync_ext.current_record";
    assert_eq!(refused(admin, views).0, "42501");
    // The session itself is not bound.
    assert_eq!(super::pulled(admin, "team").len(), 4);
}

fn autovacuum_learns_nothing(app: &Database, admin: &mut Client) {
    admin.batch_execute("alter system set autovacuum_naptime = '1s'").unwrap();
    admin
        .batch_execute(
            "select pg_reload_conf();
             alter table bait set (autovacuum_analyze_threshold = 1, autovacuum_analyze_scale_factor = 0);
             insert into bait select 'x' from generate_series(1, 100);
             truncate public.spied",
        )
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while spied(admin).is_empty() {
        assert!(Instant::now() < deadline, "autovacuum never came: {}", app.cluster.log());
        std::thread::yield_now();
    }
    learns_nothing(admin, "autovacuum");
}

/// Who sets a user is trusted with that, there too.
fn a_user_that_is_set_is_believed(admin: &mut Client) {
    admin
        .batch_execute(
            "set sync_ext.user_id = 'ann';
             create materialized view anns as select sync_pull('team');
             reset sync_ext.user_id",
        )
        .unwrap();
}
