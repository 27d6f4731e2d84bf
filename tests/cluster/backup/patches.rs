//! Patched records in a restored dump and on a standby.

use serde_json::json;
use sync_ext_harness::batch::{op, op_id, push};
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::database::Database;
use sync_ext_harness::dump::dump;
use sync_ext_harness::replica::until_replayed;
use sync_ext_harness::state::tables;

use crate::patching::{allow_patches, items_and_changes, patch, payload, results};

/// A record that is put, patched twice in one call, and once more, with white space,
/// equal names and a number that no float holds.
fn history() -> [Vec<String>; 2] {
    let put = op(1, "a", 1, "put", r#"{ "n":1, "n":12345678901234567890 , "x":1}"#);
    let [first, second] = [(2, r#"{"x":2}"#), (3, r#"{"y":[ 3 ]}"#)]
        .map(|(id, payload)| patch(id, "a", id, (1, 1), payload));
    [vec![put, first, second], vec![patch(4, "a", 2, (1, 1), r#"{"x":4}"#)]]
}

const PATCHED: &str = r#"{ "n":1, "n":12345678901234567890 , "x":4,"y":[ 3 ]}"#;

#[test]
fn patched_records_survive_a_dump_and_are_patched_again() {
    let old = Database::new();
    let mut before = old.session();
    allow_patches(&mut before);
    for batch in history() {
        push(&mut before, "w", &batch);
    }
    assert_eq!(payload(&mut before, "w"), PATCHED);

    let new = Database::empty();
    dump(&old).restore_into(&new);
    let mut after = new.session();
    assert_eq!(tables(&mut after).unwrap(), tables(&mut before).unwrap());
    assert_eq!(items_and_changes(&mut after, "w"), items_and_changes(&mut before, "w"));

    // A retry is known, who holds a field too, and the record is patched where it was.
    let [first, second] = history();
    for (reply, version) in results(&mut after, "w", &[first, second].concat()).iter().zip(1..) {
        assert_eq!((&reply["replayed"], &reply["serverVersion"]), (&json!(true), &json!(version)));
    }
    let late = patch(5, "a", 2, (1, 1), r#"{"y":5,"z":5}"#);
    assert_eq!(results(&mut after, "w", &[late])[0]["lost"], json!(["y"]));
    let expected = PATCHED.replace("3 ]}", "3 ],\"z\":5}");
    assert_eq!(payload(&mut after, "w"), expected);
}

#[test]
fn a_standby_serves_patched_records() {
    let primary = Cluster::start("patched", &["fsync=off"]).unwrap();
    let mut on_primary = primary.create_database("app").unwrap();
    allow_patches(&mut on_primary);
    let [first, second] = history();
    push(&mut on_primary, "w", &first);
    let standby = primary.standby("patched-standby").unwrap();
    let mut on_standby = standby.connect("app").unwrap();
    push(&mut on_primary, "w", &second);
    until_replayed(&mut on_primary, &mut on_standby);

    assert_eq!(payload(&mut on_standby, "w"), PATCHED);
    let (items, changes) = items_and_changes(&mut on_standby, "w");
    assert_eq!((items.clone(), changes.clone()), items_and_changes(&mut on_primary, "w"));
    assert_eq!(items[0]["fields"]["x"]["opId"], op_id(4));
    assert_eq!(items[0]["opId"], op_id(4));
    assert_eq!(items[0]["revision"]["opId"], op_id(1));
    assert_eq!(changes[3]["patch"], json!({"x": 4}));
    assert_eq!(changes[3]["payload"], items[0]["payload"]);
    assert_eq!(changes[1]["payload"], json!(null), "superseded in its own call");
}
