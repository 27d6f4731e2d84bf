//! Errors as HTTP answers: `{"error":{"code","message","detail","hint"}}`, with
//! the SQLSTATE as code.

use std::error::Error;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use deadpool_postgres::PoolError;
use serde::Serialize;
use tracing::{error, warn};

/// Of 55000, what no later try changes.
const STAYS_SO: [&str; 2] = ["workspace must keep an owner", "members are kept elsewhere"];

/// "workspace is elsewhere".
pub const ELSEWHERE: &str = "SX004";

#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    #[serde(skip)]
    pub status: StatusCode,
    code: String,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl Failure {
    fn new(status: StatusCode, code: &str, message: &str, detail: Option<String>) -> Failure {
        Failure { status, code: code.to_owned(), message: message.to_owned(), detail, hint: None }
    }

    /// The request is malformed.
    pub fn request(detail: impl ToString) -> Failure {
        let detail = Some(detail.to_string());
        Failure::new(StatusCode::BAD_REQUEST, "22023", "invalid request", detail)
    }

    /// The request names no user.
    pub fn user_required(detail: String) -> Failure {
        Failure::new(StatusCode::UNAUTHORIZED, "28000", "no user is given", Some(detail))
    }

    pub fn token_refused(detail: String) -> Failure {
        Failure::new(StatusCode::UNAUTHORIZED, "28000", "the token is refused", Some(detail))
    }

    /// No key of tokens could be read yet.
    pub fn no_keys() -> Failure {
        let message = "the keys of tokens cannot be read";
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "08001", message, None)
    }

    /// The map of several servers could not be read yet.
    pub fn no_map() -> Failure {
        let message = "the map of workspaces cannot be read";
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "08001", message, None)
    }

    pub fn too_large(limit: usize) -> Failure {
        let detail = Some(format!("A body has at most {limit} bytes."));
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "54000", "request is too large", detail)
    }

    /// Not of class 22: the ops are not at fault, and stay in their outbox.
    pub fn not_json() -> Failure {
        let detail = Some("The Content-Type must be application/json.".to_owned());
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Failure::new(status, "0A000", "media type is not supported", detail)
    }

    pub fn too_slow(timeout: Duration) -> Failure {
        let detail = Some(format!("The body did not arrive within {timeout:?}."));
        Failure::new(StatusCode::REQUEST_TIMEOUT, "57014", "request timed out", detail)
    }

    pub fn not_found() -> Failure {
        Failure::new(StatusCode::NOT_FOUND, "42883", "there is nothing at this path", None)
    }

    pub fn method_not_allowed() -> Failure {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Failure::new(status, "42883", "this path has another method", None)
    }

    pub fn stopping() -> Failure {
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "57P01", "the gateway is stopping", None)
    }

    pub fn internal(code: &str, cause: impl std::fmt::Display) -> Failure {
        // Not an error that sync_ext raises for its callers: only the log gets the cause.
        error!(code, %cause, "internal error");
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, code, "internal error", None)
    }

    pub fn connection_lost(error: &tokio_postgres::Error) -> Failure {
        warn!(error = error as &dyn Error, "connection lost");
        let message = "the connection to the database was lost";
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "08006", message, None)
    }

    /// No answer came in time. The call may have succeeded.
    pub fn unanswered() -> Failure {
        warn!("the database did not answer in time");
        let message = "the database did not answer in time";
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "08006", message, None)
    }

    /// Another transaction interfered: the same call may succeed now.
    pub fn is_conflict(&self) -> bool {
        is_conflict(&self.code)
    }

    /// Another server has the workspace, or will have it soon. Nothing was done.
    pub fn is_elsewhere(&self) -> bool {
        self.code == ELSEWHERE
    }

    /// There was no connection, or it was lost.
    pub fn is_unreachable(&self) -> bool {
        matches!(self.code.get(..3), Some("080" | "57P"))
    }

    /// Not the request's fault: it may succeed later.
    pub fn is_passing(&self) -> bool {
        self.status.is_server_error()
    }

    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Body<'f> {
            error: &'f Failure,
        }
        serde_json::to_string(&Body { error: self }).unwrap_or_default()
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Failure {
        let Some(raised) = error.as_db_error() else { return Failure::connection_lost(&error) };
        let code = raised.code().code();
        let status = status(code, raised.message());
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            // The detail may quote a row, and rows hold payloads. The server logs it.
            return Failure::internal(code, raised.message());
        }
        Failure {
            status,
            code: code.to_owned(),
            message: raised.message().to_owned(),
            detail: raised.detail().map(str::to_owned),
            hint: raised.hint().map(str::to_owned),
        }
    }
}

/// Whatever prevents a connection, wrong credentials included, is not the fault of
/// the request.
impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Failure {
        warn!(error = &error as &dyn Error, "no connection");
        let message = "the database cannot be reached";
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "08001", message, None)
    }
}

pub fn is_conflict(code: &str) -> bool {
    matches!(code, "40001" | "40P01")
}

/// The message is fixed where it is sync_ext's. Others raise some of these codes too.
fn status(code: &str, message: &str) -> StatusCode {
    match code {
        "42704" if message == "workspace does not exist" => StatusCode::NOT_FOUND,
        "42710" if message == "workspace already exists" => StatusCode::CONFLICT,
        "55000" if STAYS_SO.contains(&message) => StatusCode::CONFLICT,
        "54000" | "54001" => StatusCode::BAD_REQUEST,
        "42501" => StatusCode::FORBIDDEN,
        // "snapshot expired" and "version is above the head": the client has to do
        // something else first.
        "SX001" | "SX003" => StatusCode::CONFLICT,
        // "standby is behind the snapshot", and "workspace is elsewhere" where no search has
        // found it.
        "SX002" | ELSEWHERE => StatusCode::SERVICE_UNAVAILABLE,
        // No client caused this: a tool is at work on the tables of sync_ext, or
        // something in the database is not ready.
        "55000" => StatusCode::SERVICE_UNAVAILABLE,
        // Serialization failures and deadlocks after some tries, lock timeouts, a standby.
        "40001" | "40P01" | "55P03" | "25006" => StatusCode::SERVICE_UNAVAILABLE,
        _ => match code.get(..2) {
            Some("22") => StatusCode::BAD_REQUEST,
            // Connections, resources, and an operator's intervention.
            Some("08" | "53" | "57") => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response =
            (self.status, [(header::CONTENT_TYPE, "application/json")], self.to_json())
                .into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whose fault it is, and whether the same call may succeed later.
    #[test]
    fn each_sqlstate_has_its_status() {
        for (status_of, codes) in [
            (400, &["22012", "22021", "22023", "22P02", "54000", "54001"][..]),
            (403, &["42501"]),
            (409, &["SX001", "SX003"]),
            (500, &["42883", "42P01", "38000", "SX000", "XX000", "XX001", "P0001"]),
            (503, &["SX002", "SX004", "55000", "40001", "40P01", "55P03", "25006"]),
            (503, &["53100", "53200", "53300", "57014", "57P01", "08000", "08006"]),
        ] {
            for code in codes {
                assert_eq!(status(code, "message").as_u16(), status_of, "{code}");
            }
        }
    }

    #[test]
    fn the_state_of_workspaces_and_members_has_its_status() {
        for (status_of, code, message) in [
            (404, "42704", "workspace does not exist"),
            (409, "42710", "workspace already exists"),
            (409, "55000", "workspace must keep an owner"),
            (409, "55000", "members are kept elsewhere"),
            (500, "42704", "type \"mood\" does not exist"),
            (500, "42710", "role \"mood\" already exists"),
        ] {
            assert_eq!(status(code, message).as_u16(), status_of, "{message}");
        }
    }

    #[test]
    fn what_may_succeed_later_says_when() {
        for (code, retry_after) in
            [("SX002", Some("1")), ("SX004", Some("1")), ("55000", Some("1")), ("SX001", None)]
        {
            let response =
                Failure::new(status(code, "message"), code, "message", None).into_response();
            let header = response.headers().get(header::RETRY_AFTER);
            assert_eq!(header.map(|value| value.to_str().unwrap()), retry_after, "{code}");
        }
    }
}
