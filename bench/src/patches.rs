//! Patches beside puts of the same records: pushed, logged, pulled.

use std::cell::RefCell;

use anyhow::Result;
use postgres::types::Type;

use crate::bench::Bench;
use crate::report::Row;
use crate::rounds::{Side, alternate, median, seconds};
use crate::sides::Function;
use crate::stage::{self, Ids, Kind};
use crate::stand::head;

/// Lays out a patch of one field for each op of a kind, in the same batches.
const PATCHES: &str = "insert into bench.staged
    select $1, batch, json_agg(json_build_object('tableName', table_name, 'operation', 'patch',
      'pk', pk, 'payload', json_build_object('done', i),
      'base', json_build_object('clock', clock, 'hlc', hlc, 'opId', op_id),
      'stamp', json_build_object('deviceId', device_id, 'opId', gen_random_uuid(),
        'hlc', hlc, 'clock', clock + 1)) order by i)
    from bench.rows where kind = $2 group by batch";

/// The same for one record: a thousand patches of fields that take turns.
const MANY: &str = "insert into bench.staged
    select $1, batch, json_agg(json_build_object('tableName', table_name, 'operation', 'patch',
      'pk', pk, 'payload', json_build_object('field ' || n % 10, n),
      'base', json_build_object('clock', clock, 'hlc', hlc, 'opId', op_id),
      'stamp', json_build_object('deviceId', device_id, 'opId', gen_random_uuid(),
        'hlc', hlc, 'clock', clock + n)) order by n)
    from bench.rows, generate_series(1, 1000) as n where kind = $2 group by batch";

const LOG_BYTES: &str = "select pg_total_relation_size('sync_ext.change_log')::float8";

const LARGE: usize = 200_000;

impl Bench {
    pub fn patches(&mut self) -> Result<Vec<Row>> {
        self.admin.batch_execute("select sync_register_table('notes', patches => true)")?;
        let records = self.stage("to patch", 1000, Ids::Random)?;
        let puts = self.stage("puts", 1000, Ids::Of { kind: records.name, clock: 2 })?;
        self.admin.execute(PATCHES, &[&"patches", &records.name])?;
        let patches = Kind { name: "patches", ..records };
        let ours = self.sync_ext()?;
        for workspace in ["put", "patched"] {
            for batch in 0..records.batches {
                ours.borrow_mut().push_to(workspace, records.name, batch)?;
            }
        }
        let from = head(&mut self.admin, "put")?;
        self.admin.batch_execute("checkpoint")?;
        let push = |workspace, kind: Kind| {
            let ours = &ours;
            move |batch| ours.borrow_mut().push_to(workspace, kind.name, batch)
        };
        let sides = vec![
            self.side("patches", patches, push("patched", patches)),
            self.side("puts", puts, push("put", puts)),
        ];
        let times = alternate(&self.bar, self.rounds, self.work_of(&puts), sides)?;
        let mut rows = vec![times.row("patches, 1000", "patches", "puts")];
        rows.extend(self.patches_of_one(&ours, patches)?);
        rows.push(self.patched_pages(from)?);
        Ok(rows)
    }

    /// A thousand patches of one large record in one push; and what they leave in the
    /// log.
    fn patches_of_one(&mut self, ours: &RefCell<Function>, small: Kind) -> Result<[Row; 2]> {
        let batches = self.rounds + 1;
        let record =
            Kind { name: "large", size: 1, batches, payload_bytes: LARGE, ids: Ids::Random };
        stage::fill(&mut self.admin, &record)?;
        self.admin.execute(MANY, &[&"patches of one", &record.name])?;
        for batch in 0..batches {
            ours.borrow_mut().push_to("large", record.name, batch)?;
            // Those that were measured are patched again where they lie.
            ours.borrow_mut().push_to("again", "to patch", batch)?;
        }
        self.admin.batch_execute("checkpoint")?;
        let mut grown = Vec::new();
        let sides = vec![
            Side::timing_itself("one record", |round| {
                let mut ours = ours.borrow_mut();
                let before: f64 = ours.client().query_one(LOG_BYTES, &[])?.get(0);
                let taken = seconds(|| ours.push_to("large", "patches of one", round))?;
                let after: f64 = ours.client().query_one(LOG_BYTES, &[])?.get(0);
                grown.push(after - before);
                Ok(taken)
            }),
            Side::new("1000 of 0.7 KB", |round| {
                ours.borrow_mut().push_to("again", small.name, round)
            }),
        ];
        let times = alternate(&self.bar, self.rounds, 1000, sides)?;
        // The patches themselves are in the log, too.
        let patches: f64 = self
            .admin
            .query_one(
                "select avg(octet_length(ops::text))::float8 from bench.staged where kind = 'patches of one'",
                &[],
            )?
            .get(0);
        let grown = median(grown[1..].to_vec());
        Ok([
            times.row("1000 patches of one of 200 KB", "one record", "1000 of 0.7 KB"),
            Row::new(
                "log of 1000 patches of 200 KB",
                "bytes",
                grown,
                "2 records, and the ops",
                2.0 * LARGE as f64 + patches,
            ),
        ])
    }

    /// Pages of the entries after `from`, by the bytes of the reply.
    fn patched_pages(&mut self, from: i64) -> Result<Row> {
        let mut sides = Vec::new();
        for (name, workspace) in [("patched", "patched"), ("put", "put")] {
            let end = head(&mut self.admin, workspace)?;
            let mut client = self.connect()?;
            let statement = client.prepare_typed(
                "select pg_column_size(sync_pull($1, $2, 1000))",
                &[Type::TEXT, Type::INT8],
            )?;
            sides.push(Side::timing_itself(name, move |_| {
                let mut bytes = 0.0;
                let taken = seconds(|| {
                    for cursor in (from..end).step_by(1000) {
                        let page = client.query_one(&statement, &[&workspace, &cursor])?;
                        bytes += f64::from(page.get::<_, i32>(0));
                    }
                    Ok(())
                })?;
                Ok(taken / bytes * 1e3)
            }));
        }
        let times = alternate(&self.bar, self.rounds, 1, sides)?;
        Ok(times.row("pull of patched records, a KB", "patched", "put"))
    }
}
