//! Workspaces, their members and their state: calls under the caller's own role.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Deserialize;
use tokio_postgres::types::Type;

use crate::caller::Caller;
use crate::calls::{Answer, Call, LIST_WORKSPACES, Posted, json};
use crate::failure::Failure;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Created {
    owner: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Role {
    role: Option<String>,
}

/// A record, in a query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    table: String,
    pk: String,
}

/// The member in the path.
#[derive(Deserialize)]
pub struct Member {
    user: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Member {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Member, Failure> {
        let Path(member) =
            Path::from_request_parts(parts, state).await.map_err(Failure::request)?;
        Ok(member)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Record {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Record, Failure> {
        let Query(record) = Query::try_from_uri(&parts.uri).map_err(Failure::request)?;
        Ok(record)
    }
}

/// What a function without a reply is answered with.
type Done = Result<StatusCode, Failure>;

fn done(reply: Result<String, Failure>) -> Done {
    reply.map(|_| StatusCode::NO_CONTENT)
}

pub async fn list(caller: Caller) -> Answer {
    json(caller.call_all(LIST_WORKSPACES).await)
}

/// The user's own, if the body names no owner.
pub async fn create(posted: Posted) -> Done {
    let created: Created =
        if posted.is_empty() { Created::default() } else { posted.arguments()? };
    let call = posted.call;
    let owner = created.owner.or_else(|| call.caller.user.clone());
    let sql = "select sync_create_workspace($1, $2)::text";
    done(call.run(sql, &[(&owner, Type::TEXT)]).await)
}

pub async fn drop(call: Call) -> Answer {
    json(call.run("select sync_drop_workspace($1)::text", &[]).await)
}

pub async fn members(call: Call) -> Answer {
    json(call.run("select sync_list_members($1)::text", &[]).await)
}

pub async fn set_member(Member { user }: Member, posted: Posted) -> Done {
    let Role { role } = posted.arguments()?;
    let sql = "select sync_set_member($1, $2, $3)::text";
    done(posted.call.run(sql, &[(&user, Type::TEXT), (&role, Type::TEXT)]).await)
}

pub async fn remove_member(Member { user }: Member, call: Call) -> Done {
    done(call.run("select sync_remove_member($1, $2)::text", &[(&user, Type::TEXT)]).await)
}

pub async fn status(call: Call) -> Answer {
    json(call.run("select sync_status($1)::text", &[]).await)
}

pub async fn explain(Record { table, pk }: Record, call: Call) -> Answer {
    let sql = "select sync_explain($1, $2, $3)::text";
    json(call.run(sql, &[(&table, Type::TEXT), (&pk, Type::TEXT)]).await)
}
