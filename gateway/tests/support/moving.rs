//! A workspace that moves from one server to another, step by step.

use postgres::Client;
use postgres::types::ToSql;
use serde_json::{Value, json};
use sync_ext_harness::device::call;

use super::fleet::{NAMES, Site};

pub struct Moving {
    workspace: String,
    from: usize,
    to: usize,
    id: String,
    /// What the departure has returned.
    last: String,
}

/// The servers own the buckets that the map gives them.
pub fn own_buckets(site: &mut Site) {
    for (server, admin) in site.admins.iter_mut().enumerate() {
        let own = "select sync_own_buckets(array(select b from generate_series(0, 1023) as b
                                                 where b % 3 = $1)),
                          sync_set_key_range($1 + 1)";
        admin.execute(own, &[&(server as i32)]).unwrap();
    }
}

fn step(client: &mut Client, function: &str, arguments: &[&(dyn ToSql + Sync)]) -> String {
    let call_of = format!("select {function}::text");
    call(client, &call_of, arguments).unwrap_or_else(|error| panic!("{function}: {error:?}"))
}

impl Moving {
    /// Everything up to the departure: no server has the workspace now.
    pub fn depart(site: &mut Site, workspace: &str, from: usize, to: usize) -> Moving {
        let id = call(&mut site.router, "select gen_random_uuid()::text", &[]).unwrap();
        let named: [&(dyn ToSql + Sync); 2] = [&workspace, &id];
        let begin = "sync_export_begin($1, $2::text::uuid, $3)";
        let begun = step(&mut site.admins[from], begin, &[named[0], named[1], &NAMES[to]]);
        let begin = "sync_import_begin($1, $2::text::uuid, $3::text::json)";
        let mut reply = step(&mut site.admins[to], begin, &[named[0], named[1], &begun]);
        let hold = "sync_export_hold($1, $2::text::uuid, 60)";
        step(&mut site.admins[from], hold, &named);
        loop {
            let state: Value = serde_json::from_str(&reply).unwrap();
            let position = state["position"].to_string();
            let page = "sync_export_page($1, $2::text::uuid, $3::text::json)";
            let page = step(&mut site.admins[from], page, &[named[0], named[1], &position]);
            let import = "sync_import_page($1, $2::text::uuid, $3::text::json)";
            reply = step(&mut site.admins[to], import, &[named[0], named[1], &page]);
            let state: Value = serde_json::from_str(&reply).unwrap();
            if state["isComplete"] != json!(true) {
                continue;
            }
            let depart = "sync_export_depart($1, $2::text::uuid, $3)";
            let through = state["through"].as_i64().unwrap();
            let last = step(&mut site.admins[from], depart, &[named[0], named[1], &through]);
            if serde_json::from_str::<Value>(&last).unwrap()["departed"] == json!(true) {
                return Moving { workspace: workspace.to_owned(), from, to, id, last };
            }
        }
    }

    /// The other server has it now, which the map says. What the gateway knows is its own
    /// affair.
    pub fn arrive(self, site: &mut Site) {
        let Moving { workspace, from, to, id, last } = self;
        let named: [&(dyn ToSql + Sync); 2] = [&workspace, &id];
        let arrive = "sync_import_arrive($1, $2::text::uuid, $3::text::json)";
        step(&mut site.admins[to], arrive, &[named[0], named[1], &last]);
        site.place(&workspace, to);
        let forget = "sync_export_forget($1, $2::text::uuid)";
        while step(&mut site.admins[from], forget, &named).contains("\"hasMore\":true") {}
    }
}
