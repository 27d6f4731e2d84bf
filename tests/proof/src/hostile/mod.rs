//! Hostile input: batches that are valid, nearly valid and not valid at all,
//! and hostile arguments to every other function, over one real connection.
//!
//! A run makes batches from a seed: good ops, some of them changed (values
//! swapped for others, keys dropped, doubled, respelled, escaped, moved between
//! op and stamp; strings of every kind of Unicode and escape; numbers of every
//! size and form), and one text in seven torn (cut, bits flipped, parts doubled
//! or lost). Of every call it holds that
//!
//! * it ends by a reply or by an error of [`allowed`], and exactly by the one
//!   that the model demands of this input, or Postgres itself of the text;
//! * the backend lives: one connection makes the whole run, and it is never
//!   opened again; the server logs those errors and nothing else;
//! * `results[i]` belongs to `ops[i]` and echoes its opId; each is a success
//!   where the op is good, whatever its neighbours are, else it has the
//!   errorCode of the contract;
//! * the reply is the model's, and so is every row, in bulk, byte for byte;
//! * a token that the server did not make, or not for this, is never served;
//!   only one that is forged by the rules of ours may be, and does no harm.
//!
//! * [`value`]: texts and JSON values that are easily misread
//! * [`generate`]: batches; [`arguments`], [`calls`]: the other functions
//! * [`pulling`]: pulls and exchanges; [`operating`]: what operators call
//! * [`governing`], [`owning`]: users, members, workspaces, private records
//! * [`push`], [`allowed`]: what must come of them
//! * [`shrink`]: the smallest batch that still shows a violation
//! * [`large`]: inputs of up to a gigabyte, and the memory that they take

mod allowed;
mod arguments;
mod calls;
mod generate;
mod governing;
pub mod large;
mod operating;
mod owning;
mod pulling;
mod push;
mod shrink;
mod value;

use anyhow::{Context, Error, Result, anyhow, ensure};
use postgres::Client;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sync_ext_harness::cluster::Cluster;

use crate::common::backend::Backend;
use crate::common::log_file::LogFile;
use crate::common::tally::Tally;
use arguments::Kept;
use generate::{Batch, Past, TABLES, scope_field};
use push::Pusher;

/// For the cluster.
pub use crate::common::log_file::SETTINGS;

/// The settings that the run makes: cheap to exceed.
const MAX_OPS: usize = 40;
const MAX_PAYLOAD: usize = 2048;
const MAX_DEPTH: usize = 4;

/// Batches between two comparisons of the log.
const BULK: u64 = 250;

/// Pushes `batches` hostile batches into a database of its own, with a call of
/// another function after every second one. The cluster must have [`SETTINGS`].
pub fn run(cluster: &Cluster, seed: u64, batches: u64) -> Result<Tally> {
    prepare(cluster, "hostile")?;
    attack(cluster, "hostile", seed, batches)
}

/// A database with settings that are cheap to exceed.
pub fn prepare(cluster: &Cluster, database: &str) -> Result<Client> {
    let mut client = cluster.create_database(database)?;
    for (table, pk_field) in TABLES {
        let sql = "select sync_register_table($1, $2, patches => true, scope_field => $3)";
        client.execute(sql, &[&table, &pk_field, &scope_field(table)])?;
    }
    client.batch_execute(&format!(
        "alter database {database} set sync_ext.max_ops_per_push = {};
         alter database {database} set sync_ext.max_payload_bytes = {};
         alter database {database} set sync_ext.max_payload_depth = {}",
        MAX_OPS, MAX_PAYLOAD, MAX_DEPTH
    ))?;
    Ok(client)
}

/// The run, in a database that [`prepare`] made.
pub fn attack(cluster: &Cluster, database: &str, seed: u64, batches: u64) -> Result<Tally> {
    let mut random = StdRng::seed_from_u64(seed);
    let log = LogFile::new(cluster);
    let mut pusher = Pusher::new(cluster.connect(database)?)?;
    let backend = Backend::of(&mut pusher.client)?;
    let (mut past, mut kept, mut tally) = (Past::default(), Kept::default(), Tally::default());
    // What was pushed since the last comparison.
    let mut recent: Vec<(Option<String>, Batch)> = Vec::new();
    for number in 0..batches {
        let batch = generate::batch(&mut random, &mut past, MAX_OPS);
        let workspace = arguments::workspace(&mut random);
        let as_text = number % 2 == 0;
        recent.push((workspace, batch));
        let (workspace, batch) = &recent[recent.len() - 1];
        let mut done = pusher.push_batch(workspace.as_deref(), batch, as_text, &mut tally);
        if done.is_ok() && number % 2 == 1 {
            done = calls::call(&mut pusher, &mut kept, &mut random, &mut tally);
        }
        if done.is_ok() && (number % BULK == BULK - 1 || number + 1 == batches) {
            done = pusher.compare_logs();
            if done.is_ok() {
                recent.clear();
            }
        }
        if let Err(error) = done {
            return Err(reproducible(cluster, database, seed, number, &recent, error));
        }
    }
    let mut end = || {
        pusher.compare()?;
        ensure!(Backend::of(&mut pusher.client)?.pid() == backend.pid(), "another backend");
        log.expect_only(cluster, backend.pid(), &allowed::codes())
    };
    let errors = end().with_context(|| format!("seed {seed}, after batch {batches}"))?;
    tally.add("errors logged", errors);
    Ok(tally)
}

/// The violation with its seed and, if one of the last batches is to blame, the
/// smallest that shows a violation by itself, in a workspace of its own.
fn reproducible(
    cluster: &Cluster,
    database: &str,
    seed: u64,
    number: u64,
    suspects: &[(Option<String>, Batch)],
    error: Error,
) -> Error {
    let (mut attempt, mut session) = (0, None);
    let mut violation = |text: &[u8]| {
        attempt += 1;
        alone(cluster, database, &mut session, &format!("alone {attempt}"), text).err()
    };
    let culprit = suspects.iter().find(|(_, batch)| violation(&batch.text).is_some());
    let shown = match culprit {
        Some((_, batch)) => {
            let smallest = shrink::smallest(&batch.text, |text| violation(text).is_some());
            let what = violation(&smallest).map(|error| format!("{error:#}"));
            format!(
                "the smallest batch that shows a violation: {:?} ({})",
                String::from_utf8_lossy(&smallest),
                what.unwrap_or_default()
            )
        }
        None => {
            let last = suspects.last().map(|(_, batch)| String::from_utf8_lossy(&batch.text));
            format!("no batch shows it by itself; the last was {last:?}")
        }
    };
    anyhow!("seed {seed}, batch {number}: {error:#}\n{shown}")
}

/// One batch in a new workspace; by a new connection if the last was lost.
fn alone(
    cluster: &Cluster,
    database: &str,
    session: &mut Option<Pusher>,
    workspace: &str,
    text: &[u8],
) -> Result<()> {
    let mut pusher = match session.take() {
        Some(pusher) => pusher,
        None => Pusher::new(connect_again(cluster, database)?)?,
    };
    let pushed = pusher
        .push(Some(workspace), text, true, &mut Tally::default())
        .and_then(|()| pusher.compare_log(workspace));
    if !pusher.client.is_closed() {
        *session = Some(pusher);
    }
    pushed
}

/// After a crash the server needs a moment.
fn connect_again(cluster: &Cluster, database: &str) -> Result<Client> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        match cluster.connect(database) {
            Ok(client) => return Ok(client),
            Err(error) if std::time::Instant::now() > deadline => return Err(error.into()),
            Err(_) => std::thread::yield_now(),
        }
    }
}
