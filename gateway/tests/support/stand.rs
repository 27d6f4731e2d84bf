//! A database with users and a gateway before it.

use postgres::Client;
use sync_ext_harness::cluster::Cluster;

use super::process::{Gateway, until};
use super::team;

/// Settings of a server for tests. All its sessions tell of their commits, those
/// too that began before a database was prepared.
pub const SERVER: [&str; 2] = ["sync_ext.notify=hint", "fsync=off"];

pub struct Stand<'a> {
    cluster: &'a Cluster,
    database: &'a str,
    pub admin: Client,
    pub gateway: Gateway,
}

impl<'a> Stand<'a> {
    /// A database of its own, prepared as for any team.
    pub fn new(cluster: &'a Cluster, database: &'a str, settings: &[(&str, &str)]) -> Stand<'a> {
        let mut admin = cluster.create_database(database).unwrap();
        team::prepare(&mut admin, database).unwrap();
        if settings.contains(&("GATEWAY_TRUSTED", "on")) {
            trust_gateway(&mut admin, database);
        }
        let url = cluster.connection_string("gateway", database);
        let gateway = Gateway::start(&url, settings);
        Stand { cluster, database, admin, gateway }
    }

    /// Without users: all are trusted.
    pub fn trusting(cluster: &'a Cluster, database: &'a str) -> Stand<'a> {
        Stand::new(cluster, database, &[("GATEWAY_TRUSTED", "on")])
    }

    pub fn url(&self) -> String {
        self.cluster.connection_string("gateway", self.database)
    }

    pub fn session(&self) -> Client {
        self.cluster.connect(self.database).unwrap()
    }
}

/// The README's role speaks for users alone.
pub fn trust_gateway(admin: &mut Client, database: &str) {
    let sql = format!("alter role gateway in database {database} set sync_ext.require_user = off");
    admin.batch_execute(&sql).unwrap();
}

pub fn until_a_push_waits(admin: &mut Client) {
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'
                    and application_name = 'sync_ext_gateway'";
    until("a push waits", || admin.query_one(waiting, &[]).unwrap().get::<_, i64>(0) == 1);
}
