//! Ops that the server makes itself, of a change that no device pushed: their stamps.

use uuid::Uuid;

use super::merge::{Fields, RecordState};
use super::op::{Op, Revision};

/// The device that the server's own ops name.
pub const DEVICE: &str = "$server";

/// The highest clock that an op may have: a JSON number that every reader keeps exactly.
pub const MAX_CLOCK: i64 = (1 << 53) - 1;

/// The clock of an edit that has seen the record: 1 + the highest clock that is known of
/// it. The caller must have read the newest entry of a patched record.
pub fn next_clock(record: Option<&RecordState<'_>>) -> i64 {
    let Some(record) = record else { return 1 };
    let patches = record.fields().into_iter().flat_map(Fields::values);
    let highest = patches.map(|by| by.clock).fold(record.register.clock, i64::max);
    (highest + 1).min(MAX_CLOCK)
}

/// The revision of a server op before its record is known, see [`stamp`].
pub fn unstamped<'a>(op_id: Uuid) -> Revision<'a> {
    Revision { clock: 0, hlc: "".into(), op_id }
}

/// Completes an op as an edit that has seen the record: its clock, its hlc and the base of
/// a patch. The record's newest entry must have been read.
pub fn stamp(op: &mut Op<'_>, record: Option<&RecordState<'_>>, hlc: String) {
    op.revision.clock = next_clock(record);
    op.revision.hlc = hlc.into();
    if let (Some(patch), Some(record)) = (&mut op.patch, record) {
        patch.base = record.register.clone().into_owned();
    }
}

/// How the server writes its hlc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HlcStyle {
    /// 13 digits of milliseconds since 1970.
    Millis,
    /// The time in UTC as ISO 8601, with milliseconds.
    Iso,
}

/// The server's hlcs: each is above the one before, by bytes, however many are made
/// within a millisecond.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerClock {
    millis: i64,
    count: u32,
}

/// What four digits can count.
const COUNTS: u32 = 10_000;

impl ServerClock {
    pub const fn new() -> ServerClock {
        ServerClock { millis: 0, count: 0 }
    }

    /// `now` is in milliseconds since 1970.
    pub fn next(&mut self, style: HlcStyle, now: i64) -> String {
        if now > self.millis {
            (self.millis, self.count) = (now, 0);
        } else {
            self.count += 1;
        }
        if self.count == COUNTS {
            (self.millis, self.count) = (self.millis + 1, 0);
        }
        let count = self.count;
        match style {
            HlcStyle::Millis => format!("{:013}:{count:04}:{DEVICE}", self.millis),
            HlcStyle::Iso => format!("{}:{count:04}:{DEVICE}", iso(self.millis)),
        }
    }
}

/// Milliseconds since 1970 as `2026-01-02T03:04:05.678Z`.
fn iso(millis: i64) -> String {
    const DAY: i64 = 24 * 3600 * 1000;
    let (days, rest) = (millis.div_euclid(DAY), millis.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let (hours, minutes) = (rest / 3_600_000, rest / 60_000 % 60);
    let (seconds, thousandths) = (rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{thousandths:03}Z")
}

/// The Gregorian date, given days since 1970-01-01. Years begin in March, so that the
/// leap day is the last one; 400 years always have the same number of days.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_OF_400_YEARS: i64 = 146_097;
    const DAYS_FROM_MARCH_OF_YEAR_0: i64 = 719_468;
    let days = days + DAYS_FROM_MARCH_OF_YEAR_0;
    let (era, day_of_era) =
        (days.div_euclid(DAYS_OF_400_YEARS), days.rem_euclid(DAYS_OF_400_YEARS));
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, five months have 153 days.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + i64::from(month >= 10);
    (year, if month < 10 { month + 3 } else { month - 9 }, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::merge::{Turn, apply, turn};
    use crate::rules::model::{op, patch};
    use crate::rules::op::Version;

    fn after(ops: &[&Op<'static>]) -> Option<RecordState<'static>> {
        let mut record = None;
        for (place, op) in (1..).zip(ops) {
            let turn = turn(op, record.as_ref()).unwrap();
            apply(&mut record, op, &turn, None, None, Version::stored(place));
        }
        record
    }

    #[test]
    fn the_clock_is_above_the_register_and_the_patches() {
        assert_eq!(next_clock(None), 1);
        let put = op(1, "a", 4);
        assert_eq!(next_clock(after(&[&put]).as_ref()), 5);
        let (early, late) = (patch(2, &put, 9, &["x"]), patch(3, &put, 7, &["y"]));
        assert_eq!(next_clock(after(&[&put, &early, &late]).as_ref()), 10);
        assert_eq!(next_clock(after(&[&op(1, "a", MAX_CLOCK)]).as_ref()), MAX_CLOCK);
    }

    #[test]
    fn an_op_is_stamped_as_an_edit_that_has_seen_the_record() {
        let put = op(1, "a", 4);
        let early = patch(2, &put, 9, &["x"]);
        let record = after(&[&put, &early]);
        let mut late = patch(3, &op(7, "a", 1), 0, &["x"]);
        stamp(&mut late, record.as_ref(), "h".to_owned());
        assert_eq!((late.revision.clock, &*late.revision.hlc), (10, "h"));
        assert_eq!(late.base(), Some(&put.revision));
        assert_eq!(turn(&late, record.as_ref()), Ok(Turn::Merges { won: vec![true] }));

        let mut first = op(4, "b", 9);
        stamp(&mut first, None, "h".to_owned());
        assert_eq!(first.revision.clock, 1);
    }

    #[test]
    fn hlcs_rise_by_bytes_even_if_the_wall_clock_does_not() {
        for style in [HlcStyle::Millis, HlcStyle::Iso] {
            let mut clock = ServerClock::default();
            let mut last = String::new();
            for step in 0..30_000_i64 {
                let next = clock.next(style, if step < 15_000 { 9 } else { step % 7 });
                assert!(next > last, "{next} after {last}");
                last = next;
            }
        }
    }

    #[test]
    fn an_hlc_names_the_time() {
        // 1970, and the days around a leap day.
        for (millis, iso) in [
            (1, "1970-01-01T00:00:00.001Z:0000:$server"),
            (1_708_647_845_678, "2024-02-23T00:24:05.678Z:0000:$server"),
            (1_709_164_799_999, "2024-02-28T23:59:59.999Z:0000:$server"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z:0000:$server"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z:0000:$server"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z:0000:$server"),
        ] {
            assert_eq!(ServerClock::default().next(HlcStyle::Iso, millis), iso);
        }
        let millis = ServerClock::default().next(HlcStyle::Millis, 1_708_647_845_678);
        assert_eq!(millis, "1708647845678:0000:$server");
    }
}
