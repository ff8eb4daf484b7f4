//! How fast one account may be called in one region, by the groups AWS counts together.
//!
//! Quotas are per account and region, shared with every other client of the account ("Secrets
//! Manager quotas"), so each group starts at half of its own, grows while AWS answers calmly,
//! and halves when it throttles. An endpoint of the connection's own (an emulator, a private
//! service) has no published quota: there a group runs free until the first throttling answer,
//! which closes it to the quota's pace, halved.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::destination::common::Common;
use crate::http::{ApiError, Cx, Pacer};

/// A quota group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    List,
    BatchGet,
    Get,
    Describe,
    /// PutSecretValue and UpdateSecret share one quota.
    Put,
    Create,
    Delete,
    Restore,
    /// TagResource and UntagResource share one quota.
    Tag,
    Sts,
}

/// Name shown while waiting, and requests per second.
const QUOTAS: &[(Lane, &str, f64)] = &[
    (Lane::List, "AWS ListSecrets", 100.0),
    (Lane::BatchGet, "AWS BatchGetSecretValue", 100.0),
    (Lane::Get, "AWS GetSecretValue", 10_000.0),
    (Lane::Describe, "AWS DescribeSecret", 10_000.0),
    (Lane::Put, "AWS PutSecretValue", 50.0),
    (Lane::Create, "AWS CreateSecret", 50.0),
    (Lane::Delete, "AWS DeleteSecret", 50.0),
    (Lane::Restore, "AWS RestoreSecret", 50.0),
    (Lane::Tag, "AWS TagResource", 50.0),
    (Lane::Sts, "AWS STS", 50.0),
];

/// What a group leaves of its quota to others, however calm AWS is.
const LEFT_TO_OTHERS: f64 = 0.1;

/// The pacers of one account in one region.
pub struct Lanes(Vec<LanePacer>);

struct LanePacer {
    lane: Lane,
    name: &'static str,
    quota: f64,
    pacer: Pacer,
    /// True while nothing is paced.
    open: AtomicBool,
}

impl Lanes {
    /// `open`: no quota is published for the endpoint.
    pub fn new(open: bool) -> Self {
        let pacers = QUOTAS.iter().map(|(lane, name, quota)| {
            let most = quota * (1.0 - LEFT_TO_OTHERS);
            // A burst is part of the second it falls in: the cap counts it.
            let pacer = Pacer::new(*name, quota / 2.0, most, (quota / 2.0) as u32).capped(most as u32, Duration::from_secs(1));
            LanePacer { lane: *lane, name, quota: *quota, pacer, open: AtomicBool::new(open) }
        });
        Self(pacers.collect())
    }

    /// The pacers of one account in one region (`place`), the same for every connection of this
    /// process: AWS counts an account's calls together.
    pub fn shared(place: &str, open: bool) -> Arc<Self> {
        static ALL: Common<Lanes> = Common::new();
        ALL.of(place, || Self::new(open))
    }

    fn of(&self, lane: Lane) -> Option<&LanePacer> {
        self.0.iter().find(|p| p.lane == lane)
    }

    /// Waits for this request's turn.
    pub async fn ready(&self, cx: &Cx, lane: Lane) -> Result<(), ApiError> {
        match self.of(lane) {
            Some(p) if !p.open.load(Ordering::Relaxed) => p.pacer.ready(cx).await,
            _ => cx.check(super::spec::SERVICE),
        }
    }

    /// AWS throttled this group.
    pub fn throttled(&self, lane: Lane, hold: Option<Duration>) {
        if let Some(p) = self.of(lane) {
            p.open.store(false, Ordering::Relaxed);
            p.pacer.throttled(hold);
        }
    }

    /// A clean answer.
    pub fn calm(&self, lane: Lane) {
        if let Some(p) = self.of(lane).filter(|p| !p.open.load(Ordering::Relaxed)) {
            p.pacer.calm();
        }
    }

    /// Groups that run slower than they began, for the engine's pane.
    pub fn slowed(&self) -> Option<String> {
        let slow: Vec<String> = self
            .0
            .iter()
            .filter(|p| p.pacer.rate() < p.quota * 0.49)
            .map(|p| format!("{} {:.0}/s of {:.0}/s", p.name.trim_start_matches("AWS "), p.pacer.rate(), p.quota))
            .collect();
        (!slow.is_empty()).then(|| slow.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::time::Instant;

    use super::*;

    /// When `n` calls of sixteen workers went out, in seconds since the beginning.
    async fn sent(lanes: &Lanes, lane: Lane, n: usize) -> Vec<f64> {
        let (begun, left, times) = (Instant::now(), Cell::new(n), RefCell::new(Vec::new()));
        let workers = (0..16).map(|_| async {
            while left.get() > 0 {
                left.set(left.get() - 1);
                lanes.ready(&Cx::quiet(), lane).await.expect("turn");
                times.borrow_mut().push(begun.elapsed().as_secs_f64());
                lanes.calm(lane);
            }
        });
        futures::future::join_all(workers).await;
        times.into_inner()
    }

    fn most_in_a_second(times: &[f64]) -> usize {
        times.iter().map(|from| times.iter().filter(|t| (*from..from + 1.0).contains(*t)).count()).max().unwrap_or(0)
    }

    #[tokio::test(start_paused = true)]
    async fn no_second_sees_more_than_the_quota() {
        for (lane, quota) in [(Lane::Create, 50.0), (Lane::Put, 50.0), (Lane::Delete, 50.0), (Lane::Tag, 50.0), (Lane::List, 100.0)] {
            let lanes = Lanes::new(false);
            let times = sent(&lanes, lane, 600).await;
            assert!((most_in_a_second(&times) as f64) < quota, "{lane:?}: {}", most_in_a_second(&times));
            assert!(times[19] < 0.1, "a few go at once: {}", times[19]);
            let (end, at_least) = (times[599], 600.0 / quota);
            assert!((at_least..at_least * 1.5).contains(&end), "{lane:?}: {end} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_halves_a_group_and_no_other() {
        let lanes = Lanes::new(false);
        assert_eq!(lanes.slowed(), None);
        lanes.throttled(Lane::Create, None);
        assert_eq!(lanes.slowed().as_deref(), Some("CreateSecret 12/s of 50/s"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_own_endpoint_is_unpaced_until_it_throttles() {
        let lanes = Lanes::new(true);
        assert!(sent(&lanes, Lane::Create, 2000).await[1999] < 0.1);
        assert_eq!(lanes.slowed(), None);
        lanes.throttled(Lane::Create, None);
        assert_eq!(lanes.slowed().as_deref(), Some("CreateSecret 12/s of 50/s"));
        let times = sent(&lanes, Lane::Create, 100).await;
        assert!(most_in_a_second(&times) < 50);
    }

    #[test]
    fn an_account_and_region_has_one_pace() {
        let one = Lanes::shared("unit|1|eu-west-1", false);
        assert!(Arc::ptr_eq(&one, &Lanes::shared("unit|1|eu-west-1", false)));
        assert!(!Arc::ptr_eq(&one, &Lanes::shared("unit|1|eu-west-2", false)));
    }

    #[test]
    fn every_lane_has_a_quota() {
        let lanes = Lanes::new(false);
        for lane in
            [Lane::List, Lane::BatchGet, Lane::Get, Lane::Describe, Lane::Put, Lane::Create, Lane::Delete, Lane::Restore, Lane::Tag, Lane::Sts]
        {
            assert!(lanes.of(lane).is_some(), "{lane:?}");
        }
    }
}
