//! PgBouncer in transaction mode before a database.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::unistd::Uid;
use sync_ext_harness::cluster::Cluster;

use super::process::until;

/// Where Debian's package has it.
const PROGRAM: &str = "/usr/sbin/pgbouncer";

pub struct Bouncer {
    process: Child,
    settings: PathBuf,
    pub url: String,
}

impl Bouncer {
    /// It has so many connections to the database; `None` where PgBouncer is not installed.
    pub fn before(cluster: &Cluster, database: &str, connections: usize) -> Option<Bouncer> {
        let [(_, host), (_, port), ..] = cluster.environment("gateway", database);
        let own_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings =
            std::env::temp_dir().join(format!("pgbouncer-{}-{database}.ini", std::process::id()));
        let text = format!(
            "[databases]\n{database} = host={host} port={port} user=gateway\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {own_port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
             default_pool_size = {connections}\n"
        );
        fs::write(&settings, text).unwrap();
        let mut program = Command::new(PROGRAM);
        if Uid::effective().is_root() {
            // It refuses to run as root.
            program.args(["--user", "postgres"]);
        }
        program.arg(&settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = program.spawn().ok()?;
        let url = format!("postgres://gateway@127.0.0.1:{own_port}/{database}");
        let bouncer = Bouncer { process, settings, url };
        until("PgBouncer listens", || TcpStream::connect(("127.0.0.1", own_port)).is_ok());
        Some(bouncer)
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.settings);
    }
}
