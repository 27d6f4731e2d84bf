//! Several servers, the map of a router, and a gateway before them.

use postgres::Client;
use serde_json::{Value, json};
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::device::call;

use super::process::{Door, Gateway, until};
use super::stand::{SERVER, trust_gateway};
use super::team;

pub const NAMES: [&str; 3] = ["a", "b", "c"];

/// In SQL.
pub const BUCKET: &str = "sync_ext.bucket_of(workspace_id)";

pub struct Fleet {
    pub clusters: [Cluster; 3],
}

impl Fleet {
    pub fn start(name: &str) -> Fleet {
        let start = |server| Cluster::start(&format!("{name}-{server}"), &SERVER).unwrap();
        Fleet { clusters: NAMES.map(start) }
    }

    /// A database on each server; server `n` has the buckets with the remainder `n`.
    pub fn site(&self, database: &str, settings: &[(&str, &str)]) -> Site {
        let admins = self.prepare(database, settings.contains(&("GATEWAY_TRUSTED", "on")));
        let mut router = self.router(database);
        fill(&mut router);
        let gateway = self.gateway(database, settings);
        Site { admins, router, gateway, taken: 0 }
    }

    pub fn prepare(&self, database: &str, is_trusting: bool) -> [Client; 3] {
        self.clusters.each_ref().map(|cluster| {
            let mut admin = cluster.create_database(database).unwrap();
            team::prepare(&mut admin, database).unwrap();
            call(&mut admin, "select sync_drop_workspace('team')::text", &[]).unwrap();
            if is_trusting {
                trust_gateway(&mut admin, database);
            }
            admin
        })
    }

    /// The database of a router, with an empty map.
    pub fn router(&self, database: &str) -> Client {
        let name = router_of(database);
        let mut postgres = self.clusters[0].connect("postgres").unwrap();
        postgres.batch_execute(&format!("drop database if exists {name}")).unwrap();
        postgres.batch_execute(&format!("create database {name}")).unwrap();
        let mut router = self.clusters[0].connect(&name).unwrap();
        router
            .batch_execute(
                "create schema sync_router;
                 create table sync_router.bucket (bucket integer primary key, shard integer not null);
                 create table sync_router.placed (workspace_id text primary key, shard integer not null);
                 grant usage on schema sync_router to gateway;
                 grant select on all tables in schema sync_router to gateway",
            )
            .unwrap();
        router
    }

    pub fn session_of_router(&self, database: &str) -> Client {
        self.clusters[0].connect(&router_of(database)).unwrap()
    }

    pub fn urls(&self, database: &str) -> String {
        let servers = NAMES.iter().zip(&self.clusters).map(|(name, cluster)| {
            json!({"name": name, "url": cluster.connection_string("gateway", database)})
        });
        Value::Array(servers.collect()).to_string()
    }

    pub fn router_url(&self, database: &str) -> String {
        self.clusters[0].connection_string("gateway", &router_of(database))
    }

    /// One more for a site. It reads its map when it is asked to, unless settings say otherwise.
    pub fn gateway(&self, database: &str, settings: &[(&str, &str)]) -> Gateway {
        let gateway = self.spawn(database, settings);
        gateway.until_listening();
        gateway
    }

    pub fn spawn(&self, database: &str, settings: &[(&str, &str)]) -> Gateway {
        let (urls, router) = (self.urls(database), self.router_url(database));
        let ours = [
            ("DATABASE_URLS", &*urls),
            ("GATEWAY_MAP", &*router),
            ("GATEWAY_MAP_INTERVAL", "3600"),
        ];
        Gateway::spawn("", "127.0.0.1:0", &[&ours, settings].concat())
    }
}

fn router_of(database: &str) -> String {
    format!("{database}_router")
}

fn fill(router: &mut Client) {
    let sql = "insert into sync_router.bucket select b, b % 3 from generate_series(0, 1023) as b";
    router.batch_execute(sql).unwrap();
}

pub struct Site {
    /// Of the servers, in their order.
    pub admins: [Client; 3],
    pub router: Client,
    pub gateway: Gateway,
    /// Names of workspaces that have been given.
    taken: usize,
}

impl Site {
    /// The name of a new workspace whose bucket is on this server.
    pub fn workspace(&mut self, server: usize) -> String {
        self.workspaces(server, 1).remove(0)
    }

    pub fn workspaces(&mut self, server: usize, count: usize) -> Vec<String> {
        let sql = format!(
            "select workspace_id from (select 'w' || n as workspace_id
                from generate_series(1, 10000) as n) as w
              where {BUCKET} % 3 = {server} offset {} limit {count}",
            self.taken
        );
        self.taken += count;
        let names = self.admins[0].query(&sql, &[]).unwrap();
        names.iter().map(|row| row.get(0)).collect()
    }

    /// Says in the map that the workspace is on this server.
    pub fn place(&mut self, workspace: &str, server: usize) {
        let sql = "insert into sync_router.placed values ($1, $2)
                   on conflict (workspace_id) do update set shard = excluded.shard";
        self.router.execute(sql, &[&workspace, &(server as i32)]).unwrap();
    }

    /// Has the gateway read the map as it is now.
    pub fn reload(&self) {
        let before = self.readings();
        self.gateway.hang_up();
        until("the map is read", || self.readings() > before);
    }

    pub fn readings(&self) -> f64 {
        self.gauge("map_readings_total")
    }

    /// A metric of the gateway, by its name and labels.
    pub fn gauge(&self, name: &str) -> f64 {
        gauge(&self.gateway, name)
    }

    /// The head of a workspace on a server; none where it is not.
    pub fn head(&mut self, server: usize, workspace: &str) -> Option<i64> {
        let sql = "select head from sync_ext.workspace where workspace_id = $1";
        self.admins[server].query_opt(sql, &[&workspace]).unwrap().map(|row| row.get(0))
    }
}

pub fn gauge(gateway: &Door, name: &str) -> f64 {
    let text = gateway.get("/metrics", None).body;
    let name = format!("sync_ext_gateway_{name} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&name));
    value.unwrap_or_else(|| panic!("no {name}: {text}")).parse().unwrap()
}
