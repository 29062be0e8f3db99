//! Freezes: the owner needs the machine, and the time until the thaw is neither paid nor counted.

use jiff::Timestamp;

use super::{Action, Machine, Now, Stage, Step, between, millis};
use crate::wire::lease::LeaseChange;

impl Machine {
    pub(super) fn freeze(&mut self, reason: String) -> Step {
        self.wants_freeze = Some(reason.clone());
        if self.saved.stage == Stage::Running && self.saved.cause.is_none() && self.begun {
            return Step::act(Action::Freeze { reason });
        }
        Step::default()
    }

    pub(super) fn thaw(&mut self) -> Step {
        self.wants_freeze = None;
        if self.saved.stage == Stage::Frozen && self.begun { Step::act(Action::Thaw) } else { Step::default() }
    }

    pub(super) fn froze(&mut self, reason: String, now: Now) -> Step {
        if self.saved.stage != Stage::Running {
            return Step::default();
        }
        if let Some(running) = &mut self.running {
            running.before += now.steady.since(running.since);
        }
        self.saved.stage = Stage::Frozen;
        self.saved.frozen_since = Some(now.wall);
        let actions = if self.wants_freeze.is_none() { vec![Action::Thaw] } else { Vec::new() };
        Step::recorded(vec![LeaseChange::Frozen { reason }], actions)
    }

    pub(super) fn thawed(&mut self, now: Now) -> Step {
        if self.saved.stage != Stage::Frozen {
            return Step::default();
        }
        self.saved.frozen_millis += self.present_freeze(now.wall);
        self.saved.frozen_since = None;
        self.saved.stage = Stage::Running;
        if let Some(running) = &mut self.running {
            running.since = now.steady;
        }
        let actions = match self.wants_freeze.clone().filter(|_| self.saved.cause.is_none()) {
            Some(reason) => vec![Action::Freeze { reason }],
            None => self.check_health_again(),
        };
        Step::recorded(vec![LeaseChange::Thawed], actions)
    }

    pub(super) fn present_freeze(&self, until: Timestamp) -> u64 {
        self.saved.frozen_since.map_or(0, |since| millis(between(since, until)))
    }
}
