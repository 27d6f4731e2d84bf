//! The simulation of an app with typed tables in short form. A failure prints its seed and
//! the shortest history found that fails.

use sync_ext_proof::common::tally::Tally;
use sync_ext_proof::typed;

const SEEDS: std::ops::Range<u64> = 0..24;
const STEPS: usize = 80;

#[test]
fn rows_log_and_replies_are_what_the_model_says() {
    let cluster = typed::start("typed").unwrap();
    let mut total = Tally::default();
    for seed in SEEDS {
        match typed::run(&cluster, seed, STEPS) {
            Ok(tally) => total.join(&tally),
            Err(violation) => panic!("{violation:#}"),
        }
    }
    print!("{total}");
    for (what, least) in [
        ("ops applied", 500),
        ("ops replayed", 50),
        ("ops whose row differs from their payload", 200),
        ("ops captured by commits", 200),
        ("ops captured by pushes", 20),
        ("ops refused: foreign key", 50),
        ("ops refused: UNIQUE", 5),
        ("ops refused: by a trigger", 5),
        ("differences that capture did not see", 30),
        ("rollbacks to savepoints", 10),
        ("tombstones purged", 5),
    ] {
        assert!(total.count(what) >= least, "{what}: fewer than {least}");
    }
}
