//! What the gateway costs, with fsync on: how long an edit takes from one device
//! to another, how many devices can push at once, and what becomes of edits while
//! everything is killed.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use anyhow::Result;
use support::crowd::{Pace, push_for};
use support::devices;
use support::kills;
use support::process::Gateway;
use support::stand::Stand;
use support::stream::Live;
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::device::Device;

const EDITS: u64 = 1_000;
const WARM_UP: u64 = 100;

const DEVICES: usize = 64;
/// After one that does not count.
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    let mut cluster = Cluster::start("gateway-figures", &["sync_ext.notify=hint"])?;
    latency(&cluster);
    crowds(&cluster);
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

/// Many devices at once, with groups and without, in turn.
fn crowds(cluster: &Cluster) {
    let Stand { gateway: grouped, admin, .. } = Stand::trusting(cluster, "crowds");
    drop(admin);
    let url = cluster.connection_string("gateway", "crowds");
    let single = Gateway::start(&url, &[("GATEWAY_TRUSTED", "on"), ("GATEWAY_GROUP_MAX", "1")]);
    println!("devices that push one op after the other, groups beside a transaction each:");
    for (devices, workspaces) in [(1, 1), (DEVICES, 1), (DEVICES, DEVICES)] {
        let mut sides = [(&grouped, vec![]), (&single, vec![])];
        for round in 0..=ROUNDS {
            let (first, second) = (round % 2, 1 - round % 2);
            for side in [first, second] {
                let (gateway, paces) = &mut sides[side];
                paces.push(push_for(ROUND, gateway, devices, workspaces));
            }
        }
        let [grouped, single] = sides.map(|(_, paces)| paces[1..].to_vec());
        let ratios = grouped.iter().zip(&single);
        let ratios = ratios.map(|(g, s)| g.pushes_per_second / s.pushes_per_second);
        let rate = |paces: &[Pace]| median(paces.iter().map(|pace| pace.pushes_per_second));
        let p99 = |paces: &[Pace]| median(paces.iter().map(|pace| pace.p99.as_secs_f64() * 1e3));
        println!(
            "  {devices} in {workspaces}: {:.0} and {:.0} pushes/s, ratio {:.2}; p99 {:.1} and {:.1} ms",
            rate(&grouped),
            rate(&single),
            median(ratios),
            p99(&grouped),
            p99(&single),
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = values.collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("  {what}: median {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99));
}
