//! Apply, by its rule: all rows at once, else in groups of 32, then each alone; rows
//! without parents again, while there is progress.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use sync_ext_model::json::{Members, compact, text};
use sync_ext_model::{Edit, Key, Op, RowChange, RowRefusal, Rows};

use super::rows::{Done, Fault, Typed, fault};
use super::schema::{CODE, Column, ID, Kind, LISTS, TABLE, TableId, Value, WORKSPACE, table_of};

const GROUP: usize = 32;
const PASSES: usize = 6;
/// Clocks above it are the server's.
const MAX_CLOCK: i64 = (1 << 53) - 1 - (1 << 20);

const NOT_YOURS: RowRefusal = RowRefusal {
    code: "UNAUTHORIZED",
    words: Some("the row is not there for this user to write"),
    sql_state: None,
    constraint: None,
};

fn refusal(code: &'static str) -> RowRefusal {
    RowRefusal { code, words: None, sql_state: None, constraint: None }
}

/// In the place of an SQLSTATE: a trigger gave the row to another workspace.
const MOVED: &str = "moved";

fn refusal_by(fault: Fault) -> RowRefusal {
    let Fault { sql_state, constraint } = fault;
    match &sql_state[..2] {
        _ if sql_state == MOVED => refusal("VALIDATION_ERROR"),
        "P0" => refusal("REJECTED"),
        "22" => RowRefusal { sql_state: Some(sql_state), ..refusal("VALIDATION_ERROR") },
        _ => RowRefusal { sql_state: Some(sql_state), constraint, ..refusal("CONSTRAINT") },
    }
}

impl Rows for Typed {
    fn is_attached(&self, table: &str) -> bool {
        table_of(table).is_some()
    }

    fn admit(&self, op: &Op) -> Option<RowRefusal> {
        let table = table_of(&op.table)?;
        if TABLE[table].is_read_only {
            return Some(refusal("READ_ONLY"));
        }
        let is_canonical = match TABLE[table].columns[ID].kind {
            Kind::Int => op.pk.parse::<i32>().is_ok_and(|pk| pk.to_string() == op.pk),
            _ => true,
        };
        let is_right = is_canonical && op.revision.clock <= MAX_CLOCK;
        (!is_right).then(|| refusal("VALIDATION_ERROR"))
    }

    fn apply(&mut self, workspace: &str, changes: &[RowChange]) -> Vec<Option<RowRefusal>> {
        let refused = vec![None; changes.len()];
        let mut apply = Apply { rows: self, workspace, changes, refused };
        apply.run();
        apply.refused
    }

    fn image(&self, workspace: &str, (table, pk): &Key) -> Option<String> {
        let table = table_of(table)?;
        let row = self.find(table, pk)?;
        let is_here = row.values[WORKSPACE] == Value::Text(workspace.to_owned());
        (is_here && !is_removed(table, &row.values)).then(|| image(table, &row.values))
    }

    fn take_changed(&mut self, workspace: &str) -> BTreeSet<Key> {
        let all = std::mem::take(&mut self.changed);
        let (taken, kept) = all.into_iter().partition(|(of, _)| of == workspace);
        self.changed = kept;
        let taken: BTreeSet<(String, Key)> = taken;
        taken.into_iter().map(|(_, key)| key).collect()
    }

    fn set_changed(&mut self, workspace: &str, key: &Key, is_changed: bool) {
        let mark = (workspace.to_owned(), key.clone());
        if is_changed {
            self.changed.insert(mark);
        } else {
            self.changed.remove(&mark);
        }
    }

    fn stamp(&self, workspace: &str, version: i64) -> (String, String) {
        self.stamps.get(&(workspace.to_owned(), version)).cloned().unwrap_or_default()
    }
}

pub fn is_removed(table: TableId, values: &[Value]) -> bool {
    TABLE[table].deleted.is_some_and(|column| values[column] == Value::Bool(true))
}

/// The columns that are fields, the key among them.
pub fn fields(table: TableId) -> impl Iterator<Item = (usize, &'static Column)> {
    let all = TABLE[table].columns.iter().enumerate();
    all.filter(move |(at, _)| *at != WORKSPACE && Some(*at) != TABLE[table].deleted)
}

pub fn image(table: TableId, values: &[Value]) -> String {
    let members = fields(table)
        .map(|(at, column)| format!("\"{}\":{}", column.name, compact(&values[at].json())));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

struct Apply<'a> {
    rows: &'a mut Typed,
    workspace: &'a str,
    changes: &'a [RowChange],
    refused: Vec<Option<RowRefusal>>,
}

/// Rows of a table that one statement writes: deletes come first, inserts last.
type Groups<'c> = BTreeMap<(TableId, Kinds, Vec<usize>), Vec<(usize, Vec<&'c str>)>>;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kinds {
    Delete,
    Update,
    Insert,
}

impl Apply<'_> {
    fn run(&mut self) {
        let all: Vec<usize> = (0..self.changes.len()).collect();
        if self.attempt(&all).is_ok() {
            return;
        }
        for group in all.chunks(GROUP) {
            if all.len() <= GROUP || self.attempt(group).is_err() {
                group.iter().for_each(|one| self.try_one(*one));
            }
        }
        let mut before = usize::MAX;
        for pass in 0..PASSES {
            let mut children: Vec<usize> = all.clone();
            children.retain(|at| self.refused[*at].as_ref().is_some_and(RowRefusal::may_come));
            if children.is_empty() || children.len() == before || self.attempt(&children).is_ok() {
                break;
            }
            before = children.len();
            if pass % 2 == 0 {
                children.reverse();
            }
            children.into_iter().for_each(|child| self.try_one(child));
        }
    }

    fn try_one(&mut self, at: usize) {
        if let Err(fault) = self.attempt(&[at]) {
            self.refused[at] = Some(refusal_by(fault));
        }
    }

    fn attempt(&mut self, some: &[usize]) -> Done<()> {
        let (workspace, changes) = (self.workspace, self.changes);
        let mut refused = Vec::new();
        self.rows.statement(|rows| {
            let groups = plan(rows, workspace, changes, some, &mut refused);
            for ((table, kind, columns), group) in groups {
                write(rows, workspace, changes, (table, kind, &columns), &group, &mut refused)?;
            }
            Ok(())
        })?;
        some.iter().for_each(|at| self.refused[*at] = None);
        for (at, refusal) in refused {
            self.refused[at] = Some(refusal);
        }
        Ok(())
    }
}

fn plan<'c>(
    rows: &Typed,
    workspace: &str,
    changes: &'c [RowChange],
    some: &[usize],
    refused: &mut Vec<(usize, RowRefusal)>,
) -> Groups<'c> {
    let mut groups = Groups::new();
    for &at in some {
        let RowChange { key: (table, pk), edit } = &changes[at];
        let Some(table) = table_of(table) else { continue };
        let row = rows.find(table, pk);
        if row.is_some_and(|row| row.values[WORKSPACE] != Value::Text(workspace.to_owned())) {
            refused.push((at, NOT_YOURS));
            continue;
        }
        let is_hidden = row.is_some_and(|row| is_removed(table, &row.values));
        let (kind, object) = match (edit, row) {
            (Edit::Delete, None) => continue,
            (Edit::Delete, Some(_)) if is_hidden => continue,
            (Edit::Delete, Some(_)) => (Kinds::Delete, "{}"),
            (Edit::Patch(_), None) => {
                refused.push((at, NOT_YOURS));
                continue;
            }
            (Edit::Put(object), None) => (Kinds::Insert, &**object),
            (Edit::Put(object) | Edit::Patch(object), Some(_)) => (Kinds::Update, &**object),
        };
        let members = Members::of(object).unwrap_or_default();
        let written = fields(table).filter(|(column, _)| *column != ID);
        let (columns, values): (Vec<usize>, Vec<&str>) = written
            .filter_map(|(at, column)| Some((at, members.get(column.name)?)))
            .map(|(at, raw)| (at, object_part(object, raw)))
            .unzip();
        if kind != Kinds::Update || !columns.is_empty() || is_hidden {
            groups.entry((table, kind, columns)).or_default().push((at, values));
        }
    }
    groups
}

/// A member's value, with the lifetime of its object.
fn object_part<'o>(object: &'o str, raw: &str) -> &'o str {
    let start = raw.as_ptr() as usize - object.as_ptr() as usize;
    &object[start..start + raw.len()]
}

fn write(
    rows: &mut Typed,
    workspace: &str,
    changes: &[RowChange],
    (table, kind, columns): (TableId, Kinds, &[usize]),
    group: &[(usize, Vec<&str>)],
    refused: &mut Vec<(usize, RowRefusal)>,
) -> Done<()> {
    let described = &TABLE[table];
    let mut written = Vec::new();
    for (at, raw) in group {
        let values =
            columns.iter().zip(raw).map(|(at, raw)| value(described.columns[*at].kind, raw));
        written.push((*at, values.collect::<Done<Vec<Value>>>()?));
    }
    if kind == Kinds::Update && table == LISTS {
        rows.is_ambiguous |= moves_codes(rows, changes, columns, &written);
    }
    for (at, written) in written {
        let pk = &changes[at].key.1;
        let mut values = match rows.find(table, pk) {
            Some(row) => row.values.clone(),
            None => described.columns.iter().map(|column| column.default.clone()).collect(),
        };
        for (column, value) in columns.iter().zip(written) {
            values[*column] = value;
        }
        if let Some(deleted) = described.deleted {
            values[deleted] = Value::Bool(kind == Kinds::Delete);
        }
        let is_done = match kind {
            Kinds::Delete if described.deleted.is_none() => {
                rows.delete(table, pk);
                true
            }
            Kinds::Delete | Kinds::Update => rows.update(table, pk, values)?,
            Kinds::Insert => {
                values[ID] = value(described.columns[ID].kind, &compact(&json!(pk)))?;
                values[WORKSPACE] = Value::Text(workspace.to_owned());
                rows.insert(table, values)?
            }
        };
        let after = rows.find(table, pk).map(|row| &row.values[WORKSPACE]);
        if !is_done {
            refused.push((at, refusal("REJECTED")));
        } else if after.is_some_and(|after| *after != Value::Text(workspace.to_owned())) {
            return Err(fault(MOVED));
        }
    }
    Ok(())
}

/// Does a row take the unique value that another row of the same statement gives up?
fn moves_codes(
    rows: &Typed,
    changes: &[RowChange],
    columns: &[usize],
    written: &[(usize, Vec<Value>)],
) -> bool {
    let Some(place) = columns.iter().position(|column| *column == CODE) else { return false };
    let old = |at: usize| rows.find(LISTS, &changes[at].key.1).map(|row| &row.values[CODE]);
    written.iter().any(|(one, values)| {
        let takes = |(other, of_other): &(usize, Vec<Value>)| {
            old(*other) == Some(&values[place]) && of_other[place] != values[place]
        };
        values[place] != Value::Null && written.iter().any(|other| *one != other.0 && takes(other))
    })
}

/// A JSON value as a column's type reads it.
pub fn value(kind: Kind, raw: &str) -> Done<Value> {
    if raw == "null" {
        return Ok(Value::Null);
    }
    let text = text(raw).unwrap_or_else(|| raw.to_owned());
    match kind {
        Kind::Text(most) if text.chars().count() > most => Err(fault("22001")),
        Kind::Text(_) => Ok(Value::Text(text)),
        Kind::Bool => match &*text {
            "true" | "yes" | "1" => Ok(Value::Bool(true)),
            "false" | "no" | "0" => Ok(Value::Bool(false)),
            _ => Err(fault("22P02")),
        },
        Kind::Int => {
            let value: i64 = text.parse().map_err(|_| fault("22P02"))?;
            let value = i32::try_from(value).map_err(|_| fault("22003"))?;
            Ok(Value::Int(value.into()))
        }
    }
}
