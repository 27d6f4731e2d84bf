//! Which streams wait for which workspace. A hint only rings their bell: a stream
//! then pulls for its own user from its own cursor, so that sync_ext decides each
//! time who may see what. Rings that come while a stream is busy are merged into
//! one: the memory of a stream does not depend on the number of changes.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::select_all;
use tokio::sync::watch;

#[derive(Default)]
pub struct Hub {
    rooms: Mutex<Rooms>,
}

/// What has rung a bell so far.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Rung {
    /// The highest version that a hint has named: who has it has all of them.
    pub head: i64,
    /// Rings that named none.
    pub unnamed: u64,
}

#[derive(Default)]
struct Rooms {
    bells: HashMap<String, watch::Sender<Rung>>,
    streams: usize,
    closed: bool,
}

impl Hub {
    /// A stream's place in the rooms of its workspaces; `None` once the hub is closed.
    pub fn subscribe<'w>(
        self: &Arc<Hub>,
        workspace_ids: impl IntoIterator<Item = &'w str>,
    ) -> Option<Subscription> {
        let mut rooms = self.rooms();
        if rooms.closed {
            return None;
        }
        rooms.streams += 1;
        let enter =
            |id: &str| (id.to_owned(), rooms.bells.entry(id.to_owned()).or_default().subscribe());
        let bells = workspace_ids.into_iter().map(enter).collect();
        Some(Subscription { hub: self.clone(), bells })
    }

    /// This version was pushed to a workspace, or none knows which.
    pub fn ring(&self, workspace_id: &str, head: Option<i64>) {
        if let Some(bell) = self.rooms().bells.get(workspace_id) {
            bell.send_modify(|rung| rung.add(head));
        }
    }

    /// Something may have been pushed to any of these.
    pub fn ring_all(&self, is_meant: impl Fn(&str) -> bool) {
        for (workspace_id, bell) in &self.rooms().bells {
            if is_meant(workspace_id) {
                bell.send_modify(|rung| rung.add(None));
            }
        }
    }

    /// The highest version that hints have named, where a stream waits for them.
    pub fn head(&self, workspace_id: &str) -> i64 {
        self.rooms().bells.get(workspace_id).map_or(0, |bell| bell.borrow().head)
    }

    /// Ends all streams, and refuses new ones.
    pub fn close(&self) {
        let mut rooms = self.rooms();
        rooms.closed = true;
        rooms.bells.clear();
    }

    pub fn streams(&self) -> usize {
        self.rooms().streams
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rung {
    fn add(&mut self, head: Option<i64>) {
        match head {
            Some(head) => self.head = self.head.max(head),
            // After a restore versions may begin lower.
            None => *self = Rung { head: 0, unnamed: self.unnamed + 1 },
        }
    }
}

impl Rooms {
    /// Under the lock: of two that leave at the same time, one is the last.
    fn leave(&mut self, (workspace_id, bell): (String, watch::Receiver<Rung>)) {
        drop(bell);
        if self.bells.get(&workspace_id).is_some_and(|bell| bell.receiver_count() == 0) {
            self.bells.remove(&workspace_id);
        }
    }
}

/// A stream's place, with a bell for each of its workspaces; left when dropped.
pub struct Subscription {
    hub: Arc<Hub>,
    bells: Vec<(String, watch::Receiver<Rung>)>,
}

impl Subscription {
    /// Waits until a bell rings that has not been heard; its workspace's number, or `None`
    /// when the hub is closed. A ring is heard once.
    pub async fn rung(&mut self) -> Option<usize> {
        if self.bells.is_empty() {
            return None;
        }
        let bells = self.bells.iter_mut().map(|(_, bell)| Box::pin(bell.changed()));
        let (rung, number, _) = pin!(select_all(bells)).await;
        rung.ok().map(|()| number)
    }

    /// Whether the bell of that workspace has rung and was not heard; now it is.
    pub fn hear(&mut self, number: usize) -> bool {
        let bell = &mut self.bells[number].1;
        let rung = bell.has_changed().unwrap_or(false);
        if rung {
            bell.mark_unchanged();
        }
        rung
    }

    /// What has rung it.
    pub fn rings(&self, number: usize) -> Rung {
        *self.bells[number].1.borrow()
    }

    /// Follows that workspace no longer; the later ones move up.
    pub fn leave(&mut self, number: usize) {
        let left = self.bells.remove(number);
        self.hub.rooms().leave(left);
    }

    pub fn is_closed(&self) -> bool {
        self.bells.iter().any(|(_, bell)| bell.has_changed().is_err())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut rooms = self.hub.rooms();
        rooms.streams -= 1;
        self.bells.drain(..).for_each(|left| rooms.leave(left));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn what_nobody_waits_for_is_forgotten() {
        let hub = Arc::new(Hub::default());
        let (first, second) = (hub.subscribe(["w"]), hub.subscribe(["w"]));
        drop(first);
        assert_eq!(hub.streams(), 1);
        drop(second);
        assert!(hub.rooms().bells.is_empty());
        hub.ring("w", None);
        assert!(hub.rooms().bells.is_empty());
    }

    #[test]
    fn of_those_who_leave_at_once_one_is_the_last() {
        let hub = Arc::new(Hub::default());
        let rooms = || (0..500).map(|room| hub.subscribe([&*room.to_string()])).collect();
        let ready = Barrier::new(2);
        // One after the other, side by side with the other thread.
        let leave = |subscriptions: Vec<Option<Subscription>>| {
            ready.wait();
            drop(subscriptions);
        };
        for _ in 0..200 {
            let (first, second) = (rooms(), rooms());
            thread::scope(|scope| {
                scope.spawn(|| leave(first));
                leave(second);
            });
            assert!(hub.rooms().bells.is_empty());
        }
    }

    #[test]
    fn a_ring_without_a_version_leaves_no_version_to_rely_on() {
        let hub = Arc::new(Hub::default());
        let waiting = hub.subscribe(["w", "u"]).unwrap();
        for head in [5, 7, 6] {
            hub.ring("w", Some(head));
        }
        assert_eq!((hub.head("w"), hub.head("u"), hub.head("nowhere")), (7, 0, 0));
        hub.ring_all(|workspace_id| workspace_id == "w");
        hub.ring("w", Some(2));
        assert!(waiting.rings(0) == Rung { head: 2, unnamed: 1 });
        assert!(waiting.rings(1) == Rung::default());
    }

    #[tokio::test]
    async fn rings_that_come_while_nobody_looks_are_one() {
        let hub = Arc::new(Hub::default());
        let mut waiting = hub.subscribe(["w", "u"]).unwrap();
        let mut other = hub.subscribe(["v"]).unwrap();
        hub.ring("w", None);
        hub.ring("w", None);
        assert_eq!(waiting.rung().await, Some(0));
        assert!(!waiting.hear(0));
        hub.ring("u", None);
        assert!(waiting.hear(1) && !waiting.hear(1));
        waiting.leave(0);
        hub.ring_all(|_| true);
        assert_eq!((waiting.rung().await, other.rung().await), (Some(0), Some(0)));
        assert_eq!(hub.streams(), 2);
        hub.close();
        assert!(waiting.is_closed());
        assert_eq!((waiting.rung().await, other.rung().await), (None, None));
        assert!(hub.subscribe(["w"]).is_none());
    }
}
