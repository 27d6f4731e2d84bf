//! Steps whose outcome is counted in rows, and those that the app takes.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use sync_ext_model::gc::Leftover;
use sync_ext_model::{Cutoffs, Role};

use super::asking::Call;
use super::step::{Name, Via, Who};
use super::world::{CUTOFFS, HOUR, World};
use crate::common::rows::check_reply;

impl World {
    pub fn drop_workspace(
        &mut self,
        who: Who,
        via: Via,
        workspace: Name,
        batch: i64,
    ) -> Result<()> {
        let expected = self.expect(who, |model, user| model.drop_workspace(user, workspace, batch));
        let sql = "select sync_drop_workspace($1, $2::text::int)::text";
        let call = Call::new(who, via, sql).about(workspace).with(Some(batch));
        let reply = self.ask(&call, &expected)?;
        let (Some(reply), Ok(expected)) = (reply, expected) else { return Ok(()) };
        check_reply("a drop", &reply, &expected)?;
        if reply["dropped"] == true {
            self.tally.add("workspaces dropped", 1);
            self.secrets.dropped(workspace);
        }
        self.check_leftovers()
    }

    pub fn collect(
        &mut self,
        who: Who,
        via: Via,
        workspace: Option<Name>,
        through: i64,
        batch: i64,
    ) -> Result<()> {
        let cutoffs = Cutoffs { entries: through * HOUR, ..CUTOFFS };
        let expected = self.expect(who, |model, user| {
            model.collect(user, workspace, cutoffs, batch, &BTreeSet::new())
        });
        let sql = "select sync_gc($1, clock_timestamp() - (timestamptz '2020-01-01Z' +
                     ($2::text::float8 + 0.5) * interval '1 hour'), $3::text::int)::text";
        let mut call = Call::new(who, via, sql);
        call = match workspace {
            Some(workspace) => call.about(workspace),
            None => call.with(None::<Name>),
        };
        let call = call.with(Some(through)).with(Some(batch));
        let reply = self.ask(&call, &expected)?;
        let (Some(reply), Ok(collected)) = (reply, expected) else { return Ok(()) };
        self.tally.add("gc runs", 1);
        self.tally.add("entries purged", (collected.changes + collected.tombstones) as u64);
        check_reply("gc", &reply, &collected.reply())?;
        self.check_leftovers()
    }

    /// What is left of dropped workspaces, and what remembers them.
    fn check_leftovers(&mut self) -> Result<()> {
        let sql = "select sum(rows)::bigint, (select count(*) from sync_ext.dropped_workspace)
                     from (select count(*) as rows from sync_ext.change_log where workspace_key
                             not in (select workspace_key from sync_ext.workspace)
                           union all select count(*) from sync_ext.record where workspace_key
                             not in (select workspace_key from sync_ext.workspace)
                           union all select count(*) from sync_ext.device_cursor where workspace_key
                             not in (select workspace_key from sync_ext.workspace)) as counts";
        let row = self.admin.query_one(sql, &[])?;
        let stored: (i64, i64) = (row.get(0), row.get(1));
        let dropped = &self.model.dropped;
        let expected = (dropped.values().map(Leftover::rows).sum(), dropped.len() as i64);
        ensure!(stored == expected, "{stored:?} rows and workspaces are left, not {expected:?}");
        Ok(())
    }

    /// Where the app keeps the members, a trusted caller is the app, which does
    /// by itself what it cannot do here.
    pub fn by_the_app(
        &mut self,
        who: Who,
        workspace: Name,
        user: Name,
        role: Option<Role>,
    ) -> Result<()> {
        if !self.model.has_members_elsewhere || who != Who::Trusted {
            return Ok(());
        }
        let key = (workspace.to_owned(), user.to_owned());
        self.model.members.remove(&key);
        let sql = "delete from app.member where workspace_id = $1 and user_id = $2";
        self.admin.execute(sql, &[&workspace, &user])?;
        if let Some(role) = role {
            self.model.members.insert(key, role);
            let sql = "insert into app.member values ($1, $2, $3)";
            self.admin.execute(sql, &[&workspace, &user, &role.word()])?;
        }
        Ok(())
    }

    pub fn silence(&mut self, workspace: Name, device: Name, days: i64) -> Result<()> {
        let Some(state) = self.model.workspaces.get_mut(workspace) else { return Ok(()) };
        for ((name, _), known) in &mut state.devices {
            if *name == device {
                known.heard_at = -days;
            }
        }
        let sql = "update sync_ext.device_cursor d
                      set updated_at = now() - $3::bigint * interval '1 day'
                     from sync_ext.workspace w
                    where w.workspace_key = d.workspace_key and w.workspace_id = $1
                      and d.device_id = $2";
        self.admin.execute(sql, &[&workspace, &device, &days])?;
        let sql = "update sync_ext.workspace
                      set pinned_since = least(pinned_since, since), devices_since = least(devices_since, since)
                     from (select now() - $2::bigint * interval '1 day' as since) s
                    where workspace_id = $1";
        self.admin.execute(sql, &[&workspace, &days])?;
        Ok(())
    }
}
