//! The demo's op log: pushes of real edits, in the order they were made.

use std::io::{BufRead, BufReader};

use anyhow::Result;
use flate2::read::GzDecoder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use serde_json::value::RawValue;
use sync_ext_harness::device::Pending;

/// Made from the history of the public repository pgcentralfoundation/pgrx;
/// parallel branches give true conflicts.
const OPLOG: &[u8] = include_bytes!("../data/oplog.ndjson.gz");

/// sha256 of the final state under LWW, see `sync_ext_harness::state`.
pub const STATE_SHA256: &str = "dfe2006717d1861e4c378d7491f29710a432bfe85e0c233abec22823e9a8ef90";

pub struct Push {
    pub device_id: String,
    pub ops: Vec<Pending>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    device_id: String,
    ops: Vec<Box<RawValue>>,
}

pub fn read() -> Result<Vec<Push>> {
    BufReader::new(GzDecoder::new(OPLOG)).lines().map(|line| parse(&line?)).collect()
}

fn parse(line: &str) -> Result<Push> {
    let line: Line = serde_json::from_str(line)?;
    let ops = line.ops.into_iter().map(|raw| Pending::of(raw.get().to_owned()));
    let ops = ops.collect::<Result<_>>()?;
    Ok(Push { device_id: line.device_id, ops })
}

/// Swaps every other pair of neighbours on average, where their devices differ.
pub fn shuffle_neighbours(pushes: &mut [Push], seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    for at in 1..pushes.len() {
        if pushes[at - 1].device_id != pushes[at].device_id && random.random() {
            pushes.swap(at - 1, at);
        }
    }
}
