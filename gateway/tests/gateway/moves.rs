//! Workspaces that move between servers while they are used: nobody who uses them is told.

use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use serde_json::{Value, json};
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::device::Device;
use sync_ext_harness::state::of_server;

use crate::support::devices::{self, Follower};
use crate::support::fleet::{Fleet, Site, gauge};
use crate::support::groups::note;
use crate::support::moving::{Moving, own_buckets};
use crate::support::process::{Answer, Door, until};
use crate::support::stand::until_a_push_waits;
use crate::support::stream::Live;

const TRUSTED: (&str, &str) = ("GATEWAY_TRUSTED", "on");

#[test]
fn nobody_notices_that_a_workspace_moves() {
    let fleet = Fleet::start("gateway-moves");
    // So few that no push overtakes one that takes long.
    let mut site = fleet.site("moves", &[TRUSTED, ("GATEWAY_POOL_SIZE", "3")]);
    own_buckets(&mut site);
    one_reading_of_the_map_is_enough_for_many(&fleet, &mut site);
    every_kind_of_call_waits_until_it_has_arrived(&mut site);
    pushes_that_wait_together_are_stored_where_it_has_arrived(&fleet, &mut site);
    what_takes_too_long_may_succeed_later(&fleet, &mut site);
    a_stream_of_several_servers_goes_on(&mut site);
    devices_that_sync_meanwhile_lose_nothing(&mut site);
    one_that_is_between_servers_is_listed_once(&mut site);
    a_new_workspace_is_made_where_its_bucket_is_now(&mut site);
}

fn elsewhere(door: &Door) -> f64 {
    ["a", "b", "c"]
        .map(|name| gauge(door, &format!("elsewhere_total{{server=\"{name}\"}}")))
        .iter()
        .sum()
}

fn path(workspace: &str, what: &str) -> String {
    format!("/workspaces/{workspace}/{what}")
}

fn ok(answer: Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn one_reading_of_the_map_is_enough_for_many(fleet: &Fleet, site: &mut Site) {
    const CALLS: u64 = 20;
    let team = site.workspace(0);
    push(&mut site.admins[0], &team, &[put(1, "a", 1)]);
    Moving::depart(site, &team, 0, 1).arrive(site);
    let (before, mut router) = (site.readings(), fleet.session_of_router("moves"));
    let mut held = router.transaction().unwrap();
    held.batch_execute("lock sync_router.bucket").unwrap();
    let (door, team): (&Door, &str) = (&site.gateway.clone(), &team);
    let refused = elsewhere(door);
    thread::scope(|scope| {
        let calls: Vec<_> = (0..CALLS)
            .map(|call| {
                scope.spawn(move || match call % 2 {
                    0 => ok(door.post(&path(team, "push"), None, &note(call + 2))),
                    _ => ok(door.post(&path(team, "pull"), None, "{}")),
                })
            })
            .collect();
        until("all are refused", || elsewhere(door) >= refused + CALLS as f64);
        held.commit().unwrap();
        calls.into_iter().for_each(|call| drop(call.join().unwrap()));
    });
    // One for the first, and perhaps one for those who came while that was under way.
    assert!((before + 1.0..=before + 2.0).contains(&site.readings()));
    assert_eq!(site.head(1, team), Some(1 + CALLS as i64 / 2));
    // It is known now.
    let refused = elsewhere(door);
    ok(door.post(&path(team, "pull"), None, "{}"));
    assert_eq!(elsewhere(door), refused);
}

fn every_kind_of_call_waits_until_it_has_arrived(site: &mut Site) {
    let team = site.workspace(0);
    push(&mut site.admins[0], &team, &[put(1, "a", 1)]);
    let gateway = site.gateway.clone();
    let (door, team): (&Door, &str) = (&gateway, &team);
    let moving = Moving::depart(site, team, 0, 2);
    let refused = elsewhere(door);
    let exchange = &json!({"deviceId": "d", "cursor": 1, "ops": []}).to_string();
    let calls: [(&str, &str, &str, u16); 10] = [
        ("POST", "push", &note(2), 200),
        ("POST", "pull", "{}", 200),
        ("POST", "snapshot", "{}", 200),
        ("POST", "cursor", r#"{"deviceId": "e", "version": 1}"#, 200),
        ("POST", "exchange", exchange, 200),
        ("GET", "members", "", 200),
        ("PUT", "members/ann", r#"{"role": "owner"}"#, 204),
        ("DELETE", "members/vic", "", 204),
        ("GET", "status", "", 200),
        ("GET", "explain?table=notes&pk=a", "", 200),
    ];
    thread::scope(|scope| {
        let asked = calls.map(|(method, what, body, status)| {
            scope.spawn(move || {
                let answer = door.send(method, &path(team, what), None, body);
                assert_eq!(answer.status, status, "{what}: {answer:?}");
            })
        });
        let live = Live::open(door, &path(team, "live"), None);
        // More than once: they try again while it is under way.
        until("all have been refused", || elsewhere(door) > refused + 2.0 * calls.len() as f64);
        moving.arrive(site);
        asked.into_iter().for_each(|call| call.join().unwrap());
        assert_eq!(live.versions_until(2), [1, 2]);
    });
    assert_eq!(site.head(2, team), Some(2));
}

/// They are one transaction, of which nothing is done.
fn pushes_that_wait_together_are_stored_where_it_has_arrived(fleet: &Fleet, site: &mut Site) {
    const WAITING: u64 = 6;
    let team = &*site.workspace(0);
    push(&mut site.admins[0], team, &[put(1, "a", 1)]);
    let moving = Moving::begin(site, team, 0, 1);
    let mut session = fleet.clusters[0].connect("moves").unwrap();
    let mut holder = session.transaction().unwrap();
    let lock = "select from sync_ext.workspace where workspace_id = $1 for update";
    holder.execute(lock, &[&team]).unwrap();
    let door: &Door = &site.gateway.clone();
    let refused = elsewhere(door);
    thread::scope(|scope| {
        let mut asked = vec![scope.spawn(|| door.post(&path(team, "push"), None, &note(2)))];
        until_a_push_waits(&mut site.admins[0]);
        // Each has two ops, and one that is refused.
        for id in 0..WAITING {
            let two = [put(10 + id, "b", 10 + id), put(20 + id, &format!("c{id}"), 1)];
            let body = format!("[{}, {{}}]", two.join(","));
            asked.push(scope.spawn(move || door.post(&path(team, "push"), None, &body)));
            door.until_waiting(id as usize + 1);
        }
        moving.hold(&mut holder);
        holder.commit().unwrap();
        until("all have been refused", || elsewhere(door) > refused + WAITING as f64);
        moving.arrive(site);
        for (number, asked) in asked.into_iter().enumerate() {
            let results = ok(asked.join().unwrap())["results"].as_array().unwrap().clone();
            let stored = results.iter().filter(|result| result["success"] == true).count();
            let expected = if number == 0 { (1, 1) } else { (2, 3) };
            assert_eq!((stored, results.len()), expected);
        }
    });
    assert_eq!(site.head(1, team), Some(2 + 2 * WAITING as i64));
}

fn what_takes_too_long_may_succeed_later(fleet: &Fleet, site: &mut Site) {
    let hasty = fleet.gateway("moves", &[TRUSTED, ("GATEWAY_CALL_TIMEOUT", "1")]);
    let team = site.workspace(0);
    push(&mut site.admins[0], &team, &[put(1, "a", 1)]);
    let moving = Moving::depart(site, &team, 0, 1);
    for (what, body) in [("push", &*note(2)), ("pull", "{}")] {
        let answer = hasty.post(&path(&team, what), None, body);
        assert_eq!((answer.status, &*answer.code()), (503, "SX004"), "{answer:?}");
        assert_eq!(answer.json()["error"]["message"], "workspace is elsewhere");
    }
    moving.arrive(site);
    ok(hasty.post(&path(&team, "push"), None, &note(2)));
    assert_eq!(site.head(1, &team), Some(2));
}

/// Servers have changed buckets, which nobody has told the gateway.
fn a_new_workspace_is_made_where_its_bucket_is_now(site: &mut Site) {
    let team = site.workspace(0);
    for (server, bucket) in [(0, 2), (2, 0)] {
        let own = format!(
            "select sync_own_buckets(array(select b from generate_series(0, 1023) as b
                                           where b % 3 = {bucket}))"
        );
        site.admins[server].batch_execute(&own).unwrap();
    }
    let swap = "update sync_router.bucket set shard = 2 - shard where shard <> 1";
    site.router.batch_execute(swap).unwrap();
    let made =
        site.gateway.send("PUT", &format!("/workspaces/{team}"), None, r#"{"owner": "ann"}"#);
    assert_eq!(made.status, 204, "{made:?}");
    assert_eq!([site.head(0, &team), site.head(2, &team)], [None, Some(0)]);
}

fn a_stream_of_several_servers_goes_on(site: &mut Site) {
    let [first, second] = [site.workspace(0), site.workspace(1)];
    for (server, team) in [&first, &second].into_iter().enumerate() {
        push(&mut site.admins[server], team, &[put(1, "a", 1)]);
    }
    let live =
        Live::open(&site.gateway, &format!("/live?workspace={first}&workspace={second}"), None);
    let next = {
        let live = &live;
        move || {
            let event = live.event();
            (event.json()["workspaceId"].as_str().unwrap().to_owned(), event.versions())
        }
    };
    let told = |team: &str, version: i64| (team.to_owned(), vec![version]);
    assert_eq!([next(), next()], [told(&first, 1), told(&second, 1)]);
    let mut at = 0;
    for (version, to) in (2..).step_by(2).zip([2, 1, 0, 1]) {
        let moving = Moving::depart(site, &first, at, to);
        let refused = elsewhere(&site.gateway);
        until("the stream looks for it", || elsewhere(&site.gateway) > refused);
        // The other one is not kept waiting.
        push(&mut site.admins[1], &second, &[put(version, "a", version)]);
        assert_eq!(next(), told(&second, version as i64 / 2 + 1));
        moving.arrive(site);
        for version in [version, version + 1] {
            push(&mut site.admins[to], &first, &[put(version, "a", version)]);
            assert_eq!(next(), told(&first, version as i64));
        }
        at = to;
    }
}

fn one_that_is_between_servers_is_listed_once(site: &mut Site) {
    let team = site.workspace(0);
    push(&mut site.admins[0], &team, &[put(1, "a", 1)]);
    let require_one = |site: &Site| {
        let listed = ok(site.gateway.get("/workspaces", None))["workspaces"].clone();
        let of_team = listed.as_array().unwrap().iter().filter(|one| one["workspaceId"] == *team);
        assert!(of_team.map(|one| &one["serverVersion"]).eq([&json!(1)]), "{listed}");
    };
    let moving = Moving::depart(site, &team, 0, 1);
    require_one(site);
    moving.arrive(site);
    require_one(site);
    site.reload();
    require_one(site);
}

/// A phone pushes one edit after the other and a laptop follows, while their workspace goes
/// round the servers.
fn devices_that_sync_meanwhile_lose_nothing(site: &mut Site) {
    const MOVES: usize = 8;
    let team = &*site.workspace(0);
    let create = "select sync_create_workspace($1, 'ann')::text";
    site.admins[0].execute(create, &[&team]).unwrap();
    let (door, last): (&Door, _) = (&site.gateway.clone(), &AtomicI64::new(i64::MAX));
    let laptop = thread::scope(|scope| {
        scope.spawn(|| {
            let mut phone = Device::new("phone", team);
            for edit in 1.. {
                phone.put(edit, &format!("r{}", edit % 10));
                until("the edit is pushed", || devices::push(&mut phone, door));
                phone.outbox.clear();
                if edit as i64 >= last.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        let laptop = scope.spawn(|| {
            let mut laptop = Follower::new(Device::new("laptop", team));
            while laptop.device.cursor < last.load(Ordering::SeqCst) {
                until("the laptop is told", || laptop.follow(door).is_some());
            }
            laptop
        });
        // Also if it fails: the devices would go on for ever.
        let end = End(last);
        for turn in 0..MOVES {
            let (from, to) = (turn % 3, (turn + 1) % 3);
            Moving::depart(site, team, from, to).arrive(site);
            let head = site.head(to, team).unwrap();
            until("edits are pushed there", || site.head(to, team).unwrap() > head + 5);
        }
        let head = site.head(MOVES % 3, team).unwrap();
        last.store(head + 20, Ordering::SeqCst);
        std::mem::forget(end);
        laptop.join().unwrap()
    });
    let head = site.head(MOVES % 3, team).unwrap();
    // Each was stored once, and told once, over one stream.
    assert_eq!(laptop.seen, (1..=head).collect::<Vec<i64>>());
    assert_eq!(laptop.connections, 1);
    assert_eq!(laptop.device.state(), of_server(&mut site.admins[MOVES % 3], team).unwrap());
}

struct End<'e>(&'e AtomicI64);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::SeqCst);
    }
}
