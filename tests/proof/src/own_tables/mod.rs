//! Plain SQL beside pushes on attached tables, with killed backends and postmasters.
//!
//! Sessions of SQL change rows of several workspaces, in any order, with savepoints and
//! rollbacks; sessions of devices push to the same rows. A deadlock between statements of
//! SQL is Postgres' to resolve, as ever; but a commit never fails because of a push, and a
//! push only by what its ops are. After each round versions are 1..head, every record is the
//! image of its row, and what was acknowledged is there.

mod pusher;
mod writer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use postgres::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sync_ext_harness::attached::differences;
use sync_ext_harness::cluster::{Cluster, Stop};

use crate::common::tally::Tally;
use pusher::Pusher;
use writer::Writer;

/// Counters need the library in the server.
pub const SETTINGS: [&str; 3] =
    ["shared_preload_libraries=sync_ext", "fsync=on", "deadlock_timeout=100ms"];
const DATABASE: &str = "own_tables";
const WRITERS: u64 = 4;
const PUSHERS: u64 = 4;
const WORKSPACES: u64 = 5;
/// Few rows, so that sessions meet.
const LISTS: u64 = 4;
const TASKS: u64 = 8;

/// A parent with children, a row trigger that normalises, one that writes another row, and
/// a deferred constraint.
const TABLES: &str = "
    create table lists (id text primary key, workspace_id text not null, title text not null, changes integer not null default 0);
    create table tasks (
      id text primary key, workspace_id text not null, list text references lists on delete cascade,
      after text constraint after references tasks deferrable initially deferred,
      title text not null check (title <> 'bad'), place integer,
      unique (workspace_id, place) deferrable initially deferred);
    create function trimmed() returns trigger language plpgsql as $$ begin
      if new.title = 'rejected' then raise 'rejected'; end if;
      new.title := trim(new.title); return new; end $$;
    create trigger trimmed before insert or update on tasks for each row execute function trimmed();
    create function counted() returns trigger language plpgsql as $$ begin
      update public.lists set changes = changes + 1 where id = new.list; return null; end $$;
    create trigger counted after insert or update of list on tasks for each row when (new.list is not null)
      execute function counted();
    select sync_attach_table('lists', patches => true), sync_attach_table('tasks', patches => true);";

pub fn start(name: &str) -> Result<Cluster> {
    let cluster = Cluster::start(name, &SETTINGS)?;
    cluster.create_database(DATABASE)?.batch_execute(TABLES)?;
    Ok(cluster)
}

/// What ends a round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing is killed.
    Calm,
    /// Backends are terminated all the time.
    Terminations,
    BackendKilled,
    PostmasterKilled,
}

pub fn run(cluster: &mut Cluster, seed: u64, time: Duration, round: Duration) -> Result<Tally> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut tally = Tally::default();
    let begun = Instant::now();
    let ends = [End::Calm, End::Terminations, End::BackendKilled, End::PostmasterKilled];
    for (number, end) in ends.into_iter().cycle().enumerate() {
        let said = || format!("seed {seed}, round {number}");
        one_round(cluster, random.random(), end, round, &mut tally).with_context(said)?;
        check(cluster, &mut tally).with_context(said)?;
        if begun.elapsed() >= time && number >= ends.len() - 1 {
            break;
        }
    }
    Ok(tally)
}

fn one_round(
    cluster: &mut Cluster,
    seed: u64,
    end: End,
    time: Duration,
    tally: &mut Tally,
) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut writers: Vec<_> = (0..WRITERS).map(|_| Writer::new(random.random())).collect();
    let mut pushers: Vec<_> = (0..PUSHERS).map(|_| Pusher::new(random.random())).collect();
    let mut admin = cluster.connect(DATABASE)?;
    let before = yielded(&mut admin)?;
    let (is_over, running) = (AtomicBool::new(false), &*cluster);
    let round = Round { cluster: running, end, is_over: &is_over };
    let tallies: Vec<Result<Tally>> = thread::scope(|scope| {
        let round = &round;
        let writers = writers.iter_mut().map(|one| scope.spawn(move || one.run(round)));
        let mut sessions: Vec<_> = writers.collect();
        let pushers = pushers.iter_mut().map(|one| scope.spawn(move || one.run(round)));
        sessions.extend(pushers);
        let ended = end_round(running, &mut admin, end, time, &mut random);
        is_over.store(true, Ordering::SeqCst);
        let panicked = |_| bail!("a session panicked");
        let joined = sessions.into_iter().map(|session| session.join().unwrap_or_else(panicked));
        joined.chain([ended]).collect()
    });
    for session in tallies {
        tally.join(&session?);
    }
    match end {
        End::PostmasterKilled => {
            cluster.stop_server(Stop::Kill)?;
            cluster.start_server()?;
        }
        End::BackendKilled => cluster.until_ready()?,
        // Otherwise the counters were lost.
        End::Calm | End::Terminations => {
            tally.add("pushes that yielded", yielded(&mut admin)? - before);
        }
    }
    let mut client = cluster.connect(DATABASE)?;
    for pusher in &pushers {
        pusher.check(&mut client)?;
    }
    Ok(())
}

/// What its sessions know of a round.
struct Round<'r> {
    cluster: &'r Cluster,
    end: End,
    is_over: &'r AtomicBool,
}

impl Round<'_> {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// `None` where the server was killed.
    fn connect(&self) -> Result<Option<Client>> {
        match self.cluster.connect(DATABASE) {
            Ok(client) => Ok(Some(client)),
            Err(_) if matches!(self.end, End::BackendKilled | End::PostmasterKilled) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Did the session end because somebody killed it?
    fn is_killed(&self, error: &postgres::Error) -> bool {
        let is_cut = error.is_closed() || error.code().is_none();
        let state = error.code().map_or("", |state| state.code());
        self.end != End::Calm && (is_cut || state.starts_with("57P"))
    }
}

/// Waits, and kills.
fn end_round(
    cluster: &Cluster,
    admin: &mut Client,
    end: End,
    time: Duration,
    random: &mut StdRng,
) -> Result<Tally> {
    const OTHERS: &str = "from pg_stat_activity where datname = current_database()
      and pid <> pg_backend_pid() and state <> 'idle'";
    let (mut tally, begun) = (Tally::default(), Instant::now());
    while begun.elapsed() < time {
        thread::sleep(Duration::from_millis(20));
        if end == End::Terminations && random.random_bool(0.2) {
            let sql = format!(
                "select count(pg_terminate_backend(pid)) from
                   (select pid {OTHERS} order by random() limit 1) as one"
            );
            let count: i64 = admin.query_one(&sql, &[])?.get(0);
            tally.add("backends terminated", count as u64);
        }
    }
    match end {
        End::BackendKilled => {
            if let Some(row) = admin.query_opt(&format!("select pid {OTHERS} limit 1"), &[])? {
                cluster.kill_backend(row.get(0));
                tally.add("backends killed", 1);
            }
        }
        End::PostmasterKilled => {
            cluster.signal_server(Stop::Kill);
            tally.add("postmasters killed", 1);
        }
        End::Calm | End::Terminations => {}
    }
    Ok(tally)
}

fn yielded(client: &mut Client) -> Result<u64> {
    let sql = "select value from sync_ext.counter where counter = 'pushes_yielded'";
    let count: i64 = client.query_one(sql, &[])?.get(0);
    Ok(count as u64)
}

fn check(cluster: &Cluster, tally: &mut Tally) -> Result<()> {
    let mut client = cluster.connect(DATABASE)?;
    let found = differences(&mut client);
    ensure!(found.is_empty(), "log and tables differ: {found:#?}");
    let sql = "select sum(head)::bigint from sync_ext.workspace";
    let entries: i64 = client.query_one(sql, &[])?.get(0);
    tally.add("comparisons of log and tables", 1);
    tally.add("differences", 0);
    ensure!(entries > 0, "nothing was logged");
    Ok(())
}

fn workspace(random: &mut StdRng) -> String {
    format!("w{}", random.random_range(0..WORKSPACES))
}

fn list(workspace: &str, random: &mut StdRng) -> String {
    format!("{workspace} list {}", random.random_range(0..LISTS))
}

fn task(workspace: &str, random: &mut StdRng) -> String {
    format!("{workspace} task {}", random.random_range(0..TASKS))
}
