//! Patches of several sessions, and patches in batches that are large enough to be
//! stored without look-ups.

use serde_json::json;
use sync_ext_harness::batch::{delete, op, op_id, push};
use sync_ext_harness::device::call;
use sync_ext_harness::steps::{Stage, pid, pull};

use crate::patching::{allow_patches, patch, payload, payloads, results, with};

fn stage() -> Stage {
    let mut stage = Stage::new();
    allow_patches(&mut stage.admin);
    stage
}

#[test]
fn two_sessions_that_patch_two_fields_at_the_same_time_both_stay() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[op(1, "a", 1, "put", r#"{"x":1,"y":1}"#)]);
    let mut first = stage.session();
    let mut transaction = first.transaction().unwrap();
    push(&mut transaction, "w", &[patch(2, "a", 3, (1, 1), r#"{"x":2}"#)]);
    let waiting = stage.blocked(pid(&mut transaction), |second| {
        push(second, "w", &[patch(3, "a", 2, (1, 1), r#"{"y":3}"#)])
    });
    transaction.commit().unwrap();
    assert_eq!(waiting.join().unwrap(), [3]);
    assert_eq!(payload(&mut stage.admin, "w"), r#"{"x":2,"y":3}"#);
}

#[test]
fn of_two_sessions_that_patch_one_field_the_higher_revision_stays() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[op(1, "a", 1, "put", r#"{"x":1}"#)]);
    let mut first = stage.session();
    let mut transaction = first.transaction().unwrap();
    push(&mut transaction, "w", &[patch(2, "a", 3, (1, 1), r#"{"x":2}"#)]);
    let waiting = stage.blocked(pid(&mut transaction), |second| {
        results(second, "w", &[patch(3, "a", 2, (1, 1), r#"{"x":3,"y":3}"#)])
    });
    transaction.commit().unwrap();
    let told = waiting.join().unwrap().remove(0);
    assert_eq!((&told["applied"], &told["lost"]), (&json!(true), &json!(["x"])));
    assert_eq!(payload(&mut stage.admin, "w"), r#"{"x":2,"y":3}"#);
}

#[test]
fn a_patch_that_waited_for_a_put_or_delete_loses_to_it() {
    let mut stage = stage();
    for (pk, later) in [("a", op(2, "a", 2, "put", "{}")), ("b", delete(2, "b", 2))] {
        push(&mut stage.admin, pk, &[op(1, pk, 1, "put", r#"{"x":1}"#)]);
        let mut first = stage.session();
        let mut transaction = first.transaction().unwrap();
        push(&mut transaction, pk, &[later]);
        let waiting = stage.blocked(pid(&mut transaction), move |second| {
            results(second, pk, &[patch(3, pk, 9, (1, 1), r#"{"x":3}"#)])
        });
        transaction.commit().unwrap();
        let lost = waiting.join().unwrap().remove(0);
        assert_eq!(lost["applied"], false, "{lost}");
        assert_eq!(lost["winner"]["revision"]["opId"], op_id(2), "{lost}");
    }
}

#[test]
fn of_two_sessions_that_expect_the_same_entry_one_is_refused() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[op(1, "a", 1, "put", r#"{"x":1}"#)]);
    let expects = |id, clock| {
        let patch = patch(id, "a", clock, (1, 1), &format!("{{\"x\":{id}}}"));
        with(&patch, &format!(r#""expected":"{}""#, op_id(1)))
    };
    let mut first = stage.session();
    let mut transaction = first.transaction().unwrap();
    push(&mut transaction, "w", &[expects(2, 2)]);
    let waiting =
        stage.blocked(pid(&mut transaction), move |second| results(second, "w", &[expects(3, 3)]));
    transaction.commit().unwrap();
    let refused = waiting.join().unwrap().remove(0);
    assert_eq!(refused["errorCode"], "RECORD_CONFLICT", "{refused}");
    assert_eq!(refused["current"]["payload"], json!({"x": 2}));
    assert_eq!(payload(&mut stage.admin, "w"), r#"{"x":2}"#);
}

/// Puts of `count` records, and patches of each on two fields.
fn puts_and_patches(count: u64) -> (Vec<String>, Vec<String>) {
    let pk = |n| format!("pk-{n:02}");
    let put = |n| op(n, &pk(n), 1, "put", r#"{"x":0,"y":0}"#);
    let patches = |n| {
        [("x", 100 + n, 2), ("y", 200 + n, 3)].map(|(field, id, clock)| {
            patch(id, &pk(n), clock, (n, 1), &format!("{{\"{field}\":{n}}}"))
        })
    };
    ((0..count).map(put).collect(), (0..count).flat_map(patches).collect())
}

fn patched(count: u64) -> Vec<(String, String)> {
    (0..count).map(|n| (format!("pk-{n:02}"), format!(r#"{{"x":{n},"y":{n}}}"#))).collect()
}

#[test]
fn a_large_batch_patches_the_records_that_it_creates() {
    let mut stage = stage();
    let (puts, patches) = puts_and_patches(12);
    let batch = [puts, patches].concat();
    assert_eq!(push(&mut stage.admin, "w", &batch), (1..=36).collect::<Vec<i64>>());
    assert_eq!(payloads(&mut stage.admin, "w"), patched(12));
    // Each record is logged as put, and whole after its last patch.
    let sql = "select count(*) filter (where patch is null) || ' '
                   || count(*) filter (where patch is not null and payload is not null) || ' '
                   || count(*) filter (where payload is null)
                 from sync_ext.change_log";
    assert_eq!(call(&mut stage.admin, sql, &[]).unwrap(), "12 12 12");
}

/// That its records are new is presumed of their first puts, and wrong here.
#[test]
fn a_large_batch_patches_records_that_are_there_and_records_that_it_creates() {
    let mut stage = stage();
    let (puts, patches) = puts_and_patches(12);
    push(&mut stage.admin, "w", &puts[..6]);
    let replies = results(&mut stage.admin, "w", &[puts, patches].concat());
    for (n, reply) in replies.iter().enumerate() {
        assert_eq!(reply["applied"], true, "{reply}");
        assert_eq!(reply["replayed"] == true, n < 6, "{reply}");
    }
    assert_eq!(payloads(&mut stage.admin, "w"), patched(12));
}

#[test]
fn a_large_retry_of_patches_is_all_replays() {
    let mut stage = stage();
    let (puts, patches) = puts_and_patches(12);
    push(&mut stage.admin, "w", &puts);
    // One lost a field at its turn, and another one everything since.
    let later = patch(300, "pk-00", 4, (0, 1), r#"{"x":0,"z":0}"#);
    push(&mut stage.admin, "w", &[later]);
    let first = results(&mut stage.admin, "w", &patches);
    assert_eq!(first[0]["applied"], false);
    let last = patch(301, "pk-01", 9, (1, 1), r#"{"x":1,"y":1}"#);
    push(&mut stage.admin, "w", &[last]);
    let again = results(&mut stage.admin, "w", &patches);
    for (n, (first, again)) in first.iter().zip(&again).enumerate() {
        assert_eq!(again["replayed"], true, "{again}");
        assert_eq!(again["serverVersion"], first["serverVersion"]);
        assert_eq!(again["applied"], ![0, 2, 3].contains(&n), "{n}: {again}");
    }
    assert_eq!(again[2]["winner"]["payload"], json!({"x": 1, "y": 1}));
    assert_eq!(pull(&mut stage.admin, "w", 0, 1, None)["serverVersion"], 38);
    assert_eq!(payloads(&mut stage.admin, "w")[1..], patched(12)[1..]);
}

#[test]
fn an_exchange_stores_a_patch_and_returns_those_of_others() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[op(1, "a", 1, "put", r#"{"x":1,"y":1}"#)]);
    let mut exchange = |device: &str, op: &str| {
        let sql = "select sync_exchange('w', $1, 1, $2::text::json)::text";
        let reply = call(&mut stage.admin, sql, &[&device, &format!("[{op}]")]).unwrap();
        serde_json::from_str::<serde_json::Value>(&reply).unwrap()
    };
    exchange("phone", &patch(2, "a", 2, (1, 1), r#"{"x":2}"#));
    let reply = exchange("laptop", &patch(3, "a", 2, (1, 1), r#"{"y":3}"#));
    let text = reply.to_string();
    let changes = reply["pull"]["changes"].as_array().unwrap_or_else(|| panic!("{text}"));
    assert_eq!(changes.len(), 2, "{text}");
    assert_eq!(changes[0]["patch"], json!({"x": 2}));
    assert_eq!(changes[0]["payload"], json!({"x": 2, "y": 1}));
    assert_eq!(changes[1]["payload"], json!({"x": 2, "y": 3}));
    assert_eq!(changes[1]["fields"]["x"]["opId"], op_id(2));
}
