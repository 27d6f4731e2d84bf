//! What NOTIFY costs: clients that commit an op each, with a listener beside
//! them, with and without notifications. NOTIFY takes a lock of the whole server
//! from before the commit to its end, so that commits queue.

use anyhow::Result;

use crate::bench::Bench;
use crate::clients::OURS;
use crate::report::Row;
use crate::rounds::Series;

/// Clients, which push to as many workspaces, and ops per client and round.
const CLIENTS: [(usize, usize); 3] = [(1, 400), (8, 400), (32, 150)];

impl Bench {
    /// Rates with sync_ext.notify off and at hint and changes, alternating.
    pub fn notify(&mut self) -> Result<Vec<Row>> {
        let mut listener = self.stand.connect()?;
        listener.batch_execute("listen sync_ext")?;
        let mut rows = Vec::new();
        for told in ["hint", "changes"] {
            for (clients, ops) in CLIENTS {
                rows.push(self.notified(told, clients, ops)?);
                // A listener that never reads would fill the queue.
                listener.batch_execute("unlisten *; listen sync_ext")?;
            }
        }
        Ok(rows)
    }

    fn notified(&mut self, told: &'static str, clients: usize, ops: usize) -> Result<Row> {
        self.bar.inc_length(((self.rounds + 1) * 2) as u64);
        let mut rates = [Vec::new(), Vec::new()];
        for round in 0..=self.rounds {
            for turn in 0..2 {
                let side = (round + turn) % 2;
                let set = format!("set sync_ext.notify = {}", [told, "off"][side]);
                let rate = self.run(&set, OURS, (clients, clients, ops * self.work / 5_000))?;
                if round > 0 {
                    rates[side].push(rate);
                }
                self.bar.inc(1);
            }
        }
        let [with, without] = rates;
        let plural = if clients == 1 { "" } else { "s" };
        let series = Series::new("ops/s", [(told, with), ("notify off", without)]);
        Ok(series.row(&format!("notify {told}, {clients} client{plural}"), told, "notify off"))
    }
}
