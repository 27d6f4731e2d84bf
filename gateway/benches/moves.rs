//! The simulation of moves between three servers, with sessions through a gateway, in long
//! form: rounds of 15 seconds. The argument is the number of minutes, 3 by default.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use anyhow::Result;
use support::simulation;
use sync_ext_proof::common::tally::Tally;
use sync_ext_proof::moves;

const ROUND: Duration = Duration::from_secs(15);

fn main() -> Result<()> {
    let minutes = std::env::args().nth(1).and_then(|argument| argument.parse().ok()).unwrap_or(3);
    let servers = moves::start("gateway-moves-long")?;
    let (begun, mut tally) = (Instant::now(), Tally::default());
    for seed in 1.. {
        if begun.elapsed() >= Duration::from_secs(60 * minutes) {
            break;
        }
        tally.join(&simulation::run(&servers, seed, ROUND)?);
    }
    print!("{tally}");
    Ok(())
}
