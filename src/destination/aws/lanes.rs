//! How fast one connection may call one region, by the groups AWS counts together.
//!
//! On AWS's own hosts each group starts at its documented quota (per account and region,
//! shared with every other client of the account; "Secrets Manager quotas") and slows down
//! when AWS throttles. An endpoint of the connection's own (an emulator, a private service)
//! has no published quota: there a group runs free until the first throttling answer, which
//! closes it to the quota's pace, halved, and it grows again from there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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

/// The pacers of one connection in one region.
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
    /// `open`: start without pacing (a custom endpoint).
    pub fn new(open: bool) -> Self {
        let pacers = QUOTAS.iter().map(|(lane, name, quota)| LanePacer {
            lane: *lane,
            name,
            quota: *quota,
            pacer: Pacer::new(*name, *quota, *quota, (*quota / 5.0) as u32),
            open: AtomicBool::new(open),
        });
        Self(pacers.collect())
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

    /// Groups that run below their quota, for the engine's pane.
    pub fn slowed(&self) -> Option<String> {
        let slow: Vec<String> = self
            .0
            .iter()
            .filter(|p| !p.open.load(Ordering::Relaxed) && p.pacer.rate() < p.quota * 0.99)
            .map(|p| format!("{} {:.0}/s of {:.0}/s", p.name.trim_start_matches("AWS "), p.pacer.rate(), p.quota))
            .collect();
        (!slow.is_empty()).then(|| slow.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_own_endpoint_is_unpaced_until_it_throttles() {
        let (cx, lanes) = (Cx::quiet(), Lanes::new(true));
        let begun = tokio::time::Instant::now();
        for _ in 0..2000 {
            lanes.ready(&cx, Lane::Create).await.expect("turn");
        }
        assert!(begun.elapsed() < Duration::from_millis(500));
        assert_eq!(lanes.slowed(), None);
        lanes.throttled(Lane::Create, None);
        assert_eq!(lanes.slowed().as_deref(), Some("CreateSecret 25/s of 50/s"));
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
