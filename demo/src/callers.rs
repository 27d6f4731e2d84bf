//! Who the devices are to the server: trusted, or members of their workspace.

use anyhow::{Context, Result, ensure};
use postgres::Client;
use postgres::error::SqlState;

use crate::connect;

/// The role that members connect as: it may call four functions, for a user.
pub const GATEWAY: &str = "create role gateway login;
    alter role gateway set sync_ext.require_user = on;
    grant execute on function
      sync_push(text, json),
      sync_pull,
      sync_snapshot,
      sync_update_cursor(text, text, bigint) to gateway";

/// What the gateway may call, on a workspace.
const CALLS: [&str; 4] = [
    "select sync_push($1, '[]')::text",
    "select sync_pull($1)::text",
    "select sync_snapshot($1)::text",
    "select sync_update_cursor($1, 'd', 0)::text",
];

pub struct Callers {
    /// A superuser's session; it speaks for the owner of the members' workspace.
    pub governor: Client,
    are_members: bool,
}

impl Callers {
    /// They speak for no user.
    pub fn trusted() -> Result<Callers> {
        Ok(Callers { governor: connect("postgres")?, are_members: false })
    }

    /// Each is a user of its own; the owner, who makes the workspace, lets them in.
    pub fn members(workspace: &str) -> Result<Callers> {
        let mut governor = connect("postgres")?;
        speak_for("ann", &mut governor)?;
        governor.execute("select sync_create_workspace($1, 'ann')", &[&workspace])?;
        Ok(Callers { governor, are_members: true })
    }

    /// A connection for a user, who is made a member with this role.
    pub fn admit(&mut self, workspace: &str, user: &str, role: &str) -> Result<Client> {
        if !self.are_members {
            return connect("postgres");
        }
        self.governor.execute("select sync_set_member($1, $2, $3)", &[&workspace, &user, &role])?;
        let mut client = connect("gateway")?;
        speak_for(user, &mut client)?;
        Ok(client)
    }

    /// Has others call, who must be refused: one who is no member, and nobody.
    /// How many calls that were.
    pub fn refuse_others(&self, workspace: &str) -> Result<usize> {
        let mut refused = 0;
        if !self.are_members {
            return Ok(refused);
        }
        for user in ["eve", ""] {
            let mut client = connect("gateway")?;
            speak_for(user, &mut client)?;
            for call in CALLS {
                let answer = client.query_one(call, &[&workspace]);
                let error = answer.err().with_context(|| format!("{user:?} may {call}"))?;
                let is_denied = error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE);
                ensure!(is_denied, "{call} by {user:?}: {error}");
                refused += 1;
            }
        }
        Ok(refused)
    }
}

fn speak_for(user: &str, client: &mut Client) -> Result<()> {
    client.execute("select set_config('sync_ext.user_id', $1, false)", &[&user])?;
    Ok(())
}
