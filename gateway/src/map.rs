//! Which server has which workspace: 1,024 buckets of a hash, and workspaces that are not
//! where their bucket is.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};

const BUCKETS: usize = 1024;

/// Servers are numbers: their places in DATABASE_URLS.
#[derive(Debug, PartialEq, Eq)]
pub struct Map {
    /// By bucket.
    servers: Vec<usize>,
    placed: HashMap<String, usize>,
}

/// The rows of the router's tables.
#[derive(Deserialize)]
pub struct Rows {
    buckets: Vec<(i64, i64)>,
    placed: Vec<(String, i64)>,
}

/// A file: the buckets of each server, by its name, as in `0-340, 512`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    buckets: BTreeMap<String, String>,
    #[serde(default)]
    placed: HashMap<String, String>,
}

/// The first 10 bits of the SHA-256 of the name, as `sync_ext.bucket_of` has them.
pub fn bucket_of(workspace_id: &str) -> usize {
    let hash = Sha256::digest(workspace_id.as_bytes());
    usize::from(hash[0]) << 2 | usize::from(hash[1]) >> 6
}

impl Map {
    pub fn server_of(&self, workspace_id: &str) -> usize {
        let placed = self.placed.get(workspace_id).copied();
        placed.unwrap_or_else(|| self.servers[bucket_of(workspace_id)])
    }

    pub fn placed(&self) -> usize {
        self.placed.len()
    }

    /// Of so many servers.
    pub fn of_rows(rows: Rows, servers: usize) -> Result<Map> {
        let number = |of: &str, shard: i64| {
            let number = usize::try_from(shard).ok().filter(|number| *number < servers);
            number.with_context(|| {
                format!(
                    "{of} is on shard {shard}, but DATABASE_URLS has shards 0 to {}",
                    servers - 1
                )
            })
        };
        let mut buckets = Buckets::default();
        for (bucket, shard) in rows.buckets {
            buckets.assign(bucket, number(&format!("bucket {bucket}"), shard)?)?;
        }
        let placed = rows.placed.into_iter().map(|(workspace_id, shard)| {
            let server = number(&format!("workspace {workspace_id:?}"), shard)?;
            Ok((workspace_id, server))
        });
        Ok(Map { servers: buckets.complete()?, placed: placed.collect::<Result<_>>()? })
    }

    /// Of the servers of these names.
    pub fn of_document(json: &str, names: &[&str]) -> Result<Map> {
        let document: Document = serde_json::from_str(json)?;
        let number = |name: &str| {
            let number = names.iter().position(|known| *known == name);
            number.with_context(|| format!("DATABASE_URLS has no server {name:?}"))
        };
        let mut buckets = Buckets::default();
        for (name, list) in &document.buckets {
            let server = number(name)?;
            for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let parsed = || Some((first.trim().parse().ok()?, last.trim().parse().ok()?));
                let (first, last): (i64, i64) =
                    parsed().with_context(|| format!("{range:?} is no range of buckets"))?;
                ensure!(first <= last, "{range:?} is no range of buckets");
                for bucket in first..=last {
                    buckets.assign(bucket, server)?;
                }
            }
        }
        let placed = document
            .placed
            .into_iter()
            .map(|(workspace_id, name)| Ok((workspace_id, number(&name)?)));
        Ok(Map { servers: buckets.complete()?, placed: placed.collect::<Result<_>>()? })
    }
}

/// Each bucket has one server.
struct Buckets(Vec<Option<usize>>);

impl Default for Buckets {
    fn default() -> Buckets {
        Buckets(vec![None; BUCKETS])
    }
}

impl Buckets {
    fn assign(&mut self, bucket: i64, server: usize) -> Result<()> {
        let Some(place) = usize::try_from(bucket).ok().and_then(|at| self.0.get_mut(at)) else {
            bail!("there is no bucket {bucket}");
        };
        ensure!(place.replace(server).is_none(), "bucket {bucket} is given twice");
        Ok(())
    }

    fn complete(self) -> Result<Vec<usize>> {
        let missing = self.0.iter().filter(|server| server.is_none()).count();
        let first = self.0.iter().position(Option::is_none);
        if let Some(first) = first {
            bail!("{missing} buckets have no server, the first is {first}");
        }
        Ok(self.0.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 2] = ["a", "b"];

    fn rows(buckets: impl Iterator<Item = (i64, i64)>, placed: &[(&str, i64)]) -> Rows {
        let placed = placed.iter().map(|(id, shard)| ((*id).to_owned(), *shard)).collect();
        Rows { buckets: buckets.collect(), placed }
    }

    #[test]
    fn buckets_are_the_first_bits_of_the_hash() {
        // SHA-256 of "" begins with e3b0, of "abc" with ba78.
        assert_eq!(bucket_of(""), 0xe3b0 >> 6);
        assert_eq!(bucket_of("abc"), 0xba78 >> 6);
    }

    #[test]
    fn a_workspace_is_where_it_is_placed_or_where_its_bucket_is() {
        let map = Map::of_rows(rows((0..1024).map(|b| (b, b % 2)), &[("abc", 0)]), 2).unwrap();
        assert_eq!((map.server_of(""), map.server_of("abc")), (bucket_of("") % 2, 0));
        assert_eq!(bucket_of("abc") % 2, 1);
        let same = Map::of_document(
            r#"{"buckets": {"a": "0-499, 501, 503-1023", "b": "500,502"}, "placed": {"": "b"}}"#,
            &NAMES,
        );
        let expected = (0..1024).map(|b| (b, i64::from(b == 500 || b == 502)));
        assert_eq!(same.unwrap(), Map::of_rows(rows(expected, &[("", 1)]), 2).unwrap());
    }

    #[test]
    fn rows_that_are_no_map_are_refused() {
        let all = || (0..1024).map(|b| (b, 0));
        for (rows, reason) in [
            (rows(all().skip(3), &[]), "3 buckets have no server, the first is 0"),
            (rows(all().chain([(7, 1)]), &[]), "bucket 7 is given twice"),
            (rows(all().chain([(1024, 0)]), &[]), "no bucket 1024"),
            (rows(all().chain([(-1, 0)]), &[]), "no bucket -1"),
            (rows(all().map(|(b, _)| (b, b / 1023 * 2)), &[]), "bucket 1023 is on shard 2"),
            (rows(all(), &[("w", -1)]), "workspace \"w\" is on shard -1"),
        ] {
            let refusal = Map::of_rows(rows, 2).unwrap_err().to_string();
            assert!(refusal.contains(reason), "{refusal}");
        }
    }

    #[test]
    fn a_file_that_is_no_map_is_refused() {
        for (json, reason) in [
            (r#"{"buckets": {"a": "0-1022"}}"#, "1 buckets have no server, the first is 1023"),
            (r#"{"buckets": {"a": "0-1023", "b": "5"}}"#, "bucket 5 is given twice"),
            (r#"{"buckets": {"a": "0-1024"}}"#, "no bucket 1024"),
            (r#"{"buckets": {"a": "0-1023", "c": ""}}"#, "no server \"c\""),
            (r#"{"buckets": {"a": "0-1023"}, "placed": {"w": "c"}}"#, "no server \"c\""),
            (r#"{"buckets": {"a": "all"}}"#, "\"all\" is no range"),
            (r#"{"buckets": {"a": "9-0"}}"#, "\"9-0\" is no range"),
            (r#"{"buckets": {}, "place": {}}"#, "unknown field `place`"),
            ("", "EOF"),
        ] {
            let refusal = Map::of_document(json, &NAMES).unwrap_err().to_string();
            assert!(refusal.contains(reason), "{json}: {refusal}");
        }
    }
}
