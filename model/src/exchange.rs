//! A push, an acknowledgement and a pull in one call.

use serde_json::Value;

use crate::pull::{Pull, Pulled, ShownProof};
use crate::refusal::{Refusal, named};
use crate::server::Server;

/// Both halves of an exchange's reply.
pub struct Exchanged {
    pub push: Value,
    pub pull: Pulled,
    pub acknowledges: bool,
}

impl Server {
    pub fn exchange(
        &mut self,
        device: &str,
        ops: &str,
        pull: &Pull,
        (at, heard_at): (i64, i64),
    ) -> Result<Exchanged, Refusal> {
        named(device, 256, "invalid device_id")?;
        // What is wrong with the pull keeps the ops from being stored.
        self.pull(pull)?;
        let user = pull.user.as_deref();
        let push = self.push(user, &pull.workspace, ops, at)?;
        let pulled = self.pull(pull)?;
        let acknowledges = pull.cursor > 0 && matches!(pulled.proof, ShownProof::New(_));
        if acknowledges {
            self.acknowledge(user, &pull.workspace, device, pull.cursor, heard_at)?;
        }
        Ok(Exchanged { push, pull: pulled, acknowledges })
    }
}
