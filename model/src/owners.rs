//! Whose a record is: what an op says of it, and what the server adds.

use serde_json::json;

use crate::json::{Members, is_number, name};
use crate::op::Op;
use crate::push::{Code, INVALID, UNAUTHORIZED};
use crate::server::Owner;

/// Whose a record is or becomes, and whether the payload is made to say so.
pub(crate) type Owned = Result<(Owner, bool), Code>;

/// What a payload's member says about the owner.
enum Named {
    Absent,
    User(String),
    Nobody,
}

/// The first accepted op of a record fixes whose it is.
pub(crate) fn owned(
    user: Option<&str>,
    op: &Op,
    field: Option<&str>,
    known: Option<&Owner>,
) -> Owned {
    let said = field.map(|field| named_owner(op.payload.as_deref(), field));
    let owner = match (known, user, &said) {
        (Some(None), ..) | (None, _, None) => return Ok((None, false)),
        (Some(Some(owner)), Some(user), _) if owner != user => return Err(UNAUTHORIZED),
        (Some(Some(owner)), ..) => owner.clone(),
        (None, Some(user), _) => user.to_owned(),
        // It will be refused: there is nothing that it could patch.
        (None, None, _) if op.base.is_some() => return Ok((None, false)),
        (None, None, Some(Named::User(owner))) => owner.clone(),
        (None, None, _) => return Err(INVALID),
    };
    let fills = match said {
        _ if op.is_delete => false,
        None => false,
        Some(Named::Absent) => op.base.is_none(),
        Some(Named::User(said)) if said == owner => false,
        Some(_) => {
            return Err(if user.is_some() || op.base.is_some() { UNAUTHORIZED } else { INVALID });
        }
    };
    Ok((Some(owner), fills))
}

fn named_owner(payload: Option<&str>, field: &str) -> Named {
    let members = payload.and_then(Members::of).unwrap_or_default();
    match members.get(field) {
        None => Named::Absent,
        Some(raw) if is_number(raw) && raw.len() <= 256 => Named::User(raw.to_owned()),
        Some(raw) => name(raw, 256).map_or(Named::Nobody, Named::User),
    }
}

/// The object with the owner's field at the end, if it has no such field.
pub(crate) fn filled(object: &str, field: &str, owner: &str) -> String {
    if !matches!(named_owner(Some(object), field), Named::Absent) {
        return object.to_owned();
    }
    let open = object.strip_suffix('}').unwrap_or(object);
    let comma = if open.trim_end().ends_with('{') { "" } else { "," };
    format!("{open}{comma}{}:{}}}", json!(field), json!(owner))
}
