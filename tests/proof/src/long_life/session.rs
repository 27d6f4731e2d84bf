//! One session that makes very many calls, of every function and in every way:
//! by prepared statements, by statements prepared for one call, in simple
//! queries, in PL/pgSQL with and without an exception block, in savepoints that
//! are rolled back; as a trusted caller and as a user; replays, conflicts, refusals
//! and errors among them.
//!
//! Memory is read twice, after a tenth of the rounds and at the end:
//!
//! * the sum of `total_bytes` over pg_backend_memory_contexts, asked for by the
//!   session itself, between transactions. Postgres 18 was seen to take one piece
//!   of 12 kB in its topmost context, once in 16,000 calls, and in most sessions
//!   never: room for that is all that is allowed, [`CONTEXT_GROWTH`];
//! * the process' own memory as the kernel counts it (RssAnon: neither shared
//!   buffers nor files), which also has what Rust allocates and Postgres does
//!   not see. [`OWN_GROWTH`] is allowed for a heap that falls to pieces.
//!
//! With 100,000 rounds of two and more calls each, a leak of one byte per call
//! is above both; there the contexts did not grow by a byte, and the process by
//! 32 kB at most. The server's log may hold the errors that were provoked, and
//! nothing else.

use anyhow::{Context, Result, ensure};
use postgres::types::ToSql;
use postgres::{Client, Statement};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use sync_ext_harness::batch::{delete, put};
use sync_ext_harness::cluster::Cluster;

use crate::common::backend::{Backend, context_bytes};
use crate::common::log_file::LogFile;
use crate::common::tally::Tally;

/// For the cluster.
pub use crate::common::log_file::SETTINGS;

/// Bytes that the contexts may grow by.
pub const CONTEXT_GROWTH: i64 = 16 * 1024;
/// Bytes that the process may grow by.
pub const OWN_GROWTH: u64 = 64 * 1024;

const RECORDS: u64 = 500;
const DATABASE: &str = "session";
/// What is provoked: wrong arguments, ops that are no JSON, too many, and what a
/// user may not do.
const PROVOKED: [&str; 5] = ["22023", "22P02", "54000", "42501", "SX003"];

const CALLS: &str = "
create function push_or_code(workspace_id text, ops text) returns text language plpgsql as $$
begin
  return sync_push(workspace_id, ops::json);
exception when others then
  return sqlstate;
end
$$;
create function push_and_undo(workspace_id text, ops text) returns void language plpgsql as $$
begin
  perform sync_push(workspace_id, ops::json);
  raise division_by_zero;
exception when division_by_zero then
  null;
end
$$;";

/// Makes `rounds` pushes and as many pulls, and the rest in proportion. The
/// cluster must have [`SETTINGS`].
pub fn run(cluster: &Cluster, seed: u64, rounds: u64) -> Result<Tally> {
    prepare(cluster)?;
    measure(cluster, seed, rounds)
}

pub fn prepare(cluster: &Cluster) -> Result<Client> {
    let mut client = cluster.create_database(DATABASE)?;
    client.batch_execute(
        "select sync_register_table('notes'), sync_create_workspace('w', 'ann');
         create function role_of(text, text) returns text language sql
           as $$ select 'owner'::text $$",
    )?;
    client.batch_execute(CALLS)?;
    Ok(client)
}

/// The run, in the database that [`prepare`] made.
pub fn measure(cluster: &Cluster, seed: u64, rounds: u64) -> Result<Tally> {
    let mut admin = cluster.connect(DATABASE)?;
    let log = LogFile::new(cluster);
    let mut session = Session::new(cluster.connect(DATABASE)?, seed)?;
    let backend = Backend::of(&mut session.client)?;
    let warm_up = (rounds / 10).max(1000).min(rounds);
    let mut before = None;
    for round in 0..rounds {
        if round == warm_up {
            before = Some((context_bytes(&mut session.client)?, backend.own()?));
        }
        session
            .round(&mut admin, round)
            .with_context(|| format!("seed {seed}, round {round} of {rounds}"))?;
    }
    let (contexts, own) = before.context("too few rounds")?;
    let contexts = context_bytes(&mut session.client)? - contexts;
    let own = backend.own()?.saturating_sub(own);
    ensure!(
        contexts <= CONTEXT_GROWTH && own <= OWN_GROWTH,
        "seed {seed}: in {} rounds the contexts grew by {contexts} bytes, the process by {own}",
        rounds - warm_up
    );
    let errors = log
        .expect_only(cluster, backend.pid(), &PROVOKED)
        .with_context(|| format!("seed {seed}"))?;
    session.tally.add("errors logged", errors);
    session.tally.add("bytes that the contexts grew by", contexts.max(0) as u64);
    session.tally.add("bytes that the process grew by", own);
    Ok(session.tally)
}

struct Session {
    client: Client,
    random: StdRng,
    push: Statement,
    pull: Statement,
    acknowledge: Statement,
    /// Batches to be pushed again.
    past: Vec<String>,
    next_id: u64,
    head: i64,
    proof: Option<String>,
    tally: Tally,
}

impl Session {
    fn new(mut client: Client, seed: u64) -> Result<Session> {
        Ok(Session {
            push: client.prepare("select sync_push('w', $1::text::json)::text")?,
            pull: client.prepare("select sync_pull('w', $1, $2, null, $3, $4)::text")?,
            acknowledge: client.prepare("select sync_update_cursor('w', $1, $2)::text")?,
            client,
            random: StdRng::seed_from_u64(seed),
            past: Vec::new(),
            next_id: 1,
            head: 0,
            proof: None,
            tally: Tally::default(),
        })
    }

    fn round(&mut self, admin: &mut Client, round: u64) -> Result<()> {
        if round.is_multiple_of(10) {
            self.speak(round / 10)?;
        }
        self.push(round)?;
        self.pull(round)?;
        if round % 10 == 3 {
            self.acknowledge(round)?;
        }
        if round % 20 == 7 {
            self.provoke(round)?;
        }
        if round % 50 == 11 {
            self.snapshot()?;
        }
        if round % 50 == 31 {
            self.govern()?;
        }
        if round % 100 == 99 {
            self.collect(admin, round)?;
        }
        Ok(())
    }

    /// From now on as a trusted caller, or as a user by this or that setting, whose
    /// role is in our table or comes from a function.
    fn speak(&mut self, turn: u64) -> Result<()> {
        let (user, claims, function) = match turn % 4 {
            0 => ("", "", ""),
            1 => ("ann", "", ""),
            2 => ("", r#"{"role":"web","sub":"ann"}"#, ""),
            _ => ("ann", "", "public.role_of"),
        };
        let sql = "select set_config('sync_ext.user_id', $1, false),
                          set_config('request.jwt.claims', $2, false),
                          set_config('sync_ext.membership_function', $3, false)";
        self.client.query(sql, &[&user, &claims, &function])?;
        Ok(())
    }

    /// A workspace is made and dropped, and what there is to be seen is read.
    fn govern(&mut self) -> Result<()> {
        let sql = "select case current_setting('sync_ext.membership_function') when '' then
                     format('%s%s%s%s', sync_create_workspace('v', 'ann'),
                       sync_set_member('v', 'bob', 'owner'), sync_remove_member('v', 'bob'),
                       sync_drop_workspace('v')) end,
                   sync_list_workspaces()::text, (select count(*) from sync_ext.current_record)";
        self.client.query_one(sql, &[])?;
        self.tally.add("workspaces made and dropped, or only listed", 1);
        Ok(())
    }

    /// New ops of known records, at times an opId with other content.
    fn batch(&mut self) -> String {
        let count = *[1, 1, 2, 5, 12].choose(&mut self.random).unwrap_or(&1);
        let ops: Vec<String> = (0..count)
            .map(|_| {
                self.next_id += 1;
                let id =
                    if self.random.random_bool(0.02) { self.next_id / 2 } else { self.next_id };
                let pk = self.random.random_range(0..RECORDS).to_string();
                let clock = self.random.random_range(0..1 + self.next_id);
                match self.random.random_range(0..20) {
                    0..=2 => delete(id, &pk, clock),
                    3 => put(id, "", clock),
                    4 => put(id, &pk, clock).replace("notes", "unknown"),
                    _ => put(id, &pk, clock),
                }
            })
            .collect();
        format!("[{}]", ops.join(","))
    }

    fn push(&mut self, round: u64) -> Result<()> {
        let ops = match self.random.random_range(0..4) {
            0 if !self.past.is_empty() => {
                self.past.choose(&mut self.random).cloned().unwrap_or_default()
            }
            _ => self.batch(),
        };
        self.past.push(ops.clone());
        if self.past.len() > 20 {
            self.past.remove(0);
        }
        let reply: String = match round % 8 {
            1 => self.client.query_one("select push_or_code('w', $1)", &[&ops])?.get(0),
            3 => self
                .client
                .query_one("select sync_push('w', $1::text::json)::text", &[&ops])?
                .get(0),
            5 => {
                let sql = "select push_and_undo('w', $1)";
                self.client.query(sql, &[&ops])?;
                let mut transaction = self.client.transaction()?;
                let mut savepoint = transaction.transaction()?;
                savepoint.query(&self.push, &[&ops])?;
                savepoint.rollback()?;
                let reply = transaction.query_one(&self.push, &[&ops])?.get(0);
                transaction.commit()?;
                reply
            }
            7 => {
                let sql = format!(
                    "prepare p as select sync_push('w', $1); execute p('{ops}'); deallocate p"
                );
                self.client.simple_query(&sql)?;
                self.client.query_one(&self.push, &[&ops])?.get(0)
            }
            _ => self.client.query_one(&self.push, &[&ops])?.get(0),
        };
        let reply: Value = serde_json::from_str(&reply)?;
        let results = reply["results"].as_array().context("no results")?;
        for result in results {
            let fate = match (result["success"].as_bool(), result["replayed"].as_bool()) {
                (Some(true), Some(true)) => "ops replayed",
                (Some(true), _) => "ops stored",
                _ if result["errorCode"] == "CONFLICT" => "ops in conflict",
                _ => "ops refused",
            };
            self.tally.add(fate, 1);
        }
        self.head = reply["serverVersion"].as_i64().context("no head")?;
        self.tally.add("pushes", 1);
        Ok(())
    }

    fn pull(&mut self, round: u64) -> Result<()> {
        let cursor = (self.head - self.random.random_range(0..200)).max(0);
        let (limit, latest) = (self.random.random_range(1..60), round.is_multiple_of(3));
        let reply: String = match round % 5 {
            4 => {
                let sql = "select sync_pull('w', $1, $2, array['notes', null])::text";
                self.client.query_one(sql, &[&cursor, &limit])?.get(0)
            }
            _ => {
                let arguments: [&(dyn ToSql + Sync); 4] = [&cursor, &limit, &latest, &self.proof];
                self.client.query_one(&self.pull, &arguments)?.get(0)
            }
        };
        let reply: Value = serde_json::from_str(&reply)?;
        if reply["requiresSnapshot"] == true {
            self.tally.add("pulls answered with requiresSnapshot", 1);
            self.proof = None;
        } else if reply["hasMore"] == false {
            self.proof = reply["proof"].as_str().map(str::to_owned);
        }
        self.tally.add("pulls", 1);
        Ok(())
    }

    fn acknowledge(&mut self, round: u64) -> Result<()> {
        let device = format!("device {}", round % 7);
        self.client.query_one(&self.acknowledge, &[&device, &self.head])?;
        self.tally.add("acknowledgements", 1);
        Ok(())
    }

    fn snapshot(&mut self) -> Result<()> {
        let sql = "select sync_snapshot('w', $1, 200)::text";
        let mut token: Option<String> = None;
        loop {
            let reply: String = self.client.query_one(sql, &[&token])?.get(0);
            let reply: Value = serde_json::from_str(&reply)?;
            token = reply["nextPageToken"].as_str().map(str::to_owned);
            self.tally.add("snapshot pages", 1);
            if token.is_none() {
                return Ok(());
            }
        }
    }

    /// Errors: by themselves, in an exception block, in a savepoint.
    fn provoke(&mut self, round: u64) -> Result<()> {
        let too_many = format!("[{}]", vec!["{}"; 1001].join(","));
        let (ops, code) = *[("{}", "22023"), ("[{]", "22P02"), (too_many.as_str(), "54000")]
            .choose(&mut self.random)
            .context("three of them")?;
        let caught: String = self.client.query_one("select push_or_code('w', $1)", &[&ops])?.get(0);
        ensure!(caught == code, "{caught} where {code} is due");

        let good = format!("[{}]", put(1, "0", 0));
        let mut transaction = self.client.transaction()?;
        let mut savepoint = transaction.transaction()?;
        let error = savepoint.query(&self.push, &[&ops]).err().context("refused")?;
        ensure!(error.code().is_some_and(|found| found.code() == code), "{error}");
        savepoint.rollback()?;
        transaction.query_one(&self.push, &[&good])?;
        transaction.commit()?;

        let sql = [
            "select sync_pull('w', -1)",
            "select sync_pull('w', 0, proof => 'p1.1.0')",
            "select sync_snapshot('w', 's1.0.0')",
            "select sync_update_cursor('w', 'd', 9000000000)",
            "select sync_gc('w', '1 second')",
            "select sync_register_table('')",
        ][(round / 20 % 6) as usize];
        ensure!(self.client.query(sql, &[]).is_err(), "{sql} was answered");
        self.tally.add("errors provoked", 3);
        Ok(())
    }

    /// Everything that is there becomes old first; what was proved is no more.
    fn collect(&mut self, admin: &mut Client, round: u64) -> Result<()> {
        if round % 500 == 499 {
            let sql = "update sync_ext.change_log set created_at = created_at - interval '40 days'
                        where created_at > now() - interval '1 day'";
            admin.execute(sql, &[])?;
            self.proof = None;
        }
        let reply: String =
            self.client.query_one("select sync_gc('w', batch_size => 700)::text", &[])?.get(0);
        let reply: Value = serde_json::from_str(&reply)?;
        let purged = reply["changesDeleted"].as_u64().context("a count")?;
        self.tally.add("changes purged", purged);
        self.tally.add("GC calls", 1);
        Ok(())
    }
}
