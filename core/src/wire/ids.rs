//! Names that callers pass as SQL arguments; they can be made only through validation.

use crate::error::SyncError;

/// A workspace's name, 1 to 256 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkspaceId<'a>(&'a str);

impl<'a> WorkspaceId<'a> {
    pub fn new(text: Option<&'a str>) -> Result<Self, SyncError> {
        bounded(text, 256).map(WorkspaceId).ok_or(SyncError::WorkspaceId)
    }

    pub fn as_str(self) -> &'a str {
        self.0
    }
}

/// A device's name, 1 to 256 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceId<'a>(&'a str);

impl<'a> DeviceId<'a> {
    pub fn new(text: Option<&'a str>) -> Result<Self, SyncError> {
        bounded(text, 256).map(DeviceId).ok_or(SyncError::DeviceId)
    }

    pub fn as_str(self) -> &'a str {
        self.0
    }
}

/// A user's name, 1 to 256 bytes without NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserId<'a>(&'a str);

impl<'a> UserId<'a> {
    pub fn new(text: Option<&'a str>) -> Result<Self, SyncError> {
        let text = bounded(text, 256).filter(|text| !text.contains('\0'));
        text.map(UserId).ok_or(SyncError::UserId)
    }

    pub fn as_str(self) -> &'a str {
        self.0
    }
}

/// The name of a synced table or of one of its fields, 1 to 128 bytes.
pub fn registry_name<'a>(
    text: Option<&'a str>,
    argument: &'static str,
) -> Result<&'a str, SyncError> {
    bounded(text, 128).ok_or(SyncError::RegistryName { argument })
}

fn bounded(text: Option<&str>, max: usize) -> Option<&str> {
    text.filter(|text| (1..=max).contains(&text.len()))
}

const MAX_TABLE_BYTES: usize = 128;

/// The maximum of names in a filter.
pub const MAX_TABLES: usize = 1000;

/// The tables that a reader wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableFilter {
    All,
    /// Sorted by bytes, without duplicates; an empty list matches nothing.
    Only(Vec<String>),
}

impl TableFilter {
    /// A filter of `count` names; 0 selects all tables. NULL and invalid table names
    /// match nothing.
    pub fn new<'n>(
        count: usize,
        names: impl IntoIterator<Item = Option<&'n str>>,
    ) -> Result<TableFilter, SyncError> {
        if count > MAX_TABLES {
            return Err(SyncError::TooManyTables { given: count, max: MAX_TABLES });
        }
        if count == 0 {
            return Ok(TableFilter::All);
        }
        let names = names.into_iter().flatten().filter(|name| name.len() <= MAX_TABLE_BYTES);
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        Ok(TableFilter::Only(names))
    }

    pub fn matches(&self, table: &str) -> bool {
        match self {
            TableFilter::All => true,
            TableFilter::Only(names) => {
                names.binary_search_by(|name| name.as_str().cmp(table)).is_ok()
            }
        }
    }
}

/// The longest scope, in bytes.
pub const MAX_SCOPE_BYTES: usize = 256;

/// The maximum of scopes in a list.
pub const MAX_SCOPES: usize = 1000;

/// The scopes that a reader follows: sorted by bytes, without duplicates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes(Vec<String>);

impl Scopes {
    /// A list of `count` names. NULLs and names that no record can have match nothing.
    pub fn new<'n>(
        count: usize,
        names: impl IntoIterator<Item = Option<&'n str>>,
    ) -> Result<Scopes, SyncError> {
        if count > MAX_SCOPES {
            return Err(SyncError::TooManyScopes { given: count, max: MAX_SCOPES });
        }
        let names = names.into_iter().flatten().filter(|name| name.len() <= MAX_SCOPE_BYTES);
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        Ok(Scopes(names))
    }

    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Is a record with this scope inside? One without a scope is not.
    pub fn contain(&self, scope: Option<&str>) -> bool {
        scope.is_some_and(|scope| self.0.binary_search_by(|name| name.as_str().cmp(scope)).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_in_bytes() {
        assert!(WorkspaceId::new(Some(&"é".repeat(128))).is_ok());
        assert!(WorkspaceId::new(Some(&"é".repeat(129))).is_err());
        assert!(WorkspaceId::new(Some("")).is_err());
        assert!(WorkspaceId::new(None).is_err());
        assert_eq!(WorkspaceId::new(Some("w")).unwrap().as_str(), "w");
        assert_eq!(DeviceId::new(Some("d")).unwrap().as_str(), "d");
        assert!(DeviceId::new(Some(&"d".repeat(256))).is_ok());
        assert!(DeviceId::new(Some(&"d".repeat(257))).is_err());
        assert!(DeviceId::new(Some("")).is_err());
        assert!(DeviceId::new(None).is_err());
        assert_eq!(UserId::new(Some("u")).unwrap().as_str(), "u");
        assert!(UserId::new(Some(&"u".repeat(256))).is_ok());
        assert!(UserId::new(Some(&"u".repeat(257))).is_err());
        assert!(UserId::new(Some("")).is_err() && UserId::new(Some("a\0")).is_err());
        assert!(UserId::new(None).is_err());
        assert_eq!(registry_name(Some("t"), "table_name").unwrap(), "t");
        assert!(registry_name(Some(&"a".repeat(128)), "table_name").is_ok());
        assert!(registry_name(Some(&"a".repeat(129)), "table_name").is_err());
    }

    #[test]
    fn a_filter_of_nothing_is_not_an_empty_filter() {
        let filter =
            |names: &[Option<&str>]| TableFilter::new(names.len(), names.iter().copied()).unwrap();
        assert_eq!(filter(&[]), TableFilter::All);
        assert!(!filter(&[None]).matches("a"));
        let (longest, longer) = ("a".repeat(128), "a".repeat(129));
        let filter = filter(&[Some("b"), None, Some("a"), Some(&longer), Some(&longest)]);
        assert!(filter.matches("a") && filter.matches("b") && !filter.matches("c"));
        assert!(filter.matches(&longest) && !filter.matches(&longer));
    }

    #[test]
    fn a_filter_has_at_most_a_thousand_names() {
        assert!(TableFilter::new(1000, [Some("a")]).is_ok());
        let refused = TableFilter::new(1001, std::iter::from_fn(|| unreachable!("not read")));
        assert!(matches!(refused, Err(SyncError::TooManyTables { given: 1001, max: 1000 })));
    }
}
