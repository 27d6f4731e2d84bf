//! The shortest part of a history that still fails.

use std::time::{Duration, Instant};

use anyhow::{Error, Result};

/// How long a failing history is shortened before it is told.
const SHORTENING: Duration = Duration::from_secs(120);

/// Leaves out what is not needed to fail: halves, quarters, ... single steps,
/// until each of them is.
pub fn shorten<Step: Clone>(
    mut history: Vec<Step>,
    mut failure: Error,
    mut play: impl FnMut(&[Step]) -> Result<()>,
) -> (Vec<Step>, Error) {
    let deadline = Instant::now() + SHORTENING;
    let mut size = history.len().div_ceil(2);
    loop {
        let (mut start, before) = (0, history.len());
        while start < history.len() && Instant::now() < deadline {
            let mut shorter = history.clone();
            shorter.drain(start..(start + size).min(history.len()));
            match play(&shorter) {
                Ok(()) => start += size,
                Err(error) => (history, failure) = (shorter, error),
            }
        }
        if size <= 1 && history.len() == before || Instant::now() >= deadline {
            return (history, failure);
        }
        size = size.div_ceil(2);
    }
}
