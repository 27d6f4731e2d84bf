//! Plain SQL beside pushes on attached tables, in short form.

use std::time::Duration;

use sync_ext_proof::own_tables;

#[test]
fn commits_beside_pushes_never_fail_and_the_log_is_what_the_rows_are() {
    let mut cluster = own_tables::start("own-tables").unwrap();
    let (time, round) = (Duration::from_secs(6), Duration::from_millis(1500));
    match own_tables::run(&mut cluster, 1, time, round) {
        Ok(tally) => {
            print!("{tally}");
            assert!(tally.count("pushes that yielded") > 0, "they did not meet");
        }
        Err(violation) => panic!("{violation:#}"),
    }
}
