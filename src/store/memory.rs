//! Memory that Rust will need. A collection that cannot grow aborts the process, and
//! with it the server; so calls check first, and a call without enough memory fails
//! alone.

use std::hint::black_box;
use std::ptr::null_mut;

use sync_ext_core::error::SyncError;

/// More than any call takes besides what it requires.
pub const FOR_ANY_CALL: usize = 64 * 1024;

/// An error unless `bytes` are available now. They are then free for this call to take,
/// because a backend has one thread.
pub fn require(bytes: usize) -> Result<(), SyncError> {
    if can_have(bytes) { Ok(()) } else { Err(SyncError::OutOfMemory) }
}

/// Adds to a list whose length is not known in advance.
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
    // Not with the allocator: after freeing such a large block, it would take later
    // ones from its heap and keep them.
    // SAFETY: new pages that are not used, unmapped at once.
    unsafe {
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let room = libc::mmap(null_mut(), bytes, access, kind, -1, 0);
        room != libc::MAP_FAILED && libc::munmap(room, bytes) == 0
    }
}
