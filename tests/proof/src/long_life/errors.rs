//! Errors that Postgres raises in the midst of a push, when Rust holds memory
//! that Postgres knows nothing of: it may not write, waits too long for the
//! workspace's lock, meets an index that objects, or calls a membership function
//! that fails. Unwinding must free all of it. And errors of our own, raised before
//! that.
//!
//! The process may grow by [`OWN_GROWTH`], its memory contexts by
//! [`CONTEXT_GROWTH`], whatever the number of errors. The batches are of several
//! sizes, and so is what is freed: 32 bytes that leak between larger chunks can
//! make these useless, and the process grows by thousands.

use anyhow::{Context, Result, ensure};
use postgres::{Client, Statement};
use sync_ext_harness::batch::put;
use sync_ext_harness::cluster::Cluster;

use super::session::{CONTEXT_GROWTH, OWN_GROWTH};
use crate::common::backend::{Backend, context_bytes};
use crate::common::log_file::LogFile;
use crate::common::tally::Tally;

/// For the cluster.
pub use crate::common::log_file::SETTINGS;

const DATABASE: &str = "errors";

/// Raises `errors` errors of each kind, each kind in a session of its own.
pub fn run(cluster: &Cluster, errors: u64) -> Result<Tally> {
    let mut admin = cluster.create_database(DATABASE)?;
    admin.batch_execute(
        "select sync_register_table('notes');
         create unique index on sync_ext.change_log (hlc) where hlc = 'once'",
    )?;
    admin.query("select sync_push('w', $1::text::json)", &[&ops(0, 1)])?;
    let mut tally = Tally::default();
    let ours = "errors of our own";
    raise(cluster, (ours, "22023"), errors, "{}", "", &mut tally)?;
    let written = "errors of a session that may not write";
    let read_only = "set default_transaction_read_only = on";
    raise(cluster, (written, "25006"), errors, &ops(1, 2), read_only, &mut tally)?;
    // Looked up, and tried in a subtransaction first, with more or less to free.
    for (what, count) in [
        ("errors of an index, 2 ops", 2),
        ("errors of an index, 12 ops", 12),
        ("errors of an index, 24 ops", 24),
    ] {
        raise(cluster, (what, "23505"), errors, &ops(100, count), "", &mut tally)?;
    }
    refuse_users(cluster, &mut admin, errors, &mut tally)?;
    let waited = "errors of a lock";
    let mut holder = admin.transaction()?;
    holder.query("select sync_push('w', $1::text::json)", &[&format!("[{}]", put(1, "1", 1))])?;
    let impatient = "set lock_timeout = '1ms'";
    let few = errors.div_ceil(4);
    raise(cluster, (waited, "55P03"), few, &ops(1, 12), impatient, &mut tally)?;
    holder.rollback()?;
    Ok(tally)
}

/// Users who may not, by the table of members and by a function, which fails in
/// the end; and callers who cannot be identified.
fn refuse_users(
    cluster: &Cluster,
    admin: &mut Client,
    errors: u64,
    tally: &mut Tally,
) -> Result<()> {
    admin.batch_execute(
        "select sync_set_member('w', 'vic', 'viewer');
         create function role_of(text, text) returns text language sql
           as $$ select 'viewer'::text $$;
         create function fails(text, text) returns text language plpgsql
           as $$ begin raise exception 'no' using errcode = 'P0001'; end $$",
    )?;
    let function = "set sync_ext.user_id = 'vic'; set sync_ext.membership_function =";
    for (what, code, settings) in [
        ("errors of who is no member", "42501", "set sync_ext.user_id = 'eve'".to_owned()),
        ("errors of a viewer who pushes", "42501", "set sync_ext.user_id = 'vic'".to_owned()),
        ("errors of a function's viewer", "42501", format!("{function} 'public.role_of'")),
        ("errors of a function that fails", "P0001", format!("{function} 'public.fails'")),
        ("errors of a function that is not there", "42883", format!("{function} 'unknown'")),
        ("errors of claims", "22023", "set request.jwt.claims = '{'".to_owned()),
    ] {
        raise(cluster, (what, code), errors, &ops(1, 12), &settings, tally)?;
    }
    Ok(())
}

/// New ops, of which the first has the hlc that may stand in the log but once.
fn ops(from: u64, count: u64) -> String {
    let ops: Vec<String> = (from..from + count).map(|n| put(n, &n.to_string(), 1)).collect();
    format!("[{}]", ops.join(",")).replacen("\"h\"", "\"once\"", 1)
}

fn raise(
    cluster: &Cluster,
    (what, code): (&'static str, &str),
    errors: u64,
    ops: &str,
    setting: &str,
    tally: &mut Tally,
) -> Result<()> {
    let mut client = cluster.connect(DATABASE)?;
    client.batch_execute(setting)?;
    let push = client.prepare("select sync_push('w', $1::text::json)")?;
    let backend = Backend::of(&mut client)?;
    let log = LogFile::new(cluster);
    let warm_up = errors.min(1000);
    let before = {
        raise_each(&mut client, &push, ops, code, warm_up).context(what)?;
        (context_bytes(&mut client)?, backend.own()?)
    };
    raise_each(&mut client, &push, ops, code, errors).context(what)?;
    let contexts = context_bytes(&mut client)? - before.0;
    let own = backend.own()?.saturating_sub(before.1);
    ensure!(
        contexts <= CONTEXT_GROWTH && own <= OWN_GROWTH,
        "{what}: with {errors} the contexts grew by {contexts} bytes, the process by {own}"
    );
    let logged = log.expect_only(cluster, backend.pid(), &[code])?;
    ensure!(logged == warm_up + errors, "{logged} errors were logged");
    tally.add(what, errors);
    tally.add("bytes that their processes grew by", own);
    Ok(())
}

fn raise_each(
    client: &mut Client,
    push: &Statement,
    ops: &str,
    code: &str,
    errors: u64,
) -> Result<()> {
    for _ in 0..errors {
        let error = client.query(push, &[&ops]).err().context("it did not fail")?;
        ensure!(error.code().is_some_and(|found| found.code() == code), "{error:?}");
    }
    Ok(())
}
