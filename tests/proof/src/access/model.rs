//! What the contract says of a server with users, in plain maps: members and
//! what they may do. Times are steps.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::collecting::Leftover;
use super::op::Op;
use super::step::{Name, Role};

/// An error that ends a call: SQLSTATE, message, and DETAIL where it must be
/// this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: &'static str,
    pub message: &'static str,
    pub detail: Option<String>,
}

pub type Outcome = Result<Value, Refusal>;

/// `None` is everybody's.
pub type Owner = Option<String>;

#[derive(Clone, Debug)]
pub struct Entry {
    pub op: Op,
    /// As stored.
    pub payload: Option<String>,
    /// The field that the server added.
    pub filled: Option<Name>,
    pub owner: Owner,
    pub applied: bool,
    pub supersedes: Option<i64>,
    pub created: bool,
    /// The op that it replaced unseen.
    pub overwrote: Option<String>,
    pub at: i64,
}

#[derive(Clone, Debug)]
pub struct Record {
    pub version: i64,
    pub revision: (i64, String, String),
    pub deleted: bool,
    pub owner: Owner,
}

#[derive(Clone, Debug)]
pub struct Device {
    pub cursor: i64,
    /// For how long nobody has heard of it.
    pub silent_days: i64,
}

#[derive(Clone, Debug, Default)]
pub struct Workspace {
    /// Which of the workspaces that ever were it is.
    pub number: u64,
    pub head: i64,
    pub horizon: i64,
    pub gc_through: i64,
    pub log: BTreeMap<i64, Entry>,
    pub by_id: HashMap<String, i64>,
    pub records: BTreeMap<(String, String), Record>,
    /// By device and user, empty for a trusted caller.
    pub devices: BTreeMap<(Name, Name), Device>,
}

#[derive(Clone, Debug, Default)]
pub struct Server {
    /// The app tells the roles, by a function.
    pub elsewhere: bool,
    /// Registered tables and their owner fields.
    pub tables: BTreeMap<Name, Option<Name>>,
    pub workspaces: BTreeMap<Name, Workspace>,
    pub members: BTreeMap<(Name, Name), Role>,
    pub created: u64,
    /// What is left of dropped workspaces, by their numbers.
    pub dropped: BTreeMap<u64, Leftover>,
}

/// May a user be shown what is this owner's? A trusted caller is shown all.
pub fn sees(user: Option<Name>, owner: &Owner) -> bool {
    match (user, owner) {
        (Some(user), Some(owner)) => user == owner,
        _ => true,
    }
}

fn refusal(code: &'static str, message: &'static str) -> Refusal {
    Refusal { code, message, detail: None }
}

pub fn invalid(message: &'static str) -> Refusal {
    refusal("22023", message)
}

pub fn no_user() -> Refusal {
    let detail = Some("sync_ext.require_user is on.".to_owned());
    Refusal { detail, ..refusal("42501", "no user is set") }
}

pub fn trusted_only() -> Refusal {
    refusal("42501", "only trusted callers may do this")
}

pub fn not_a_member() -> Refusal {
    let detail = Some("It does not exist, or the user is not a member of it.".to_owned());
    Refusal { detail, ..refusal("42501", "permission denied for workspace") }
}

pub fn expired() -> Refusal {
    refusal("SX001", "snapshot expired")
}

impl Server {
    /// An error unless the caller may do what takes this role.
    pub fn allow(&self, user: Option<Name>, workspace: Name, least: Role) -> Result<(), Refusal> {
        let Some(user) = user else { return Ok(()) };
        match self.members.get(&(workspace, user)) {
            Some(role) if *role >= least => Ok(()),
            Some(role) => {
                let (role, least) = (role.word(), least.word());
                let detail = format!("The user's role is {role}; this needs {least}.");
                Err(Refusal { detail: Some(detail), ..not_a_member() })
            }
            None => Err(not_a_member()),
        }
    }

    pub fn create(&mut self, user: Option<Name>, workspace: Name, owner: Name) -> Outcome {
        self.require_members_here()?;
        if user.is_some_and(|user| user != owner) {
            return Err(trusted_only());
        }
        if self.workspaces.contains_key(workspace) {
            self.allow(user, workspace, Role::Viewer)?;
            return Err(refusal("42710", "workspace already exists"));
        }
        let created = self.new_workspace();
        self.workspaces.insert(workspace, created);
        self.members.insert((workspace, owner), Role::Owner);
        Ok(Value::Null)
    }

    pub fn new_workspace(&mut self) -> Workspace {
        self.created += 1;
        Workspace { number: self.created, ..Workspace::default() }
    }

    pub fn drop_workspace(&mut self, user: Option<Name>, workspace: Name, batch: i64) -> Outcome {
        self.allow(user, workspace, Role::Owner)?;
        let Some(dropped) = self.workspaces.remove(workspace) else {
            return Ok(json!({"dropped": false, "rowsErased": 0, "hasMore": false}));
        };
        if !self.elsewhere {
            self.members.retain(|(of, _), _| *of != workspace);
        }
        self.dropped.insert(dropped.number, Leftover::of(&dropped));
        let (erased, has_more) = self.erase(dropped.number, batch);
        Ok(json!({"dropped": true, "rowsErased": erased.rows(), "hasMore": has_more}))
    }

    pub fn set_member(
        &mut self,
        user: Option<Name>,
        workspace: Name,
        member: Name,
        role: Role,
    ) -> Outcome {
        self.allow(user, workspace, Role::Owner)?;
        self.require_members_here()?;
        if !self.workspaces.contains_key(workspace) {
            return Err(refusal("42704", "workspace does not exist"));
        }
        if role != Role::Owner {
            self.keep_an_owner(workspace, member)?;
        }
        self.members.insert((workspace, member), role);
        Ok(Value::Null)
    }

    pub fn remove_member(&mut self, user: Option<Name>, workspace: Name, member: Name) -> Outcome {
        self.allow(user, workspace, Role::Owner)?;
        if !self.workspaces.contains_key(workspace) {
            return Ok(Value::Null);
        }
        if !self.elsewhere {
            self.keep_an_owner(workspace, member)?;
            self.members.remove(&(workspace, member));
        }
        if let Some(state) = self.workspaces.get_mut(workspace) {
            state.devices.retain(|(_, of), _| *of != member);
        }
        Ok(Value::Null)
    }

    fn keep_an_owner(&self, workspace: Name, member: Name) -> Result<(), Refusal> {
        let is_owner = |(key, role): (&(Name, Name), &Role)| {
            (key.0 == workspace && *role == Role::Owner).then_some(key.1)
        };
        let owners: Vec<Name> = self.members.iter().filter_map(is_owner).collect();
        match owners == [member] {
            true => Err(refusal("55000", "workspace must keep an owner")),
            false => Ok(()),
        }
    }

    fn require_members_here(&self) -> Result<(), Refusal> {
        match self.elsewhere {
            true => Err(refusal("55000", "members are kept elsewhere")),
            false => Ok(()),
        }
    }

    pub fn register(
        &mut self,
        user: Option<Name>,
        table: Name,
        owner_field: Option<Name>,
    ) -> Outcome {
        if user.is_some() {
            return Err(trusted_only());
        }
        if owner_field.is_none() && self.tables.get(table).is_some_and(Option::is_some) {
            return Err(refusal("55000", "table has an owner_field"));
        }
        self.tables.insert(table, owner_field);
        Ok(Value::Null)
    }

    pub fn unregister(&mut self, user: Option<Name>, table: Name) -> Outcome {
        if user.is_some() {
            return Err(trusted_only());
        }
        self.tables.remove(table);
        Ok(Value::Null)
    }

    pub fn acknowledge(
        &mut self,
        user: Option<Name>,
        workspace: Name,
        device: Name,
        version: i64,
    ) -> Outcome {
        self.allow(user, workspace, Role::Viewer)?;
        if version < 0 {
            return Err(invalid("invalid version"));
        }
        let state = self.workspaces.get_mut(workspace);
        let (head, horizon) = state.as_ref().map_or((0, 0), |state| (state.head, state.horizon));
        if version > head {
            return Err(refusal("SX003", "version is above the head"));
        }
        let (mut seen, mut advanced) = (0, false);
        if let Some(state) = state {
            let known = state.devices.get(&(device, user.unwrap_or(""))).map(|it| it.cursor);
            advanced = known.is_none_or(|known| version > known);
            seen = known.map_or(version, |known| known.max(version));
            let row = Device { cursor: seen, silent_days: 0 };
            state.devices.insert((device, user.unwrap_or("")), row);
        }
        Ok(json!({"deviceId": device, "lastSeenVersion": seen, "advanced": advanced,
                  "serverVersion": head, "oldestRetainedVersion": horizon + 1}))
    }

    /// A user's by name, with the role; all others in the order of their making.
    pub fn list(&self, user: Option<Name>) -> Value {
        let mut names: Vec<Name> = self.workspaces.keys().copied().collect();
        if user.is_none() || self.elsewhere {
            names.sort_by_key(|name| self.workspaces[name].number);
        }
        let item = |name: Name| {
            let role = user.map(|user| self.members.get(&(name, user)));
            if role == Some(None) {
                return None;
            }
            let role = role.flatten().map(|role| role.word());
            let head = self.workspaces[name].head;
            Some(json!({"workspaceId": name, "role": role, "serverVersion": head}))
        };
        json!({"workspaces": names.into_iter().filter_map(item).collect::<Vec<_>>()})
    }
}
