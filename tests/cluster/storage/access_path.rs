//! What a call reads does not depend on statistics: a session that used every
//! function while the tables were empty, then meets many rows that no ANALYZE
//! has seen, still reads through the indexes, and only what it needs.

use postgres::Client;
use sync_ext_harness::batch;
use sync_ext_harness::batch::op_id;
use sync_ext_harness::steps::Stage;

const RECORDS: i64 = 200_000;

/// Sequential scans of, and rows fetched from, our tables since the
/// transaction began.
fn reads(client: &mut impl postgres::GenericClient) -> (i64, i64) {
    let row = client
        .query_one(
            "select sum(seq_scan)::bigint, sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint
               from pg_stat_xact_all_tables where schemaname = 'sync_ext'",
            &[],
        )
        .unwrap();
    (row.get(0), row.get(1))
}

fn ops(from: i64, count: i64) -> String {
    let ops: Vec<String> = (from..from + count)
        .map(|n| {
            format!(
                r#"{{"tableName":"notes","operation":"put","pk":"{n}","payload":{{}},"stamp":{{"deviceId":"d","opId":"{}","hlc":"h","clock":2}}}}"#,
                op_id(n as u64)
            )
        })
        .collect();
    format!("[{}]", ops.join(","))
}

fn fill(client: &mut Client) {
    client
        .batch_execute(&format!(
            "update sync_ext.workspace set head = {RECORDS};
             insert into sync_ext.change_log
               select workspace_key, n, 'notes', n::text, 'put', '{{}}', 1, 'h', 'd', gen_random_uuid(), true, null, now()
                 from sync_ext.workspace, generate_series(2, {RECORDS}) n;
             insert into sync_ext.record
               select workspace_key, 'notes', n::text, n, 1, 'h', gen_random_uuid(), false
                 from sync_ext.workspace, generate_series(2, {RECORDS}) n;
             update sync_ext.change_log set created_at = now() - interval '1 year'
              where server_version < 5000"
        ))
        .unwrap();
}

#[test]
fn plans_made_on_empty_tables_do_no_harm() {
    // No statistics but those that do not exist yet.
    let stage = Stage::new();
    let mut client = stage.session();

    let push = client.prepare("select sync_push('w', $1::text::json)::text").unwrap();
    let pull = client.prepare("select sync_pull('w', $1, 1000, latest => $2)::text").unwrap();
    let snapshot = client.prepare("select sync_snapshot('w', null, 1000)::text").unwrap();
    let acknowledge = client.prepare("select sync_update_cursor('w', 'd', $1)::text").unwrap();
    let collect = client.prepare("select sync_gc('w', batch_size => 1000)::text").unwrap();
    client.execute(&push, &[&ops(1, 1)]).unwrap();
    for _ in 0..10 {
        // Often enough for Postgres to settle on generic plans.
        client.execute(&push, &[&"[]"]).unwrap();
        client.execute(&pull, &[&0i64, &true]).unwrap();
        client.execute(&snapshot, &[]).unwrap();
        client.execute(&acknowledge, &[&1i64]).unwrap();
        client.execute(&collect, &[]).unwrap();
    }
    fill(&mut client);

    let mut transaction = client.transaction().unwrap();
    let mut measure =
        |what: &str, rows_per_op: i64, run: &mut dyn FnMut(&mut postgres::Transaction<'_>)| {
            let before = reads(&mut transaction);
            run(&mut transaction);
            let after = reads(&mut transaction);
            let (scans, rows) = (after.0 - before.0, after.1 - before.1);
            println!("{what}: {rows} rows read");
            assert_eq!(scans, 0, "{what} scanned a table");
            assert!(rows <= 1000 * rows_per_op + 50, "{what} read {rows} rows for 1000");
        };
    // 500 updates and 500 new records.
    let batch = ops(RECORDS - 499, 1000);
    measure("push", 1, &mut |t| {
        t.execute(&push, &[&batch]).unwrap();
    });
    measure("replay", 2, &mut |t| {
        t.execute(&push, &[&batch]).unwrap();
    });
    measure("pull", 1, &mut |t| {
        t.execute(&pull, &[&(RECORDS / 2), &false]).unwrap();
    });
    measure("pull latest", 2, &mut |t| {
        t.execute(&pull, &[&(RECORDS / 2), &true]).unwrap();
    });
    measure("empty pull", 0, &mut |t| {
        t.execute(&pull, &[&(RECORDS + 1000), &false]).unwrap();
    });
    measure("snapshot", 2, &mut |t| {
        t.execute(&snapshot, &[]).unwrap();
    });
    measure("acknowledge", 0, &mut |t| {
        t.execute(&acknowledge, &[&RECORDS]).unwrap();
    });
    measure("gc", 2, &mut |t| {
        t.execute(&collect, &[]).unwrap();
    });
}

/// Each of 2,000 workspaces has two records and five devices.
#[test]
fn the_status_of_a_workspace_reads_that_one_alone() {
    let stage = Stage::new();
    let mut client = stage.session();
    client
        .batch_execute(
            "insert into sync_ext.workspace (workspace_id, head)
               select 'w' || n, 2 from generate_series(1, 2000) n;
             insert into sync_ext.change_log
               select workspace_key, n, 'notes', n::text, 'put', '{}', 1, 'h', 'd', gen_random_uuid(), true, null, now()
                 from sync_ext.workspace, generate_series(1, 2) n;
             insert into sync_ext.record
               select workspace_key, 'notes', n::text, n, 1, 'h', gen_random_uuid(), false
                 from sync_ext.workspace, generate_series(1, 2) n;
             insert into sync_ext.device_cursor
               select workspace_key, 'd' || n, 1, now() from sync_ext.workspace, generate_series(1, 5) n;
             analyze",
        )
        .unwrap();
    for (sql, most) in [
        ("select sync_status('w1000')::text", 50),
        (
            "select string_agg(d::text, '') from sync_ext.device_status d where workspace_id = 'w1000'",
            20,
        ),
        (
            "select string_agg(w::text, '') from sync_ext.workspace_status w where workspace_id = 'w1000'",
            50,
        ),
        ("select sync_status(page_token => 'w10', page_limit => 2)::text", 100),
        (
            "select string_agg(w::text, '') from sync_ext.workspace_status w where workspace_id in ('w1000', 'w77')",
            100,
        ),
        ("select sync_list_workspaces('w10', 2)::text", 10),
        // All that there is, a few times.
        ("select sync_status()::text", 2_000 * 50),
    ] {
        let mut transaction = client.transaction().unwrap();
        let (_, before) = reads(&mut transaction);
        let told: String = transaction.query_one(sql, &[]).unwrap().get(0);
        assert!(told.contains("w1000"), "{told}");
        let rows = reads(&mut transaction).1 - before;
        println!("{sql}: {rows} rows read");
        assert!(rows <= most, "{sql} read {rows} rows");
    }
}

/// Of 2,000 workspaces three are due, and 100 are held back by a device.
#[test]
fn gc_reads_what_is_due_however_many_workspaces_are_idle() {
    let stage = Stage::new();
    let mut client = stage.session();
    client
        .batch_execute(
            "set sync_ext.gc_lock_time = 0;
             insert into sync_ext.workspace (workspace_id, head)
               select 'w' || n, 2 from generate_series(1, 2000) n;
             insert into sync_ext.change_log
               select workspace_key, n, 'notes', n::text, 'put', '{}', 1, 'h', 'd', gen_random_uuid(), true, null,
                      now() - interval '1 year'
                 from sync_ext.workspace, generate_series(1, 2) n;
             insert into sync_ext.record
               select workspace_key, 'notes', n::text, n, 1, 'h', gen_random_uuid(), false
                 from sync_ext.workspace, generate_series(1, 2) n;
             insert into sync_ext.device_cursor
               select workspace_key, 'd', 1, now() from sync_ext.workspace where workspace_id ~ '^w1..$'",
        )
        .unwrap();
    let collect = client.prepare("select sync_gc()::text").unwrap();
    let gc = |client: &mut Client| -> (i64, String) {
        let mut transaction = client.transaction().unwrap();
        let (_, before) = reads(&mut transaction);
        let reply = transaction.query_one(&collect, &[]).unwrap().get(0);
        let rows = reads(&mut transaction).1 - before;
        transaction.commit().unwrap();
        println!("{rows} rows read: {reply}");
        (rows, reply)
    };
    while gc(&mut client).1.contains("\"hasMore\":true") {}
    // Those that are held back are looked at twice.
    gc(&mut client);
    assert_eq!(gc(&mut client).0, 0);
    for n in [7, 777, 1777] {
        client.execute(&push_to(n), &[]).unwrap();
    }
    let (rows, reply) = gc(&mut client);
    assert!(reply.contains(r#""workspaces":3,"scanned":3"#), "{reply}");
    assert!(rows <= 3 * 20, "{rows} rows for three workspaces");
    client.batch_execute("select sync_update_cursor('w177', 'd', 2)").unwrap();
    assert!(gc(&mut client).0 <= 20);
    assert_eq!(gc(&mut client).0, 0);
}

fn push_to(workspace: u64) -> String {
    format!("select sync_push('w{workspace}', '[{}]')", batch::put(workspace, "new", 1))
}

#[test]
fn a_wrong_presumption_touches_no_row_that_is_there() {
    let stage = Stage::new();
    let mut client = stage.session();
    let all = |from: u64, clock: u64| -> Vec<String> {
        (0..26).map(|n| batch::put(from + n, &format!("record-number-{n:024}"), clock)).collect()
    };
    batch::push(&mut client, "w", &all(1, 1));
    // Updates, and one more device that creates the last of the records.
    let mut updates = all(100, 2);
    updates[25] = batch::put(125, &format!("record-number-{:024}", 25), 1);
    batch::push(&mut client, "w", &updates);
    // A new version of each of them fits on their page; two do not.
    let sql = "select pg_relation_size('sync_ext.record'), count(*) filter (where clock = 2) from sync_ext.record";
    let row = client.query_one(sql, &[]).unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (8192, 25));
}
