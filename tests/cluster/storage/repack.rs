//! pg_repack, which copies a table while a trigger tells it what is written meanwhile:
//! what it would lose is refused. Where there is none it prints that it was not tried.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use sync_ext_harness::batch::{op_id, put};
use sync_ext_harness::database::Database;
use sync_ext_harness::steps::outcome;

use super::furnished;

#[test]
fn nothing_is_lost_while_a_table_is_repacked() {
    let database = furnished();
    let mut admin = database.session();
    let sql = "select from pg_available_extensions where name = 'pg_repack'";
    if admin.query(sql, &[]).unwrap().is_empty() {
        println!("pg_repack is not available here: it is not tried");
        return;
    }
    admin.batch_execute("create extension pg_repack").unwrap();
    let is_over = AtomicBool::new(false);
    let acknowledged = thread::scope(|scope| {
        let clients: Vec<_> = (1..=2)
            .map(|client| {
                let (database, is_over) = (&database, &is_over);
                scope.spawn(move || push_all_the_time(database, client, is_over))
            })
            .collect();
        for table in ["change_log", "record", "workspace", "change_log"] {
            let mut repack = database.cluster.client_program("pg_repack", &database.name);
            repack.args(["-d", &database.name, "-t", &format!("sync_ext.{table}")]);
            let output = repack.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        is_over.store(true, Ordering::Relaxed);
        let all: Vec<(Vec<u64>, u64)> = clients.into_iter().map(|it| it.join().unwrap()).collect();
        let refused: u64 = all.iter().map(|(_, refused)| refused).sum();
        println!(
            "{} acknowledged, {refused} times refused",
            all.iter().map(|it| it.0.len()).sum::<usize>()
        );
        assert!(refused > 0, "pg_repack was too fast to be met");
        all.into_iter().flat_map(|(ids, _)| ids).collect::<Vec<u64>>()
    });
    for id in &acknowledged {
        let sql = format!(
            "select count(*)::text from sync_ext.change_log where op_id = '{}'",
            op_id(*id)
        );
        assert_eq!(outcome(&mut admin, &sql).unwrap(), "1", "{id}");
    }
    // Versions are whole, every live record has its entry, and a snapshot lists all.
    let whole = "select (count(*) = max(server_version) and count(*) = max(w.head))::text
                   from sync_ext.change_log join sync_ext.workspace w using (workspace_key)
                  where workspace_id = 'w'";
    assert_eq!(outcome(&mut admin, whole).unwrap(), "true");
    let mut listed = 0;
    let mut token = None;
    loop {
        let page = "select json_array_length(page -> 'items'), page ->> 'nextPageToken'
                      from sync_snapshot('w', $1) as page";
        let row = admin.query_one(page, &[&token]).unwrap();
        listed += row.get::<_, i32>(0);
        token = row.get::<_, Option<String>>(1);
        if token.is_none() {
            break;
        }
    }
    let records =
        "select count(*)::text from sync_ext.record join sync_ext.workspace using (workspace_key)
                 where workspace_id = 'w'";
    assert_eq!(outcome(&mut admin, records).unwrap(), listed.to_string());
    let orphans = "select count(*)::text from sync_ext.record r left join sync_ext.change_log l
                     using (workspace_key, server_version) where l.op_id is null and not r.deleted";
    assert_eq!(outcome(&mut admin, orphans).unwrap(), "0");
}

/// Gives the ops that were acknowledged, and how often it was refused.
fn push_all_the_time(database: &Database, client: u64, is_over: &AtomicBool) -> (Vec<u64>, u64) {
    let mut session = database.session();
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    let mut id = client << 40;
    while !is_over.load(Ordering::Relaxed) {
        id += 1;
        let sql = format!("select sync_push('w', '[{}]')", put(id, &format!("p-{id}"), 1));
        match outcome(&mut session, &sql) {
            Ok(_) => acknowledged.push(id),
            Err(code) if code == "55000" => refused += 1,
            Err(code) => panic!("{code}"),
        }
    }
    (acknowledged, refused)
}
