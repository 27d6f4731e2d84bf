use super::*;
use crate::batch::{op, op_id, put, with};

fn revision(id: u64, clock: u64) -> String {
    format!(r#"{{"clock":{clock},"hlc":"h","opId":"{}"}}"#, op_id(id))
}

fn with_outbox(ops: &[String]) -> Device {
    let mut device = Device::new("phone", "team");
    device.outbox = ops.iter().map(|op| Pending::of(op.clone()).unwrap()).collect();
    device
}

/// A patch of the put 1 with clock 1.
fn patch(id: u64, clock: u64, payload: &str) -> String {
    with(&op(id, "n", clock, "patch", payload), "base", &revision(1, 1))
}

fn answer(device: &mut Device, id: u64, result: &str) {
    device.push_answered(&[op_id(id)], &format!("{{\"results\":[{{{result}}}]}}")).unwrap();
}

fn pull(device: &mut Device, changes: &str, head: i64) {
    let reply = format!(
        r#"{{"changes":[{changes}],"nextCursor":{head},"hasMore":false,"serverVersion":{head},"requiresSnapshot":false}}"#
    );
    device.pull_answered(&reply).unwrap();
}

/// The put 1, or the record after a patch of it, of which these fields have revisions.
fn change(version: i64, stamp: &str, payload: &str, fields: &str) -> String {
    let base = if version == 1 { String::new() } else { format!("\"base\":{},", revision(1, 1)) };
    format!(
        r#"{{"serverVersion":{version},"tableName":"notes","pk":"n","op":"put","applied":true,{base}"payload":{payload},"fields":{fields},"stamp":{stamp}}}"#
    )
}

/// The number of ops that lost to a delete, if `winner` is in the result of an op of
/// version 5.
fn lost(winner: &str) -> usize {
    let mut device = with_outbox(&[put(1, "n", 1)]);
    let result = r#"{"success":true,"serverVersion":5,"applied":false"#;
    let reply = format!("{{\"results\":[{result},\"replayed\":true{winner}}}]}}");
    device.push_answered(&[op_id(1)], &reply).unwrap().1.len()
}

#[test]
fn an_op_that_lost_to_a_delete_is_returned_with_its_record_as_the_outbox_has_it() {
    let late = with(&op(4, "n", 5, "patch", r#"{"n":4}"#), "base", &revision(2, 2));
    let mut device = with_outbox(&[put(1, "n", 1), put(2, "n", 2), put(3, "m", 3), late]);
    let winner = format!(r#"{{"kind":"delete","serverVersion":4,"revision":{}}}"#, revision(9, 9));
    let result = format!(r#"{{"success":true,"serverVersion":5,"winner":{winner}}}"#);
    let reply = format!(r#"{{"results":[{result}]}}"#);
    let (_, lost) = device.push_answered(&[op_id(1)], &reply).unwrap();
    assert_eq!(lost[0].seen.payload["n"], 4);
    assert_eq!(lost[0].seen.register.as_ref().unwrap().op_id, op_id(2));
}

#[test]
fn an_op_lost_to_a_delete_only_where_the_delete_came_first() {
    let winner = |kind: &str, version: i64| {
        let kind = format!("\"kind\":\"{kind}\",\"serverVersion\":{version}");
        format!(",\"winner\":{{{kind},\"revision\":{}}}", revision(9, 9))
    };
    assert_eq!(lost(&winner("delete", 4)), 1);
    assert_eq!(lost(&winner("delete", 6)), 0);
    assert_eq!(lost(&winner("put", 4)), 0);
    assert_eq!(lost(""), 0);
}

#[test]
fn a_patch_leaves_when_its_fields_are_held_by_it_or_later_ones_and_never_unanswered() {
    let mut device = with_outbox(&[patch(2, 3, r#"{"a":2,"b":2}"#)]);
    let by = |a: u64| format!(r#"{{"a":{},"b":{}}}"#, revision(7, a), revision(7, 5));
    pull(&mut device, &change(2, &revision(7, 5), "{}", &by(5)), 2);
    assert_eq!(device.outbox.len(), 1, "not answered");
    answer(&mut device, 2, r#""success":true,"serverVersion":3,"applied":true"#);
    pull(&mut device, &change(3, &revision(7, 2), "{}", &by(2)), 3);
    assert_eq!(device.outbox[0].told, None, "a is held by a lower one: it is pushed again");
    answer(&mut device, 2, r#""success":true,"serverVersion":4,"applied":true"#);
    pull(&mut device, &change(4, &revision(2, 3), "{}", &by(3)), 4);
    assert_eq!(device.outbox.len(), 0);
    assert_eq!(device.clocks[&("notes".to_owned(), "n".to_owned())], 5);
}

#[test]
fn a_patch_whose_base_is_missing_waits_for_a_complete_pull() {
    let missing = r#""success":false,"errorCode":"BASE_MISSING""#;
    let mut device = with_outbox(&[patch(2, 3, r#"{"a":2}"#)]);
    answer(&mut device, 2, missing);
    assert!(device.outbox[0].waits);
    pull(&mut device, &change(1, &revision(1, 1), "{}", "{}"), 1);
    assert!(!device.outbox[0].waits, "its base is there: it is pushed again");
    answer(&mut device, 2, missing);
    device.synced.clear();
    pull(&mut device, "", 1);
    assert_eq!((device.outbox.len(), device.baseless), (0, 1));
}

#[test]
fn the_user_sees_synced_state_and_then_the_outbox_in_the_order_of_revisions() {
    let other = with(&op(5, "n", 9, "patch", r#"{"a":5}"#), "base", &revision(4, 1));
    let mut device =
        with_outbox(&[patch(3, 7, r#"{"a":3}"#), patch(2, 3, r#"{"a":2,"b":2}"#), other]);
    let fields = format!(r#"{{"b":{}}}"#, revision(7, 4));
    pull(&mut device, &change(2, &revision(7, 4), r#"{"a":0,"b":7}"#, &fields), 2);
    let seen = device.seen("notes", "n");
    assert_eq!((&seen.payload["a"], &seen.payload["b"]), (&3.into(), &7.into()));
    assert_eq!(seen.newest, Some(op_id(3)));
    device.outbox.push(Pending::of(put(6, "n", 8)).unwrap());
    assert_eq!(device.seen("notes", "n").payload.keys().collect::<Vec<_>>(), ["n"]);
}
