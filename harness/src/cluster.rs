//! A Postgres server of its own, gone when dropped.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};
use postgres::{Client, Config, NoTls};

pub use crate::server::Stop;
use crate::server::{self, Server};

/// A running server with the extension's files installed, in its own folder. The
/// scripts set the environment: `SYNC_EXT_PG_BIN` (Postgres' programs) and
/// `SYNC_EXT_RUN_DIR`.
pub struct Cluster {
    bin: PathBuf,
    dir: PathBuf,
    socket_dir: PathBuf,
    port: u16,
    /// The user who runs the server, if root may not.
    user: Option<(u32, u32)>,
    settings: Vec<String>,
    /// The limit of each process' address space, in kB.
    address_space: Option<u64>,
    server: Option<Server>,
}

impl Cluster {
    /// Creates and starts a server; `settings` are lines of postgresql.conf. Files of
    /// an earlier run with the same name are removed.
    pub fn start(name: &str, settings: &[&str]) -> Result<Cluster> {
        let run_dir = from_environment("SYNC_EXT_RUN_DIR")?;
        let mut cluster = Cluster::new(&run_dir.join(format!("cluster-{name}")), settings)?;
        cluster.initialize(&[])?;
        cluster.start_server()?;
        Ok(cluster)
    }

    /// A cluster with the programs in `bin`, those of a later major, that pg_upgrade makes
    /// of this one, which is stopped.
    pub fn upgraded(
        &self,
        name: &str,
        bin: &Path,
        settings: &[&str],
        options: &[&str],
    ) -> Result<Cluster> {
        let run_dir = from_environment("SYNC_EXT_RUN_DIR")?;
        let mut upgraded = Cluster::new(&run_dir.join(format!("cluster-{name}")), settings)?;
        upgraded.bin = bin.to_owned();
        // From 18 on checksums are the default, but both must have them or not.
        let help = upgraded.command("initdb").arg("--help").output()?.stdout;
        let without = "--no-data-checksums";
        let has_option = String::from_utf8_lossy(&help).contains(without);
        let checksums: &[&str] = if has_option { &[without] } else { &[] };
        upgraded.initialize(checksums)?;
        let done = upgraded.run("pg_upgrade", |pg_upgrade| {
            pg_upgrade.arg("-b").arg(&self.bin).arg("-d").arg(self.data_dir());
            pg_upgrade.arg("-B").arg(bin).arg("-D").arg(upgraded.data_dir());
            pg_upgrade.args(["-U", "postgres", "-s"]).arg(&upgraded.socket_dir).args(options);
            for setting in settings {
                let setting = format!("-c {setting}");
                pg_upgrade.args(["-o", &setting, "-O", &setting]);
            }
        });
        done.with_context(|| upgraded.logs_of_upgrade().join("\n"))?;
        upgraded.start_server()?;
        Ok(upgraded)
    }

    /// What pg_upgrade and its servers wrote, if it failed or was to retain it.
    pub fn logs_of_upgrade(&self) -> Vec<String> {
        let runs = fs::read_dir(self.data_dir().join("pg_upgrade_output.d"));
        let logs = runs.into_iter().flatten().flatten().map(|run| run.path().join("log"));
        let files = logs.filter_map(|log| fs::read_dir(log).ok()).flatten().flatten();
        files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect()
    }

    fn initialize(&self, options: &[&str]) -> Result<()> {
        self.run("initdb", |initdb| {
            initdb.arg("-D").arg(self.data_dir()).args(options);
            initdb.args(["-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust", "--no-sync"]);
        })
    }

    /// The folder, empty, without a server in it.
    fn new(dir: &Path, settings: &[&str]) -> Result<Cluster> {
        let user = server_user()?;
        server::remove_leftover(dir)?;
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        if let Some((uid, gid)) = user {
            chown(dir, Some(uid), Some(gid))?;
        }
        let port = free_port()?;
        Ok(Cluster {
            bin: from_environment("SYNC_EXT_PG_BIN")?,
            dir: dir.to_owned(),
            socket_dir: socket_dir(dir, port, user)?,
            port,
            user,
            settings: settings.iter().map(|line| line.to_string()).collect(),
            address_space: None,
            server: None,
        })
    }

    /// A streaming standby of this server, in a folder of its own.
    pub fn standby(&self, name: &str) -> Result<Cluster> {
        let run_dir = from_environment("SYNC_EXT_RUN_DIR")?;
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        let mut standby = Cluster::new(&run_dir.join(format!("cluster-{name}")), &settings)?;
        let data = standby.data_dir();
        standby.run("pg_basebackup", |backup| {
            backup.arg("-D").arg(&data).arg("-h").arg(&self.socket_dir);
            backup.args([
                "-p",
                &self.port.to_string(),
                "-U",
                "postgres",
                "-R",
                "--checkpoint=fast",
                "--no-sync",
            ]);
        })?;
        standby.start_server()?;
        Ok(standby)
    }

    pub fn start_server(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut server = self.spawn_server()?;
        while self.connect("postgres").is_err() {
            ensure!(Instant::now() < deadline, "the server does not start: {}", self.log());
            // After a kill the server refuses to start while an orphaned backend is
            // running.
            if server.has_ended()? {
                server = self.spawn_server()?;
            }
            sleep(Duration::from_millis(20));
        }
        self.server = Some(server);
        Ok(())
    }

    fn spawn_server(&self) -> Result<Server> {
        let log = fs::File::create(self.dir.join("log"))?;
        let mut server = match self.address_space {
            None => self.command("postgres"),
            Some(kilobytes) => {
                let mut shell = self.as_server("sh");
                shell.args(["-c", &format!("ulimit -v {kilobytes} && exec \"$0\" \"$@\"")]);
                shell.arg(self.bin.join("postgres"));
                shell
            }
        };
        server.arg("-D").arg(self.data_dir());
        server.args(["-p", &self.port.to_string(), "-c", "listen_addresses="]);
        server.arg("-k").arg(&self.socket_dir);
        // How much GC does in a call must not depend on the time.
        server.args(["-c", "sync_ext.gc_lock_time=0"]);
        for setting in &self.settings {
            server.args(["-c", setting]);
        }
        server.stderr(log);
        Server::spawn(server, self.as_server("sh"))
    }

    /// Restarts it with this limit on the memory of each process.
    pub fn restart_within(&mut self, kilobytes: u64) -> Result<()> {
        self.stop_server(Stop::Cleanly)?;
        self.address_space = Some(kilobytes);
        self.start_server()
    }

    /// Stops the server.
    pub fn stop_server(&mut self, signal: Stop) -> Result<()> {
        self.signal_server(signal);
        if let Some(server) = self.server.take() {
            server.wait()?;
        }
        Ok(())
    }

    /// SIGKILL to a backend: the postmaster ends all others and recovers.
    pub fn kill_backend(&self, pid: i32) {
        server::signal(pid, Signal::SIGKILL);
    }

    /// Waits until the server accepts connections.
    pub fn until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.connect("postgres").is_err() {
            ensure!(Instant::now() < deadline, "the server does not recover: {}", self.log());
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub fn is_running(&self) -> bool {
        self.server.is_some()
    }

    /// Sends the signal without waiting for the end.
    pub fn signal_server(&self, signal: Stop) {
        if let Some(server) = &self.server {
            server.signal(signal);
        }
    }

    pub fn connect(&self, database: &str) -> Result<Client, postgres::Error> {
        self.connect_as("postgres", database, "")
    }

    /// Logs in as any role; `options` are passed as in PGOPTIONS.
    pub fn connect_as(
        &self,
        role: &str,
        database: &str,
        options: &str,
    ) -> Result<Client, postgres::Error> {
        self.config(database).user(role).options(options).connect(NoTls)
    }

    /// The configuration for the superuser; callers can change it.
    pub fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host_path(&self.socket_dir).port(self.port).user("postgres").dbname(database);
        config
    }

    /// An empty database with the extension in it.
    pub fn create_database(&self, name: &str) -> Result<Client> {
        let mut admin = self.connect("postgres")?;
        admin.batch_execute(&format!("drop database if exists {name}"))?;
        admin.batch_execute(&format!("create database {name}"))?;
        let mut client = self.connect(name)?;
        client.batch_execute("create extension sync_ext")?;
        Ok(client)
    }

    /// The server's log since its last start.
    pub fn log(&self) -> String {
        let log = fs::read(self.dir.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    pub(crate) fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// One of Postgres' programs, as the user who may run a server.
    fn command(&self, program: &str) -> Command {
        self.as_server(self.program(program))
    }

    fn as_server(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").env("TZ", "UTC").current_dir(&self.dir);
        // If this is set, pgrx adds a backtrace to every error.
        command.env_remove("RUST_BACKTRACE");
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn run(&self, program: &str, arguments: impl FnOnce(&mut Command)) -> Result<()> {
        let mut command = self.command(program);
        arguments(&mut command);
        let output = command.output().with_context(|| format!("cannot run {program}"))?;
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        ensure!(output.status.success(), "{program} failed: {printed}");
        Ok(())
    }

    fn remove(&mut self) -> Result<()> {
        self.stop_server(Stop::Immediately)?;
        fs::remove_dir_all(&self.dir)?;
        if self.socket_dir.exists() {
            fs::remove_dir_all(&self.socket_dir)?;
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("{}: not removed: {error}", self.dir.display());
        }
    }
}

fn from_environment(name: &str) -> Result<PathBuf> {
    let value = std::env::var_os(name)
        .with_context(|| format!("{name} is not set: run `make test` or `make demo`"))?;
    Ok(PathBuf::from(value))
}

/// Postgres refuses to run as root; the user postgres runs it instead.
fn server_user() -> Result<Option<(u32, u32)>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let user = User::from_name("postgres")?;
    let user = user.context("root needs a user named postgres to run the server")?;
    Ok(Some((user.uid.as_raw(), user.gid.as_raw())))
}

/// The path of a socket must be short: if it would be long, use a folder in /tmp.
fn socket_dir(dir: &Path, port: u16, user: Option<(u32, u32)>) -> Result<PathBuf> {
    if dir.as_os_str().len() < 80 {
        return Ok(dir.to_owned());
    }
    let folder = std::env::temp_dir().join(format!("sync_ext-{}-{port}", std::process::id()));
    fs::create_dir_all(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    if let Some((uid, gid)) = user {
        chown(&folder, Some(uid), Some(gid))?;
    }
    Ok(folder)
}

/// The port only names the socket, but a free port is not used by others.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
