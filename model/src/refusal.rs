//! Errors that end a call.

use serde_json::Value;

use crate::json::is_name;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: &'static str,
    pub message: &'static str,
    /// Where it must be this one.
    pub detail: Option<String>,
}

pub type Outcome = Result<Value, Refusal>;

pub(crate) fn refusal(code: &'static str, message: &'static str) -> Refusal {
    Refusal { code, message, detail: None }
}

pub(crate) fn invalid(message: &'static str) -> Refusal {
    refusal("22023", message)
}

pub fn no_user() -> Refusal {
    let detail = Some("sync_ext.require_user is on.".to_owned());
    Refusal { detail, ..refusal("42501", "no user is set") }
}

pub(crate) fn trusted_only(user: Option<&str>) -> Result<(), Refusal> {
    match user {
        Some(_) => Err(refusal("42501", "only trusted callers may do this")),
        None => Ok(()),
    }
}

pub fn not_a_member() -> Refusal {
    let detail = Some("It does not exist, or the user is not a member of it.".to_owned());
    Refusal { detail, ..refusal("42501", "permission denied for workspace") }
}

/// A name of 1 to `max` bytes.
pub(crate) fn named(name: &str, max: usize, message: &'static str) -> Result<(), Refusal> {
    if is_name(name, max) { Ok(()) } else { Err(invalid(message)) }
}

pub(crate) fn workspace_named(workspace: &str) -> Result<(), Refusal> {
    named(workspace, 256, "invalid workspace_id")
}

/// Of a call that cannot be refused.
pub fn unexpected(refusal: Refusal) -> anyhow::Error {
    anyhow::anyhow!("by the contract {refusal:?}")
}
