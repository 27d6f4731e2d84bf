//! Hostile input, in short; and that the run sees what it is there to see.

use sync_ext_cluster::cluster::Cluster;
use sync_ext_proof::hostile;
use sync_ext_proof::hostile::large::{self, Sizes};
use sync_ext_proof::tamper::tamper;

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
    ] {
        assert!(tally.count(what) > 0, "{what}: none");
    }
    a_changed_payload_is_seen_and_reduced(&cluster);
    an_internal_error_is_seen(&cluster);
    a_wrong_answer_to_a_neighbour_is_seen(&cluster);
    a_token_that_is_not_looked_at_is_seen(&cluster);
}

#[test]
fn large_input_takes_no_more_memory_than_it_must() {
    let cluster = Cluster::start("proof-large", &large::SETTINGS).unwrap();
    println!("{}", large::run(&cluster, SEED, SMALL).unwrap());
    a_further_copy_is_seen(&cluster);
}

fn violation(cluster: &Cluster, name: &str, body: &str) -> String {
    let mut client = hostile::prepare(cluster, "tampered").unwrap();
    tamper(&mut client, name, body).unwrap();
    let violation = hostile::attack(cluster, "tampered", SEED, 2000).unwrap_err();
    let violation = format!("{violation:#}");
    println!("seen: {violation}\n");
    assert!(violation.contains(&format!("seed {SEED}")), "{violation}");
    violation
}

fn a_changed_payload_is_seen_and_reduced(cluster: &Cluster) {
    let body = r"
        reply := genuine(workspace_id, ops);
        update sync_ext.change_log set payload = '{}' where payload::text like '%\\ud800%' and owner = '';
        return reply;";
    let violation = violation(cluster, "sync_push", body);
    let (_, smallest) = violation.split_once("the smallest batch").unwrap();
    assert!(smallest.contains("is stored as") && smallest.contains("ud800"), "{violation}");
    assert!(smallest.len() < 1200, "{violation}");
}

fn an_internal_error_is_seen(cluster: &Cluster) {
    let body = "
        if ops::text like '%1e999%' then
          raise sqlstate 'XX000' using message = 'unexpected';
        end if;
        return genuine(workspace_id, ops);";
    assert!(violation(cluster, "sync_push", body).contains("XX000"));
}

fn a_wrong_answer_to_a_neighbour_is_seen(cluster: &Cluster) {
    let body = "
        reply := genuine(workspace_id, ops);
        if reply::text like '%OVERSIZED%' then
          reply := replace(reply::text, '\"success\":true', '\"success\":false,
            \"errorCode\":\"OVERSIZED\",\"error\":\"\"')::json;
        end if;
        return reply;";
    assert!(violation(cluster, "sync_push", body).contains("by the contract stored"));
}

fn a_token_that_is_not_looked_at_is_seen(cluster: &Cluster) {
    let body = "return genuine(workspace_id, cursor, page_limit, tables, latest);";
    assert!(violation(cluster, "sync_pull", body).contains("sync_pull"));
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
