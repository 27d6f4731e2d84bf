//! Long life, in short; and that the runs see what they are there to see.

use std::thread;
use std::time::{Duration, Instant};

use postgres::IsolationLevel;
use sync_ext_harness::cluster::Cluster;
use sync_ext_proof::long_life::{churn, errors, session};

const SEED: u64 = 1;

#[test]
fn a_session_of_many_calls_takes_no_more_memory_than_one_of_few() {
    let cluster = Cluster::start("proof-session", &session::SETTINGS).unwrap();
    println!("{}", session::run(&cluster, SEED, 3000).unwrap());
    a_plan_that_stays_is_seen(&cluster);
    a_warning_is_seen(&cluster);
}

#[test]
fn errors_that_postgres_raises_inside_leave_nothing_of_ours_behind() {
    let cluster = Cluster::start("proof-errors", &errors::SETTINGS).unwrap();
    println!("{}", errors::run(&cluster, 1000).unwrap());
}

#[test]
fn a_log_of_many_changes_becomes_as_small_again_as_it_was() {
    let cluster = Cluster::start("proof-churn", &churn::SETTINGS).unwrap();
    println!("{}", churn::run(&cluster, SEED, 600).unwrap());
    a_snapshot_that_is_never_let_go_is_seen(&cluster);
    updates_that_are_not_hot_are_seen(&cluster);
}

/// A session of which sync_update_cursor does `more`.
fn session_with(cluster: &Cluster, more: &str) -> String {
    let mut client = session::prepare(cluster).unwrap();
    client
        .batch_execute(&format!(
            "alter function sync_update_cursor rename to genuine;
             create sequence calls;
             create function sync_update_cursor(workspace_id text, device_id text, version bigint)
             returns json language plpgsql as $$
             begin
               {more}
               return genuine(workspace_id, device_id, version);
             end $$"
        ))
        .unwrap();
    let violation = format!("{:#}", session::measure(cluster, SEED, 2000).unwrap_err());
    println!("seen: {violation}");
    violation
}

fn a_plan_that_stays_is_seen(cluster: &Cluster) {
    let more = "execute format('prepare kept%s as select 1', nextval('calls'));";
    assert!(session_with(cluster, more).contains("the contexts grew by"));
}

fn a_warning_is_seen(cluster: &Cluster) {
    let more = "if nextval('calls') = 20 then raise warning 'Snapshot reference leak'; end if;";
    assert!(session_with(cluster, more).contains("WARNING:  Snapshot reference leak"));
}

/// Taken while the run holds its own, and kept.
fn a_snapshot_that_is_never_let_go_is_seen(cluster: &Cluster) {
    let mut other = churn::prepare(cluster).unwrap();
    let violation = thread::scope(|scope| {
        let run = scope.spawn(|| churn::measure(cluster, SEED, 480).unwrap_err());
        let deadline = Instant::now() + Duration::from_secs(60);
        // After the first third of the rounds, each of 60 ops.
        let sql = "select coalesce(max(head), 0) > 170 * 60 from sync_ext.workspace";
        while !other.query_one(sql, &[]).unwrap().get::<_, bool>(0) {
            assert!(Instant::now() < deadline && !run.is_finished(), "never so far");
            thread::yield_now();
        }
        let level = IsolationLevel::RepeatableRead;
        let mut old = other.build_transaction().isolation_level(level).start().unwrap();
        old.query("select from sync_ext.change_log", &[]).unwrap();
        let violation = format!("{:#}", run.join().unwrap());
        old.commit().unwrap();
        violation
    });
    println!("seen: {violation}");
    let is_seen = ["goes on growing", "the snapshot cost more"];
    assert!(is_seen.iter().any(|words| violation.contains(words)), "{violation}");
}

fn updates_that_are_not_hot_are_seen(cluster: &Cluster) {
    let mut client = churn::prepare(cluster).unwrap();
    client.batch_execute("create index on sync_ext.record (clock)").unwrap();
    let violation = format!("{:#}", churn::measure(cluster, SEED, 480).unwrap_err());
    println!("seen: {violation}");
    assert!(violation.contains("are HOT"), "{violation}");
}
