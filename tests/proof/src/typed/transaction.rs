//! Transactions of several calls, with savepoints and two phases; what devices push and
//! the backend writes.

use anyhow::Result;
use serde_json::Value;
use sync_ext_model::Server;

use super::calling::Call;
use super::chance::Chance;
use super::rows::Typed;
use super::schema::TABLE;
use super::world::World;

/// Where a transaction can return to.
pub type Saved = (Server, Typed);

impl World {
    pub fn some_push(&mut self, device: usize, chance: &mut Chance) -> Call {
        let device = &mut self.devices[device];
        let count = if chance.one_in(10) { 8 + chance.below(40) } else { 1 + chance.below(6) };
        let mut ops = Vec::new();
        for _ in 0..count {
            if !device.sent.is_empty() && chance.one_in(8) {
                let mut again = chance.of_these(&device.sent);
                if chance.one_in(6) {
                    again["stamp"]["hlc"] = "0".into();
                }
                ops.push(again);
                continue;
            }
            let op = chance.op(device);
            device.sent.push(op.clone());
            ops.push(op);
        }
        Call::Push { workspace: device.workspace.clone(), ops: Value::Array(ops).to_string() }
    }

    pub fn some_write(&mut self, chance: &mut Chance) -> Call {
        chance.go_anywhere();
        let (table, (_, pk)) = chance.known_key(&self.typed);
        let word = chance.of_these(&["put", "patch", "delete"]);
        let word = if word == "patch" && !TABLE[table].patches { "put" } else { word };
        let payload = match word {
            "delete" => None,
            word => Some(chance.payload(table, &pk, word == "patch").to_string()),
        };
        let workspace = chance.workspace().to_owned();
        Call::Write { workspace, word, table: TABLE[table].name, pk, payload }
    }

    pub fn transaction(&mut self, chance: &mut Chance) -> Result<()> {
        self.tally.add("longer transactions", 1);
        let level = chance.of_these(&["read committed", "repeatable read", "serializable"]);
        self.must(&format!("begin isolation level {level}"))?;
        self.typed.begin();
        let begun: Saved = (self.model.clone(), self.typed.clone());
        let mut savepoint: Option<Saved> = None;
        let mut is_open = true;
        for _ in 0..1 + chance.below(6) {
            let call = match chance.below(12) {
                0..6 => Call::Statement(chance.statement()),
                6..8 => self.some_push(chance.below(4), chance),
                8 => self.some_write(chance),
                9..11 if savepoint.is_some() => {
                    self.roll_back("rollback to saved", &savepoint)?;
                    self.tally.add("rollbacks to savepoints", 1);
                    continue;
                }
                _ => {
                    self.must("savepoint saved")?;
                    savepoint = Some((self.model.clone(), self.typed.clone()));
                    continue;
                }
            };
            let in_one = u64::from(matches!(call, Call::Push { .. }));
            self.tally.add("pushes in longer transactions", in_one);
            if self.call(&call)? {
                continue;
            }
            if savepoint.is_none() {
                is_open = false;
                break;
            }
            self.roll_back("rollback to saved", &savepoint)?;
        }
        let commits = is_open && !chance.one_in(5);
        let is_prepared = is_open && chance.one_in(4);
        if is_prepared {
            self.must("prepare transaction 'prepared'")?;
            self.tally.add("prepared transactions", 1);
        }
        let prepared = if is_prepared { " prepared 'prepared'" } else { "" };
        if commits {
            self.must(&format!("commit{prepared}"))?;
            return self.commit();
        }
        self.tally.add("rollbacks", 1);
        self.roll_back(&format!("rollback{prepared}"), &Some(begun))?;
        self.typed.changed.clear();
        Ok(())
    }

    fn roll_back(&mut self, sql: &str, to: &Option<Saved>) -> Result<()> {
        self.must(sql)?;
        if let Some((model, typed)) = to {
            (self.model, self.typed) = (model.clone(), typed.clone());
        }
        Ok(())
    }
}
