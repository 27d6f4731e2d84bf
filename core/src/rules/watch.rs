//! When GC has to look at a workspace, so that a call for all workspaces looks only at those in
//! which something may be due.
//!
//! Each workspace has three marks. A mark is a time, not a deadline, because the spans are
//! settings. It is a lower bound: what it stands for may be younger, and then GC raises it
//! when it looks. GC has to look when a mark is old enough.

use super::history::Progress;
use super::op::Timestamp;
use super::retention::Deadlines;

/// A mark that is always old enough; -infinity in Postgres. Workspaces begin with it.
pub const LOOK: Timestamp = Timestamp::MIN;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// No entry that GC has not read is older. `None` if there is none but the head, or if GC
    /// waits for devices.
    pub unread_since: Option<Timestamp>,
    /// The heartbeat of a device that pins the workspace; `None` if none does.
    pub pinned_since: Option<Timestamp>,
    /// No heartbeat of a device is older.
    pub devices_since: Option<Timestamp>,
}

/// What GC leaves unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Only the entry at the head.
    Nothing,
    /// The first entry is from then, which is too young.
    Young(Timestamp),
    /// Entries that it may read: the call has ended before.
    Due,
    /// Entries that devices have still to see.
    Pinned(Pin),
}

/// What is known of the devices that pin a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The heartbeat of one of them.
    pub heartbeat: Timestamp,
    /// If that one moves, its acknowledgement will say so.
    pub is_certain: bool,
}

impl Watch {
    /// A push has made entries readable, where none were.
    pub fn after_push(self, progress: Progress) -> Watch {
        let is_unwatched = self.unread_since.is_none() && self.pinned_since.is_none();
        match is_unwatched && progress.has_unread() {
            true => Watch { unread_since: Some(LOOK), ..self },
            false => self,
        }
    }

    /// GC has looked. `oldest` is the oldest heartbeat of the remaining devices, or now.
    pub fn after_look(self, unread: Unread, oldest: Timestamp, deadlines: &Deadlines) -> Watch {
        // A mark that still holds stays, so that the row's indexes do not change.
        let raised = |mark: Option<Timestamp>, until: Timestamp, to: Timestamp| match mark {
            Some(mark) if mark > until && mark <= to => mark,
            _ => to,
        };
        let is_due = |mark: &Timestamp| *mark <= deadlines.old();
        let still_due = self.unread_since.filter(is_due).unwrap_or(LOOK);
        let unread_since = match unread {
            Unread::Nothing | Unread::Pinned(Pin { is_certain: true, .. }) => None,
            Unread::Young(since) => Some(raised(self.unread_since, deadlines.old(), since)),
            Unread::Due | Unread::Pinned(_) => Some(still_due),
        };
        let pinned_since = match unread {
            Unread::Pinned(pin) => {
                Some(raised(self.pinned_since, deadlines.silent(), pin.heartbeat))
            }
            _ => None,
        };
        let devices_since = Some(raised(self.devices_since, deadlines.forgotten(), oldest));
        Watch { unread_since, pinned_since, devices_since }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::op::Version;

    const DEADLINES: Deadlines = Deadlines { now: 1000, retention: 100, device_ttl: 300 };

    fn progress(head: i64, gc_through: i64) -> Progress {
        let (head, gc_through) = (Version::stored(head), Version::stored(gc_through));
        Progress { head, horizon: Version::ZERO, gc_through }
    }

    fn watch(unread: Option<i64>, pinned: Option<i64>, devices: i64) -> Watch {
        Watch { unread_since: unread, pinned_since: pinned, devices_since: Some(devices) }
    }

    #[test]
    fn a_push_marks_a_workspace_of_which_everything_was_read() {
        let marked = watch(Some(LOOK), None, 900);
        let (read, held) = (watch(None, None, 900), watch(None, Some(950), 900));
        assert_eq!(read.after_push(progress(7, 5)), marked);
        assert_eq!(read.after_push(progress(6, 5)), read, "only the head is unread");
        assert_eq!(read.after_push(progress(1, 0)), read);
        assert_eq!(held.after_push(progress(9, 5)), held, "it waits for a device");
        let young = watch(Some(950), None, 900);
        assert_eq!(young.after_push(progress(9, 5)), young);
    }

    #[test]
    fn a_look_leaves_the_mark_of_what_is_unread() {
        let after = |before: Option<i64>, unread| {
            watch(before, None, 900).after_look(unread, 900, &DEADLINES).unread_since
        };
        assert_eq!(after(Some(LOOK), Unread::Nothing), None);
        assert_eq!(after(Some(LOOK), Unread::Young(950)), Some(950));
        assert_eq!(after(Some(900), Unread::Young(950)), Some(950), "exactly old enough");
        assert_eq!(after(Some(901), Unread::Young(950)), Some(901), "a lower bound stays");
        assert_eq!(after(Some(960), Unread::Young(950)), Some(950), "what is none does not");
        assert_eq!(after(Some(800), Unread::Due), Some(800));
        assert_eq!(after(Some(950), Unread::Due), Some(LOOK));
        assert_eq!(after(None, Unread::Due), Some(LOOK));
    }

    #[test]
    fn a_pinned_workspace_leaves_the_list_once_its_device_will_say_that_it_moves() {
        let after = |before: Option<i64>, is_certain| {
            let pin = Pin { heartbeat: 990, is_certain };
            let before = watch(Some(800), before, 900);
            let after = before.after_look(Unread::Pinned(pin), 900, &DEADLINES);
            (after.unread_since, after.pinned_since)
        };
        assert_eq!(after(None, false), (Some(800), Some(990)));
        assert_eq!(after(Some(980), true), (None, Some(980)));
        assert_eq!(after(Some(700), true), (None, Some(990)), "exactly silent");
        assert_eq!(after(Some(995), true), (None, Some(990)), "of another device");
        let free = watch(None, Some(980), 900).after_look(Unread::Nothing, 900, &DEADLINES);
        assert_eq!(free, watch(None, None, 900));
    }

    #[test]
    fn the_oldest_heartbeat_is_raised_when_it_may_be_forgotten() {
        let after = |before: Option<i64>| {
            let before = Watch { devices_since: before, ..Watch::default() };
            before.after_look(Unread::Nothing, 950, &DEADLINES).devices_since
        };
        assert_eq!(after(Some(LOOK)), Some(950));
        assert_eq!(after(Some(400)), Some(950), "exactly to be forgotten");
        assert_eq!(after(Some(401)), Some(401));
        assert_eq!(after(None), Some(950));
    }
}
