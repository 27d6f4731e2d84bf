//! A call, and what is judged of it whatever it is: secrecy, silence, and
//! whether it ends as the model says.

use anyhow::{Result, ensure};
use serde_json::Value;
use sync_ext_model::refusal::not_a_member;
use sync_ext_model::{Refusal, reply};

use super::session::Failure;
use super::step::{Via, WORKSPACES, Who};
use super::world::World;

pub struct Call {
    pub who: Who,
    pub via: Via,
    pub sql: &'static str,
    /// The workspace first, if it is about one.
    pub arguments: Vec<Option<String>>,
    pub about: Option<String>,
    /// Run in the same transaction.
    pub after: Option<String>,
    /// Is it to be made for a workspace that there is not, too?
    pub has_twin: bool,
}

impl Call {
    pub fn new(who: Who, via: Via, sql: &'static str) -> Call {
        let arguments = Vec::new();
        Call { who, via, sql, arguments, about: None, after: None, has_twin: false }
    }

    pub fn about(mut self, workspace: &str) -> Call {
        self.about = Some(workspace.to_owned());
        self.has_twin = true;
        self.with(Some(workspace))
    }

    pub fn with(mut self, argument: Option<impl ToString>) -> Call {
        self.arguments.push(argument.map(|argument| argument.to_string()));
        self
    }
}

impl World {
    /// Makes a call that must end like `expected`; gives its reply, unless it is
    /// refused.
    pub fn ask<T>(
        &mut self,
        call: &Call,
        expected: &std::result::Result<T, Refusal>,
    ) -> Result<Option<Value>> {
        self.tally.add("calls", 1);
        let session = if call.who == Who::Trusted { &mut self.trusted } else { &mut self.web };
        let after = call.after.as_deref();
        let answer = session.call(call.who, call.via, call.sql, &call.arguments, after)?;
        let shown = match &answer {
            Ok(reply) => reply.clone(),
            Err(failure) => format!("{failure:?}"),
        };
        if let Some(user) = call.who.user() {
            let sent = call.arguments.iter().flatten().cloned().collect::<Vec<_>>().join(" ");
            let about = call.about.as_deref().unwrap_or(WORKSPACES[0]);
            // The views show all workspaces, row by row.
            if !call.sql.contains("sync_ext.") {
                self.secrets.shown(about, user, &shown, &sent)?;
            }
        }
        match (answer, expected) {
            (Ok(reply), Ok(_)) if reply.is_empty() => Ok(Some(Value::Null)),
            (Ok(reply), Ok(_)) => Ok(Some(reply::read(&reply)?)),
            (Err(failure), Err(refusal)) => {
                ensure!(is_as(&failure, refusal), "{failure:?} where {refusal:?} is due");
                self.tally.add(counted_as(refusal), 1);
                if *refusal == not_a_member() && call.has_twin {
                    self.ask_for_nothing(call, &failure)?;
                }
                Ok(None)
            }
            (Ok(reply), Err(refusal)) => {
                anyhow::bail!("answered where {refusal:?} is due: {reply}")
            }
            (Err(failure), Ok(_)) => anyhow::bail!("refused: {failure:?}"),
        }
    }

    /// The same call for a workspace that there is not is refused in the same words.
    fn ask_for_nothing(&mut self, call: &Call, failure: &Failure) -> Result<()> {
        let mut arguments = call.arguments.clone();
        arguments[0] = Some("nowhere".to_owned());
        let answer = self.web.call(call.who, call.via, call.sql, &arguments, None)?;
        self.tally.add("refusals compared with those for no workspace", 1);
        ensure!(
            answer.as_ref().err() == Some(failure),
            "a caller who is not a member gets {failure:?}, for no workspace {answer:?}"
        );
        Ok(())
    }
}

fn is_as(failure: &Failure, refusal: &Refusal) -> bool {
    failure.code == refusal.code
        && failure.message == refusal.message
        && (refusal.detail.is_none() || failure.detail == refusal.detail)
        && (failure.detail.is_some() || failure.hint.is_some() || refusal.detail.is_none())
}

fn counted_as(refusal: &Refusal) -> &'static str {
    match (refusal.code, refusal.message) {
        ("42501", "no user is set") => "42501: no user",
        ("42501", "only trusted callers may do this") => "42501: for trusted callers only",
        ("42501", _) if *refusal == not_a_member() => "42501: no member, or no workspace",
        ("42501", _) => "42501: not by this role",
        ("22023", "invalid page_token") => "22023: another's page token",
        ("22023", _) => "22023: another argument",
        ("SX001", _) => "SX001: snapshots expired",
        ("55000", "workspace must keep an owner") => "55000: last owners kept",
        ("55000", _) => "55000: members kept elsewhere",
        ("42704", _) => "42704: no such workspace",
        _ => "42710: names that are taken",
    }
}
