//! What is random: statements and ops, made for the rows that are there.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};
use sync_ext_model::Key;

use super::device::Device;
use super::rows::Typed;
use super::schema::{
    COMMENTS, ID, JSON_TABLE, Kind, LISTS, PRICES, TABLE, TODOS, TableId, Value, WORKSPACE,
};
use super::statement::{Conflict, Statement, Where};

pub const WORKSPACES: [&str; 3] = ["w0", "w1", "w2"];
/// By the workspaces in which they mostly are.
const LISTS_OF: [[&str; 3]; 3] = [["a", "b", "c"], ["d", "e", "f"], ["g", "h", "i"]];
const OTHERS_OF: [[&str; 3]; 3] = [["q", "r", "s"], ["t", "u", "v"], ["w", "x", "y"]];
const TODOS_OF_EACH: i64 = 4;

pub struct Chance {
    random: StdRng,
    /// The place of the workspace that what is made is mostly about.
    home: usize,
}

impl Chance {
    pub fn of(seed: u64) -> Chance {
        Chance { random: StdRng::seed_from_u64(seed), home: 0 }
    }

    pub fn seed(&mut self) -> u64 {
        self.random.random()
    }

    pub fn one_in(&mut self, many: u32) -> bool {
        self.random.random_ratio(1, many)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound)
    }

    pub fn of_these<T: Clone>(&mut self, these: &[T]) -> T {
        these.choose(&mut self.random).expect("there are some").clone()
    }

    fn text(&mut self, these: &[&str]) -> Value {
        Value::Text(self.of_these(these).to_owned())
    }

    pub fn workspace(&mut self) -> &'static str {
        WORKSPACES[self.near(6)]
    }

    pub fn go_to(&mut self, workspace: &str) {
        self.home = WORKSPACES.iter().position(|name| *name == workspace).unwrap_or(0);
    }

    pub fn go_anywhere(&mut self) {
        self.home = self.below(WORKSPACES.len());
    }

    /// Mostly the place of the workspace.
    fn near(&mut self, other_in: u32) -> usize {
        if self.one_in(other_in) { self.below(WORKSPACES.len()) } else { self.home }
    }

    pub fn table(&mut self) -> TableId {
        self.of_these(&[
            LISTS, LISTS, LISTS, LISTS, TODOS, TODOS, TODOS, TODOS, TODOS, COMMENTS, COMMENTS,
            COMMENTS, PRICES,
        ])
    }

    fn id(&mut self, table: TableId) -> Value {
        let of = self.near(8);
        match table {
            LISTS => self.text(&LISTS_OF[of]),
            TODOS => Value::Int(1 + self.random.random_range(0..TODOS_OF_EACH) * 3 + of as i64),
            _ => self.text(&OTHERS_OF[of]),
        }
    }

    /// A value for a column, now and then one that a constraint refuses.
    fn value(&mut self, table: TableId, column: usize) -> Value {
        let is_bad = self.one_in(10);
        match TABLE[table].columns[column].name {
            "id" => self.id(table),
            "workspace_id" if self.one_in(8) => Value::Null,
            "workspace_id" => Value::Text(self.workspace().to_owned()),
            "parent" | "list" if self.one_in(3) => Value::Null,
            "parent" | "list" => self.id(LISTS),
            "todo" if self.one_in(4) => Value::Null,
            "todo" => self.id(TODOS),
            "title" if is_bad && self.one_in(2) => Value::Null,
            "title" if is_bad => self.text(&["", "far too long", "raise"]),
            "title" => self.text(&["a", "b", "Cc", "DDD", "é\"\\", "12345678"]),
            "code" if self.one_in(2) => Value::Null,
            "code" => self.text(&["p", "q", "r", "s"]),
            "size" => Value::Int(self.random.random_range(0..3)),
            "label" => self.text(&["l", "L"]),
            "amount" => Value::Int(self.random.random_range(0..5)),
            "priority" if is_bad => Value::Int(10),
            "priority" => Value::Int(self.random.random_range(0..10)),
            "body" if is_bad && self.one_in(3) => Value::Null,
            "body" if is_bad => self.text(&["skip", "move"]),
            "body" => self.text(&["one", "Two", "three\nlines"]),
            "stars" if is_bad => Value::Int(6),
            "stars" if self.one_in(3) => Value::Null,
            "stars" => Value::Int(self.random.random_range(0..6)),
            _ => Value::Bool(self.one_in(3)),
        }
    }

    fn filter(&mut self, table: TableId) -> Where {
        let column = match self.below(5) {
            0 => 2,
            1 if self.one_in(2) => WORKSPACE,
            _ => ID,
        };
        let count = 1 + self.below(3);
        Where(column, (0..count).map(|_| self.value(table, column)).collect())
    }

    pub fn statement(&mut self) -> Statement {
        self.go_anywhere();
        let table = self.table();
        let columns = TABLE[table].columns;
        match self.below(10) {
            0..4 => {
                let count = if self.one_in(6) { 3 + self.below(12) } else { 1 + self.below(3) };
                let mut rows: Vec<Vec<Option<Value>>> =
                    (0..count).map(|_| self.row(table)).collect();
                let conflict = match self.below(3) {
                    0 => Conflict::Raise,
                    1 => Conflict::Nothing,
                    _ => {
                        let set = (1..columns.len()).filter(|_| self.one_in(2));
                        let set: Vec<usize> = set.collect();
                        // No row is updated twice by a statement.
                        rows.sort();
                        rows.dedup_by(|one, other| one[ID] == other[ID]);
                        Conflict::Update(if set.is_empty() { vec![3] } else { set })
                    }
                };
                Statement::Insert { table, rows, conflict }
            }
            4..8 => {
                let rows = self.filter(table);
                let is_one = rows.0 == ID && rows.1.len() == 1;
                let first = if is_one && self.one_in(4) { ID } else { WORKSPACE };
                let mut set: Vec<usize> =
                    (first..columns.len()).filter(|_| self.one_in(3)).collect();
                if set.is_empty() {
                    set.push(2);
                }
                let set = set.into_iter().map(|at| (at, self.value(table, at))).collect();
                Statement::Update { table, set, rows }
            }
            _ => Statement::Delete { table, rows: self.filter(table) },
        }
    }

    fn row(&mut self, table: TableId) -> Vec<Option<Value>> {
        let columns = TABLE[table].columns.iter().enumerate();
        columns
            .map(|(at, column)| {
                let is_left_out = at > 3 && (column.name == "size" || self.one_in(3));
                (!is_left_out).then(|| self.value(table, at))
            })
            .collect()
    }

    pub fn key(&mut self) -> (TableId, Key) {
        let table = self.table();
        let pk = match table {
            TODOS if self.one_in(40) => self.of_these(&["07", "x"]).to_owned(),
            table => self.id(table).text(),
        };
        (table, (TABLE[table].name.to_owned(), pk))
    }

    /// A field as a device writes it, now and then in another type.
    fn json(&mut self, table: TableId, column: usize) -> Json {
        let value = self.value(table, column);
        match (TABLE[table].columns[column].kind, &value) {
            (Kind::Int, Value::Int(value)) if self.one_in(12) => self.of_these(&[
                json!(value.to_string()),
                json!("x"),
                json!(1.5),
                json!(9_999_999_999_u64),
            ]),
            (Kind::Bool, _) if self.one_in(12) => {
                self.of_these(&[json!("yes"), json!("maybe"), json!(1)])
            }
            (Kind::Text(_), _) if self.one_in(20) => json!(7),
            _ => value.json(),
        }
    }

    /// The fields of a put or patch: some, or all.
    pub fn payload(&mut self, table: TableId, pk: &str, is_patch: bool) -> Json {
        let mut payload = json!({});
        let wants_all = !is_patch && self.one_in(2);
        for (at, column) in super::apply::fields(table) {
            let is_wanted = match column.name {
                "id" => continue,
                "size" => self.one_in(6),
                "title" | "body" if !is_patch => !self.one_in(6),
                _ => wants_all || self.one_in(3),
            };
            if is_wanted {
                payload[column.name] = self.json(table, at);
            }
        }
        if self.one_in(4) {
            payload["id"] = if table == TODOS && self.one_in(3) {
                pk.parse::<i64>().map_or(json!(pk), |pk| json!(pk))
            } else {
                json!(pk)
            };
        }
        if self.one_in(25) {
            payload["more"] = json!("x");
        }
        if is_patch && payload == json!({}) {
            payload["title"] = self.json(table, 3);
        }
        payload
    }

    fn uuid(&mut self) -> String {
        let hex = format!("{:032x}", self.random.random::<u128>());
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }

    /// An op of a device, as it knows the record.
    pub fn op(&mut self, device: &Device) -> Json {
        self.go_to(&device.workspace);
        let (table, mut key) = self.key();
        if self.one_in(15) {
            key.0 = JSON_TABLE.to_owned();
        }
        let seen = device.seen.get(&key);
        let operation = match self.below(40) {
            0..8 => "delete",
            8..26 if TABLE[table].patches && seen.is_some() => "patch",
            8 => "patch",
            _ => "put",
        };
        let is_patch = operation == "patch";
        let clock = match (self.below(12), seen) {
            (0, _) => self.below(8) as i64,
            (1, _) if self.one_in(8) => (1 << 53) - 1 - self.below(1 << 21) as i64,
            (_, Some(seen)) => seen.clock() + 1,
            (_, None) => 1,
        };
        let hlc = format!("{:013}:{:04}:{}", self.below(1000), self.below(3), device.name);
        let stamp =
            json!({"clock": clock, "hlc": hlc, "opId": self.uuid(), "deviceId": device.name});
        let mut op =
            json!({"tableName": key.0, "pk": key.1, "operation": operation, "stamp": stamp});
        if operation != "delete" {
            op["payload"] = self.payload(table, &key.1, is_patch);
            if self.one_in(30) {
                op["payload"]["workspace_id"] = json!(self.of_these(&[&device.workspace, "w9"]));
            }
        }
        let Some(seen) = seen else {
            if is_patch {
                op["base"] = json!({"clock": 0, "hlc": "0", "opId": self.uuid()});
            }
            return op;
        };
        if is_patch {
            op["base"] = seen.revision.json();
            if self.one_in(4) {
                let mut fields = json!({});
                for (name, _) in op["payload"].as_object().into_iter().flatten() {
                    let held = seen.fields.get(name).unwrap_or(&seen.revision);
                    fields[name] = json!(held.op_id);
                }
                op["expected"] = fields;
            }
        }
        match self.below(8) {
            0 if op.get("expected").is_none() => op["expected"] = json!(seen.newest),
            1 if op.get("expected").is_none() && self.one_in(3) => op["expected"] = json!("none"),
            2 => op["parent"] = json!(seen.newest),
            _ => {}
        }
        op
    }

    /// A record that is there, mostly.
    pub fn known_key(&mut self, typed: &Typed) -> (TableId, Key) {
        let (table, key) = self.key();
        let known: Vec<&String> = typed.tables[table].keys().collect();
        match known.is_empty() || self.one_in(3) {
            true => (table, key),
            false => (table, (key.0, self.of_these(&known).clone())),
        }
    }
}
