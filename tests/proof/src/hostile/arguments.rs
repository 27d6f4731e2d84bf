//! Arguments as a hostile caller might choose them.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use serde_json::json;
use sync_ext_model::{Filter, Proof};
use uuid::Uuid;

use super::generate::TABLES;
use super::value;
use crate::common::tokens::Tokens;

pub type Tables = Option<Vec<Option<String>>>;

/// Some of the tokens that the server made, and what pages are good for.
/// The arguments that a page token belongs to.
#[derive(Clone)]
pub struct PageOf {
    pub workspace: Option<String>,
    pub tables: Tables,
    pub scopes: Tables,
    pub have: Tables,
}

#[derive(Default)]
pub struct Kept {
    pub proofs: Vec<String>,
    pub pages: Vec<(String, PageOf)>,
    /// What all of them stand for.
    pub all: Tokens,
}

impl Kept {
    /// One of them with a change, or as it is.
    pub fn altered(&self, random: &mut StdRng) -> Option<String> {
        let all: Vec<&String> =
            self.proofs.iter().chain(self.pages.iter().map(|(token, ..)| token)).collect();
        let mut token = (*all.choose(random)?).clone();
        let at = random.random_range(0..token.len());
        match random.random_range(0..8) {
            0 => token.truncate(at),
            1 => token.insert(at, if random.random() { '0' } else { 'é' }),
            2 => drop(token.remove(at)),
            3 => token = token.to_uppercase(),
            4 => token.push_str(&value::text(random)),
            5 => {
                // One bit of one byte, where that leaves a letter.
                let flipped = token.as_bytes()[at] ^ (1 << random.random_range(0..7));
                token.replace_range(at..=at, &char::from(flipped).to_string());
            }
            // As it is: of another workspace, another filter, the other kind.
            _ => {}
        }
        Some(token)
    }

    /// A page token made by the rules of real ones, for anything.
    pub fn forged(&self, workspace: &str, tables: &Tables, random: &mut StdRng) -> String {
        let ours = self.proofs.choose(random).cloned();
        let proof = match random.random_range(0..4) {
            0 => value::text(random),
            1 => format!("p1.{:x}.{:032x}", random.random::<u64>() >> 1, random.random::<u128>()),
            _ => ours.unwrap_or_default(),
        };
        let mut page = json!({
            "s": Uuid::from_u128(random.random()).simple().to_string(),
            "w": number(random),
            "p": proof,
            "t": TABLES[random.random_range(0..2)].0,
            "k": value::text(random),
        });
        if random.random_bool(0.3) {
            let key = ["s", "w", "p", "t", "k"][random.random_range(0..5)];
            page[key] = [json!(value::text(random)), json!(1.5), json!(null), json!([1])]
                [random.random_range(0..4)]
            .clone();
        }
        let body = page.to_string();
        // The second is the user: none, as for a trusted caller.
        let bound = json!([workspace, null, filter(tables).names(), body]).to_string();
        let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, bound.as_bytes()).simple();
        let digits: String = body.bytes().map(|byte| format!("{byte:02x}")).collect();
        format!("s1.{digest}.{digits}")
    }
}

/// Workspaces that may be, and texts that name none.
pub fn workspace(random: &mut StdRng) -> Option<String> {
    match random.random_range(0..40) {
        0 => None,
        1 => Some(String::new()),
        2 => Some("w".repeat(257)),
        3 => Some("é".repeat(128)),
        4 => Some("w\0".to_owned()),
        5 => Some("'; drop table sync_ext.record; --".to_owned()),
        6..=8 => Some("another".to_owned()),
        _ => Some("w".to_owned()),
    }
}

pub fn is_workspace(id: Option<&str>) -> bool {
    id.is_some_and(|id| (1..=256).contains(&id.len()))
}

pub fn tables(random: &mut StdRng) -> Tables {
    match random.random_range(0..5) {
        0..=1 => None,
        2 => Some(vec![]),
        3 => Some(vec![Some(TABLES[1].0.to_owned())]),
        _ => Some(
            (0..random.random_range(1..4))
                .map(|_| random.random_bool(0.8).then(|| value::text(random)))
                .collect(),
        ),
    }
}

/// A list of scopes, as is or of too many.
pub fn scopes(random: &mut StdRng) -> Tables {
    let known = ["", "a", "b", "é"];
    let name = |random: &mut StdRng| match random.random_range(0..8) {
        0 => None,
        1 => Some(value::text(random)),
        2 => Some("a".repeat(random.random_range(255..258))),
        _ => known.choose(random).map(|name| (*name).to_owned()),
    };
    match random.random_range(0..20) {
        0..10 => None,
        10 | 11 => Some(vec![]),
        12 => Some(vec![Some("a".to_owned()); random.random_range(1000..1002)]),
        _ => Some((0..random.random_range(1..4)).map(|_| name(random)).collect()),
    }
}

pub fn number(random: &mut StdRng) -> Option<i64> {
    match random.random_range(0..10) {
        0 => None,
        1 => Some(-1),
        2 => Some(i64::MIN),
        3 => Some(i64::MAX),
        4 => Some(random.random()),
        _ => Some(random.random_range(0..500)),
    }
}

pub fn limit(random: &mut StdRng) -> Option<i32> {
    [None, Some(0), Some(-1), Some(i32::MIN), Some(i32::MAX), Some(1), Some(3), Some(7)]
        .choose(random)
        .copied()
        .flatten()
}

pub fn has_nul<'a>(texts: impl IntoIterator<Item = Option<&'a str>>) -> bool {
    texts.into_iter().flatten().any(|text| text.contains('\0'))
}

pub fn names(tables: &Tables) -> impl Iterator<Item = Option<&str>> {
    tables.iter().flatten().map(|name| name.as_deref())
}

pub fn filter(tables: &Tables) -> Filter {
    Filter::of_argument(tables.as_deref())
}

/// Has it the form of a proof of some scopes? Altered ones are not given: what they say of
/// the history may still be right.
pub fn is_scoped_proof(token: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<&str> = token.split('.').collect();
    matches!(parts[..], ["p2", _, digest, list, _] if digest.len() == 32 && list.len() == 32)
        && parts[1..].iter().all(|part| digits(part))
}

/// What a proof that the server did not make stands for: an entry that never
/// was. It has the form of one if it is `p1.`, a positive number and 16 bytes, in
/// hexadecimal digits as they are usually written.
pub fn forged_proof(token: &str) -> Option<Proof> {
    let digits = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let (head, digest) = token.strip_prefix("p1.")?.split_once('.')?;
    let is_right = !head.starts_with('0') && digits(head) && digest.len() == 32 && digits(digest);
    let head = i64::from_str_radix(head, 16).ok().filter(|_| is_right)?;
    Some(Proof { workspace: String::new(), head, op_id: String::new(), at: 0, following: None })
}
