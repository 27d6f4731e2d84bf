//! Devices that push at the same time, each one op after the other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sync_ext_harness::batch::put;

use super::process::{Door, PATIENCE};

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
    let mut connection = Connection::open(door);
    let mut answers = Vec::new();
    while Instant::now() < end {
        let (body, start) = (format!("[{}]", next_op()), Instant::now());
        assert_eq!(connection.post(path, &body), "HTTP/1.1 200 OK\r\n");
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

/// A connection that stays open. An agent would need more CPU than the gateway.
struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn open(door: &Door) -> Connection {
        let stream = TcpStream::connect(door.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection { stream: BufReader::new(stream) }
    }

    /// The first line of the answer.
    fn post(&mut self, path: &str, body: &str) -> String {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let status = self.line();
        let mut length = 0;
        loop {
            let line = self.line();
            match line.trim_end().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        self.stream.read_exact(&mut vec![0; length]).unwrap();
        status
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line
    }
}
