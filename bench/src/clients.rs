//! Eight clients at once, one op per commit.

use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};
use indicatif::ProgressBar;
use sync_ext_cluster::cluster::Cluster;

use crate::report::Row;
use crate::rounds::median;

const CLIENTS: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// Every client in a workspace of its own.
    Apart,
    /// All in one.
    Together,
}

/// Rates of sync_push and of one CTE that writes the same rows, alternating.
pub fn rates(
    cluster: &Cluster,
    bar: &ProgressBar,
    rounds: usize,
    ops: usize,
    name: &str,
    spread: Spread,
) -> Result<Vec<Row>> {
    // A batch of one op, made up on the server from nothing but a new UUID, so
    // that both sides do the same besides writing.
    const NEW: &str =
        "gen_random_uuid() as id, gen_random_uuid() as pk, repeat('0123456789abcdef', 34) as body";
    let ours = format!(
        "select sync_push($1, format('[{{\"tableName\":\"notes\",\"operation\":\"put\",\"pk\":\"%s\",\"payload\":{{\"id\":\"%s\",\"body\":\"%s\"}},\"stamp\":{{\"deviceId\":\"device-1\",\"opId\":\"%s\",\"hlc\":\"1767225600000:0000:device-1\",\"clock\":1}}}}]', pk, pk, body, id)::json)::text
         from (select {NEW}) x"
    );
    let floor = format!(
        "with new as materialized (select {NEW}),
           counter as (update floor.workspace set head = head + 1 where workspace_id = $1 returning workspace_key, head),
           logged as (insert into floor.change_log select workspace_key, head, 'notes', pk::text, 'put',
             format('{{\"id\":\"%s\",\"body\":\"%s\"}}', pk, body)::json, 1, '1767225600000:0000:device-1', 'device-1', id, true, null, clock_timestamp()
             from new, counter)
         insert into floor.record select workspace_key, 'notes', pk::text, head, 1, '1767225600000:0000:device-1', id, false from new, counter"
    );
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        for turn in 0..2 {
            let side = (round + turn) % 2;
            let rate = run(cluster, if side == 0 { &ours } else { &floor }, ops, spread)?;
            if round > 0 {
                rates[side].push(rate);
            }
            bar.inc(1);
        }
    }
    let ratios = rates[0].iter().zip(&rates[1]).map(|(a, b)| a / b).collect();
    let [ours, floor] = rates.map(median);
    Ok(vec![Row {
        name: name.to_owned(),
        unit: "ops/s".to_owned(),
        ours,
        base_name: "one CTE".to_owned(),
        base: floor,
        ratio: median(ratios),
    }])
}

fn run(cluster: &Cluster, sql: &str, ops: usize, spread: Spread) -> Result<f64> {
    let mut sessions = Vec::new();
    for client in 1..=CLIENTS {
        let mut session = cluster.connect("bench")?;
        let statement = session.prepare(sql)?;
        let workspace = format!("w{}", if spread == Spread::Apart { client } else { 1 });
        sessions.push((session, statement, workspace));
    }
    let begun = Instant::now();
    thread::scope(|scope| {
        let running: Vec<_> = sessions
            .iter_mut()
            .map(|(session, statement, workspace)| {
                scope.spawn(move || -> Result<()> {
                    for _ in 0..ops {
                        session.query(&*statement, &[workspace])?;
                    }
                    Ok(())
                })
            })
            .collect();
        running
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?)
    })?;
    Ok((ops * CLIENTS) as f64 / begun.elapsed().as_secs_f64())
}
