//! What NOTIFY costs: clients that commit an op each, with a listener beside
//! them, with and without notifications. NOTIFY takes a lock of the whole server
//! from before the commit to its end, so that commits queue.

use anyhow::Result;

use crate::bench::Bench;
use crate::clients::{OURS, plural};
use crate::report::Row;

/// Clients, which push to as many workspaces, and ops per client and round.
const CLIENTS: [(usize, usize); 3] = [(1, 400), (8, 400), (32, 150)];

impl Bench {
    /// Rates with sync_ext.notify off and at hint and changes, alternating.
    pub fn notify(&mut self) -> Result<Vec<Row>> {
        let mut listener = self.stand.connect()?;
        listener.batch_execute("listen sync_ext")?;
        let mut rows = Vec::new();
        for level in ["hint", "changes"] {
            for (clients, ops) in CLIENTS {
                let name = format!("notify {level}, {}", plural(clients, "client"));
                let set = format!("set sync_ext.notify = {level}");
                let off = ("notify off", "set sync_ext.notify = off", OURS);
                let spread = (clients, clients, ops);
                rows.push(self.rates(&name, spread, [(level, &set, OURS), off])?);
                // A listener that never reads would fill the queue.
                listener.batch_execute("unlisten *; listen sync_ext")?;
            }
        }
        Ok(rows)
    }
}
