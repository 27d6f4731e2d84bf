//! A user's edits on a device: ops that go to its outbox.

use crate::batch;
use crate::device::{Device, Pending};

impl Device {
    /// A put on table `notes`; the opId follows from `id`. Its clock is one more than
    /// the highest clock of the record that the device knows.
    pub fn put(&mut self, id: u64, pk: &str) {
        let op = batch::put(id, pk, self.next_clock(pk));
        self.keep(pk, op);
    }

    pub fn delete(&mut self, id: u64, pk: &str) {
        let op = batch::delete(id, pk, self.next_clock(pk));
        self.keep(pk, op);
    }

    fn next_clock(&self, pk: &str) -> u64 {
        let known = self.clocks.get(&("notes".to_owned(), pk.to_owned())).copied();
        let pending = self.outbox.iter().filter(|op| op.pk == pk).map(|op| op.revision.clock);
        1 + pending.chain(known).max().unwrap_or(0) as u64
    }

    fn keep(&mut self, pk: &str, json: String) {
        let json = batch::with_parent(&json, &self.parent("notes", pk));
        self.outbox.push(Pending::of(json).expect("a well-formed op"));
    }
}
