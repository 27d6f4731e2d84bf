//! What no model can know in the replies for operators: sizes, ages, times.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sync_ext_model::status::ANY_DEVICE;

/// Takes bytes and ages out of a status, and which of the devices that hold GC
/// back is named; gives how many workspaces it shows.
pub fn take_from_status(reply: &mut Value) -> Result<u64> {
    let mut workspaces = 0;
    for status in reply["workspaces"].as_array_mut().into_iter().flatten() {
        workspaces += 1;
        let pinned_by = status["pinnedBy"].clone();
        let mut is_holding = false;
        take(status, "logBytes", Value::is_number)?;
        for device in status["devices"].as_array_mut().into_iter().flatten() {
            is_holding |= device["deviceId"] == pinned_by && device["pinsGc"] == true;
            take(device, "heartbeatAgeSeconds", Value::is_number)?;
        }
        if is_holding {
            status["pinnedBy"] = json!(ANY_DEVICE);
        }
    }
    Ok(workspaces)
}

/// Takes times out of what was explained; gives how many ops there are.
pub fn take_from_explained(reply: &mut Value) -> Result<u64> {
    let mut ops = 0;
    for op in reply["ops"].as_array_mut().into_iter().flatten() {
        ops += 1;
        take(op, "createdAt", Value::is_string)?;
    }
    if reply["purge"].is_object() {
        take(&mut reply["purge"], "dueAt", Value::is_string)?;
    }
    Ok(ops)
}

fn take(of: &mut Value, key: &str, is_right: fn(&Value) -> bool) -> Result<()> {
    let taken = of.as_object_mut().and_then(|of| of.remove(key));
    taken.filter(is_right).with_context(|| format!("{key} in {of}")).map(drop)
}
