//! Many workspaces move at once by logical replication: `tools/move_many.sh`.

use postgres::{Client, Config};
use sync_ext_harness::batch::{delete, push, put};
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::moves::{Mover, Step};
use sync_ext_harness::steps::{acknowledge, age, gc};

use super::followers::{Follower, Followers};
use super::scripts::{Hook, Script};
use super::{collect, text};

const DATABASE: &str = "app";
const GO: [&str; 3] = ["one", "two, \"quoted\"", "three"];

struct Move {
    a: Cluster,
    b: Cluster,
    on_a: Client,
    on_b: Client,
    script: Script,
}

impl Move {
    fn new(test: &str) -> Move {
        Move::with(test, "wal_level=logical", 2)
    }

    fn with(test: &str, setting: &str, key_range: i32) -> Move {
        let settings = ["fsync=off", "autovacuum=off", setting];
        let clusters = ["a", "b"].map(|name| Cluster::start(&format!("{test}-{name}"), &settings));
        let [a, b] = clusters.map(Result::unwrap);
        let mut clients = [(&a, 1), (&b, key_range)].map(|(cluster, number)| {
            let mut client = cluster.create_database(DATABASE).unwrap();
            client
                .batch_execute(
                    "set lock_timeout = '30s'; select sync_register_table('notes', patches => true)",
                )
                .unwrap();
            client.execute("select sync_set_key_range($1)", &[&number]).unwrap();
            client
        });
        // Those that stay have rows too, and those that go a grave.
        for client in &mut clients {
            push(client, "stays", &[put(1, "a", 1)]);
        }
        let [mut on_a, mut on_b] = clients;
        let own = "select sync_own_buckets(array[sync_ext.bucket_of('stays'), sync_ext.bucket_of('new')])";
        on_b.batch_execute(own).unwrap();
        for name in GO {
            push(&mut on_a, name, &[put(1, "grave", 1), delete(2, "grave", 2), put(3, "r1", 1)]);
            age(&mut on_a);
            assert_eq!(gc(&mut on_a, name)["tombstonesDeleted"], 1);
            push(&mut on_a, name, &[put(4, "a", 1)]);
        }
        let [from, to] = [&a, &b].map(|cluster| cluster.connection_string("postgres", DATABASE));
        let arguments = ["--from", &from, "--to", &to, "--from-name", "a", "--to-name", "b"];
        let mut script = Script::new("move_many", test, &arguments);
        let names = script.file("names.csv", "one\n\"two, \"\"quoted\"\"\"\nthree");
        script.arguments.extend(["--names".to_owned(), names]);
        Move { a, b, on_a, on_b, script }
    }

    fn servers(&self) -> [Config; 2] {
        [self.a.config(DATABASE), self.b.config(DATABASE)]
    }

    fn followers(&mut self) -> Followers {
        let followers = GO.map(|name| Follower::new(&mut self.on_a, name));
        Followers::start(&self.servers(), followers.into())
    }

    /// Where each workspace takes pushes.
    fn served(&mut self, name: &str) -> Vec<&'static str> {
        let servers = [("a", &mut self.on_a), ("b", &mut self.on_b)];
        let served = servers.into_iter().filter_map(|(server, client)| {
            let pushed = client.query_one("select sync_put($1, 'notes', 'served', '{}')", &[&name]);
            pushed.is_ok().then_some(server)
        });
        served.collect()
    }

    /// After the end: as before, but there.
    fn check(&mut self, followers: Vec<(Follower, usize)>) {
        for name in GO {
            assert_eq!(self.served(name), ["b"], "{name}");
            // An old put loses to the grave.
            let old = "select sync_push($1, $2::text::json) #>> '{results,0,applied}'";
            let ops = format!("[{}]", put(99, "grave", 1));
            let told: String = self.on_b.query_one(old, &[&name, &ops]).unwrap().get(0);
            assert_eq!(told, "false");
        }
        assert_eq!(self.served("stays"), ["a", "b"]);
        for (mut follower, rounds) in followers {
            assert!(rounds > 1, "it did go on");
            follower.check(&mut self.on_b);
        }
        self.leaves_nothing();
        self.script.run(&["--forget"]).expect(true, "has forgotten them");
        collect(&mut self.on_a);
        for table in ["change_log", "record", "device_cursor"] {
            let keys = format!("select count(distinct workspace_key)::text from sync_ext.{table}");
            let expected = if table == "device_cursor" { "0" } else { "1" };
            assert_eq!(text(&mut self.on_a, &keys), expected, "{table}");
        }
        // What is erased there is not erased here.
        for name in GO {
            let head = "select sync_pull($1) ->> 'serverVersion'";
            let head: String = self.on_b.query_one(head, &[&name]).unwrap().get(0);
            assert!(head.parse::<i64>().unwrap() > 4, "{head}");
            assert_eq!(gc(&mut self.on_b, name)["workspaces"], 1);
        }
        // A new workspace gets a key of its own range.
        push(&mut self.on_b, "new", &[put(1, "a", 1)]);
        let range =
            "select (workspace_key >> 40)::text from sync_ext.workspace where workspace_id = 'new'";
        assert_eq!(text(&mut self.on_b, range), "2");
    }

    /// No publication, slot or subscription, which would keep WAL, or copy what GC deletes.
    fn leaves_nothing(&mut self) {
        for client in [&mut self.on_a, &mut self.on_b] {
            for catalog in ["pg_publication", "pg_subscription", "pg_replication_slots"] {
                assert_eq!(text(client, &format!("select count(*)::text from {catalog}")), "0");
            }
        }
    }
}

#[test]
fn devices_notice_nothing_of_a_move_by_replication() {
    let mut moved = Move::new("move-devices");
    let followers = moved.followers();
    moved.script.run(&["--map", "echo the map is changed"]).expect(true, "the map is changed");
    moved.check(followers.stop());
    moved.script.run(&["--cancel"]).expect(false, "only the way forward");
}

/// What was just copied has no statistics yet.
#[test]
fn what_moves_by_replication_is_read_by_its_keys() {
    let scans = "select string_agg(relname || seq_scan, ' ' order by relname) from pg_stat_user_tables
                  where schemaname = 'sync_ext' and relname in ('change_log', 'record', 'device_cursor')";
    let moved = Move::new("move-scans");
    // Of a session that has ended, so that nothing is told late.
    let told = |moved: &Move| text(&mut moved.b.connect(DATABASE).unwrap(), scans);
    let before = told(&moved);
    moved.script.run(&[]).expect(true, "nobody served for");
    assert_eq!(told(&moved), before);
}

#[test]
fn a_move_by_replication_that_is_broken_off_anywhere_goes_on() {
    let mut moved = Move::new("move-killed");
    let followers = moved.followers();
    let script = moved.script.clone();
    let kills = script.killed_at_each_call(&[], |step| {
        for name in GO {
            assert!(moved.served(name).len() <= 1, "{name} at {step}");
        }
    });
    assert!(kills > 30, "{kills}");
    moved.check(followers.stop());
}

#[test]
fn a_move_by_replication_is_cancelled_before_they_depart() {
    let mut moved = Move::new("move-cancelled");
    let followers = moved.followers();
    // Killed when all is copied.
    let hook = Hook { at: "sync_export_depart", before: "kill -9 0", after: "" };
    moved.script.run_with(hook, &[]);
    for name in GO {
        assert_eq!(moved.served(name), ["a"], "{name}");
    }
    let copied = "select (count(*) > 0)::text from sync_ext.change_log as l join sync_ext.workspace as w using (workspace_key) where w.away = 'arriving'";
    assert_eq!(text(&mut moved.on_b, copied), "true");
    for _ in 0..2 {
        moved.script.run(&["--cancel"]).expect(true, "a serves them");
    }
    moved.leaves_nothing();
    for name in GO {
        assert_eq!(moved.served(name), ["a"], "{name}");
    }
    // Not again before the copies are erased, whose keys they have.
    moved.script.run(&[]).expect(false, "has left rows with its key");
    collect(&mut moved.on_b);
    moved.script.run(&[]).expect(true, "done");
    moved.check(followers.stop());
}

#[test]
fn a_dry_run_of_a_move_changes_nothing() {
    let mut moved = Move::new("move-dry");
    let everything = |moved: &mut Move| {
        let tables = ["workspace", "move", "change_log", "record", "device_cursor"];
        [&mut moved.on_a, &mut moved.on_b].map(|client| {
            tables.map(|table| {
                let rows = format!("select coalesce(string_agg(t::text, '|' order by t::text), '') from sync_ext.{table} as t");
                text(client, &rows)
            })
        })
    };
    let before = everything(&mut moved);
    moved.script.run(&["--dry-run"]).expect(true, "ok     has the 3 workspaces");
    assert_eq!(everything(&mut moved), before);
    moved.leaves_nothing();
    // What cannot work is found before anything is done.
    let unknown = moved.script.file("unknown.csv", "one\nunknown\n");
    moved.script.run(&["--names", &unknown]).expect(false, "workspace \"unknown\" does not exist");
    let stays = moved.script.file("stays.csv", "stays\n");
    moved.script.run(&["--names", &stays]).expect(false, "workspace \"stays\" exists");
    let third = "00000000-0000-4000-8000-000000000003";
    moved.on_a.batch_execute(&format!("select sync_export_begin('one', '{third}', 'c')")).unwrap();
    moved.script.run(&[]).expect(false, "workspace \"one\" is being moved");
    moved.on_a.batch_execute(&format!("select sync_export_cancel('one', '{third}')")).unwrap();
    for (set, unset) in [
        ("select sync_register_table('more')", "select sync_unregister_table('more')"),
        ("alter table sync_ext.record add region text", "alter table sync_ext.record drop region"),
    ] {
        moved.on_b.batch_execute(set).unwrap();
        moved.script.run(&[]).expect(false, "FAILS  has the same version");
        moved.on_b.batch_execute(unset).unwrap();
    }
    moved.on_a.batch_execute("create table orders (id text primary key, workspace_id text); select sync_attach_table('orders'); insert into orders values ('o', 'two, \"quoted\"')").unwrap();
    moved.script.run(&[]).expect(false, "has rows of the attached table \"orders\"");
    for name in GO {
        assert_eq!(moved.served(name), ["a"], "{name}");
    }
}

#[test]
fn a_server_without_logical_wal_is_refused() {
    let moved = Move::with("move-replica", "wal_level=replica", 2);
    moved.script.run(&[]).expect(false, "FAILS  has wal_level = logical");
}

/// Rows of two workspaces under one key would be one workspace's.
#[test]
fn servers_with_the_same_keys_are_refused() {
    let mut moved = Move::with("move-range", "wal_level=logical", 1);
    push(&mut moved.on_b, "new", &[put(1, "a", 1)]);
    let ran = moved.script.run(&[]).expect(false, "FAILS  takes its keys from another range, 1");
    assert!(ran.printed.contains("has left rows with its key"), "{}", ran.printed);
    for name in GO {
        assert_eq!(moved.served(name), ["a"], "{name}");
    }
}

/// Nobody would notice that a device is behind.
#[test]
fn the_newest_cursors_arrive_and_late_ones_change_nothing() {
    let mut moved = Move::new("move-cursors");
    acknowledge(&mut moved.on_a, "one", "phone", 1);
    acknowledge(&mut moved.on_a, "one", "laptop", 1);
    let hook = Hook { at: "sync_export_depart", before: "kill -9 0", after: "" };
    moved.script.run_with(hook, &[]);
    acknowledge(&mut moved.on_a, "one", "phone", 4);
    // One that is not committed when the workspace departs, and is later.
    let mut late = moved.a.connect(DATABASE).unwrap();
    late.batch_execute("begin; select sync_update_cursor('one', 'laptop', 2)").unwrap();
    let hook = Hook { at: "sync_import_arrive", before: "", after: "kill -9 0" };
    moved.script.run_with(hook, &[]);
    moved.leaves_nothing();
    acknowledge(&mut moved.on_b, "one", "laptop", 4);
    late.batch_execute("commit").unwrap();
    moved.script.run(&[]).expect(true, "done");
    let cursors = "select string_agg(device_id || ' ' || last_seen_version, ', ' order by device_id) from sync_ext.device_cursor";
    assert_eq!(text(&mut moved.on_b, cursors), "laptop 4, phone 4");
}

#[test]
fn a_copy_that_differs_is_not_served() {
    let mut moved = Move::new("move-differs");
    for (change, undo) in [
        (
            "update sync_ext.record set clock = clock + 1 where pk = 'r1'",
            "update sync_ext.record set clock = clock - 1 where pk = 'r1'",
        ),
        (
            "update sync_ext.change_log set payload = '{}' where server_version = 4",
            "update sync_ext.change_log set payload = '{\"n\":4}' where server_version = 4",
        ),
    ] {
        let to = moved.b.connection_string("postgres", DATABASE).replace('\'', "");
        let sql = moved
            .script
            .file("change.sql", &format!("set session_replication_role = replica; {change}"));
        let changed = format!("psql -X -q -d '{to}' -f '{sql}'");
        let hook = Hook { at: "create temp table departed", before: &changed, after: "" };
        moved.script.run_with(hook, &[]).expect(false, "because copies differ");
        for name in GO {
            assert_eq!(moved.served(name), [""; 0], "{name}");
        }
        moved.on_b.batch_execute(undo).unwrap();
    }
    // One that stays so moves by pages.
    let damage = "update sync_ext.record set clock = 9 from sync_ext.workspace as w
                   where w.workspace_key = record.workspace_key and w.workspace_id = 'one'";
    moved.on_b.batch_execute(damage).unwrap();
    moved.script.run(&[]).expect(false, "because copies differ");
    let move_id = text(&mut moved.on_a, "select move_id::text from sync_ext.move limit 1");
    moved.on_b.batch_execute(&format!("select sync_import_cancel('one', '{move_id}')")).unwrap();
    let mover = Mover { workspace_id: "one", move_id: &move_id, to: "b" };
    mover.run(&mut moved.on_a, &mut moved.on_b, |step| step != Step::Forget).unwrap();
    moved.script.run(&[]).expect(true, "done");
    moved.check(Vec::new());
}

#[test]
fn what_the_new_server_has_not_got_yet_is_waited_for() {
    let mut moved = Move::new("move-lag");
    let [a, b] = [&moved.a, &moved.b]
        .map(|cluster| cluster.connection_string("postgres", DATABASE).replace('\'', ""));
    // Stopped at the last moment, when all is near.
    let disable = moved.script.file(
        "disable.sql",
        "select format('alter subscription %I disable', subname) from pg_subscription \\gexec\n",
    );
    let last = moved.script.file("last.sql", "select sync_put('one', 'notes', 'last', '{}')");
    let stopped = format!(
        "psql -X -q -d '{b}' -f '{disable}'; psql -X -q -d '{a}' -f '{last}' -o /dev/null
         until [ $(psql -X -A -t -d '{a}' -c 'select count(*) from pg_stat_replication') = 0 ]; do :; done"
    );
    let hook = Hook { at: "sync_export_depart", before: &stopped, after: "" };
    let says = "the copy is not complete, and nobody serves the workspaces";
    moved.script.run_with(hook, &["--timeout", "1"]).expect(false, says);
    for name in GO {
        assert_eq!(moved.served(name), [""; 0], "{name}");
    }
    moved.script.run(&["--cancel"]).expect(false, "only the way forward");
    let enable = "select format('alter subscription %I enable', subname) from pg_subscription";
    let enable = text(&mut moved.on_b, enable);
    moved.on_b.batch_execute(&enable).unwrap();
    moved.script.run(&[]).expect(true, "done");
    moved.check(Vec::new());
}
