//! Pulls of the log that the pushes left. Pages stay in the server, as what
//! COPY writes to /dev/null does; a poll is a whole call.

use anyhow::Result;
use postgres::Client;

use crate::pushes::Bench;
use crate::report::Row;
use crate::rounds::{Side, alternate};

impl Bench<'_> {
    /// Pages of the log against COPY of the same rows to /dev/null, and against
    /// a pull built by json_agg.
    pub fn pages(&mut self, row: &str, page: i64, peer: bool) -> Result<Vec<Row>> {
        let head: i64 = self
            .admin
            .query_one("select head from sync_ext.workspace where workspace_id = 'w0'", &[])?
            .get(0);
        let pages = (50_000 / page).min(head / page);
        let cursors = move || (0..pages).map(move |n| n * page);
        let (mut ours, mut copy, mut json_agg) = (self.client()?, self.client()?, self.client()?);
        let pull = ours.prepare("select pg_column_size(sync_pull('w0', $1, $2))")?;
        let agg = json_agg.prepare("select pg_column_size(expert.pull('w0', $1, $2))")?;
        let limit = page as i32;
        let mut sides = vec![
            Side::new("sync_ext", move |_| {
                for from in cursors() {
                    ours.query_one(&pull, &[&from, &limit])?;
                }
                Ok(())
            }),
            Side::new("COPY to /dev/null", move |_| {
                cursors().try_for_each(|from| {
                    Ok(copy.batch_execute(&format!(
                        "copy (select server_version, table_name, pk, operation, applied, payload, clock, hlc,
                           device_id, op_id from sync_ext.change_log l join sync_ext.workspace using (workspace_key)
                           where workspace_id = 'w0' and server_version > {from} and server_version <= {}
                           order by server_version) to '/dev/null'",
                        from + page
                    ))?)
                })
            }),
        ];
        if peer {
            sides.push(Side::new("json_agg", move |_| {
                for from in cursors() {
                    json_agg.query_one(&agg, &[&from, &limit])?;
                }
                Ok(())
            }));
        }
        let series = alternate(&self.bar, self.rounds, pages as usize, sides)?;
        let mut rows = vec![series.row(row, "sync_ext", "COPY to /dev/null")];
        if peer {
            rows.push(series.row(&format!("{row} / json_agg"), "sync_ext", "json_agg"));
        }
        Ok(rows)
    }

    /// A poll that finds nothing new, against the cheapest statement there is.
    pub fn empty_polls(&mut self) -> Result<Vec<Row>> {
        const POLLS: usize = 2000;
        let head: i64 = self
            .admin
            .query_one("select head from sync_ext.workspace where workspace_id = 'w0'", &[])?
            .get(0);
        let (mut ours, mut other) = (self.client()?, self.client()?);
        let pull = ours.prepare("select sync_pull('w0', $1)::text")?;
        let one = other.prepare("select 1")?;
        let series = alternate(
            &self.bar,
            self.rounds,
            POLLS,
            vec![
                Side::new("sync_ext", move |_| {
                    for _ in 0..POLLS {
                        ours.query_one(&pull, &[&head])?;
                    }
                    Ok(())
                }),
                Side::new("select 1", move |_| {
                    for _ in 0..POLLS {
                        other.query_one(&one, &[])?;
                    }
                    Ok(())
                }),
            ],
        )?;
        Ok(vec![series.row("empty poll", "sync_ext", "select 1")])
    }

    fn client(&self) -> Result<Client> {
        Ok(self.cluster.connect("bench")?)
    }
}
