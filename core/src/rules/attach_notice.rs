//! What works with an attached table, but perhaps not as its owner expects.

use super::attach_facts::Column;
use super::attached::Attachment;

/// A message beside the result: the text, which table, key or column, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub message: &'static str,
    pub detail: String,
    pub hint: &'static str,
}

/// What is around a table, as the catalogues tell it.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub unique_keys: Vec<UniqueKey>,
    /// Triggers of the app that also fire in a replica-role session, or only there.
    pub replica_triggers: Vec<String>,
    pub foreign_keys: Vec<ForeignKey>,
}

/// A unique or exclusion constraint, or a unique index, but not the primary key.
#[derive(Clone, Debug)]
pub struct UniqueKey {
    pub name: String,
    pub columns: Vec<String>,
    pub is_deferrable: bool,
}

#[derive(Clone, Debug)]
pub struct ForeignKey {
    pub name: String,
    pub parent: Parent,
    /// The columns here and there, in pairs.
    pub columns: Vec<(String, String)>,
}

/// The table that a foreign key references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parent {
    Itself,
    /// Its workspaces are those of a column, or it has one.
    Attached {
        workspace_column: Option<String>,
        workspace_id: Option<String>,
    },
    NotAttached,
}

pub fn notices(columns: &[Column], attachment: &Attachment, around: &Surroundings) -> Vec<Notice> {
    let workspace = attachment.workspace_column.as_deref();
    let is_numbered = |column: &&Column| column.key_place.is_some() && column.is_numbered;
    let is_nullable =
        |column: &&Column| workspace == Some(column.name.as_str()) && !column.is_not_null;
    let names = |columns: Vec<&Column>| quoted(columns.iter().map(|column| &column.name));
    let keys = |which: &dyn Fn(&UniqueKey) -> bool| {
        quoted(around.unique_keys.iter().filter(|key| which(key)).map(|key| &key.name))
    };
    let foreign = |which: &dyn Fn(&ForeignKey) -> bool| {
        quoted(around.foreign_keys.iter().filter(|key| which(key)).map(|key| &key.name))
    };
    let has = |key: &UniqueKey, name: &str| key.columns.iter().any(|column| column == name);
    // What includes the primary key is unique in any case.
    let has_key = |key: &UniqueKey| {
        columns.iter().all(|column| column.key_place.is_none() || has(key, &column.name))
    };
    let is_global =
        |key: &UniqueKey| workspace.is_some_and(|workspace| !has(key, workspace)) && !has_key(key);
    let all = [
        (
            "the server numbers the primary key",
            "Column",
            names(columns.iter().filter(is_numbered).collect()),
            "Devices make keys while offline: they need uuids, or ranges of their own.",
        ),
        (
            "workspace column allows NULL",
            "Column",
            names(columns.iter().filter(is_nullable).collect()),
            "Rows without a workspace are not synced.",
        ),
        (
            "unique key does not include the workspace",
            "Key",
            keys(&is_global),
            "A push is refused for a value that another workspace has, and so reveals it. Add the workspace column to the key.",
        ),
        (
            "unique key is deferrable",
            "Key",
            keys(&|key| key.is_deferrable),
            "A push checks it when all its rows are written.",
        ),
        (
            "triggers fire in replica-role sessions",
            "Trigger",
            quoted(around.replica_triggers.iter()),
            "Changes made in such sessions are not captured: run sync_check_table afterwards.",
        ),
        (
            "foreign key references a table that is not attached",
            "Key",
            foreign(&|key| key.parent == Parent::NotAttached),
            "Devices cannot make rows of that table, nor see that one is gone.",
        ),
        (
            "foreign key may lead to another workspace",
            "Key",
            foreign(&|key| crosses(key, attachment)),
            "Include the workspace column of both tables in the key.",
        ),
    ];
    let said = all.into_iter().filter(|(_, _, names, _)| !names.is_empty());
    said.map(|(message, what, names, hint)| Notice {
        message,
        detail: format!("{what} {names}."),
        hint,
    })
    .collect()
}

/// Whether a row may reference one of another workspace.
fn crosses(key: &ForeignKey, own: &Attachment) -> bool {
    let (column, id) = match &key.parent {
        Parent::NotAttached => return false,
        Parent::Itself => (&own.workspace_column, &own.workspace_id),
        Parent::Attached { workspace_column, workspace_id } => (workspace_column, workspace_id),
    };
    match (&own.workspace_column, column) {
        (Some(here), Some(there)) => {
            !key.columns.iter().any(|pair| pair.0 == *here && pair.1 == *there)
        }
        (None, None) => own.workspace_id != *id,
        _ => true,
    }
}

fn quoted<'n>(names: impl Iterator<Item = &'n String>) -> String {
    names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}
