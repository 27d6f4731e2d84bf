//! What processes tell each other, in shared memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgrx::lwlock::PgLwLock;
use pgrx::{PGRXSharedMemory, pg_guard, pg_shmem_init, pg_sys};

use crate::store::server::now;
use sync_ext_core::rules::hints::{Hints, Taken};
use sync_ext_core::rules::op::{Timestamp, Version};

/// The number of databases that can have a worker.
const DATABASES: usize = 16;

/// The bytes of a channel's name, as of all names.
const CHANNEL: usize = pg_sys::NAMEDATALEN as usize;

/// The latch of a process in shared memory; 0 if there is none. It stays valid memory when
/// the process ends: setting it then wakes another one for nothing.
type Latch = usize;

#[derive(Clone, Copy)]
struct Place {
    /// 0 while the place is free.
    database: u32,
    /// 0 if there is no worker.
    worker: i32,
    latch: Latch,
    /// The worker sleeps until its latch is set.
    sleeps: bool,
    /// Until then no worker connects: somebody wants the database for themselves.
    aside_until: Timestamp,
    channel: [u8; CHANNEL],
    hints: Hints,
}

struct Board {
    launcher: Latch,
    /// Databases whose commits found no worker.
    wanted: [u32; DATABASES],
    places: [Place; DATABASES],
}

const FREE: Place = Place {
    database: 0,
    worker: 0,
    latch: 0,
    sleeps: false,
    aside_until: 0,
    channel: [0; CHANNEL],
    hints: Hints::new(),
};

// SAFETY: plain values; a latch is only an address in shared memory, which is the same in
// all processes.
unsafe impl PGRXSharedMemory for Board {}

// SAFETY: no other memory has this name.
static BOARD: PgLwLock<Board> = unsafe { PgLwLock::new(c"sync_ext board") };

/// Whether there is a board. Set in the postmaster and inherited by its children.
static IS_THERE: AtomicBool = AtomicBool::new(false);

/// Requests the memory while the server starts.
#[expect(unexpected_cfgs, reason = "the macro asks for majors that we do not offer")]
pub fn init() {
    pg_shmem_init!(BOARD = Board::new());
    IS_THERE.store(true, Ordering::Relaxed);
}

fn is_there() -> bool {
    IS_THERE.load(Ordering::Relaxed)
}

fn this_database() -> u32 {
    // SAFETY: a variable of this process.
    u32::from(unsafe { pg_sys::MyDatabaseId })
}

fn my_latch() -> Latch {
    // SAFETY: the latch of a process with shared memory is there.
    unsafe { pg_sys::MyLatch as Latch }
}

/// Wakes a process.
fn wake(latch: Latch) {
    if latch != 0 {
        // SAFETY: a latch in shared memory, see `Latch`.
        unsafe { pg_sys::SetLatch(latch as *mut pg_sys::Latch) };
    }
}

impl Board {
    fn new() -> Board {
        Board { launcher: 0, wanted: [0; DATABASES], places: [FREE; DATABASES] }
    }

    fn place(&mut self, database: u32) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| place.database == database)
    }

    /// The place of a database, or one that is free.
    fn new_place(&mut self, database: u32) -> Option<&mut Place> {
        let at = self.places.iter().position(|place| place.database == database);
        let free = || self.places.iter().position(|place| place.database == 0);
        let place = &mut self.places[at.or_else(free)?];
        if place.database == 0 {
            (place.database, place.worker, place.latch, place.aside_until) = (database, 0, 0, 0);
            place.hints.clear();
        }
        Some(place)
    }

    /// Returns the latch of whoever starts another worker, if this process was one.
    /// Postgres tells the launcher that started it, which may be gone.
    fn end_worker(&mut self) -> Latch {
        // SAFETY: a variable of this process.
        let me = unsafe { pg_sys::MyProcPid };
        let launcher = self.launcher;
        match self.place(this_database()) {
            Some(place) if place.worker == me => {
                (place.worker, place.latch, place.sleeps) = (0, 0, false);
                launcher
            }
            _ => 0,
        }
    }
}

// For commits.

/// Whether a worker sends to this channel what is posted.
pub fn is_served(channel: &str) -> bool {
    if !is_there() {
        return false;
    }
    let (database, channel) = (this_database(), name_of(channel));
    let board = BOARD.share();
    let place = board.places.iter().find(|place| place.database == database);
    place.is_some_and(|place| place.worker != 0 && place.channel == channel)
}

/// A transaction has committed. It cannot fail.
pub fn post(channel: &str, workspace_id: &str, head: Version) {
    let mut board = BOARD.exclusive();
    let mut latch = board.launcher;
    let Some(place) = board.new_place(this_database()) else { return };
    if place.worker == 0 {
        // It has left since the commit began. The next process says that all may have changed.
        place.channel = name_of(channel);
        place.hints.add_all();
    } else {
        place.hints.add(workspace_id, head.get());
        latch = if std::mem::take(&mut place.sleeps) { place.latch } else { 0 };
    }
    drop(board);
    wake(latch);
}

/// This database's commits find no worker.
pub fn want() {
    if !is_there() {
        return;
    }
    let database = this_database();
    if BOARD.share().wanted.contains(&database) {
        return;
    }
    let mut board = BOARD.exclusive();
    if let Some(free) = board.wanted.iter_mut().find(|wanted| **wanted == 0) {
        *free = database;
    }
    let latch = board.launcher;
    drop(board);
    wake(latch);
}

// For workers.

/// Makes this process the worker of its database; false if it has one, if nobody may
/// connect at the moment, or if there is no place.
pub fn begin(channel: &str) -> bool {
    let mut board = BOARD.exclusive();
    let Some(place) = board.new_place(this_database()) else { return false };
    if place.worker != 0 || place.aside_until > now() {
        return false;
    }
    // SAFETY: a variable of this process.
    place.worker = unsafe { pg_sys::MyProcPid };
    (place.latch, place.channel, place.sleeps) = (my_latch(), name_of(channel), false);
    // What was committed without a worker is not known.
    place.hints.add_all();
    let latch = board.launcher;
    drop(board);
    wake(latch);
    true
}

/// Takes the hints. If there are none, the next one wakes this process.
pub fn take(taken: &mut Taken) {
    if let Some(place) = BOARD.exclusive().place(this_database()) {
        place.hints.take(taken);
        place.sleeps = taken.is_empty();
    }
}

pub fn must_step_aside() -> bool {
    let place = BOARD.exclusive().place(this_database()).map(|place| place.aside_until);
    place.is_none_or(|until| until > now())
}

/// This process leaves its database. Takes the hints that nobody has sent, and returns
/// their channel. If there are none, a database that wants no worker gives up its place.
pub fn leave(is_wanted: bool, taken: &mut Taken) -> Option<String> {
    let mut board = BOARD.exclusive();
    let latch = board.end_worker();
    // If there is another worker, its first hint covers them.
    let place = board.place(this_database()).filter(|place| place.worker == 0)?;
    place.hints.take(taken);
    let channel = place.channel;
    if taken.is_empty() && !is_wanted && place.aside_until <= now() {
        place.database = 0;
    }
    drop(board);
    wake(latch);
    (!taken.is_empty()).then(|| text_of(&channel))
}

/// This process is no longer a worker.
pub fn end() {
    let latch = BOARD.exclusive().end_worker();
    wake(latch);
}

// For the launcher.

/// Makes this process the launcher; returns the databases that want a worker.
pub fn launch() -> Vec<u32> {
    let mut board = BOARD.exclusive();
    board.launcher = my_latch();
    let wanted = std::mem::replace(&mut board.wanted, [0; DATABASES]);
    drop(board);
    wanted.into_iter().filter(|database| *database != 0).collect()
}

/// Frees the places of databases that were dropped.
pub fn keep(databases: &[u32]) {
    for place in &mut BOARD.exclusive().places {
        if place.worker == 0 && !databases.contains(&place.database) {
            place.database = 0;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has a worker.
    Served,
    /// It had one.
    Ended,
    /// Somebody wants it for themselves.
    Aside,
    Unknown,
}

pub fn state(database: u32) -> State {
    let board = BOARD.share();
    match board.places.iter().find(|place| place.database == database) {
        Some(place) if place.worker != 0 => State::Served,
        Some(place) if place.aside_until > now() => State::Aside,
        Some(_) => State::Ended,
        None => State::Unknown,
    }
}

// For those who want a database for themselves.

/// Sends the worker of a database away for so long.
pub fn step_aside(database: pg_sys::Oid, time: Duration) {
    let mut board = BOARD.exclusive();
    let Some(place) = board.new_place(u32::from(database)) else { return };
    place.aside_until = now() + i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    let latch = place.latch;
    drop(board);
    wake(latch);
}

fn name_of(channel: &str) -> [u8; CHANNEL] {
    let mut name = [0; CHANNEL];
    name.iter_mut().zip(channel.bytes()).for_each(|(to, from)| *to = from);
    name
}

fn text_of(name: &[u8; CHANNEL]) -> String {
    let text = name.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}
