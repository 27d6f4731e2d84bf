//! A history, and the shortest part of it that still fails.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow};

use super::tally::Tally;

/// How long a failing history is shortened before it is shown.
const SHORTENING: Duration = Duration::from_secs(120);

/// Plays a history. A failure shows what is said of it, and the shortest history
/// found that fails.
pub fn play<Step: Clone + Debug>(
    history: Vec<Step>,
    said: &str,
    mut play: impl FnMut(&[Step]) -> Result<Tally>,
) -> Result<Tally> {
    let failure = match play(&history) {
        Ok(mut tally) => {
            tally.add("histories", 1);
            return Ok(tally);
        }
        Err(failure) => failure,
    };
    let (shortest, failure) = shorten(history, failure, |shorter| play(shorter).map(drop));
    let steps: Vec<String> = shortest.iter().map(|step| format!("  {step:?}")).collect();
    Err(anyhow!(
        "{said}: {failure:#}\nshortest history found, {} steps:\n{}",
        steps.len(),
        steps.join("\n")
    ))
}

/// Leaves out what is not needed to fail: halves, quarters, ... single steps,
/// until each of them is.
fn shorten<Step: Clone>(
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
