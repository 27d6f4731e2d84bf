//! Who a request speaks for: the user whom the authentication in front names in a
//! header.

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
        // Of two, one came with the request and was not taken off.
        _ => return Err(Failure::user_required(format!("The header {name} came twice."))),
    };
    match std::str::from_utf8(user.as_bytes()) {
        // To sync_ext an empty user is none, and such a caller is trusted.
        Ok("") | Err(_) => Err(Failure::user_required(format!("The header {name} is invalid."))),
        Ok(user) => Ok(Some(user.to_owned())),
    }
}
