//! Asking the validation function of a table about an op that is about to be applied.

use super::known::missing;
use super::patched::RecordJson;
use super::{Push, Result, Target};
use crate::store::log::Versions;
use crate::store::memory;
use crate::store::validation::Validation;
use sync_ext_core::rules::op::Op;
use sync_ext_core::rules::refusal::Refusal;
use sync_ext_core::wire::offered_op;
use sync_ext_core::wire::splice::Splice;

impl Target<'_> {
    /// Why the op is rejected; `None` if it is not. `payload` is the whole record as it
    /// would be, `previous` as it is.
    pub fn rejection(
        &self,
        validation: &Validation,
        op: &Op<'_>,
        payload: Option<&str>,
        previous: Option<&str>,
    ) -> Result<Option<Refusal>> {
        let texts = [payload, previous].into_iter().flatten().map(str::len).sum::<usize>();
        memory::require(texts + 2 * offered_op::longest(op))?;
        let op = offered_op::write(op);
        self.locked.closed(|| validation.refusal(payload, previous, &op))
    }

    /// The same of a patch, with the record after and before it.
    pub fn patch_rejection(
        &self,
        validation: &Validation,
        op: &Op<'_>,
        previous: &Splice<'_>,
        payload: &Splice<'_>,
    ) -> Result<Option<Refusal>> {
        memory::require(previous.size() + payload.size())?;
        let (previous, payload) = (previous.to_json(), payload.to_json());
        self.rejection(validation, op, Some(&payload), Some(&previous))
    }
}

impl Push<'_> {
    /// The whole record as it is at this turn; `None` if it is unknown or deleted.
    pub fn record_now(&self, record: usize, versions: &mut Versions<'_>) -> Result<Option<String>> {
        let touched = &self.touched[record];
        let Some(state) = touched.state.as_ref().filter(|state| !state.deleted) else {
            return Ok(None);
        };
        if touched.merge.is_some() {
            let RecordJson { payload, .. } = self.record_json(touched, versions)?;
            return Ok(Some(payload));
        }
        let payload = match touched.newest_op {
            Some(place) => self.ops[place].payload(),
            None => {
                let entry = versions.find(state.version).ok_or_else(|| missing(state.version))?;
                entry.payload()
            }
        };
        memory::require(payload.map_or(0, str::len))?;
        Ok(payload.map(str::to_owned))
    }
}
