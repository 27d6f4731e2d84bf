//! PgBouncer in transaction mode before databases.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::Uid;

/// Where Debian's package has it.
const PROGRAM: &str = "/usr/sbin/pgbouncer";

pub struct Bouncer {
    process: Child,
    settings: PathBuf,
    pub port: u16,
}

impl Bouncer {
    /// Before databases, each with a connection string that names a user; it has so many
    /// connections to each. `None` where PgBouncer is not installed.
    pub fn before(databases: &[(&str, String)], connections: usize) -> Option<Bouncer> {
        let databases: Vec<String> =
            databases.iter().map(|(name, string)| format!("{name} = {string}\n")).collect();
        Bouncer::with(|port| {
            format!(
                "[databases]\n{}[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 unix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
                 default_pool_size = {connections}\n",
                databases.concat()
            )
        })
    }

    /// With these settings, for a free port.
    pub fn with(settings: impl FnOnce(u16) -> String) -> Option<Bouncer> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = settings(port);
        let settings = std::env::temp_dir().join(format!("pgbouncer-{port}.ini"));
        fs::write(&settings, text).unwrap();
        let mut program = Command::new(PROGRAM);
        if Uid::effective().is_root() {
            // It refuses to run as root.
            program.args(["--user", "postgres"]);
        }
        program.arg(&settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = program.spawn().ok()?;
        let bouncer = Bouncer { process, settings, port };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "PgBouncer does not listen");
            sleep(Duration::from_millis(5));
        }
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
