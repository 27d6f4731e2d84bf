//! Histories: steps made from a seed, each complete in itself, so that a
//! history can be cut down and still be run.

use std::collections::BTreeSet;
use std::fmt;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

pub const WORKSPACES: usize = 3;
pub const DEVICES: usize = 7;
pub const SESSIONS: usize = 4;
pub const TABLES: [&str; 3] = ["notes", "Tasks", "files"];
/// Of records, and lists of them; the first one is that of records without one.
pub const SCOPES: [&str; 4] = ["", "a", "B", "é"];
/// The fields that may name them.
pub const IN: &str = "in";
pub const AT: &str = "at";
/// In no locale's order but that of bytes.
pub const PKS: [&str; 5] = ["a", "B", "é", "Z\"z", "日本"];

/// One thing that happens, and how many minutes after the one before.
#[derive(Clone)]
pub struct Step {
    pub minutes: i64,
    pub action: Action,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{} min {:?}", self.minutes, self.action)
    }
}

/// Whom and what it is about are numbers, taken modulo what there is.
#[derive(Clone, Debug)]
pub enum Action {
    Edit {
        device: usize,
        table: usize,
        pk: usize,
        delete: bool,
        text: u64,
    },
    Push {
        device: usize,
        session: usize,
        push: Push,
    },
    /// A transaction at this level takes its snapshot and stays open.
    Begin {
        session: usize,
        level: Level,
    },
    End {
        session: usize,
        how: End,
    },
    Pull {
        device: usize,
        session: usize,
        page: Page,
        lose: bool,
    },
    /// A device starts with a snapshot of its own accord.
    Snapshot {
        device: usize,
    },
    Acknowledge {
        device: usize,
        session: usize,
    },
    Gc {
        session: usize,
        workspace: Option<usize>,
        batch_size: i64,
        silent: bool,
    },
    Offline {
        device: usize,
        days: i64,
    },
    WrongClock {
        device: usize,
        days: i64,
        jump: i64,
    },
    Reinstall {
        device: usize,
        by_snapshot: bool,
    },
    /// The device leaves its workspace alone and syncs some tables only.
    Filter {
        device: usize,
        tables: usize,
    },
    Register {
        table: usize,
        patches: bool,
    },
    Unregister {
        table: usize,
    },
    /// The device asks for these scopes; `None` for the whole workspace.
    Follow {
        device: usize,
        scopes: Option<usize>,
    },
    /// Another field, or none, names the scopes of a table.
    SetScopeField {
        table: usize,
        field: Option<&'static str>,
    },
    KillServer,
    Backup,
    Restore,
}

/// The list of those scopes whose bits are set.
pub fn scopes_of(mask: usize) -> BTreeSet<String> {
    let chosen = SCOPES.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1);
    chosen.map(|(_, scope)| (*scope).to_owned()).collect()
}

/// What a pull wants of a page.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub limit: i64,
    pub latest: bool,
}

#[derive(Clone, Debug)]
pub struct Push {
    pub level: Level,
    /// Left open after the push, for `End` to decide; else committed at once.
    pub hold: bool,
    /// At most so many ops of the outbox.
    pub cut: usize,
    pub order: Order,
    /// Ops that were answered already are sent again too.
    pub again: bool,
    pub loose: bool,
    pub extra: Extra,
    /// The reply never arrives.
    pub lose: bool,
    /// A whole round in one call, with this page, where the device may pull.
    pub exchange: Option<Page>,
}

impl Push {
    /// The whole outbox, without faults.
    pub fn plain() -> Push {
        Push {
            level: Level::ReadCommitted,
            hold: false,
            cut: usize::MAX,
            order: Order::AsMade,
            again: false,
            loose: false,
            extra: Extra::Nothing,
            lose: false,
            exchange: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

impl Level {
    pub fn sql(self) -> &'static str {
        match self {
            Level::ReadCommitted => "read committed",
            Level::RepeatableRead => "repeatable read",
            Level::Serializable => "serializable",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    AsMade,
    Backwards,
    Rotated(usize),
}

/// What a batch holds besides the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    Nothing,
    Malformed(usize),
    /// One of the ops once more.
    Twice(usize),
    /// One of the ops once more, with other content.
    TwiceDifferent(usize),
    /// The opId of an op of the log, with other content.
    Forged(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Commit,
    /// It commits, but nobody hears of it.
    CommitUnheard,
    Rollback,
    Terminate,
}

/// Long histories differ in temper: how much is deleted, how often GC comes,
/// how crowded the records are.
struct Temper {
    deletes: f64,
    crowd: usize,
    weights: Vec<(u32, Kind)>,
}

#[derive(Clone, Copy)]
enum Kind {
    Edit,
    Push,
    Begin,
    End,
    Pull,
    Snapshot,
    Acknowledge,
    Gc,
    Offline,
    WrongClock,
    Reinstall,
    Filter,
    Registry,
    Follow,
    SetScopeField,
    KillServer,
    Backup,
    Restore,
}

impl Temper {
    fn new(random: &mut StdRng) -> Temper {
        let gc = *[1, 5, 12].choose(random).unwrap_or(&5);
        let weights = vec![
            (30, Kind::Edit),
            (26, Kind::Push),
            (2, Kind::Begin),
            (12, Kind::End),
            (26, Kind::Pull),
            (1, Kind::Snapshot),
            (10, Kind::Acknowledge),
            (gc, Kind::Gc),
            (2, Kind::Offline),
            (1, Kind::WrongClock),
            (1, Kind::Reinstall),
            (1, Kind::Filter),
            (1, Kind::Registry),
            (5, Kind::Follow),
            (*[0, 1].choose(random).unwrap_or(&1), Kind::SetScopeField),
        ];
        let mut temper = Temper {
            deletes: *[0.1, 0.3, 0.6].choose(random).unwrap_or(&0.3),
            crowd: *[1, 4, 15].choose(random).unwrap_or(&4),
            weights,
        };
        // Rare, and not in all histories: each costs the time of many others.
        if random.random_bool(0.5) {
            temper.weights.iter_mut().for_each(|(weight, _)| *weight *= 10);
            temper.weights.extend([(3, Kind::KillServer), (5, Kind::Backup), (4, Kind::Restore)]);
        }
        temper
    }
}

pub fn history(seed: u64, steps: usize) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let temper = Temper::new(&mut random);
    (0..steps)
        .map(|_| Step { minutes: minutes(&mut random), action: action(&mut random, &temper) })
        .collect()
}

fn minutes(random: &mut StdRng) -> i64 {
    match random.random_range(0..100) {
        0..80 => random.random_range(1..60),
        80..97 => random.random_range(1..2 * 24 * 60),
        _ => random.random_range(1..40 * 24 * 60),
    }
}

fn action(random: &mut StdRng, temper: &Temper) -> Action {
    let (device, session) = (random.random_range(0..DEVICES), random.random_range(0..SESSIONS));
    let kind = temper.weights.choose_weighted(random, |(weight, _)| *weight);
    match kind.map_or(Kind::Edit, |(_, kind)| *kind) {
        Kind::Edit => edit(random, temper, device),
        Kind::Push => Action::Push { device, session, push: push(random) },
        Kind::Begin => Action::Begin { session, level: level(random, 0.0) },
        Kind::End => Action::End { session, how: end(random) },
        Kind::Pull => {
            Action::Pull { device, session, page: page(random), lose: random.random_bool(0.1) }
        }
        Kind::Snapshot => Action::Snapshot { device },
        Kind::Acknowledge => Action::Acknowledge { device, session },
        Kind::Gc => Action::Gc {
            session,
            workspace: random.random_bool(0.8).then(|| random.random_range(0..WORKSPACES)),
            batch_size: *[1, 3, 10, 10_000].choose(random).unwrap_or(&10),
            silent: random.random_bool(0.03),
        },
        Kind::Offline => Action::Offline { device, days: random.random_range(1..150) },
        Kind::WrongClock => Action::WrongClock {
            device,
            days: random.random_range(-4000..4000),
            jump: random.random_range(0..100),
        },
        Kind::Reinstall => Action::Reinstall { device, by_snapshot: random.random() },
        Kind::Filter => Action::Filter { device, tables: random.random_range(0..8) },
        Kind::Registry if random.random_bool(0.3) => {
            Action::Unregister { table: random.random_range(0..3) }
        }
        Kind::Registry => {
            Action::Register { table: random.random_range(0..3), patches: random.random_bool(0.8) }
        }
        Kind::Follow => Action::Follow {
            device,
            scopes: random.random_bool(0.9).then(|| random.random_range(0..1 << SCOPES.len())),
        },
        Kind::SetScopeField => Action::SetScopeField {
            table: random.random_range(0..3),
            field: [None, Some(IN), Some(IN), Some(AT)].choose(random).copied().flatten(),
        },
        Kind::KillServer => Action::KillServer,
        Kind::Backup => Action::Backup,
        Kind::Restore => Action::Restore,
    }
}

fn edit(random: &mut StdRng, temper: &Temper, device: usize) -> Action {
    let record = random.random_range(0..temper.crowd);
    Action::Edit {
        device,
        table: record % TABLES.len(),
        pk: record / TABLES.len(),
        delete: random.random_bool(temper.deletes),
        text: random.random(),
    }
}

fn page(random: &mut StdRng) -> Page {
    Page { limit: *[1, 2, 5, 1000].choose(random).unwrap_or(&5), latest: random.random_bool(0.4) }
}

fn push(random: &mut StdRng) -> Push {
    let place = random.random_range(0..20);
    Push {
        level: level(random, 0.8),
        hold: random.random_bool(0.3),
        cut: *[1, 2, 5, 1000, 1000].choose(random).unwrap_or(&5),
        order: match random.random_range(0..6) {
            0 => Order::Backwards,
            1 => Order::Rotated(place),
            _ => Order::AsMade,
        },
        again: random.random_bool(0.2),
        loose: random.random_bool(0.3),
        extra: match random.random_range(0..20) {
            0 | 1 => Extra::Malformed(place),
            2 | 3 => Extra::Twice(place),
            4 => Extra::TwiceDifferent(place),
            5 => Extra::Forged(place),
            _ => Extra::Nothing,
        },
        lose: random.random_bool(0.15),
        exchange: random.random_bool(0.4).then(|| page(random)),
    }
}

fn level(random: &mut StdRng, read_committed: f64) -> Level {
    if random.random_bool(read_committed) {
        Level::ReadCommitted
    } else if random.random() {
        Level::RepeatableRead
    } else {
        Level::Serializable
    }
}

fn end(random: &mut StdRng) -> End {
    match random.random_range(0..10) {
        0..5 => End::Commit,
        5 | 6 => End::CommitUnheard,
        7 | 8 => End::Rollback,
        _ => End::Terminate,
    }
}
