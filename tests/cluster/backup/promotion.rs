//! A standby takes over from a primary that dies: with all that it had, and
//! without its last moments.

use sync_ext_harness::cluster::{Cluster, Stop};
use sync_ext_harness::loss::Loss;
use sync_ext_harness::replica::{cut_off, promote, until_replayed};

#[test]
fn a_promotion_that_loses_history_shows_to_devices_that_saw_it() {
    let mut primary = Cluster::start("loses", &["fsync=off"]).unwrap();
    let mut on_primary = primary.create_database("app").unwrap();
    let mut loss = Loss::before(&mut on_primary);
    let standby = primary.standby("takes-over").unwrap();
    let mut on_standby = standby.connect("app").unwrap();
    until_replayed(&mut on_primary, &mut on_standby);
    cut_off(&mut on_standby);
    loss.lose(&mut on_primary);

    // While it is a standby, what is ahead of it is lag, of whatever kind.
    loss.is_lag(&mut on_standby);
    primary.stop_server(Stop::Kill).unwrap();
    promote(&mut on_standby);
    loss.check(&mut on_standby);
}
