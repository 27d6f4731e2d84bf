//! Pushes that wait for another one of their workspace, so that they become a group.

use std::thread;

use postgres::{Client, Transaction};
use sync_ext_harness::batch::put;
use sync_ext_harness::cluster::Cluster;

use super::process::{Answer, Door, Gateway, until};
use super::stand::{Stand, until_a_push_waits};

pub const TEAM: &str = "/workspaces/team/push";
pub const ANN: Option<&str> = Some("ann");
pub const GUS: Option<&str> = Some("gus");

/// A user and a body.
pub type Pushed<'p> = (Option<&'p str>, String);

pub fn ops(ops: &[String]) -> String {
    format!("[{}]", ops.join(","))
}

pub fn note(id: u64) -> String {
    ops(&[put(id, &format!("r{id}"), 1)])
}

/// Locks the team, and stores nothing.
pub fn hold(session: &mut Client) -> Transaction<'_> {
    let mut holder = session.transaction().unwrap();
    let sql = "select from sync_ext.workspace where workspace_id = 'team' for update";
    holder.batch_execute(sql).unwrap();
    holder
}

/// Has a push wait for the team, and these, in this order, behind it; returns their answers
/// after `then`, which lets the team go, or returns what holds it.
pub fn behind_a_push(
    stand: &mut Stand,
    pushes: &[Pushed],
    then: impl for<'t> FnOnce(&mut Client, Transaction<'t>) -> Option<Transaction<'t>>,
) -> Vec<Answer> {
    let (mut session, door): (_, &Door) = (stand.session(), &stand.gateway.clone());
    let holder = hold(&mut session);
    thread::scope(|scope| {
        let first = scope.spawn(|| door.post(TEAM, ANN, &note(999)));
        until_a_push_waits(&mut stand.admin);
        let mut asked = Vec::new();
        for (user, body) in pushes {
            asked.push(scope.spawn(move || door.post(TEAM, *user, body)));
            door.until_waiting(asked.len());
        }
        let held = then(&mut stand.admin, holder);
        first.join().unwrap();
        let answers = asked.into_iter().map(|answer| answer.join().unwrap()).collect();
        drop(held);
        answers
    })
}

/// A team whose member gus waits for an advisory lock whenever he pushes.
pub fn stand_with_gus<'a>(
    cluster: &'a Cluster,
    database: &'a str,
    settings: &[(&str, &str)],
) -> Stand<'a> {
    let mut stand = Stand::new(cluster, database, settings);
    let sql = "create function role_of(text, text) returns text language plpgsql as $$
                 begin
                   if $1 = 'gus' then perform pg_advisory_xact_lock_shared(1); end if;
                   return 'editor';
                 end $$";
    let set = "set sync_ext.membership_function = 'public.role_of'";
    stand.admin.batch_execute(&format!("{sql}; alter database {database} {set}")).unwrap();
    stand.gateway = Gateway::start(&stand.url(), settings);
    stand
}

pub fn hold_gus(session: &mut Client) -> Transaction<'_> {
    let mut holder = session.transaction().unwrap();
    holder.batch_execute("select pg_advisory_xact_lock(1)").unwrap();
    holder
}

/// Has a group of gus wait in the database while `then` runs.
pub fn while_gus_waits(
    stand: &mut Stand,
    pushes: &[Pushed],
    then: impl FnOnce(&mut Client),
) -> Vec<Answer> {
    let mut session = stand.session();
    let holder_of_gus = hold_gus(&mut session);
    behind_a_push(stand, pushes, |admin, holder| {
        holder.commit().unwrap();
        let stored = "select count(*) from sync_ext.change_log where pk = 'r999'";
        until("the first push is stored", || {
            admin.query_one(stored, &[]).unwrap().get::<_, i64>(0) == 1
        });
        until_a_push_waits(admin);
        then(admin);
        holder_of_gus.commit().unwrap();
        None
    })
}
