//! The text of a reply.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

use crate::error::SyncError;

/// Text under construction. Its memory is kept for the next reply: a page of changes
/// takes a megabyte, and fresh memory pages cost as much as reading the rows.
pub struct Reply(String);

/// The memory that a backend keeps between calls.
const MAX_SPARE_BYTES: usize = 2 * 1024 * 1024;

thread_local! {
    static SPARE: Cell<String> = const { Cell::new(String::new()) };
}

/// Slightly less than the largest value that Postgres can hold.
const MAX_BYTES: usize = 1_000_000_000;

impl Reply {
    pub fn empty() -> Reply {
        Reply(SPARE.take())
    }

    /// Reserves memory for this many bytes, which can then be written without
    /// allocating: a failing allocation would abort the server.
    pub fn make_room(&mut self, bytes: usize) -> Result<(), SyncError> {
        if bytes > MAX_BYTES.saturating_sub(self.0.len()) {
            return Err(SyncError::ReplyTooLarge { max: MAX_BYTES });
        }
        self.0.try_reserve(bytes).map_err(|_| SyncError::OutOfMemory)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.0.capacity() <= MAX_SPARE_BYTES {
            self.0.clear();
            SPARE.set(std::mem::take(&mut self.0));
        }
    }
}

impl Deref for Reply {
    type Target = String;

    fn deref(&self) -> &String {
        &self.0
    }
}

impl DerefMut for Reply {
    fn deref_mut(&mut self) -> &mut String {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_begins_empty_in_the_memory_of_the_last_one() {
        let mut reply = Reply::empty();
        reply.push_str("{}");
        drop(reply);
        let reply = Reply::empty();
        assert_eq!(reply.as_str(), "");
        assert!(reply.capacity() >= 2, "in the memory of the last one");
    }

    #[test]
    fn a_reply_may_have_a_billion_bytes_and_no_more() {
        let room = |bytes| Reply(String::new()).make_room(bytes);
        assert!(room(1_000_000_000).is_ok());
        assert!(matches!(room(1_000_000_001), Err(SyncError::ReplyTooLarge { .. })));
        let mut reply = Reply("{}".to_owned());
        assert!(matches!(reply.make_room(999_999_999), Err(SyncError::ReplyTooLarge { .. })));
        assert!(reply.make_room(100).is_ok() && reply.capacity() >= 102);
    }

    #[test]
    fn a_reply_of_two_megabytes_is_kept_and_a_larger_one_is_not() {
        for (bytes, is_kept) in [(2_097_152, true), (2_097_153, false)] {
            let mut reply = Reply::empty();
            *reply = String::with_capacity(bytes);
            drop(reply);
            assert_eq!(Reply::empty().capacity() == bytes, is_kept, "{bytes}");
        }
    }
}
