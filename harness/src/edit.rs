//! A user's edits on a device: ops that go to its outbox.

use crate::batch;
use crate::device::{Device, Pending, Revision};

impl Device {
    /// A put on table `notes`; the opId follows from `id`. Its clock is one more than
    /// the highest clock of the record that the device knows.
    pub fn put(&mut self, id: u64, pk: &str) {
        let op = batch::put(id, pk, self.next_clock(pk));
        self.keep(id, pk, op);
    }

    pub fn delete(&mut self, id: u64, pk: &str) {
        let op = batch::delete(id, pk, self.next_clock(pk));
        self.keep(id, pk, op);
    }

    fn next_clock(&self, pk: &str) -> u64 {
        let known = self.clocks.get(&("notes".to_owned(), pk.to_owned())).copied();
        let pending = self.outbox.iter().filter(|op| op.pk == pk).map(|op| op.revision.clock);
        1 + pending.chain(known).max().unwrap_or(0) as u64
    }

    fn keep(&mut self, id: u64, pk: &str, json: String) {
        let clock = self.next_clock(pk) as i64;
        let json = batch::with_parent(&json, &self.parent("notes", pk));
        self.outbox.push(Pending {
            json,
            table: "notes".to_owned(),
            pk: pk.to_owned(),
            revision: Revision { clock, hlc: "h".to_owned(), op_id: batch::op_id(id) },
            told: None,
        });
    }
}
