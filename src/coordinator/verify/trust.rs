//! How far a node's hardware is believed, after each challenge.
//!
//! Invariants
//! - One miss suspends nobody: a doubt has to be raised three times as far, without passes in between.
//! - Who passes and misses by turns is suspended in the end: a miss weighs twice what a pass makes good.
//! - A pass always lifts a suspension; the next miss brings it back.
//! - When the next challenge comes is random, so that nobody can prepare for it.

use jiff::{SignedDuration, Timestamp};

use crate::wire::challenge::{Proof, ProofState};

/// From here on a node gets no jobs.
const DOUBT_MAX: u32 = 6;
const MISS: u32 = 2;
/// A proof this old proves nothing any more.
const PROOF_LIFE: SignedDuration = SignedDuration::from_hours(72);
/// Longest reason kept.
const WHY_CHARS_MAX: usize = 300;

/// How a challenge ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// In time and right.
    Passed,
    /// Late, wrong, or not opened.
    Missed {
        /// What exactly, half a sentence.
        why: String,
    },
    /// The node said it was free, was told, and did not get ready.
    Unheard {
        /// Whether another node of its owner was challenged at the same moment.
        joint: bool,
    },
    /// Nobody's fault: the coordinator stopped, or a job came.
    Void,
}

/// What is remembered of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// When it last passed.
    pub passed_at: Option<Timestamp>,
    /// How much it is doubted: misses add, passes take away.
    pub doubt: u32,
    /// Misses in a row.
    pub missed: u32,
    /// What was wrong with the newest miss.
    pub why: Option<String>,
}

impl Trust {
    /// After one more challenge.
    #[must_use]
    pub fn after(self, outcome: &Outcome, now: Timestamp) -> Self {
        match outcome {
            Outcome::Passed => {
                // A suspended node that passes gets jobs again, however much it was doubted.
                let doubt = self.doubt.min(DOUBT_MAX).saturating_sub(1);
                Self { passed_at: Some(now), doubt, missed: 0, why: None }
            }
            Outcome::Missed { why } => self.missed_for(why.chars().take(WHY_CHARS_MAX).collect()),
            // Not to show up is how a card is lent to a sibling for the moment.
            Outcome::Unheard { joint: true } => {
                self.missed_for("this machine did not get ready while others of its owner did".to_owned())
            }
            Outcome::Unheard { joint: false } => Self { doubt: self.doubt.saturating_add(1), ..self },
            Outcome::Void => self,
        }
    }

    fn missed_for(self, why: String) -> Self {
        let doubt = self.doubt.saturating_add(MISS);
        Self { doubt, missed: self.missed.saturating_add(1), why: Some(why), ..self }
    }

    /// Whether the node gets no jobs.
    #[must_use]
    pub const fn is_suspended(&self) -> bool {
        self.doubt >= DOUBT_MAX
    }

    /// In a word. `same_hardware` tells whether what passed is what the node has now.
    #[must_use]
    pub fn state(&self, same_hardware: bool, now: Timestamp) -> ProofState {
        let fresh = self.passed_at.is_some_and(|at| now.duration_since(at) < PROOF_LIFE);
        if self.is_suspended() {
            ProofState::Suspended
        } else if self.missed > 0 {
            ProofState::Doubted
        } else if fresh && same_hardware {
            ProofState::Proven
        } else {
            ProofState::Unproven
        }
    }

    /// For people and nodes.
    #[must_use]
    pub fn view(&self, same_hardware: bool, now: Timestamp) -> Proof {
        let state = self.state(same_hardware, now);
        let advice = match state {
            ProofState::Suspended => {
                "; no jobs come until a challenge is passed: mend it, then ask for one with `fizz prove`"
            }
            ProofState::Doubted => "; another challenge comes soon, or now with `fizz prove`",
            ProofState::Proven | ProofState::Unproven | ProofState::Unknown => "",
        };
        let why = match (&self.why, self.is_suspended()) {
            (Some(why), _) => Some(format!("{why}{advice}")),
            (None, true) => Some(format!("this machine did not get ready for its challenges{advice}")),
            (None, false) => None,
        };
        Proof { state, passed_at: self.passed_at, misses: self.missed, why }
    }

    /// How long until the next challenge; `random` is anywhere in 0..1.
    #[must_use]
    pub fn rest(&self, outcome: &Outcome, random: f64) -> SignedDuration {
        let random = random.clamp(0.0, 1.0);
        let between = |from: f64, to: f64| {
            let seconds = (to - from).mul_add(random, from);
            SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::from_hours(1))
        };
        match outcome {
            Outcome::Void => between(30.0, 120.0),
            // Suspended nodes are not chased: their owners ask.
            Outcome::Missed { .. } | Outcome::Unheard { .. } if self.is_suspended() => {
                between(6.0 * 3600.0, 24.0 * 3600.0)
            }
            Outcome::Missed { .. } | Outcome::Unheard { .. } => between(600.0, 1800.0),
            // Squared, so that short gaps are common and long ones occur.
            Outcome::Passed => between(3600.0, 3600.0 + 35.0 * 3600.0 * random),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(hours * 3600).unwrap()
    }

    fn missed() -> Outcome {
        Outcome::Missed { why: "the answer came 2.1 s late".to_owned() }
    }

    #[test]
    fn misses_lower_trust_three_in_a_row_suspend_and_a_pass_lifts_it() {
        let mut trust = Trust::default();
        assert_eq!(trust.state(true, at(0)), ProofState::Unproven);
        trust = trust.after(&Outcome::Passed, at(0));
        assert_eq!(trust.state(true, at(1)), ProofState::Proven);
        for misses in 1..=3 {
            trust = trust.after(&missed(), at(1));
            let expected = if misses < 3 { ProofState::Doubted } else { ProofState::Suspended };
            assert_eq!((trust.state(true, at(1)), trust.missed), (expected, misses));
        }
        let why = trust.view(true, at(1)).why.unwrap();
        assert!(why.contains("2.1 s late") && why.contains("`fizz prove`"), "{why}");
        trust = trust.after(&Outcome::Passed, at(2));
        assert_eq!(trust.state(true, at(2)), ProofState::Proven);
        assert_eq!(trust.after(&missed(), at(3)).state(true, at(3)), ProofState::Suspended, "on probation");
    }

    #[test]
    fn a_proof_is_of_that_hardware_and_does_not_last_for_ever() {
        let trust = Trust::default().after(&Outcome::Passed, at(0));
        assert_eq!(trust.state(false, at(1)), ProofState::Unproven);
        assert_eq!(trust.state(true, at(71)), ProofState::Proven);
        assert_eq!(trust.state(true, at(72)), ProofState::Unproven);
    }

    #[test]
    fn two_nodes_that_share_a_card_and_show_up_by_turns_are_suspended() {
        let mut trust = Trust::default();
        for round in 0..40 {
            let outcome = if round % 2 == 0 { Outcome::Passed } else { Outcome::Unheard { joint: true } };
            trust = trust.after(&outcome, at(round));
            if trust.is_suspended() {
                return;
            }
        }
        panic!("it got away with it: {trust:?}");
    }

    #[test]
    fn a_node_that_restarts_now_and_then_is_not_suspended() {
        let mut trust = Trust::default();
        for round in 0..400 {
            let outcome = if round % 5 == 4 { Outcome::Unheard { joint: false } } else { Outcome::Passed };
            trust = trust.after(&outcome, at(round));
            assert!(!trust.is_suspended());
        }
    }

    #[test]
    fn the_next_challenge_comes_at_a_random_time_within_bounds() {
        let trust = Trust::default();
        let rests = |outcome: &Outcome| [0.0, 0.3, 0.999].map(|random| trust.rest(outcome, random).as_secs());
        let after_pass = rests(&Outcome::Passed);
        assert!(after_pass[0] >= 3600 && after_pass[2] <= 36 * 3600 && after_pass[0] < after_pass[1]);
        assert!(rests(&missed()).iter().all(|seconds| (600..=1800).contains(seconds)));
        assert!(rests(&Outcome::Void).iter().all(|seconds| (30..=120).contains(seconds)));
    }
}
