//! What does not fit is refused as a whole, and clearly.

use postgres::error::SqlState;
use sync_ext_cluster::batch::{op, push, versions};
use sync_ext_cluster::cluster::Cluster;
use sync_ext_cluster::device::call;

/// Small losers to a large winner: each result tells its payload twice.
#[test]
fn a_reply_that_no_value_can_hold_is_54000_and_stores_nothing() {
    let cluster = Cluster::start("limits", &["fsync=off"]).unwrap();
    let mut client = cluster.create_database("app").unwrap();
    client.execute("select sync_register_table('notes')", &[]).unwrap();
    client.batch_execute("set sync_ext.max_payload_bytes = '8MB'").unwrap();
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(8_000_000));
    assert_eq!(push(&mut client, "w", &[op(1, "a", 9, "put", &large)]), [1]);

    let losers: Vec<String> = (2..102).map(|id| op(id, "a", 1, "put", "{}")).collect();
    let ops = format!("[{}]", losers.join(","));
    let error = client.query("select sync_push('w', $1::text::json)", &[&ops]).unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::PROGRAM_LIMIT_EXCEEDED));
    assert_eq!(error.as_db_error().unwrap().message(), "reply is too large");

    // In smaller batches it goes through.
    assert_eq!(push(&mut client, "w", &losers[..3]), [2, 3, 4]);
    let reply = call(&mut client, "select sync_pull('w', 1)::text", &[]).unwrap();
    assert_eq!(versions(&reply, "changes"), [2, 3, 4]);
}
