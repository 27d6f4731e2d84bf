//! Backups of a server's files, and restoring them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::cluster::{Cluster, Stop};

impl Cluster {
    /// Keeps a copy of the files, taken while the server is stopped.
    pub fn back_up(&mut self) -> Result<()> {
        self.stop_server(Stop::Cleanly)?;
        let kept = self.kept_dir();
        if kept.exists() {
            fs::remove_dir_all(&kept)?;
        }
        copy(self.data_dir(), kept)?;
        self.start_server()
    }

    /// Restores that copy; later changes are lost.
    pub fn restore(&mut self) -> Result<()> {
        self.stop_server(Stop::Immediately)?;
        fs::remove_dir_all(self.data_dir())?;
        copy(self.kept_dir(), self.data_dir())?;
        self.start_server()
    }

    fn kept_dir(&self) -> PathBuf {
        self.data_dir().with_extension("kept")
    }
}

/// With owners and modes, which Postgres requires.
fn copy(from: PathBuf, to: PathBuf) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "the files were not copied: {status}");
    Ok(())
}
