//! Several servers behind a router, as docs/scaling.md says. Where Postgres has no
//! PL/Proxy (all but 15 from Debian) each prints that it was not tried.

mod callers;
mod calls;
mod declarations;
mod document;
mod failures;
mod golden;
mod moves;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use postgres::{Client, Config, NoTls};
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::router::{self, foreign_server};

const SETTINGS: [&str; 2] = ["fsync=off", "max_connections=60"];

/// Shards, and a router before them.
pub struct Servers {
    pub shards: Vec<Cluster>,
    pub router: Cluster,
}

static SHARED: Mutex<Weak<Servers>> = Mutex::new(Weak::new());
static STARTED: AtomicU32 = AtomicU32::new(0);
static CREATED: AtomicU32 = AtomicU32::new(0);

impl Servers {
    /// Of a test's own. `None` without PL/Proxy.
    pub fn start(name: &str, shards: usize) -> Option<Servers> {
        let router = Cluster::start(&format!("{name}-router"), &SETTINGS).unwrap();
        if !router::is_possible(&router).unwrap() {
            return None;
        }
        let shard = |number| Cluster::start(&format!("{name}-{number}"), &SETTINGS).unwrap();
        Some(Servers { shards: (0..shards).map(shard).collect(), router })
    }

    /// Three shards for tests that neither stop nor change them.
    fn shared() -> Option<Arc<Servers>> {
        let mut shared = SHARED.lock().unwrap();
        if let Some(servers) = shared.upgrade() {
            return Some(servers);
        }
        let name = format!("many-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let servers = Arc::new(Servers::start(&name, 3)?);
        *shared = Arc::downgrade(&servers);
        Some(servers)
    }
}

/// A database of one test on each shard, and its router's.
pub struct Many {
    pub servers: Arc<Servers>,
    pub database: String,
}

impl Many {
    pub fn new() -> Option<Many> {
        Some(Many::on(Servers::shared()?))
    }

    /// With table `notes` registered and the buckets dealt out in turn.
    pub fn on(servers: Arc<Servers>) -> Many {
        let database = format!("many_{}", CREATED.fetch_add(1, Ordering::Relaxed));
        for shard in &servers.shards {
            shard.create_database(&database).unwrap();
        }
        let create = format!("create database {database}");
        servers.router.connect("postgres").unwrap().batch_execute(&create).unwrap();
        router::install(&servers.router, &database).unwrap();
        let many = Many { servers, database };
        let addresses = many.addresses();
        let mut session = many.session();
        session.batch_execute(&foreign_server("sync", &addresses)).unwrap();
        session.batch_execute(&foreign_server("sync_reads", &addresses)).unwrap();
        let map =
            "insert into sync_router.bucket select b, b % $1 from generate_series(0, 1023) as b";
        session.execute(map, &[&(addresses.len() as i32)]).unwrap();
        session
            .batch_execute(
                "select sync_router.own_buckets(shard, array_agg(bucket)),
                        sync_router.set_key_range(shard, shard + 1)
                   from sync_router.bucket group by shard;
                 select sync_register_table('notes')",
            )
            .unwrap();
        many
    }

    pub fn addresses(&self) -> Vec<String> {
        self.servers.shards.iter().map(|shard| shard.address(&self.database)).collect()
    }

    /// A superuser's session with the router.
    pub fn session(&self) -> Client {
        self.config().connect(NoTls).unwrap()
    }

    pub fn session_as(&self, role: &str) -> Client {
        self.config().user(role).connect(NoTls).unwrap()
    }

    pub fn config(&self) -> Config {
        self.servers.router.config(&self.database)
    }

    /// A superuser's session with a shard.
    pub fn shard(&self, number: usize) -> Client {
        self.servers.shards[number].connect(&self.database).unwrap()
    }

    /// Executes it on all shards.
    pub fn on_shards(&self, sql: &str) {
        for number in 0..self.servers.shards.len() {
            self.shard(number).batch_execute(sql).unwrap();
        }
    }

    /// A role that may log in everywhere and call these functions.
    pub fn grant(&self, role: &str, functions: &str) {
        let create = format!(
            "do $$ begin create role {role} login;
             exception when duplicate_object or unique_violation then null; end $$;
             grant execute on function {functions} to {role}"
        );
        self.on_shards(&create);
        let usage = format!("{create}; grant usage on foreign server sync, sync_reads to {role}");
        self.session().batch_execute(&usage).unwrap();
    }

    /// The n-th workspace of a shard, by the router's map.
    pub fn workspace_on(&self, shard: i32, n: i64) -> String {
        let sql = "select 'w' || n from generate_series(0, 9999) as n
                    where sync_router.shard_of('w' || n) = $1 order by n offset $2 limit 1";
        self.session().query_one(sql, &[&shard, &n]).unwrap().get(0)
    }
}

impl Drop for Many {
    fn drop(&mut self) {
        // The last ones go with their servers.
        if Arc::strong_count(&self.servers) > 1 {
            let drop = format!("drop database {} with (force)", self.database);
            for cluster in self.servers.shards.iter().chain([&self.servers.router]) {
                if let Ok(mut admin) = cluster.connect("postgres") {
                    let _ = admin.batch_execute(&drop);
                }
            }
        }
    }
}
