//! Access in short form; and that the run sees what it is there to see. A
//! failure prints its seed and the shortest history found that fails.

use sync_ext_proof::access;
use sync_ext_proof::common::tally::Tally;
use sync_ext_proof::common::tamper::tamper;

const SEEDS: std::ops::Range<u64> = 0..12;
const STEPS: usize = 400;

#[test]
fn users_receive_only_what_is_theirs() {
    let cluster = access::start("access").unwrap();
    let mut total = Tally::default();
    for seed in SEEDS {
        match access::run(&cluster, seed, STEPS) {
            Ok(tally) => total.join(&tally),
            Err(violation) => panic!("{violation:#}"),
        }
    }
    print!("{total}");
    for (what, least) in [
        ("exchanges", 200),
        ("exchanges that acknowledged", 25),
        ("conflicts in the view", 100),
        ("workspaces whose status was read", 20),
        ("ops explained", 20),
        ("hidden records not explained", 3),
        ("patches of diaries accepted from users", 50),
        ("conditions not met", 50),
    ] {
        assert!(total.count(what) >= least, "{what}: fewer than {least}");
    }
}

/// What the run says of a server on which a function does what its callers may
/// not do.
fn violation(cluster: &str, name: &str, body: &str) -> String {
    let cluster = access::start(cluster).unwrap();
    let mut client = cluster.connect(access::DATABASE).unwrap();
    tamper(&mut client, name, body).unwrap();
    client.batch_execute(&format!("alter function {name} security definer")).unwrap();
    let violation = SEEDS.clone().find_map(|seed| access::run(&cluster, seed, STEPS).err());
    let violation = format!("{:#}", violation.expect("no history shows it"));
    println!("seen: {violation}\n");
    violation
}

/// A pull that gives a hint where it is refused.
fn hinting(cluster: &str, hint: &str) -> String {
    let body = format!(
        "declare found text;
         begin
           return genuine(workspace_id, cursor, page_limit, tables, latest, proof);
         exception when insufficient_privilege then
           get stacked diagnostics found = pg_exception_detail;
           raise sqlstate '42501' using message = sqlerrm, detail = found,
             hint = coalesce(({hint}), 'none');
         end;"
    );
    violation(cluster, "sync_pull", &body)
}

#[test]
fn a_hint_that_names_others_records_is_seen() {
    let hint = "select string_agg(pk, ' ') from sync_ext.record where table_name = 'diary'";
    assert!(hinting("access-records", hint).contains("was shown d"));
}

#[test]
fn a_workspace_whose_existence_shows_is_seen() {
    let hint = "select 'is it you?' from sync_ext.workspace w where w.workspace_id = $1";
    assert!(hinting("access-workspace", hint).contains("a caller who is not a member"));
}

#[test]
fn an_owner_who_is_forgotten_is_seen() {
    let body = "
        reply := genuine(workspace_id, ops);
        update sync_ext.record set owner = '' where deleted;
        return reply;";
    violation("access-owner", "sync_push", body);
}
