//! What the gateway costs, with fsync on: how long an edit takes from one device
//! to another, and what becomes of edits while everything is killed.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use anyhow::Result;
use support::devices;
use support::kills;
use support::stand::Stand;
use support::stream::Live;
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::device::Device;

const EDITS: u64 = 1_000;
const WARM_UP: u64 = 100;

fn main() -> Result<()> {
    let mut cluster = Cluster::start("gateway-figures", &["sync_ext.notify=hint"])?;
    latency(&cluster);
    let figures = kills::run(&mut cluster, "killed", EDITS, 50);
    println!(
        "{EDITS} edits while the gateway was killed {} times and the database stopped {} times: \
         {} pushes without an answer, made again; {} versions stored, {} told, over {} \
         connections; none lost, none twice",
        figures.gateway_kills,
        figures.database_stops,
        figures.unanswered,
        figures.head,
        figures.told,
        figures.connections,
    );
    Ok(())
}

/// One edit after the other: from the call of push until the event is there.
fn latency(cluster: &Cluster) {
    let Stand { gateway, .. } = Stand::trusting(cluster, "latency");
    let (mut phone, mut laptop) = (Device::new("phone", "team"), Device::new("laptop", "team"));
    let live = Live::open(&gateway, "/workspaces/team/live", None);
    let (mut to_answer, mut to_event) = (Vec::new(), Vec::new());
    for edit in 1..=WARM_UP + EDITS {
        phone.put(edit, &format!("r{}", edit % 100));
        let start = Instant::now();
        assert!(devices::push(&mut phone, &gateway));
        let answered = start.elapsed();
        let (event, told_at) = live.next_at().expect("an event");
        laptop.pull_answered(&event.data).unwrap();
        assert_eq!(laptop.cursor, edit as i64);
        phone.outbox.clear();
        if edit > WARM_UP {
            to_answer.push(answered);
            to_event.push(told_at - start);
        }
    }
    println!("{EDITS} edits from one device to another, one after the other:");
    tell("push call to its answer", to_answer);
    tell("push call to the event at the other device", to_event);
}

fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("  {what}: median {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99));
}
