//! Workspaces that move between servers, in short form.

use std::time::Duration;

use sync_ext_proof::moves;

#[test]
fn nothing_is_lost_and_no_device_reset_while_workspaces_move() {
    let servers = moves::start("moves").unwrap();
    match moves::run(&servers, 1, Duration::from_secs(8), None) {
        Ok(tally) => {
            print!("{tally}");
            for what in ["moves", "movers killed", "calls told elsewhere", "ops acknowledged"] {
                assert!(tally.count(what) > 0, "{what}");
            }
        }
        Err(violation) => panic!("{violation:#}"),
    }
}
