//! A device and what is around it: who it is, what it edits, when it is online.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Result, ensure};
use serde_json::json;
use sync_ext_harness::device::{Device, List, Listing, LostToDelete, Pending, Revision};
use sync_ext_harness::outbox::{Edit, Seen};
use sync_ext_model::Entry;

use super::op::{Item, Kind, Members, Op, Spelling};
use super::step::{AT, Extra, IN, Order, Push, SCOPES, scopes_of};

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
    /// What was sent, or perhaps was.
    sent: HashSet<String>,
    /// How many ops were merged before they were sent.
    pub squashed: u64,
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
            sent: HashSet::new(),
            squashed: 0,
            offline_until: 0,
            skew: 0,
            jump: 0,
            busy: false,
            complete: false,
            exposed: false,
            shielded: false,
        };
        peer.device.scopes = [None, Some(2), None, Some(6), Some(0), Some(9), Some(4)]
            .get(number)
            .and_then(|mask| mask.map(scopes_of));
        peer.install(workspace);
        peer
    }

    pub fn reinstall(&mut self) {
        let workspace = self.device.workspace.clone();
        self.install(&workspace);
    }

    fn install(&mut self, workspace: &str) {
        self.installs += 1;
        let scopes = self.device.wanted_scopes().clone();
        self.device = Device::new(&format!("d{}-{}", self.number, self.installs), workspace);
        self.device.scopes = scopes;
        self.device.keeps_marks = self.number % 2 == 1;
        self.listing = Listing::default();
        self.ops.clear();
        self.blind.clear();
        (self.complete, self.exposed, self.shielded) = (false, false, false);
    }

    pub fn start_snapshot(&mut self) {
        (self.device.snapshot_begun, self.device.joins) = (true, false);
        self.listing = Listing::default();
    }

    pub fn snapshot_expired(&mut self) {
        self.device.snapshot_expired();
        self.listing = Listing::default();
    }

    /// It asks for another list of scopes.
    pub fn follow(&mut self, list: List) {
        self.device.follow(list);
        self.listing = Listing::default();
    }

    /// A cursor belongs to its filter: with another one it starts again.
    pub fn filter(&mut self, tables: Vec<String>) {
        let Device { cursor, proof, tables: filter, .. } = &mut self.device;
        (*cursor, *proof, *filter) = (0, None, tables);
        self.start_snapshot();
        (self.complete, self.shielded) = (false, false);
    }

    /// A record that its user sees is edited by patches of some fields, but now and then
    /// replaced on purpose.
    pub fn edit(
        &mut self,
        table: &'static str,
        pk: &str,
        delete: bool,
        text: u64,
        now: i64,
    ) -> Result<()> {
        let key = (table.to_owned(), pk.to_owned());
        let pending = self.device.pending(table, pk).map(|op| op.revision.clock).max();
        let known = self.device.clocks.get(&key).copied().max(pending).unwrap_or(0);
        let is_blind = pending.is_none() && !self.device.synced.contains_key(&key);
        let clock = known + 1 + std::mem::take(&mut self.jump);
        let seen = self.device.seen(table, pk);
        let kind = match seen.register.clone().filter(|_| seen.is_live()) {
            _ if delete => Kind::Delete,
            Some(base) if !self.is_old() && !text.is_multiple_of(5) => Kind::Patch(base),
            _ => Kind::Put,
        };
        let mut op = self.op(table, pk, kind, members(text), clock, now);
        if !self.is_old() {
            op.expected = self.condition(&op, &seen, text >> 24);
        }
        if is_blind && op.kind == Kind::Put {
            self.blind.insert(op.revision.op_id.clone());
        }
        let one_more = op.pending();
        let synced = self.device.synced.get(&key);
        let due = Seen::of(synced, self.device.pending(table, pk).chain([&one_more])).payload;
        if self.number % 2 == 1 {
            self.squash(&mut op, &seen);
        }
        self.enqueue(op);
        let shown = self.device.seen(table, pk).payload;
        ensure!(shown == due, "merging {one_more:?} shows {shown:?} instead of {due:?}");
        if let Edit::Put(fields) | Edit::Patch { fields, .. } = &one_more.edit {
            let is_shown = |(name, value): (&String, _)| shown.get(name) == Some(value);
            ensure!(fields.iter().all(is_shown), "{one_more:?} shows {shown:?}");
        }
        Ok(())
    }

    /// It knows neither parents nor patches.
    fn is_old(&self) -> bool {
        self.number == 2
    }

    /// What its user sees must still be so. A condition on the whole record says nothing
    /// of what was there before an own op without one.
    fn condition(&self, op: &Op, seen: &Seen, kind: u64) -> Option<String> {
        let mut pending = self.device.pending(op.table, &op.pk);
        match (kind % 8, &seen.newest) {
            (0 | 1, _) if !pending.all(|op| op.is_conditional) => None,
            (0, Some(newest)) => Some(format!("\"{newest}\"")),
            (0 | 1, _) if !seen.is_live() => Some("\"none\"".to_owned()),
            (2, _) if matches!(op.kind, Kind::Patch(_)) => {
                let by = |name: &String| {
                    let by = seen.fields.get(name).or(seen.register.as_ref())?;
                    Some((name.clone(), by.op_id.clone()))
                };
                let expected: BTreeMap<_, _> = op.members.keys().filter_map(by).collect();
                Some(json!(expected).to_string())
            }
            _ => None,
        }
    }

    /// Merges a patch with the record's last op in the outbox, if that was never sent.
    fn squash(&mut self, op: &mut Op, seen: &Seen) {
        let last = self.device.pending(op.table, &op.pk).last();
        let Some(last) = last.map(|op| &op.revision.op_id) else { return };
        let Some(last) =
            self.ops.get(last).filter(|last| !self.sent.contains(&last.revision.op_id))
        else {
            return;
        };
        let Kind::Patch(base) = &op.kind else { return };
        if op.expected.is_some() || last.expected.is_some() {
            return;
        }
        let mut last = last.clone();
        if last.kind == Kind::Put && last.revision == *base {
            last.members.append(&mut op.members);
            std::mem::swap(op, &mut last);
            self.device.outbox.retain(|pending| pending.revision != op.revision);
        } else if last.kind == op.kind {
            // Others' later patches would lose to what its user sees no more.
            last.members.retain(|name, _| seen.fields.get(name) == Some(&last.revision));
            last.members.append(&mut op.members);
            op.members = last.members;
            self.device.outbox.retain(|pending| pending.revision != last.revision);
        } else {
            return;
        }
        self.squashed += 1;
    }

    fn enqueue(&mut self, op: Op) {
        self.device.outbox.push(op.pending());
        self.ops.insert(op.revision.op_id.clone(), op);
    }

    fn op(
        &mut self,
        table: &'static str,
        pk: &str,
        kind: Kind,
        members: Members,
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
            kind,
            members,
            revision: Revision { clock, hlc, op_id: self.op_id() },
            device_id: self.device.id.clone(),
            parent: (!self.is_old()).then(|| self.device.parent(table, pk)),
            expected: None,
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
        let waiting = self.device.outbox.iter();
        let waiting = waiting.filter(|op| !op.waits && (push.again || op.told.is_none()));
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
        self.sent.extend(ops.iter().map(|op| op.revision.op_id.clone()));
        let mut items: Vec<Item> = ops
            .into_iter()
            .enumerate()
            .map(|(place, op)| {
                let loose = push.loose && place % 2 == 0;
                Item::Op(
                    Box::new(op.clone()),
                    if loose { Spelling::Loose } else { Spelling::Compact },
                )
            })
            .collect();
        self.add_extra(&mut items, push.extra, log);
        items
    }

    fn add_extra(&mut self, items: &mut Vec<Item>, extra: Extra, log: Option<&Log>) {
        let other = |op: &Op| {
            let mut other = Op { kind: Kind::Put, ..op.clone() };
            if let Kind::Patch(base) = &op.kind {
                other.kind = Kind::Patch(Revision { clock: base.clock - 1, ..base.clone() });
            } else {
                other.members.insert("other".to_owned(), "1".to_owned());
            }
            other
        };
        let one_of = |items: &[Item], place: usize| match items.get(place % items.len().max(1)) {
            Some(Item::Op(op, _)) => Some(op.clone()),
            _ => None,
        };
        let item = match extra {
            Extra::Nothing => None,
            Extra::Malformed(place) => Some(self.malformed(place)),
            Extra::Twice(place) => one_of(items, place).map(|op| Item::Op(op, Spelling::Loose)),
            Extra::TwiceDifferent(place) => {
                one_of(items, place).map(|op| Item::Op(Box::new(other(&op)), Spelling::Compact))
            }
            Extra::Forged(place) => log
                .and_then(|log| log.values().nth(place % log.len().max(1)))
                .map(|entry| Item::Op(Box::new(Op::forged(&entry.op)), Spelling::Compact)),
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
        let good = self.op("notes", "a", Kind::Put, members(0), 1, 0);
        let base = Revision { clock: 0, hlc: "h".to_owned(), op_id: good.revision.op_id.clone() };
        let patch = Op { kind: Kind::Patch(base), ..good.clone() }.json(Spelling::Compact);
        let with_id = |json: String| Item::Malformed {
            json: json.replace(&good.revision.op_id, &op_id),
            op_id: Some(op_id.clone()),
        };
        let json = good.json(Spelling::Compact);
        match kind % 9 {
            7 => with_id(json.replace("\"id\"", "\"in\":7,\"id\"")),
            0 => with_id(json.replace("\"clock\":1", "\"clock\":-1")),
            1 => with_id(json.replace("\"put\"", "\"upsert\"")),
            2 => with_id(json.replace("\"pk\":\"a\"", "\"pk\":\"\"")),
            3 => with_id(json.replace("\"hlc\"", "\"hlc?\"")),
            4 => with_id(
                json.replace("\"id\":\"a\"", "\"id\":\"b\"").replace("\"pk\":\"a\"", "\"pk\":7"),
            ),
            5 => with_id(patch.replace("\"base\"", "\"ground\"")),
            6 => with_id(patch.replace("\"clock\":0", "\"clock\":1")),
            _ => Item::Malformed { json: "42".to_owned(), op_id: None },
        }
    }

    /// A put made without knowing the record that lost to a delete is made
    /// again, after the delete, as the user sees the record; once, and by the
    /// first answer or never. The patches that it then has leave with it.
    pub fn make_again(&mut self, answered: &[String], lost: Vec<LostToDelete>, now: i64) {
        for LostToDelete { op, seen, winner } in lost {
            if !self.blind.remove(&op.revision.op_id) || !seen.is_live() {
                continue;
            }
            let Some(Op { table, pk, .. }) = self.ops.get(&op.revision.op_id).cloned() else {
                continue;
            };
            let of_record = |op: &Pending| op.table == table && op.pk == pk;
            self.device.outbox.retain(|op| !(op.is_patch() && of_record(op)));
            let mut members: Members = seen
                .payload
                .iter()
                .map(|(name, value)| (name.clone(), value.to_string()))
                .collect();
            members.remove("id");
            let again = self.op(table, &pk, Kind::Put, members, winner.clock + 1, now);
            self.enqueue(again);
        }
        for op_id in answered {
            self.blind.remove(op_id);
        }
    }
}

/// Some fields, at least one.
fn members(text: u64) -> Members {
    let names = ["text", "done", "n \"é"].iter().enumerate();
    let mask = (text >> 8) % 7 + 1;
    let chosen = names.filter(|(at, _)| mask >> at & 1 == 1);
    let mut members: Members =
        chosen.map(|(_, name)| ((*name).to_owned(), format!("\"{text}\""))).collect();
    for (field, choice) in [(IN, text >> 32), (AT, text >> 40)] {
        // Absent, null, or one of the scopes.
        let value = match choice as usize % (2 * SCOPES.len()) {
            0..3 => continue,
            3 => "null".to_owned(),
            scope => json!(SCOPES[scope - SCOPES.len()]).to_string(),
        };
        members.insert(field.to_owned(), value);
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Patches of one field, without a condition.
    const TEXT: u64 = 196_609 << 8 | 2;
    const DONE: u64 = 196_610 << 8 | 2;

    fn pull(peer: &mut Peer, version: i64, change: &str) {
        let reply = format!(
            r#"{{"changes":[{{"serverVersion":{version},"tableName":"notes","pk":"a","applied":true,{change}}}],"nextCursor":{version},"hasMore":false,"serverVersion":{version},"requiresSnapshot":false}}"#
        );
        peer.device.pull_answered(&reply).unwrap();
    }

    #[test]
    fn merging_patches_does_not_bring_back_what_others_replaced() {
        let put = r#"{"clock":1,"hlc":"h","opId":"p"}"#;
        let other = r#"{"clock":9,"hlc":"h","opId":"q"}"#;
        let mut peer = Peer::new(1, "w");
        pull(&mut peer, 1, &format!(r#""op":"put","payload":{{}},"stamp":{put}"#));
        peer.edit("notes", "a", false, TEXT, 0).unwrap();
        let changed = format!(r#""payload":{{"text":"q"}},"fields":{{"text":{other}}}"#);
        pull(&mut peer, 2, &format!(r#""op":"patch","base":{put},{changed},"stamp":{other}"#));
        peer.edit("notes", "a", false, DONE, 0).unwrap();
        assert_eq!((peer.device.outbox.len(), peer.squashed), (1, 1));
        assert_eq!(peer.device.seen("notes", "a").payload["text"], "q");
    }
}
