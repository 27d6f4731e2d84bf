//! Pushes by one client: new records in batches of all sizes, replays, losers,
//! updates, deletes; and what they leave behind in the WAL.

use std::cell::RefCell;

use anyhow::Result;
use postgres::Client;
use sync_ext_demo::oplog;

use crate::bench::Bench;
use crate::report::Row;
use crate::rounds::{Series, Side, alternate, seconds, take_turns};
use crate::sides::{FLOOR, Function, Sqlite};
use crate::stage::{self, Ids};
use crate::stand::wal_position;

impl Bench {
    /// Batches of 1000 against all who do it in one go; what they cost again,
    /// when they lose, and in WAL.
    pub fn thousands(&mut self) -> Result<Vec<Row>> {
        let kind = self.stage("fresh 1000", 1000, Ids::Random)?;
        let retried = self.stage("retried", 1000, Ids::Random)?;
        let losers = self.stage("losers", 1000, Ids::Of { kind: kind.name, clock: 0 })?;
        // What costs most: sync_push takes them for new, and finds out late.
        let twice = self.stage("created twice", 1000, Ids::Of { kind: kind.name, clock: 1 })?;
        let (ours, floor) = (self.sync_ext()?, self.floor()?);
        let expert = RefCell::new(Function::new(self.connect()?, "expert.push")?);
        let path = self.stand.cluster.data_dir().with_file_name("peer.sqlite");
        let mut sqlite = Sqlite::create(&path)?;
        let mut reader = self.connect()?;
        let json: Vec<String> = (0..kind.batches)
            .map(|batch| stage::json(&mut reader, kind.name, batch))
            .collect::<Result<_>>()?;
        let (mut ours_wal, mut floor_wal) = (Vec::new(), Vec::new());
        let work = self.work_of(&kind);
        let this = &*self;
        // What was stored a round ago.
        let stored = |round: usize| this.batches(&kind, round.saturating_sub(1));
        for batch in stored(0) {
            ours.borrow_mut().push(&kind, batch)?;
        }
        let series = alternate(
            &this.bar,
            this.rounds,
            work,
            vec![
                Side::timing_itself("sync_ext", |round| {
                    let mut ours = ours.borrow_mut();
                    let before = wal_position(ours.client())?;
                    let seconds = seconds(|| {
                        this.batches(&kind, round).try_for_each(|batch| ours.push(&kind, batch))
                    })?;
                    ours_wal.push((wal_position(ours.client())? - before) / work as f64);
                    Ok(seconds)
                }),
                Side::timing_itself(FLOOR, |round| {
                    let mut floor = floor.borrow_mut();
                    let before = wal_position(floor.client())?;
                    let seconds = seconds(|| {
                        this.batches(&kind, round).try_for_each(|batch| floor.insert(&kind, batch))
                    })?;
                    floor_wal.push((wal_position(floor.client())? - before) / work as f64);
                    Ok(seconds)
                }),
                this.side("expert PL/pgSQL", kind, |batch| expert.borrow_mut().push(&kind, batch)),
                this.side("SQLite", kind, |batch| sqlite.push(&json[batch]).map(drop)),
                Side::timing_itself("retried at once", |round| {
                    let mut ours = ours.borrow_mut();
                    this.batches(&retried, round)
                        .map(|batch| {
                            ours.push(&retried, batch)?;
                            seconds(|| ours.push(&retried, batch))
                        })
                        .sum()
                }),
                Side::new("replayed later", |round| {
                    stored(round).try_for_each(|batch| ours.borrow_mut().push(&kind, batch))
                }),
                Side::new("losers", |round| {
                    stored(round).try_for_each(|batch| ours.borrow_mut().push(&losers, batch))
                }),
                Side::new("created twice", |round| {
                    stored(round).try_for_each(|batch| ours.borrow_mut().push(&twice, batch))
                }),
            ],
        )?;
        // The first round does not count.
        let [ours_wal, floor_wal] = [ours_wal, floor_wal].map(|bytes| bytes[1..].to_vec());
        let wal = Series::new("bytes", [("sync_ext", ours_wal), (FLOOR, floor_wal)]);
        let fresh = "sync_ext";
        Ok(vec![
            series.row("push 1000", fresh, FLOOR),
            series.row("push 1000 / expert PL/pgSQL", fresh, "expert PL/pgSQL"),
            series.row("push 1000 / SQLite", fresh, "SQLite"),
            series.row("replay of 1000, at once", "retried at once", fresh),
            series.row("replay of 1000, later", "replayed later", fresh),
            series.row("losers, 1000", "losers", fresh),
            series.row("created twice, 1000", "created twice", fresh),
            wal.row("WAL per op, push 1000", fresh, FLOOR),
        ])
    }

    pub fn hundreds(&mut self) -> Result<Vec<Row>> {
        let kind = self.stage("fresh 100", 100, Ids::Random)?;
        let (ours, floor) = (self.sync_ext()?, self.floor()?);
        let mut tutorial = Function::new(self.connect()?, "tutorial.push")?;
        let sides = vec![
            self.side("sync_ext", kind, |batch| ours.borrow_mut().push(&kind, batch)),
            self.side(FLOOR, kind, |batch| floor.borrow_mut().insert(&kind, batch)),
            self.side("tutorial PL/pgSQL", kind, |batch| tutorial.push(&kind, batch)),
        ];
        let series = alternate(&self.bar, self.rounds, self.work_of(&kind), sides)?;
        Ok(vec![
            series.row("push 100", "sync_ext", FLOOR),
            series.row("push 100 / tutorial PL/pgSQL", "sync_ext", "tutorial PL/pgSQL"),
        ])
    }

    pub fn tens(&mut self) -> Result<Vec<Row>> {
        let kind = self.stage("fresh 10", 10, Ids::Random)?;
        self.against_floor("push 10", kind)
    }

    /// Single ops: commits that wait for the disk and such that don't.
    pub fn ones(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (name, kind, stepwise, setting) in [
            ("push 1, sync commit", "fresh 1", "stepwise 1", "on"),
            ("push 1, async commit", "fresh 1, async", "stepwise 1, async", "off"),
        ] {
            let kind = self.stage(kind, 1, Ids::Random)?;
            // Both floors write to the same tables, so each has rows of its own.
            let stepwise = self.stage(stepwise, 1, Ids::Random)?;
            let (ours, floor, steps) = (self.sync_ext()?, self.floor()?, self.floor()?);
            let set = format!("set synchronous_commit = {setting}");
            ours.borrow_mut().client().batch_execute(&set)?;
            floor.borrow_mut().client().batch_execute(&set)?;
            steps.borrow_mut().client().batch_execute(&set)?;
            let sides = vec![
                Side::new("sync_ext", |batch| ours.borrow_mut().push(&kind, batch)),
                Side::new("one CTE", |batch| floor.borrow_mut().insert(&kind, batch)),
                Side::new("five statements", |batch| {
                    steps.borrow_mut().insert_stepwise(&stepwise, batch)
                }),
            ];
            let series = take_turns(&self.bar, self.rounds, self.work_of(&kind), sides)?;
            rows.push(series.row(name, "sync_ext", "one CTE"));
            rows.push(series.row(&format!("{name} / 5 statements"), "sync_ext", "five statements"));
        }
        Ok(rows)
    }

    /// A device that is up to date sends its op and asks for changes in one call, or sends
    /// it alone.
    pub fn exchanges(&mut self) -> Result<Vec<Row>> {
        let kind = self.stage("exchanged 1", 1, Ids::Random)?;
        let (mut exchanging, mut pushing) = (self.connect()?, self.sync_ext()?.into_inner());
        let exchange = exchanging.prepare(
            "select pg_column_size(sync_exchange('exchanged', 'd', $3, ops))
               from bench.staged where kind = $1 and batch = $2",
        )?;
        let sides = vec![
            Side::new("exchange", |batch| {
                let (cursor, batch) = (batch as i64, batch as i32);
                exchanging.query_one(&exchange, &[&kind.name, &batch, &cursor])?;
                Ok(())
            }),
            Side::new("push", |batch| pushing.push_to("pushed", kind.name, batch)),
        ];
        let series = take_turns(&self.bar, self.rounds, self.work_of(&kind), sides)?;
        Ok(vec![series.row("exchange of 1, up to date", "exchange", "push")])
    }

    pub fn time_ordered(&mut self) -> Result<Vec<Row>> {
        let kind = self.stage("ordered", 1000, Ids::TimeOrdered)?;
        self.against_floor("push 1000, time-ordered ids", kind)
    }

    pub fn payloads(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (kind, row, size, bytes) in [
            ("0.2 KB", "push 1000, payloads of 0.2 KB", 1000, 100),
            ("8 KB", "push 100, payloads of 8 KB", 100, 8_000),
            ("200 KB", "push 10, payloads of 200 KB", 10, 200_000),
        ] {
            let kind = self.stage_payloads(kind, size, Ids::Random, bytes)?;
            rows.extend(self.against_floor(row, kind)?);
        }
        Ok(rows)
    }

    fn against_floor(&self, row: &str, kind: stage::Kind) -> Result<Vec<Row>> {
        let (ours, floor) = (self.sync_ext()?, self.floor()?);
        let row =
            self.beside(row, kind, &ours, FLOOR, |batch| floor.borrow_mut().insert(&kind, batch))?;
        Ok(vec![row])
    }

    /// New ops on known records.
    pub fn updates(&mut self) -> Result<Vec<Row>> {
        let known = self.known()?;
        let kind = self.stage("updates", 1000, Ids::Of { kind: known.name, clock: 2 })?;
        let (ours, floor) = (self.sync_ext()?, self.floor()?);
        let before = hot(&mut self.admin)?;
        let times = self.beside("updates, 1000", kind, &ours, "UPDATE + INSERT", |batch| {
            floor.borrow_mut().update(&kind, batch)
        })?;
        // Sessions report their statistics when they end, at the latest.
        drop((ours, floor));
        let after = settled_hot(&mut self.admin, before.1 + kind.batches as i64 * 1000)?;
        let (hot, updated) = ((after.0 - before.0) as f64, (after.1 - before.1) as f64);
        Ok(vec![times, Row::new("HOT share of record updates", "updates", hot, "all", updated)])
    }

    /// Puts on new and known records, a tenth of the ops deletes.
    pub fn mixed(&mut self) -> Result<Vec<Row>> {
        let known = self.known()?;
        let kind = self.stage("mixed", 1000, Ids::Mixed { kind: known.name })?;
        let (ours, floor) = (self.sync_ext()?, self.floor()?);
        let base = "INSERT ... ON CONFLICT";
        let row = self.beside("mixed with deletes, 1000", kind, &ours, base, |batch| {
            floor.borrow_mut().upsert(&kind, batch)
        })?;
        Ok(vec![row])
    }

    /// The pushes of the demo, in a quick run the first thousand of them: whole
    /// calls, each round in a new workspace.
    pub fn oplog(&mut self) -> Result<Vec<Row>> {
        let pushes: Vec<String> = oplog::read()?
            .iter()
            .take(self.work / 5)
            .map(|push| {
                let ops: Vec<&str> = push.ops.iter().map(|op| op.json.as_str()).collect();
                format!("[{}]", ops.join(","))
            })
            .collect();
        self.admin.batch_execute(
            "select sync_register_table(t) from unnest('{files,commits}'::text[]) t",
        )?;
        let mut sides = Vec::new();
        for (name, function) in [("sync_ext", "sync_push"), ("expert PL/pgSQL", "expert.push")] {
            let (mut function, pushes) = (Function::new(self.connect()?, function)?, &pushes);
            sides.push(Side::new(name, move |round| {
                let workspace = format!("oplog-{round}");
                pushes.iter().try_for_each(|ops| function.call(&workspace, ops).map(drop))
            }));
        }
        let series = alternate(&self.bar, self.rounds, pushes.len(), sides)?;
        Ok(vec![series.row("demo's op log / expert PL/pgSQL", "sync_ext", "expert PL/pgSQL")])
    }
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
