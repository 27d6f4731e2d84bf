//! Steps whose outcome is counted in rows, and what must be stored.

use anyhow::{Context, Result, ensure};

use super::asking::Call;
use super::collecting::Leftover;
use super::model::{Entry, Owner, Record, Server};
use super::step::{Name, Role, Via, Who};
use super::world::World;

impl World {
    pub fn drop_workspace(
        &mut self,
        who: Who,
        via: Via,
        workspace: Name,
        batch: i64,
    ) -> Result<()> {
        let foretold =
            self.foretell(who, |model, user| model.drop_workspace(user, workspace, batch));
        let sql = "select sync_drop_workspace($1, $2::text::int)::text";
        let call = Call::new(who, via, sql).about(workspace).with(Some(batch));
        let reply = self.ask(&call, &foretold)?;
        let (Some(reply), Ok(foretold)) = (reply, foretold) else { return Ok(()) };
        ensure!(reply == foretold, "replied {reply}\nforetold {foretold}");
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
        let foretold =
            self.foretell(who, |model, user| model.collect(user, workspace, through, batch));
        let sql = "select sync_gc($1, clock_timestamp() - (timestamptz '2020-01-01Z' +
                     ($2::text::float8 + 0.5) * interval '1 hour'), $3::text::int)::text";
        let mut call = Call::new(who, via, sql);
        call = match workspace {
            Some(workspace) => call.about(workspace),
            None => call.with(None::<Name>),
        };
        let call = call.with(Some(through)).with(Some(batch));
        let reply = self.ask(&call, &foretold)?;
        let (Some(reply), Ok(told)) = (reply, foretold) else { return Ok(()) };
        let number = |key: &str| reply[key].as_i64().with_context(|| format!("{key}: {reply}"));
        self.tally.add("gc runs", 1);
        self.tally.add("entries purged", (told.changes + told.tombstones) as u64);
        ensure!(
            number("workspaces")? == told.workspaces
                && number("scanned")? == told.scanned
                && number("changesDeleted")? == told.changes
                && number("tombstonesDeleted")? == told.tombstones
                && number("devicesDeleted")? == told.devices
                && reply["hasMore"] == told.has_more,
            "gc was answered {reply}\nforetold {told:?}"
        );
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
        let foretold = (dropped.values().map(Leftover::rows).sum(), dropped.len() as i64);
        ensure!(stored == foretold, "{stored:?} rows and workspaces are left, not {foretold:?}");
        Ok(())
    }

    /// Where the app keeps the members, a trusted caller is the app, which does
    /// by itself what it cannot do here.
    pub fn told_by_the_app(
        &mut self,
        who: Who,
        workspace: Name,
        user: Name,
        role: Option<Role>,
    ) -> Result<()> {
        if !self.model.elsewhere || who != Who::Trusted {
            return Ok(());
        }
        self.model.members.remove(&(workspace, user));
        let sql = "delete from app.member where workspace_id = $1 and user_id = $2";
        self.admin.execute(sql, &[&workspace, &user])?;
        if let Some(role) = role {
            self.model.members.insert((workspace, user), role);
            let sql = "insert into app.member values ($1, $2, $3)";
            self.admin.execute(sql, &[&workspace, &user, &role.word()])?;
        }
        Ok(())
    }

    pub fn silence(&mut self, workspace: Name, device: Name, days: i64) -> Result<()> {
        let Some(state) = self.model.workspaces.get_mut(workspace) else { return Ok(()) };
        for ((name, _), known) in &mut state.devices {
            if *name == device {
                known.silent_days = days;
            }
        }
        let sql = "update sync_ext.device_cursor d
                      set updated_at = now() - $3::bigint * interval '1 day'
                     from sync_ext.workspace w
                    where w.workspace_key = d.workspace_key and w.workspace_id = $1
                      and d.device_id = $2";
        self.admin.execute(sql, &[&workspace, &device, &days])?;
        Ok(())
    }

    /// Every row is what the model says, byte for byte, and there are no others.
    pub fn check_tables(&mut self) -> Result<()> {
        let stored = self.stored()?;
        let foretold = lines(&self.model);
        let only = |these: &[String], those: &[String]| {
            let lines = these.iter().filter(|line| !those.contains(line)).cloned();
            lines.collect::<Vec<_>>().join("\n    ")
        };
        ensure!(
            stored == foretold,
            "stored, but wrong:\n    {}\n  missing:\n    {}",
            only(&stored, &foretold),
            only(&foretold, &stored)
        );
        Ok(())
    }

    fn stored(&mut self) -> Result<Vec<String>> {
        let rows = self.admin.query(
            "select format('%s workspace %s %s %s', workspace_id, head, horizon, gc_through)
               from sync_ext.workspace
             union all select format('%s log %s %s %s %s %s %s %s %s %s %s %s %s owner <%s> filled <%s>',
                 w.workspace_id, l.server_version, l.table_name, l.pk, l.operation, l.payload,
                 l.clock, l.hlc, l.device_id, l.op_id, l.applied, l.supersedes, l.overwrote, l.owner,
                 l.filled_field)
               from sync_ext.change_log l join sync_ext.workspace w using (workspace_key)
             union all select format('%s record %s %s %s %s %s %s %s owner <%s>', w.workspace_id,
                 r.table_name, r.pk, r.server_version, r.clock, r.hlc, r.op_id, r.deleted, r.owner)
               from sync_ext.record r join sync_ext.workspace w using (workspace_key)
             union all select format('%s device %s of <%s> %s', w.workspace_id, d.device_id,
                 d.user_id, d.last_seen_version)
               from sync_ext.device_cursor d join sync_ext.workspace w using (workspace_key)
             union all select format('%s member %s %s', workspace_id, user_id, role)
               from sync_ext.member
             union all select format('table %s %s <%s>', table_name, pk_field, owner_field)
               from sync_ext.synced_table",
            &[],
        )?;
        let mut lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        lines.sort_unstable();
        Ok(lines)
    }
}

fn lines(model: &Server) -> Vec<String> {
    let mut lines = Vec::new();
    let flag = |flag: bool| if flag { "t" } else { "f" };
    let or_empty = |owner: &Owner| owner.clone().unwrap_or_default();
    for (name, state) in &model.workspaces {
        let (head, horizon, through) = (state.head, state.horizon, state.gc_through);
        lines.push(format!("{name} workspace {head} {horizon} {through}"));
        for (version, entry) in &state.log {
            let Entry { op, payload, filled, owner, applied, supersedes, overwrote, .. } = entry;
            lines.push(format!(
                "{name} log {version} {} {} {} {} {} {} {} {} {} {} {} owner <{}> filled <{}>",
                op.table,
                op.pk,
                if op.delete { "delete" } else { "put" },
                payload.as_deref().unwrap_or_default(),
                op.clock,
                op.hlc,
                op.device,
                op.op_id,
                flag(*applied),
                supersedes.map(|version| version.to_string()).unwrap_or_default(),
                overwrote.as_deref().unwrap_or_default(),
                or_empty(owner),
                filled.unwrap_or_default()
            ));
        }
        for ((table, pk), Record { version, revision, deleted, owner }) in &state.records {
            let (clock, hlc, op_id) = revision;
            lines.push(format!(
                "{name} record {table} {pk} {version} {clock} {hlc} {op_id} {} owner <{}>",
                flag(*deleted),
                or_empty(owner)
            ));
        }
        for ((device, user), known) in &state.devices {
            lines.push(format!("{name} device {device} of <{user}> {}", known.cursor));
        }
    }
    if !model.elsewhere {
        let member = |((name, user), role): (&(Name, Name), &Role)| {
            format!("{name} member {user} {}", role.word())
        };
        lines.extend(model.members.iter().map(member));
    }
    for (table, owner_field) in &model.tables {
        lines.push(format!("table {table} id <{}>", owner_field.unwrap_or_default()));
    }
    lines.sort_unstable();
    lines
}
