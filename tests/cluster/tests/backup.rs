//! pg_dump and pg_restore: nothing is lost, numbering goes on, and devices go
//! on as if nothing had happened.

use std::process::Command;

use sync_ext_cluster::batch::{delete, push, put};
use sync_ext_cluster::cluster::Cluster;
use sync_ext_cluster::device::{Device, call};
use sync_ext_cluster::state::of_server;

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_restored_dump_is_the_same_server() {
    let cluster = Cluster::start("backup", &["fsync=off"]).unwrap();
    let mut before = cluster.create_database("before").unwrap();
    before.execute("select sync_register_table('notes', 'key')", &[]).unwrap();
    push(&mut before, "v", &[put(1, "a", 1)]);
    push(&mut before, "w", &[put(1, "a", 1), delete(2, "a", 2), put(3, "b", 1), put(4, "b", 2)]);
    let mut device = Device::new("phone", "w");
    device.pull(&mut before, 100, false).unwrap();
    device.acknowledge(&mut before).unwrap();

    let dump = std::env::temp_dir().join(format!("sync_ext-dump-{}", std::process::id()));
    succeed(cluster.client_program("pg_dump", "before").args(["-Fc", "-f"]).arg(&dump));
    cluster.connect("postgres").unwrap().batch_execute("create database after").unwrap();
    succeed(
        cluster
            .client_program("pg_restore", "after")
            .args(["-d", "after", "--exit-on-error"])
            .arg(&dump),
    );
    std::fs::remove_file(dump).unwrap();

    let mut after = cluster.connect("after").unwrap();
    for table in ["workspace", "synced_table", "change_log", "record", "device_cursor"] {
        let sql = format!(
            "select coalesce(string_agg(t::text, '|' order by t::text), '') from sync_ext.{table} t"
        );
        let (old, new) =
            (call(&mut before, &sql, &[]).unwrap(), call(&mut after, &sql, &[]).unwrap());
        assert!(!old.is_empty());
        assert_eq!(old, new, "{table}");
    }
    // A new workspace gets a new key, an old one its next version.
    push(&mut after, "x", &[put(1, "a", 1)]);
    let sql = "select count(distinct workspace_key)::text from sync_ext.workspace";
    assert_eq!(call(&mut after, sql, &[]).unwrap(), "3");
    assert_eq!(push(&mut after, "w", &[put(4, "b", 2), put(5, "c", 1)]), [4, 5]);
    // The device goes on: its proof holds, no snapshot is asked of it.
    assert_eq!(device.pull(&mut after, 100, false).unwrap(), 1);
    assert_eq!(device.state(), of_server(&mut after, "w").unwrap());
}
