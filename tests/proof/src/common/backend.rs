//! What a backend takes of memory, as the kernel and as Postgres count it.

use std::fs;

use anyhow::{Context, Result};
use postgres::Client;

/// The process behind a connection.
#[derive(Clone, Copy, Debug)]
pub struct Backend {
    pid: i32,
}

impl Backend {
    pub fn of(client: &mut Client) -> Result<Backend> {
        Ok(Backend { pid: client.query_one("select pg_backend_pid()", &[])?.get(0) })
    }

    pub fn pid(self) -> i32 {
        self.pid
    }

    /// The bytes that the process has to itself and to nothing else: neither
    /// shared buffers nor pages of files.
    pub fn own(self) -> Result<u64> {
        self.status("RssAnon:")
    }

    /// What `work` adds to the process' memory at its peak. Pages of shared
    /// memory and of files that it touches for the first time are left out, so
    /// far as they are mapped when it ends.
    pub fn peak_of<T>(self, work: impl FnOnce() -> Result<T>) -> Result<(u64, T)> {
        let shared =
            || Ok::<_, anyhow::Error>(self.status("RssShmem:")? + self.status("RssFile:")?);
        // 5 sets the peak back to what is mapped now; see proc_pid_clear_refs(5).
        fs::write(format!("/proc/{}/clear_refs", self.pid), "5")
            .context("the peak cannot be set back")?;
        let before = self.status("VmHWM:")? - shared()?;
        let result = work()?;
        let after = self.status("VmHWM:")?.saturating_sub(shared()?);
        Ok((after.saturating_sub(before), result))
    }

    fn status(self, name: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))
            .context("the backend is gone")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.with_context(|| format!("no {name}"))?.trim().trim_end_matches(" kB");
        Ok(kilobytes.parse::<u64>()? * 1024)
    }
}

/// The sum of the sizes of all memory contexts of the connection's backend. The
/// question takes the same memory each time, its own included.
pub fn context_bytes(client: &mut Client) -> Result<i64> {
    let sql = "select sum(total_bytes)::bigint from pg_backend_memory_contexts";
    Ok(client.query_one(sql, &[])?.get(0))
}
