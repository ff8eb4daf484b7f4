//! When a failed automatic run is tried again, and when its sync rests.
//!
//! | a run ends | then |
//! | --- | --- |
//! | failed, and trying again may help: a timeout, a throttle, a 5xx, a lost answer, for the whole run or for a single key | the next attempt after 3, 6, 12, 24 s, give or take a tenth; after the fifth the sync rests |
//! | failed, and the same run would fail the same way: a refused login, a missing right, a document that cannot be used | the sync rests at once |
//! | succeeded | the count begins anew |
//! | cancelled, or waits for approval | nothing more by itself |
//!
//! A run by hand is the operator's: its failure neither counts nor puts the next attempt off.
//! A rest ends with a change of the source, of the sync or of its connection, with a run by
//! hand that succeeds, and when the operator has connections opened anew (SIGHUP).

use std::time::Duration;

use tokio::time::Instant;

use crate::model::Time;
use crate::model::run::{RunStatus, Trigger};

/// Attempts of an automatic run before its sync rests.
pub(super) const ATTEMPTS: u32 = 5;
/// Pause before the second attempt; doubled each time.
pub(super) const RETRY_BASE: Duration = Duration::from_secs(3);

/// The next attempt.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Retry {
    pub at: Instant,
    /// The same moment on the wall clock, for people.
    pub time: Time,
    pub trigger: Trigger,
}

impl Retry {
    /// An attempt after `wait`.
    pub fn after(wait: Duration, trigger: Trigger) -> Self {
        Self { at: Instant::now() + wait, time: super::ahead(wait), trigger }
    }
}

/// Why a sync does nothing by itself any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Every attempt failed.
    Spent,
    /// Trying again would fail the same way.
    Refused,
}

/// How a run ended, as far as it matters here.
pub(super) struct End<'a> {
    pub status: RunStatus,
    pub retryable: bool,
    pub trigger: Trigger,
    pub at: Time,
    /// The content that arrived during the run, unless the run has carried it.
    pub again: Option<&'a str>,
}

/// What one sync waits for.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending {
    /// Automatic attempts that failed in a row.
    pub attempts: u32,
    pub retry: Option<Retry>,
    pub rest: Option<Rest>,
    /// When the first of the failures in a row ended.
    pub since: Option<Time>,
    /// What the last automatic run was to carry: content and configuration.
    pub tried: Option<String>,
    /// The content that arrived while a run was going.
    pub again: Option<String>,
    /// The destination's connection, as it was when the sync was last looked at.
    pub connection: String,
    pub drift: Option<super::drift::Due>,
    /// What the last check found that only reports, until a run has mended it.
    pub drifted: Option<super::drift::Drifted>,
    /// When a run last brought both sides in step.
    pub mended: Option<Instant>,
}

impl Pending {
    /// The source holds this now. False when that is no news: a run for it was started already,
    /// and its failure is being dealt with.
    pub fn learn(&mut self, mark: Option<String>) -> bool {
        if mark.is_some() && self.tried == mark {
            return false;
        }
        self.tried = mark;
        self.fresh();
        true
    }

    /// Everything begins anew.
    pub fn fresh(&mut self) {
        (self.attempts, self.retry, self.rest, self.since) = (0, None, None, None);
    }

    /// Something that the failures may have come from has changed: a resting sync is tried again.
    pub fn wake(&mut self) {
        if self.rest.is_some() {
            self.fresh();
            self.retry = Some(Retry::after(Duration::ZERO, Trigger::Auto));
        }
    }

    /// A run ended. `dice` is from 0 to 1 and spreads the pauses.
    pub fn ended(&mut self, end: &End<'_>, dice: f64) {
        let by_hand = end.trigger == Trigger::Manual;
        match end.status {
            RunStatus::Failed if end.retryable && by_hand => {}
            RunStatus::Failed if end.retryable => {
                self.attempts += 1;
                self.since.get_or_insert(end.at);
                self.retry = None;
                if self.attempts < ATTEMPTS {
                    let wait = RETRY_BASE.saturating_mul(2u32.pow(self.attempts - 1)).mul_f64(0.9 + dice * 0.2);
                    let trigger = if end.trigger == Trigger::Drift { Trigger::Drift } else { Trigger::Auto };
                    self.retry = Some(Retry::after(wait, trigger));
                } else {
                    self.rest = Some(Rest::Spent);
                }
            }
            RunStatus::Failed if by_hand && self.rest.is_none() && self.retry.is_none() => {}
            RunStatus::Failed => {
                self.retry = None;
                self.rest = Some(Rest::Refused);
                self.since.get_or_insert(end.at);
            }
            _ => self.fresh(),
        }
        let tried_again = end.status == RunStatus::Failed && end.retryable && self.retry.is_some();
        if end.again.is_some() && !tried_again {
            self.fresh();
            self.retry = Some(Retry::after(Duration::ZERO, Trigger::Auto));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(status: RunStatus, retryable: bool, trigger: Trigger) -> End<'static> {
        End { status, retryable, trigger, at: crate::model::now(), again: None }
    }

    fn failed(trigger: Trigger) -> End<'static> {
        end(RunStatus::Failed, true, trigger)
    }

    /// Lets the clock run to each attempt and fails it; the pauses in seconds.
    async fn pauses(pending: &mut Pending, first: Trigger, dice: f64) -> Vec<f64> {
        let mut out = Vec::new();
        let mut trigger = first;
        loop {
            pending.ended(&failed(trigger), dice);
            let Some(retry) = pending.retry.take() else { return out };
            let begun = Instant::now();
            tokio::time::sleep_until(retry.at).await;
            out.push((begun.elapsed().as_secs_f64() * 100.0).round() / 100.0);
            trigger = retry.trigger;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn five_attempts_with_growing_pauses_and_then_a_rest() {
        for (dice, expected) in [(0.5, [3.0, 6.0, 12.0, 24.0]), (0.0, [2.7, 5.4, 10.8, 21.6]), (1.0, [3.3, 6.6, 13.2, 26.4])] {
            for first in [Trigger::Auto, Trigger::Created, Trigger::Drift] {
                let mut pending = Pending::default();
                assert!(pending.learn(Some("one".into())));
                assert_eq!(pauses(&mut pending, first, dice).await, expected);
                assert_eq!((pending.attempts, pending.rest), (5, Some(Rest::Spent)));
                assert!(pending.since.is_some());
                // The same content again (a server without tags) wakes nobody; another one does.
                assert!(!pending.learn(Some("one".into())));
                assert_eq!(pending.rest, Some(Rest::Spent));
                assert!(pending.learn(Some("two".into())));
                assert_eq!((pending.attempts, pending.rest, pending.since), (0, None, None));
                assert_eq!(pauses(&mut pending, Trigger::Auto, dice).await, expected, "the count begins anew");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_drift_check_is_tried_again_as_one() {
        let mut pending = Pending::default();
        pending.ended(&failed(Trigger::Drift), 0.5);
        assert_eq!(pending.retry.as_ref().map(|r| r.trigger), Some(Trigger::Drift));
        pending.ended(&failed(Trigger::Created), 0.5);
        assert_eq!(pending.retry.as_ref().map(|r| r.trigger), Some(Trigger::Auto));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_pass_is_not_tried_again() {
        let mut pending = Pending::default();
        pending.ended(&failed(Trigger::Auto), 0.5);
        assert!(pending.retry.is_some());
        pending.ended(&end(RunStatus::Failed, false, Trigger::Auto), 0.5);
        assert_eq!((pending.retry.clone(), pending.rest), (None, Some(Rest::Refused)));
        // What it came from was mended.
        pending.wake();
        assert!(pending.rest.is_none() && pending.retry.as_ref().is_some_and(|r| r.at <= Instant::now()));
        for status in [RunStatus::Succeeded, RunStatus::Cancelled, RunStatus::NeedsApproval] {
            pending.ended(&failed(Trigger::Auto), 0.5);
            pending.ended(&end(status, false, Trigger::Auto), 0.5);
            assert_eq!((pending.attempts, pending.retry.clone(), pending.rest), (0, None, None), "{status}");
        }
        let mut well = Pending::default();
        well.wake();
        assert!(well.retry.is_none(), "what does not rest is not woken");
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_by_hand_neither_counts_nor_puts_off() {
        let mut pending = Pending::default();
        pending.ended(&failed(Trigger::Manual), 0.5);
        assert_eq!((pending.attempts, pending.retry.clone(), pending.rest), (0, None, None));
        pending.ended(&failed(Trigger::Auto), 0.5);
        let planned = pending.retry.clone();
        pending.ended(&failed(Trigger::Manual), 0.5);
        assert_eq!((pending.attempts, pending.retry.clone()), (1, planned));
        // Until it succeeds.
        pauses(&mut pending, Trigger::Auto, 0.5).await;
        assert_eq!(pending.rest, Some(Rest::Spent));
        pending.ended(&failed(Trigger::Manual), 0.5);
        assert_eq!(pending.rest, Some(Rest::Spent));
        pending.ended(&end(RunStatus::Succeeded, false, Trigger::Manual), 0.5);
        assert_eq!((pending.attempts, pending.rest), (0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_during_a_run_is_carried_next() {
        let mut pending = Pending::default();
        pending.ended(&End { again: Some("two"), ..end(RunStatus::Succeeded, false, Trigger::Auto) }, 0.5);
        assert!(pending.retry.as_ref().is_some_and(|r| r.at <= Instant::now()));
        pending.ended(&End { again: Some("two"), ..end(RunStatus::Failed, false, Trigger::Auto) }, 0.5);
        assert!(pending.rest.is_none() && pending.retry.is_some());
        // Where trouble may pass, its pause is kept.
        let mut pending = Pending::default();
        pending.ended(&End { again: Some("two"), ..failed(Trigger::Auto) }, 0.5);
        assert!(pending.retry.as_ref().is_some_and(|r| r.at > Instant::now() + Duration::from_secs(2)));
    }
}
