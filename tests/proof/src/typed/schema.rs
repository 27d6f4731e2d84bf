//! The app's tables: as SQL, and as the model knows them.

use Kind::{Bool, Int, Text};

/// A parent may not be deleted while it has children; the todos of a list go with it, and
/// comments stay without their todo. Devices only read prices. A BEFORE trigger changes a value, raises, cancels or
/// moves the row; one after the row changes another attached row.
pub const TABLES: &str = "
    create table lists (
      id text primary key, workspace_id text, parent text references lists,
      title varchar(8) not null constraint lists_title check (title <> ''),
      code text unique, size integer not null default 0);
    create table todos (
      id integer primary key, workspace_id text,
      list text references lists on delete cascade on update cascade,
      title varchar(8) not null,
      priority integer not null default 5 constraint todos_priority check (priority between 0 and 9),
      done boolean not null default false);
    create table comments (
      id text primary key, workspace_id text, todo integer references todos on delete set null,
      body text not null, stars integer constraint comments_stars check (stars < 6),
      removed boolean not null default false);
    create table prices (
      id text primary key, workspace_id text, amount integer, label text not null);
    create function checked() returns trigger language plpgsql as $$ begin
      if new.title = 'raise' then raise 'raised'; end if;
      new.title := lower(new.title); return new; end $$;
    create trigger checked before insert or update on todos for each row execute function checked();
    create function altered() returns trigger language plpgsql as $$ begin
      if new.body = 'skip' then return null; end if;
      if new.body = 'move' then new.workspace_id := 'w2'; end if; return new; end $$;
    create trigger altered before insert or update on comments for each row execute function altered();
    create function counted() returns trigger language plpgsql as $$ begin
      if tg_op = 'UPDATE' and new.list is not distinct from old.list then return null; end if;
      if tg_op <> 'INSERT' then update public.lists set size = size - 1 where id = old.list; end if;
      if tg_op <> 'DELETE' then update public.lists set size = size + 1 where id = new.list; end if;
      return null; end $$;
    create trigger counted after insert or update or delete on todos for each row execute function counted();
    select sync_attach_table('lists'), sync_attach_table('todos', patches => true),
           sync_attach_table('comments', deleted_column => 'removed'),
           sync_attach_table('prices', direction => 'down');
    select sync_register_table('notes');";

/// A table of records without rows.
pub const JSON_TABLE: &str = "notes";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int,
    /// With the most characters.
    Text(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
}

pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
    pub is_required: bool,
    pub default: Value,
}

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, is_required: false, default: Value::Null }
}

const fn required(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, is_required: true, default: Value::Null }
}

const fn with_default(name: &'static str, kind: Kind, default: Value) -> Column {
    Column { name, kind, is_required: true, default }
}

/// The places of the first two columns of each table.
pub const ID: usize = 0;
pub const WORKSPACE: usize = 1;

/// A place in [`TABLE`], in the order of names.
pub type TableId = usize;
pub const COMMENTS: TableId = 0;
pub const LISTS: TableId = 1;
pub const PRICES: TableId = 2;
pub const TODOS: TableId = 3;

pub struct Table {
    pub name: &'static str,
    pub pk: &'static str,
    pub columns: &'static [Column],
    /// Its column that marks deleted rows.
    pub deleted: Option<usize>,
    pub patches: bool,
    pub is_read_only: bool,
}

const ANY: Kind = Text(usize::MAX);

pub static TABLE: [Table; 4] = [
    Table {
        name: "comments",
        pk: "comments_pkey",
        columns: &[
            required("id", ANY),
            column("workspace_id", ANY),
            column("todo", Int),
            required("body", ANY),
            column("stars", Int),
            with_default("removed", Bool, Value::Bool(false)),
        ],
        deleted: Some(5),
        patches: false,
        is_read_only: false,
    },
    Table {
        name: "lists",
        pk: "lists_pkey",
        columns: &[
            required("id", ANY),
            column("workspace_id", ANY),
            column("parent", ANY),
            required("title", Text(8)),
            column("code", ANY),
            with_default("size", Int, Value::Int(0)),
        ],
        deleted: None,
        patches: false,
        is_read_only: false,
    },
    Table {
        name: "prices",
        pk: "prices_pkey",
        columns: &[
            required("id", ANY),
            column("workspace_id", ANY),
            column("amount", Int),
            required("label", ANY),
        ],
        deleted: None,
        patches: false,
        is_read_only: true,
    },
    Table {
        name: "todos",
        pk: "todos_pkey",
        columns: &[
            required("id", Int),
            column("workspace_id", ANY),
            column("list", ANY),
            required("title", Text(8)),
            with_default("priority", Int, Value::Int(5)),
            with_default("done", Bool, Value::Bool(false)),
        ],
        deleted: None,
        patches: true,
        is_read_only: false,
    },
];

pub const TITLE: usize = 3;
pub const CODE: usize = 4;
pub const SIZE: usize = 5;
const PRIORITY: usize = 4;
pub const BODY: usize = 3;
const STARS: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Refuse,
    Cascade,
    SetNull,
}

pub struct ForeignKey {
    pub name: &'static str,
    pub table: TableId,
    pub column: usize,
    pub parent: TableId,
    pub on_delete: Action,
    pub on_update: Action,
}

/// In the order in which they were made.
pub static FOREIGN_KEYS: [ForeignKey; 3] = [
    ForeignKey {
        name: "lists_parent_fkey",
        table: LISTS,
        column: 2,
        parent: LISTS,
        on_delete: Action::Refuse,
        on_update: Action::Refuse,
    },
    ForeignKey {
        name: "todos_list_fkey",
        table: TODOS,
        column: 2,
        parent: LISTS,
        on_delete: Action::Cascade,
        on_update: Action::Cascade,
    },
    ForeignKey {
        name: "comments_todo_fkey",
        table: COMMENTS,
        column: 2,
        parent: TODOS,
        on_delete: Action::SetNull,
        on_update: Action::Refuse,
    },
];

/// The name of the CHECK that a row violates.
pub fn violated(table: TableId, row: &[Value]) -> Option<&'static str> {
    let (name, is_right) = match table {
        LISTS => ("lists_title", row[TITLE] != Value::Text(String::new())),
        TODOS => ("todos_priority", matches!(row[PRIORITY], Value::Int(0..=9))),
        PRICES => return None,
        _ => ("comments_stars", !matches!(row[STARS], Value::Int(6..))),
    };
    (!is_right).then_some(name)
}

pub fn table_of(name: &str) -> Option<TableId> {
    TABLE.iter().position(|table| table.name == name)
}

impl Value {
    /// NULL as an empty text.
    pub fn text(&self) -> String {
        match self {
            Value::Null => String::new(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Text(value) => value.clone(),
        }
    }

    pub fn json(&self) -> serde_json::Value {
        match self {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Text(value) => value.clone().into(),
        }
    }

    pub fn sql(&self) -> String {
        match self {
            Value::Null => "null".to_owned(),
            Value::Text(value) => format!("'{}'", value.replace('\'', "''")),
            value => value.text(),
        }
    }
}
