//! The simulator in short form; and that it sees what it is there to see. A
//! failure prints its seed and the shortest history found that fails.

use sync_ext_proof::common::tally::Tally;
use sync_ext_proof::common::tamper::tamper;
use sync_ext_proof::simulation;

const SEEDS: std::ops::Range<u64> = 0..20;
const STEPS: usize = 400;

#[test]
fn every_history_is_what_the_model_predicts() {
    let mut cluster = simulation::start("simulation").unwrap();
    let mut total = Tally::default();
    for seed in SEEDS {
        match simulation::run(&mut cluster, seed, STEPS) {
            Ok(tally) => total.join(&tally),
            Err(violation) => panic!("{violation:#}"),
        }
    }
    print!("{total}");
    for (what, least) in [
        ("exchanges", 200),
        ("exchanges that acknowledged", 100),
        ("exchanges whose pull was refused", 3),
        ("patches acknowledged", 200),
        ("conditions met", 100),
        ("conditions not met", 50),
        ("bases missing", 5),
        ("fields lost by patches that won others", 3),
        ("ops merged before they were sent", 30),
        ("leaves", 40),
        ("lists changed by what they add", 40),
        ("lists changed by whole snapshots", 40),
        ("changes of lists expired", 1),
        ("snapshots forced: scopes_changed", 5),
        ("scope fields set", 20),
    ] {
        assert!(total.count(what) >= least, "{what}: fewer than {least}");
    }
}

/// What the simulator says of a server that lies, and of the history that
/// shows it.
fn violation(cluster: &str, name: &str, body: &str) -> String {
    let mut cluster = simulation::start(cluster).unwrap();
    tamper(&mut cluster.connect(simulation::DATABASE).unwrap(), name, body).unwrap();
    let violation = SEEDS.clone().find_map(|seed| simulation::run(&mut cluster, seed, STEPS).err());
    let violation = format!("{:#}", violation.expect("no history shows it"));
    println!("seen: {violation}\n");
    violation
}

fn steps_shown(violation: &str) -> usize {
    violation.lines().filter(|line| line.trim_start().starts_with('+')).count()
}

#[test]
fn a_loser_shown_as_applied_is_seen() {
    let body = "reply := genuine(workspace_id, cursor, page_limit, tables, latest, proof, scopes);
                return replace(reply::text, '\"applied\":false', '\"applied\":true')::json;";
    let violation = violation("simulation-loser", "sync_pull", body);
    assert!(violation.contains("a pull was answered"), "{violation}");
    // Two edits of a record, pushed one after the other, and a pull.
    assert!(steps_shown(&violation) <= 6, "{violation}");
}

#[test]
fn a_purged_winner_is_seen() {
    let body = "reply := genuine(workspace_id, retention, batch_size);
                delete from sync_ext.change_log l using sync_ext.workspace w
                 where w.workspace_key = l.workspace_key
                   and l.server_version between 2 and w.gc_through;
                return reply;";
    assert!(violation("simulation-winner", "sync_gc", body).contains("after gc"));
}

#[test]
fn a_cursor_that_is_too_high_is_seen() {
    let body = "reply := genuine(workspace_id, cursor, page_limit, tables, latest, proof, scopes);
                if (reply ->> 'hasMore')::bool then
                  reply := replace(reply::text, '\"nextCursor\":', '\"nextCursor\":1')::json;
                end if;
                return reply;";
    assert!(violation("simulation-cursor", "sync_pull", body).contains("a pull was answered"));
}

#[test]
fn an_exchange_that_acknowledges_what_it_refuses_is_seen() {
    let body = "reply := genuine(workspace_id, device_id, cursor, ops, page_limit, tables, latest,
                                 proof, scopes);
                if (reply #>> '{pull,requiresSnapshot}')::bool then
                  perform sync_update_cursor(workspace_id, device_id,
                    least(cursor, (reply #>> '{push,serverVersion}')::bigint));
                end if;
                return reply;";
    let violation = violation("simulation-exchange", "sync_exchange", body);
    assert!(violation.contains("an exchange acknowledged"), "{violation}");
}
