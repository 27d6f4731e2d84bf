//! Proofs and page tokens as opaque text for clients.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ids::TableFilter;
use crate::rules::history::Proof;
use crate::rules::op::Version;

/// A proof: `p1.`, the head, and the digest in hexadecimal digits.
pub fn write_proof(proof: &Proof) -> String {
    format!("p1.{:x}.{}", proof.head.get(), proof.digest.simple())
}

/// `None` if [`write_proof`] cannot have written it.
pub fn read_proof(token: &str) -> Option<Proof> {
    let (head, digest) = token.strip_prefix("p1.")?.split_once('.')?;
    let head = Version::new(i64::from_str_radix(head, 16).ok()?)?;
    let digest = Uuid::try_parse(digest).ok()?;
    let proof = Proof { head, digest };
    (head > Version::ZERO && write_proof(&proof) == token).then_some(proof)
}

/// Where a snapshot continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPlace {
    pub snapshot_id: Uuid,
    pub watermark: Version,
    /// The last page's proof.
    pub proof: Proof,
    /// The last record listed.
    pub table: String,
    pub pk: String,
}

#[derive(Serialize, Deserialize)]
struct PageText {
    s: String,
    w: i64,
    p: String,
    t: String,
    k: String,
}

/// What a page token is bound to, so that a snapshot cannot continue with other
/// records.
#[derive(Clone, Copy)]
pub struct Binding<'b> {
    pub workspace_id: &'b str,
    /// `None` for a trusted caller.
    pub user: Option<&'b str>,
    pub tables: &'b TableFilter,
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
    };
    // Strings and a number: serializing cannot fail.
    let body = serde_json::to_string(&text).unwrap_or_default();
    format!("s1.{}.{}", digest(binding, &body).simple(), HEXLOWER.encode(body.as_bytes()))
}

/// Above the longest token: a table's name and a pk have 1,152 bytes together, each of
/// which may be an escape of six bytes, each written as two digits.
const MAX_PAGE_TOKEN_BYTES: usize = 16 * 1024;

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
    })
}

fn digest(binding: &Binding<'_>, body: &str) -> Uuid {
    let names = match binding.tables {
        TableFilter::All => None,
        TableFilter::Only(names) => Some(names),
    };
    // As JSON, so that two different bindings have different texts.
    let all = (binding.workspace_id, binding.user, names, body);
    let all = serde_json::to_string(&all).unwrap_or_default();
    Uuid::new_v5(&Uuid::NAMESPACE_OID, all.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof() -> Proof {
        Proof { head: Version::stored(300), digest: Uuid::from_u128(7) }
    }

    fn page() -> SnapshotPlace {
        SnapshotPlace {
            snapshot_id: Uuid::from_u128(1),
            watermark: Version::stored(5),
            proof: proof(),
            table: "t\"é".into(),
            pk: "p\\".into(),
        }
    }

    #[test]
    fn a_proof_reads_back() {
        assert_eq!(read_proof(&write_proof(&proof())), Some(proof()));
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
                &Binding { workspace_id: "w", user: None, tables: &TableFilter::All },
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
        let bound = Binding { workspace_id: "w", user: None, tables: &tables };
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
        let anns = Binding { user: Some("ann"), ..bound };
        let token = write_page(&page(), &anns);
        assert_eq!(read_page(&token, &anns), Some(page()));
        assert_eq!(read_page(&token, &Binding { user: Some("bob"), ..bound }), None);
        assert_eq!(read_page(&token, &bound), None);
    }
}
