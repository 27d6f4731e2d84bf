//! The simulator in short form. A failure prints its seed and the shortest
//! history found that fails.

use sync_ext_proof::simulation;
use sync_ext_proof::tally::Tally;

const SEEDS: std::ops::Range<u64> = 0..12;
const STEPS: usize = 400;

#[test]
fn every_history_is_what_the_model_foretells() {
    let mut cluster = simulation::start("simulation").unwrap();
    let mut total = Tally::default();
    for seed in SEEDS {
        match simulation::run(&mut cluster, seed, STEPS) {
            Ok(tally) => total.join(&tally),
            Err(violation) => panic!("{violation:#}"),
        }
    }
    print!("{total}");
}
