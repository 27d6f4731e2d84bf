//! One server of several is restored from before some moves: `tools/restore.sh`.

use postgres::Client;
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::device::{Device, Pulled};
use sync_ext_harness::moves::{Mover, Step};
use sync_ext_harness::replica::{cut_off, promote, until_replayed};

use super::scripts::Script;
use super::{collect, error, text};

const DATABASE: &str = "app";

fn move_id(n: u32) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

/// Moves a workspace until a step is not to be taken.
fn moves(
    name: &str,
    n: u32,
    from: &mut Client,
    to: &mut Client,
    to_name: &str,
    until: Option<Step>,
) {
    let mover = Mover { workspace_id: name, move_id: &move_id(n), to: to_name };
    mover.run(from, to, |step| Some(step) != until).unwrap();
}

fn served(servers: &mut [(&'static str, &mut Client)], name: &str) -> Vec<&'static str> {
    let served = servers.iter_mut().filter_map(|(server, client)| {
        let pushed = client.query_one("select sync_put($1, 'notes', 'served', '{}')", &[&name]);
        pushed.is_ok().then_some(*server)
    });
    served.collect()
}

/// Of the names: `home` (314), `choir` (111) and `w` (323) are of `a`, `family` (845), `club`
/// (816), `team` (810), `crew` (626) and `shop` (566) of `b`.
#[test]
fn a_restored_server_serves_what_the_map_places_there() {
    let settings = ["fsync=off", "autovacuum=off"];
    let [lost, b] = ["restore-a", "restore-b"].map(|name| Cluster::start(name, &settings).unwrap());
    let [mut on_lost, mut on_b] =
        [(&lost, 1, "0, 511"), (&b, 2, "512, 1023")].map(|(cluster, number, own)| {
            let mut client = cluster.create_database(DATABASE).unwrap();
            client
                .batch_execute(&format!(
                "select sync_register_table('notes', patches => true), sync_set_key_range({number}),
                        sync_own_buckets(array(select generate_series({own})))"
            ))
                .unwrap();
            client
        });
    let (here, there) = (&mut on_lost, &mut on_b);
    for name in ["home", "choir", "w", "x"] {
        push(here, name, &[put(1, "a", 1)]);
    }
    for name in ["family", "club", "team", "crew", "shop", "lab"] {
        push(there, name, &[put(1, "a", 1)]);
    }
    // Here as an exception, which it will be no longer.
    moves("shop", 1, there, here, "a", None);
    // Departed from here, and there is only its stay.
    moves("x", 2, here, there, "b", Some(Step::Forget));

    let restored = lost.standby("restore-backup").unwrap();
    let mut on_restored = restored.connect(DATABASE).unwrap();
    until_replayed(here, &mut on_restored);
    on_restored.batch_execute("alter system set default_transaction_read_only = on").unwrap();
    cut_off(&mut on_restored);

    // What the backup does not have.
    moves("home", 11, here, there, "b", None);
    moves("shop", 12, here, there, "b", None);
    push(there, "family", &[put(2, "b", 1)]);
    let mut device = Device::new("phone", "family");
    device.pull(there, 100, false).unwrap();
    moves("family", 13, there, here, "a", Some(Step::Forget));
    moves("club", 14, there, here, "a", None);
    moves("choir", 15, here, there, "b", None);
    push(there, "choir", &[put(2, "b", 1)]);
    moves("choir", 16, there, here, "a", Some(Step::Forget));
    here.batch_execute(&format!("select sync_export_forget('x', '{}')", move_id(2))).unwrap();
    moves("x", 17, there, here, "a", Some(Step::Forget));
    moves("w", 18, here, there, "b", Some(Step::Depart));
    push(here, "new", &[put(1, "a", 1)]);

    drop(lost);
    promote(&mut on_restored);
    let script = Script::new(
        "restore",
        "restore",
        &[
            "--server",
            &restored.connection_string("postgres", DATABASE),
            "--name",
            "a",
            "--buckets",
            "0-511",
        ],
    );
    let others = format!("b {}", b.connection_string("postgres", DATABASE));
    let placed = "home,b\nfamily,a\nclub,a\n";
    let arguments =
        ["--others", &script.file("others", &others), "--placed", &script.file("placed", placed)];
    let unasked = script.file("unasked", "home,c\n");
    let unasked = [&arguments[..], &["--placed", &unasked]].concat();
    script.run(&unasked).expect(false, "does not have all other servers: c");
    let ran = script.run(&[&arguments[..], &["--dry-run"]].concat()).expect(true, "");
    let said: Vec<&str> = ran.printed.lines().collect();
    let expected = [
        "disown \"home\", which is at b",
        "disown \"shop\", which is at b",
        "give up the move of \"w\" to b",
        "import \"choir\" again, from b",
        "import \"family\" again, from b",
        "import \"x\" again, from b",
        "\"club\" is lost: it is placed here, but no server has it",
    ];
    assert_eq!(said, expected);
    let state = "select string_agg(concat(workspace_id, ' ', role), ', ' order by workspace_id) from sync_ext.move";
    assert_eq!(text(&mut on_restored, state), "shop arrived, x departed", "nothing was done");

    let script = &script;
    let kills = script.killed_at_each_call(&arguments, |_| {});
    assert!(kills > 20, "{kills}");
    let mut on_restored = restored.connect(DATABASE).unwrap();
    let mut servers = [("a", &mut on_restored), ("b", &mut on_b)];
    for (name, expected) in [
        ("home", "b"),
        ("shop", "b"),
        ("family", "a"),
        ("choir", "a"),
        ("x", "a"),
        ("w", "a"),
        ("team", "b"),
        ("crew", "b"),
        ("new", "a"),
    ] {
        assert_eq!(served(&mut servers, name), [expected], "{name}");
    }
    assert_eq!(served(&mut servers, "club"), [""; 0]);
    // As it was when it left there.
    let Pulled::Page { changes: 1, .. } = device.pull_page(&mut on_restored, 100, false).unwrap()
    else {
        panic!("only what was pushed since");
    };
    let head = "select sync_pull('choir') ->> 'serverVersion'";
    assert_eq!(text(&mut on_restored, head), "3");
    // It is an exception here, also if it is dropped.
    on_restored.batch_execute("select sync_drop_workspace('family')").unwrap();
    push(&mut on_restored, "family", &[put(1, "a", 1)]);
    collect(&mut on_restored);
    let strange = "select count(*)::text from sync_ext.change_log where workspace_key not in (select workspace_key from sync_ext.workspace)";
    assert_eq!(text(&mut on_restored, strange), "0");
    // A move goes on that was begun again.
    moves("w", 19, &mut on_restored, &mut on_b, "b", None);
    assert_eq!(error(&mut on_restored, "select sync_pull('w')").1, "It was moved to \"b\".");
    script.run(&arguments).expect(true, "a is open");
    let wrong = [&arguments[..], &["--buckets", "400-511"]].concat();
    script.run(&wrong).expect(false, "it is open, and may have taken pushes");
}
