//! The tokens that a server gave, and what each stands for.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sync_ext_model::{Listed, PageToken, Proof, Pull, Pulled, ShownProof};

use super::rows::check_reply;

#[derive(Default)]
pub struct Tokens {
    proofs: HashMap<String, Proof>,
    by_proof: HashMap<Proof, String>,
    pages: HashMap<String, PageToken>,
}

impl Tokens {
    pub fn proof(&self, token: &str) -> Option<&Proof> {
        self.proofs.get(token)
    }

    pub fn page(&self, token: &str) -> Option<&PageToken> {
        self.pages.get(token)
    }

    /// A pull's reply; gives the new proof in it. The token is not `kept` where
    /// what it stands for is about to change.
    pub fn check_pull(
        &mut self,
        pull: &Pull,
        mut reply: Value,
        expected: &Pulled,
        is_kept: bool,
    ) -> Result<Option<String>> {
        let token = take(&mut reply, "proof")?;
        check_reply("a pull", &reply, &expected.reply)?;
        match &expected.proof {
            ShownProof::AsGiven => {
                let given = pull.proof.as_ref().map(|(token, _)| token);
                ensure!(token.as_ref() == given, "{token:?} and not the proof given, {given:?}");
                Ok(None)
            }
            ShownProof::New(proof) => {
                if is_kept {
                    self.learn(&token, proof.as_ref())?;
                }
                Ok(token)
            }
        }
    }

    /// A snapshot's page; gives the proof and the next page's token.
    pub fn check_page(
        &mut self,
        mut reply: Value,
        expected: &Listed,
    ) -> Result<(Option<String>, Option<String>)> {
        let (proof, next) = (take(&mut reply, "proof")?, take(&mut reply, "nextPageToken")?);
        ensure!(take(&mut reply, "snapshotId")?.is_some(), "no snapshotId");
        check_reply("a snapshot", &reply, &expected.reply)?;
        self.learn(&proof, expected.proof.as_ref())?;
        let page = &expected.next;
        ensure!(next.is_some() == page.is_some(), "page token {next:?} for {page:?}");
        if let (Some(token), Some(page)) = (&next, page) {
            self.pages.insert(token.clone(), page.clone());
        }
        Ok((proof, next))
    }

    /// Equal tokens stand for equal history, and the other way round.
    fn learn(&mut self, token: &Option<String>, proof: Option<&Proof>) -> Result<()> {
        let (Some(token), Some(proof)) = (token, proof) else {
            ensure!(token.is_none() && proof.is_none(), "proof {token:?} for {proof:?}");
            return Ok(());
        };
        let known = self.proofs.entry(token.clone()).or_insert_with(|| proof.clone());
        ensure!(known == proof, "{token} proves {known:?} and {proof:?}");
        let known = self.by_proof.entry(proof.clone()).or_insert_with(|| token.clone());
        ensure!(known == token, "{known} and {token} prove {proof:?}");
        Ok(())
    }
}

/// Takes a text or null out of a reply.
fn take(reply: &mut Value, key: &'static str) -> Result<Option<String>> {
    let value = reply.as_object_mut().and_then(|reply| reply.remove(key)).context(key)?;
    ensure!(value.is_null() || value.is_string(), "{key} is {value}");
    Ok(value.as_str().map(str::to_owned))
}
