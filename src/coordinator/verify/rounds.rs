//! The challenges that run, in memory: who listens, who is ready, when the nonces went out, who has committed to what.
//!
//! Invariants
//! - A challenge is only ever shown to, and answered by, its own node; for any other it does not exist.
//! - The nonces of a round leave at one moment, and the time of all of its challenges counts from there.
//! - The first commitment counts; the same one again gets the same answer. What to open is drawn after it.
//! - Every challenge ends: answered, or by [`Rounds::expire`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::exam::Exam;
use super::trust::Outcome;
use crate::clock::Steady;
use crate::wire::challenge::{Commit, Go, Opening, Part, PendingChallenge};
use crate::wire::{ChallengeId, Digest, ErrorCode, NodeId, Nonce, Problem, PublicKey};

/// Time to get ready: drivers load, shaders compile.
const READY_MAX: Duration = Duration::from_secs(40);
/// Time to open what was committed to: gigabytes come back from the device.
const OPEN_MAX: Duration = Duration::from_secs(90);

/// The challenges that run.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    inner: Mutex<Inner>,
    /// Something came that may begin a round.
    pub(crate) stirred: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    listeners: HashMap<NodeId, usize>,
    live: HashMap<ChallengeId, Live>,
}

/// A challenge that is about to begin.
#[derive(Debug, Clone)]
pub(crate) struct NewChallenge {
    pub(crate) challenge_id: ChallengeId,
    pub(crate) node_id: NodeId,
    pub(crate) node: PublicKey,
    pub(crate) nonce: Nonce,
    pub(crate) parts: Vec<Part>,
    pub(crate) millis_max: u64,
}

#[derive(Debug)]
struct Live {
    new: NewChallenge,
    round: Arc<Round>,
    stage: Stage,
}

/// What the challenges of a round share.
#[derive(Debug)]
struct Round {
    begun: Steady,
    joint: bool,
    released: watch::Sender<Option<Steady>>,
}

#[derive(Debug, Clone)]
enum Stage {
    Told,
    Ready,
    Committed { roots: Vec<Digest>, opening: Opening, millis: u64, at: Steady },
}

/// A challenge that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) challenge_id: ChallengeId,
    pub(crate) node_id: NodeId,
    pub(crate) outcome: Outcome,
    /// Milliseconds of computing.
    pub(crate) work_millis: u64,
}

/// What a commitment comes to.
#[derive(Debug)]
pub(crate) enum Committed {
    /// In time: open this.
    Open(Opening),
    /// Too late, or nonsense: the challenge is over.
    Over(Ended),
}

/// Counts a node as listening until it is dropped.
#[derive(Debug)]
pub(crate) struct Listening<'a> {
    rounds: &'a Rounds,
    node_id: NodeId,
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        let mut inner = self.rounds.lock();
        if let Some(count) = inner.listeners.get_mut(&self.node_id) {
            *count -= 1;
            if *count == 0 {
                inner.listeners.remove(&self.node_id);
            }
        }
    }
}

impl Rounds {
    /// From now on the node hears at once when it is challenged, and says that it is free.
    pub(crate) fn listen(&self, node_id: NodeId) -> Listening<'_> {
        *self.lock().listeners.entry(node_id).or_default() += 1;
        self.stirred.notify_one();
        Listening { rounds: self, node_id }
    }

    /// The nodes that listen and are not challenged now.
    pub(crate) fn free(&self) -> Vec<NodeId> {
        let inner = self.lock();
        let challenged = |node: &NodeId| inner.live.values().any(|live| live.new.node_id == *node);
        inner.listeners.keys().copied().filter(|node| !challenged(node)).collect()
    }

    /// Whether a challenge runs.
    pub(crate) fn any(&self) -> bool {
        !self.lock().live.is_empty()
    }

    /// Begins a round.
    pub(crate) fn begin(&self, challenges: Vec<NewChallenge>, now: Steady) {
        let round = Arc::new(Round { begun: now, joint: challenges.len() > 1, released: watch::Sender::new(None) });
        let mut inner = self.lock();
        for new in challenges {
            inner.live.insert(new.challenge_id, Live { new, round: Arc::clone(&round), stage: Stage::Told });
        }
    }

    /// What a node has been challenged to and has not got ready for.
    pub(crate) fn pending(&self, node_id: NodeId) -> Option<PendingChallenge> {
        let inner = self.lock();
        let told = inner.live.values().find(|live| live.new.node_id == node_id && matches!(live.stage, Stage::Told));
        told.map(|live| PendingChallenge { challenge_id: live.new.challenge_id, parts: live.new.parts.clone() })
    }

    /// The node is ready. What comes back tells when the round was released.
    pub(crate) fn ready(
        &self,
        node_id: NodeId,
        id: ChallengeId,
        now: Steady,
    ) -> Result<watch::Receiver<Option<Steady>>, Problem> {
        let mut inner = self.lock();
        let live = inner.of(node_id, id)?;
        if matches!(live.stage, Stage::Told) {
            live.stage = Stage::Ready;
        }
        let round = Arc::clone(&live.round);
        let waits = |live: &Live| Arc::ptr_eq(&live.round, &round) && matches!(live.stage, Stage::Told);
        if !inner.live.values().any(waits) {
            round.release(now);
        }
        Ok(round.released.subscribe())
    }

    /// What the node is told when its round was released.
    pub(crate) fn go(&self, node_id: NodeId, id: ChallengeId, now: Steady) -> Result<Go, Problem> {
        let mut inner = self.lock();
        let live = inner.of(node_id, id)?;
        let released = *live.round.released.borrow();
        let Some(released) = released else { return Err(over(id)) };
        let passed = u64::try_from(now.since(released).as_millis()).unwrap_or(u64::MAX);
        Ok(Go { nonce: live.new.nonce, millis_max: live.new.millis_max.saturating_sub(passed) })
    }

    /// What the node was asked to compute.
    pub(crate) fn parts(&self, node_id: NodeId, id: ChallengeId) -> Result<Vec<Part>, Problem> {
        self.lock().of(node_id, id).map(|live| live.new.parts.clone())
    }

    /// The node commits. `opening` is drawn by the caller, and told only when it counts.
    pub(crate) fn commit(
        &self,
        node_id: NodeId,
        id: ChallengeId,
        commit: Commit,
        opening: Opening,
        now: Steady,
    ) -> Result<Committed, Problem> {
        let mut inner = self.lock();
        let live = inner.of(node_id, id)?;
        let released = *live.round.released.borrow();
        match (&live.stage, released) {
            (Stage::Committed { roots, opening, .. }, _) if *roots == commit.roots => {
                return Ok(Committed::Open(opening.clone()));
            }
            (Stage::Committed { .. }, _) => {
                return Err(Problem::new(ErrorCode::Conflict, "the challenge has another commitment already"));
            }
            (Stage::Told | Stage::Ready, None) | (Stage::Told, Some(_)) => {
                return Err(Problem::new(ErrorCode::Conflict, "the challenge has not begun"));
            }
            (Stage::Ready, Some(_)) => {}
        }
        let millis = released.map_or(u64::MAX, |at| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX));
        let outcome = if millis > live.new.millis_max {
            let late = millis - live.new.millis_max;
            Some(format!("the answer came {late} ms after its {} ms", live.new.millis_max))
        } else if commit.roots.len() != live.new.parts.len() {
            Some(format!("{} results came for {} devices", commit.roots.len(), live.new.parts.len()))
        } else {
            None
        };
        if let Some(why) = outcome {
            return inner.end(id, Outcome::Missed { why }, millis).map(Committed::Over).ok_or_else(|| over(id));
        }
        live.stage = Stage::Committed { roots: commit.roots, opening: opening.clone(), millis, at: now };
        Ok(Committed::Open(opening))
    }

    /// What the node's answer is to be held against. Taking it ends the challenge here, so that there is one answer.
    pub(crate) fn take_exam(&self, node_id: NodeId, id: ChallengeId) -> Result<(Exam, u64), Problem> {
        let mut inner = self.lock();
        let live = inner.of(node_id, id)?;
        let Stage::Committed { roots, opening, millis, .. } = live.stage.clone() else {
            return Err(Problem::new(ErrorCode::Conflict, "nothing was committed to yet"));
        };
        let NewChallenge { challenge_id, node, nonce, parts, .. } = live.new.clone();
        inner.live.remove(&id);
        Ok((Exam { challenge_id, node, nonce, parts, roots, opening }, millis))
    }

    /// Gives up a node's challenge: it has got a job meanwhile.
    pub(crate) fn give_up(&self, node_id: NodeId) -> Option<Ended> {
        let mut inner = self.lock();
        let id = inner.live.values().find(|live| live.new.node_id == node_id).map(|live| live.new.challenge_id)?;
        inner.end(id, Outcome::Void, 0)
    }

    /// Ends what has run out of time, and releases rounds whose last nodes do not get ready.
    pub(crate) fn expire(&self, now: Steady) -> Vec<Ended> {
        let mut inner = self.lock();
        let mut ended = Vec::new();
        for (id, outcome, millis) in
            inner.live.iter().filter_map(|(id, live)| live.run_out(*id, now)).collect::<Vec<_>>()
        {
            ended.extend(inner.end(id, outcome, millis));
        }
        let told = |round: &Arc<Round>, inner: &Inner| {
            inner.live.values().any(|live| Arc::ptr_eq(&live.round, round) && matches!(live.stage, Stage::Told))
        };
        let full: Vec<_> = inner.live.values().map(|live| &live.round).filter(|round| !told(round, &inner)).collect();
        for round in full {
            round.release(now);
        }
        ended
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn of(&mut self, node_id: NodeId, id: ChallengeId) -> Result<&mut Live, Problem> {
        self.live.get_mut(&id).filter(|live| live.new.node_id == node_id).ok_or_else(|| over(id))
    }

    fn end(&mut self, id: ChallengeId, outcome: Outcome, work_millis: u64) -> Option<Ended> {
        let live = self.live.remove(&id)?;
        Some(Ended { challenge_id: id, node_id: live.new.node_id, outcome, work_millis })
    }
}

impl Round {
    fn release(&self, now: Steady) {
        self.released.send_if_modified(|released| {
            let first = released.is_none();
            released.get_or_insert(now);
            first
        });
    }
}

impl Live {
    /// How it ends now, if it does.
    fn run_out(&self, id: ChallengeId, now: Steady) -> Option<(ChallengeId, Outcome, u64)> {
        let released = *self.round.released.borrow();
        match (&self.stage, released) {
            (Stage::Told, _) if now.since(self.round.begun) > READY_MAX => {
                Some((id, Outcome::Unheard { joint: self.round.joint }, 0))
            }
            (Stage::Ready, Some(at)) if now.since(at) > Duration::from_millis(self.new.millis_max) => {
                let why = format!("no answer came within {} ms", self.new.millis_max);
                Some((id, Outcome::Missed { why }, self.new.millis_max))
            }
            (Stage::Committed { millis, at, .. }, _) if now.since(*at) > OPEN_MAX => {
                let why = "the result was committed to and never opened".to_owned();
                Some((id, Outcome::Missed { why }, *millis))
            }
            (Stage::Told | Stage::Ready | Stage::Committed { .. }, _) => None,
        }
    }
}

fn over(id: ChallengeId) -> Problem {
    Problem::new(ErrorCode::ChallengeOver, format!("this node has no challenge {id} that runs"))
}

#[cfg(test)]
mod tests;
