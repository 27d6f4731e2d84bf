//! Programs beside the server: psql and its like, and those of other languages.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::cluster::Cluster;

impl Cluster {
    /// Where programs of other languages and processes find a database, as libpq
    /// and its like read it.
    pub fn connection_string(&self, user: &str, database: &str) -> String {
        format!("{} user={user}", self.address(database))
    }

    /// The same without a user.
    pub fn address(&self, database: &str) -> String {
        let host = self.socket_dir().display();
        format!("host='{host}' port={} dbname={database}", self.port())
    }

    /// Runs SQL through psql, statements echoed, as pg_regress does.
    pub fn psql(&self, database: &str, sql: &Path) -> Result<String> {
        self.run_psql(database, sql, &["-a"])
    }

    /// The same without the echo: the output alone.
    pub fn psql_quietly(&self, database: &str, sql: &Path) -> Result<String> {
        self.run_psql(database, sql, &[])
    }

    fn run_psql(&self, database: &str, sql: &Path, options: &[&str]) -> Result<String> {
        let mut psql = self.client_program("psql", database);
        // Where it finds what the script includes.
        if let Some(folder) = sql.parent() {
            psql.current_dir(folder);
        }
        psql.args(["-X", "-q", "-v", "HIDE_TABLEAM=on"])
            .args(options)
            .stdin(fs::File::open(sql)?)
            .env("PGTZ", "UTC")
            .env("LC_MESSAGES", "C")
            .output_merged()
    }

    /// One of Postgres' client programs, set to talk to this server.
    pub fn client_program(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.program(program));
        command.envs(self.environment("postgres", database));
        command
    }

    /// What libpq and its like go by.
    pub fn environment(&self, user: &str, database: &str) -> [(&'static str, String); 5] {
        [
            ("PGHOST", self.socket_dir().display().to_string()),
            ("PGPORT", self.port().to_string()),
            ("PGUSER", user.to_owned()),
            ("PGDATABASE", database.to_owned()),
            ("PGOPTIONS", String::new()),
        ]
    }
}

trait OutputMerged {
    /// What the command prints, in one stream: errors stand where they happened.
    fn output_merged(&mut self) -> Result<String>;
}

impl OutputMerged for Command {
    fn output_merged(&mut self) -> Result<String> {
        let (mut reader, writer) = std::io::pipe()?;
        let mut child = self.stdout(writer.try_clone()?).stderr(writer).spawn()?;
        // Our copies of the writing end must close for the reader to see an end.
        self.stdout(Stdio::null()).stderr(Stdio::null());
        let mut output = String::new();
        std::io::Read::read_to_string(&mut reader, &mut output)?;
        child.wait()?;
        Ok(output)
    }
}
