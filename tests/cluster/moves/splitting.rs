//! A server is split by promoting its standby: `tools/split.sh`.

use postgres::{Client, Config};
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::moves::{Ended, Mover};
use sync_ext_harness::replica::{pause_replay, resume_replay, until, until_replayed};
use sync_ext_harness::state::tables;

use super::followers::{Follower, Followers};
use super::scripts::{Hook, Script};
use super::{collect, elsewhere, error, text};

const DATABASE: &str = "app";
/// The new server gets the upper half of the buckets.
const BUCKETS: &str = "512-1023";
/// Some in each half: of buckets 314, 111, 323 and 181, and of 845, 816, 810 and 626.
const STAY: [&str; 4] = ["home", "choir", "w", "x"];
const GO: [&str; 4] = ["family", "club", "team", "crew"];

struct Split {
    old: Cluster,
    new: Cluster,
    on_old: Client,
    script: Script,
}

impl Split {
    fn new(test: &str) -> Split {
        Split::prepared(test, |_| {})
    }

    /// What `prepare` does is there before the standby is made.
    fn prepared(test: &str, prepare: impl FnOnce(&mut Client)) -> Split {
        let settings = ["fsync=off", "autovacuum=off"];
        let old = Cluster::start(&format!("{test}-old"), &settings).unwrap();
        let mut on_old = old.create_database(DATABASE).unwrap();
        on_old
            .batch_execute(
                "set lock_timeout = '30s'; select sync_register_table('notes', patches => true);
                 select sync_set_key_range(1)",
            )
            .unwrap();
        for name in STAY.iter().chain(&GO) {
            push(&mut on_old, name, &[put(1, "a", 1), put(2, "b", 1)]);
        }
        prepare(&mut on_old);
        let new = old.standby(&format!("{test}-new")).unwrap();
        let script = Script::new(
            "split",
            test,
            &[
                "--old",
                &old.connection_string("postgres", DATABASE),
                "--standby",
                &new.connection_string("postgres", DATABASE),
                "--old-name",
                "a",
                "--new-name",
                "b",
                "--new-number",
                "2",
                "--buckets",
                BUCKETS,
            ],
        );
        Split { old, new, on_old, script }
    }

    fn on_new(&self) -> Client {
        self.new.connect(DATABASE).unwrap()
    }

    /// Devices in some that stay and some that go.
    fn followers(&mut self) -> Vec<Follower> {
        let names = STAY[..2].iter().chain(&GO[..2]);
        names.map(|name| Follower::new(&mut self.on_old, name)).collect()
    }

    fn servers(&self) -> [Config; 2] {
        [self.old.config(DATABASE), self.new.config(DATABASE)]
    }

    fn is_standby(&self) -> bool {
        text(&mut self.on_new(), "select pg_is_in_recovery()::text") == "true"
    }

    /// Where each workspace takes pushes.
    fn served(&mut self, name: &str) -> Vec<&'static str> {
        let mut on_new = self.on_new();
        let servers = [("a", &mut self.on_old), ("b", &mut on_new)];
        let served = servers.into_iter().filter_map(|(server, client)| {
            let pushed = client.query_one("select sync_put($1, 'notes', 'served', '{}')", &[&name]);
            pushed.is_ok().then_some(server)
        });
        served.collect()
    }

    /// After the end.
    fn check(&mut self, followers: impl IntoIterator<Item = Follower>) {
        for name in STAY {
            assert_eq!(self.served(name), ["a"], "{name}");
        }
        for name in GO {
            assert_eq!(self.served(name), ["b"], "{name}");
        }
        let mut on_new = self.on_new();
        for mut follower in followers {
            let goes = GO.contains(&&*follower.device.workspace);
            follower.check(if goes { &mut on_new } else { &mut self.on_old });
        }
        // Each has what it has, and nothing of the other.
        self.script.run(&["--forget"]).expect(true, "has forgotten what left");
        for (client, names) in [(&mut self.on_old, STAY), (&mut on_new, GO)] {
            collect(client);
            let mut names = names.to_vec();
            names.sort_unstable();
            let here = "select string_agg(workspace_id, ' ' order by workspace_id) from sync_ext.workspace";
            assert_eq!(text(client, here), names.join(" "));
            for table in ["change_log", "record", "device_cursor"] {
                let strange = format!(
                    "select count(*)::text from sync_ext.{table}
                      where workspace_key not in (select workspace_key from sync_ext.workspace)"
                );
                assert_eq!(text(client, &strange), "0", "{table}");
            }
            assert_eq!(text(client, "select count(*)::text from sync_ext.move"), "0");
        }
        // New ones have keys of different ranges.
        push(&mut on_new, GO[0], &[put(900, "new", 1)]);
        let on_b = new_name_in(&mut on_new, "512");
        push(&mut on_new, &on_b, &[put(1, "a", 1)]);
        let range = format!(
            "select (workspace_key >> 40)::text from sync_ext.workspace where workspace_id = '{on_b}'"
        );
        assert_eq!(text(&mut on_new, &range), "2");
        let told = error(&mut self.on_old, &format!("select sync_pull('{on_b}')"));
        assert_eq!(told, elsewhere("This server does not own its bucket, 512."));
    }
}

/// A name in this bucket.
fn new_name_in(client: &mut Client, bucket: &str) -> String {
    text(
        client,
        &format!(
            "select name from (select 'new ' || n as name from generate_series(1, 100000) as n) as names
              where sync_ext.bucket_of(name) = {bucket} limit 1"
        ),
    )
}

#[test]
fn devices_notice_nothing_of_a_split() {
    let mut split = Split::new("split-devices");
    let followers = split.followers();
    let followers = Followers::start(&split.servers(), followers);
    split.script.run(&["--map", "echo the map is changed"]).expect(true, "the map is changed");
    let stopped = followers.stop();
    assert!(stopped.iter().all(|(_, rounds)| *rounds > 1), "they did go on");
    split.check(stopped.into_iter().map(|(follower, _)| follower));
    // Once more, with a map that was not changed yet, and nothing else.
    split.script.run(&["--map", "echo once more"]).expect(true, "once more");
    split.script.run(&["--cancel"]).expect(false, "only the way forward");
}

/// Nobody serves two copies meanwhile, also where a standby that becomes a primary is called.
#[test]
fn a_split_that_is_broken_off_anywhere_goes_on() {
    let mut split = Split::new("split-killed");
    let followers = split.followers();
    let followers = Followers::start(&split.servers(), followers);
    let script = split.script.clone();
    let kills = script.killed_at_each_call(&[], |step| {
        for name in STAY {
            assert_eq!(split.served(name), ["a"], "{name} at {step}");
        }
        for name in GO {
            assert!(split.served(name).len() <= 1, "{name} at {step}");
        }
    });
    assert!(kills > 30, "{kills}");
    split.check(followers.stop().into_iter().map(|(follower, _)| follower));
}

/// What the servers store, and their settings.
fn everything(split: &mut Split) -> String {
    let mut told = String::new();
    for mut client in [split.old.connect(DATABASE).unwrap(), split.on_new()] {
        told += &format!("{:?}", tables(&mut client).unwrap());
        for table in ["sync_ext.move", "sync_ext.shard_bucket", "pg_file_settings"] {
            let rows = format!(
                "select coalesce(string_agg(t::text, '|' order by t::text), '') from {table} as t"
            );
            told += &text(&mut client, &rows);
        }
    }
    told
}

#[test]
fn a_dry_run_changes_nothing() {
    let mut split = Split::new("split-dry");
    let mut on_new = split.on_new();
    until_replayed(&mut split.on_old, &mut on_new);
    let before = everything(&mut split);
    split.script.run(&["--dry-run"]).expect(true, "8 workspaces, of which 4 go");
    assert!(split.is_standby());
    assert_eq!(everything(&mut split), before);
}

/// What would go wrong is found before anything is done.
#[test]
fn a_split_that_cannot_work_does_not_begin() {
    let mut split = Split::new("split-refused");
    let mut on_new = split.on_new();
    until_replayed(&mut split.on_old, &mut on_new);
    let (old, new) = (
        split.old.connection_string("postgres", DATABASE),
        split.new.connection_string("postgres", DATABASE),
    );
    let other = split.old.create_database("other").unwrap();
    drop(other);
    let other = split.old.connection_string("postgres", "other");
    let before = everything(&mut split);
    let placed = |lines: &str| split.script.file("placed", lines);
    let unknown = placed("unknown,b");
    let cases: [(Vec<&str>, &str); 9] = [
        (vec!["--new-number", "1"], "FAILS  takes its keys from another range, 1"),
        (vec!["--standby", &old], "neither a standby nor a server with these buckets"),
        (vec!["--standby", &other], "neither a standby nor a server with these buckets"),
        (vec!["--old", &new], "the old server is a standby"),
        (vec!["--buckets", "0-1023"], "FAILS  keeps others"),
        (vec!["--buckets", "512"], "FAILS  has 8 workspaces, of which 0 go"),
        (vec!["--placed", &unknown], "workspace \"unknown\" does not exist"),
        (vec!["--max-lag", "-1"], "FAILS  is 0 bytes behind"),
        (vec!["--old-name", "b"], "both servers are called b"),
    ];
    for (arguments, says) in cases {
        split.script.run(&arguments).expect(false, says);
        split.script.run(&[&arguments[..], &["--dry-run"]].concat()).expect(false, says);
    }
    let third = placed("home,c");
    let says = "workspace \"home\" is here, but the map places it at c";
    split.script.run(&["--placed", &third]).expect(false, says);
    pause_replay(&mut split.on_new());
    split.script.run(&[]).expect(false, "FAILS  replays at once");
    resume_replay(&mut split.on_new());
    for (sql, undo, says) in [
        (
            "select sync_export_begin('home', '00000000-0000-4000-8000-000000000001', 'c')",
            "select sync_export_cancel('home', '00000000-0000-4000-8000-000000000001'); delete from sync_ext.move",
            "FAILS  has no move that is under way",
        ),
        (
            "create subscription s connection '' publication p with (connect = false); alter subscription s enable",
            "alter subscription s disable; alter subscription s set (slot_name = none); drop subscription s",
            "FAILS  has no subscriptions",
        ),
        (
            "alter system set synchronous_standby_names = '*'; select pg_reload_conf()",
            "alter system reset synchronous_standby_names; select pg_reload_conf()",
            "FAILS  is none that commits wait for",
        ),
    ] {
        for statement in sql.split("; ") {
            split.on_old.batch_execute(statement).unwrap();
        }
        if sql.contains("synchronous") {
            let seen = "select count(*)::text from pg_stat_replication where sync_state = 'sync'";
            until(&mut split.on_old, seen, "1");
        }
        split.script.run(&[]).expect(false, says);
        for statement in undo.split("; ") {
            split.on_old.batch_execute(statement).unwrap();
        }
    }
    until_replayed(&mut split.on_old, &mut on_new);
    assert_eq!(everything(&mut split), before);
    for name in STAY.iter().chain(&GO) {
        assert_eq!(split.served(name), ["a"], "{name}");
    }
}

/// What it has not got yet would be lost: it is not promoted.
#[test]
fn a_standby_that_does_not_get_what_left_is_not_promoted() {
    let mut split = Split::new("split-lag");
    let followers = split.followers();
    let followers = Followers::start(&split.servers(), followers);
    let conninfo =
        text(&mut split.on_new(), "select quote_literal(current_setting('primary_conninfo'))");
    // Cut off at the last moment, when all is checked.
    let cut_off = format!(
        "psql -X -q -d '{}' -c \"alter system set primary_conninfo = ''\" -c 'select pg_reload_conf()' -o /dev/null
         until [ $(psql -X -A -t -d '{0}' -c 'select count(*) from pg_stat_wal_receiver') = 0 ]; do :; done",
        split.new.connection_string("postgres", DATABASE).replace('\'', "")
    );
    let hook = Hook { at: "sync_split_depart", before: &cut_off, after: "" };
    split.script.run_with(hook, &["--timeout", "1"]).expect(false, "has not replayed what left");
    assert!(split.is_standby());
    for name in GO {
        assert_eq!(split.served(name), [""; 0], "{name}");
    }
    split.script.run(&["--cancel"]).expect(true, "serves everything again");
    split.script.run(&["--cancel"]).expect(true, "serves everything again");
    for name in STAY.iter().chain(&GO) {
        assert_eq!(split.served(name), ["a"], "{name}");
    }
    let on_old = &mut split.on_old;
    let left = "select count(*)::text from sync_ext.move";
    assert_eq!(text(on_old, left), "0");
    let new_one = new_name_in(on_old, "512");
    push(on_old, &new_one, &[put(1, "a", 1)]);
    on_old.execute("select sync_drop_workspace($1)", &[&new_one]).unwrap();

    // It may be split again when the standby has caught up.
    let mut on_new = split.on_new();
    on_new.batch_execute(&format!("alter system set primary_conninfo = {conninfo}")).unwrap();
    on_new.batch_execute("select pg_reload_conf()").unwrap();
    until_replayed(&mut split.on_old, &mut on_new);
    split.script.run(&[]).expect(true, "done");
    split.check(followers.stop().into_iter().map(|(follower, _)| follower));
}

/// Where the old server has failed over to one that never heard of the split, say, what left may
/// have gone on there.
#[test]
fn a_copy_that_does_not_have_all_is_not_opened() {
    let mut split = Split::new("split-differs");
    let undone = format!(
        "psql -X -q -d '{}' -c \"select sync_split_arrive(move_id) from (select distinct move_id from sync_ext.move) as m\" -o /dev/null
         psql -X -q -d '{0}' -c \"select sync_put('family', 'notes', 'x', '{{}}')\" -o /dev/null",
        split.old.connection_string("postgres", DATABASE).replace('\'', "")
    );
    // When it is promoted.
    let hook = Hook { at: "> :'timeline'", before: &undone, after: "" };
    for hook in [hook, Hook::default()] {
        split.script.run_with(hook, &[]).expect(false, "b is not opened: it has 4 ");
        assert_eq!(split.served("family"), ["a"]);
        assert_eq!(split.served("club"), ["a"]);
    }
}

/// A mover between this server and a third one, which is another database.
fn moved(name: &str, move_id: &str, from: &mut Client, to: &mut Client, to_name: &str) {
    let mover = Mover { workspace_id: name, move_id, to: to_name };
    assert_eq!(mover.run(from, to, |_| true).unwrap(), Ended::Moved);
}

#[test]
fn exceptions_of_the_map_go_where_it_places_them() {
    let id = |n: u32| format!("00000000-0000-4000-8000-{n:012}");
    let mut third = None;
    let mut split = Split::prepared("split-named", |on_old| {
        let third: &mut Option<Client> = &mut third;
        let row = on_old
            .query_one(
                "select current_setting('port'), current_setting('unix_socket_directories')",
                &[],
            )
            .unwrap();
        let (port, socket): (String, String) = (row.get(0), row.get(1));
        on_old.batch_execute("create database third").unwrap();
        let other = format!("host='{socket}' port={port} user=postgres dbname=third");
        let mut on_third = Client::connect(&other, postgres::NoTls).unwrap();
        on_third
            .batch_execute(
                "create extension sync_ext; select sync_register_table('notes', patches => true);
                 select sync_set_key_range(3)",
            )
            .unwrap();
        // Of 732, 566, 660, 407: two go with their buckets though they were moved here, one
        // stays though its bucket goes, one goes though its bucket stays.
        for (n, name) in ["library", "shop", "lab", "band", "dropped"].into_iter().enumerate() {
            push(&mut on_third, name, &[put(1, "a", 1)]);
            moved(name, &id(n as u32), &mut on_third, on_old, "a");
        }
        // Of 857 and 803, and one of 371: elsewhere, and stay there.
        for (n, name) in ["school", "farm", "office"].into_iter().enumerate() {
            push(on_old, name, &[put(1, "a", 1)]);
            moved(name, &id(10 + n as u32), on_old, &mut on_third, "third");
        }
        on_old.batch_execute("select sync_drop_workspace('dropped')").unwrap();
        *third = Some(on_third);
    });
    let script = split.script.clone();
    let placed = |lines: &str| script.file("placed", lines);
    let complete = "lab,a\nteam,a\nband,b\nschool,third\nfarm,third\noffice,third\n";
    script
        .run(&["--placed", &placed(&complete.replace("lab,a", "lab,third"))])
        .expect(false, "workspace \"lab\" is here, but the map places it at third");
    let ran =
        script.run(&["--placed", &placed(complete)]).expect(true, "workspace \"lab\" stays at a");
    assert!(ran.printed.contains("of which 6 go, 3 of them by name"), "{}", ran.printed);
    for (name, server) in [
        ("library", "b"),
        ("shop", "b"),
        ("lab", "a"),
        ("team", "a"),
        ("band", "b"),
        ("home", "a"),
        ("family", "b"),
    ] {
        assert_eq!(split.served(name), [server], "{name}");
    }
    let mut on_new = split.on_new();
    let told =
        |client: &mut Client, name: &str| error(client, &format!("select sync_pull('{name}')")).1;
    for name in ["school", "farm"] {
        assert_eq!(told(&mut on_new, name), "It was moved to \"third\".");
    }
    assert_eq!(told(&mut on_new, "team"), "It was moved to \"a\".");
    assert_eq!(told(&mut on_new, "lab"), "It was moved to \"a\".");
    assert_eq!(told(&mut split.on_old, "office"), "It was moved to \"third\".");
    script.run(&["--placed", &placed(complete), "--forget"]).expect(true, "forgotten");
    assert_eq!(told(&mut split.on_old, "band"), "It was moved to \"b\".");
    assert_eq!(told(&mut split.on_old, "shop"), "This server does not own its bucket, 566.");
    // Dropped ones belong to their bucket again.
    assert_eq!(split.served("dropped").len(), 1);
    // An exception stays one when it is dropped and created again.
    for (name, is_new) in [("lab", false), ("team", false), ("band", true)] {
        let client = if is_new { &mut on_new } else { &mut split.on_old };
        client.execute("select sync_drop_workspace($1)", &[&name]).unwrap();
        push(client, name, &[put(1, "a", 1)]);
    }
    assert_eq!((split.served("lab"), split.served("band")), (vec!["a"], vec!["b"]));
}

/// Typed rows go along: both servers have all of them, and those of what is elsewhere are to be
/// deleted with capture off.
#[test]
fn rows_of_attached_tables_go_along() {
    let mut split = Split::prepared("split-typed", |on_old| {
        on_old
            .batch_execute(
                "create table orders (id text primary key, workspace_id text not null, n int);
                 select sync_attach_table('orders', patches => true);
                 insert into orders values ('h', 'home', 1), ('f', 'family', 1)",
            )
            .unwrap();
    });
    split.script.run(&[]).expect(true, "done");
    let mut on_new = split.on_new();
    for (client, here, there) in [(&mut split.on_old, "h", "f"), (&mut on_new, "f", "h")] {
        let update = format!("update orders set n = 2 where id = '{there}'");
        assert_eq!(error(client, &update).0, "SX004");
        client.batch_execute(&format!("update orders set n = 2 where id = '{here}'")).unwrap();
        let clean = format!(
            "set sync_ext.capture = off; delete from orders where id = '{there}'; reset sync_ext.capture"
        );
        client.batch_execute(&clean).unwrap();
        let state = "select string_agg(concat(workspace_id, ' ', payload ->> 'n'), ',') from sync_ext.current_record where table_name = 'orders'";
        let name = if here == "h" { "home" } else { "family" };
        assert_eq!(text(client, state), format!("{name} 2"));
        let differences = "select sync_check_table('orders') ->> 'differencesTotal'";
        assert_eq!(text(client, differences), "0");
    }
}
