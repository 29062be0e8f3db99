//! Wakes tasks that wait for a change. A hint, never the truth: whoever is woken reads the store again.
//!
//! Invariants
//! - Subscribe first, then read the store, then wait: no change between reading and waiting is missed.
//! - A key takes memory only while somebody waits on it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use crate::wire::{JobId, NodeId};

/// Everything in the coordinator that can be waited for.
#[derive(Debug, Default)]
pub struct Wake {
    matching: Notify,
    nodes: Hub<NodeId>,
    jobs: Hub<JobId>,
}

impl Wake {
    /// Something changed that may let a queued job be placed, or a lease expire.
    pub fn match_jobs(&self) {
        self.matching.notify_one();
    }

    /// Waits for [`Wake::match_jobs`]; a call made while nobody waited is remembered once.
    pub async fn matching_needed(&self) {
        self.matching.notified().await;
    }

    /// The desired state of a node changed.
    pub fn node_changed(&self, node: NodeId) {
        self.nodes.notify(&node);
    }

    /// A waiter for [`Wake::node_changed`].
    pub fn watch_node(&self, node: NodeId) -> Waiter<NodeId> {
        self.nodes.subscribe(node)
    }

    /// A job's state, log or output changed.
    pub fn job_changed(&self, job: JobId) {
        self.jobs.notify(&job);
    }

    /// A waiter for [`Wake::job_changed`].
    pub fn watch_job(&self, job: JobId) -> Waiter<JobId> {
        self.jobs.subscribe(job)
    }
}

type Watched<K> = Arc<Mutex<HashMap<K, watch::Sender<()>>>>;

#[derive(Debug)]
struct Hub<K>(Watched<K>);

impl<K> Default for Hub<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Hash + Eq + Copy> Hub<K> {
    fn notify(&self, key: &K) {
        if let Some(sender) = lock(&self.0).get(key) {
            sender.send_replace(());
        }
    }

    fn subscribe(&self, key: K) -> Waiter<K> {
        let receiver = lock(&self.0).entry(key).or_insert_with(|| watch::Sender::new(())).subscribe();
        Waiter { hub: Arc::clone(&self.0), key, receiver }
    }
}

/// Waits for changes of one key. Changes since it was made, or since the last wait, are not missed.
#[derive(Debug)]
pub struct Waiter<K: Hash + Eq + Copy> {
    hub: Watched<K>,
    key: K,
    receiver: watch::Receiver<()>,
}

impl<K: Hash + Eq + Copy> Waiter<K> {
    /// Waits for the next change. May be cancelled without losing one.
    pub async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            // The hub is gone, so nothing will ever change; the caller's own deadline ends its wait.
            std::future::pending::<()>().await;
        }
    }
}

impl<K: Hash + Eq + Copy> Drop for Waiter<K> {
    fn drop(&mut self) {
        let mut watched = lock(&self.hub);
        // This waiter's own receiver still counts.
        if watched.get(&self.key).is_some_and(|sender| sender.receiver_count() <= 1) {
            watched.remove(&self.key);
        }
    }
}

fn lock<K>(watched: &Watched<K>) -> std::sync::MutexGuard<'_, HashMap<K, watch::Sender<()>>> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn a_change_between_subscribing_and_waiting_is_not_missed() {
        let wake = Wake::default();
        let job = JobId::generate(Timestamp::UNIX_EPOCH);
        let other = JobId::generate(Timestamp::UNIX_EPOCH);
        let mut waiter = wake.watch_job(job);
        let mut cx = Context::from_waker(Waker::noop());
        wake.job_changed(other);
        assert_eq!(pin!(waiter.changed()).poll(&mut cx), Poll::Pending);
        wake.job_changed(job);
        assert_eq!(pin!(waiter.changed()).poll(&mut cx), Poll::Ready(()));
        assert_eq!(pin!(waiter.changed()).poll(&mut cx), Poll::Pending);
    }

    #[test]
    fn nobody_waiting_takes_no_memory() {
        let wake = Wake::default();
        let node = NodeId::generate(Timestamp::UNIX_EPOCH);
        let (first, second) = (wake.watch_node(node), wake.watch_node(node));
        drop(first);
        assert_eq!(lock(&wake.nodes.0).len(), 1);
        drop(second);
        assert_eq!(lock(&wake.nodes.0).len(), 0);
        wake.node_changed(node);
        assert_eq!(lock(&wake.nodes.0).len(), 0);
    }
}
