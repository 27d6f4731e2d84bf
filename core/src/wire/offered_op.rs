//! An op as the validation function of its table reads it.

use std::fmt::Write;

use super::revision::write_stamp;
use super::text::{longest_string, write_string};
use crate::rules::op::Op;

/// The maximal length of what [`write`] returns.
pub fn longest(op: &Op<'_>) -> usize {
    // For names of keys, a number and a UUID.
    const REST: usize = 256;
    let strings = [&*op.key.table, &*op.key.pk, &*op.revision.hlc, &*op.device_id];
    strings.into_iter().map(longest_string).sum::<usize>() + patch(op).map_or(0, str::len) + REST
}

/// As `{"tableName","operation","pk","stamp"}`, for a patch with `"patch"`, what it writes.
pub fn write(op: &Op<'_>) -> String {
    let mut out = String::from("{\"tableName\":");
    write_string(&mut out, &op.key.table);
    let _ = write!(out, ",\"operation\":\"{}\",\"pk\":", op.operation.as_str());
    write_string(&mut out, &op.key.pk);
    if let Some(patch) = patch(op) {
        out.push_str(",\"patch\":");
        out.push_str(patch);
    }
    out.push_str(",\"stamp\":");
    write_stamp(&mut out, &op.revision, &op.device_id);
    out.push('}');
    out
}

fn patch<'a>(op: &Op<'a>) -> Option<&'a str> {
    op.payload.filter(|_| op.patch.is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rules::model::{op, patch};

    fn written(op: &Op<'_>) -> Value {
        let text = write(op);
        assert!(text.len() <= longest(op), "{text}");
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn it_is_spelled_as_in_a_push() {
        let put = op(1, "a\"\u{1}", 3);
        let (revision, device) = (&put.revision, &*put.device_id);
        let stamp = json!({"clock": 3, "hlc": revision.hlc, "deviceId": device,
                           "opId": revision.op_id.to_string()});
        let expected =
            json!({"tableName": "t", "operation": "put", "pk": "a\"\u{1}", "stamp": stamp});
        assert_eq!(written(&put), expected);
        let patch = Op { payload: Some("{\"x\": 1.50}"), ..patch(2, &put, 9, &["x"]) };
        assert_eq!(written(&patch)["operation"], "patch");
        assert!(write(&patch).contains("\"patch\":{\"x\": 1.50},"), "byte for byte");
    }
}
