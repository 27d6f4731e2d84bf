//! GC by pg_cron, as docs/operations.md says. Where Postgres has no pg_cron (16, 17
//! and 18 here) it prints that this was not tried.

use std::fs::OpenOptions;
use std::io::Write;

use sync_ext_harness::batch::{delete, push, put};
use sync_ext_harness::cluster::{Cluster, Stop};
use sync_ext_harness::document::{Document, print};
use sync_ext_harness::replica::until;
use sync_ext_harness::steps::age_all;

#[test]
fn garbage_goes_by_the_recipe_for_pg_cron() {
    let mut cluster = Cluster::start("cron", &["fsync=off"]).unwrap();
    let sql = "select from pg_available_extensions where name = 'pg_cron'";
    if cluster.connect("postgres").unwrap().query(sql, &[]).unwrap().is_empty() {
        println!("pg_cron is not available here: the recipe is not tried");
        return;
    }
    let operations = Document::read("docs/operations.md").unwrap();
    let conf = cluster.data_dir().join("postgresql.conf");
    let mut conf = OpenOptions::new().append(true).open(conf).unwrap();
    conf.write_all(operations.block("ini").unwrap().as_bytes()).unwrap();
    restart(&mut cluster);

    let mut app = cluster.create_database("app").unwrap();
    app.execute("select sync_register_table('notes')", &[]).unwrap();
    let ops = [put(1, "a", 1), delete(2, "a", 2), put(3, "b", 1), put(4, "b", 2), put(5, "c", 1)];
    push(&mut app, "w", &ops);
    age_all(&mut app);
    let role = operations.example("CREATE ROLE sync_gc").unwrap();
    let (role, _) = role.split_once("\\connect").unwrap();
    assert_eq!(print(&cluster, "app", role).unwrap(), "\n");
    let recipe = operations.block("sql pg_cron").unwrap();
    let scheduled = print(&cluster, "postgres", recipe).unwrap();
    assert!(!scheduled.contains("ERROR"), "{scheduled}");

    // Of schedules shorter than a minute this pg_cron knows only the server's start.
    let mut admin = cluster.connect("postgres").unwrap();
    let due = "select cron.alter_job(jobid, schedule => '@reboot') from cron.job
                where jobname = 'sync_ext gc' and schedule = '*/5 * * * *'";
    assert_eq!(admin.execute(due, &[]).unwrap(), 1);
    restart(&mut cluster);
    let mut admin = cluster.connect("postgres").unwrap();
    let told = "select coalesce(string_agg(concat_ws(' ', database, username, status), ', '), '')
                  from cron.job_run_details where command like '%sync_gc_all%'
                   and status not in ('starting', 'running')";
    until(&mut admin, told, "app sync_gc succeeded");
    let mut app = cluster.connect("app").unwrap();
    let left = "select string_agg(server_version::text, ' ' order by server_version)
                  from sync_ext.change_log";
    until(&mut app, left, "4 5");
}

fn restart(cluster: &mut Cluster) {
    cluster.stop_server(Stop::Cleanly).unwrap();
    cluster.start_server().unwrap();
}
