//! The process of a server: how it ends, also when ours ends before.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{io, os::unix::process::CommandExt};

use anyhow::{Context, Result};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// A postmaster with a guard that stops it should our process end first: the guard
/// reads from a pipe whose other end only we hold.
pub(crate) struct Server {
    process: Child,
    guard: Child,
}

impl Server {
    /// Starts both; `shell` runs a shell as the user who may run a server.
    pub(crate) fn spawn(mut postgres: Command, mut shell: Command) -> Result<Server> {
        postgres.stdin(Stdio::null()).stdout(Stdio::null());
        // Process groups of their own: Ctrl-C is for us, who then stop the server.
        let process = postgres.process_group(0).spawn().context("cannot start postgres")?;
        shell.args(["-c", "read -r _; kill -QUIT \"$0\""]).arg(process.id().to_string());
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let guard = shell.process_group(0).spawn().context("cannot start a guard")?;
        Ok(Server { process, guard })
    }

    pub(crate) fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.process.try_wait()?.is_some())
    }

    /// Sends the signal without waiting for the end.
    pub(crate) fn signal(&self, stop: Stop) {
        signal(self.process.id().cast_signed(), stop.signal());
    }

    pub(crate) fn wait(mut self) -> io::Result<ExitStatus> {
        self.process.wait()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Before the number can be another process's.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
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
    pub(crate) fn signal(self) -> Signal {
        match self {
            Stop::Cleanly => Signal::SIGINT,
            Stop::Immediately => Signal::SIGQUIT,
            Stop::Kill => Signal::SIGKILL,
        }
    }
}

pub(crate) fn remove_leftover(dir: &Path) -> Result<()> {
    if let Ok(pid_file) = fs::read_to_string(dir.join("data/postmaster.pid"))
        && let Some(pid) = pid_file.lines().next().and_then(|line| line.parse::<i32>().ok())
        && fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|command| command.contains(&*dir.to_string_lossy()))
    {
        signal(pid, Signal::SIGQUIT);
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

/// Nobody minds a process that has ended already.
pub(crate) fn signal(pid: i32, signal: Signal) {
    let _ = signal::kill(Pid::from_raw(pid), signal);
}
