//! The app's own SQL.

use anyhow::{Result, bail};
use postgres::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Round, list, task, workspace};
use crate::common::tally::Tally;

pub struct Writer {
    random: StdRng,
}

/// How a transaction ended.
enum Ended {
    Committed,
    RolledBack(&'static str),
    Killed,
}

impl Writer {
    pub fn new(seed: u64) -> Writer {
        Writer { random: StdRng::seed_from_u64(seed) }
    }

    pub fn run(&mut self, round: &Round<'_>) -> Result<Tally> {
        let mut tally = Tally::default();
        while !round.is_over() {
            let Some(mut client) = round.connect()? else { break };
            while !round.is_over() {
                match self.transaction(&mut client, round)? {
                    Ended::Committed => tally.add("transactions of SQL", 1),
                    Ended::RolledBack(why) => tally.add(why, 1),
                    Ended::Killed => break,
                }
            }
        }
        Ok(tally)
    }

    fn transaction(&mut self, client: &mut Client, round: &Round<'_>) -> Result<Ended> {
        let statements = self.random.random_range(1..6);
        let mut run = vec!["begin".to_owned()];
        for _ in 0..statements {
            let statement = self.statement();
            match self.random.random_range(0..8) {
                0 => run.push(format!("savepoint s; {statement}; rollback to s")),
                1 => run.push(format!("savepoint s; {statement}; release s")),
                _ => run.push(statement),
            }
        }
        for sql in run {
            if let Err(error) = client.batch_execute(&sql) {
                if round.is_killed(&error) {
                    return Ok(Ended::Killed);
                }
                let why = match error.code().map(|state| state.code()) {
                    Some("40P01") => "deadlocks of statements of SQL",
                    Some("23503" | "23505") => "statements of SQL that violate a constraint",
                    _ => bail!("{sql}: {error:?}"),
                };
                client.batch_execute("rollback").or_else(|error| killed(round, error))?;
                return Ok(Ended::RolledBack(why));
            }
        }
        let end = if self.random.random_bool(0.1) { "rollback" } else { "commit" };
        match client.batch_execute(end) {
            Ok(()) if end == "commit" => Ok(Ended::Committed),
            Ok(()) => Ok(Ended::RolledBack("transactions of SQL rolled back")),
            Err(error) if round.is_killed(&error) => Ok(Ended::Killed),
            Err(error) => match error.code().map(|state| state.code()) {
                // Deferred constraints, by what the transaction did.
                Some("23503" | "23505") => {
                    Ok(Ended::RolledBack("commits that violate a constraint"))
                }
                Some("40P01") if is_of_deferred_check(&error) => {
                    Ok(Ended::RolledBack("deadlocks of deferred checks of SQL"))
                }
                _ => bail!("a commit failed: {error:?}"),
            },
        }
    }

    fn statement(&mut self) -> String {
        let random = &mut self.random;
        let workspace = &workspace(random);
        let (task, other, list) =
            (task(workspace, random), task(workspace, random), list(workspace, random));
        let number = random.random_range(0..10_000);
        match random.random_range(0..16) {
            0 | 1 => format!(
                "insert into lists values ('{list}', '{workspace}', 'l{number}') on conflict (id) do nothing"
            ),
            2 => format!("update lists set title = 'l{number}' where id = '{list}'"),
            3 => format!("delete from lists where id = '{list}'"),
            4..=6 => format!(
                "insert into tasks (id, workspace_id, list, title)
                   select '{task}', '{workspace}', (select min(id) from lists where id = '{list}'), ' t{number} '
                 on conflict (id) do nothing"
            ),
            7..=10 => format!("update tasks set title = 't{number}' where id in ('{task}', '{other}')"),
            11 => format!("update tasks set place = {} where id = '{task}'", number % 5),
            12 => format!("delete from tasks where id = '{task}'"),
            13 => format!(
                "update tasks set after = (select min(id) from tasks where id = '{other}') where id = '{task}'"
            ),
            14 => format!("update tasks set title = 'all {number}' where workspace_id = '{workspace}'"),
            _ => {
                let to = super::workspace(random);
                format!("update tasks set workspace_id = '{to}', list = null, place = null where id = '{task}'")
            }
        }
    }
}

/// Postgres checks what is deferred before the workspace is asked for, and waits for rows
/// as statements do.
fn is_of_deferred_check(error: &postgres::Error) -> bool {
    let context = error.as_db_error().and_then(|error| error.where_()).unwrap_or_default();
    context.contains("FOR KEY SHARE") || context.contains("tasks_workspace_id_place_key")
}

fn killed(round: &Round<'_>, error: postgres::Error) -> Result<(), postgres::Error> {
    if round.is_killed(&error) { Ok(()) } else { Err(error) }
}
