//! The demo's second act, in short form.

use std::time::Duration;

use sync_ext_demo::own_tables::{self, SETTING, TABLES};
use sync_ext_harness::cluster::Cluster;

#[test]
fn tables_records_and_devices_are_equal_after_pushes_beside_sql() {
    let cluster = Cluster::start("demo-own-tables", &[SETTING]).unwrap();
    cluster.create_database("app").unwrap().batch_execute(TABLES).unwrap();
    let connect = |role: &str| Ok(cluster.connect_as(role, "app", "")?);
    own_tables::run(&connect, 1, Duration::from_secs(2)).unwrap();
}
