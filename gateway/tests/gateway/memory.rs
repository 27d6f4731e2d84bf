//! Memory that large replies took goes back to the system.

use std::thread;

use sync_ext_harness::cluster::Cluster;

use crate::support::process::until;
use crate::support::stand::{SERVER, Stand};

const MB: u64 = 1024;

#[test]
fn memory_of_large_replies_is_given_back() {
    let settings = [&SERVER[..], &["sync_ext.max_page_bytes=300MB"]].concat();
    let cluster = Cluster::start("gateway-memory", &settings).unwrap();
    let mut stand = Stand::trusting(&cluster, "memory");
    let fill = "select sync_push('team', (
                  select json_agg(json_build_object('tableName', 'notes', 'operation', 'put',
                    'pk', n::text, 'payload', json_build_object('text', repeat('x', 200000)),
                    'stamp', json_build_object('deviceId', 'd', 'opId', gen_random_uuid(),
                      'hlc', 'h', 'clock', 1)))
                  from generate_series(1, 500) n))::text";
    stand.admin.batch_execute(fill).unwrap();
    let before = stand.gateway.memory("VmRSS");
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let pull = r#"{"cursor": 0, "pageLimit": 1000}"#;
                let answer = stand.gateway.post("/workspaces/team/pull", None, pull);
                assert!(answer.status == 200 && answer.body.len() > 100_000_000);
            });
        }
    });
    let (peak, at_end) = (stand.gateway.memory("VmHWM"), stand.gateway.memory("VmRSS"));
    println!(
        "three replies of 100 MB at once: {} MB before, {} MB at most, {} MB at their end",
        before / MB,
        peak / MB,
        at_end / MB,
    );
    // The connections to the database end beside their answers.
    until("the memory is given back", || stand.gateway.memory("VmRSS") < before + 50 * MB);
}
