//! Hostile arguments to what decides about workspaces, members and whose a
//! record is; and hostile users.

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::value::RawValue;
use sync_ext_model::json::{self, Members};

use super::arguments::{has_nul, is_workspace};
use super::calls::{ask, compare, unless_nul};
use super::push::Pusher;
use super::value;
use crate::common::tally::Tally;

const SPEAK: &str = "select set_config('sync_ext.user_id', $1, false)
                         || set_config('request.jwt.claims', $2, false)";

/// A name of 1 to 256 bytes, as users and workspaces have.
fn is_user(user: Option<&str>) -> bool {
    is_workspace(user)
}

fn optional(random: &mut StdRng) -> Option<String> {
    random.random_bool(0.9).then(|| value::text(random))
}

/// Which error is due: of texts that Postgres takes for none, or of arguments
/// that the contract forbids.
fn due(nul: bool, is_valid: bool) -> Option<&'static str> {
    match (nul, is_valid) {
        (true, _) => Some("22021"),
        (_, false) => Some("22023"),
        _ => None,
    }
}

/// The life of a workspace: made, given members, listed, dropped; or refused.
pub fn govern(pusher: &mut Pusher, random: &mut StdRng) -> Result<()> {
    let taken = ["w", "another"];
    let name = match random.random_range(0..8) {
        0 => Some((*taken.choose(random).unwrap_or(&"w")).to_owned()),
        // None that the run pushes to.
        _ => random.random_bool(0.9).then(|| format!("{}?", value::text(random))),
    };
    let owner = optional(random);
    let is_taken = name.as_ref().is_some_and(|name| pusher.model.workspaces.contains_key(name));
    if !is_taken && name.as_ref().is_some_and(|name| taken.contains(&&**name)) {
        // The run would be left with a workspace that it has not pushed to.
        return Ok(());
    }
    let (id, owner_id) =
        (name.as_deref().unwrap_or_default(), owner.as_deref().unwrap_or_default());
    let texts = [name.as_deref(), owner.as_deref()];
    let model = &mut pusher.model;
    let expected = unless_nul(texts, || model.create(None, id, owner_id));
    let sql = "select sync_create_workspace($1, $2)::text";
    compare(pusher, sql, &[&name, &owner], expected)?;
    if is_taken {
        // Where the run pushes to there are no members.
        return Ok(());
    }

    let user = if random.random() { optional(random) } else { owner.clone() };
    let role = match random.random_range(0..5) {
        0 => optional(random),
        _ => ["owner", "editor", "viewer"].choose(random).map(|role| (*role).to_owned()),
    };
    let texts = [name.as_deref(), user.as_deref(), role.as_deref()];
    let [_, user_id, role_word] = texts.map(Option::unwrap_or_default);
    let model = &mut pusher.model;
    let expected = unless_nul(texts, || model.set_member(None, id, user_id, role_word));
    let sql = "select sync_set_member($1, $2, $3)::text";
    compare(pusher, sql, &[&name, &user, &role], expected)?;
    let expected = Ok(pusher.model.list(None));
    compare(pusher, "select sync_list_workspaces()::text", &[], expected)?;
    ask_of(pusher, random, name.as_deref(), user.as_deref())?;
    let texts = [name.as_deref(), user.as_deref()];
    let model = &mut pusher.model;
    let expected = unless_nul(texts, || model.remove_member(None, id, user_id));
    compare(pusher, "select sync_remove_member($1, $2)::text", &[&name, &user], expected)?;

    // With a batch size that is wrong, then with one that is right.
    let sizes = [None, Some(0), Some(-1), Some(i32::MIN)];
    let wrong = sizes.choose(random).copied().flatten();
    for size in [wrong, Some(i32::MAX)] {
        let model = &mut pusher.model;
        let batch = size.unwrap_or_default().into();
        let expected = unless_nul([name.as_deref()], || model.drop_workspace(None, id, batch));
        let sql = "select sync_drop_workspace($1, $2)::text";
        compare(pusher, sql, &[&name, &size], expected)?;
    }
    Ok(())
}

/// Questions and calls that the model does not know.
fn ask_of(
    pusher: &mut Pusher,
    random: &mut StdRng,
    name: Option<&str>,
    user: Option<&str>,
) -> Result<()> {
    let device = optional(random);
    let is_name = is_workspace(name);
    let nuls = |other: Option<&str>| has_nul([name, other]);
    for (sql, other, is_valid) in [
        ("select json_build_array(sync_list_members($1), $2::text)::text", None, true),
        (
            "select to_json(coalesce(sync_get_role($1, $2), 'none'))::text",
            user,
            user.is_none() || is_user(user),
        ),
        (
            "select sync_forget_device($1, $2)::text",
            device.as_deref(),
            is_workspace(device.as_deref()),
        ),
    ] {
        ask(pusher, sql, &[&name, &other], due(nuls(other), is_name && is_valid))?;
    }
    Ok(())
}

/// Somebody calls who says that they are somebody: as a user they are no member
/// of anything, whatever their name; only who says nothing is trusted.
pub fn speak(pusher: &mut Pusher, random: &mut StdRng, tally: &mut Tally) -> Result<()> {
    let user = if random.random_bool(0.6) { String::new() } else { value::text(random) };
    let claims = claims(random);
    let nul = has_nul([Some(&*user), Some(&*claims)]);
    let expected = nul.then_some("22021");
    if ask_for_text(pusher, SPEAK, &[&user, &claims], expected)?.is_none() {
        return Ok(());
    }
    let who = match (user.is_empty(), claims.is_empty()) {
        (false, _) if is_user(Some(&user)) => Subject::User,
        (false, _) => Subject::Invalid,
        (true, true) => Subject::Nobody,
        (true, false) => subject(&claims),
    };
    let expected = match who {
        Subject::Nobody => None,
        Subject::User => Some("42501"),
        Subject::Invalid => Some("22023"),
    };
    tally.add(counted_as(&who), 1);
    for sql in [
        "select sync_pull('w', 0, 1)::text",
        "select sync_push('w', '[]')::text",
        "select sync_snapshot('w', null, 1)::text",
        "select sync_update_cursor('w', 'd', 0)::text",
        "select sync_exchange('w', 'd', 0, '[]', 1)::text",
        "select sync_gc()::text",
        "select sync_unregister_table('no such table')::text",
        "select sync_remove_member('w', 'nobody')::text",
        "select sync_status('nowhere')::text",
        "select sync_explain('nowhere', 'notes', 'a')::text",
    ] {
        ask(pusher, sql, &[], expected).with_context(|| format!("as {user:?}, {claims:?}"))?;
    }
    if matches!(who, Subject::Nobody) {
        // The cursor of device d was acknowledged.
        let expected = pusher.model.acknowledge(None, "w", "d", 0, 0);
        ensure!(expected.is_ok(), "{expected:?}");
    }
    let expected = expected.filter(|_| matches!(who, Subject::Invalid));
    let listed = ask(pusher, "select sync_list_workspaces()::text", &[], expected)?;
    if matches!(who, Subject::User) {
        ensure!(listed.as_deref() == Some(r#"{"workspaces":[]}"#), "{user:?} is shown {listed:?}");
        for view in ["current_record", "conflict", "workspace_status", "device_status"] {
            let sql = format!("select count(*)::text from sync_ext.{view}");
            let shown = ask(pusher, &sql, &[], None)?;
            ensure!(shown.as_deref() == Some("0"), "{user:?}, {claims:?} is shown {shown:?}");
        }
    }
    be_trusted(pusher)
}

pub fn be(pusher: &mut Pusher, user: &str) -> Result<()> {
    ask_for_text(pusher, SPEAK, &[&user, &""], None).map(drop)
}

pub fn be_trusted(pusher: &mut Pusher) -> Result<()> {
    be(pusher, "")
}

/// What the settings are is no JSON.
fn ask_for_text(
    pusher: &mut Pusher,
    sql: &str,
    arguments: &[&(dyn postgres::types::ToSql + Sync)],
    expected: Option<&str>,
) -> Result<Option<String>> {
    ask(pusher, &format!("select left(({sql}), 0)"), arguments, expected)
}

/// Whom claims name.
enum Subject {
    Nobody,
    User,
    /// They are no object, or their sub cannot be a user.
    Invalid,
}

fn subject(claims: &str) -> Subject {
    // What comes as json has been parsed before; a setting has not.
    let members = serde_json::from_str::<&RawValue>(claims).ok();
    let Some(members) = members.and_then(|raw| Members::of(raw.get())) else {
        return Subject::Invalid;
    };
    match members.get("sub") {
        None => Subject::Nobody,
        Some(raw) if json::name(raw, 256).is_some() => Subject::User,
        Some(_) => Subject::Invalid,
    }
}

fn counted_as(who: &Subject) -> &'static str {
    match who {
        Subject::Nobody => "callers without a user",
        Subject::User => "callers with a hostile user",
        Subject::Invalid => "callers who could not be read",
    }
}

/// Claims with and without a sub, and what is none.
fn claims(random: &mut StdRng) -> String {
    let sub = match random.random_range(0..4) {
        0 => value::value(random),
        1 => value::harmless_string(random),
        _ => value::string(random),
    };
    let key = *["sub", "sub", "sub", "su\\u0062", "Sub"].choose(random).unwrap_or(&"sub");
    let object = value::object(random);
    let rest = &object[1..object.len() - 1];
    let comma = if rest.trim().is_empty() { "" } else { "," };
    match random.random_range(0..10) {
        0..2 => String::new(),
        2 => object,
        3 => value::value(random),
        4 => value::text(random),
        5 => format!("{{\"sub\":{},\"{key}\":{sub}}}", value::value(random)),
        6 => format!("{{\"{key}\":{sub}"),
        _ => format!("{{\"{key}\":{sub}{comma}{rest}}}{}", value::space(random)),
    }
}
