//! Alternating measurement: every side runs once in every round, in an order
//! that is shuffled, so that what the machine does besides, and what one side
//! leaves behind for the next, hits all alike.

use std::time::Instant;

use anyhow::Result;
use indicatif::ProgressBar;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::report::Row;

/// Takes part in a workload: does the work of a round, gives its seconds.
pub struct Side<'a> {
    name: &'static str,
    run: Box<dyn FnMut(usize) -> Result<f64> + 'a>,
}

impl<'a> Side<'a> {
    pub fn new(name: &'static str, mut run: impl FnMut(usize) -> Result<()> + 'a) -> Side<'a> {
        Side::timing_itself(name, move |round| seconds(|| run(round)))
    }

    /// For a side whose preparations must not count.
    pub fn timing_itself(
        name: &'static str,
        run: impl FnMut(usize) -> Result<f64> + 'a,
    ) -> Side<'a> {
        Side { name, run: Box::new(run) }
    }
}

pub fn seconds(run: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    run()?;
    Ok(begun.elapsed().as_secs_f64())
}

/// What was measured: a series of rounds for each side.
pub struct Series {
    unit: &'static str,
    names: Vec<&'static str>,
    values: Vec<Vec<f64>>,
}

const SEED: u64 = 20_260_101;

/// Runs all sides for some rounds, after one that does not count: microseconds
/// per unit of work. `work` is how many ops or pages a side does in a round.
pub fn alternate(
    bar: &ProgressBar,
    rounds: usize,
    work: usize,
    mut sides: Vec<Side<'_>>,
) -> Result<Series> {
    bar.inc_length(((rounds + 1) * sides.len()) as u64);
    let mut values = vec![Vec::new(); sides.len()];
    let mut order: Vec<usize> = (0..sides.len()).collect();
    let mut random = StdRng::seed_from_u64(SEED);
    for round in 0..=rounds {
        order.shuffle(&mut random);
        for &place in &order {
            let micros = (sides[place].run)(round)? * 1e6 / work as f64;
            if round > 0 {
                values[place].push(micros);
            }
            bar.inc(1);
        }
    }
    Ok(Series { unit: "us", names: sides.iter().map(|side| side.name).collect(), values })
}

/// Calls that follow each other before the next side's turn.
const BURST: usize = 50;

/// The same for short calls, which take turns in bursts: how long they take
/// depends on how sleepy the machine is just then. A side is told the number of
/// the call, counted over all rounds.
pub fn take_turns(
    bar: &ProgressBar,
    rounds: usize,
    calls: usize,
    sides: Vec<Side<'_>>,
) -> Result<Series> {
    turns(bar, rounds, calls, sides, |times| times.iter().sum::<f64>() / times.len() as f64)
}

/// The same, of each round the median call: for small differences, which a few
/// calls that the machine interrupted would hide.
pub fn take_turns_by_median(
    bar: &ProgressBar,
    rounds: usize,
    calls: usize,
    sides: Vec<Side<'_>>,
) -> Result<Series> {
    turns(bar, rounds, calls, sides, median)
}

fn turns(
    bar: &ProgressBar,
    rounds: usize,
    calls: usize,
    mut sides: Vec<Side<'_>>,
    sum_up: impl Fn(Vec<f64>) -> f64,
) -> Result<Series> {
    bar.inc_length(rounds as u64 + 1);
    let mut values = vec![Vec::new(); sides.len()];
    for round in 0..=rounds {
        let mut times = vec![Vec::with_capacity(calls); sides.len()];
        for burst in 0..calls / BURST {
            for turn in 0..sides.len() {
                let place = (turn + burst) % sides.len();
                for call in burst * BURST..(burst + 1) * BURST {
                    times[place].push((sides[place].run)(round * calls + call)?);
                }
            }
        }
        if round > 0 {
            for (values, times) in values.iter_mut().zip(times) {
                values.push(sum_up(times) * 1e6);
            }
        }
        bar.inc(1);
    }
    Ok(Series { unit: "us", names: sides.iter().map(|side| side.name).collect(), values })
}

impl Series {
    /// What was measured otherwise, round by round.
    pub fn new(unit: &'static str, sides: [(&'static str, Vec<f64>); 2]) -> Series {
        let (names, values) = sides.into_iter().unzip();
        Series { unit, names, values }
    }

    /// `ours` against `base`, by the names of their sides.
    pub fn row(&self, name: &str, ours: &str, base: &str) -> Row {
        let (mine, theirs) = (self.of(ours), self.of(base));
        let ratios = mine.iter().zip(theirs).map(|(a, b)| a / b).collect();
        Row {
            name: name.to_owned(),
            unit: self.unit.to_owned(),
            ours: median(mine.to_vec()),
            base_name: base.to_owned(),
            base: median(theirs.to_vec()),
            ratio: median(ratios),
        }
    }

    fn of(&self, name: &str) -> &[f64] {
        let place = self.names.iter().position(|side| *side == name);
        place.map_or(&[], |place| &self.values[place])
    }
}

pub fn median(values: Vec<f64>) -> f64 {
    percentile(values, 0.5)
}

/// The value below which this share of them lies; between two neighbours where
/// it falls between them.
pub fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let place = share * last as f64;
    let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_between_neighbours() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(percentile(vec![1.0, 2.0, 3.0, 4.0, 5.0], 0.99), 4.96);
        assert!(median(Vec::new()).is_nan());
    }
}
