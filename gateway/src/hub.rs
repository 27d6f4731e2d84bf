//! Which streams wait for which workspace. A hint only rings their bell: a stream
//! then pulls for its own user from its own cursor, so that sync_ext decides each
//! time who may see what. Rings that come while a stream is busy are merged into
//! one: the memory of a stream does not depend on the number of changes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

#[derive(Default)]
pub struct Hub {
    rooms: Mutex<Rooms>,
    /// Whether notifications arrive at the moment.
    pub is_listening: AtomicBool,
}

#[derive(Default)]
struct Rooms {
    bells: HashMap<String, watch::Sender<()>>,
    closed: bool,
}

impl Hub {
    /// `None` once the hub is closed.
    pub fn subscribe(self: &Arc<Hub>, workspace_id: &str) -> Option<Subscription> {
        let mut rooms = self.rooms();
        if rooms.closed {
            return None;
        }
        let bell = rooms.bells.entry(workspace_id.to_owned()).or_default().subscribe();
        let (hub, workspace_id) = (self.clone(), workspace_id.to_owned());
        Some(Subscription { hub, workspace_id, bell: Some(bell) })
    }

    /// Something was pushed to a workspace.
    pub fn ring(&self, workspace_id: &str) {
        if let Some(bell) = self.rooms().bells.get(workspace_id) {
            bell.send_replace(());
        }
    }

    /// Something may have been pushed to any of them.
    pub fn ring_all(&self) {
        for bell in self.rooms().bells.values() {
            bell.send_replace(());
        }
    }

    /// Ends all streams, and refuses new ones.
    pub fn close(&self) {
        let mut rooms = self.rooms();
        rooms.closed = true;
        rooms.bells.clear();
    }

    pub fn streams(&self) -> usize {
        self.rooms().bells.values().map(watch::Sender::receiver_count).sum()
    }

    pub fn is_listening(&self) -> bool {
        self.is_listening.load(Ordering::Relaxed)
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's place; left when dropped.
pub struct Subscription {
    hub: Arc<Hub>,
    workspace_id: String,
    /// None only while this is dropped.
    bell: Option<watch::Receiver<()>>,
}

impl Subscription {
    /// Waits until it rings, if it has not since the last time; false when the
    /// hub is closed.
    pub async fn rung(&mut self) -> bool {
        match &mut self.bell {
            Some(bell) => bell.changed().await.is_ok(),
            None => false,
        }
    }

    pub fn is_closed(&self) -> bool {
        self.bell.as_ref().is_none_or(|bell| bell.has_changed().is_err())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut rooms = self.hub.rooms();
        // Under the lock: of two that leave at the same time, one is the last.
        self.bell = None;
        if rooms.bells.get(&self.workspace_id).is_some_and(|bell| bell.receiver_count() == 0) {
            rooms.bells.remove(&self.workspace_id);
        }
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
        let (first, second) = (hub.subscribe("w"), hub.subscribe("w"));
        drop(first);
        assert_eq!(hub.streams(), 1);
        drop(second);
        assert!(hub.rooms().bells.is_empty());
        hub.ring("w");
        assert!(hub.rooms().bells.is_empty());
    }

    #[test]
    fn of_those_who_leave_at_once_one_is_the_last() {
        let hub = Arc::new(Hub::default());
        let rooms = || (0..500).map(|room| hub.subscribe(&room.to_string())).collect();
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

    #[tokio::test]
    async fn rings_that_come_while_nobody_looks_are_one() {
        let hub = Arc::new(Hub::default());
        let mut waiting = hub.subscribe("w").unwrap();
        let mut other = hub.subscribe("v").unwrap();
        hub.ring("w");
        hub.ring("w");
        assert!(waiting.rung().await);
        hub.ring_all();
        assert!(waiting.rung().await && other.rung().await);
        hub.close();
        assert!(!waiting.rung().await && !other.rung().await);
        assert!(hub.subscribe("w").is_none());
    }
}
