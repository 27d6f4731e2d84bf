//! Secrecy, judged without a model: what a user is shown of another's diary.
//!
//! Every op of the diary, which is always private, carries names that stand
//! nowhere else: a marker in payload, hlc and deviceId, its pk, its opId. What
//! a user is shown holds none of them but those of ops that were accepted from
//! that user, or from a trusted caller for one user; and what they sent in the
//! same call. A name that was accepted from nobody is shown to nobody.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Result, bail};

use super::op::{DIARY, Item, Op};
use super::step::Name;

/// The pk of one of the diary's records says so.
pub fn pk(table: Name, name: u32, workspace: Name) -> String {
    match table == DIARY {
        true => format!("d{name}@{workspace}"),
        false => format!("{}{name}", &table[..1]),
    }
}

pub fn marker(table: Name, number: u64) -> String {
    match table == DIARY {
        true => format!("md{number}m"),
        false => format!("x{number}"),
    }
}

pub fn op_id(number: u64) -> String {
    format!("5ec2e700-0000-4000-8000-{number:012x}")
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Holder {
    Everybody,
    /// Users whose it is. OpIds that GC has purged can be used again, by others.
    Users(BTreeSet<Name>),
    /// Theirs, and a trusted caller sent it for the first other to whom it is shown.
    Somebody(BTreeSet<Name>),
}

/// Whose the names are that were sent to a workspace.
#[derive(Default)]
pub struct Secrets {
    holders: HashMap<(String, String), Holder>,
    pub names_shown: u64,
}

impl Secrets {
    /// `user` is `None` for a trusted caller; `is_new` if it was no replay.
    pub fn accepted(
        &mut self,
        workspace: &str,
        user: Option<Name>,
        op: &Op,
        is_new: bool,
    ) -> Result<()> {
        if op.table != DIARY {
            self.holders.insert((workspace.to_owned(), op.op_id.clone()), Holder::Everybody);
            return Ok(());
        }
        // Others that it names have their own users.
        let op = &Op { parent: None, base: None, expected: None, ..op.clone() };
        let item = Item { op: op.clone(), is_loose: false };
        for name in names_in(&item.json()) {
            let is_op_id = name == op.op_id;
            let nobodys = Holder::Somebody(BTreeSet::new());
            let holder =
                self.holders.entry((workspace.to_owned(), name.clone())).or_insert(nobodys);
            match (&mut *holder, user) {
                (Holder::Users(users), None) if is_op_id && is_new => {
                    *holder = Holder::Somebody(std::mem::take(users));
                }
                (Holder::Everybody, _) | (_, None) => {}
                (Holder::Somebody(users), Some(user)) => {
                    users.insert(user);
                    *holder = Holder::Users(std::mem::take(users));
                }
                (Holder::Users(users), Some(user)) => {
                    let is_another = users.insert(user);
                    if is_another && !is_op_id {
                        bail!("{name} is {users:?}'s, and was accepted from {user}: {op:?}");
                    }
                }
            }
        }
        Ok(())
    }

    /// A new workspace of the name has nothing of the old.
    pub fn dropped(&mut self, workspace: &str) {
        self.holders.retain(|(of, _), _| of != workspace);
    }

    /// What a user was shown of a workspace, but for the bases of patches, which may name
    /// what there never was, in a call in which they said `sent`.
    pub fn shown(&mut self, workspace: &str, user: Name, text: &str, sent: &str) -> Result<()> {
        let sent = names_in(sent);
        for name in names_in(&without_bases(text)) {
            self.names_shown += 1;
            if sent.contains(&name) {
                continue;
            }
            let Some(holder) = self.holders.get_mut(&(workspace.to_owned(), name.clone())) else {
                bail!("{user} was shown {name}, which was accepted from nobody: {text}");
            };
            match holder {
                Holder::Everybody => {}
                Holder::Users(users) | Holder::Somebody(users) if users.contains(user) => {}
                Holder::Somebody(users) => {
                    users.insert(user);
                    *holder = Holder::Users(std::mem::take(users));
                }
                Holder::Users(users) => bail!("{user} was shown {name} of {users:?}: {text}"),
            }
        }
        Ok(())
    }
}

fn without_bases(text: &str) -> String {
    let mut parts = text.split("\"base\":{");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + part.split_once('}').map_or(part, |(_, after)| after))
}

/// The names in a text, also in what a page token says in hexadecimal digits.
fn names_in(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '@' || c == '-';
    for word in text.split(|c| !is_part(c)) {
        let word = word.to_ascii_lowercase();
        if word.starts_with("5ec2e700-") || word.starts_with('d') && word.contains('@') {
            names.insert(word.clone());
        }
        names.extend(word.split('-').filter(|part| is_marker(part)).map(str::to_owned));
        if word.len() > 40
            && let Some(decoded) = decoded(&word)
        {
            names.append(&mut names_in(&decoded));
        }
    }
    names
}

fn is_marker(part: &str) -> bool {
    let digits = part.strip_prefix("md").and_then(|rest| rest.strip_suffix('m'));
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

fn decoded(digits: &str) -> Option<String> {
    let pairs = digits.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> =
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    String::from_utf8(bytes?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> Op {
        Op {
            table: DIARY,
            pk: pk(DIARY, 3, "w1"),
            delete: false,
            payload: Some(vec![("text", format!("\"{}\"", marker(DIARY, number)))]),
            clock: 1,
            hlc: format!("0-{}", marker(DIARY, number)),
            device: "dev".to_owned(),
            op_id: op_id(number),
            parent: None,
            base: None,
            expected: None,
        }
    }

    #[test]
    fn what_is_accepted_from_one_is_shown_to_no_other() {
        let mut secrets = Secrets::default();
        assert!(secrets.shown("w1", "ann", "md1m", "").is_err());
        assert!(secrets.shown("w1", "bob", "md1m", "md1m").is_ok());
        secrets.accepted("w1", Some("ann"), &entry(1), true).unwrap();
        for name in ["md1m", "d3@w1", &op_id(1)] {
            assert!(secrets.shown("w1", "ann", name, "").is_ok(), "{name}");
            assert!(secrets.shown("w1", "bob", name, "").is_err(), "{name}");
            assert!(secrets.shown("w2", "ann", name, "").is_err(), "{name}");
        }
        assert!(secrets.accepted("w1", Some("bob"), &entry(2), true).is_err());
        secrets.dropped("w1");
        assert!(secrets.shown("w1", "ann", "md1m", "").is_err());
        secrets.accepted("w1", Some("bob"), &entry(2), true).unwrap();
    }

    #[test]
    fn what_is_accepted_from_a_trusted_caller_is_for_one_user() {
        let mut secrets = Secrets::default();
        secrets.accepted("w1", None, &entry(1), true).unwrap();
        assert!(secrets.shown("w1", "bob", "md1m", "").is_ok());
        assert!(secrets.shown("w1", "ann", "md1m", "").is_err());
    }

    #[test]
    fn an_op_id_that_a_trusted_caller_uses_again_is_for_one_more() {
        let mut secrets = Secrets::default();
        secrets.accepted("w1", Some("ann"), &entry(1), true).unwrap();
        secrets.accepted("w1", None, &entry(1), false).unwrap();
        assert!(secrets.shown("w1", "bob", &op_id(1), "").is_err());
        secrets.accepted("w1", None, &entry(1), true).unwrap();
        assert!(secrets.shown("w1", "bob", "md1m", "").is_err());
        for user in ["ann", "bob", "bob"] {
            assert!(secrets.shown("w1", user, &op_id(1), "").is_ok(), "{user}");
        }
        assert!(secrets.shown("w1", "vic", &op_id(1), "").is_err());
    }

    #[test]
    fn names_are_found_wherever_they_stand() {
        let token: String =
            r#"{"s":"0123456789abcdef","k":"d7@w1"}"#.bytes().map(|b| format!("{b:02x}")).collect();
        let text = format!(
            r#"{{"pk":"d3@w1","stamp":{{"hlc":"2-md15m","deviceId":"dev-md16m","opId":"{}"}},"text":"md17m","t":"s1.00112233445566778899aabbccddeeff.{token}"}} x18 n4"#,
            op_id(19).to_uppercase()
        );
        let names: Vec<String> = names_in(&text).into_iter().collect();
        assert_eq!(names, [&op_id(19), "d3@w1", "d7@w1", "md15m", "md16m", "md17m"]);
    }
}
