//! Pushes by one client: fresh records in batches of all sizes, replays,
//! losers, updates; and what they leave behind in the WAL.

use std::cell::RefCell;

use anyhow::Result;
use indicatif::ProgressBar;
use postgres::Client;
use sync_ext_cluster::cluster::Cluster;

use crate::report::Row;
use crate::rounds::{Side, alternate, median};
use crate::sides::{Floor, Function, Sqlite};
use crate::stage::{self, Ids, Kind};

const DATABASE: &str = "bench";
const PAYLOAD: usize = 550;

/// What all workloads of pushes share.
pub struct Bench<'c> {
    pub cluster: &'c Cluster,
    pub admin: Client,
    pub bar: ProgressBar,
    pub rounds: usize,
    /// Ops per side and round.
    pub work: usize,
}

impl Bench<'_> {
    fn connect(&self) -> Result<Client> {
        Ok(self.cluster.connect(DATABASE)?)
    }

    fn sync_ext(&self) -> Result<RefCell<Function>> {
        Ok(RefCell::new(Function::new(self.connect()?, "sync_push")?))
    }

    fn floor(&self) -> Result<RefCell<Floor>> {
        Ok(RefCell::new(Floor::new(self.connect()?)?))
    }

    /// Lays out a kind with batches for every round, the warming one included.
    fn stage(&mut self, name: &'static str, size: usize, ids: Ids) -> Result<Kind> {
        let per_round = (self.work / size).clamp(1, 200);
        let batches = per_round * (self.rounds + 1);
        let kind = Kind { name, size, batches, payload_bytes: PAYLOAD, ids };
        stage::fill(&mut self.admin, &kind)?;
        self.admin.batch_execute("checkpoint")?;
        Ok(kind)
    }

    fn batches(&self, kind: &Kind, round: usize) -> std::ops::Range<usize> {
        let per_round = kind.batches / (self.rounds + 1);
        round * per_round..(round + 1) * per_round
    }

    /// A side that pushes the batches of each round, one by one.
    fn side<'s>(
        &'s self,
        name: &'static str,
        kind: Kind,
        mut push: impl FnMut(usize) -> Result<()> + 's,
    ) -> Side<'s> {
        Side::new(name, move |round| self.batches(&kind, round).try_for_each(&mut push))
    }

    fn work_of(&self, kind: &Kind) -> usize {
        kind.batches / (self.rounds + 1) * kind.size
    }

    /// Batches of 1000 against all who do it in one go; what they cost again,
    /// when they lose, and in WAL.
    pub fn thousands(&mut self) -> Result<Vec<Row>> {
        let kind = self.stage("fresh 1000", 1000, Ids::Random)?;
        let losers = self.stage("losers", 1000, Ids::Of { kind: kind.name, clock: 0 })?;
        let (ours, floor) = (self.sync_ext()?, self.floor()?);
        let expert = RefCell::new(Function::new(self.connect()?, "expert.push")?);
        let path = self.cluster.data_dir().with_file_name("peer.sqlite");
        let mut sqlite = Sqlite::create(&path)?;
        let mut reader = self.connect()?;
        let json: Vec<String> = (0..kind.batches)
            .map(|batch| stage::json(&mut reader, kind.name, batch))
            .collect::<Result<_>>()?;
        let wal: [RefCell<Vec<f64>>; 2] = Default::default();
        let work = self.work_of(&kind);
        let this = &*self;
        let series = alternate(
            &this.bar,
            this.rounds,
            work,
            vec![
                Side::new("sync_ext", |round| {
                    let mut ours = ours.borrow_mut();
                    let before = wal_position(ours.client())?;
                    for batch in this.batches(&kind, round) {
                        ours.push(kind.name, batch)?;
                    }
                    wal[0].borrow_mut().push((wal_position(ours.client())? - before) / work as f64);
                    Ok(())
                }),
                Side::new("INSERT ... SELECT", |round| {
                    let mut floor = floor.borrow_mut();
                    let before = wal_position(floor.client())?;
                    for batch in this.batches(&kind, round) {
                        floor.insert(kind.name, batch, kind.size)?;
                    }
                    wal[1]
                        .borrow_mut()
                        .push((wal_position(floor.client())? - before) / work as f64);
                    Ok(())
                }),
                this.side("expert PL/pgSQL", kind, |batch| {
                    expert.borrow_mut().push(kind.name, batch)
                }),
                this.side("SQLite", kind, |batch| sqlite.push(&json[batch]).map(drop)),
            ],
        )?;
        // Of batches that are stored by now.
        let again = alternate(
            &this.bar,
            this.rounds,
            work,
            vec![
                this.side("replay", kind, |batch| ours.borrow_mut().push(kind.name, batch)),
                this.side("losers", losers, |batch| ours.borrow_mut().push(losers.name, batch)),
            ],
        )?;
        let fresh = series.row("", "sync_ext", "sync_ext").ours;
        let against_fresh = |name: &str, side: &str| {
            let ours = again.row("", side, side).ours;
            Row {
                name: name.to_owned(),
                unit: "us".to_owned(),
                ours,
                base_name: "fresh push of 1000".to_owned(),
                base: fresh,
                ratio: ours / fresh,
            }
        };
        let [ours_wal, floor_wal] = wal.map(|bytes| median(bytes.into_inner()));
        Ok(vec![
            series.row("push 1000", "sync_ext", "INSERT ... SELECT"),
            series.row("push 1000 / expert PL/pgSQL", "sync_ext", "expert PL/pgSQL"),
            series.row("push 1000 / SQLite", "sync_ext", "SQLite"),
            against_fresh("replay of 1000", "replay"),
            against_fresh("losers, 1000", "losers"),
            Row {
                name: "WAL per op, push 1000".to_owned(),
                unit: "bytes".to_owned(),
                ours: ours_wal,
                base_name: "INSERT ... SELECT".to_owned(),
                base: floor_wal,
                ratio: ours_wal / floor_wal,
            },
        ])
    }

    /// sync_ext and one other side, which does a batch by `push`.
    fn beside(
        &self,
        row: &str,
        kind: Kind,
        ours: &RefCell<Function>,
        base: &'static str,
        push: impl FnMut(usize) -> Result<()>,
    ) -> Result<Row> {
        let sides = vec![
            self.side("sync_ext", kind, |batch| ours.borrow_mut().push(kind.name, batch)),
            self.side(base, kind, push),
        ];
        let series = alternate(&self.bar, self.rounds, self.work_of(&kind), sides)?;
        Ok(series.row(row, "sync_ext", base))
    }

    /// Batches of a size against the floor.
    pub fn against_floor(
        &mut self,
        row: &str,
        kind: &'static str,
        size: usize,
        ids: Ids,
        commit: &str,
    ) -> Result<Vec<Row>> {
        let kind = self.stage(kind, size, ids)?;
        let (ours, floor) = (self.sync_ext()?, self.floor()?);
        let set = format!("set synchronous_commit = {commit}");
        ours.borrow_mut().client().batch_execute(&set)?;
        floor.borrow_mut().client().batch_execute(&set)?;
        Ok(vec![self.beside(row, kind, &ours, "INSERT ... SELECT", |batch| {
            floor.borrow_mut().insert(kind.name, batch, size)
        })?])
    }

    pub fn tutorial(&mut self) -> Result<Vec<Row>> {
        let kind = self.stage("tutorial", 100, Ids::Random)?;
        let ours = self.sync_ext()?;
        let mut tutorial = Function::new(self.connect()?, "tutorial.push")?;
        let row = "push 100 / tutorial PL/pgSQL";
        Ok(vec![self.beside(row, kind, &ours, "tutorial PL/pgSQL", |batch| {
            tutorial.push(kind.name, batch)
        })?])
    }

    /// New ops on the records that `thousands` pushed.
    pub fn updates(&mut self) -> Result<Vec<Row>> {
        let kind = self.stage("updates", 1000, Ids::Of { kind: "fresh 1000", clock: 2 })?;
        let (ours, floor) = (self.sync_ext()?, self.floor()?);
        let before = hot(&mut self.admin)?;
        let times = self.beside("updates, 1000", kind, &ours, "UPDATE + INSERT", |batch| {
            floor.borrow_mut().update(kind.name, batch, kind.size)
        })?;
        // Sessions report their statistics when they end, at the latest.
        drop((ours, floor));
        let after = settled_hot(&mut self.admin, before.1 + kind.batches as i64 * 1000)?;
        let (hot, updated) = ((after.0 - before.0) as f64, (after.1 - before.1) as f64);
        Ok(vec![
            times,
            Row {
                name: "HOT share of record updates".to_owned(),
                unit: "updates".to_owned(),
                ours: hot,
                base_name: "all".to_owned(),
                base: updated,
                ratio: hot / updated,
            },
        ])
    }
}

fn wal_position(client: &mut Client) -> Result<f64> {
    let sql = "select (pg_current_wal_insert_lsn() - '0/0')::float8";
    Ok(client.query_one(sql, &[])?.get(0))
}

/// HOT updates of records, and all updates.
fn hot(client: &mut Client) -> Result<(i64, i64)> {
    let sql = "select n_tup_hot_upd, n_tup_upd from pg_stat_all_tables where relid = 'sync_ext.record'::regclass";
    let row = client.query_one(sql, &[])?;
    Ok((row.get(0), row.get(1)))
}

fn settled_hot(client: &mut Client, updates: i64) -> Result<(i64, i64)> {
    for _ in 0..1000 {
        let now = hot(client)?;
        if now.1 >= updates {
            return Ok(now);
        }
        std::thread::yield_now();
    }
    anyhow::bail!("statistics of {updates} updates never arrived")
}
