//! Dumps of databases, by pg_dump.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::database::Database;

/// A dump in a file of its own, which goes with it.
pub struct Dump(PathBuf);

pub fn dump(database: &Database) -> Dump {
    let file = format!("sync_ext-{}-{}", database.name, std::process::id());
    let dump = Dump(std::env::temp_dir().join(file));
    let mut program = database.cluster.client_program("pg_dump", &database.name);
    succeed(program.args(["-Fc", "-f"]).arg(&dump.0));
    dump
}

impl Dump {
    pub fn restore_into(&self, database: &Database) {
        let mut program = database.cluster.client_program("pg_restore", &database.name);
        succeed(program.args(["-d", &database.name, "--exit-on-error"]).arg(&self.0));
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
