//! Hostile input, in short; and that the run sees what it is there to see.

use sync_ext_harness::cluster::Cluster;
use sync_ext_proof::common::tamper::tamper;
use sync_ext_proof::hostile;
use sync_ext_proof::hostile::large::{self, Sizes};

const SEED: u64 = 1;
const SMALL: Sizes = Sizes { space: 8_000_000, ops: 20_000, depth: 20_000, payload: 8_000_000 };

#[test]
fn hostile_input_harms_neither_the_server_nor_the_good_ops_beside_it() {
    let cluster = Cluster::start("proof-hostile", &hostile::SETTINGS).unwrap();
    let tally = hostile::run(&cluster, SEED, 2000).unwrap();
    println!("{tally}");
    for what in [
        "forged page tokens served",
        "private payloads compared",
        "exchanges that acknowledged",
        "ops explained",
        "ops refused as BASE_MISSING",
        "ops refused as RECORD_CONFLICT",
        "ops refused as FIELD_CONFLICT",
    ] {
        assert!(tally.count(what) > 0, "{what}: none");
    }
}

#[test]
fn large_input_takes_no_more_memory_than_it_must() {
    let cluster = Cluster::start("proof-large", &large::SETTINGS).unwrap();
    println!("{}", large::run(&cluster, SEED, SMALL).unwrap());
    a_further_copy_is_seen(&cluster);
}

fn violation(cluster: &str, name: &str, body: &str) -> String {
    let cluster = Cluster::start(cluster, &hostile::SETTINGS).unwrap();
    let mut client = hostile::prepare(&cluster, "hostile").unwrap();
    tamper(&mut client, name, body).unwrap();
    let violation = hostile::attack(&cluster, "hostile", SEED, 2000).unwrap_err();
    let violation = format!("{violation:#}");
    println!("seen: {violation}\n");
    assert!(violation.contains(&format!("seed {SEED}")), "{violation}");
    violation
}

#[test]
fn a_changed_payload_is_seen_and_reduced() {
    let body = r"
        reply := genuine(workspace_id, ops);
        update sync_ext.change_log set payload = '{}' where payload::text like '%\\ud800%' and owner = '';
        return reply;";
    let violation = violation("hostile-payload", "sync_push", body);
    let (_, smallest) = violation.split_once("the smallest batch").unwrap();
    assert!(smallest.contains("stored, but wrong") && smallest.contains("ud800"), "{violation}");
    assert!(smallest.len() < 1200, "{violation}");
}

#[test]
fn an_internal_error_is_seen() {
    let body = "
        if ops::text like '%1e999%' then
          raise sqlstate 'XX000' using message = 'unexpected';
        end if;
        return genuine(workspace_id, ops);";
    assert!(violation("hostile-error", "sync_push", body).contains("XX000"));
}

#[test]
fn a_wrong_answer_to_a_neighbour_is_seen() {
    let body = "
        reply := genuine(workspace_id, ops);
        if reply::text like '%OVERSIZED%' then
          reply := replace(reply::text, '\"success\":true', '\"success\":false,
            \"errorCode\":\"OVERSIZED\",\"error\":\"x\"')::json;
        end if;
        return reply;";
    assert!(violation("hostile-neighbour", "sync_push", body).contains("a push was answered"));
}

#[test]
fn a_token_that_is_not_looked_at_is_seen() {
    let body = "return genuine(workspace_id, cursor, page_limit, tables, latest, null, scopes);";
    assert!(violation("hostile-token", "sync_pull", body).contains("sync_pull"));
}

fn a_further_copy_is_seen(cluster: &Cluster) {
    let mut client = large::prepare(cluster).unwrap();
    tamper(
        &mut client,
        "sync_push",
        "reply := ops; return genuine(workspace_id, (reply::text)::json);",
    )
    .unwrap();
    let violation = large::measure(cluster, SEED, SMALL).unwrap_err();
    println!("seen: {violation:#}");
    assert!(violation.to_string().starts_with("memory of white space"), "{violation:#}");
}
