//! A device and what is around it: who it is, what it edits, when it is online.

use std::collections::{BTreeMap, HashMap, HashSet};

use sync_ext_harness::device::{Device, Listing, LostToDelete, Revision};
use sync_ext_model::Entry;

use super::op::{Item, Op, Spelling};
use super::step::{Extra, Order, Push};

/// Entries by version.
type Log = BTreeMap<i64, Entry>;

pub struct Peer {
    pub device: Device,
    /// What the pages of a begun snapshot have listed.
    pub listing: Listing,
    number: usize,
    /// How often it was installed: a new install is a new device.
    installs: u64,
    ops_made: u64,
    /// What is in its outbox, by opId.
    ops: HashMap<String, Op>,
    /// Puts made without knowing the record.
    blind: HashSet<String>,
    pub offline_until: i64,
    /// How wrong its clock is, in seconds.
    pub skew: i64,
    /// How far its next edit's clock jumps ahead.
    pub jump: i64,
    /// It waits for a push to be answered.
    pub busy: bool,
    /// It has pulled, or taken a snapshot, to the end.
    pub complete: bool,
    /// GC has run while it was not active, and it has not read since.
    pub exposed: bool,
    /// It has acknowledged, and was active whenever GC ran since.
    pub shielded: bool,
}

impl Peer {
    pub fn new(number: usize, workspace: &str) -> Peer {
        let mut peer = Peer {
            device: Device::default(),
            listing: Listing::default(),
            number,
            installs: 0,
            ops_made: 0,
            ops: HashMap::new(),
            blind: HashSet::new(),
            offline_until: 0,
            skew: 0,
            jump: 0,
            busy: false,
            complete: false,
            exposed: false,
            shielded: false,
        };
        peer.install(workspace);
        peer
    }

    pub fn reinstall(&mut self) {
        let workspace = self.device.workspace.clone();
        self.install(&workspace);
    }

    fn install(&mut self, workspace: &str) {
        self.installs += 1;
        self.device = Device::new(&format!("d{}-{}", self.number, self.installs), workspace);
        self.listing = Listing::default();
        self.ops.clear();
        self.blind.clear();
        (self.complete, self.exposed, self.shielded) = (false, false, false);
    }

    pub fn start_snapshot(&mut self) {
        self.device.snapshot_begun = true;
        self.listing = Listing::default();
    }

    /// A cursor belongs to its filter: with another one it starts again.
    pub fn filter(&mut self, tables: Vec<String>) {
        let Device { cursor, proof, tables: filter, .. } = &mut self.device;
        (*cursor, *proof, *filter) = (0, None, tables);
        self.start_snapshot();
        (self.complete, self.shielded) = (false, false);
    }

    pub fn edit(&mut self, table: &'static str, pk: &str, delete: bool, text: u64, now: i64) {
        let key = (table.to_owned(), pk.to_owned());
        let pending = self.device.outbox.iter().filter(|op| op.table == table && op.pk == pk);
        let pending = pending.map(|op| op.revision.clock).max();
        let known = self.device.clocks.get(&key).copied().max(pending).unwrap_or(0);
        let is_blind = pending.is_none() && !self.device.synced.contains_key(&key);
        let clock = known + 1 + std::mem::take(&mut self.jump);
        let op = self.op(table, pk, delete, text, clock, now);
        if is_blind && !delete {
            self.blind.insert(op.revision.op_id.clone());
        }
        self.enqueue(op);
    }

    fn enqueue(&mut self, op: Op) {
        self.device.outbox.push(op.pending());
        self.ops.insert(op.revision.op_id.clone(), op);
    }

    fn op(
        &mut self,
        table: &'static str,
        pk: &str,
        delete: bool,
        text: u64,
        clock: i64,
        now: i64,
    ) -> Op {
        let wall = 10_i64.pow(10) + now + self.skew;
        // Not all devices write their hlc alike, and bytes order them otherwise
        // than people would.
        let hlc = match ["a", "Z", "", "B", "b", "", "é"].get(self.number) {
            Some(&"") | None => format!("{wall:x}"),
            Some(prefix) => format!("{prefix}{wall}"),
        };
        Op {
            table,
            pk: pk.to_owned(),
            delete,
            text,
            revision: Revision { clock, hlc, op_id: self.op_id() },
            device_id: self.device.id.clone(),
            // One of them is an old client.
            parent: (self.number != 2).then(|| self.device.parent(table, pk)),
        }
    }

    /// The next of this device's opIds, in no order.
    fn op_id(&mut self) -> String {
        self.ops_made += 1;
        let mixed = |n: u64| {
            let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            n ^ (n >> 31)
        };
        let high = mixed((self.number as u64) << 48 | self.installs << 32 | self.ops_made);
        let low = mixed(high);
        format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            low >> 48 & 0xfff,
            low & 0xffff_ffff_ffff
        )
    }

    /// The batch of a push, to a workspace of this log.
    pub fn batch(&mut self, push: &Push, log: Option<&Log>) -> Vec<Item> {
        let waiting = self.device.outbox.iter().filter(|op| push.again || op.told.is_none());
        let mut ops: Vec<&Op> = waiting.map(|op| &self.ops[&op.revision.op_id]).collect();
        // What is left out by the cut comes later, so ops may overtake others.
        match push.order {
            Order::AsMade => {}
            Order::Backwards => ops.reverse(),
            Order::Rotated(by) => {
                let by = by % ops.len().max(1);
                ops.rotate_left(by);
            }
        }
        ops.truncate(push.cut);
        let mut items: Vec<Item> = ops
            .into_iter()
            .enumerate()
            .map(|(place, op)| {
                let loose = push.loose && place % 2 == 0;
                Item::Op(op.clone(), if loose { Spelling::Loose } else { Spelling::Compact })
            })
            .collect();
        self.add_extra(&mut items, push.extra, log);
        items
    }

    fn add_extra(&mut self, items: &mut Vec<Item>, extra: Extra, log: Option<&Log>) {
        let other = |op: &Op| Op { text: op.text.wrapping_add(1), delete: false, ..op.clone() };
        let one_of = |items: &[Item], place: usize| match items.get(place % items.len().max(1)) {
            Some(Item::Op(op, _)) => Some(op.clone()),
            _ => None,
        };
        let item = match extra {
            Extra::Nothing => None,
            Extra::Malformed(place) => Some(self.malformed(place)),
            Extra::Twice(place) => one_of(items, place).map(|op| Item::Op(op, Spelling::Loose)),
            Extra::TwiceDifferent(place) => {
                one_of(items, place).map(|op| Item::Op(other(&op), Spelling::Compact))
            }
            Extra::Forged(place) => log
                .and_then(|log| log.values().nth(place % log.len().max(1)))
                .map(|entry| Item::Op(Op::forged(&entry.op), Spelling::Compact)),
        };
        if let (
            Some(item),
            Extra::Malformed(place)
            | Extra::Twice(place)
            | Extra::TwiceDifferent(place)
            | Extra::Forged(place),
        ) = (item, extra)
        {
            items.insert(place % (items.len() + 1), item);
        }
    }

    fn malformed(&mut self, kind: usize) -> Item {
        let op_id = self.op_id();
        let good = self.op("notes", "a", false, 0, 1, 0);
        let with_id = |json: String| Item::Malformed {
            json: json.replace(&good.revision.op_id, &op_id),
            op_id: Some(op_id.clone()),
        };
        let json = good.json(Spelling::Compact);
        match kind % 6 {
            0 => with_id(json.replace("\"clock\":1", "\"clock\":-1")),
            1 => with_id(json.replace("\"put\"", "\"upsert\"")),
            2 => with_id(json.replace("\"pk\":\"a\"", "\"pk\":\"\"")),
            3 => with_id(json.replace("\"hlc\"", "\"hlc?\"")),
            4 => with_id(
                json.replace("\"id\":\"a\"", "\"id\":\"b\"").replace("\"pk\":\"a\"", "\"pk\":7"),
            ),
            _ => Item::Malformed { json: "42".to_owned(), op_id: None },
        }
    }

    /// A put made without knowing the record that lost to a delete is made
    /// again, after the delete, as the user sees the record; once, and by the
    /// first answer or never.
    pub fn make_again(&mut self, answered: &[String], lost: Vec<LostToDelete>, now: i64) {
        for LostToDelete { op, latest, winner } in lost {
            if !self.blind.remove(&op.revision.op_id) {
                continue;
            }
            let latest = self.ops.get(&latest.revision.op_id).filter(|latest| !latest.delete);
            let Some(Op { table, pk, text, .. }) = latest.cloned() else { continue };
            let again = self.op(table, &pk, false, text, winner.clock + 1, now);
            self.enqueue(again);
        }
        for op_id in answered {
            self.blind.remove(op_id);
        }
    }
}
