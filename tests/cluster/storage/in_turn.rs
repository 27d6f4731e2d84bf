//! Rows that were stored one after the other, and are looked up in that order.

use postgres::Client;
use serde_json::Value;
use sync_ext_harness::batch::{delete, push, put};
use sync_ext_harness::steps::{Stage, age, gc, outcome};

#[test]
fn the_row_after_the_last_is_not_taken_for_another() {
    let d = put(3, "d", 9);
    let c = put(3, "c", 9);
    let task = c.replacen("notes", "tasks", 1);
    for (workspace, next) in [("w", d), ("w", task), ("v", c)] {
        let admin = &mut Stage::new().admin;
        admin.batch_execute("select sync_register_table('tasks')").unwrap();
        push(admin, "w", &[put(1, "a", 1), put(2, "b", 1)]);
        push(admin, workspace, std::slice::from_ref(&next));
        push(admin, "w", &[put(11, "a", 2), put(12, "b", 2), put(13, "c", 1)]);
        let sql =
            "select string_agg(concat(workspace_id, table_name, pk, clock), ' ' order by clock, pk)
            from sync_ext.record join sync_ext.workspace using (workspace_key)";
        let records = outcome(admin, sql).unwrap();
        let (others, other) = records.rsplit_once(' ').unwrap();
        assert_eq!(others, "wnotesc1 wnotesa2 wnotesb2", "beside {next}");
        assert!(other.ends_with('9'), "{other}");
    }
}

/// What is replied to the ops, in one push or each in its own.
fn replies(admin: &mut Client, workspace: &str, batches: &[&[String]]) -> Vec<Value> {
    let mut results = Vec::new();
    for batch in batches {
        let sql = format!("select sync_push('{workspace}', '[{}]') -> 'results'", batch.join(","));
        let told: Vec<Value> = serde_json::from_str(&outcome(admin, &sql).unwrap()).unwrap();
        results.extend(told);
    }
    for result in &mut results {
        if let Some(Value::Object(winner)) = result.get_mut("winner") {
            winner.remove("serverDeletedAt");
        }
    }
    results
}

#[test]
fn together_as_each_alone() {
    let admin = &mut Stage::new().admin;
    let pk = |n: u64| format!("{n:03}");
    let of = |range: std::ops::Range<u64>, op: &dyn Fn(u64) -> String| -> Vec<String> {
        range.map(op).collect()
    };
    let created = of(0..300, &|n| put(n, &pk(n), 1));
    let updated: Vec<String> = of(0..300, &|n| put(1000 + n, &pk(n), 2));
    let updated: Vec<String> =
        updated.into_iter().enumerate().filter(|(n, _)| n % 3 != 0).map(|(_, op)| op).collect();
    let deleted = of(50..150, &|n| delete(2000 + n, &pk(n), 3));
    // They take the places of what was deleted.
    let others = of(0..100, &|n| put(3000 + n, &format!("{}x", pk(n)), 1));
    let mixed = of(0..300, &|n| match n % 4 {
        0 => put(4000 + n, &format!("{}x", pk(n)), 2),
        1 => put(4000 + n, &pk(n), 1),
        2 => delete(4000 + n, &pk(n), 4),
        _ => put(4000 + n, &pk(n), 5),
    });
    for (step, batch) in [&created, &updated, &deleted, &others, &mixed, &updated, &mixed, &created]
        .iter()
        .enumerate()
    {
        let each: Vec<&[String]> = batch.chunks(1).collect();
        let (together, alone) =
            (replies(admin, "together", &[batch]), replies(admin, "alone", &each));
        assert_eq!(together.len(), batch.len());
        for pair in together.iter().zip(&alone) {
            assert_eq!(pair.0, pair.1, "batch {step}");
        }
        if step == 2 {
            age(admin);
            for workspace in ["together", "alone"] {
                assert!(gc(admin, workspace)["tombstonesDeleted"].as_i64() > Some(0));
            }
            admin.batch_execute("vacuum sync_ext.record, sync_ext.change_log").unwrap();
        }
    }
}

#[test]
fn most_look_ups_in_turn_do_without_the_index() {
    let admin = &mut Stage::new().admin;
    let ops = |id: u64, clock: u64| -> Vec<String> {
        (0..500).map(|n| put(id + n, &format!("{n:03}"), clock)).collect()
    };
    push(admin, "w", &ops(0, 1));
    // Updated rows stay behind their entries of the index.
    push(admin, "w", &ops(1000, 2));
    for again in [ops(2000, 3), ops(2000, 3)] {
        let mut transaction = admin.transaction().unwrap();
        push(&mut transaction, "w", &again);
        let scans = "select pg_stat_get_xact_numscans('sync_ext.record_pkey'::regclass)::text";
        let scans: i64 = outcome(&mut transaction, scans).unwrap().parse().unwrap();
        transaction.commit().unwrap();
        assert!(scans < 100, "{scans} scans for 500 records");
    }
}
