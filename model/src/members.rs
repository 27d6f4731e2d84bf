//! Workspaces, their members, and what these may do.

use serde_json::{Value, json};

use crate::gc::Leftover;
use crate::refusal::{
    Outcome, Refusal, invalid, named, not_a_member, refusal, trusted_only, workspace_named,
};
use crate::server::Server;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Viewer,
    Editor,
    Owner,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Viewer, Role::Editor, Role::Owner];

    pub fn word(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Editor => "editor",
            Role::Owner => "owner",
        }
    }
}

impl Server {
    /// An error unless the caller may do what takes this role.
    pub(crate) fn allow(
        &self,
        user: Option<&str>,
        workspace: &str,
        least: Role,
    ) -> Result<(), Refusal> {
        workspace_named(workspace)?;
        let Some(user) = user else { return Ok(()) };
        match self.members.get(&(workspace.to_owned(), user.to_owned())) {
            Some(role) if *role >= least => Ok(()),
            Some(role) => {
                let (role, least) = (role.word(), least.word());
                let detail = format!("The user's role is {role}; this needs {least}.");
                Err(Refusal { detail: Some(detail), ..not_a_member() })
            }
            None => Err(not_a_member()),
        }
    }

    pub fn create(&mut self, user: Option<&str>, workspace: &str, owner: &str) -> Outcome {
        workspace_named(workspace)?;
        named(owner, 256, "invalid user_id")?;
        self.require_members_here()?;
        if user.is_some_and(|user| user != owner) {
            trusted_only(user)?;
        }
        if self.workspaces.contains_key(workspace) {
            self.allow(user, workspace, Role::Viewer)?;
            return Err(refusal("42710", "workspace already exists"));
        }
        let created = self.new_workspace();
        self.workspaces.insert(workspace.to_owned(), created);
        self.members.insert((workspace.to_owned(), owner.to_owned()), Role::Owner);
        Ok(Value::Null)
    }

    pub fn drop_workspace(&mut self, user: Option<&str>, workspace: &str, batch: i64) -> Outcome {
        self.allow(user, workspace, Role::Owner)?;
        if batch < 1 {
            return Err(invalid("invalid batch_size"));
        }
        let Some(dropped) = self.workspaces.remove(workspace) else {
            return Ok(json!({"dropped": false, "rowsErased": 0, "hasMore": false}));
        };
        if !self.has_members_elsewhere {
            self.members.retain(|(of, _), _| of != workspace);
        }
        self.dropped.insert(dropped.number, Leftover::of(&dropped));
        let (erased, has_more) = self.erase(dropped.number, batch);
        Ok(json!({"dropped": true, "rowsErased": erased.rows(), "hasMore": has_more}))
    }

    pub fn set_member(
        &mut self,
        user: Option<&str>,
        workspace: &str,
        member: &str,
        role: &str,
    ) -> Outcome {
        self.allow(user, workspace, Role::Owner)?;
        named(member, 256, "invalid user_id")?;
        let role = Role::ALL.into_iter().find(|known| known.word() == role);
        let role = role.ok_or_else(|| invalid("invalid role"))?;
        self.require_members_here()?;
        if !self.workspaces.contains_key(workspace) {
            return Err(refusal("42704", "workspace does not exist"));
        }
        if role != Role::Owner {
            self.keep_an_owner(workspace, member)?;
        }
        self.members.insert((workspace.to_owned(), member.to_owned()), role);
        Ok(Value::Null)
    }

    pub fn remove_member(&mut self, user: Option<&str>, workspace: &str, member: &str) -> Outcome {
        self.allow(user, workspace, Role::Owner)?;
        named(member, 256, "invalid user_id")?;
        if !self.workspaces.contains_key(workspace) {
            return Ok(Value::Null);
        }
        if !self.has_members_elsewhere {
            self.keep_an_owner(workspace, member)?;
            self.members.remove(&(workspace.to_owned(), member.to_owned()));
        }
        if let Some(state) = self.workspaces.get_mut(workspace) {
            state.devices.retain(|(_, of), _| of != member);
        }
        Ok(Value::Null)
    }

    fn keep_an_owner(&self, workspace: &str, member: &str) -> Result<(), Refusal> {
        let mut owners = self
            .members
            .iter()
            .filter(|((of, _), role)| of == workspace && **role == Role::Owner)
            .map(|((_, owner), _)| owner);
        match owners.next().is_some_and(|owner| owner == member) && owners.next().is_none() {
            true => Err(refusal("55000", "workspace must keep an owner")),
            false => Ok(()),
        }
    }

    fn require_members_here(&self) -> Result<(), Refusal> {
        match self.has_members_elsewhere {
            true => Err(refusal("55000", "members are kept elsewhere")),
            false => Ok(()),
        }
    }

    /// A user's by name, with the role; all others in the order of their creation.
    pub fn list(&self, user: Option<&str>) -> Value {
        let mut names: Vec<&String> = self.workspaces.keys().collect();
        if user.is_none() || self.has_members_elsewhere {
            names.sort_by_key(|name| self.workspaces[*name].number);
        }
        let item = |name: &String| {
            let role = match user {
                Some(user) => Some(self.members.get(&(name.clone(), user.to_owned()))?.word()),
                None => None,
            };
            Some(json!({"workspaceId": name, "role": role, "serverVersion": self.head(name)}))
        };
        json!({"workspaces": names.into_iter().filter_map(item).collect::<Vec<_>>()})
    }
}
