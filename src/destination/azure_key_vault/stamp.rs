//! What the ledger keeps of a secret's state.
//!
//! The list shows `created` and `updated` in whole seconds and no version. A foreign write in
//! the same second as ours looks like ours, so a stamp stays *soft* until the version was
//! seen again by a read that happened after that second was over; only a hard stamp may be
//! believed on the list's word. Mostly that read is made a moment after the write, by the run
//! that wrote.
//!
//! No cheaper proof exists. The answer to a write names its version, but the list shows none, so
//! nothing listed later can be compared with it; and a key whose listed second is that of our
//! write is every key that nobody touched. The one read per written key can only be made by this
//! run or by the next, which would then cost more than the pages of the list.

use std::time::Duration;

use jiff::Timestamp;

use super::wire::Attributes;
use crate::http::{Answer, parse_http_date};

/// A read hardens a stamp when the service's clock shows at least this many seconds more than
/// `updated`: the second is over on every replica, one second of disagreement allowed.
const SETTLED_AFTER: i64 = 2;
/// The same for a second look at our own write. It comes [`LOOK_AFTER`] of real time later,
/// which ends the second by the clock that stamped the write; the service's date only has to
/// agree.
const LOOKED_AFTER: i64 = 1;
/// The time from our write to the second look at it: a second, and room for replicas whose
/// clocks differ a little.
const LOOK_AFTER: Duration = Duration::from_millis(1100);
/// A stamp further ahead of the service's own date than this is not waited for.
const FURTHEST_AHEAD: i64 = 3;

/// The state of one secret as far as a list or a bundle tells. Stored as
/// `updated/created/version/soft|hard`, with `-` for what is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub updated: Option<i64>,
    pub created: Option<i64>,
    pub version: Option<String>,
    pub soft: bool,
}

impl Mark {
    /// What a list item shows.
    pub fn listed(attributes: &Attributes) -> Self {
        Self { updated: attributes.updated, created: attributes.created, version: None, soft: true }
    }

    /// What the answer to our own write shows: soft, because the second may not be over.
    pub fn written(attributes: &Attributes, version: Option<String>) -> Self {
        Self { updated: attributes.updated, created: attributes.created, version, soft: true }
    }

    /// What a read shows; hard when the service's clock is past the second of the last change.
    pub fn read(attributes: &Attributes, version: Option<String>, answer: &Answer) -> Self {
        Self::seen(attributes, version, answer, SETTLED_AFTER)
    }

    /// What the second look at our own write shows, [`Self::look_in`] after it.
    pub fn looked_at(attributes: &Attributes, version: Option<String>, answer: &Answer) -> Self {
        Self::seen(attributes, version, answer, LOOKED_AFTER)
    }

    fn seen(attributes: &Attributes, version: Option<String>, answer: &Answer, margin: i64) -> Self {
        let soft = attributes.updated.is_none_or(|updated| date(answer) < updated.saturating_add(margin));
        Self { updated: attributes.updated, created: attributes.created, version, soft }
    }

    /// When a second look can prove that this stamp, which `answer` showed, is ours alone;
    /// `None` where it is proved, or where no look could prove it.
    pub fn look_in(&self, answer: &Answer) -> Option<Duration> {
        let ahead = self.updated?.saturating_sub(date(answer)).max(0);
        let possible = self.soft && self.version.is_some() && ahead <= FURTHEST_AHEAD;
        possible.then(|| LOOK_AFTER + Duration::from_secs(ahead.unsigned_abs()))
    }

    pub fn text(&self) -> String {
        let number = |n: Option<i64>| n.map_or_else(|| "-".to_string(), |n| n.to_string());
        let version = self.version.as_deref().unwrap_or("-");
        format!("{}/{}/{version}/{}", number(self.updated), number(self.created), if self.soft { "soft" } else { "hard" })
    }

    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let number = |part: &str| if part == "-" { Some(None) } else { part.parse().ok().map(Some) };
        let (updated, created) = (number(parts.next()?)?, number(parts.next()?)?);
        let version = Some(parts.next()?).filter(|v| *v != "-").map(str::to_owned);
        let soft = match (parts.next()?, parts.next()) {
            ("soft", None) => true,
            ("hard", None) => false,
            _ => return None,
        };
        Some(Self { updated, created, version, soft })
    }

    /// True when a list that shows `self` shows what `then` was: the same seconds, both known.
    pub fn same_seconds(&self, then: &Mark) -> bool {
        self.updated.is_some() && self.updated == then.updated && self.created == then.created
    }
}

/// The service's clock, in unix seconds; ours where it does not tell.
fn date(answer: &Answer) -> i64 {
    answer.header("date").and_then(parse_http_date).unwrap_or_else(Timestamp::now).as_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(updated: i64) -> Attributes {
        Attributes { updated: Some(updated), created: Some(5), ..Attributes::default() }
    }

    fn at(second: i64) -> Answer {
        let date = crate::http::http_date(Timestamp::from_second(second).expect("time"));
        let headers = [(reqwest::header::DATE, date.parse().expect("header"))].into_iter().collect();
        Answer { status: 200, headers, body: zeroize::Zeroizing::new(Vec::new()) }
    }

    #[test]
    fn stamps_round_trip() {
        for mark in [
            Mark { updated: Some(7), created: Some(5), version: Some("ab12".into()), soft: true },
            Mark { updated: None, created: None, version: None, soft: false },
        ] {
            assert_eq!(Mark::parse(&mark.text()), Some(mark));
        }
        for bad in ["", "1/2/v", "1/2/v/firm", "x/2/v/soft", "1/2/v/soft/more"] {
            assert_eq!(Mark::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_read_hardens_only_after_the_second_is_over() {
        assert!(Mark::read(&attributes(100), None, &at(100)).soft);
        assert!(Mark::read(&attributes(100), None, &at(101)).soft);
        assert!(!Mark::read(&attributes(100), None, &at(102)).soft);
        assert!(Mark::read(&Attributes::default(), None, &at(102)).soft, "without a time nothing can be believed");
    }

    #[test]
    fn a_second_look_comes_when_the_second_is_over_by_the_services_clock() {
        let written = |updated| Mark::written(&attributes(updated), Some("v".into()));
        assert_eq!(written(100).look_in(&at(100)), Some(LOOK_AFTER));
        assert_eq!(written(100).look_in(&at(103)), Some(LOOK_AFTER));
        assert_eq!(written(101).look_in(&at(100)), Some(LOOK_AFTER + Duration::from_secs(1)), "a stamp that was rounded up");
        assert_eq!(written(1_000).look_in(&at(100)), None, "no sane clock");
        assert_eq!(Mark::written(&attributes(100), None).look_in(&at(100)), None, "nothing to compare");
        assert_eq!(Mark::written(&Attributes::default(), Some("v".into())).look_in(&at(100)), None);
        assert_eq!(Mark::read(&attributes(100), Some("v".into()), &at(200)).look_in(&at(200)), None, "it is hard");
        assert!(Mark::looked_at(&attributes(100), None, &at(100)).soft);
        assert!(!Mark::looked_at(&attributes(100), None, &at(101)).soft);
        assert!(Mark::looked_at(&attributes(102), None, &at(102)).soft, "changed meanwhile: its own second counts");
    }
}
