//! The calls of a device, whoever answers them.

use anyhow::Result;
use postgres::Client;
use sync_ext_harness::device::{Device, call};

/// An error is that of Postgres, or [`super::Ended`]; replies are as of SQL.
pub trait Session {
    fn push(&mut self, device: &Device, ops: &str) -> Result<String>;
    fn pull(&mut self, device: &Device, limit: i32) -> Result<String>;
    fn acknowledge(&mut self, device: &Device) -> Result<()>;
    /// For what is said of a violation.
    fn workspaces(&mut self) -> Result<String>;
}

impl Session for Client {
    fn push(&mut self, device: &Device, ops: &str) -> Result<String> {
        call(self, "select sync_push($1, $2::text::json)::text", &[&device.workspace, &ops])
    }

    fn pull(&mut self, device: &Device, limit: i32) -> Result<String> {
        let sql = "select sync_pull($1, $2, $3, proof => $4)::text";
        call(self, sql, &[&device.workspace, &device.cursor, &limit, &device.proof])
    }

    fn acknowledge(&mut self, device: &Device) -> Result<()> {
        device.acknowledge(self)
    }

    fn workspaces(&mut self) -> Result<String> {
        call(self, "select coalesce(json_agg(w)::text, '') from sync_ext.workspace as w", &[])
    }
}
