//! Logical replication between servers that both have the extension: what a subscriber
//! receives is not captured there, because the log may be replicated as well.

use std::time::{Duration, Instant};

use postgres::Client;
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::steps::outcome;

use super::{compare, ops};

const TASKS: &str = "create table tasks (id int primary key, workspace_id text, title text)";

struct Pair {
    publisher: Client,
    subscriber: Client,
    cluster: Cluster,
}

impl Pair {
    fn new(name: &str) -> Pair {
        let cluster = Cluster::start(name, &["fsync=off", "wal_level=logical"]).unwrap();
        let [publisher, subscriber] = ["publisher", "subscriber"].map(|name| {
            let mut client = cluster.create_database(name).unwrap();
            client.batch_execute(TASKS).unwrap();
            client
        });
        Pair { publisher, subscriber, cluster }
    }

    fn subscribe(&mut self) {
        let connection: String = self
            .publisher
            .query_one(
                "select format('host=%s port=%s user=postgres dbname=publisher',
                   split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'))",
                &[],
            )
            .unwrap()
            .get(0);
        let slot = "select pg_create_logical_replication_slot('own', 'pgoutput')";
        self.publisher.batch_execute(slot).unwrap();
        self.subscriber
            .batch_execute(&format!(
                "create subscription own connection '{connection}' publication own
                   with (create_slot = false, slot_name = 'own')"
            ))
            .unwrap();
        let copied = "select coalesce(bool_and(srsubstate = 'r'), false) from pg_subscription_rel";
        self.until(|pair| pair.subscriber.query_one(copied, &[]).unwrap().get(0));
    }

    fn catch_up(&mut self) {
        let end: String =
            self.publisher.query_one("select pg_current_wal_lsn()::text", &[]).unwrap().get(0);
        let sql = "select confirmed_flush_lsn >= $1::text::pg_lsn from pg_replication_slots
                    where slot_name = 'own'";
        self.until(|pair| pair.publisher.query_one(sql, &[&end]).unwrap().get(0));
        let errors = "select coalesce(sum(apply_error_count), 0) from pg_stat_subscription_stats";
        assert_eq!(outcome(&mut self.subscriber, errors).unwrap(), "0", "{}", self.cluster.log());
    }

    fn until(&mut self, mut is_so: impl FnMut(&mut Pair) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so(self) {
            assert!(Instant::now() < deadline, "the subscriber does not catch up");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn rows(&mut self) -> [String; 2] {
        let sql = "select string_agg(t::text, ' ' order by id) from tasks t";
        [&mut self.publisher, &mut self.subscriber].map(|client| outcome(client, sql).unwrap())
    }
}

#[test]
fn a_subscriber_of_a_table_does_not_capture_what_it_receives() {
    let mut pair = Pair::new("own_subscriber");
    for client in [&mut pair.publisher, &mut pair.subscriber] {
        client.batch_execute("select sync_attach_table('tasks')").unwrap();
    }
    pair.publisher
        .batch_execute(
            "create publication own for table tasks; insert into tasks values (1, 'w', 'copied')",
        )
        .unwrap();
    pair.subscribe();
    pair.publisher
        .batch_execute(
            "insert into tasks values (2, 'w', 'streamed'); update tasks set title = title || '!';
             delete from tasks where id = 1",
        )
        .unwrap();
    pair.catch_up();
    let [here, there] = pair.rows();
    assert_eq!(here, there);
    compare(&mut pair.publisher);
    assert_eq!(ops(&mut pair.subscriber, "w"), [""; 0]);
    // Its own changes are.
    pair.subscriber.batch_execute("update tasks set title = 'mine' where id = 2").unwrap();
    compare(&mut pair.subscriber);
    assert_eq!(ops(&mut pair.subscriber, "w").len(), 1);
    pair.subscriber.batch_execute("drop subscription own").unwrap();
}

#[test]
fn a_subscriber_of_table_and_log_has_both_as_they_are() {
    let mut pair = Pair::new("own_mirror");
    pair.publisher
        .batch_execute(
            "select sync_attach_table('tasks'); insert into tasks values (1, 'w', 'copied');
             create publication own for table tasks, tables in schema sync_ext",
        )
        .unwrap();
    pair.subscribe();
    pair.publisher
        .batch_execute(
            "insert into tasks select n, 'w' || n % 2, 'streamed' from generate_series(2, 200) n;
             update tasks set title = title || '!' where id % 3 = 0;
             begin; delete from tasks where id % 5 = 0; savepoint s; delete from tasks; rollback to s;
             update tasks set workspace_id = 'w' where id < 5; commit",
        )
        .unwrap();
    pair.catch_up();
    let [here, there] = pair.rows();
    assert_eq!(here, there);
    compare(&mut pair.publisher);
    compare(&mut pair.subscriber);
    let log = "select md5(string_agg(l::text, '' order by workspace_key, server_version))
                 from sync_ext.change_log l";
    assert_eq!(outcome(&mut pair.publisher, log), outcome(&mut pair.subscriber, log));
    pair.subscriber.batch_execute("drop subscription own").unwrap();
}

/// As its owner may choose, where the log is not replicated.
#[test]
fn a_trigger_that_fires_always_captures_what_a_subscriber_receives() {
    let mut pair = Pair::new("own_always");
    pair.subscriber
        .batch_execute(
            "select sync_attach_table('tasks');
             alter table tasks enable always trigger sync_ext_capture",
        )
        .unwrap();
    pair.publisher
        .batch_execute(
            "create publication own for table tasks; insert into tasks values (1, 'w', 'copied')",
        )
        .unwrap();
    pair.subscribe();
    let stream =
        "insert into tasks values (2, 'w', 'streamed'); update tasks set title = title || '!'";
    pair.publisher.batch_execute(stream).unwrap();
    pair.catch_up();
    let [here, there] = pair.rows();
    assert_eq!(here, there);
    compare(&mut pair.subscriber);
    assert_eq!(ops(&mut pair.subscriber, "w").len(), 3);
    pair.subscriber.batch_execute("drop subscription own").unwrap();
}
