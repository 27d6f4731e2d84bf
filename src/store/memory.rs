//! Memory that Rust will need. A collection that cannot grow aborts the process,
//! and with it the server; so calls ask before, and a call that cannot have the
//! memory fails alone.

use std::hint::black_box;
use std::ptr::null_mut;

use crate::error::SyncError;

/// More than any call takes besides what it asks for.
pub const FOR_ANY_CALL: usize = 64 * 1024;

/// An error unless `bytes` can be had now. They are free again afterwards, for
/// this call to take: a backend has one thread.
pub fn require(bytes: usize) -> Result<(), SyncError> {
    if can_have(bytes) { Ok(()) } else { Err(SyncError::OutOfMemory) }
}

/// Adds to a list whose length is not known beforehand.
pub fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), SyncError> {
    list.try_reserve(1).map_err(|_| SyncError::OutOfMemory)?;
    list.push(item);
    Ok(())
}

fn can_have(bytes: usize) -> bool {
    if bytes <= FOR_ANY_CALL {
        let mut room: Vec<u8> = Vec::new();
        let can = room.try_reserve_exact(black_box(bytes)).is_ok();
        black_box(&room);
        return can;
    }
    // Not by the allocator: what it once gave back so large, it would from then on
    // take from its heap, and keep.
    // SAFETY: new pages that nobody touches, taken back at once.
    unsafe {
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let room = libc::mmap(null_mut(), bytes, access, kind, -1, 0);
        room != libc::MAP_FAILED && libc::munmap(room, bytes) == 0
    }
}
