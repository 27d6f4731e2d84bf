//! A server's files are put back to an earlier point: all is as it was then,
//! and what devices saw since is told to be lost.

use postgres::Client;
use sync_ext_harness::batch::{delete, push, put};
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::device::{Device, Pulled};
use sync_ext_harness::loss::Loss;
use sync_ext_harness::state::{live, of_server, tables};
use sync_ext_harness::steps::{age, gc, share, unpin};

#[test]
fn restored_files_are_the_earlier_server_and_devices_that_saw_more_notice() {
    let mut cluster = Cluster::start("restore", &["fsync=off"]).unwrap();
    let mut client = cluster.create_database("app").unwrap();
    client.execute("select sync_register_table('notes')", &[]).unwrap();
    push(&mut client, "collected", &[delete(1, "a", 2), put(2, "b", 1), put(3, "b", 2)]);
    age(&mut client);
    assert_eq!(gc(&mut client, "collected")["tombstonesDeleted"], 1);
    share(&mut client);
    unpin(&mut client, "team");
    let mut phone = Device::new("phone", "collected");
    phone.pull(&mut client, 100, false).unwrap();
    let mut loss = Loss::before(&mut client);
    let then = tables(&mut client).unwrap();
    assert!(then.values().all(|rows| !rows.is_empty()));
    cluster.back_up().unwrap();

    client = cluster.connect("app").unwrap();
    loss.lose(&mut client);
    let mut told = Device::new("told", "collected");
    lose_what_gc_did(&mut client, &mut told);
    assert_ne!(tables(&mut client).unwrap(), then);

    cluster.restore().unwrap();
    client = cluster.connect("app").unwrap();
    assert_eq!(tables(&mut client).unwrap(), then);
    let key = "select max(workspace_key) from sync_ext.workspace";
    let before: i64 = client.query_one(key, &[]).unwrap().get(0);
    push(&mut client, "first after", &[put(1, "a", 1)]);
    assert_eq!(client.query_one(key, &[]).unwrap().get::<_, i64>(0), before + 1);
    loss.check(&mut client);
    gc_is_where_it_was(&mut client, phone, told);
}

/// The horizon rises after the backup; a device sees that state.
fn lose_what_gc_did(client: &mut Client, device: &mut Device) {
    let mut transaction = client.transaction().unwrap();
    push(&mut transaction, "collected", &[delete(4, "b", 3), put(5, "c", 1)]);
    // Older become other workspaces' entries too; the backup has them as they
    // were.
    age(&mut transaction);
    transaction.commit().unwrap();
    assert_eq!(gc(client, "collected")["tombstonesDeleted"], 1);
    device.pull(client, 100, false).unwrap();
    assert_eq!((device.cursor, device.synced.len()), (5, 1), "b is a grave");
}

fn gc_is_where_it_was(client: &mut Client, mut phone: Device, mut told: Device) {
    // b is there again: its delete is lost, not purged.
    let page = phone.pull_page(client, 100, false).unwrap();
    assert_eq!(page, Pulled::Page { changes: 0, has_more: false });
    let page = told.pull_page(client, 100, false).unwrap();
    assert_eq!(page, Pulled::SnapshotRequired { reason: "history_diverged".to_owned() });
    told.pull(client, 100, false).unwrap();
    let server = of_server(client, "collected").unwrap();
    assert_eq!(told.state(), live(server));
    assert_eq!(told.state(), phone.state());
    assert_eq!(told.synced.len(), 1, "b");
    // The grave of a still stands.
    assert_eq!(push(client, "collected", &[put(9, "a", 1)]), [4]);
    phone.pull(client, 100, false).unwrap();
    assert_eq!(phone.state(), told.state());
}
