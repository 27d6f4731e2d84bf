//! Data of every kind, and devices in the middle of everything.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use postgres::Client;
use serde_json::Value;
use sync_ext_harness::batch::{delete, op, op_id, push, put, with};
use sync_ext_harness::device::{Answered, Device, Listed, Listing, Pending, Pulled, call};
use sync_ext_harness::replies::ExchangeReply;
use sync_ext_harness::state::{TABLES, of_server};
use sync_ext_harness::steps::{age, gc, outcome, share, speak_for};

/// Of the app: own tables with rows from before they were attached, a function that
/// validates, settings of the database, and what its backend may do.
const APP: &str = "
    create function no_swearing(payload json, previous json, op json) returns text language sql
      as $$ select 'no swearing' where payload ->> 'text' = 'damn' $$;
    select sync_register_table('notes', patches => true),
           sync_register_table('chat', validation => 'no_swearing(json,json,json)'),
           sync_register_table('old'), sync_unregister_table('old');
    create table tasks (id integer primary key, workspace_id text not null, title text not null,
      done boolean not null default false, weight numeric(6, 2));
    insert into tasks select n, case when n <= 30 then 'home' else 'away' end, 'task ' || n, false, n / 3.0
      from generate_series(1, 40) as n;
    select sync_attach_table('tasks', patches => true);
    create table \"Steps\" (task integer references tasks, step text, team text not null, by_whom text,
      gone timestamptz, primary key (task, step));
    insert into \"Steps\" values (1, 'one', 'home', 'ann', null), (1, 'two', 'home', 'ann', now());
    select sync_attach_table('\"Steps\"', table_name => 'steps', workspace_column => 'team',
      deleted_column => 'gone', columns => '{\"task\": \"task\", \"step\": \"step\", \"by\": \"by_whom\"}',
      direction => 'down', apply_as => 'owner', apply_search_path => 'public');
    alter database app set sync_ext.retention = '20d';
    alter database app set sync_ext.server_hlc = 'iso';
    alter role backend in database app set sync_ext.require_user = on";

/// What the backend is granted; a database to compare with has the same.
pub const GRANTS: &str = "
    grant execute on function sync_push, sync_pull, sync_snapshot, sync_update_cursor to backend;
    grant usage on schema sync_ext to backend;
    grant select on sync_ext.conflict to backend";

/// One device for each thing that an upgrade can meet.
#[derive(Clone)]
pub struct World {
    /// The last one given to an op.
    id: u64,
    /// Up to date.
    idle: Device,
    /// In the middle of its pulls, by all changes and by the latest of one table.
    pulling: [Device; 2],
    /// Has the token of a snapshot's next page.
    reader: (Device, Listing),
    /// Its push arrived, the reply was lost.
    author: Device,
    /// The same of an exchange.
    exchanger: Device,
    /// Has not sent its edits.
    offline: Device,
    /// Of typed rows.
    worker: Device,
}

impl World {
    /// Into a new database, as its superuser.
    pub fn load(client: &mut Client) -> Result<World> {
        client.batch_execute(APP)?;
        client.batch_execute(GRANTS)?;
        push(
            client,
            "collected",
            &[delete(1, "a", 2), put(2, "b", 1), put(3, "b", 2), put(4, "c", 1)],
        );
        age(client);
        ensure!(gc(client, "collected")["tombstonesDeleted"] == 1);
        share(client);

        let device = |id: &str| Device::new(id, "crew");
        let mut world = World {
            id: 1_000,
            idle: device("idle"),
            pulling: [
                device("puller"),
                Device { tables: vec!["notes".into()], ..device("filtered") },
            ],
            reader: (device("reader"), Listing::default()),
            author: device("author"),
            exchanger: device("exchanger"),
            offline: device("offline"),
            worker: Device::new("worker", "home"),
        };
        world.fill(client)?;
        // Rows that are no records yet, before and after where the backfill has come to.
        let batch = "select sync_ext.backfill_batch('tasks', null, 10, null)::text";
        ensure!(call(client, batch, &[])?.contains(r#""captured":10"#));
        client.batch_execute(
            "update tasks set title = 'changed' where id in (5, 25); delete from tasks where id in (6, 26);
             insert into tasks values (50, 'home', 'new', true, null);
             update \"Steps\" set by_whom = 'bob' where step = 'one'",
        )?;
        world.disturb(client)?;
        Ok(world)
    }

    /// Records of one workspace: live, deleted, patched, and edits that lost.
    fn fill(&mut self, client: &mut Client) -> Result<()> {
        for n in 0..30 {
            self.edit(|world| &mut world.idle, &format!("pk-{n}"));
        }
        self.idle.push(client)?;
        let losers: Vec<String> = (0..10).map(|n| put(n + 10, &format!("pk-{n}"), 1)).collect();
        push(client, "crew", &losers);
        let base = format!(r#"{{"clock":1,"hlc":"h","opId":"{}"}}"#, op_id(1_001));
        let patch = with(&op(40, "pk-0", 2, "patch", r#"{"by": "ann"}"#), "base", &base);
        push(client, "crew", &[patch]);
        for n in 20..25 {
            self.id += 1;
            self.idle.delete(self.id, &format!("pk-{n}"));
        }
        self.idle.push(client)?;
        // Edits of records that their authors had not seen.
        let unseen = with(&put(41, "pk-1", 3), "parent", r#""none""#);
        push(client, "crew", &[unseen]);
        let views = "select concat((select count(*) from sync_ext.conflict where workspace_id = 'crew'), ' ',
            (select count(*) from sync_ext.tombstone where workspace_id = 'crew'))";
        ensure!(call(client, views, &[])? == "11 5", "{}", call(client, views, &[])?);
        Ok(())
    }

    fn edit(&mut self, of: impl FnOnce(&mut World) -> &mut Device, pk: &str) {
        self.id += 1;
        let id = self.id;
        of(self).put(id, pk);
    }

    /// Brings each device to where an upgrade is to meet it.
    pub fn disturb(&mut self, client: &mut Client) -> Result<()> {
        for device in [&mut self.author, &mut self.exchanger, &mut self.offline, &mut self.idle] {
            device.pull(client, 100, false)?;
            device.acknowledge(client)?;
        }
        for n in 0..3 {
            self.edit(|world| &mut world.author, &format!("pk-{n}"));
            self.edit(|world| &mut world.exchanger, &format!("pk-{}", n + 1));
            self.edit(|world| &mut world.offline, &format!("pk-{}", n + 2));
        }
        let sql = "select sync_push($1, $2::text::json)::text";
        call(client, sql, &[&self.author.workspace, &outbox(&self.author)])?;
        exchange(client, &self.exchanger)?;

        let [all, latest] = &mut self.pulling;
        *all = Device::new(&all.id, &all.workspace);
        *latest =
            Device { tables: latest.tables.clone(), ..Device::new(&latest.id, &latest.workspace) };
        self.worker = Device::new(&self.worker.id, &self.worker.workspace);
        for (device, is_latest) in [(all, false), (latest, true), (&mut self.worker, false)] {
            let pulled = device.pull_page(client, 3, is_latest)?;
            ensure!(matches!(pulled, Pulled::Page { has_more: true, .. }), "{pulled:?}");
            device.acknowledge(client)?;
        }
        let (reader, listing) = &mut self.reader;
        *reader = Device::new(&reader.id, &reader.workspace);
        *listing = Listing::default();
        ensure!(reader.snapshot_page(listing, client, 7)? == Listed::More);
        Ok(())
    }

    /// All go on to the end, with more edits, by SQL too, and have what the server has.
    pub fn finish(mut self, client: &mut Client) -> Result<()> {
        // What was pushed is there.
        let all_of =
            |outbox: &[Pending]| Answered { replayed: outbox.len(), ..Answered::default() };
        let all = all_of(&self.author.outbox);
        ensure!(all.replayed > 2 && self.author.push(client)? == all);
        let reply: ExchangeReply = serde_json::from_str(&exchange(client, &self.exchanger)?)?;
        let sent: Vec<String> =
            self.exchanger.outbox.iter().map(|op| op.revision.op_id.clone()).collect();
        let all = all_of(&self.exchanger.outbox);
        ensure!(
            all.replayed > 2 && self.exchanger.push_answered(&sent, reply.push.get())?.0 == all
        );
        self.exchanger.pull_answered(reply.pull.get())?;
        let offline = self.offline.push(client)?;
        ensure!(offline.applied + offline.lost > 2, "{offline:?}");

        let (reader, listing) = &mut self.reader;
        let mut pages = 0;
        while reader.snapshot_page(listing, client, 7)? == Listed::More {
            pages += 1;
        }
        ensure!(pages > 1 && !reader.snapshot_begun, "the snapshot went on for {pages} pages");
        let [all, latest] = &mut self.pulling;
        ensure!(all.pull(client, 3, false)? > 30);
        ensure!(latest.pull(client, 3, true)? > 10);

        self.edit_by_sql(client)?;
        let World { mut id, idle, pulling: [all, latest], reader: (reader, _), .. } = self;
        let World { author, exchanger, offline, worker, .. } = self;
        let mut devices = [idle, all, latest, reader, author, exchanger, offline, worker];
        for device in &mut devices {
            id += 1;
            if device.workspace == "crew" {
                device.put(id, &format!("of {}", device.id));
            }
            device.push(client)?;
        }
        for device in &mut devices {
            device.pull(client, 100, false)?;
            ensure!(device.cursor > 0 && !device.snapshot_begun);
            device.acknowledge(client)?;
            let server = of_server(client, &device.workspace)?;
            ensure!(device.state() == server, "{} has not what the server has", device.id);
            ensure!(device.outbox.is_empty(), "{}: {:?}", device.id, device.outbox);
        }
        users_see_their_own(client)?;
        collect(client)
    }

    fn edit_by_sql(&mut self, client: &mut Client) -> Result<()> {
        client.batch_execute("call sync_backfill_table('tasks', batch_size => 7)")?;
        client.batch_execute("call sync_backfill_table('\"Steps\"')")?;
        client.batch_execute(
            "update tasks set done = true where id in (1, 30); insert into tasks values (60, 'home', 'sixty');
             select sync_put('crew', 'notes', 's', '{\"n\": 1}'), sync_patch('crew', 'notes', 's', '{\"m\": 2}'),
                    sync_delete('crew', 'notes', 'pk-9')",
        )?;
        let task = |n: u64, id: u64, payload: &str| {
            op(n, &id.to_string(), 9, "put", payload).replace("notes", "tasks")
        };
        self.id += 2;
        let ops = [
            task(self.id - 1, 70, r#"{"title":"pushed","weight":"1.50"}"#),
            task(self.id, 2, r#"{"title":null}"#),
            op(1, "1", 1, "delete", "null").replace("notes", "steps"),
            op(2, "x", 1, "put", r#"{"text":"damn"}"#).replace("notes", "chat"),
            op(3, "x", 1, "put", "{}").replace("notes", "old"),
        ];
        let reply = call(
            client,
            "select string_agg(coalesce(r ->> 'errorCode', r ->> 'applied'), ' ' order by place)
               from json_array_elements(sync_push('home', $1::text::json) -> 'results') with ordinality x (r, place)",
            &[&format!("[{}]", ops.join(","))],
        )?;
        ensure!(reply == "true CONSTRAINT READ_ONLY REJECTED VALIDATION_ERROR", "{reply}");
        for table in ["tasks", "\"Steps\""] {
            let sql = "select (sync_check_table($1::text::regclass))::text";
            let check: Value = serde_json::from_str(&call(client, sql, &[&table])?)?;
            ensure!(check["differencesTotal"] == 0 && check["trigger"] == "ok", "{table}: {check}");
        }
        let sql = "select concat(count(*), ' ', sum(weight) filter (where id = 70)) from tasks";
        ensure!(call(client, sql, &[])? == "41 1.50", "{}", call(client, sql, &[])?);
        let refused = outcome(client, "truncate \"Steps\", tasks");
        ensure!(refused == Err("0A000".into()), "{refused:?}");
        Ok(())
    }
}

fn outbox(device: &Device) -> String {
    let ops: Vec<&str> = device.outbox.iter().map(|op| op.json.as_str()).collect();
    format!("[{}]", ops.join(","))
}

fn exchange(client: &mut Client, device: &Device) -> Result<String> {
    let sql = "select sync_exchange($1, $2, $3, $4::text::json, proof => $5)::text";
    let Device { workspace, id, cursor, proof, .. } = device;
    call(client, sql, &[workspace, id, cursor, &outbox(device), proof])
}

fn users_see_their_own(client: &mut Client) -> Result<()> {
    let sql = "select json_array_length(sync_pull('team') -> 'changes')::text";
    for (user, sees) in [("ann", Ok("1")), ("bob", Ok("0")), ("eve", Err("42501"))] {
        speak_for(client, user);
        let found = outcome(client, sql);
        ensure!(found.as_deref().map_err(String::as_str) == sees, "{user}: {found:?}");
    }
    client.batch_execute("reset sync_ext.user_id")?;
    // Grants of the administrator.
    for (sql, may) in [("select sync_pull('crew')", true), ("select sync_gc()", false)] {
        let found = outcome(client, &format!("begin; set local role backend; {sql}; commit"));
        ensure!(found.is_ok() == may, "{sql}: {found:?}");
        client.batch_execute("rollback")?;
    }
    Ok(())
}

/// Old entries go, graves stay, dropped workspaces are erased.
fn collect(client: &mut Client) -> Result<()> {
    ensure!(push(client, "collected", &[put(9, "a", 1), put(10, "d", 1)]) == [5, 6]);
    let grave = "select deleted::text from sync_ext.current_record
                  where workspace_id = 'collected' and pk = 'a'";
    ensure!(call(client, grave, &[])? == "true", "an old put came back");
    age(client);
    client.batch_execute("call sync_gc_all()")?;
    let left = "select concat((select count(*) from sync_ext.dropped_workspace), ' dropped, ', garbage_waiting, ' waiting')
                  from sync_ext.workspace_status where workspace_id = 'collected'";
    let left = call(client, left, &[])?;
    ensure!(left == "0 dropped, 0 waiting", "{left}");
    for sql in
        ["select sync_status('crew')::text", "select sync_explain('crew', 'notes', 'pk-1')::text"]
    {
        ensure!(call(client, sql, &[])?.len() > 100, "{sql}");
    }
    Ok(())
}

/// What is new since the release.
pub fn follow_a_scope(client: &mut Client) -> Result<()> {
    let by = |id, name: &str| op(id, "moved", id, "put", &format!(r#"{{"by": "{name}"}}"#));
    let head = push(client, "crew", &[by(90, "ann")])[0];
    client.batch_execute("call sync_set_scope_field('notes', 'by')")?;
    let by_ann = "select string_agg(r ->> 'pk', ' ') from json_array_elements(
        sync_snapshot('crew', tables => '{notes}', scopes => '{ann}') -> 'items') as r";
    ensure!(call(client, by_ann, &[])? == "moved", "{}", call(client, by_ann, &[])?);
    ensure!(push(client, "crew", &[by(91, "bob")]) == [head + 1]);
    let told =
        "select string_agg(concat(c ->> 'op', ' ', c ->> 'pk'), ' ') from json_array_elements(
        sync_pull('crew', $1, scopes => array[$2]) -> 'changes') as c";
    for (scope, expected) in [("ann", "leave moved"), ("bob", "put moved")] {
        let told = call(client, told, &[&head, &scope])?;
        ensure!(told == expected, "{scope}: {told}");
    }
    Ok(())
}

/// Columns, and a table, that the release does not have.
const ADDED: [&str; 10] = [
    "scope",
    "left_scope",
    "scope_field",
    "scope_epoch",
    "scope_column",
    "away",
    "held_until",
    "unread_since",
    "pinned_since",
    "devices_since",
];
const ADDED_TABLE: &str = "unpinned_workspace";

pub type Data = BTreeMap<&'static str, String>;

/// All that a database has: what the extension stores, what its views show, the rows of
/// own tables, settings.
pub fn data(client: &mut Client) -> Result<Data> {
    let known = TABLES.into_iter().filter(|table| *table != ADDED_TABLE);
    let tables = known.map(|table| (table, format!("sync_ext.{table}")));
    let others = [
        ("tasks", "tasks"),
        ("steps", "\"Steps\""),
        ("current_record", "sync_ext.current_record"),
        ("conflict", "sync_ext.conflict"),
        ("tombstone", "sync_ext.tombstone"),
        ("attached_table", "sync_ext.attached_table"),
        ("key", "(select last_value, is_called from sync_ext.workspace_workspace_key_seq)"),
        (
            "setting",
            "(select datname, setrole::regrole, unnest(setconfig) from pg_db_role_setting
               join pg_database on pg_database.oid = setdatabase)",
        ),
    ];
    let mut data = Data::new();
    for (name, from) in tables.chain(others.map(|(name, from)| (name, from.to_owned()))) {
        let columns = "select coalesce(string_agg(quote_ident(attname), ', ' order by attnum), '*')
            from pg_attribute where attrelid = to_regclass($1) and attnum > 0
              and not attisdropped and attname <> all ($2)";
        let relation = Some(&from).filter(|from| !from.starts_with('('));
        let columns: String = client.query_one(columns, &[&relation, &ADDED.as_slice()])?.get(0);
        let sql = format!(
            "select string_agg(t::text, e'\\n' order by t::text) from (select {columns} from {from} as s) as t"
        );
        let rows: Option<String> = client.query_one(&sql, &[])?.get(0);
        data.insert(name, rows.with_context(|| format!("{name} has no rows"))?);
    }
    Ok(data)
}
