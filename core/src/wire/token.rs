//! Proofs and page tokens as opaque text for clients.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ids::{Scopes, TableFilter};
use crate::rules::history::{Following, Proof};
use crate::rules::op::Version;

/// A proof as its reader has it: what was read, and of which scopes; `None` for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadProof {
    pub proof: Proof,
    pub following: Option<Following>,
}

impl Following {
    pub fn of(scopes: &Scopes, epoch: i64) -> Following {
        // As JSON, so that two different lists have different texts.
        let names = serde_json::to_string(scopes.names()).unwrap_or_default();
        Following { list: Uuid::new_v5(&Uuid::NAMESPACE_OID, names.as_bytes()), epoch }
    }
}

/// A proof: `p1.`, the head, and the digest in hexadecimal digits. With scopes `p2.`, and
/// after these the digest of the list, and the epoch.
pub fn write_proof(read: &ReadProof) -> String {
    let ReadProof { proof: Proof { head, digest }, following } = read;
    let (head, digest) = (head.get(), digest.simple());
    match following {
        None => format!("p1.{head:x}.{digest}"),
        Some(Following { list, epoch }) => {
            format!("p2.{head:x}.{digest}.{}.{epoch:x}", list.simple())
        }
    }
}

/// `None` if [`write_proof`] cannot have written it.
pub fn read_proof(token: &str) -> Option<ReadProof> {
    let mut parts = token.split('.');
    let kind = parts.next()?;
    let head = Version::new(i64::from_str_radix(parts.next()?, 16).ok()?)?;
    let digest = Uuid::try_parse(parts.next()?).ok()?;
    let following = match kind {
        "p2" => Some(Following {
            list: Uuid::try_parse(parts.next()?).ok()?,
            epoch: i64::from_str_radix(parts.next()?, 16).ok()?,
        }),
        _ => None,
    };
    let read = ReadProof { proof: Proof { head, digest }, following };
    (head > Version::ZERO && write_proof(&read) == token).then_some(read)
}

/// Where a snapshot continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPlace {
    pub snapshot_id: Uuid,
    pub watermark: Version,
    /// The last page's proof.
    pub proof: ReadProof,
    /// The last record listed, and the scope in which it was found.
    pub table: String,
    pub pk: String,
    pub scope: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct PageText {
    s: String,
    w: i64,
    p: String,
    t: String,
    k: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    c: Option<String>,
}

/// What a page token is bound to, so that a snapshot cannot continue with other
/// records.
#[derive(Clone, Copy)]
pub struct Binding<'b> {
    pub workspace_id: &'b str,
    /// `None` for a trusted caller.
    pub user: Option<&'b str>,
    pub tables: &'b TableFilter,
    pub scopes: Option<&'b Scopes>,
    pub have: Option<&'b Scopes>,
}

/// A page token: `s1.`, a digest that binds it to workspace, user and filter, and the
/// page as JSON in hexadecimal digits.
///
/// It is not secret and grants no rights: every page is checked and filtered by itself,
/// so a forged token gives its author nothing that a genuine one would not.
pub fn write_page(page: &SnapshotPlace, binding: &Binding<'_>) -> String {
    let text = PageText {
        s: page.snapshot_id.simple().to_string(),
        w: page.watermark.get(),
        p: write_proof(&page.proof),
        t: page.table.clone(),
        k: page.pk.clone(),
        c: page.scope.clone(),
    };
    // Strings and a number: serializing cannot fail.
    let body = serde_json::to_string(&text).unwrap_or_default();
    format!("s1.{}.{}", digest(binding, &body).simple(), HEXLOWER.encode(body.as_bytes()))
}

/// Above the longest token: a table's name, a pk and a scope have 1,408 bytes together, each
/// of which may be an escape of six bytes, each written as two digits.
const MAX_PAGE_TOKEN_BYTES: usize = 18 * 1024;

/// `None` for a token of another workspace, user or filter, or if [`write_page`] cannot
/// have written it.
pub fn read_page(token: &str, binding: &Binding<'_>) -> Option<SnapshotPlace> {
    if token.len() > MAX_PAGE_TOKEN_BYTES {
        return None;
    }
    let (bound, digits) = token.strip_prefix("s1.")?.split_once('.')?;
    let body = String::from_utf8(HEXLOWER.decode(digits.as_bytes()).ok()?).ok()?;
    if digest(binding, &body).simple().to_string() != bound {
        return None;
    }
    let text: PageText = serde_json::from_str(&body).ok()?;
    Some(SnapshotPlace {
        snapshot_id: Uuid::try_parse(&text.s).ok()?,
        watermark: Version::new(text.w)?,
        proof: read_proof(&text.p)?,
        table: text.t,
        pk: text.k,
        scope: text.c,
    })
}

fn digest(binding: &Binding<'_>, body: &str) -> Uuid {
    let names = match binding.tables {
        TableFilter::All => None,
        TableFilter::Only(names) => Some(names),
    };
    // As JSON, so that two different bindings have different texts.
    let all = (binding.workspace_id, binding.user, names, body);
    let all = match binding.scopes {
        None => serde_json::to_string(&all),
        Some(scopes) => {
            serde_json::to_string(&(all, scopes.names(), binding.have.map(Scopes::names)))
        }
    };
    let all = all.unwrap_or_default();
    Uuid::new_v5(&Uuid::NAMESPACE_OID, all.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof() -> ReadProof {
        let proof = Proof { head: Version::stored(300), digest: Uuid::from_u128(7) };
        ReadProof { proof, following: None }
    }

    fn scopes(names: &[&str]) -> Scopes {
        Scopes::new(names.len(), names.iter().copied().map(Some)).unwrap()
    }

    fn page() -> SnapshotPlace {
        SnapshotPlace {
            snapshot_id: Uuid::from_u128(1),
            watermark: Version::stored(5),
            proof: proof(),
            table: "t\"é".into(),
            pk: "p\\".into(),
            scope: None,
        }
    }

    #[test]
    fn a_proof_reads_back() {
        assert_eq!(read_proof(&write_proof(&proof())), Some(proof()));
        let following = Following::of(&scopes(&["a"]), 10);
        let scoped = ReadProof { following: Some(following), ..proof() };
        let token = write_proof(&scoped);
        assert_eq!(read_proof(&token), Some(scoped));
        assert_eq!(read_proof(&token.replace("p2", "p1")), None);
        assert_eq!(read_proof(&write_proof(&proof()).replace("p1", "p2")), None);
        assert_eq!(read_proof(token.rsplit_once('.').unwrap().0), None);
    }

    #[test]
    fn a_list_is_known_by_its_names_in_any_order() {
        let list = |names| Following::of(&scopes(names), 0).list;
        assert_eq!(list(&["a", "b"]), list(&["b", "a", "b"]));
        assert_ne!(list(&["a", "b"]), list(&["ab"]));
        assert_ne!(list(&[]), list(&[""]));
    }

    #[test]
    fn a_foreign_token_is_recognized() {
        let good = write_proof(&proof());
        for bad in [
            "",
            "p1.",
            "p1..",
            "x",
            &good[1..],
            &good[..good.len() - 1],
            &good.to_uppercase(),
            &format!("{good} "),
            &good.replace("12c", "012c"),
            &good.replace("12c", "-12c"),
            &good.replace("12c", "0"),
            &good.replace("12c", "fffffffffffffffff"),
            &good.replace("p1", "p2"),
            &write_page(
                &page(),
                &Binding {
                    workspace_id: "w",
                    user: None,
                    tables: &TableFilter::All,
                    scopes: None,
                    have: None,
                },
            ),
        ] {
            assert_eq!(read_proof(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_page_token_is_bound_to_its_workspace_user_and_filter() {
        let only = |names: &[&str]| {
            TableFilter::new(names.len(), names.iter().copied().map(Some)).unwrap()
        };
        let (same, fewer, joined) = (only(&["b", "a", "a"]), only(&["a"]), only(&["ab"]));
        let tables = only(&["a", "b"]);
        let bound =
            Binding { workspace_id: "w", user: None, tables: &tables, scopes: None, have: None };
        let token = write_page(&page(), &bound);
        assert_eq!(read_page(&token, &Binding { tables: &same, ..bound }), Some(page()));
        assert_eq!(read_page(&token, &Binding { workspace_id: "v", ..bound }), None);
        assert_eq!(read_page(&token, &Binding { user: Some("ann"), ..bound }), None);
        for other in [&fewer, &joined, &TableFilter::All] {
            assert_eq!(read_page(&token, &Binding { tables: other, ..bound }), None);
        }
        assert_eq!(read_page(&token.replace('7', "8"), &bound), None);
        for bad in ["", "s1.", "s1.x.y", "é", &token[..token.len() - 1], &write_proof(&proof())] {
            assert_eq!(read_page(bad, &bound), None, "{bad}");
        }
        let longest =
            SnapshotPlace { table: "\u{1}".repeat(128), pk: "\u{1}".repeat(1024), ..page() };
        let token = write_page(&longest, &bound);
        assert_eq!(read_page(&token, &bound), Some(longest), "of {} bytes", token.len());
        let (a, b) = (scopes(&["a"]), scopes(&["b"]));
        let scoped = Binding { scopes: Some(&a), have: Some(&b), ..bound };
        let token = write_page(&SnapshotPlace { scope: Some("a".into()), ..page() }, &scoped);
        assert_eq!(read_page(&token, &scoped).unwrap().scope.unwrap(), "a");
        for other in [
            bound,
            Binding { have: None, ..scoped },
            Binding { have: Some(&a), ..scoped },
            Binding { scopes: Some(&b), ..scoped },
        ] {
            assert_eq!(read_page(&token, &other), None);
        }
        let anns = Binding { user: Some("ann"), ..bound };
        let token = write_page(&page(), &anns);
        assert_eq!(read_page(&token, &anns), Some(page()));
        assert_eq!(read_page(&token, &Binding { user: Some("bob"), ..bound }), None);
        assert_eq!(read_page(&token, &bound), None);
    }
}
