//! Pushes that wait for each other are stored together: each with its own rights, none
//! harmed by another, none answered before its commit.

use std::io::Write;
use std::net::TcpStream;
use std::thread;

use postgres::{Client, Transaction};
use sync_ext_harness::batch::{op, push, put};
use sync_ext_harness::cluster::{Cluster, Stop};

use crate::support::groups::{
    ANN, GUS, Pushed, TEAM, behind_a_push, hold, hold_gus, note, ops, stand_with_gus,
    while_gus_waits,
};
use crate::support::process::{Answer, Door, Gateway, until};
use crate::support::stand::{SERVER, Stand, until_a_push_waits};

const BOB: Option<&str> = Some("bob");
/// One connection: what waits behind a push of its workspace is one group.
const SETTINGS: [(&str, &str); 2] = [("GATEWAY_TRUSTED", "on"), ("GATEWAY_POOL_SIZE", "1")];

#[test]
fn pushes_that_wait_are_stored_together() {
    let cluster = Cluster::start("gateway-groups", &SERVER).unwrap();
    each_push_has_the_rights_of_its_user(&cluster);
    a_bad_push_harms_no_other(&cluster);
    groups_are_bounded(&cluster);
    without_groups_each_has_its_transaction(&cluster);
    a_group_that_met_another_transaction_is_stored_again(&cluster);
    a_commit_that_fails_harms_no_other(&cluster);
    a_held_row_delays_only_its_push(&cluster);
    a_client_that_goes_away_leaves_the_group(&cluster);
    a_slow_transaction_does_not_keep_others_waiting(&cluster);
    a_lost_connection_is_answered_to_all(&cluster);
    a_group_without_an_answer_is_given_up(&cluster);
}

/// The server is killed while a group is on its disk and its commit waits for a standby.
#[test]
fn nothing_is_answered_before_its_commit() {
    let standby = ["synchronous_standby_names=nobody", "synchronous_commit=local"];
    let settings = [&SERVER[..], &standby[..]].concat();
    let mut cluster = Cluster::start("gateway-commits", &settings).unwrap();
    let mut stand = Stand::new(&cluster, "commits", &SETTINGS);
    let sql = "create function validate(json, json, json) returns text language plpgsql as $$
                 begin
                   if $1->>'n' = '2' then
                     perform set_config('synchronous_commit', 'on', true);
                   end if;
                   return null;
                 end $$;
               select sync_register_table('notes', validation => 'public.validate(json, json, json)')";
    stand.admin.batch_execute(sql).unwrap();
    let pushes: Vec<Pushed> = (1..=3).map(|id| (ANN, note(id))).collect();
    let committing = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
    let answers = behind_a_push(&mut stand, &pushes, |admin, holder| {
        holder.commit().unwrap();
        until("the commit waits", || {
            admin.query_one(committing, &[]).unwrap().get::<_, i64>(0) == 1
        });
        cluster.signal_server(Stop::Immediately);
        None
    });
    assert_eq!(codes(&answers), ["08006"; 3], "{answers:?}");

    let Stand { gateway, .. } = stand;
    cluster.stop_server(Stop::Immediately).unwrap();
    cluster.start_server().unwrap();
    for (user, body) in &pushes {
        let answer = gateway.post(TEAM, *user, body);
        assert_eq!(answer.json()["results"][0]["replayed"], true, "{answer:?}");
    }
    let mut admin = cluster.connect("commits").unwrap();
    assert_eq!(transactions(&mut admin, &["r1", "r2", "r3"]), 1);
    assert_eq!(transactions(&mut admin, &["r999"]), 1);
}

fn diary(id: u64, pk: &str, clock: u64) -> String {
    ops(&[put(id, pk, clock).replace("notes", "diary")])
}

fn commit<'t>(_: &mut Client, holder: Transaction<'t>) -> Option<Transaction<'t>> {
    holder.commit().unwrap();
    None
}

fn statuses(answers: &[Answer]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}

fn codes(answers: &[Answer]) -> Vec<String> {
    answers.iter().map(Answer::code).collect()
}

/// How many transactions have stored these records.
fn transactions(admin: &mut Client, pks: &[&str]) -> i64 {
    let sql = "select count(distinct xmin::text), count(*) from sync_ext.change_log
                where pk = any ($1)";
    let row = admin.query_one(sql, &[&pks]).unwrap();
    assert_eq!(row.get::<_, i64>(1), pks.len() as i64, "each is stored once: {pks:?}");
    row.get(0)
}

fn each_push_has_the_rights_of_its_user(cluster: &Cluster) {
    let mut stand = Stand::new(cluster, "rights", &SETTINGS);
    let pushes = [
        (ANN, diary(1, "a", 1)),
        (BOB, diary(2, "b", 1)),
        // Bob may not, a trusted caller may.
        (BOB, diary(3, "a", 2)),
        (None, diary(4, "a", 3)),
        (BOB, diary(5, "a", 4)),
        (ANN, diary(6, "c", 1)),
    ];
    let answers = behind_a_push(&mut stand, &pushes, commit);
    let stored: Vec<bool> = answers
        .iter()
        .map(|answer| answer.json()["results"][0]["success"].as_bool().unwrap())
        .collect();
    assert_eq!(stored, [true, true, false, true, false, true], "{answers:?}");
    assert_eq!(transactions(&mut stand.admin, &["b", "c"]), 1);
    let seen = |user| {
        let pulled = stand.gateway.post("/workspaces/team/pull", user, "{}").json();
        let changes = pulled["changes"].as_array().unwrap().iter();
        let pks = changes.map(|change| change["pk"].as_str().unwrap().to_owned());
        pks.filter(|pk| pk.len() == 1).collect::<Vec<String>>()
    };
    assert_eq!(seen(ANN), ["a", "a", "c"]);
    assert_eq!(seen(BOB), ["b"]);
    // The connection has forgotten them all.
    assert_eq!(seen(None), ["a", "b", "a", "c"]);
}

fn a_bad_push_harms_no_other(cluster: &Cluster) {
    let mut stand = Stand::new(cluster, "bad", &SETTINGS);
    let too_many = format!("[{}]", vec!["{}"; 1001].join(","));
    let half_good = ops(&[put(3, "r3", 1), r#"{"pk": 1}"#.to_owned()]);
    let pushes = [
        (Some("eve"), note(100)),
        (ANN, note(1)),
        (ANN, "{}".to_owned()),
        (BOB, note(2)),
        (ANN, "[".to_owned()),
        (Some("vic"), note(101)),
        (ANN, too_many),
        (ANN, half_good),
        (BOB, note(4)),
        (Some("eve"), note(102)),
    ];
    let answers = behind_a_push(&mut stand, &pushes, commit);
    assert_eq!(statuses(&answers), [403, 200, 400, 200, 400, 403, 400, 200, 200, 403]);
    let codes = [0, 2, 4, 5, 6, 9].map(|at| answers[at].code());
    assert_eq!(codes, ["42501", "22023", "22P02", "42501", "54000", "42501"]);
    assert_eq!(answers[7].json()["results"][1]["errorCode"], "VALIDATION_ERROR");
    let transactions = transactions(&mut stand.admin, &["r1", "r2", "r3", "r4"]);
    assert!(transactions < 4, "{transactions}");
    let head: i64 =
        stand.admin.query_one("select head from sync_ext.workspace", &[]).unwrap().get(0);
    assert_eq!(head, 5);
    let log = stand.gateway.log();
    assert!(!log.contains("internal error"), "{log}");
}

fn groups_are_bounded(cluster: &Cluster) {
    let settings = [SETTINGS[0], SETTINGS[1], ("GATEWAY_GROUP_MAX", "2")];
    let mut stand = Stand::new(cluster, "bounded", &settings);
    let pushes: Vec<Pushed> = (1..=5).map(|id| (ANN, note(id))).collect();
    let answers = behind_a_push(&mut stand, &pushes, commit);
    assert_eq!(statuses(&answers), [200; 5]);
    assert_eq!(transactions(&mut stand.admin, &["r1", "r2", "r3", "r4", "r5"]), 3);

    let mut stand = Stand::new(cluster, "padded", &SETTINGS);
    let padded = |id| (ANN, format!("{}{}", note(id), " ".repeat(600_000)));
    let pushes: Vec<Pushed> = (1..=3).map(padded).collect();
    let answers = behind_a_push(&mut stand, &pushes, commit);
    assert_eq!(statuses(&answers), [200; 3]);
    assert_eq!(transactions(&mut stand.admin, &["r1", "r2", "r3"]), 3);
}

fn without_groups_each_has_its_transaction(cluster: &Cluster) {
    let settings =
        [("GATEWAY_TRUSTED", "on"), ("GATEWAY_GROUP_MAX", "1"), ("GATEWAY_POOL_SIZE", "3")];
    let mut stand = Stand::new(cluster, "single", &settings);
    let (mut session, door): (_, &Door) = (stand.session(), &stand.gateway.clone());
    let holder = hold(&mut session);
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'
                    and application_name = 'sync_ext_gateway'";
    thread::scope(|scope| {
        let asked: Vec<_> =
            (1..=3).map(|id| scope.spawn(move || door.post(TEAM, ANN, &note(id)))).collect();
        until("all wait", || stand.admin.query_one(waiting, &[]).unwrap().get::<_, i64>(0) == 3);
        holder.commit().unwrap();
        for answer in asked {
            assert_eq!(answer.join().unwrap().status, 200);
        }
    });
    assert_eq!(transactions(&mut stand.admin, &["r1", "r2", "r3"]), 3);
}

fn a_group_that_met_another_transaction_is_stored_again(cluster: &Cluster) {
    let mut stand = stand_with_gus(cluster, "meetings", &SETTINGS);
    let strict = "alter database meetings set default_transaction_isolation = 'repeatable read'";
    stand.admin.batch_execute(strict).unwrap();
    stand.gateway = Gateway::start(&stand.url(), &SETTINGS);
    let pushes: Vec<Pushed> = (1..=3).map(|id| (GUS, note(id))).collect();
    let answers = while_gus_waits(&mut stand, &pushes, |admin| {
        assert_eq!(push(admin, "team", &[put(50, "r50", 1)]), [2]);
    });
    assert_eq!(statuses(&answers), [200; 3], "{answers:?}");
    assert_eq!(transactions(&mut stand.admin, &["r1", "r2", "r3"]), 1);
}

/// A constraint of the app's that is checked at the commit.
fn a_commit_that_fails_harms_no_other(cluster: &Cluster) {
    let mut stand = Stand::new(cluster, "commits", &SETTINGS);
    let sql = "create function veto() returns trigger language plpgsql as $$
                 begin raise exception using errcode = '23514', message = 'vetoed'; end $$;
               create table vetoes (pk text);
               create constraint trigger veto after insert on vetoes
                 deferrable initially deferred for each row execute function veto();
               create function validate(json, json, json) returns text
                 language plpgsql security definer as $$
                 begin
                   if $1->>'n' = '2' then insert into public.vetoes values ('r2'); end if;
                   return null;
                 end $$;
               select sync_register_table('notes', validation => 'public.validate(json, json, json)')";
    stand.admin.batch_execute(sql).unwrap();
    let pushes: Vec<Pushed> = (1..=3).map(|id| (ANN, note(id))).collect();
    let answers = behind_a_push(&mut stand, &pushes, commit);
    assert_eq!(statuses(&answers), [200, 500, 200], "{answers:?}");
    transactions(&mut stand.admin, &["r1", "r3"]);
}

/// A push cannot let its workspace go for a row while others of its transaction need it.
fn a_held_row_delays_only_its_push(cluster: &Cluster) {
    let mut stand = Stand::new(cluster, "held", &SETTINGS);
    let sql = "create table cards (id text primary key, workspace_id text not null, n int);
               select sync_attach_table('cards', apply_as => 'owner');
               insert into cards values ('card', 'team', 0);
               alter database held set sync_ext.apply_wait = '1h'";
    stand.admin.batch_execute(sql).unwrap();
    stand.gateway = Gateway::start(&stand.url(), &SETTINGS);
    let mut session = stand.session();
    let mut editor = session.transaction().unwrap();
    editor.batch_execute("update cards set n = 1 where id = 'card'").unwrap();
    let card = op(50, "card", 5, "put", r#"{"id": "card", "workspace_id": "team", "n": 2}"#)
        .replace("notes", "cards");
    let pushes = [(ANN, note(1)), (ANN, ops(&[card])), (ANN, note(2))];
    let mut reader = stand.session();
    let answers = behind_a_push(&mut stand, &pushes, |_, holder| {
        holder.commit().unwrap();
        let stored = "select count(*) from sync_ext.change_log where pk in ('r1', 'r2')";
        until("the others are stored", || {
            reader.query_one(stored, &[]).unwrap().get::<_, i64>(0) == 2
        });
        // Not for its push, which holds nothing while it waits for the row.
        editor.commit().unwrap();
        None
    });
    assert_eq!(statuses(&answers), [200; 3], "{answers:?}");
}

fn a_client_that_goes_away_leaves_the_group(cluster: &Cluster) {
    let mut stand = Stand::new(cluster, "leaving", &SETTINGS);
    let door = stand.gateway.clone();
    let pushes = [(ANN, note(1)), (ANN, note(2))];
    let answers = behind_a_push(&mut stand, &pushes, |_, holder| {
        let (mut client, body) = (TcpStream::connect(door.address()).unwrap(), note(3));
        write!(
            client,
            "POST {TEAM} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        door.until_waiting(3);
        drop(client);
        door.until_waiting(2);
        holder.commit().unwrap();
        None
    });
    assert_eq!(statuses(&answers), [200; 2]);
    assert_eq!(transactions(&mut stand.admin, &["r1", "r2"]), 1);
    let stored = "select count(*) from sync_ext.change_log where pk = 'r3'";
    assert_eq!(stand.admin.query_one(stored, &[]).unwrap().get::<_, i64>(0), 0);
}

/// What it waits for need not matter to them.
fn a_slow_transaction_does_not_keep_others_waiting(cluster: &Cluster) {
    let mut stand = stand_with_gus(cluster, "slow", &[("GATEWAY_TRUSTED", "on")]);
    let mut session = stand.session();
    let holder = hold_gus(&mut session);
    let door: &Door = &stand.gateway.clone();
    thread::scope(|scope| {
        let slow = scope.spawn(|| door.post(TEAM, GUS, &note(1)));
        until_a_push_waits(&mut stand.admin);
        assert_eq!(door.post(TEAM, ANN, &note(2)).status, 200);
        holder.commit().unwrap();
        assert_eq!(slow.join().unwrap().status, 200);
    });
}

fn a_lost_connection_is_answered_to_all(cluster: &Cluster) {
    let mut stand = stand_with_gus(cluster, "lost", &SETTINGS);
    let pushes: Vec<Pushed> = (1..=3).map(|id| (GUS, note(id))).collect();
    let answers = while_gus_waits(&mut stand, &pushes, |admin| {
        let end = "select pg_terminate_backend(pid) from pg_stat_activity
                    where wait_event_type = 'Lock' and application_name = 'sync_ext_gateway'";
        assert_eq!(admin.query(end, &[]).unwrap().len(), 1);
        until("the session is gone", || admin.query(end, &[]).unwrap().is_empty());
    });
    assert_eq!(statuses(&answers), [503; 3]);
    assert_eq!(codes(&answers), ["08006"; 3]);
    for (user, body) in &pushes {
        assert_eq!(stand.gateway.post(TEAM, *user, body).status, 200);
    }
    transactions(&mut stand.admin, &["r1", "r2", "r3"]);
}

fn a_group_without_an_answer_is_given_up(cluster: &Cluster) {
    let timeouts = [("GATEWAY_CALL_TIMEOUT", "2"), ("GATEWAY_DATABASE_TIMEOUT", "60")];
    let settings = [&SETTINGS[..], &timeouts[..]].concat();
    let mut stand = Stand::new(cluster, "silence", &settings);
    let pushes: Vec<Pushed> = (1..=3).map(|id| (ANN, note(id))).collect();
    let answers = behind_a_push(&mut stand, &pushes, |_, holder| Some(holder));
    assert_eq!(statuses(&answers), [503; 3]);
    assert_eq!(codes(&answers), ["08006"; 3]);
    for (user, body) in &pushes {
        assert_eq!(stand.gateway.post(TEAM, *user, body).status, 200);
    }
}
