//! Acknowledgements.

use serde_json::json;

use crate::members::Role;
use crate::refusal::{Outcome, invalid, named, refusal};
use crate::server::{Device, Server};

impl Server {
    pub fn acknowledge(
        &mut self,
        user: Option<&str>,
        workspace: &str,
        device: &str,
        version: i64,
        at: i64,
    ) -> Outcome {
        self.allow(user, workspace, Role::Viewer)?;
        named(device, 256, "invalid device_id")?;
        if version < 0 {
            return Err(invalid("invalid version"));
        }
        let state = self.workspaces.get_mut(workspace);
        let (head, horizon) = state.as_ref().map_or((0, 0), |state| (state.head, state.horizon));
        if version > head {
            return Err(refusal("SX003", "version is above the head"));
        }
        let (mut cursor, mut advanced) = (0, false);
        if let Some(state) = state {
            let id = (device.to_owned(), user.unwrap_or_default().to_owned());
            let known = state.devices.get(&id).map(|device| device.cursor);
            advanced = known.is_none_or(|known| version > known);
            cursor = known.map_or(version, |known| known.max(version));
            state.devices.insert(id, Device { cursor, heard_at: at });
        }
        Ok(json!({"deviceId": device, "lastSeenVersion": cursor, "advanced": advanced,
                  "serverVersion": head, "oldestRetainedVersion": horizon + 1}))
    }
}
