//! Movers that are killed and resumed.

use anyhow::Result;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::sync::atomic::Ordering;
use sync_ext_harness::moves::{Ended as Moved, Mover, Step};

use super::{SERVERS, Servers, ended, name};
use crate::common::tally::Tally;

/// Moves these workspaces until the time is over; what has begun is brought to its end.
pub fn run(servers: &Servers, workspaces: &[&str], seed: u64) -> Result<Tally> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut tally = Tally::default();
    while !servers.is_over() {
        let workspace = workspaces.choose(&mut random).expect("it has some");
        let from = servers.home(workspace);
        let to = (from + random.random_range(1..SERVERS)) % SERVERS;
        let number = servers.next_move.fetch_add(1, Ordering::SeqCst);
        let move_id = format!("00000000-0000-4000-8000-{number:012}");
        let mover = Mover { workspace_id: workspace, move_id: &move_id, to: &name(to) };
        bring_to_its_end(servers, &mover, from, to, &mut random, &mut tally)?;
    }
    Ok(tally)
}

fn bring_to_its_end(
    servers: &Servers,
    mover: &Mover<'_>,
    from: usize,
    to: usize,
    random: &mut StdRng,
    tally: &mut Tally,
) -> Result<()> {
    loop {
        let connected = (servers.connect(from)?, servers.connect(to)?);
        let (Some(mut there), Some(mut here)) = connected else { continue };
        let mut left = random.random_range(1..40);
        let killed = mover.run(&mut there, &mut here, |step| {
            left -= 1;
            if left > 0 && step == Step::Map {
                servers.set_home(mover.workspace_id, to);
            }
            left > 0
        });
        match killed {
            Ok(Moved::Moved) => {
                tally.add("moves", 1);
                return Ok(());
            }
            Ok(Moved::Killed(_)) => tally.add("movers killed", 1),
            Err(error) => {
                ended(error)?;
                tally.add("movers cut off", 1);
            }
        }
        if !servers.is_over() && random.random_bool(0.1) {
            match cancel(servers, mover, from, to) {
                Ok(true) => {
                    tally.add("moves cancelled", 1);
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) => drop(ended(error)?),
            }
        }
    }
}

/// False if it has departed, or cannot be asked.
fn cancel(servers: &Servers, mover: &Mover<'_>, from: usize, to: usize) -> Result<bool> {
    let Some(mut there) = servers.connect(from)? else { return Ok(false) };
    let cancel = |side: &str| {
        format!("select sync_{side}_cancel('{}', '{}')", mover.workspace_id, mover.move_id)
    };
    match there.batch_execute(&cancel("export")) {
        // It has departed, or has not begun.
        Err(error) if error.code().is_some_and(|state| state.code() == "55000") => {
            return Ok(false);
        }
        done => done?,
    }
    // The move is given up by now; the other side may be told at any time.
    loop {
        let Some(mut here) = servers.connect(to)? else { continue };
        match here.batch_execute(&cancel("import")) {
            Err(error) if error.code().is_some_and(|state| state.code() == "55000") => break,
            Err(error) => drop(ended(error.into())?),
            Ok(()) => break,
        }
    }
    Ok(true)
}
