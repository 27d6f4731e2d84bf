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
use crate::servers::{IsEnough, Server};

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
        self.ask(sql, &self.with_workspace(arguments), None).await
    }

    /// Calls the workspace's server, or a standby if its reply is enough.
    async fn ask(
        &self,
        sql: &str,
        arguments: &[Argument<'_>],
        is_enough: IsEnough<'_>,
    ) -> Result<String, Failure> {
        let mut search = self.caller.gateway.servers.search(&self.workspace_id);
        loop {
            let server = search.server()?;
            let answer = server.ask(self.user(), sql, arguments, is_enough).await;
            if !search.goes_on(server, &answer).await {
                return answer;
            }
        }
    }

    /// The highest version that hints have named.
    fn head(&self) -> i64 {
        self.caller.gateway.hub.head(&self.workspace_id)
    }

    fn user(&self) -> Option<&str> {
        self.caller.user.as_deref()
    }

    fn with_workspace<'a>(&'a self, arguments: &[Argument<'a>]) -> Vec<Argument<'a>> {
        let mut all: Vec<Argument<'a>> = vec![(&self.workspace_id, Type::TEXT)];
        all.extend_from_slice(arguments);
        all
    }

    async fn pull(&self, pull: &Pull) -> Result<String, Failure> {
        let (sql, arguments) = self.of_pull(pull);
        let version = self.head().max(pull.seen());
        self.ask(sql, &arguments, Some(&|reply| Page::has(reply, version))).await
    }

    /// The same where it is now, from a standby that has all up to this version.
    pub async fn pull_through(
        &self,
        server: &Server,
        pull: &Pull,
        version: i64,
    ) -> Result<String, Failure> {
        let (sql, arguments) = self.of_pull(pull);
        let version = version.max(pull.seen());
        server.ask(self.user(), sql, &arguments, Some(&|reply| Page::has(reply, version))).await
    }

    fn of_pull<'a>(&'a self, pull: &'a Pull) -> (&'static str, Vec<Argument<'a>>) {
        let mut arguments = self.with_workspace(&[
            (&pull.cursor, Type::INT8),
            (&pull.page_limit, Type::INT4),
            (&pull.tables, Type::TEXT_ARRAY),
            (&pull.latest, Type::BOOL),
            (&pull.proof, Type::TEXT),
        ]);
        // Without scopes as before them, so that the gateway can be updated first.
        if pull.scopes.is_none() {
            return ("select sync_pull($1, $2, $3, $4, $5, $6)::text", arguments);
        }
        arguments.push((&pull.scopes, Type::TEXT_ARRAY));
        ("select sync_pull($1, $2, $3, $4, $5, $6, $7)::text", arguments)
    }
}

/// The parts of a pull's reply that the gateway uses.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    pub next_cursor: i64,
    pub has_more: bool,
    pub requires_snapshot: bool,
    pub proof: Option<String>,
    server_version: i64,
}

impl Page {
    pub fn parse(reply: &str) -> serde_json::Result<Page> {
        serde_json::from_str(reply)
    }

    /// Whether a standby's reply has all up to this version. One that lags knows no workspace,
    /// has less than was seen elsewhere, or requires what may not be necessary.
    fn has(reply: &str, version: i64) -> bool {
        Page::parse(reply).is_ok_and(|page| {
            let is_far = page.has_more || page.server_version >= version;
            is_far && page.server_version > 0 && !page.requires_snapshot
        })
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

impl Pull {
    /// The highest version that the caller has heard of: its cursor, or that of its proof,
    /// as in `p1.7.…`.
    fn seen(&self) -> i64 {
        let proof = self.proof.as_ref().and_then(|proof| proof.split('.').nth(1)?.parse().ok());
        self.cursor.max(proof).unwrap_or(0)
    }
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

/// The part of its reply that the gateway uses.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    high_watermark: i64,
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
    let mut search = call.caller.gateway.servers.search(&call.workspace_id);
    let ops = Arc::new(body);
    loop {
        let server = search.server()?;
        let answer = server.pushes.push(&call.workspace_id, call.user(), ops.clone()).await;
        if !search.goes_on(server, &answer).await {
            return json(answer);
        }
    }
}

pub async fn pull(posted: Posted) -> Answer {
    json(posted.call.pull(&posted.arguments()?).await)
}

pub async fn snapshot(posted: Posted) -> Answer {
    let snapshot: Snapshot = posted.arguments()?;
    let call = &posted.call;
    let arguments: [Argument<'_>; 6] = [
        (&snapshot.page_token, Type::TEXT),
        (&snapshot.page_limit, Type::INT4),
        (&snapshot.tables, Type::TEXT_ARRAY),
        (&snapshot.scopes, Type::TEXT_ARRAY),
        (&snapshot.have, Type::TEXT_ARRAY),
        (&snapshot.proof, Type::TEXT),
    ];
    let is_plain = snapshot.scopes.is_none() && snapshot.have.is_none() && snapshot.proof.is_none();
    let (sql, arguments) = match is_plain {
        true => {
            ("select sync_snapshot($1, $2, $3, $4)::text", call.with_workspace(&arguments[..3]))
        }
        false => {
            let sql = "select sync_snapshot($1, $2, $3, $4, $5, $6, $7)::text";
            (sql, call.with_workspace(&arguments))
        }
    };
    // Later pages are of the first one's head, or refused.
    let is_first = snapshot.page_token.is_none();
    let head = if is_first { call.head().max(1) } else { 0 };
    let has_all = |reply: &str| {
        serde_json::from_str(reply).is_ok_and(|Listed { high_watermark }| high_watermark >= head)
    };
    json(call.ask(sql, &arguments, Some(&has_all)).await)
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
