//! A role that was bound to tell its user, by ALTER ROLE ... SET, cannot free
//! itself, whatever it runs and whatever it connects with. No library is
//! preloaded: until its first call, a session knows nothing of our settings.

use postgres::Client;
use postgres::error::DbError;
use sync_ext_cluster::cluster::Cluster;

const CALL: &str = "select sync_list_workspaces()::text";
const SETTING: &str = "sync_ext.require_user";

#[test]
fn a_bound_role_cannot_free_itself() {
    let cluster = Cluster::start("bound-roles", &["fsync=off"]).unwrap();
    let mut admin = cluster.create_database("app").unwrap();
    admin
        .batch_execute(
            "create role gateway login; create role backend login;
             grant execute on function sync_list_workspaces to gateway, backend;
             grant create on schema public to gateway;
             alter role gateway set sync_ext.require_user = on",
        )
        .unwrap();
    it_must_tell_its_user(&cluster);
    nothing_that_it_runs_frees_it(&cluster);
    nothing_that_it_connects_with_frees_it(&cluster);
    a_binding_that_is_none_lets_nobody_in(&cluster, &mut admin);
}

fn refusal(client: &mut Client) -> DbError {
    let error = client.query_one(CALL, &[]).unwrap_err();
    error.as_db_error().unwrap().clone()
}

fn must_tell_its_user(client: &mut Client, after: &str) {
    let refusal = refusal(client);
    assert_eq!(refusal.code().code(), "42501", "{after}");
    assert_eq!(refusal.message(), "no user is set", "{after}");
}

fn it_must_tell_its_user(cluster: &Cluster) {
    let mut gateway = cluster.connect_as("gateway", "app", "").unwrap();
    must_tell_its_user(&mut gateway, "nothing");
    let with_user = format!("set sync_ext.user_id = 'ann'; {CALL}");
    gateway.batch_execute(&with_user).unwrap();
    // Also when it comes with the connection.
    let options = "-c sync_ext.user_id=ann";
    cluster.connect_as("gateway", "app", options).unwrap().query_one(CALL, &[]).unwrap();
    // The other role is not bound.
    cluster.connect_as("backend", "app", "").unwrap().query_one(CALL, &[]).unwrap();
}

fn nothing_that_it_runs_frees_it(cluster: &Cluster) {
    let attempts = [
        format!("set {SETTING} = off"),
        format!("set {SETTING} = default"),
        format!("select set_config('{SETTING}', 'off', false)"),
        format!("reset {SETTING}"),
        "reset all".to_owned(),
        "discard all".to_owned(),
        "set role none".to_owned(),
        format!("alter role gateway set {SETTING} = off"),
        format!("alter role gateway in database app set {SETTING} = off"),
        format!("alter role gateway reset {SETTING}"),
        "alter role gateway reset all".to_owned(),
    ];
    for attempt in attempts {
        // Before the first call, and after it.
        let mut gateway = cluster.connect_as("gateway", "app", "").unwrap();
        for _ in 0..2 {
            let _ = gateway.batch_execute(&attempt);
            must_tell_its_user(&mut gateway, &attempt);
        }
        // Nor does it free the sessions to come.
        must_tell_its_user(&mut cluster.connect_as("gateway", "app", "").unwrap(), &attempt);
    }
    let mut gateway = cluster.connect_as("gateway", "app", "").unwrap();
    let function = format!(
        "create function free() returns json language sql set {SETTING} = off
         as 'select sync_list_workspaces()'"
    );
    let error = gateway.batch_execute(&function).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42501", "{error}");
}

/// What comes with the connection hides what the role was given, and is refused
/// only when the library is loaded.
fn nothing_that_it_connects_with_frees_it(cluster: &Cluster) {
    for name in [SETTING, "Sync_Ext.REQUIRE_user", "sync_ext.membership_function"] {
        for value in ["off", "on", "nonsense", "''"] {
            let options = format!("-c {name}={value}");
            let mut gateway = cluster.connect_as("gateway", "app", &options).unwrap();
            for user in ["", "ann"] {
                gateway.batch_execute(&format!("set sync_ext.user_id = '{user}'")).unwrap();
                let refusal = refusal(&mut gateway);
                assert_eq!(refusal.code().code(), "42501", "{options}");
                assert_eq!(refusal.message(), "a setting was refused", "{options}");
            }
        }
    }
    // A superuser may set it so.
    let mut admin = cluster.connect_as("postgres", "app", "-c sync_ext.require_user=on").unwrap();
    must_tell_its_user(&mut admin, "a superuser's options");
}

fn a_binding_that_is_none_lets_nobody_in(cluster: &Cluster, admin: &mut Client) {
    admin.batch_execute("alter role gateway reset all").unwrap();
    // In a session that has not loaded the library, nobody checks the value.
    let mut other = cluster.connect("app").unwrap();
    other.batch_execute("alter role gateway set sync_ext.require_user = 'yess'").unwrap();
    let mut gateway = cluster.connect_as("gateway", "app", "").unwrap();
    assert_eq!(refusal(&mut gateway).message(), "a setting was refused");
}
