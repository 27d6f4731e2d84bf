//! Crashes in short form.

use sync_ext_proof::crash;

#[test]
fn what_was_acknowledged_survives_killed_backends_and_postmasters() {
    let mut cluster = crash::start("crash").unwrap();
    match crash::run(&mut cluster, 1, 8) {
        Ok(tally) => print!("{tally}"),
        Err(violation) => panic!("{violation:#}"),
    }
}
