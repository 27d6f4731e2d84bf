//! The calls: arguments and replies pass through as they are.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio_postgres::types::Type;

use crate::body;
use crate::caller::Caller;
use crate::database::Argument;
use crate::failure::Failure;
use crate::lobby::Place;
use crate::server::Gateway;

pub const LIST_WORKSPACES: &str = "select sync_list_workspaces()::text";

/// A request for a workspace.
pub struct Call {
    pub caller: Caller,
    pub workspace_id: String,
}

/// In the path, which may name a member too.
#[derive(Deserialize)]
struct Workspace {
    id: String,
}

impl FromRequestParts<Arc<Gateway>> for Call {
    type Rejection = Failure;

    async fn from_request_parts(
        parts: &mut Parts,
        gateway: &Arc<Gateway>,
    ) -> Result<Call, Failure> {
        let caller = Caller::from_request_parts(parts, gateway).await?;
        let Path(Workspace { id }) =
            Path::from_request_parts(parts, gateway).await.map_err(Failure::request)?;
        Ok(Call { caller, workspace_id: id })
    }
}

/// A call with its body.
pub struct Posted {
    pub call: Call,
    body: String,
}

impl FromRequest<Arc<Gateway>> for Posted {
    type Rejection = Failure;

    async fn from_request(request: Request, gateway: &Arc<Gateway>) -> Result<Posted, Failure> {
        let (mut parts, body) = request.into_parts();
        let body = body::read(&parts.headers, body, &gateway.config).await;
        if let Some(place) = parts.extensions.get::<Arc<Place>>() {
            place.work();
        }
        let call = Call::from_request_parts(&mut parts, gateway).await?;
        Ok(Posted { call, body: body? })
    }
}

impl Posted {
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    pub fn arguments<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.body).map_err(Failure::request)
    }
}

impl Call {
    /// Calls a function whose first argument is the workspace.
    pub async fn run(&self, sql: &str, arguments: &[Argument<'_>]) -> Result<String, Failure> {
        let mut all: Vec<Argument<'_>> = vec![(&self.workspace_id, Type::TEXT)];
        all.extend_from_slice(arguments);
        self.caller.call(sql, &all).await
    }

    pub async fn pull(&self, pull: &Pull) -> Result<String, Failure> {
        let arguments: [Argument<'_>; 6] = [
            (&pull.cursor, Type::INT8),
            (&pull.page_limit, Type::INT4),
            (&pull.tables, Type::TEXT_ARRAY),
            (&pull.latest, Type::BOOL),
            (&pull.proof, Type::TEXT),
            (&pull.scopes, Type::TEXT_ARRAY),
        ];
        // Without scopes as before them, so that the gateway can be updated first.
        match pull.scopes {
            None => {
                let sql = "select sync_pull($1, $2, $3, $4, $5, $6)::text";
                self.run(sql, &arguments[..5]).await
            }
            Some(_) => {
                let sql = "select sync_pull($1, $2, $3, $4, $5, $6, $7)::text";
                self.run(sql, &arguments).await
            }
        }
    }
}

/// The arguments of sync_pull. One that is absent has the function's default.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pull {
    #[serde(default = "zero")]
    pub cursor: Option<i64>,
    pub page_limit: Option<i32>,
    pub tables: Option<Vec<Option<String>>>,
    pub latest: Option<bool>,
    pub proof: Option<String>,
    pub scopes: Option<Vec<Option<String>>>,
}

fn zero() -> Option<i64> {
    Some(0)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    page_token: Option<String>,
    page_limit: Option<i32>,
    tables: Option<Vec<Option<String>>>,
    scopes: Option<Vec<Option<String>>>,
    have: Option<Vec<Option<String>>>,
    proof: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cursor {
    device_id: Option<String>,
    version: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exchange {
    device_id: Option<String>,
    cursor: Option<i64>,
    /// As they were sent: payloads are kept byte for byte.
    ops: Option<Box<RawValue>>,
    page_limit: Option<i32>,
    tables: Option<Vec<Option<String>>>,
    latest: Option<bool>,
    proof: Option<String>,
    scopes: Option<Vec<Option<String>>>,
}

pub type Answer = Result<([(HeaderName, &'static str); 1], String), Failure>;

pub async fn push(Posted { call, body }: Posted) -> Answer {
    let Caller { gateway, user, .. } = call.caller;
    json(gateway.pushes.push(call.workspace_id, user, body).await)
}

pub async fn pull(posted: Posted) -> Answer {
    json(posted.call.pull(&posted.arguments()?).await)
}

pub async fn snapshot(posted: Posted) -> Answer {
    let snapshot: Snapshot = posted.arguments()?;
    let arguments: [Argument<'_>; 6] = [
        (&snapshot.page_token, Type::TEXT),
        (&snapshot.page_limit, Type::INT4),
        (&snapshot.tables, Type::TEXT_ARRAY),
        (&snapshot.scopes, Type::TEXT_ARRAY),
        (&snapshot.have, Type::TEXT_ARRAY),
        (&snapshot.proof, Type::TEXT),
    ];
    let is_plain = snapshot.scopes.is_none() && snapshot.have.is_none() && snapshot.proof.is_none();
    json(match is_plain {
        true => {
            let sql = "select sync_snapshot($1, $2, $3, $4)::text";
            posted.call.run(sql, &arguments[..3]).await
        }
        false => {
            let sql = "select sync_snapshot($1, $2, $3, $4, $5, $6, $7)::text";
            posted.call.run(sql, &arguments).await
        }
    })
}

pub async fn cursor(posted: Posted) -> Answer {
    let cursor: Cursor = posted.arguments()?;
    let sql = "select sync_update_cursor($1, $2, $3)::text";
    let arguments: [Argument<'_>; 2] =
        [(&cursor.device_id, Type::TEXT), (&cursor.version, Type::INT8)];
    json(posted.call.run(sql, &arguments).await)
}

pub async fn exchange(posted: Posted) -> Answer {
    let exchange: Exchange = posted.arguments()?;
    let ops = exchange.ops.as_deref().map(RawValue::get);
    let arguments: [Argument<'_>; 8] = [
        (&exchange.device_id, Type::TEXT),
        (&exchange.cursor, Type::INT8),
        (&ops, Type::TEXT),
        (&exchange.page_limit, Type::INT4),
        (&exchange.tables, Type::TEXT_ARRAY),
        (&exchange.latest, Type::BOOL),
        (&exchange.proof, Type::TEXT),
        (&exchange.scopes, Type::TEXT_ARRAY),
    ];
    json(match exchange.scopes {
        None => {
            let sql = "select sync_exchange($1, $2, $3, $4::json, $5, $6, $7, $8)::text";
            posted.call.run(sql, &arguments[..7]).await
        }
        Some(_) => {
            let sql = "select sync_exchange($1, $2, $3, $4::json, $5, $6, $7, $8, $9)::text";
            posted.call.run(sql, &arguments).await
        }
    })
}

pub fn json(reply: Result<String, Failure>) -> Answer {
    Ok(([(CONTENT_TYPE, "application/json")], reply?))
}
