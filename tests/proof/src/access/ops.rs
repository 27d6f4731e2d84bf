//! Batches: new ops on few records, ops that were sent before, by the same user
//! or another, and ops under an opId that stands for something else.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use serde_json::json;

use super::op::{DIARY, Item, Op, TABLES};
use super::secrets;
use super::step::{Name, USERS, Who};

/// What was written so far.
#[derive(Default)]
pub struct Pen {
    ops: u64,
    /// By whom and where to.
    batches: Vec<(Who, Name, Vec<Item>)>,
}

const KEPT: usize = 40;

impl Pen {
    pub fn batch(&mut self, who: Who, workspace: Name, random: &mut StdRng) -> Vec<Item> {
        let items = match self.earlier(who, workspace, random) {
            Some(items) if random.random_bool(0.25) => retry(items, random),
            _ => {
                let count = *[1, 1, 2, 3, 6, 8, 9, 14, 20].choose(random).unwrap_or(&1);
                // A large batch of nothing but new ones is stored first and
                // asked about later.
                let is_fresh = random.random_bool(0.5);
                (0..count).map(|_| self.item(who, workspace, is_fresh, random)).collect()
            }
        };
        if self.batches.len() == KEPT {
            self.batches.swap_remove(random.random_range(0..KEPT));
        }
        self.batches.push((who, workspace, items.clone()));
        items
    }

    /// A batch sent to this workspace, often by the same user.
    fn earlier(&self, who: Who, workspace: Name, random: &mut StdRng) -> Option<Vec<Item>> {
        let own = random.random_bool(0.7);
        let fits = |sent: &&(Who, Name, Vec<Item>)| sent.1 == workspace && (!own || sent.0 == who);
        let all: Vec<_> = self.batches.iter().filter(fits).collect();
        all.choose(random).map(|(.., items)| items.clone())
    }

    fn item(&mut self, who: Who, workspace: Name, is_fresh: bool, random: &mut StdRng) -> Item {
        let mut item = Item {
            op: self.fresh(who, workspace, is_fresh, random),
            is_loose: random.random_bool(0.3),
        };
        if let Some(put) = self.put(who, workspace, random)
            && random.random_bool(0.3)
        {
            item.op = patch(item.op, &put, who, random);
        } else if !is_fresh
            && random.random_bool(0.2)
            && let Some(known) = self.earlier(who, workspace, random)
            && let Some(known) = known.choose(random)
        {
            match random.random_range(0..3) {
                // Somebody's op, sent by somebody,
                0 => item = known.clone(),
                // with another payload (in a diary others' names have no place),
                1 if known.op.table == item.op.table => {
                    item.op = Op { payload: item.op.payload, ..known.op.clone() }
                }
                // or nothing but its opId.
                _ => item.op.op_id = known.op.op_id.clone(),
            }
            item.op.delete |= item.op.payload.is_none();
            item.op.base = item.op.base.filter(|_| item.op.payload.is_some());
        }
        item
    }

    /// One that was sent before, mostly lately.
    fn put(&self, who: Who, workspace: Name, random: &mut StdRng) -> Option<Op> {
        let items = self.earlier(who, workspace, random)?;
        let puts: Vec<_> =
            items.iter().filter(|item| !item.op.delete && item.op.base.is_none()).collect();
        puts.choose(random).map(|item| item.op.clone())
    }

    fn fresh(&mut self, who: Who, workspace: Name, is_fresh: bool, random: &mut StdRng) -> Op {
        self.ops += 1;
        let number = self.ops;
        let table = *[DIARY, DIARY, DIARY, TABLES[1], TABLES[2], TABLES[2]]
            .choose(random)
            .unwrap_or(&DIARY);
        let name = match is_fresh && random.random_bool(0.9) {
            true => random.random_range(0..600),
            false => random.random_range(0..12),
        };
        let clock = match is_fresh {
            true => 1,
            false => random.random_range(1..6),
        };
        let delete = random.random_bool(0.2);
        let payload = match delete && random.random_bool(0.8) {
            true => None,
            false => Some(payload(who, table, number, random)),
        };
        Op {
            table,
            pk: secrets::pk(table, name, workspace),
            delete,
            payload,
            clock,
            hlc: format!("{}-{}", random.random_range(0..3), secrets::marker(table, number)),
            device: format!("dev-{}", secrets::marker(table, number)),
            op_id: secrets::op_id(number),
            parent: match random.random_range(0..4) {
                0 => None,
                1 => Some("none".to_owned()),
                // Somebody's op, perhaps this very record's newest.
                _ => Some(secrets::op_id(number - random.random_range(0..number.min(9)))),
            },
            base: None,
            expected: None,
        }
    }
}

/// A new op as a patch of what this put wrote.
fn patch(op: Op, put: &Op, who: Who, random: &mut StdRng) -> Op {
    let seen = match random.random_bool(0.7) {
        true => json!(put.op_id),
        false => json!(op.op_id),
    };
    let expected = match random.random_range(0..8) {
        0 => Some(json!("none")),
        1 => Some(seen),
        2 => Some(json!({"text": seen})),
        _ => None,
    };
    // Its marker is that of its table.
    let number = u64::from_str_radix(&op.op_id[24..], 16).unwrap_or_default();
    let marker = secrets::marker(put.table, number);
    Op {
        table: put.table,
        pk: put.pk.clone(),
        delete: false,
        payload: Some(payload(who, put.table, number, random)),
        clock: put.clock + random.random_range(0..3),
        hlc: format!("{}-{marker}", random.random_range(0..3)),
        device: format!("dev-{marker}"),
        base: Some(json!({"clock": put.clock, "hlc": put.hlc, "opId": put.op_id}).to_string()),
        expected: expected.map(|expected| expected.to_string()),
        ..op
    }
}

/// Sent again: as it was, spelled otherwise, in part, or with more beside it.
fn retry(mut items: Vec<Item>, random: &mut StdRng) -> Vec<Item> {
    match random.random_range(0..6) {
        0 => items.iter_mut().for_each(|item| item.is_loose = !item.is_loose),
        1 => items.retain(|_| random.random_bool(0.7)),
        2 => items.reverse(),
        3 => {
            let again = items.choose(random).cloned();
            items.extend(again);
        }
        4 => {
            // One of them says, or no longer says, whose it is.
            if let Some(members) = items.choose_mut_payload(random) {
                let known = members.iter().position(|(key, _)| *key == "by");
                match known {
                    Some(place) => drop(members.remove(place)),
                    None => members.push(("by", format!("\"{}\"", user(random)))),
                }
            }
        }
        _ => {}
    }
    items
}

trait ChoosePayload {
    fn choose_mut_payload(&mut self, random: &mut StdRng) -> Option<&mut Vec<(Name, String)>>;
}

impl ChoosePayload for Vec<Item> {
    fn choose_mut_payload(&mut self, random: &mut StdRng) -> Option<&mut Vec<(Name, String)>> {
        if self.is_empty() {
            return None;
        }
        let place = random.random_range(0..self.len());
        self[place].op.payload.as_mut()
    }
}

fn user(random: &mut StdRng) -> Name {
    USERS.choose(random).copied().unwrap_or(USERS[0])
}

fn payload(who: Who, table: Name, number: u64, random: &mut StdRng) -> Vec<(Name, String)> {
    let mut members = vec![("text", format!("\"{}\"", secrets::marker(table, number)))];
    if random.random_bool(0.01) {
        members.push(("id", "\"no such pk\"".to_owned()));
    }
    // A trusted caller has to name the owner.
    let names = if who == Who::Trusted { 0.9 } else { 0.45 };
    for (field, chance) in [("by", names), ("author", 0.15)] {
        if random.random_bool(chance) {
            members.push((field, owner(who, random)));
        }
    }
    members
}

fn owner(who: Who, random: &mut StdRng) -> String {
    let name = match who.user() {
        Some(user) if random.random_bool(0.8) => user,
        _ => user(random),
    };
    match random.random_range(0..20) {
        0 => "null".to_owned(),
        1 => "[\"ann\"]".to_owned(),
        2 => format!("\"{} \"", name),
        3 => format!("\"\\u00{:x}{}\"", name.as_bytes()[0], &name[1..]),
        4..8 if name == "7" => "7".to_owned(),
        8 if name == "7" => "7.0".to_owned(),
        _ => format!("\"{name}\""),
    }
}
