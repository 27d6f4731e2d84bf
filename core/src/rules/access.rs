//! Who may do what in a workspace.

/// A user's role in a workspace, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Viewer,
    Editor,
    Owner,
}

impl Role {
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Editor => "editor",
            Role::Owner => "owner",
        }
    }

    pub fn parse(word: &str) -> Option<Role> {
        [Role::Viewer, Role::Editor, Role::Owner].into_iter().find(|role| role.as_str() == word)
    }

    pub fn may(self, action: Action) -> bool {
        self >= action.least_role()
    }
}

/// What a caller wants to do with a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read, and acknowledge what was read.
    Pull,
    Push,
    /// Manage members, history and the workspace itself.
    Govern,
}

impl Action {
    pub fn least_role(self) -> Role {
        match self {
            Action::Pull => Role::Viewer,
            Action::Push => Role::Editor,
            Action::Govern => Role::Owner,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_what_the_lesser_ones_may() {
        let allowed =
            |role: Role| [Action::Pull, Action::Push, Action::Govern].map(|a| role.may(a));
        assert_eq!(allowed(Role::Viewer), [true, false, false]);
        assert_eq!(allowed(Role::Editor), [true, true, false]);
        assert_eq!(allowed(Role::Owner), [true, true, true]);
    }

    #[test]
    fn a_role_is_one_of_three_words() {
        for role in [Role::Viewer, Role::Editor, Role::Owner] {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        for word in ["", "Owner", "owner ", "admin"] {
            assert_eq!(Role::parse(word), None, "{word}");
        }
    }
}
