//! Who a request speaks for: the user in the header that the authentication in front
//! sets.

use axum::http::HeaderMap;

use crate::config::Config;
use crate::failure::Failure;

/// The request's user; `None` for a trusted one.
pub fn user(headers: &HeaderMap, config: &Config) -> Result<Option<String>, Failure> {
    let name = &config.user_header;
    let mut values = headers.get_all(name).iter();
    let user = match (values.next(), values.next()) {
        (Some(user), None) => user,
        (None, _) if config.trusted => return Ok(None),
        (None, _) => return Err(Failure::user_required(format!("The header {name} is missing."))),
        // One of the two came with the request and was not removed.
        _ => return Err(Failure::user_required(format!("The header {name} came twice."))),
    };
    match std::str::from_utf8(user.as_bytes()) {
        // sync_ext takes an empty user for none, and trusts such a caller.
        Ok("") | Err(_) => Err(Failure::user_required(format!("The header {name} is invalid."))),
        Ok(user) => Ok(Some(user.to_owned())),
    }
}
