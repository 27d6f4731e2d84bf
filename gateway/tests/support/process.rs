//! The gateway as a process, and its calls over HTTP.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use ureq::Agent;
use ureq::http::Request;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sync_ext_gateway");
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Gateway {
    process: Child,
    log: PathBuf,
    door: Door,
}

/// Where a gateway serves, or will again.
#[derive(Clone)]
pub struct Door {
    /// As in `http://127.0.0.1:1234`.
    pub url: String,
    agent: Agent,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The SQLSTATE of an error.
    pub fn code(&self) -> String {
        let code = self.json()["error"]["code"].clone();
        code.as_str().unwrap_or_else(|| panic!("no code: {self:?}")).to_owned()
    }
}

impl Gateway {
    /// Starts it on a port of its own, and waits until it hears of commits. The URL is empty
    /// where the settings have DATABASE_URLS.
    pub fn start(database_url: &str, settings: &[(&str, &str)]) -> Gateway {
        let gateway = Gateway::spawn(database_url, "127.0.0.1:0", settings);
        gateway.until_listening();
        gateway
    }

    /// Starts it where one served that is gone.
    pub fn start_again(self, database_url: &str, settings: &[(&str, &str)]) -> Gateway {
        let address = self.address().to_owned();
        drop(self);
        Gateway::spawn(database_url, &address, settings)
    }

    /// Starts it where a process may open so many files.
    pub fn start_with_files(database_url: &str, settings: &[(&str, &str)], files: u32) -> Gateway {
        let mut program = Command::new("sh");
        program.args(["-c", &format!("ulimit -n {files} && exec \"$0\""), PROGRAM]);
        let gateway = Gateway::spawn_by(program, database_url, "127.0.0.1:0", settings);
        gateway.until_listening();
        gateway
    }

    /// Starts it without waiting.
    pub fn spawn(database_url: &str, address: &str, settings: &[(&str, &str)]) -> Gateway {
        Gateway::spawn_by(Command::new(PROGRAM), database_url, address, settings)
    }

    fn spawn_by(
        mut program: Command,
        database_url: &str,
        address: &str,
        settings: &[(&str, &str)],
    ) -> Gateway {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!("gateway-{}-{count}.log", std::process::id()));
        if !database_url.is_empty() {
            program.env("DATABASE_URL", database_url);
        }
        let mut process = program
            .env("GATEWAY_ADDRESS", address)
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let url = first_line(&mut process, &log);
        Gateway { process, log, door: Door { url, agent: agent() } }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its memory in kB, by its name in `/proc`: `VmRSS`, or `VmHWM` for the most so far.
    pub fn memory(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let mut lines = status.lines().filter_map(|line| line.split_once(':'));
        let (_, size) = lines.find(|(key, _)| *key == name).unwrap();
        size.trim_end_matches("kB").trim().parse().unwrap()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Has it read its map again.
    pub fn hang_up(&self) {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGHUP).unwrap();
    }

    /// What it prints if it does not start.
    pub fn refusal(settings: &[(&str, &str)]) -> String {
        let mut program = Command::new(PROGRAM);
        let output = program.env("GATEWAY_ADDRESS", "127.0.0.1:0").envs(settings.iter().copied());
        let output = output.output().unwrap();
        let printed = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "it starts: {printed}");
        printed
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM).unwrap();
    }

    pub fn until_stopped(&mut self) -> ExitStatus {
        let mut status = None;
        until("the gateway stops", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Deref for Gateway {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

impl Door {
    /// The host and port.
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    pub fn until_listening(&self) {
        until("the gateway listens", || self.health()["listening"] == true);
    }

    pub fn until_streams(&self, count: u64) {
        until("streams begin or end", || self.health()["streams"] == count);
    }

    /// Pushes that wait for another one of their workspace.
    pub fn until_waiting(&self, count: usize) {
        until("pushes wait", || self.health()["waiting"] == count);
    }

    pub fn health(&self) -> Value {
        self.request(self.agent.get(format!("{}/health", self.url)).call()).json()
    }

    /// A call, as `user` if there is one.
    pub fn post(&self, path: &str, user: Option<&str>, body: &str) -> Answer {
        self.try_post(path, user, body).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The same, or why there is no answer.
    pub fn try_post(&self, path: &str, user: Option<&str>, body: &str) -> Result<Answer, String> {
        let users: Vec<&[u8]> = user.iter().map(|user| user.as_bytes()).collect();
        self.post_bytes(path, &users, body.as_bytes())
    }

    /// The same with anything for a body and any number of users.
    pub fn post_bytes(&self, path: &str, users: &[&[u8]], body: &[u8]) -> Result<Answer, String> {
        let users = users.iter().map(|user| ("x-user-id", *user));
        let headers = [("content-type", &b"application/json"[..])].into_iter().chain(users);
        self.post_with(path, headers, body)
    }

    /// The same with these headers.
    pub fn post_with<'h>(
        &self,
        path: &str,
        headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
        body: &[u8],
    ) -> Result<Answer, String> {
        let mut request = self.agent.post(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        answer(request.send(body))
    }

    pub fn get(&self, path: &str, user: Option<&str>) -> Answer {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        if let Some(user) = user {
            request = request.header("x-user-id", user);
        }
        self.request(request.call())
    }

    /// The same for who accepts this type.
    pub fn get_as(&self, path: &str, user: Option<&str>, accept: &str) -> Answer {
        let mut request = self.agent.get(format!("{}{path}", self.url)).header("accept", accept);
        if let Some(user) = user {
            request = request.header("x-user-id", user);
        }
        self.request(request.call())
    }

    /// Any method, with a body unless it is empty.
    pub fn send(&self, method: &str, path: &str, user: Option<&str>, body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(user) = user {
            request = request.header("x-user-id", user);
        }
        if body.is_empty() {
            return self.request(self.agent.run(request.body(()).unwrap()));
        }
        let request = request.header("content-type", "application/json");
        self.request(self.agent.run(request.body(body.to_owned()).unwrap()))
    }

    fn request(&self, sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
        answer(sent).unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the gateway logged:\n{}", self.log());
        }
        let _ = fs::remove_file(&self.log);
    }
}

pub fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .build()
        .new_agent()
}

fn answer(sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Answer, String> {
    let mut response = sent.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let mut body = String::new();
    let mut reader = response.body_mut().as_reader();
    reader.read_to_string(&mut body).map_err(|error| error.to_string())?;
    Ok(Answer { status, body })
}

fn first_line(process: &mut Child, log: &Path) -> String {
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said = fs::read_to_string(log).unwrap_or_default();
    assert!(line.starts_with("http://"), "the gateway does not start: {said}");
    line.trim_end().to_owned()
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
