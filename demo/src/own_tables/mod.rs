//! An app with typed tables of its own: devices push to the rows that its backend
//! changes by plain SQL, at the same time. At the end the tables, the records and every
//! device must be equal.
//!
//! * `phone`: devices, whose ops are partly bad on purpose
//! * `backend`: plain SQL, of which no COMMIT may fail
//! * `checks`: tables, records and devices, compared
//! * `report`: what was done, counted

mod backend;
mod checks;
mod phone;
mod report;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use postgres::Client;
use rand::Rng;
use rand::rngs::StdRng;

use backend::Backend;
use phone::Phone;
use report::Report;

/// The counter of pushes that yielded needs the library in the server.
pub const SETTING: &str = "shared_preload_libraries=sync_ext";
pub const TABLES: &str = include_str!("tables.sql");

const WORKSPACES: [&str; 3] = ["home", "work", "club"];
const PHONES: u64 = 6;
const BACKENDS: u64 = 3;
/// Of each workspace; few, so that sessions meet.
const LISTS: u64 = 5;
const TODOS: u64 = 20;
const COMMENTS: u64 = 20;

/// Makes a connection of a role to the database that has [`TABLES`].
pub type Connect<'c> = &'c (dyn Fn(&str) -> Result<Client> + Sync);

pub fn run(connect: Connect<'_>, seed: u64, time: Duration) -> Result<()> {
    let mut phones = Vec::new();
    for number in 0..PHONES {
        phones.push(Phone::new(number, seed, connect("device")?));
    }
    let mut backends = Vec::new();
    for number in 0..BACKENDS {
        backends.push(Backend::new(number, seed, connect("postgres")?));
    }
    let mut report = Report::default();
    for part in work(&mut phones, &mut backends, Instant::now() + time) {
        report.join(part?);
    }
    for phone in &mut phones {
        report.join(phone.push_to_the_end()?);
    }
    for phone in &mut phones {
        phone.pull_to_the_end()?;
    }
    let mut client = connect("postgres")?;
    checks::count(&mut client, &mut report)?;
    report.print();
    checks::compare(&mut client, &phones)?;
    report.check()
}

/// All at once, until the deadline.
fn work(phones: &mut [Phone], backends: &mut [Backend], until: Instant) -> Vec<Result<Report>> {
    thread::scope(|scope| {
        let phones = phones.iter_mut().map(|one| scope.spawn(move || one.work(until)));
        let mut sessions: Vec<_> = phones.collect();
        sessions.extend(backends.iter_mut().map(|one| scope.spawn(move || one.work(until))));
        let panicked = |_| bail!("a session panicked");
        sessions.into_iter().map(|session| session.join().unwrap_or_else(panicked)).collect()
    })
}

fn list(workspace: &str, random: &mut StdRng) -> String {
    format!("{workspace} list {}", random.random_range(0..LISTS))
}

fn todo(workspace: &str, random: &mut StdRng) -> String {
    format!("{workspace} todo {}", random.random_range(0..TODOS))
}

fn comment(workspace: &str, random: &mut StdRng) -> String {
    format!("{workspace} comment {}", random.random_range(0..COMMENTS))
}
