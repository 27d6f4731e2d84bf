//! The body of a request, which must be JSON. It is read to its end before the gateway
//! answers: a client that gets its answer while it still sends may see a reset connection
//! instead.

use axum::body::{Body, HttpBody};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, EXPECT};
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::config::Config;
use crate::failure::Failure;

/// A body above the limit is read, and dropped, up to this multiple of the limit.
const DRAINED: usize = 4;

#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    length: usize,
}

pub async fn read(headers: &HeaderMap, body: Body, config: &Config) -> Result<String, Failure> {
    let limit = config.max_body_bytes;
    // The client waits before it sends, and the first read would ask it to continue.
    if headers.contains_key(EXPECT) && body.size_hint().lower() > limit as u64 {
        return Err(Failure::too_large(limit));
    }
    let mut received = Received::default();
    let end = timeout(config.body_timeout, receive(body, limit, &mut received)).await;
    if received.length > limit {
        return Err(Failure::too_large(limit));
    }
    end.map_err(|_| Failure::too_slow(config.body_timeout))?.map_err(Failure::request)?;
    // A browser sends text and forms to other sites with the user's cookies, which a
    // proxy in front may accept. It sends JSON only after a CORS preflight.
    if received.length > 0 && !is_json(headers) {
        return Err(Failure::not_json());
    }
    String::from_utf8(received.bytes).map_err(Failure::request)
}

/// The media type, whatever its parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let (media_type, _) = value.split_once(';').unwrap_or((value, ""));
    media_type.trim().eq_ignore_ascii_case("application/json")
}

async fn receive(body: Body, limit: usize, received: &mut Received) -> Result<(), axum::Error> {
    let mut chunks = body.into_data_stream();
    while received.length <= limit.saturating_mul(DRAINED)
        && let Some(chunk) = chunks.next().await
    {
        let chunk = chunk?;
        received.length += chunk.len();
        if received.length <= limit {
            received.bytes.extend_from_slice(&chunk);
        } else {
            received.bytes = Vec::new();
        }
    }
    Ok(())
}
