//! Edits that go on while the gateway and the database are killed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use sync_ext_harness::cluster::{Cluster, Stop};
use sync_ext_harness::device::Device;
use sync_ext_harness::state::of_server;

use super::devices::{self, Follower};
use super::process::{Door, until};
use super::stand::Stand;

#[derive(Debug, Default)]
pub struct Figures {
    pub gateway_kills: u64,
    pub database_stops: u64,
    /// Pushes that got no answer, or 503, and were made again.
    pub unanswered: u64,
    /// How often the follower had to connect.
    pub connections: u64,
    /// Versions that the server has, and those that the follower was told.
    pub head: u64,
    pub told: u64,
}

/// A phone pushes `edits`, one after the other, and a laptop follows, while every
/// `step` edits the gateway or the database is killed. Panics where anything is
/// lost or told twice.
pub fn run(cluster: &mut Cluster, database: &str, edits: u64, step: u64) -> Figures {
    let Stand { mut gateway, admin, .. } = Stand::trusting(cluster, database);
    drop(admin);
    let url = cluster.connection_string("gateway", database);
    let door: &Door = &gateway.clone();
    let (pushed, mut figures) = (&AtomicU64::new(0), Figures::default());
    let (unanswered, laptop) = thread::scope(|scope| {
        let phone = scope.spawn(|| edit(door, edits, pushed));
        let laptop = scope.spawn(|| follow(door, edits));
        for (turn, at) in (step..edits).step_by(step as usize).enumerate() {
            let is_over = || phone.is_finished() || laptop.is_finished();
            until("edits are pushed", || pushed.load(Ordering::SeqCst) >= at || is_over());
            if turn % 2 == 0 {
                gateway.kill();
                gateway = gateway.start_again(&url, &[("GATEWAY_TRUSTED", "on")]);
                figures.gateway_kills += 1;
            } else {
                let stop = [Stop::Kill, Stop::Immediately, Stop::Cleanly][turn / 2 % 3];
                cluster.stop_server(stop).unwrap();
                cluster.start_server().unwrap();
                figures.database_stops += 1;
            }
        }
        (phone.join().unwrap(), laptop.join().unwrap())
    });
    let mut admin = cluster.connect(database).unwrap();
    let head: i64 = admin.query_one("select head from sync_ext.workspace", &[]).unwrap().get(0);
    // Each edit was stored once, however often it was pushed, and told once.
    assert_eq!(head, edits as i64);
    assert_eq!(laptop.seen, (1..=head).collect::<Vec<i64>>());
    assert_eq!(laptop.device.state(), of_server(&mut admin, "team").unwrap());
    figures.unanswered = unanswered;
    figures.connections = laptop.connections;
    figures.head = head as u64;
    figures.told = laptop.seen.len() as u64;
    figures
}

fn edit(door: &Door, edits: u64, pushed: &AtomicU64) -> u64 {
    let (mut phone, mut unanswered) = (Device::new("phone", "team"), 0);
    for edit in 1..=edits {
        phone.put(edit, &format!("r{}", edit % 10));
        until("the edit is pushed", || {
            let is_answered = devices::push(&mut phone, door);
            unanswered += u64::from(!is_answered);
            is_answered
        });
        pushed.store(edit, Ordering::SeqCst);
    }
    unanswered
}

fn follow(door: &Door, edits: u64) -> Follower {
    let mut laptop = Follower::new(Device::new("laptop", "team"));
    while laptop.device.cursor < edits as i64 {
        until("the laptop is told", || laptop.follow(door).is_some());
    }
    laptop
}
