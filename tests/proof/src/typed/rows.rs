//! The typed rows: what Postgres makes of statements, with constraints, triggers and
//! foreign keys in the order in which it takes them.

use std::collections::{BTreeMap, BTreeSet};

use sync_ext_model::Key;

use super::schema::{
    Action, BODY, CODE, COMMENTS, FOREIGN_KEYS, ForeignKey, ID, LISTS, SIZE, TABLE, TITLE, TODOS,
    TableId, Value, WORKSPACE, violated,
};

/// Why a statement fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub sql_state: &'static str,
    pub constraint: Option<&'static str>,
}

pub fn fault(sql_state: &'static str) -> Fault {
    Fault { sql_state, constraint: None }
}

pub type Done<T> = Result<T, Fault>;

#[derive(Clone, Debug)]
pub struct Row {
    /// Every version of a row has its own number.
    version: u64,
    pub values: Vec<Value>,
}

/// A change of a row, before and after.
#[derive(Clone, Debug)]
struct Event {
    table: TableId,
    before: Option<Row>,
    after: Option<Row>,
}

#[derive(Clone, Debug, Default)]
pub struct Typed {
    /// By the text of their primary keys.
    pub tables: [BTreeMap<String, Row>; 4],
    versions: u64,
    /// The last version that was there when the transaction began.
    committed: u64,
    /// What the triggers after a statement have to look at.
    events: Vec<Event>,
    /// The records whose rows changed in this transaction, by workspace.
    pub changed: BTreeSet<(String, Key)>,
    pub is_capturing: bool,
    /// The hlc and opId of server ops, by workspace and version.
    pub stamps: BTreeMap<(String, i64), (String, String)>,
    /// What a batch did depends on the order in which Postgres updated rows.
    pub is_ambiguous: bool,
}

impl Typed {
    pub fn new() -> Typed {
        Typed { is_capturing: true, ..Typed::default() }
    }

    pub fn begin(&mut self) {
        self.committed = self.versions;
    }

    /// Runs a statement. If it fails, nothing is changed but for what was marked.
    pub fn statement<T>(&mut self, run: impl FnOnce(&mut Typed) -> Done<T>) -> Done<T> {
        let before = self.tables.clone();
        let done = run(self).and_then(|done| self.fire().map(|()| done));
        if done.is_err() {
            self.tables = before;
            self.events.clear();
        }
        done
    }

    pub fn find(&self, table: TableId, pk: &str) -> Option<&Row> {
        self.tables[table].get(pk)
    }

    /// A row that is to be inserted, if its key is not taken: as the trigger made it, and
    /// checked.
    pub fn proposed(&self, table: TableId, values: Vec<Value>) -> Done<Option<Vec<Value>>> {
        let Some(values) = before_trigger(table, values)? else { return Ok(None) };
        check(table, &values)?;
        Ok(Some(values))
    }

    /// False if a trigger cancelled it.
    pub fn insert(&mut self, table: TableId, values: Vec<Value>) -> Done<bool> {
        let Some(values) = self.proposed(table, values)? else { return Ok(false) };
        self.check_unique(table, &values, None)?;
        let after = self.store(table, values);
        self.events.push(Event { table, before: None, after: Some(after) });
        Ok(true)
    }

    /// False if a trigger cancelled it.
    pub fn update(&mut self, table: TableId, pk: &str, values: Vec<Value>) -> Done<bool> {
        let Some(values) = self.proposed(table, values)? else { return Ok(false) };
        self.check_unique(table, &values, Some(pk))?;
        let before = self.tables[table].remove(pk);
        let after = Some(self.store(table, values));
        self.events.push(Event { table, before, after });
        Ok(true)
    }

    pub fn delete(&mut self, table: TableId, pk: &str) {
        let before = self.tables[table].remove(pk);
        self.events.push(Event { table, before, after: None });
    }

    fn store(&mut self, table: TableId, values: Vec<Value>) -> Row {
        self.versions += 1;
        let row = Row { version: self.versions, values };
        self.tables[table].insert(row.values[ID].text(), row.clone());
        row
    }

    fn check_unique(&self, table: TableId, values: &[Value], pk: Option<&str>) -> Done<()> {
        let key = values[ID].text();
        if pk != Some(&*key) && self.tables[table].contains_key(&key) {
            return Err(Fault { sql_state: "23505", constraint: Some(TABLE[table].pk) });
        }
        let has_code = |(other, row): (&String, &Row)| {
            pk != Some(&**other) && row.values[CODE] == values[CODE]
        };
        let is_taken = table == LISTS
            && values[CODE] != Value::Null
            && self.tables[table].iter().any(has_code);
        if is_taken {
            return Err(Fault { sql_state: "23505", constraint: Some("lists_code_key") });
        }
        Ok(())
    }

    /// Foreign keys, the app's trigger and capture, of each event in turn.
    fn fire(&mut self) -> Done<()> {
        let mut at = 0;
        while at < self.events.len() {
            let event = self.events[at].clone();
            at += 1;
            for key in &FOREIGN_KEYS {
                if key.parent == event.table {
                    self.check_children(key, &event)?;
                }
            }
            for key in &FOREIGN_KEYS {
                if key.table == event.table {
                    self.check_parent(key, &event)?;
                }
            }
            if event.table == TODOS {
                self.count(&event)?;
            }
            self.mark(&event);
        }
        self.events.clear();
        Ok(())
    }

    /// The row was deleted, or has another key.
    fn check_children(&mut self, key: &ForeignKey, event: &Event) -> Done<()> {
        let Some(before) = &event.before else { return Ok(()) };
        let old = before.values[ID].clone();
        let (action, new) = match &event.after {
            None => (key.on_delete, Value::Null),
            Some(after) if after.values[ID] != old => (key.on_update, after.values[ID].clone()),
            Some(_) => return Ok(()),
        };
        let is_child = |row: &&Row| row.values[key.column] == old;
        let children: Vec<Row> =
            self.tables[key.table].values().filter(is_child).cloned().collect();
        for Row { mut values, .. } in children {
            let pk = values[ID].text();
            match action {
                Action::Refuse if self.tables[key.parent].contains_key(&old.text()) => {}
                Action::Refuse => return Err(foreign(key)),
                Action::Cascade if event.after.is_none() => self.delete(key.table, &pk),
                Action::Cascade | Action::SetNull => {
                    values[key.column] = new.clone();
                    self.update(key.table, &pk, values)?;
                }
            }
        }
        Ok(())
    }

    /// The row refers to another parent than before.
    fn check_parent(&self, key: &ForeignKey, event: &Event) -> Done<()> {
        let Some(after) = &event.after else { return Ok(()) };
        let parent = &after.values[key.column];
        let is_same =
            |before: &Row| before.values[key.column] == *parent && before.version <= self.committed;
        let is_gone = || {
            let row = self.tables[key.table].get(&after.values[ID].text());
            row.is_none_or(|row| row.version != after.version)
        };
        if *parent == Value::Null
            || event.before.as_ref().is_some_and(is_same)
            || is_gone()
            || self.tables[key.parent].contains_key(&parent.text())
        {
            return Ok(());
        }
        Err(foreign(key))
    }

    /// The trigger of todos that counts them in their lists.
    fn count(&mut self, event: &Event) -> Done<()> {
        let list = |row: &Option<Row>| row.as_ref().map(|row| row.values[2].clone());
        let (before, after) = (list(&event.before), list(&event.after));
        if before == after {
            return Ok(());
        }
        for (list, by) in [(before, -1), (after, 1)] {
            let list = list.map(|list| list.text()).unwrap_or_default();
            let Some(row) = self.tables[LISTS].get(&list) else { continue };
            let mut values = row.values.clone();
            if let Value::Int(size) = &mut values[SIZE] {
                *size += by;
            }
            // The statement's own triggers come at its end.
            let outer = std::mem::take(&mut self.events);
            self.update(LISTS, &list, values)?;
            self.fire()?;
            self.events = outer;
        }
        Ok(())
    }

    fn mark(&mut self, event: &Event) {
        if !self.is_capturing {
            return;
        }
        for row in [&event.before, &event.after].into_iter().flatten() {
            if let Value::Text(workspace) = &row.values[WORKSPACE] {
                let key = (TABLE[event.table].name.to_owned(), row.values[ID].text());
                self.changed.insert((workspace.clone(), key));
            }
        }
    }
}

fn foreign(key: &ForeignKey) -> Fault {
    Fault { sql_state: "23503", constraint: Some(key.name) }
}

/// `None` if it cancels the change.
fn before_trigger(table: TableId, mut values: Vec<Value>) -> Done<Option<Vec<Value>>> {
    let is = |value: &Value, text: &str| *value == Value::Text(text.to_owned());
    match table {
        TODOS if is(&values[TITLE], "raise") => return Err(fault("P0001")),
        TODOS => {
            if let Value::Text(title) = &mut values[TITLE] {
                *title = title.to_lowercase();
            }
        }
        COMMENTS if is(&values[BODY], "skip") => return Ok(None),
        COMMENTS if is(&values[BODY], "move") => {
            values[WORKSPACE] = Value::Text("w2".to_owned());
        }
        _ => {}
    }
    Ok(Some(values))
}

fn check(table: TableId, values: &[Value]) -> Done<()> {
    let columns = TABLE[table].columns.iter().zip(values);
    for (column, value) in columns {
        if column.is_required && *value == Value::Null {
            return Err(fault("23502"));
        }
    }
    match violated(table, values) {
        Some(name) => Err(Fault { sql_state: "23514", constraint: Some(name) }),
        None => Ok(()),
    }
}
