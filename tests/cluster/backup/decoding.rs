//! What logical decoding makes of the direct writes: a subscriber of our tables
//! must end with the same rows, and never meet a row twice.

use std::time::{Duration, Instant};

use postgres::Client;
use sync_ext_harness::batch::{self, push};
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::state::TABLES;
use sync_ext_harness::steps::{share, unpin};

/// Pushes of every kind: small and large, of new and known records, with
/// payloads that are stored apart, with replays and reused opIds that make a
/// large push roll back and try again, in transactions that are rolled back.
fn work(publisher: &mut Client) {
    publisher.execute("select sync_register_table('notes')", &[]).unwrap();
    let many = |from: u64, clock: u64| -> Vec<String> {
        (0..50).map(|n| batch::put(from + n, &format!("pk-{n}"), clock)).collect()
    };
    push(publisher, "w", &[batch::put(1, "pk-7", 1), batch::put(2, "else", 1)]);
    push(publisher, "w", &many(100, 1));
    push(publisher, "w", &many(100, 1));
    push(publisher, "w", &many(200, 2));
    let mut reused = many(300, 3);
    reused[30] = batch::put(2, "new", 1);
    let reused = format!("[{}]", reused.join(","));
    publisher.execute("select sync_push('w', $1::text::json)", &[&reused]).unwrap();
    let large: String =
        (0..8000u64).map(|n| format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    push(
        publisher,
        "w",
        &[batch::op(400, "large", 1, "put", &format!("{{\"text\":\"{large}\"}}"))],
    );
    push(publisher, "w", &[batch::delete(401, "pk-3", 9), batch::put(402, "large", 2)]);
    let mut transaction = publisher.transaction().unwrap();
    push(&mut transaction, "lost", &many(500, 1));
    transaction.rollback().unwrap();
    let mut transaction = publisher.transaction().unwrap();
    push(&mut transaction, "w", &many(600, 5));
    let mut savepoint = transaction.savepoint("lost").unwrap();
    push(&mut savepoint, "w", &many(700, 6));
    savepoint.rollback().unwrap();
    push(&mut transaction, "other", &many(800, 1));
    transaction.commit().unwrap();
    share(publisher);
    unpin(publisher, "team");
    publisher.execute("select sync_update_cursor('w', 'device', 100)", &[]).unwrap();
    publisher
        .execute("update sync_ext.change_log set created_at = now() - interval '99 days'", &[])
        .unwrap();
    push(publisher, "w", &[batch::put(900, "last", 1)]);
    let reply: String = publisher.query_one("select sync_gc('w')::text", &[]).unwrap().get(0);
    assert!(reply.contains("\"scanned\":99"), "{reply}");
}

fn rows(client: &mut Client, table: &str) -> String {
    let sql = format!(
        "select coalesce(string_agg(t::text, e'\\n' order by t::text), '') from sync_ext.{table} t"
    );
    client.query_one(&sql, &[]).unwrap().get(0)
}

#[test]
fn a_subscriber_ends_with_the_same_rows() {
    let cluster = Cluster::start("decoding", &["fsync=off", "wal_level=logical"]).unwrap();
    let mut publisher = cluster.create_database("publisher").unwrap();
    let mut subscriber = cluster.create_database("subscriber").unwrap();
    let connection: String = publisher
        .query_one(
            "select format('host=%s port=%s user=postgres dbname=publisher',
               split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'))",
            &[],
        )
        .unwrap()
        .get(0);
    // Within one cluster the slot must be there before the subscription.
    publisher.batch_execute("create publication sync for tables in schema sync_ext").unwrap();
    publisher
        .execute("select pg_create_logical_replication_slot('sync', 'pgoutput')", &[])
        .unwrap();
    subscriber
        .batch_execute(&format!(
            "create subscription sync connection '{connection}' publication sync with (create_slot = false, copy_data = false)"
        ))
        .unwrap();
    work(&mut publisher);

    let end: String = publisher.query_one("select pg_current_wal_lsn()::text", &[]).unwrap().get(0);
    let deadline = Instant::now() + Duration::from_secs(60);
    let caught_up = "select confirmed_flush_lsn >= $1::text::pg_lsn from pg_replication_slots where slot_name = 'sync'";
    while !publisher.query_one(caught_up, &[&end]).unwrap().get::<_, bool>(0) {
        assert!(Instant::now() < deadline, "the subscriber does not catch up");
        std::thread::sleep(Duration::from_millis(20));
    }
    for table in TABLES {
        let (here, there) = (rows(&mut publisher, table), rows(&mut subscriber, table));
        assert!(!here.is_empty(), "{table} is empty");
        assert_eq!(here, there, "{table}");
    }
    let errors: i64 = subscriber
        .query_one(
            "select coalesce(sum(apply_error_count), 0)::int8 from pg_stat_subscription_stats",
            &[],
        )
        .unwrap()
        .get(0);
    assert_eq!(errors, 0, "the subscriber met a row twice");
    subscriber.batch_execute("drop subscription sync").unwrap();
}
