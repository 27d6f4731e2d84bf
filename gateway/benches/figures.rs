//! What the gateway costs, with fsync on: how long an edit takes from one device
//! to another, how many devices can push at once, and what becomes of edits while
//! everything is killed.

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use support::connection::Connection;
use support::crowd::{Pace, push_for};
use support::devices;
use support::kills;
use support::process::Gateway;
use support::stand::Stand;
use support::stream::Live;
use sync_ext_harness::batch::put;
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
    routing(&cluster);
    if std::env::args().any(|argument| argument == "routing") {
        return Ok(());
    }
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

/// The same calls for the same workspace through a gateway of one server, and through one of
/// three, which looks it up in a map: in turn, call by call.
fn routing(cluster: &Cluster) {
    let Stand { gateway: alone, .. } = Stand::trusting(cluster, "routing");
    let url = cluster.connection_string("gateway", "routing");
    let servers = ["a", "b", "c"].map(|name| json!({"name": name, "url": url}));
    let map = std::env::temp_dir().join(format!("figures-map-{}.json", std::process::id()));
    let buckets = json!({"a": "0-340", "b": "341-681", "c": "682-1023"});
    let placed: HashMap<String, &str> = (0..1_000).map(|id| (format!("w{id}"), "c")).collect();
    fs::write(&map, json!({"buckets": buckets, "placed": placed}).to_string()).unwrap();
    let settings = [
        ("GATEWAY_TRUSTED", "on"),
        ("DATABASE_URLS", &Value::from(servers.to_vec()).to_string()),
        ("GATEWAY_MAP", map.to_str().unwrap()),
    ];
    let routing = Gateway::start("", &settings);
    fs::remove_file(map).unwrap();
    let mut sides = [&alone, &routing].map(|gateway| Connection::open(gateway).unwrap());
    println!("a gateway of three servers beside one of one, call by call:");
    let mut next = 0;
    for (call, path, with_op) in [
        ("poll", "/workspaces/team/pull", false),
        ("push of one op", "/workspaces/team/push", true),
    ] {
        let mut times = [const { Vec::new() }; 2];
        for turn in 0..2 * (WARM_UP + 2 * EDITS) {
            // Now the one, now the other is the first.
            let side = ((turn / 2 + turn) % 2) as usize;
            next += 1;
            let op = || put(next, &format!("r{}", next % 100), next);
            let body = if with_op { format!("[{}]", op()) } else { r#"{"cursor": 0}"#.to_owned() };
            let start = Instant::now();
            let answer = sides[side].post(path, &body).unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            if turn > 2 * WARM_UP {
                times[side].push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        let [alone, routing] = times.map(|times| median(times.into_iter()));
        println!("  {call}: {routing:.3} and {alone:.3} ms, ratio {:.3}", routing / alone);
    }
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
