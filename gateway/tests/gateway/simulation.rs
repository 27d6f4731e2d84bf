//! The simulation of moves, in short form.

use std::time::Duration;

use sync_ext_proof::moves;

use crate::support::simulation;

#[test]
fn nothing_is_lost_while_workspaces_move_and_gateways_are_killed() {
    let servers = moves::start("gateway-simulation").unwrap();
    match simulation::run(&servers, 1, Duration::from_secs(10)) {
        Ok(tally) => {
            print!("{tally}");
            for what in ["moves", "movers killed", "sessions with the gateway", "gateways killed"] {
                assert!(tally.count(what) > 0, "{what}");
            }
        }
        Err(violation) => panic!("{violation:#}"),
    }
}
