//! What an op, a page and the bytes cost as the log grows, in one workspace and over
//! 100,000, beside the floor. Ids ascend with time. Writes
//! `target/bench/growth-pgNN.json`.

use std::fmt::Write;

use anyhow::Result;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use postgres::Client;
use sync_ext_bench::report::{self, Row};
use sync_ext_bench::rounds::{median, seconds};
use sync_ext_bench::sides::{FLOOR, Floor, Function};
use sync_ext_bench::stage::PAYLOAD;
use sync_ext_bench::stand::{self, Stand, head, wal_position};

const FIRST: usize = 10_000;

/// Measures what an op, a page and the bytes cost as the log grows.
#[derive(Parser)]
struct Options {
    /// Entries to grow to
    #[arg(default_value_t = 10_000_000)]
    max: usize,
}

/// How the entries lie.
struct Layout {
    name: &'static str,
    workspaces: usize,
    /// Ops in a push.
    size: usize,
    /// Pushes that are measured at each size of the log.
    measured: usize,
}

const LAYOUTS: [Layout; 2] = [
    Layout { name: "one workspace", workspaces: 1, size: 1000, measured: 10 },
    Layout { name: "10^5 workspaces", workspaces: 100_000, size: 10, measured: 500 },
];

fn main() -> Result<()> {
    let Options { max } = Options::parse();
    let mut rows = Vec::new();
    let mut postgres = String::new();
    for layout in LAYOUTS {
        let stand = stand::start("growth")?;
        rows.extend(Growth::new(&stand, layout, max)?.run(max)?);
        postgres = stand.version()?;
    }
    report::finish(postgres, 1, rows, ["growth-", ""])
}

struct Growth {
    layout: Layout,
    admin: Client,
    ours: Function,
    floor: Floor,
    bar: ProgressBar,
    /// Ops made so far: their ids go on from here.
    made: u64,
    /// Pushes done so far: they go to the workspaces in turn.
    pushes: usize,
}

/// Costs at one size of the log.
struct Costs {
    entries: usize,
    op: [f64; 2],
    wal: [f64; 2],
    page: f64,
    heap: [f64; 2],
    indexes: [f64; 2],
}

impl Growth {
    fn new(stand: &Stand, layout: Layout, max: usize) -> Result<Growth> {
        let style = ProgressStyle::with_template("{msg:32} [{bar:30}] {pos}/{len} {elapsed}")?;
        let bar = ProgressBar::new(max as u64).with_style(style.progress_chars("=> "));
        let mut admin = stand.connect()?;
        admin.batch_execute("set synchronous_commit = off; truncate floor.workspace")?;
        let ours = Function::new(stand.connect_pinned()?, "sync_push")?;
        let floor = Floor::new(stand.connect_pinned()?)?;
        Ok(Growth { layout, admin, ours, floor, bar, made: 0, pushes: 0 })
    }

    fn run(&mut self, max: usize) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let mut costs: Vec<Costs> = Vec::new();
        let mut entries = FIRST;
        while entries <= max {
            self.bar.set_message(format!("{}, {entries} entries", self.layout.name));
            self.fill(entries)?;
            let at = self.measure(entries)?;
            let first_page = costs.first().unwrap_or(&at).page;
            rows.extend(self.rows(&at, first_page));
            costs.push(at);
            entries *= 10;
        }
        self.bar.finish_and_clear();
        let at = |entries: usize| costs.iter().find(|costs| costs.entries == entries);
        if let (Some(small), Some(large)) = (at(100_000), at(10_000_000)) {
            let name = format!("10^7 entries, {}", self.layout.name);
            rows.push(Row::new(&name, "us", large.op[0], "10^5 entries", small.op[0]));
        }
        Ok(rows)
    }

    fn rows(&self, costs: &Costs, first_page: f64) -> Vec<Row> {
        let name =
            |what: &str| format!("{what}, {}, 10^{}", self.layout.name, costs.entries.ilog10());
        let beside = |what: &str, unit: &str, [ours, base]: [f64; 2]| {
            Row::new(&name(what), unit, ours, FLOOR, base)
        };
        vec![
            beside("op", "us", costs.op),
            beside("WAL", "bytes", costs.wal),
            beside("heap", "bytes", costs.heap),
            beside("indexes", "bytes", costs.indexes),
            Row::new(&name("page"), "us", costs.page, "at 10^4", first_page),
        ]
    }

    fn workspace(&self, push: usize) -> String {
        format!("w{}", push % self.layout.workspaces)
    }

    /// One that has been pushed to, far from the last one.
    fn known_workspace(&self, n: usize) -> String {
        format!("w{}", n * 997 % self.pushes.min(self.layout.workspaces))
    }

    /// The next batch as JSON, its ids after all that were made before.
    fn batch(&mut self) -> String {
        let mut json = String::from("[");
        for n in 0..self.layout.size {
            let at = self.made;
            self.made += 1;
            let random = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let id =
                format!("{:08x}-{:04x}-7000-8000-{:012x}", at >> 16, at & 0xffff, random >> 16);
            let mut body = String::with_capacity(PAYLOAD);
            let mut word = random;
            while body.len() < PAYLOAD {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let _ = write!(body, "{:016x}", word);
            }
            let comma = if n > 0 { "," } else { "" };
            let _ = write!(
                json,
                "{comma}{{\"tableName\":\"notes\",\"operation\":\"put\",\"pk\":\"{id}\",\"payload\":{{\"id\":\"{id}\",\"body\":\"{body}\"}},\
                 \"stamp\":{{\"deviceId\":\"device-1\",\"opId\":\"{id}\",\"hlc\":\"1767225600000:0000:device-1\",\"clock\":1}}}}"
            );
        }
        json.push(']');
        json
    }

    /// Pushes until there are so many entries; the floor gets a copy.
    fn fill(&mut self, entries: usize) -> Result<()> {
        self.ours.client().batch_execute("set synchronous_commit = off")?;
        let before = self.made;
        while (self.made as usize) < entries {
            let ops = self.batch();
            let workspace = self.workspace(self.pushes);
            self.ours.call(&workspace, &ops)?;
            self.pushes += 1;
            self.bar.set_position(self.made);
        }
        self.ours.client().batch_execute("set synchronous_commit = on")?;
        self.admin.batch_execute("checkpoint")?;
        // Ids tell what is new: they ascend.
        let (from, to) = (before >> 16, self.made >> 16);
        self.admin.batch_execute(&format!(
            "insert into floor.workspace overriding system value select * from sync_ext.workspace
               on conflict (workspace_key) do update set head = excluded.head, workspace_id = excluded.workspace_id;
             insert into floor.change_log select * from sync_ext.change_log l
               where op_id >= '{from:08x}-0000-0000-0000-000000000000' and op_id < '{to:08x}-ffff-ffff-ffff-ffffffffffff'
                 and not exists (select from floor.change_log f where f.workspace_key = l.workspace_key and f.server_version = l.server_version);
             insert into floor.record select * from sync_ext.record r
               where op_id >= '{from:08x}-0000-0000-0000-000000000000' and op_id < '{to:08x}-ffff-ffff-ffff-ffffffffffff'
                 and not exists (select from floor.record f where f.workspace_key = r.workspace_key and f.table_name = r.table_name and f.pk = r.pk)"
        ))?;
        for table in ["sync_ext.change_log", "sync_ext.record", "floor.change_log", "floor.record"]
        {
            self.admin.batch_execute(&format!("vacuum analyze {table}"))?;
        }
        self.admin.batch_execute("checkpoint")?;
        Ok(())
    }

    fn measure(&mut self, entries: usize) -> Result<Costs> {
        let Layout { size, measured, .. } = self.layout;
        self.admin.batch_execute("truncate bench.rows, bench.staged")?;
        let stage =
            self.admin.prepare("insert into bench.staged values ('growth', $1, $2::text::json)")?;
        for batch in 0..measured {
            let ops = self.batch();
            self.admin.execute(&stage, &[&(batch as i32), &ops])?;
        }
        self.admin.batch_execute(
            "insert into bench.rows select kind, batch, i, op ->> 'tableName', op ->> 'pk', op ->> 'operation', op -> 'payload', 1,
               op #>> '{stamp,hlc}', op #>> '{stamp,deviceId}', (op #>> '{stamp,opId}')::uuid
             from bench.staged, json_array_elements(ops) with ordinality as x (op, i);
             analyze bench.rows; analyze bench.staged",
        )?;
        let mut times: [Vec<f64>; 2] = Default::default();
        let mut wal: [Vec<f64>; 2] = Default::default();
        for batch in 0..measured {
            let workspace = self.known_workspace(batch);
            for turn in 0..2 {
                let side = (batch + turn) % 2;
                let before = wal_position(&mut self.admin)?;
                let taken = seconds(|| match side {
                    0 => self.ours.push_to(&workspace, "growth", batch),
                    _ => self.floor.insert_to(&workspace, "growth", batch, size),
                })?;
                times[side].push(taken * 1e6 / size as f64);
                wal[side].push((wal_position(&mut self.admin)? - before) / size as f64);
            }
        }
        Ok(Costs {
            entries,
            op: times.map(median),
            // The mean: page splits are rare and large.
            wal: wal.map(|bytes| bytes.iter().sum::<f64>() / bytes.len() as f64),
            page: self.page()?,
            heap: self.sizes("pg_table_size")?,
            indexes: self.sizes("pg_indexes_size")?,
        })
    }

    /// Microseconds of a page of at most 1000, from places all over the log.
    fn page(&mut self) -> Result<f64> {
        let pull = self.admin.prepare("select pg_column_size(sync_pull($1, $2, 1000))")?;
        let head = head(&mut self.admin, "w0")?;
        let mut times = Vec::new();
        for n in 0..50 {
            let from = (head - 1000).max(0) * n / 50;
            let workspace = self.known_workspace(n as usize);
            let call = || Ok(self.admin.query_one(&pull, &[&workspace, &from]).map(drop)?);
            times.push(seconds(call)? * 1e6);
        }
        Ok(median(times))
    }

    /// Bytes per entry of log and records, ours and the floor's.
    fn sizes(&mut self, function: &str) -> Result<[f64; 2]> {
        let mut sizes = [0.0; 2];
        for (place, schema) in ["sync_ext", "floor"].iter().enumerate() {
            let sql = format!(
                "select ({function}('{schema}.change_log') + {function}('{schema}.record'))::float8"
            );
            sizes[place] = self.admin.query_one(&sql, &[])?.get::<_, f64>(0) / self.made as f64;
        }
        Ok(sizes)
    }
}
