//! The app's backend: plain SQL on the rows of all workspaces.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use postgres::Client;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::report::Report;
use super::{WORKSPACES, comment, list, todo};

pub struct Backend {
    random: StdRng,
    client: Client,
}

impl Backend {
    pub fn new(number: u64, seed: u64, client: Client) -> Backend {
        Backend { random: StdRng::seed_from_u64(seed + 1000 + number), client }
    }

    pub fn work(&mut self, until: Instant) -> Result<Report> {
        let mut report = Report::default();
        while Instant::now() < until {
            self.transaction(&mut report)?;
        }
        Ok(report)
    }

    fn transaction(&mut self, report: &mut Report) -> Result<()> {
        let statements: Vec<String> =
            (0..self.random.random_range(1..5)).map(|_| self.statement()).collect();
        let mut transaction = self.client.transaction()?;
        let mut rows = 0;
        for sql in statements {
            match transaction.execute(&sql, &[]) {
                Ok(count) => rows += count,
                // Those that SQL has without a push beside it, too.
                Err(error) => match error.code().map(|state| state.code()) {
                    Some("23503" | "23505" | "40P01") => {
                        report.transactions_refused += 1;
                        return Ok(transaction.rollback()?);
                    }
                    _ => bail!("{sql}: {error:?}"),
                },
            }
        }
        // No constraint is deferred, so nothing is left to refuse.
        transaction.commit().context("a COMMIT failed")?;
        report.transactions += 1;
        report.rows += rows;
        Ok(())
    }

    fn statement(&mut self) -> String {
        let random = &mut self.random;
        let workspace = *WORKSPACES.choose(random).unwrap_or(&WORKSPACES[0]);
        let (list, todo) = (list(workspace, random), todo(workspace, random));
        let comment = comment(workspace, random);
        let number = random.random_range(0..1_000_000);
        match random.random_range(0..24) {
            0 => format!("update lists set title = 'renamed {number}' where id = '{list}'"),
            1 => format!("delete from lists where id = '{list}'"),
            2 => {
                let to = WORKSPACES.choose(random).unwrap_or(&workspace);
                format!("update lists set workspace_id = '{to}' where id = '{list}'")
            }
            3..=6 => format!(
                "insert into todos (id, workspace_id, list_id, title)
                 select '{todo}', workspace_id, id, 'todo {number}' from lists where id = '{list}'
                 on conflict (id) do update set title = excluded.title"
            ),
            7 => format!("update todos set done = not done where list_id = '{list}'"),
            8 | 9 => format!("update todos set priority = 1 + priority % 5 where id = '{todo}'"),
            10 => format!("delete from todos where id = '{todo}'"),
            11..=14 => format!(
                "insert into comments
                 select '{comment}', workspace_id, id, 'comment {number}', false from todos where id = '{todo}'
                 on conflict do nothing"
            ),
            15 => format!("update comments set hidden = not hidden where id = '{comment}'"),
            16 => format!("delete from comments where id = '{comment}'"),
            _ => format!(
                "insert into lists values ('{list}', '{workspace}', 'list {number}')
                 on conflict do nothing"
            ),
        }
    }
}
