//! What a workspace must hold, kept from what the replies told, and the two
//! checks: of a reply, at once, and of the log, in bulk.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use postgres::Client;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::expect::{Element, Op, error_code};
use crate::tally::Tally;

/// One workspace's log, as the replies told it; `log[n]` has version n + 1.
#[derive(Default)]
pub struct Model {
    pub log: Vec<(Op, bool)>,
    by_op_id: HashMap<String, usize>,
    /// How much of the log was compared with the server's.
    compared: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply<'a> {
    #[serde(borrow)]
    results: Vec<Told<'a>>,
    server_version: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    #[serde(borrow)]
    op_id: &'a RawValue,
    success: bool,
    server_version: Option<i64>,
    applied: Option<bool>,
    #[serde(default)]
    replayed: bool,
    #[serde(borrow)]
    winner: Option<&'a RawValue>,
    error_code: Option<String>,
    error: Option<String>,
}

impl Told<'_> {
    fn fate(&self, is_stored: bool) -> &'static str {
        match self.error_code.as_deref() {
            Some("OVERSIZED") => "ops refused as OVERSIZED",
            Some("CONFLICT") => "ops refused as CONFLICT",
            Some(_) => "ops refused as VALIDATION_ERROR",
            None if is_stored => "ops stored",
            None => "ops known already",
        }
    }
}

/// What one op of a batch may be answered.
enum Verdict {
    Refused(&'static str),
    /// It takes a version, or shares that of the same op before it.
    New,
    /// It is in the log at this place.
    Replay(usize),
    /// The payloads' texts differ: whether their values do is not judged here.
    EqualOrConflict,
}

impl Model {
    pub fn head(&self) -> i64 {
        self.log.len() as i64
    }

    /// Checks a push's reply against what the contract says of its elements,
    /// and keeps what it told as stored. Gives how many ops were; counts what
    /// became of the rest.
    pub fn take_reply(
        &mut self,
        workspace: &str,
        elements: &[Element],
        reply: &str,
        tally: &mut Tally,
    ) -> Result<u64> {
        let told: Reply = serde_json::from_str(reply).context("the reply cannot be read")?;
        let count = elements.len();
        ensure!(told.results.len() == count, "{} results for {count} ops", told.results.len());
        let mut stored = 0;
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        for (place, element) in elements.iter().enumerate() {
            if let Some(op) = &element.op {
                places.entry(&op.op_id).or_default().push(place);
            }
        }
        for (place, (element, told)) in elements.iter().zip(&told.results).enumerate() {
            let same_id = element.op.as_ref().map(|op| places[op.op_id.as_str()].as_slice());
            let same_id: Vec<&Op> = same_id
                .unwrap_or_default()
                .iter()
                .filter_map(|place| elements[*place].op.as_ref())
                .collect();
            let verdict = self.verdict(element, &same_id, workspace);
            let is_stored = self
                .take_result(element, told, &verdict)
                .with_context(|| format!("ops[{place}], by the contract {verdict}"))?;
            stored += u64::from(is_stored);
            tally.add("ops", 1);
            tally.add(told.fate(is_stored), 1);
        }
        ensure!(told.server_version == self.head(), "head {}: {reply}", self.head());
        Ok(stored)
    }

    fn verdict(&self, element: &Element, same_id: &[&Op], workspace: &str) -> Verdict {
        let Some(op) = &element.op else { return Verdict::Refused("VALIDATION_ERROR") };
        let logged = self.by_op_id.get(&op.op_id).copied();
        if same_id.iter().any(|a| same_id.iter().any(|b| !a.is_like(b))) {
            return Verdict::Refused("CONFLICT");
        }
        if same_id.iter().any(|other| *other != op) {
            return Verdict::EqualOrConflict;
        }
        // Ops of this batch that are in the log by now are there as told for
        // an equal op before this one.
        match logged.map(|place| (place, &self.log[place].0)) {
            Some((_, stored)) if !stored.is_like(op) => Verdict::Refused("CONFLICT"),
            Some((_, stored)) if stored != op => Verdict::EqualOrConflict,
            Some((place, _)) => Verdict::Replay(place),
            None => match error_code(op, workspace) {
                Some(code) => Verdict::Refused(code),
                None => Verdict::New,
            },
        }
    }

    /// True if the op was stored by this call.
    fn take_result(&mut self, element: &Element, told: &Told, verdict: &Verdict) -> Result<bool> {
        ensure!(told.op_id.get() == element.op_id, "opId {} is echoed", told.op_id.get());
        if !told.success {
            let code = told.error_code.as_deref().context("refused without errorCode")?;
            ensure!(told.error.is_some() && told.server_version.is_none(), "a refusal's form");
            match verdict {
                Verdict::Refused(expected) => ensure!(code == *expected, "refused as {code}"),
                Verdict::EqualOrConflict => {
                    ensure!(
                        ["VALIDATION_ERROR", "OVERSIZED", "CONFLICT"].contains(&code),
                        "{code}"
                    );
                }
                Verdict::New | Verdict::Replay(_) => bail!("refused as {code}: {:?}", told.error),
            }
            return Ok(false);
        }
        let version = told.server_version.context("success without serverVersion")?;
        let applied = told.applied.context("success without applied")?;
        ensure!(applied == told.winner.is_none(), "the winner stands where the op is not it");
        let op = element.op.as_ref().context("an op of a wrong form succeeded")?;
        if let Verdict::Refused(_) = verdict {
            bail!("it succeeded");
        }
        let known = self.by_op_id.get(&op.op_id).copied();
        if let Verdict::Replay(place) = verdict {
            ensure!(version == *place as i64 + 1, "version {version}");
        }
        match known {
            Some(place) => {
                ensure!(
                    version == place as i64 + 1,
                    "version {version} for an op known by {place}"
                );
                Ok(false)
            }
            None => {
                ensure!(!told.replayed, "a replay of what was never stored");
                ensure!(version == self.head() + 1, "version {version} after head {}", self.head());
                self.by_op_id.insert(op.op_id.clone(), self.log.len());
                self.log.push((op.clone(), applied));
                Ok(true)
            }
        }
    }

    /// Compares what came to the server's log since the last time, every
    /// column, and the head.
    pub fn compare(&mut self, client: &mut Client, workspace: &str) -> Result<()> {
        let rows = client.query(
            "select l.server_version, l.table_name, l.pk, l.operation, l.payload::text, l.clock,
                    l.hlc, l.device_id, l.op_id::text, l.applied, w.head
               from sync_ext.workspace w left join sync_ext.change_log l
                 on l.workspace_key = w.workspace_key and l.server_version > $2
              where w.workspace_id = $1 order by l.server_version",
            &[&workspace, &(self.compared as i64)],
        )?;
        let head: i64 = rows.first().map_or(0, |row| row.get(10));
        ensure!(head == self.head(), "head {head} is stored, {} was told", self.head());
        let entries = rows.iter().filter(|row| row.get::<_, Option<i64>>(0).is_some());
        let mut expected = self.log.iter().enumerate().skip(self.compared);
        for row in entries {
            let version: i64 = row.get(0);
            let (place, (op, applied)) =
                expected.next().with_context(|| format!("nobody was told of version {version}"))?;
            let stored = Op {
                table: row.get(1),
                pk: row.get(2),
                operation: row.get(3),
                payload: row.get(4),
                clock: row.get(5),
                hlc: row.get(6),
                device_id: row.get(7),
                op_id: row.get(8),
            };
            ensure!(version == place as i64 + 1, "version {version} where {} is due", place + 1);
            ensure!(
                (&stored, row.get::<_, bool>(9)) == (op, *applied),
                "version {version} is stored as {stored:?}, told as {op:?}, applied {applied}"
            );
        }
        if let Some((place, (op, _))) = expected.next() {
            bail!("version {} was told and is not stored: {op:?}", place + 1);
        }
        self.compared = self.log.len();
        Ok(())
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Refused(code) => write!(f, "refused as {code}"),
            Verdict::New => f.write_str("stored"),
            Verdict::Replay(place) => write!(f, "a replay of version {}", place + 1),
            Verdict::EqualOrConflict => f.write_str("an equal op or a CONFLICT"),
        }
    }
}
