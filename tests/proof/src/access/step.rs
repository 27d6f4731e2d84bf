//! Histories out of seeds. A history is data that stands for itself: each of
//! its steps means something without those before it, so that it can be shortened.

use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use sync_ext_model::Role;

use super::op::{Item, TABLES};
use super::ops::Pen;

/// One of them could be a number.
pub const USERS: [&str; 5] = ["ann", "bob", "vic", "eve", "7"];
pub const WORKSPACES: [&str; 3] = ["w1", "w2", "w3"];
pub const DEVICES: [&str; 2] = ["phone", "laptop"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// No user, where none is required.
    Trusted,
    /// No user, where one is.
    Nobody,
    User(&'static str),
}

impl Who {
    pub fn user(self) -> Option<&'static str> {
        match self {
            Who::User(user) => Some(user),
            _ => None,
        }
    }
}

/// How the session says whom it speaks for.
#[derive(Clone, Copy, Debug)]
pub enum Via {
    Setting,
    Claims,
    /// A setting, and claims that say otherwise and do not count.
    Both,
}

#[derive(Clone, Debug)]
pub struct Step {
    pub who: Who,
    pub via: Via,
    pub action: Action,
}

pub type Name = &'static str;

#[derive(Clone, Debug)]
pub enum Action {
    Push {
        workspace: Name,
        items: Vec<Item>,
    },
    Pull(Read),
    /// A push, and the pull, by a device.
    Exchange {
        device: Name,
        items: Vec<Item>,
        read: Read,
    },
    Snapshot {
        workspace: Name,
        limit: i64,
        filter: Names,
    },
    /// Goes on from a page token, the newest first.
    GoOn {
        token: usize,
        with: GoOn,
    },
    Acknowledge {
        workspace: Name,
        device: Name,
        below_head: i64,
    },
    /// Purges what was pushed more than `keep` steps ago.
    Collect {
        workspace: Option<Name>,
        keep: i64,
        batch: i64,
    },
    Create {
        workspace: Name,
        owner: Name,
    },
    Drop {
        workspace: Name,
        batch: i64,
    },
    SetMember {
        workspace: Name,
        user: Name,
        role: Role,
    },
    RemoveMember {
        workspace: Name,
        user: Name,
    },
    List,
    /// Reads the views.
    Look,
    Status {
        workspace: Option<Name>,
    },
    /// Asks what became of one of the records, if there is any.
    Explain {
        workspace: Name,
        record: usize,
    },
    Register {
        table: Name,
        owner_field: Option<Name>,
        patches: bool,
    },
    Unregister {
        table: Name,
    },
    /// Nobody has heard of a device for so many days.
    Silence {
        workspace: Name,
        device: Name,
        days: i64,
    },
}

/// What a pull asks for.
#[derive(Clone, Debug)]
pub struct Read {
    pub workspace: Name,
    pub cursor: Cursor,
    pub limit: i64,
    pub filter: Names,
    pub latest: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Cursor {
    At(i64),
    /// One that a pull of this workspace gave, to whomever; with its proof.
    Kept {
        back: usize,
        with_proof: bool,
    },
}

/// Of tables; none for all.
pub type Names = Vec<Name>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoOn {
    /// By whom it was given to, with what it was made for.
    AsMade,
    /// By the step's caller.
    Handed,
    OtherWorkspace,
    OtherFilter,
}

/// Some workspaces with members, then anything.
pub fn history(seed: u64, steps: usize) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut pen = Pen::default();
    let mut history: Vec<Step> = beginning().into_iter().map(by_trusted).collect();
    while history.len() < steps {
        let step = step(&mut random, &mut pen);
        history.push(step);
    }
    history
}

fn by_trusted(action: Action) -> Step {
    Step { who: Who::Trusted, via: Via::Setting, action }
}

fn beginning() -> Vec<Action> {
    use Action::*;
    let member = |workspace, user, role| SetMember { workspace, user, role };
    let [w1, w2, w3] = WORKSPACES;
    vec![
        Register { table: "diary", owner_field: Some("by"), patches: true },
        Register { table: "notes", owner_field: None, patches: true },
        Register { table: "album", owner_field: Some("by"), patches: true },
        Create { workspace: w1, owner: "ann" },
        Create { workspace: w2, owner: "bob" },
        Create { workspace: w3, owner: "7" },
        member(w1, "bob", Role::Editor),
        member(w1, "vic", Role::Viewer),
        member(w1, "7", Role::Editor),
        member(w2, "ann", Role::Editor),
        member(w2, "vic", Role::Owner),
        member(w3, "ann", Role::Editor),
        member(w3, "bob", Role::Viewer),
    ]
}

/// Mostly as it was made.
const GOING_ON: [GoOn; 8] = {
    use GoOn::*;
    [AsMade, AsMade, AsMade, AsMade, AsMade, Handed, OtherWorkspace, OtherFilter]
};

fn one<T: Copy>(of: &[T], random: &mut StdRng) -> T {
    *of.choose(random).expect("not empty")
}

fn step(random: &mut StdRng, pen: &mut Pen) -> Step {
    let via = match random.random_range(0..4) {
        0 => Via::Claims,
        1 => Via::Both,
        _ => Via::Setting,
    };
    let who = match random.random_range(0..100) {
        0..15 => Who::Trusted,
        15..17 => Who::Nobody,
        // Eve is seldom a member.
        17..22 => Who::User("eve"),
        _ => Who::User(one(&USERS, random)),
    };
    let action = action(who, random, pen);
    // Mostly by those who may, or histories would come to a standstill.
    let trusted = match action {
        Action::Register { .. } | Action::Unregister { .. } => 0.8,
        Action::Collect { .. } => 0.6,
        Action::Status { .. } | Action::Explain { .. } => 0.2,
        Action::SetMember { .. } | Action::Create { .. } => 0.5,
        _ => 0.0,
    };
    let who = if random.random_bool(trusted) { Who::Trusted } else { who };
    Step { who, via, action }
}

fn action(who: Who, random: &mut StdRng, pen: &mut Pen) -> Action {
    // Mostly the first: that is where all meet.
    let workspace = one(&[WORKSPACES[0], WORKSPACES[0], WORKSPACES[1], WORKSPACES[2]], random);
    match random.random_range(0..1000) {
        0..270 => Action::Push { workspace, items: pen.batch(who, workspace, random) },
        270..340 => exchange(who, workspace, pen, random),
        340..435 => Action::Pull(read(workspace, random)),
        435..460 => Action::Explain { workspace, record: random.random_range(0..1000) },
        460..480 => Action::Status { workspace: random.random_bool(0.7).then_some(workspace) },
        480..540 => snapshot(workspace, random),
        540..650 => Action::GoOn {
            token: one(&[0, 0, 0, 0, 1, 1, 2, 4], random),
            with: one(&GOING_ON, random),
        },
        650..720 => Action::Acknowledge {
            workspace,
            device: one(&DEVICES, random),
            below_head: one(&[0, 0, 0, 1, 2, 5, 20, 1000, -1], random),
        },
        720..765 => Action::Collect {
            workspace: random.random_bool(0.7).then_some(workspace),
            keep: random.random_range(0..60),
            batch: one(&[1, 3, 10, 10_000], random),
        },
        765..830 => Action::SetMember {
            workspace,
            user: one(&USERS, random),
            role: one(&[Role::Viewer, Role::Editor, Role::Editor, Role::Owner], random),
        },
        830..865 => Action::RemoveMember { workspace, user: one(&USERS, random) },
        865..885 => Action::Create {
            workspace,
            // For themselves, mostly.
            owner: who.user().filter(|_| random.random_bool(0.8)).unwrap_or(one(&USERS, random)),
        },
        885..895 => Action::Drop { workspace, batch: one(&[1, 5, 20, 10_000], random) },
        895..915 => Action::List,
        915..955 => Action::Look,
        955..987 => register(random),
        987..990 => Action::Unregister { table: one(&TABLES, random) },
        _ => Action::Silence {
            workspace,
            device: one(&DEVICES, random),
            days: one(&[91, 181], random),
        },
    }
}

fn filter(random: &mut StdRng) -> Names {
    match random.random_range(0..10) {
        0 => vec!["album"],
        1 => vec!["notes", "diary"],
        2..4 => vec!["diary"],
        4 => vec!["nothing"],
        _ => vec![],
    }
}

fn cursor(random: &mut StdRng) -> Cursor {
    match random.random_range(0..10) {
        0..5 => Cursor::At(0),
        5 => Cursor::At(random.random_range(0..60)),
        _ => Cursor::Kept {
            back: one(&[0, 0, 1, 2, 5, 9], random),
            with_proof: random.random_bool(0.7),
        },
    }
}

fn read(workspace: Name, random: &mut StdRng) -> Read {
    let cursor = cursor(random);
    let limit = one(&[1, 2, 3, 7, 20, 1000], random);
    let (filter, latest) = (filter(random), random.random_bool(0.3));
    Read { workspace, cursor, limit, filter, latest }
}

fn exchange(who: Who, workspace: Name, pen: &mut Pen, random: &mut StdRng) -> Action {
    let items = match random.random_bool(0.8) {
        true => pen.batch(who, workspace, random),
        false => vec![],
    };
    Action::Exchange { device: one(&DEVICES, random), items, read: read(workspace, random) }
}

fn snapshot(workspace: Name, random: &mut StdRng) -> Action {
    let limit = one(&[1, 2, 3, 5, 8, 1000], random);
    Action::Snapshot { workspace, limit, filter: filter(random) }
}

/// The diary is always private; by which field may change.
fn register(random: &mut StdRng) -> Action {
    let field = one(&["by", "by", "author"], random);
    let patches = random.random_bool(0.8);
    let (table, owner_field) = match random.random_range(0..5) {
        0 => ("notes", None),
        1..3 => ("diary", Some(field)),
        _ => ("album", random.random_bool(0.5).then_some(field)),
    };
    Action::Register { table, owner_field, patches }
}
