//! Alternating measurement: every side runs once in every round, in an order
//! that rotates, so that what the machine does besides hits all alike.

use std::time::Instant;

use anyhow::Result;
use indicatif::ProgressBar;

use crate::report::Row;

/// Takes part in a workload: does the work of a round.
pub struct Side<'a> {
    pub name: &'static str,
    pub run: Box<dyn FnMut(usize) -> Result<()> + 'a>,
}

impl<'a> Side<'a> {
    pub fn new(name: &'static str, run: impl FnMut(usize) -> Result<()> + 'a) -> Side<'a> {
        Side { name, run: Box::new(run) }
    }
}

/// Microseconds per unit of work: a series of rounds for each side.
pub struct Series {
    names: Vec<&'static str>,
    times: Vec<Vec<f64>>,
}

/// Runs all sides for some rounds, after one that does not count. `work` is how
/// many ops or pages a side does in a round.
pub fn alternate(
    bar: &ProgressBar,
    rounds: usize,
    work: usize,
    mut sides: Vec<Side<'_>>,
) -> Result<Series> {
    let mut times = vec![Vec::new(); sides.len()];
    for round in 0..=rounds {
        for turn in 0..sides.len() {
            let place = (turn + round) % sides.len();
            let begun = Instant::now();
            (sides[place].run)(round)?;
            let micros = begun.elapsed().as_secs_f64() * 1e6 / work as f64;
            if round > 0 {
                times[place].push(micros);
            }
            bar.inc(1);
        }
    }
    Ok(Series { names: sides.iter().map(|side| side.name).collect(), times })
}

impl Series {
    /// `ours` against `base`, by the names of their sides.
    pub fn row(&self, name: &str, ours: &str, base: &str) -> Row {
        let (mine, theirs) = (self.of(ours), self.of(base));
        let ratios = mine.iter().zip(theirs).map(|(a, b)| a / b).collect();
        Row {
            name: name.to_owned(),
            unit: "us".to_owned(),
            ours: median(mine.to_vec()),
            base_name: base.to_owned(),
            base: median(theirs.to_vec()),
            ratio: median(ratios),
        }
    }

    fn of(&self, name: &str) -> &[f64] {
        let place = self.names.iter().position(|side| *side == name);
        place.map_or(&[], |place| &self.times[place])
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}
