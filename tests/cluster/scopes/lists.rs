//! A device goes over to another list of scopes.

use sync_ext_harness::batch::{delete, push};
use sync_ext_harness::device::{Device, Listed, Listing, Pulled, list};
use sync_ext_harness::steps::{Stage, age, gc, outcome};

use super::{follower, has, listed, put_in, stage, up_to_date};

/// The device has read its list to the end, and begins to read what a new one adds.
fn begin(device: &mut Device, scopes: &[&str], stage: &mut Stage) -> Listing {
    device.follow(list(scopes));
    let page = device.pull_page(&mut stage.admin, 100, false).unwrap();
    assert!(matches!(page, Pulled::Page { has_more: false, .. }), "{page:?}");
    assert!(device.joins);
    Listing::default()
}

#[test]
fn a_list_that_is_simply_changed_is_noticed() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[put_in("a", 1, "x", 1), put_in("b", 2, "y", 1)]);
    let mut device = up_to_date(&["a"], &mut stage.admin);
    device.scopes = list(&["a", "b"]);
    let required = Pulled::SnapshotRequired { reason: "scopes_changed".to_owned() };
    assert_eq!(device.pull_page(&mut stage.admin, 100, false).unwrap(), required);
    device.pull(&mut stage.admin, 100, false).unwrap();
    assert_eq!(has(&device), ["x", "y"], "y is below the cursor");
}

#[test]
fn a_new_list_lists_what_it_adds_and_forgets_the_rest() {
    let mut stage = stage();
    let ops = [put_in("a", 1, "x", 1), put_in("b", 2, "y", 1), put_in("c", 3, "z", 1)];
    push(&mut stage.admin, "w", &ops);
    assert_eq!(listed(&mut stage.admin, "scopes => array['b','c'], have => array['a','b']"), ["z"]);
    let mut device = up_to_date(&["a", "b"], &mut stage.admin);
    device.follow(list(&["b", "c"]));
    device.pull(&mut stage.admin, 100, false).unwrap();
    assert_eq!(has(&device), ["y", "z"]);
    assert_eq!((&device.scopes, &device.next_scopes), (&list(&["b", "c"]), &None));
}

#[test]
fn the_cursor_stays_when_a_list_changes() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[put_in("a", 1, "x", 1)]);
    let mut device = up_to_date(&["a"], &mut stage.admin);
    let mut listing = begin(&mut device, &["a", "b"], &mut stage);
    // Of a scope that the device has: the snapshot does not list it.
    push(&mut stage.admin, "w", &[put_in("a", 2, "new", 1)]);
    let page = device.snapshot_page(&mut listing, &mut stage.admin, 100).unwrap();
    assert_eq!((page, device.cursor), (Listed::Joined, 1));
    device.pull(&mut stage.admin, 100, false).unwrap();
    assert_eq!(has(&device), ["new", "x"]);
}

/// Otherwise the device would take the proof of a history that it has not seen, and keep what
/// it saw of the lost one.
#[test]
fn what_a_list_adds_is_read_with_the_proof_of_the_state() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[put_in("a", 1, "x", 1), put_in("a", 2, "lost", 1)]);
    let mut device = up_to_date(&["a"], &mut stage.admin);
    let mut listing = begin(&mut device, &["a", "b"], &mut stage);
    stage
        .admin
        .batch_execute(
            "delete from sync_ext.change_log where server_version = 2;
             delete from sync_ext.record where pk = 'lost';
             update sync_ext.workspace set head = 1",
        )
        .unwrap();
    push(&mut stage.admin, "w", &[put_in("b", 3, "y", 1), put_in("b", 4, "z", 1)]);
    let page = device.snapshot_page(&mut listing, &mut stage.admin, 100).unwrap();
    assert_eq!(page, Listed::Expired);
    let required = Pulled::SnapshotRequired { reason: "history_diverged".to_owned() };
    assert_eq!(device.pull_page(&mut stage.admin, 100, false).unwrap(), required);
    device.pull(&mut stage.admin, 100, false).unwrap();
    assert_eq!(has(&device), ["x", "y", "z"]);
    assert_eq!(device.scopes, list(&["a", "b"]));
}

/// What the device has is too old for the snapshot, and stays so until it pulls.
#[test]
fn an_expired_change_of_the_list_is_tried_again_after_a_pull() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[put_in("a", 1, "x", 1), put_in("b", 2, "y", 1)]);
    age(&mut stage.admin);
    let mut device = up_to_date(&["a"], &mut stage.admin);
    let mut listing = begin(&mut device, &["a", "b"], &mut stage);
    push(&mut stage.admin, "w", &[delete(3, "x", 2), put_in("b", 4, "z", 1)]);
    age(&mut stage.admin);
    assert_eq!(gc(&mut stage.admin, "w")["tombstonesDeleted"], 1);
    let page = device.snapshot_page(&mut listing, &mut stage.admin, 100).unwrap();
    assert_eq!(page, Listed::Expired);
    assert!(!device.snapshot_begun, "a pull must come first");
    assert_eq!(device.scopes, list(&["a"]));
    device.pull(&mut stage.admin, 100, false).unwrap();
    assert_eq!((has(&device), &device.scopes), (vec!["y", "z"], &list(&["a", "b"])));
}

/// A snapshot below the cursor may come from a standby that lags; what else it means, only a
/// pull with the old list tells.
#[test]
fn a_whole_snapshot_that_is_forgotten_is_tried_again_after_a_pull() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[put_in("a", 1, "x", 1), put_in("a", 2, "lost", 1)]);
    let mut device = Device::new("follower", "w");
    device.pull(&mut stage.admin, 100, false).unwrap();
    device.follow(list(&["a"]));
    device.pull_page(&mut stage.admin, 100, false).unwrap();
    assert!(device.snapshot_begun && !device.joins, "from the whole workspace");
    stage
        .admin
        .batch_execute(
            "delete from sync_ext.change_log where server_version = 2;
             delete from sync_ext.record where pk = 'lost';
             update sync_ext.workspace set head = 1",
        )
        .unwrap();
    let mut listing = Listing::default();
    let page = device.snapshot_page(&mut listing, &mut stage.admin, 100).unwrap();
    assert_eq!((page, device.snapshot_begun), (Listed::Old, false));
    assert_eq!(has(&device), ["lost", "x"], "as before");
    let required = Pulled::SnapshotRequired { reason: "history_diverged".to_owned() };
    assert_eq!(device.pull_page(&mut stage.admin, 100, false).unwrap(), required);
    device.pull(&mut stage.admin, 100, false).unwrap();
    assert_eq!((has(&device), &device.scopes), (vec!["x"], &list(&["a"])));
}

#[test]
fn a_row_takes_the_place_of_a_mark_of_its_version() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[put_in("a", 1, "x", 1)]);
    let mut device = up_to_date(&["a"], &mut stage.admin);
    // An op that waits keeps the mark.
    device.keeps_marks = true;
    push(&mut stage.admin, "w", &[put_in("b", 2, "x", 2)]);
    device.pull(&mut stage.admin, 100, false).unwrap();
    assert_eq!((has(&device).len(), device.marks.len()), (0, 1));
    device.follow(list(&["a", "b"]));
    device.pull(&mut stage.admin, 100, false).unwrap();
    assert_eq!((has(&device), device.marks.len()), (vec!["x"], 0));
}

/// A scope is taken off the list while its records are being listed: no page goes on with
/// another list, the device begins again.
#[test]
fn a_list_that_changes_between_pages_begins_again() {
    let mut stage = stage();
    let ops = [put_in("a", 1, "x", 1), put_in("b", 2, "y", 1), put_in("b", 3, "z", 1)];
    push(&mut stage.admin, "w", &ops);
    let mut device = up_to_date(&["a"], &mut stage.admin);
    let mut listing = begin(&mut device, &["a", "b"], &mut stage);
    let page = device.snapshot_page(&mut listing, &mut stage.admin, 1).unwrap();
    assert_eq!(page, Listed::More);
    let token = listing.page_token.unwrap();
    let goes_on = |arguments: &str| format!("select sync_snapshot('w', '{token}', {arguments})");
    let mut go_on = |arguments: &str| outcome(&mut stage.admin, &goes_on(arguments)).map(drop);
    assert_eq!(go_on("scopes => array['a','b'], have => array['a']"), Ok(()));
    let refused = Err("22023".to_owned());
    assert_eq!(go_on("scopes => array['a'], have => array['a']"), refused);
    assert_eq!(go_on("scopes => array['a','b']"), refused);
    device.follow(list(&["a", "c"]));
    device.pull(&mut stage.admin, 100, false).unwrap();
    assert_eq!((has(&device), &device.scopes), (vec!["x"], &list(&["a", "c"])));
}

#[test]
fn a_snapshot_goes_through_its_scopes_in_order() {
    let mut stage = stage();
    stage.admin.batch_execute("select sync_register_table('files')").unwrap();
    let mut ops: Vec<String> = [("b", "m"), ("a", "z"), ("", "n"), ("b", "c"), ("é", "a")]
        .iter()
        .zip(1..)
        .map(|((scope, pk), id)| put_in(scope, id, pk, 1))
        .collect();
    ops.push(put_in("a", 9, "f", 1).replace("notes", "files"));
    push(&mut stage.admin, "w", &ops);
    let scopes = "scopes => array['é','b','a','','b',null]";
    let all = ["n", "z", "c", "m", "a", "f"];
    assert_eq!(listed(&mut stage.admin, scopes), all);
    let mut device = follower(&["", "a", "b", "é"]);
    let mut listing = Listing::default();
    let mut seen = 0;
    while device.snapshot_page(&mut listing, &mut stage.admin, 1).unwrap() == Listed::More {
        seen += 1;
    }
    assert_eq!((seen, has(&device).len()), (5, 6));
}

#[test]
fn a_record_that_moves_between_pages_is_once_in_the_state() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[put_in("a", 1, "x", 1), put_in("b", 2, "y", 1)]);
    let (mut device, mut listing) = (follower(&["a", "b"]), Listing::default());
    let mut page = |stage: &mut Stage, device: &mut Device| {
        device.snapshot_page(&mut listing, &mut stage.admin, 1).unwrap()
    };
    assert_eq!(page(&mut stage, &mut device), Listed::More);
    push(&mut stage.admin, "w", &[put_in("b", 3, "x", 2), put_in("a", 4, "y", 2)]);
    while page(&mut stage, &mut device) == Listed::More {}
    assert_eq!(device.synced[&("notes".to_owned(), "x".to_owned())].version, 3, "the higher one");
    device.pull(&mut stage.admin, 100, false).unwrap();
    assert_eq!(has(&device), ["x", "y"]);
}
