//! Connections of roles that may execute the functions and read the views: a
//! trusted backend's, and one for which a user is required.

use std::collections::HashMap;

use anyhow::{Result, bail};
use postgres::types::ToSql;
use postgres::{Client, Statement};
use serde_json::json;
use sync_ext_harness::cluster::Cluster;

use super::step::{USERS, Via, Who};
use super::{DATABASE, ROLE};

/// All that an error shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// Whatever else it has.
    pub rest: String,
}

pub struct Session {
    client: Client,
    statements: HashMap<&'static str, Statement>,
}

impl Session {
    /// What a superuser sets stays in force for the role.
    pub fn connect(cluster: &Cluster, settings: &str) -> Result<Session> {
        let mut client = cluster.connect(DATABASE)?;
        client.batch_execute(settings)?;
        client.batch_execute(&format!("set session authorization {ROLE}"))?;
        Ok(Session { client, statements: HashMap::new() })
    }

    /// One call in a transaction of its own, for which the user is set. `after`
    /// is run in it, too, if the call is answered.
    pub fn call(
        &mut self,
        who: Who,
        via: Via,
        sql: &'static str,
        arguments: &[Option<String>],
        after: Option<&str>,
    ) -> Result<std::result::Result<String, Failure>> {
        let (user_id, claims) = said(who, via);
        let set = "select set_config('sync_ext.user_id', $1, true),
                          set_config('request.jwt.claims', $2, true)";
        let [set, statement] = [self.statement(set)?, self.statement(sql)?];
        let mut transaction = self.client.transaction()?;
        transaction.execute(&set, &[&user_id, &claims])?;
        let arguments: Vec<&(dyn ToSql + Sync)> =
            arguments.iter().map(|argument| argument as &(dyn ToSql + Sync)).collect();
        match transaction.query_one(&statement, &arguments) {
            Ok(row) => {
                let reply: Option<String> = row.get(0);
                if let Some(after) = after {
                    transaction.batch_execute(after)?;
                }
                transaction.commit()?;
                Ok(Ok(reply.unwrap_or_default()))
            }
            Err(error) => {
                let Some(error) = error.as_db_error() else { bail!("connection lost: {error}") };
                let names = [error.table(), error.column(), error.datatype(), error.constraint()];
                let failure = Failure {
                    code: error.code().code().to_owned(),
                    message: error.message().to_owned(),
                    detail: error.detail().map(str::to_owned),
                    hint: error.hint().map(str::to_owned),
                    rest: format!("{:?} {:?} {names:?}", error.where_(), error.position()),
                };
                transaction.rollback()?;
                Ok(Err(failure))
            }
        }
    }

    /// Prepared once.
    fn statement(&mut self, sql: &'static str) -> Result<Statement> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql)?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }
}

/// The two settings that name the user.
fn said(who: Who, via: Via) -> (&'static str, String) {
    let claims = |user: &str| json!({"role": "web", "sub": user}).to_string();
    match (who.user(), via) {
        (Some(user), Via::Setting) => (user, String::new()),
        (Some(user), Via::Claims) => ("", claims(user)),
        (Some(user), Via::Both) => {
            (user, claims(USERS.iter().find(|other| **other != user).unwrap_or(&user)))
        }
        (None, Via::Claims) => ("", json!({"role": "service"}).to_string()),
        (None, _) => ("", String::new()),
    }
}
