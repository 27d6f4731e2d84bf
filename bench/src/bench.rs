//! What all workloads share: the stand, how much to do, how to lay out ops and
//! to run sides beside each other.

use std::cell::RefCell;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use nix::unistd::Pid;
use postgres::Client;

use crate::report::Row;
use crate::rounds::{Side, alternate};
use crate::sides::{Floor, Function};
use crate::stage::{self, Ids, Kind, PAYLOAD};
use crate::stand::{self, Stand};

pub struct Bench {
    pub stand: Stand,
    pub admin: Client,
    pub bar: ProgressBar,
    pub is_quick: bool,
    pub rounds: usize,
    /// Ops per side and round.
    pub work: usize,
}

/// The records that updates, losers and pulls are about.
const KNOWN: &str = "known";

impl Bench {
    pub fn start(quick: bool) -> Result<Bench> {
        let style = ProgressStyle::with_template("{msg:24} [{bar:30}] {pos}/{len} {elapsed}")?;
        let bar = ProgressBar::new(0).with_style(style.progress_chars("=> "));
        bar.set_message("starting a server");
        let (rounds, work) = if quick { (5, 5_000) } else { (7, 20_000) };
        let stand = stand::start("bench")?;
        let admin = stand.connect()?;
        Ok(Bench { stand, admin, bar, is_quick: quick, rounds, work })
    }

    pub fn connect(&self) -> Result<Client> {
        self.stand.connect_pinned()
    }

    /// One client with one backend at a time: each has a CPU of its own.
    pub fn pin(&self) -> Result<()> {
        if stand::has_two_cpus() { stand::keep_to([0], Pid::this()) } else { Ok(()) }
    }

    /// Many clients: the scheduler may place all of them.
    pub fn unpin(&self) -> Result<()> {
        stand::keep_to(0..stand::cpus()?, Pid::this())
    }

    pub fn sync_ext(&self) -> Result<RefCell<Function>> {
        Ok(RefCell::new(Function::new(self.connect()?, "sync_push")?))
    }

    pub fn floor(&self) -> Result<RefCell<Floor>> {
        Ok(RefCell::new(Floor::new(self.connect()?)?))
    }

    /// Lays out a kind with batches for every round, the warming one included.
    pub fn stage(&mut self, name: &'static str, size: usize, ids: Ids) -> Result<Kind> {
        self.stage_payloads(name, size, ids, PAYLOAD)
    }

    pub fn stage_payloads(
        &mut self,
        name: &'static str,
        size: usize,
        ids: Ids,
        payload_bytes: usize,
    ) -> Result<Kind> {
        // Large payloads are as much work as many ordinary ones.
        let work = self.work * PAYLOAD / payload_bytes.max(PAYLOAD);
        let per_round = (work / size).clamp(1, 200);
        let kind = Kind { name, size, batches: per_round * (self.rounds + 1), payload_bytes, ids };
        stage::fill(&mut self.admin, &kind)?;
        self.admin.batch_execute("checkpoint")?;
        Ok(kind)
    }

    /// Records that are stored on all sides, laid out when first needed.
    pub fn known(&mut self) -> Result<Kind> {
        let batches = self.work / 1000 * (self.rounds + 1);
        let ids = Ids::Random;
        let kind = Kind { name: KNOWN, size: 1000, batches, payload_bytes: PAYLOAD, ids };
        let sql = "select exists (select from bench.staged where kind = $1)";
        if !self.admin.query_one(sql, &[&KNOWN])?.get::<_, bool>(0) {
            stage::fill(&mut self.admin, &kind)?;
            let (ours, floor) = (self.sync_ext()?, self.floor()?);
            for batch in 0..kind.batches {
                ours.borrow_mut().push(&kind, batch)?;
                floor.borrow_mut().insert(&kind, batch)?;
            }
            self.admin.batch_execute("checkpoint")?;
        }
        Ok(kind)
    }

    pub fn batches(&self, kind: &Kind, round: usize) -> std::ops::Range<usize> {
        let per_round = kind.batches / (self.rounds + 1);
        round * per_round..(round + 1) * per_round
    }

    /// Ops of a kind in one round.
    pub fn work_of(&self, kind: &Kind) -> usize {
        kind.batches / (self.rounds + 1) * kind.size
    }

    /// A side that pushes the batches of each round, one by one.
    pub fn side<'s>(
        &'s self,
        name: &'static str,
        kind: Kind,
        mut push: impl FnMut(usize) -> Result<()> + 's,
    ) -> Side<'s> {
        Side::new(name, move |round| self.batches(&kind, round).try_for_each(&mut push))
    }

    /// sync_ext and one other side, which does a batch by `push`.
    pub fn beside(
        &self,
        row: &str,
        kind: Kind,
        ours: &RefCell<Function>,
        base: &'static str,
        push: impl FnMut(usize) -> Result<()>,
    ) -> Result<Row> {
        let sides = vec![
            self.side("sync_ext", kind, |batch| ours.borrow_mut().push(&kind, batch)),
            self.side(base, kind, push),
        ];
        let series = alternate(&self.bar, self.rounds, self.work_of(&kind), sides)?;
        Ok(series.row(row, "sync_ext", base))
    }
}
