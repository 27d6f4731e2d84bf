//! A Postgres server of its own, gone when dropped.

use std::ffi::{CString, OsStr};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use postgres::{Client, Config, NoTls};

/// A running server with the extension's files installed, in a folder of its
/// own. Where things are is told by the scripts in the environment:
/// `SYNC_EXT_PG_BIN` (Postgres' programs) and `SYNC_EXT_RUN_DIR`.
pub struct Cluster {
    bin: PathBuf,
    dir: PathBuf,
    socket_dir: PathBuf,
    port: u16,
    /// Who runs the server, where root may not.
    user: Option<(u32, u32)>,
    settings: Vec<String>,
    /// What each process may map, in kB.
    address_space: Option<u64>,
    server: Option<Child>,
}

impl Cluster {
    /// Creates and starts a server; `settings` are lines of postgresql.conf.
    /// What an earlier run left behind under the same name is removed.
    pub fn start(name: &str, settings: &[&str]) -> Result<Cluster> {
        let run_dir = from_environment("SYNC_EXT_RUN_DIR")?;
        let mut cluster = Cluster::new(&run_dir.join(format!("cluster-{name}")), settings)?;
        let data = cluster.data_dir();
        cluster.run("initdb", |initdb| {
            initdb.arg("-D").arg(&data);
            initdb.args(["-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust", "--no-sync"]);
        })?;
        cluster.start_server()?;
        Ok(cluster)
    }

    /// The folder, empty, without a server in it.
    fn new(dir: &Path, settings: &[&str]) -> Result<Cluster> {
        let user = server_user()?;
        remove_leftover(dir)?;
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
            // After a kill it refuses to start while an orphaned backend lives.
            if server.try_wait()?.is_some() {
                server = self.spawn_server()?;
            }
            sleep(Duration::from_millis(20));
        }
        self.server = Some(server);
        Ok(())
    }

    fn spawn_server(&self) -> Result<Child> {
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
        for setting in &self.settings {
            server.args(["-c", setting]);
        }
        server.stdout(Stdio::null()).stderr(log).stdin(Stdio::null());
        // A group of its own: Ctrl-C is for us, who then stop the server.
        server.process_group(0).spawn().context("cannot start postgres")
    }

    /// Starts it again with as much memory for each of its processes.
    pub fn restart_within(&mut self, kilobytes: u64) -> Result<()> {
        self.stop_server(Stop::Cleanly)?;
        self.address_space = Some(kilobytes);
        self.start_server()
    }

    /// Stops the server.
    pub fn stop_server(&mut self, signal: Stop) -> Result<()> {
        self.signal_server(signal);
        if let Some(mut server) = self.server.take() {
            server.wait()?;
        }
        Ok(())
    }

    /// SIGKILL to a backend: the postmaster ends all others and recovers.
    pub fn kill_backend(&self, pid: i32) {
        signal_process(pid.unsigned_abs(), libc::SIGKILL);
    }

    /// Waits until the server lets somebody in.
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
            signal_process(server.id(), signal.number());
        }
    }

    pub fn connect(&self, database: &str) -> Result<Client, postgres::Error> {
        self.connect_as("postgres", database, "")
    }

    /// Logs in as any role; `options` go with the connection, as in PGOPTIONS.
    pub fn connect_as(
        &self,
        role: &str,
        database: &str,
        options: &str,
    ) -> Result<Client, postgres::Error> {
        self.config(database).user(role).options(options).connect(NoTls)
    }

    /// How to connect as the superuser; for others, change it.
    pub fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host_path(&self.socket_dir).port(self.port).user("postgres").dbname(database);
        config
    }

    /// Where programs of other languages and processes find a database, as libpq
    /// and its like read it.
    pub fn connection_string(&self, user: &str, database: &str) -> String {
        let host = self.socket_dir.display();
        format!("host='{host}' port={} user={user} dbname={database}", self.port)
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

    /// Runs SQL through psql, statements echoed, as pg_regress does.
    pub fn psql(&self, database: &str, sql: &Path) -> Result<String> {
        self.run_psql(database, sql, &["-a"])
    }

    /// The same without the echo: the output alone.
    pub fn psql_quietly(&self, database: &str, sql: &Path) -> Result<String> {
        self.run_psql(database, sql, &[])
    }

    fn run_psql(&self, database: &str, sql: &Path, options: &[&str]) -> Result<String> {
        self.client_program("psql", database)
            .args(["-X", "-q", "-v", "HIDE_TABLEAM=on"])
            .args(options)
            .stdin(fs::File::open(sql)?)
            .env("PGTZ", "UTC")
            .env("LC_MESSAGES", "C")
            .output_merged()
    }

    /// One of Postgres' client programs, set to talk to this server.
    pub fn client_program(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.envs(self.environment("postgres", database));
        command
    }

    /// What libpq and its like go by.
    pub fn environment(&self, user: &str, database: &str) -> [(&'static str, String); 5] {
        [
            ("PGHOST", self.socket_dir.display().to_string()),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", user.to_owned()),
            ("PGDATABASE", database.to_owned()),
            ("PGOPTIONS", String::new()),
        ]
    }

    /// What the server has logged since it was last started.
    pub fn log(&self) -> String {
        let log = fs::read(self.dir.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// One of Postgres' programs, as the user who may run a server.
    fn command(&self, program: &str) -> Command {
        self.as_server(self.bin.join(program))
    }

    fn as_server(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").env("TZ", "UTC").current_dir(&self.dir);
        // With this set, pgrx adds a backtrace to every error that passes it.
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
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} failed: {errors}");
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

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, then all is written.
    Cleanly,
    /// Without a checkpoint: the next start recovers.
    Immediately,
    /// SIGKILL to the postmaster, as if the machine had died under it.
    Kill,
}

impl Stop {
    fn number(self) -> i32 {
        match self {
            Stop::Cleanly => libc::SIGINT,
            Stop::Immediately => libc::SIGQUIT,
            Stop::Kill => libc::SIGKILL,
        }
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

fn from_environment(name: &str) -> Result<PathBuf> {
    let value = std::env::var_os(name)
        .with_context(|| format!("{name} is not set: run `make test` or `make demo`"))?;
    Ok(PathBuf::from(value))
}

/// Postgres refuses to run as root: there, the user postgres runs it.
fn server_user() -> Result<Option<(u32, u32)>> {
    // SAFETY: geteuid cannot fail; getpwnam's result is read before any other
    // call could change it.
    unsafe {
        if libc::geteuid() != 0 {
            return Ok(None);
        }
        let name = CString::new("postgres")?;
        let entry = libc::getpwnam(name.as_ptr());
        if entry.is_null() {
            bail!("root needs a user named postgres to run the server");
        }
        Ok(Some(((*entry).pw_uid, (*entry).pw_gid)))
    }
}

/// Sockets have short paths: with a long one they go to a folder in /tmp.
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

/// The port only names the socket, but a free one is nobody else's.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn remove_leftover(dir: &Path) -> Result<()> {
    if let Ok(pid_file) = fs::read_to_string(dir.join("data/postmaster.pid"))
        && let Some(pid) = pid_file.lines().next().and_then(|line| line.parse::<u32>().ok())
        && fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|command| command.contains(&*dir.to_string_lossy()))
    {
        signal_process(pid, libc::SIGQUIT);
        let deadline = Instant::now() + Duration::from_secs(10);
        while Path::new(&format!("/proc/{pid}")).exists() && Instant::now() < deadline {
            sleep(Duration::from_millis(20));
        }
    }
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}

fn signal_process(pid: u32, signal: i32) {
    // SAFETY: kill has no memory effects.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}
