//! A server that has lost its last commits, in whatever way: which replies the devices
//! get that saw the lost ops, made them, or know nothing of them, and how they recover.

use postgres::Client;

use crate::batch::op_id;
use crate::device::{Device, Listed, Listing, Pulled};
use crate::state::of_server;
use crate::steps::pull;

/// The devices of one workspace.
struct Circle {
    /// Sees none of the ops that will be lost.
    bystander: Device,
    /// Pushes an op that will be lost, receives the reply, and does not pull.
    author: Device,
    /// Also pushes an op that will be lost, and pulls all of them.
    witness: Device,
    /// Is in the middle of a snapshot.
    reader: Device,
    listing: Listing,
}

impl Circle {
    fn new(workspace: &str) -> Circle {
        let [bystander, author, witness, reader] =
            ["bystander", "author", "witness", "reader"].map(|id| Device::new(id, workspace));
        Circle { bystander, author, witness, reader, listing: Listing::default() }
    }

    /// The reply to the reader's next page.
    fn next_page(&self, client: &mut Client) -> Listed {
        let (mut reader, mut listing) = (self.reader.clone(), self.listing.clone());
        reader.snapshot_page(&mut listing, client, 1).unwrap()
    }

    fn workspace(&self) -> &str {
        &self.witness.workspace
    }

    fn devices(&mut self) -> [&mut Device; 3] {
        [&mut self.bystander, &mut self.author, &mut self.witness]
    }
}

/// The devices of several workspaces, with a different loss in each.
pub struct Loss {
    /// Loses nothing.
    untouched: Circle,
    /// Its head is then lower than what the witness has seen.
    shorter: Circle,
    /// Others reuse the lost version numbers.
    reused: Circle,
    /// The lost op itself takes the same version again.
    same_op: Circle,
    /// Was created in the lost commits.
    vanished: Circle,
    /// The same, and it is created again.
    refounded: Circle,
}

const LOST_BY_WITNESS: u64 = 4;
const LOST_BY_AUTHOR: u64 = 5;

impl Loss {
    /// Commits that the server keeps.
    pub fn before(client: &mut Client) -> Loss {
        client.execute("select sync_register_table('notes')", &[]).unwrap();
        let mut loss = Loss {
            untouched: Circle::new("untouched"),
            shorter: Circle::new("shorter"),
            reused: Circle::new("reused"),
            same_op: Circle::new("same op"),
            vanished: Circle::new("vanished"),
            refounded: Circle::new("refounded"),
        };
        for circle in [&mut loss.untouched, &mut loss.shorter, &mut loss.reused, &mut loss.same_op]
        {
            circle.bystander.put(1, "a");
            circle.bystander.put(2, "b");
            circle.bystander.delete(3, "c");
            circle.bystander.push(client).unwrap();
            for device in circle.devices() {
                device.pull(client, 100, false).unwrap();
                device.acknowledge(client).unwrap();
                assert_eq!((device.cursor, device.outbox.len()), (3, 0));
            }
        }
        loss
    }

    /// Commits that the server loses.
    pub fn lose(&mut self, client: &mut Client) {
        for circle in [
            &mut self.shorter,
            &mut self.reused,
            &mut self.same_op,
            &mut self.vanished,
            &mut self.refounded,
        ] {
            let Circle { author, witness, .. } = circle;
            // There the author's op is the only one, so it can get the same version
            // again.
            if witness.workspace != "same op" {
                witness.put(LOST_BY_WITNESS, "a");
                witness.push(client).unwrap();
            }
            author.put(LOST_BY_AUTHOR, "b");
            author.push(client).unwrap();
            assert!(author.outbox[0].told > Some(author.cursor), "answered, not yet seen");
            witness.pull(client, 100, false).unwrap();
            witness.acknowledge(client).unwrap();
            assert_eq!(Some(witness.cursor), author.outbox[0].told);
            assert!(witness.outbox.is_empty());
            // Not sent yet; it must survive.
            witness.put(9, "pending");
            let page = circle.reader.snapshot_page(&mut circle.listing, client, 1).unwrap();
            assert_eq!(page, Listed::More);
        }
    }

    /// On a standby that lacks the lost commits, all replies show lag.
    pub fn is_lag(&self, standby: &mut Client) {
        for circle in [&self.shorter, &self.reused, &self.same_op, &self.vanished, &self.refounded]
        {
            let mut witness = circle.witness.clone();
            let page = witness.pull_page(standby, 100, false).unwrap();
            assert_eq!(page, Pulled::Page { changes: 0, has_more: false });
            assert_eq!(witness.cursor, circle.witness.cursor);
            assert_eq!(witness.proof, circle.witness.proof);
            assert_eq!(circle.next_page(standby), Listed::Behind);
        }
    }

    /// The server is back without the lost commits.
    pub fn check(mut self, client: &mut Client) {
        self.devices_that_saw_nothing_of_it_notice_nothing(client);
        self.devices_that_saw_what_is_gone_notice(client);
        self.devices_that_saw_what_was_replaced_notice(client);
        for circle in
            [self.untouched, self.shorter, self.reused, self.same_op, self.vanished, self.refounded]
        {
            recover(circle, client);
        }
    }

    fn devices_that_saw_nothing_of_it_notice_nothing(&self, client: &mut Client) {
        for circle in [
            &self.untouched,
            &self.shorter,
            &self.reused,
            &self.same_op,
            &self.vanished,
            &self.refounded,
        ] {
            for device in [&circle.bystander, &circle.author] {
                let page = device.clone().pull_page(client, 100, false).unwrap();
                assert_eq!(page, Pulled::Page { changes: 0, has_more: false });
            }
        }
        let page = self.untouched.witness.clone().pull_page(client, 100, false).unwrap();
        assert_eq!(page, Pulled::Page { changes: 0, has_more: false });
    }

    fn devices_that_saw_what_is_gone_notice(&self, client: &mut Client) {
        for circle in [&self.shorter, &self.reused, &self.same_op] {
            let witness = &circle.witness;
            must_snapshot(witness, client, "history_diverged");
            assert_eq!(circle.next_page(client), Listed::Expired);
            let reply = pull(client, circle.workspace(), witness.cursor, 100, None);
            assert_eq!(reply["reason"], "cursor_ahead", "{reply}");
            // It cannot acknowledge a version that the server does not have.
            let sql = "select sync_update_cursor($1, $2, $3)";
            let arguments: [&(dyn postgres::types::ToSql + Sync); 3] =
                [&witness.workspace, &witness.id, &witness.cursor];
            let error = client.query(sql, &arguments).unwrap_err();
            assert_eq!(error.code().map(|code| code.code()), Some("SX003"), "{error:?}");
        }
        for circle in [&self.vanished, &self.refounded] {
            must_snapshot(&circle.witness, client, "unknown_workspace");
            assert_eq!(circle.next_page(client), Listed::Expired);
            let reply = pull(client, circle.workspace(), circle.witness.cursor, 100, None);
            assert_eq!(reply["reason"], "unknown_workspace", "{reply}");
        }
    }

    fn devices_that_saw_what_was_replaced_notice(&mut self, client: &mut Client) {
        // In one of them, the new ops also outrank the author's lost op.
        for (circle, pk) in [(&mut self.reused, "b"), (&mut self.refounded, "e")] {
            let Circle { bystander, witness, .. } = circle;
            let (head, lost_head) = (bystander.cursor, witness.cursor);
            // First up to the head that the witness saw, then past it.
            for id in [6, 7] {
                bystander.put(id, if id == 6 { pk } else { "d" });
            }
            bystander.push(client).unwrap();
            bystander.pull(client, 100, false).unwrap();
            assert_eq!((bystander.cursor, head + 2), (lost_head, lost_head));
            must_snapshot(witness, client, "history_diverged");
            bystander.put(8, "a");
            bystander.push(client).unwrap();
            must_snapshot(witness, client, "history_diverged");
            assert_eq!(circle.next_page(client), Listed::Expired);
        }

        // The author finds its op lost, and sends it again: the same op at the same
        // version, but logged at another time.
        let Circle { author, witness, .. } = &mut self.same_op;
        let answered = author.outbox[0].told;
        author.pull(client, 100, false).unwrap();
        assert_eq!(author.outbox[0].told, None, "to be sent again");
        author.push(client).unwrap();
        assert_eq!(author.outbox[0].told, answered);
        must_snapshot(witness, client, "history_diverged");
        assert_eq!(self.same_op.next_page(client), Listed::Expired);
    }
}

fn must_snapshot(device: &Device, client: &mut Client, reason: &str) {
    let pulled = device.clone().pull_page(client, 100, false).unwrap();
    assert_eq!(pulled, Pulled::SnapshotRequired { reason: reason.to_owned() }, "{device:?}");
}

/// All devices sync and reach the same state.
fn recover(mut circle: Circle, client: &mut Client) {
    let workspace = circle.workspace().to_owned();
    // The last device to pull in the first round has seen all ops; a second round
    // brings them to the others.
    for _ in 0..2 {
        for device in circle.devices() {
            device.pull(client, 100, false).unwrap();
            device.push(client).unwrap();
            device.pull(client, 100, false).unwrap();
            device.acknowledge(client).unwrap();
        }
    }
    // A device in the middle of a snapshot begins again.
    circle.reader.pull(client, 100, false).unwrap();
    let server = of_server(client, &workspace).unwrap();
    assert_eq!(circle.reader.state(), server);
    for device in circle.devices() {
        assert!(device.outbox.is_empty(), "{device:?}");
        assert_eq!(device.state(), server, "{} of {workspace}", device.id);
    }
    let sql = "select op_id::text from sync_ext.change_log join sync_ext.workspace
                using (workspace_key) where workspace_id = $1 order by server_version";
    let rows = client.query(sql, &[&workspace]).unwrap();
    let log: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let count = |id: u64| log.iter().filter(|logged| **logged == op_id(id)).count();
    if workspace == "untouched" {
        assert_eq!(log.len(), 3);
    } else {
        let is_outranked = workspace == "reused";
        assert_eq!(count(LOST_BY_AUTHOR), usize::from(!is_outranked), "its outbox still held it");
        assert_eq!(count(9), 1, "pending all the time");
        assert_eq!(count(LOST_BY_WITNESS), 0, "no outbox held it any more");
    }
}
