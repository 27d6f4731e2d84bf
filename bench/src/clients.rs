//! Many clients, many workspaces; one op per commit.

use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};

use crate::bench::Bench;
use crate::report::Row;
use crate::rounds::Series;

/// How many clients, the workspaces that they take in turn, ops per client and round.
pub type Spread = (usize, usize, usize);

/// A side's name, what prepares its sessions, and how it pushes.
pub type Way<'a> = (&'static str, &'a str, &'a str);

const SPREADS: [Spread; 6] =
    [(8, 8, 200), (8, 1, 100), (8, 1000, 200), (1, 1, 200), (1, 8, 200), (1, 1000, 200)];

// A batch of one op, made up on the server from nothing but new UUIDs, so that
// both sides do the same besides writing.
pub const OURS: &str = r#"with new as (
      select gen_random_uuid() as id, gen_random_uuid() as pk, repeat('0123456789abcdef', 34) as body)
    select sync_push($1, format('[{"tableName":"notes","operation":"put","pk":"%s",
      "payload":{"id":"%s","body":"%s"},"stamp":{"deviceId":"device-1","opId":"%s",
      "hlc":"1767225600000:0000:device-1","clock":1}}]', pk, pk, body, id)::json)::text
    from new"#;
const FLOOR: &str = r#"with new as materialized (
      select gen_random_uuid() as id, gen_random_uuid() as pk, repeat('0123456789abcdef', 34) as body),
    counter as (update floor.workspace set head = head + 1 where workspace_id = $1
      returning workspace_key, head),
    logged as (
      insert into floor.change_log
      select workspace_key, head, 'notes', pk::text, 'put',
        format('{"id":"%s","body":"%s"}', pk, body)::json, 1, '1767225600000:0000:device-1',
        'device-1', id, true, null, clock_timestamp()
      from new, counter)
    insert into floor.record
    select workspace_key, 'notes', pk::text, head, 1, '1767225600000:0000:device-1', id, false
    from new, counter"#;

impl Bench {
    /// Rates of sync_push and of one CTE that writes the same rows.
    pub fn clients(&mut self) -> Result<Vec<Row>> {
        let ways = [("sync_ext", "", OURS), ("one CTE", "", FLOOR)];
        let row = |spread: Spread| {
            let name = format!("{}, {}", plural(spread.0, "client"), plural(spread.1, "workspace"));
            self.rates(&name, spread, ways)
        };
        SPREADS.into_iter().map(row).collect()
    }

    /// Rates of two ways, alternating.
    pub fn rates(
        &self,
        name: &str,
        (clients, workspaces, ops): Spread,
        ways: [Way<'_>; 2],
    ) -> Result<Row> {
        self.bar.inc_length(((self.rounds + 1) * 2) as u64);
        // A full run pushes four times as much, as elsewhere.
        let ops = ops * self.work / 5_000;
        let mut rates = [Vec::new(), Vec::new()];
        for round in 0..=self.rounds {
            for turn in 0..2 {
                let side = (round + turn) % 2;
                let (_, set, sql) = ways[side];
                let rate = self.run(set, sql, (clients, workspaces, ops))?;
                if round > 0 {
                    rates[side].push(rate);
                }
                self.bar.inc(1);
            }
        }
        let ([ours, base], [(our_name, ..), (base_name, ..)]) = (rates, ways);
        let series = Series::new("ops/s", [(our_name, ours), (base_name, base)]);
        Ok(series.row(name, our_name, base_name))
    }

    /// Ops per second, all clients together; `set` prepares their sessions.
    fn run(&self, set: &str, sql: &str, (clients, workspaces, ops): Spread) -> Result<f64> {
        let mut sessions = Vec::new();
        for client in 0..clients {
            let mut session = self.stand.connect()?;
            session.batch_execute(set)?;
            let statement = session.prepare(sql)?;
            sessions.push((client, session, statement));
        }
        let begun = Instant::now();
        thread::scope(|scope| {
            let running: Vec<_> = sessions
                .iter_mut()
                .map(|(client, session, statement)| {
                    scope.spawn(move || -> Result<()> {
                        for n in 0..ops {
                            let workspace =
                                format!("w{}", 1 + (*client + n * clients) % workspaces);
                            session.query(&*statement, &[&workspace])?;
                        }
                        Ok(())
                    })
                })
                .collect();
            running
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?)
        })?;
        Ok((ops * clients) as f64 / begun.elapsed().as_secs_f64())
    }
}

pub fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
