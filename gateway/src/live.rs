//! Changes as server-sent events, of one workspace or of several. Each event is the reply
//! of a pull, with the cursors that it leads to as its id: a client that resumes from the
//! last id sees everything once.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::RawQuery;
use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;

use crate::caller::Caller;
use crate::calls::{self, Call, Pull};
use crate::failure::Failure;
use crate::follow::{Followed, Follower};

/// After this, clients connect again.
const RETRY: Duration = Duration::from_secs(1);
/// Each has its cursor in every id, which a browser sends back in one header.
const MOST_WORKSPACES: usize = 100;

/// The stream of one workspace.
pub async fn of_workspace(
    call: Call,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let mut request = Request::parse(query.as_deref().unwrap_or(""), false)?;
    let mut pull = request.pulls.pop().map(|(_, pull)| pull).unwrap_or_default();
    if let Some(last) = headers.get("last-event-id") {
        pull.cursor = Some(parsed("Last-Event-ID", last.to_str().unwrap_or(""))?);
    }
    let caller = call.caller.clone();
    let mut follower = Follower::new(&caller, vec![Followed::new(call, pull)], false)?;
    // Before the answer begins, so that a refusal has its status.
    follower.pull_first().await?;
    Ok(events(&caller, follower))
}

/// One stream for the workspaces of the query, or for all of the user. It begins at once:
/// a refusal concerns one of them, and is an event.
pub async fn of_workspaces(
    caller: Caller,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let mut request = Request::parse(query.as_deref().unwrap_or(""), true)?;
    if request.pulls.is_empty() {
        for id in workspaces(&caller).await? {
            request.add(id)?;
        }
    }
    let seen = match headers.get("last-event-id") {
        Some(last) => cursors(last.to_str().unwrap_or(""))?,
        None => HashMap::new(),
    };
    let followed = request.pulls.into_iter().map(|(workspace_id, mut pull)| {
        pull.cursor = seen.get(&workspace_id).copied().or(pull.cursor);
        Followed::new(Call { caller: caller.clone(), workspace_id }, pull)
    });
    let follower = Follower::new(&caller, followed.collect(), true)?;
    Ok(events(&caller, follower))
}

fn events(caller: &Caller, follower: Follower) -> Response {
    let hello = stream::once(async { Event::default().retry(RETRY) });
    let events = hello.chain(follower.events()).map(Ok::<_, Infallible>);
    let heartbeat = caller.gateway.config.heartbeat;
    let keep_alive = KeepAlive::new().interval(heartbeat).text("heartbeat");
    // Without it, nginx would buffer events before it passes them on.
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
    (unbuffered, Sse::new(events).keep_alive(keep_alive)).into_response()
}

async fn workspaces(caller: &Caller) -> Result<Vec<String>, Failure> {
    #[derive(Deserialize)]
    struct Reply {
        workspaces: Vec<Workspace>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Workspace {
        workspace_id: String,
    }
    let reply = caller.call_all(calls::LIST_WORKSPACES).await?;
    let reply: Reply =
        serde_json::from_str(&reply).map_err(|error| Failure::internal("XX000", error))?;
    Ok(reply.workspaces.into_iter().map(|workspace| workspace.workspace_id).collect())
}

/// `workspace`, each followed by its `cursor`, `proof` and `scopes` (a JSON array), and for all
/// of them `tables` (once for each), `latest` and `pageLimit`. A browser that reconnects by itself sends
/// `Last-Event-ID` with the URL of the first time, and so with a proof older than the
/// cursor, which the id replaces. That proof is passed on. It misses a restore to a
/// version between the two, as no proof would; it detects one to below itself, which no
/// proof would miss once versions were used again. Once GC has purged its entry, it causes
/// a snapshot without need: that costs a download, whereas a mixed history would stay wrong.
#[derive(Default)]
struct Request {
    /// Of each workspace, in the query's order.
    pulls: Vec<(String, Pull)>,
    /// What holds for all.
    filter: Pull,
}

impl Request {
    /// Without `is_several`, there is one workspace, which the path names.
    fn parse(query: &str, is_several: bool) -> Result<Request, Failure> {
        let mut request = Request::default();
        if !is_several {
            request.add(String::new())?;
        }
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let filter = &mut request.filter;
            match name.as_ref() {
                "workspace" if is_several => request.add(value.into_owned())?,
                "cursor" => request.last()?.cursor = Some(parsed(&name, &value)?),
                "proof" => request.last()?.proof = Some(value.into_owned()),
                "scopes" => {
                    request.last()?.scopes =
                        serde_json::from_str(&value).map_err(Failure::request)?;
                }
                "tables" => {
                    filter.tables.get_or_insert_default().push(Some(value.into_owned()));
                }
                "latest" => filter.latest = Some(parsed(&name, &value)?),
                "pageLimit" => filter.page_limit = Some(parsed(&name, &value)?),
                _ => return Err(Failure::request(format!("There is no parameter {name}."))),
            }
        }
        let Request { pulls, filter } = &mut request;
        for (_, pull) in pulls {
            pull.tables.clone_from(&filter.tables);
            (pull.latest, pull.page_limit) = (filter.latest, filter.page_limit);
        }
        Ok(request)
    }

    fn add(&mut self, workspace_id: String) -> Result<(), Failure> {
        if self.pulls.len() == MOST_WORKSPACES {
            let detail = format!("A stream follows at most {MOST_WORKSPACES} workspaces.");
            return Err(Failure::request(detail));
        }
        if self.pulls.iter().any(|(id, _)| *id == workspace_id) {
            return Err(Failure::request(format!("The workspace {workspace_id} came twice.")));
        }
        let pull = Pull { cursor: Some(0), ..self.filter.clone() };
        self.pulls.push((workspace_id, pull));
        Ok(())
    }

    fn last(&mut self) -> Result<&mut Pull, Failure> {
        let last = self.pulls.last_mut().map(|(_, pull)| pull);
        last.ok_or_else(|| {
            Failure::request("A cursor, a proof or a list of scopes comes after its workspace.")
        })
    }
}

/// The id of a stream of several workspaces: a form of their cursors.
fn cursors(id: &str) -> Result<HashMap<String, i64>, Failure> {
    form_urlencoded::parse(id.as_bytes())
        .map(|(workspace_id, cursor)| {
            Ok((workspace_id.into_owned(), parsed("Last-Event-ID", &cursor)?))
        })
        .collect()
}

fn parsed<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Failure> {
    value.parse().map_err(|_| Failure::request(format!("{name} is invalid.")))
}
