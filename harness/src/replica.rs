//! What happens to a streaming standby: it lags, is cut off, is promoted.

use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, GenericClient};

use crate::device::call;

/// Repeats the query until the server answers `expected`.
pub fn until(client: &mut impl GenericClient, sql: &str, expected: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while call(client, sql, &[]).unwrap() != expected {
        assert!(Instant::now() < deadline, "never {expected}: {sql}");
        thread::yield_now();
    }
}

/// The standby has all that the primary has committed.
pub fn until_replayed(primary: &mut Client, standby: &mut impl GenericClient) {
    let position = call(primary, "select pg_current_wal_lsn()::text", &[]).unwrap();
    let sql = format!("select (pg_last_wal_replay_lsn() >= '{position}')::text");
    until(standby, &sql, "true");
}

/// Later commits of the primary are not visible on the standby.
pub fn pause_replay(standby: &mut Client) {
    standby.execute("select pg_wal_replay_pause()", &[]).unwrap();
    until(standby, "select pg_get_wal_replay_pause_state()", "paused");
}

pub fn resume_replay(standby: &mut Client) {
    standby.execute("select pg_wal_replay_resume()", &[]).unwrap();
}

/// Later commits of the primary never reach the standby. Pausing replay is not enough:
/// a promotion replays everything received.
pub fn cut_off(standby: &mut Client) {
    standby.batch_execute("alter system set primary_conninfo = ''").unwrap();
    standby.execute("select pg_reload_conf()", &[]).unwrap();
    until(standby, "select count(*)::text from pg_stat_wal_receiver", "0");
}

/// Returns when the standby is a primary.
pub fn promote(standby: &mut Client) {
    assert_eq!(call(standby, "select pg_promote()::text", &[]).unwrap(), "true");
}
