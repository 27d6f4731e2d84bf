//! Devices that sync through the gateway: one pushes, another is told.

use sync_ext_harness::device::Device;

use super::process::Door;
use super::stream::{Event, Live};

/// Pushes the outbox; false if there was no answer that counts.
pub fn push(device: &mut Device, gateway: &Door) -> bool {
    let unanswered = device.outbox.iter().filter(|op| op.told.is_none());
    let (op_ids, ops): (Vec<String>, Vec<&str>) =
        unanswered.map(|op| (op.revision.op_id.clone(), op.json.as_str())).unzip();
    let (path, body) =
        (format!("/workspaces/{}/push", device.workspace), format!("[{}]", ops.join(",")));
    match gateway.try_post(&path, None, &body) {
        Ok(answer) if answer.status == 200 => {
            device.push_answered(&op_ids, &answer.body).unwrap();
            true
        }
        Ok(answer) if answer.status == 503 => false,
        Ok(answer) => panic!("pushing: {answer:?}"),
        Err(_) => false,
    }
}

/// A device on a stream, which it opens as the README says: each time anew, from
/// the cursor and the proof that it holds.
pub struct Follower {
    pub device: Device,
    /// All versions that it was told, in order.
    pub seen: Vec<i64>,
    /// How often it connected.
    pub connections: u64,
    live: Option<Live>,
}

impl Follower {
    pub fn new(device: Device) -> Follower {
        Follower { device, seen: Vec::new(), connections: 0, live: None }
    }

    /// The next event; `None` if the stream has ended or cannot be had, and is
    /// to be opened again.
    pub fn follow(&mut self, gateway: &Door) -> Option<Event> {
        if self.live.is_none() {
            let Device { workspace, cursor, proof, .. } = &self.device;
            let proof = proof.iter().map(|proof| format!("&proof={proof}")).collect::<String>();
            let path = format!("/workspaces/{workspace}/live?cursor={cursor}{proof}");
            match Live::try_open(gateway, &path, None, None) {
                Ok(live) => self.live = Some(live),
                Err(Some(answer)) => assert_eq!(answer.status, 503, "{answer:?}"),
                Err(None) => {}
            }
            self.connections += u64::from(self.live.is_some());
        }
        let Some(event) = self.live.as_ref()?.next() else {
            self.live = None;
            return None;
        };
        self.seen.extend(event.versions());
        self.device.pull_answered(&event.data).unwrap();
        assert_eq!(event.cursor(), self.device.cursor);
        Some(event)
    }
}
