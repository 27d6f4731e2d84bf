//! Devices that push at the same time, each one op after the other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sync_ext_harness::batch::put;

use super::connection::Connection;
use super::process::Door;

/// What a crowd achieved.
#[derive(Clone)]
pub struct Pace {
    pub pushes_per_second: f64,
    pub p99: Duration,
}

/// So many devices push for a time, evenly distributed over the workspaces.
pub fn push_for(time: Duration, door: &Door, devices: usize, workspaces: usize) -> Pace {
    let end = Instant::now() + time;
    let mut answers = thread::scope(|scope| {
        let pushing: Vec<_> = (0..devices)
            .map(|device| {
                let path = format!("/workspaces/w{}/push", device % workspaces);
                scope.spawn(move || push_until(end, door, &path))
            })
            .collect();
        let answers = pushing.into_iter().flat_map(|device| device.join().unwrap());
        answers.collect::<Vec<Duration>>()
    });
    answers.sort();
    Pace {
        pushes_per_second: answers.len() as f64 / time.as_secs_f64(),
        p99: answers[answers.len() * 99 / 100],
    }
}

/// The times until each answer.
fn push_until(end: Instant, door: &Door, path: &str) -> Vec<Duration> {
    let mut connection = Connection::open(door).unwrap();
    let mut answers = Vec::new();
    while Instant::now() < end {
        let (body, start) = (format!("[{}]", next_op()), Instant::now());
        assert_eq!(connection.post(path, &body).unwrap().status, 200);
        answers.push(start.elapsed());
    }
    answers
}

/// Of a record that is used again after a thousand ops.
fn next_op() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let id = COUNT.fetch_add(1, Ordering::Relaxed);
    put(id, &format!("r{}", id % 1_000), id)
}
