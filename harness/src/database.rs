//! A cluster that the tests of a program share, and databases of their own in it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use postgres::{Client, Config, NoTls};

use crate::cluster::Cluster;

/// Only the tests themselves change what they look at.
const SETTINGS: [&str; 4] =
    ["autovacuum=off", "fsync=off", "max_connections=200", "max_prepared_transactions=8"];
const TEMPLATE: &str = "with_sync_ext";

/// Statics are not dropped: the cluster belongs to the tests that use it, and goes
/// with the last of them. A later one starts the next.
static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
static STARTED: AtomicU32 = AtomicU32::new(0);
static CREATED: AtomicU32 = AtomicU32::new(0);

impl Cluster {
    /// The shared cluster. A test that changes settings or stops the server needs
    /// another one; roles are shared, too.
    pub fn shared() -> Arc<Cluster> {
        let mut shared = SHARED.lock().unwrap();
        if let Some(cluster) = shared.upgrade() {
            return cluster;
        }
        // The one before may still be stopping.
        let name = format!("shared-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let cluster = Arc::new(Cluster::start(&name, &SETTINGS).unwrap());
        cluster.create_database(TEMPLATE).unwrap();
        *shared = Arc::downgrade(&cluster);
        cluster
    }
}

/// A database of one test, with the extension, gone when dropped.
pub struct Database {
    pub cluster: Arc<Cluster>,
    pub name: String,
}

impl Database {
    /// In the shared cluster.
    #[expect(clippy::new_without_default, reason = "it starts a server")]
    pub fn new() -> Database {
        Database::from_template(TEMPLATE)
    }

    /// The same without the extension.
    pub fn empty() -> Database {
        Database::from_template("template1")
    }

    fn from_template(template: &str) -> Database {
        let cluster = Cluster::shared();
        let name = format!("test_{}", CREATED.fetch_add(1, Ordering::Relaxed));
        let mut admin = cluster.connect("postgres").unwrap();
        admin.batch_execute(&format!("create database {name} template {template}")).unwrap();
        Database { cluster, name }
    }

    /// In a cluster of the test's own.
    pub fn within(cluster: Cluster, name: &str) -> Database {
        cluster.create_database(name).unwrap();
        Database { cluster: Arc::new(cluster), name: name.to_owned() }
    }

    /// A role that can log in, where the server has none of this name yet.
    pub fn ensure_role(&self, role: &str) {
        let create = format!(
            "do $$ begin create role {role} login;
             exception when duplicate_object or unique_violation then null; end $$"
        );
        self.session().batch_execute(&create).unwrap();
    }

    /// A session of the superuser.
    pub fn session(&self) -> Client {
        self.config().connect(NoTls).unwrap()
    }

    pub fn session_as(&self, role: &str) -> Client {
        self.config().user(role).connect(NoTls).unwrap()
    }

    /// How to connect as the superuser; for others, change it.
    pub fn config(&self) -> Config {
        self.cluster.config(&self.name)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The last one's goes with its cluster.
        if Arc::strong_count(&self.cluster) > 1
            && let Ok(mut admin) = self.cluster.connect("postgres")
        {
            let _ = admin.batch_execute(&format!("drop database {} with (force)", self.name));
        }
    }
}
