//! The postmaster killed while sessions push: what was acknowledged is there,
//! what was not is there as a whole or not at all.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;

use sync_ext_cluster::batch::{put, versions};
use sync_ext_cluster::cluster::{Cluster, Stop};

const SESSIONS: u64 = 3;
const BATCH: u64 = 5;

#[test]
fn acknowledged_pushes_survive_a_killed_postmaster() {
    let mut cluster = Cluster::start("crash", &["fsync=on"]).unwrap();
    let mut admin = cluster.create_database("app").unwrap();
    admin.execute("select sync_register_table('notes')", &[]).unwrap();
    drop(admin);
    for round in 0..3 {
        // First op of the batch -> the versions that its push was answered.
        let acknowledged: Mutex<BTreeMap<u64, Vec<i64>>> = Mutex::default();
        thread::scope(|scope| {
            for session in 0..SESSIONS {
                let (cluster, acknowledged) = (&cluster, &acknowledged);
                let mut client = cluster.connect("app").unwrap();
                scope.spawn(move || {
                    for batch in 0.. {
                        let first = ((round * SESSIONS + session) * 1_000_000 + batch) * BATCH;
                        let ops: Vec<String> = (first..first + BATCH)
                            .map(|id| put(id, &format!("pk-{}", id % 7), id))
                            .collect();
                        let ops = format!("[{}]", ops.join(","));
                        let sql = "select sync_push('w', $1::text::json)::text";
                        // An error is the server's death.
                        let Ok(row) = client.query_one(sql, &[&ops]) else { return };
                        acknowledged.lock().unwrap().insert(first, versions(row.get(0), "results"));
                    }
                });
            }
            while acknowledged.lock().unwrap().len() < 100 {
                thread::yield_now();
            }
            cluster.signal_server(Stop::Kill);
        });
        cluster.stop_server(Stop::Kill).unwrap();
        cluster.start_server().unwrap();

        let mut client = cluster.connect("app").unwrap();
        let row = client
            .query_one(
                "select count(*), max(server_version), (select head from sync_ext.workspace)
                   from sync_ext.change_log",
                &[],
            )
            .unwrap();
        let (count, max, head): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        assert_eq!((count, max), (head, head), "versions are 1..head");
        assert_eq!(head % BATCH as i64, 0, "a push is stored as a whole or not at all");
        for (first, versions) in acknowledged.into_inner().unwrap() {
            for (id, version) in (first..first + BATCH).zip(versions) {
                let found: i64 = client
                    .query_one(
                        "select server_version from sync_ext.change_log where op_id = $1::text::uuid",
                        &[&sync_ext_cluster::batch::op_id(id)],
                    )
                    .unwrap()
                    .get(0);
                assert_eq!(found, version, "an acknowledged op is where it was told");
            }
        }
    }
}
