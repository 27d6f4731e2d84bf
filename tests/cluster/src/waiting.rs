//! Ordering the steps of several sessions by what the server shows.

use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

/// The backend that serves this connection.
pub fn pid(client: &mut Client) -> i32 {
    client.query_one("select pg_backend_pid()", &[]).unwrap().get(0)
}

/// Waits until the backend waits for a lock.
pub fn until_blocked(admin: &mut Client, pid: i32) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let sql = "select cardinality(pg_blocking_pids($1)) > 0";
    while !admin.query_one(sql, &[&pid]).unwrap().get::<_, bool>(0) {
        assert!(Instant::now() < deadline, "never blocked");
        thread::yield_now();
    }
}
