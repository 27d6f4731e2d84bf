//! Statements of plain SQL, and what they do to the model's rows.

use super::rows::{Done, Fault, Typed, fault};
use super::schema::{Column, ID, Kind, TABLE, TableId, Value};

#[derive(Clone, Debug)]
pub enum Statement {
    Insert {
        table: TableId,
        /// A value per column; `None` is the default.
        rows: Vec<Vec<Option<Value>>>,
        conflict: Conflict,
    },
    Update {
        table: TableId,
        set: Vec<(usize, Value)>,
        rows: Where,
    },
    Delete {
        table: TableId,
        rows: Where,
    },
}

/// What becomes of a row whose key is taken.
#[derive(Clone, Debug)]
pub enum Conflict {
    Raise,
    Nothing,
    /// These columns are taken from the new row.
    Update(Vec<usize>),
}

/// The rows with one of these values in a column.
#[derive(Clone, Debug)]
pub struct Where(pub usize, pub Vec<Value>);

impl Statement {
    pub fn sql(&self) -> String {
        let list = |values: &[Value]| values.iter().map(Value::sql).collect::<Vec<_>>().join(", ");
        let filter = |table: TableId, Where(column, values): &Where| {
            format!("{} in ({})", TABLE[table].columns[*column].name, list(values))
        };
        match self {
            Statement::Insert { table, rows, conflict } => {
                let columns = TABLE[*table].columns;
                let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
                let value = |value: &Option<Value>| {
                    value.as_ref().map_or_else(|| "default".to_owned(), Value::sql)
                };
                let row = |row: &Vec<Option<Value>>| {
                    format!("({})", row.iter().map(value).collect::<Vec<_>>().join(", "))
                };
                let conflict = match conflict {
                    Conflict::Raise => String::new(),
                    Conflict::Nothing => " on conflict (id) do nothing".to_owned(),
                    Conflict::Update(set) => {
                        let set = set.iter().map(|at| columns[*at].name);
                        let set = set.map(|name| format!("{name} = excluded.{name}"));
                        let set = set.collect::<Vec<_>>().join(", ");
                        format!(" on conflict (id) do update set {set}")
                    }
                };
                format!(
                    "insert into {} ({}) values {}{conflict}",
                    TABLE[*table].name,
                    names.join(", "),
                    rows.iter().map(row).collect::<Vec<_>>().join(", ")
                )
            }
            Statement::Update { table, set, rows } => {
                let name = |at: &usize| TABLE[*table].columns[*at].name;
                let set = set.iter().map(|(at, value)| format!("{} = {}", name(at), value.sql()));
                let set = set.collect::<Vec<_>>().join(", ");
                format!("update {} set {set} where {}", TABLE[*table].name, filter(*table, rows))
            }
            Statement::Delete { table, rows } => {
                format!("delete from {} where {}", TABLE[*table].name, filter(*table, rows))
            }
        }
    }

    /// Returns the number of rows that it says it changed.
    pub fn run(&self, typed: &mut Typed) -> Done<u64> {
        typed.statement(|typed| match self {
            Statement::Insert { table, rows, conflict } => insert(typed, *table, rows, conflict),
            Statement::Update { table, set, rows } => {
                let set = set.iter().map(|(at, value)| Ok((*at, cast(*table, *at, value)?)));
                let set = set.collect::<Done<Vec<_>>>()?;
                let mut count = 0;
                for pk in found(typed, *table, rows) {
                    let Some(row) = typed.find(*table, &pk) else { continue };
                    let mut values = row.values.clone();
                    for (at, value) in &set {
                        values[*at] = value.clone();
                    }
                    count += u64::from(typed.update(*table, &pk, values)?);
                }
                Ok(count)
            }
            Statement::Delete { table, rows } => {
                let found = found(typed, *table, rows);
                found.iter().for_each(|pk| typed.delete(*table, pk));
                Ok(found.len() as u64)
            }
        })
    }
}

fn found(typed: &Typed, table: TableId, Where(column, values): &Where) -> Vec<String> {
    let is_found = |values_of: &[Value]| {
        values_of[*column] != Value::Null && values.contains(&values_of[*column])
    };
    let all = typed.tables[table].iter();
    all.filter(|(_, row)| is_found(&row.values)).map(|(pk, _)| pk.clone()).collect()
}

fn insert(
    typed: &mut Typed,
    table: TableId,
    rows: &[Vec<Option<Value>>],
    conflict: &Conflict,
) -> Done<u64> {
    let columns = TABLE[table].columns;
    let row = |row: &Vec<Option<Value>>| {
        let values = columns.iter().zip(row).enumerate();
        let value = |(at, (column, value)): (usize, (&Column, &Option<Value>))| {
            value.as_ref().map_or_else(|| Ok(column.default.clone()), |it| cast(table, at, it))
        };
        values.map(value).collect::<Done<Vec<Value>>>()
    };
    // Constants are cast before the first row is written.
    let rows = rows.iter().map(row).collect::<Done<Vec<_>>>()?;
    let mut count = 0;
    for values in rows {
        let pk = values[ID].text();
        let known = typed.find(table, &pk).map(|row| row.values.clone());
        count += u64::from(match (conflict, known) {
            (Conflict::Raise, _) | (_, None) => typed.insert(table, values)?,
            (conflict, Some(mut known)) => {
                let Some(new) = typed.proposed(table, values)? else { continue };
                let Conflict::Update(set) = conflict else { continue };
                for at in set {
                    known[*at] = new[*at].clone();
                }
                typed.update(table, &pk, known)?
            }
        });
    }
    Ok(count)
}

/// A constant as a column's type takes it.
fn cast(table: TableId, column: usize, value: &Value) -> Result<Value, Fault> {
    match (TABLE[table].columns[column].kind, value) {
        (Kind::Text(most), Value::Text(text)) if text.chars().count() > most => Err(fault("22001")),
        _ => Ok(value.clone()),
    }
}
