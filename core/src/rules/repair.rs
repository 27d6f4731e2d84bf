//! Comparing an attached table with its records, and bringing one to the other.

use thiserror::Error;

/// What a repair brings to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// The records become what the rows are.
    Log,
    /// The rows become what the records are.
    Table,
}

impl Toward {
    pub fn parse(word: Option<&str>) -> Result<Toward, RepairError> {
        match word {
            Some("log") => Ok(Toward::Log),
            Some("table") => Ok(Toward::Table),
            _ => Err(RepairError::Toward),
        }
    }
}

/// How a row and its record differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    MissingRecord,
    MissingRow,
    Different,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::MissingRecord => "missing_record",
            Kind::MissingRow => "missing_row",
            Kind::Different => "different",
        }
    }
}

/// Why a table is not compared, backfilled or repaired, unless it is no attached table of
/// the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RepairError {
    #[error("invalid toward")]
    Toward,
    #[error("rows are not backfilled")]
    NotBackfilled,
    #[error("invalid max_differences")]
    MaxDifferences,
    #[error("invalid position")]
    Position,
}

impl RepairError {
    pub fn sqlstate(self) -> &'static str {
        match self {
            RepairError::Toward | RepairError::MaxDifferences | RepairError::Position => "22023",
            RepairError::NotBackfilled => "55000",
        }
    }

    pub fn detail(self) -> Option<&'static str> {
        match self {
            RepairError::Toward => Some("toward must be log or table."),
            RepairError::MaxDifferences => Some("max_differences must be 0 or more."),
            RepairError::NotBackfilled => {
                Some("Rows that were there before the table was attached have no records.")
            }
            RepairError::Position => None,
        }
    }

    pub fn hint(self) -> Option<&'static str> {
        match self {
            RepairError::NotBackfilled => {
                Some("Call sync_backfill_table first: rows without records would be deleted.")
            }
            RepairError::Position => {
                Some("Pass the position of the last reply unchanged, or NULL.")
            }
            RepairError::Toward | RepairError::MaxDifferences => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repair_goes_one_of_two_ways() {
        assert_eq!(Toward::parse(Some("log")), Ok(Toward::Log));
        assert_eq!(Toward::parse(Some("table")), Ok(Toward::Table));
        for word in [None, Some(""), Some("Log"), Some("rows")] {
            assert_eq!(Toward::parse(word), Err(RepairError::Toward));
        }
    }
}
