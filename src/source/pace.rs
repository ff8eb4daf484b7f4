//! How fast the KMS may be called.
//!
//! The server counts fixed windows of 60 s per client address and bucket, and says in
//! `x-ratelimit-*` how much is left: while it does, nothing is slowed down until the window
//! is nearly spent. A server that sends no such headers usually has no limiter at all, so it
//! is met with a generous burst and rate; a 429 halves that, and `retry-after` is obeyed.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::errors::SERVICE;
use crate::http::{Answer, ApiError, Cx, Pacer};

/// Requests that are left to others before a window counts as spent.
const RESERVE: u64 = 2;
/// The longest window that is believed.
const LONGEST: Duration = Duration::from_secs(120);

/// The server's buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bucket {
    /// Lists and questions of management routes.
    Read,
    /// Writes of secrets: counted with the secrets, apart from their reading in our pacing.
    Write,
    /// Secret lists.
    Secrets,
    /// Logins.
    Auth,
}

/// One pacer and the last known window per bucket.
pub(super) struct Pace {
    pacers: [Pacer; 4],
    windows: [Mutex<Option<Window>>; 4],
}

#[derive(Clone, Copy)]
struct Window {
    limit: u64,
    remaining: u64,
    ends: Instant,
}

impl Pace {
    pub fn new() -> Self {
        // A limit of 60 per minute is met by its headers; without headers 30 at once and
        // 10 per second are what a person and a few syncs never reach.
        let pacer = || Pacer::new("KMS", 10.0, 50.0, 30);
        Self { pacers: std::array::from_fn(|_| pacer()), windows: std::array::from_fn(|_| Mutex::new(None)) }
    }

    pub fn of(&self, bucket: Bucket) -> &Pacer {
        &self.pacers[bucket as usize]
    }

    /// Learns from an answer's headers, and holds the bucket when its window is spent.
    pub fn learn(&self, bucket: Bucket, answer: &Answer) {
        let number = |name: &str| answer.header(name).and_then(|v| v.trim().parse::<u64>().ok());
        let (Some(limit), Some(remaining)) = (number("x-ratelimit-limit"), number("x-ratelimit-remaining")) else { return };
        let reset = Duration::from_secs(number("x-ratelimit-reset").unwrap_or(60)).min(LONGEST);
        *self.window(bucket) = Some(Window { limit, remaining, ends: Instant::now() + reset });
        if remaining < RESERVE.min(limit) && answer.status != 429 {
            self.of(bucket).hold(reset, &format!("KMS rate limit: {limit} requests per minute are spent"));
        }
    }

    /// The window of secret lists, the bucket that is spent first; the present pace where the
    /// server tells of no window.
    pub fn budget(&self) -> Option<String> {
        let window = (*self.window(Bucket::Secrets)).filter(|w| w.ends > Instant::now());
        Some(match window {
            Some(w) => format!("{} of {} left this minute", w.remaining, w.limit),
            None => format!("{:.0} reads/s", self.of(Bucket::Secrets).rate()),
        })
    }

    /// Polls keep to half of the budget: waits for the next window when the other half begins.
    pub async fn yield_to_others(&self, cx: &Cx, bucket: Bucket) -> Result<(), ApiError> {
        cx.check(SERVICE)?;
        let window = *self.window(bucket);
        match window {
            Some(w) if w.remaining.saturating_mul(2) < w.limit && w.ends > Instant::now() => {
                cx.wait("KMS rate limit: polling keeps to half of it", w.ends - Instant::now()).await
            }
            _ => Ok(()),
        }
    }

    fn window(&self, bucket: Bucket) -> std::sync::MutexGuard<'_, Option<Window>> {
        self.windows[bucket as usize].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn answer(limit: &str, remaining: &str, reset: &str) -> Answer {
        let mut headers = reqwest::header::HeaderMap::new();
        for (name, value) in [("x-ratelimit-limit", limit), ("x-ratelimit-remaining", remaining), ("x-ratelimit-reset", reset)] {
            headers.insert(name, value.parse().expect("header"));
        }
        Answer { status: 200, headers, body: Zeroizing::new(Vec::new()) }
    }

    #[tokio::test]
    async fn a_spent_window_is_waited_out_and_a_fresh_one_is_not() {
        let pace = Pace::new();
        pace.learn(Bucket::Secrets, &answer("60", "40", "1"));
        let begun = Instant::now();
        pace.of(Bucket::Secrets).ready(&Cx::quiet()).await.expect("turn");
        assert!(begun.elapsed() < Duration::from_millis(500));
        pace.learn(Bucket::Secrets, &answer("60", "1", "1"));
        pace.of(Bucket::Read).ready(&Cx::quiet()).await.expect("another bucket");
        assert!(begun.elapsed() < Duration::from_millis(500));
        pace.of(Bucket::Secrets).ready(&Cx::quiet()).await.expect("turn");
        assert!(begun.elapsed() >= Duration::from_millis(990));
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_the_windows_while_the_server_tells_of_one() {
        let pace = Pace::new();
        assert_eq!(pace.budget().as_deref(), Some("10 reads/s"));
        pace.learn(Bucket::Read, &answer("600", "7", "30"));
        pace.learn(Bucket::Secrets, &answer("60", "41", "30"));
        assert_eq!(pace.budget().as_deref(), Some("41 of 60 left this minute"));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(pace.budget().as_deref(), Some("10 reads/s"), "the window is over");
        pace.of(Bucket::Secrets).throttled(None);
        assert_eq!(pace.budget().as_deref(), Some("5 reads/s"));
    }

    #[tokio::test]
    async fn polls_leave_half_of_the_budget() {
        let pace = Pace::new();
        let cx = Cx::quiet();
        let begun = Instant::now();
        pace.yield_to_others(&cx, Bucket::Secrets).await.expect("nothing known");
        pace.learn(Bucket::Secrets, &answer("60", "31", "1"));
        pace.yield_to_others(&cx, Bucket::Secrets).await.expect("first half");
        assert!(begun.elapsed() < Duration::from_millis(500));
        pace.learn(Bucket::Secrets, &answer("60", "29", "1"));
        pace.yield_to_others(&cx, Bucket::Secrets).await.expect("second half");
        assert!(begun.elapsed() >= Duration::from_millis(990));
    }
}
