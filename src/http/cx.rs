//! The context of one run (or one question of a screen): cancellation, counting, the
//! redactor, the retry budget, and the place where waits become visible.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use unpoisoned::Lock;

use super::redact::repeats;
use super::{ApiError, Redactor};
use crate::model::SecretValue;
use crate::model::board::Waiting;
use crate::model::run::Requests;

/// Retries one run may spend in all, whatever its size.
const RETRY_BUDGET: i64 = 500;

/// Stands for a server's text that repeats a value too short to be masked in it.
const WITHHELD: &str = "(what it said is not shown, for it repeats the value)";

/// Told when a wait begins (`Some`) and ends (`None`).
pub type WaitSink = Arc<dyn Fn(Option<Waiting>) + Send + Sync>;

/// Shared by everything that works for one run. Cheap to clone.
#[derive(Clone)]
pub struct Cx {
    inner: Arc<Inner>,
    /// Short values that the call under way carries.
    sent: Arc<[SecretValue]>,
}

struct Inner {
    cancel: CancellationToken,
    meter: Meter,
    redactor: Redactor,
    waits: WaitSink,
    /// How many waits are under way: the overlay goes only when the last one ends.
    waiting: AtomicI64,
    retries_left: AtomicI64,
}

impl Cx {
    /// A context whose waits are reported to `waits`.
    pub fn new(cancel: CancellationToken, waits: WaitSink) -> Self {
        Self {
            inner: Arc::new(Inner {
                cancel,
                meter: Meter::default(),
                redactor: Redactor::default(),
                waits,
                waiting: AtomicI64::new(0),
                retries_left: AtomicI64::new(RETRY_BUDGET),
            }),
            sent: Arc::default(),
        }
    }

    /// The same context for a call that carries these values: the answer may repeat them, and
    /// those too short to be masked wherever they occur by chance are known here.
    pub fn sending<'v>(&self, values: impl IntoIterator<Item = &'v SecretValue>) -> Self {
        let short = values.into_iter().filter(|v| v.expose().trim().len() < super::redact::SHORTEST);
        Self { inner: self.inner.clone(), sent: short.cloned().collect() }
    }

    /// A context for a single question: nobody watches its waits.
    pub fn quiet() -> Self {
        Self::new(CancellationToken::new(), Arc::new(|_| {}))
    }

    /// The token that ends waits and stops new work.
    pub fn cancel_token(&self) -> &CancellationToken {
        &self.inner.cancel
    }

    /// True once the run was cancelled.
    pub fn cancelled(&self) -> bool {
        self.inner.cancel.is_cancelled()
    }

    /// An error once the run was cancelled.
    pub fn check(&self, service: &str) -> Result<(), ApiError> {
        if self.cancelled() { Err(ApiError::cancelled(service)) } else { Ok(()) }
    }

    /// The request counters.
    pub fn meter(&self) -> &Meter {
        &self.inner.meter
    }

    /// Texts that must never be shown.
    pub fn redactor(&self) -> &Redactor {
        &self.inner.redactor
    }

    /// A server's text with every known secret masked. Where it repeats a short value that was
    /// sent, all of it is left out: a word masked in a sentence is easily guessed.
    pub fn redact(&self, text: &str) -> String {
        if self.sent.iter().any(|value| repeats(text, value)) {
            return WITHHELD.into();
        }
        self.inner.redactor.redact(text)
    }

    /// A sentence of ours, whose server's part went through [`Self::redact`] before.
    pub fn redact_told(&self, text: &str) -> String {
        self.inner.redactor.redact_told(text)
    }

    /// Takes one retry from the run's budget; false when it is spent.
    pub fn spend_retry(&self) -> bool {
        self.inner.retries_left.fetch_sub(1, Ordering::Relaxed) > 0
    }

    /// Shows a wait for something other than time, until the answer is dropped.
    pub fn waiting(&self, reason: &str, until: Option<jiff::Timestamp>) -> impl Drop + use<> {
        Shown::new(self, Waiting { reason: reason.to_string(), until })
    }

    /// Waits, visibly and cancellably.
    pub async fn wait(&self, reason: &str, duration: Duration) -> Result<(), ApiError> {
        if duration.is_zero() {
            return self.check("kms-sync");
        }
        let until = jiff::Timestamp::now().checked_add(jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::from_hours(24))).ok();
        let _shown = Shown::new(self, Waiting { reason: reason.to_string(), until });
        let _counted = self.inner.meter.wait_begins();
        tokio::select! {
            () = self.inner.cancel.cancelled() => Err(ApiError::cancelled("kms-sync")),
            () = tokio::time::sleep(duration) => Ok(()),
        }
    }
}

/// Keeps the overlay up while it lives.
struct Shown(Cx);

impl Shown {
    fn new(cx: &Cx, waiting: Waiting) -> Self {
        cx.inner.waiting.fetch_add(1, Ordering::Relaxed);
        (cx.inner.waits)(Some(waiting));
        Self(cx.clone())
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if self.0.inner.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            (self.0.inner.waits)(None);
        }
    }
}

/// Counts requests by service and call.
#[derive(Default)]
pub struct Meter {
    requests: Lock<Requests>,
    total: AtomicU64,
    skew: Lock<Option<i64>>,
    waits: Lock<Waits>,
}

/// Waits under way, and since when there is one.
#[derive(Default)]
struct Waits {
    count: usize,
    since: Option<tokio::time::Instant>,
}

/// One wait under way; it ends when this is dropped.
struct Wait<'m>(&'m Meter);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let ended = self.0.waits.with(|w| {
            w.count -= 1;
            if w.count == 0 { w.since.take() } else { None }
        });
        if let Some(since) = ended {
            self.0.requests.with(|r| r.waited_ms += since.elapsed().as_millis() as u64);
        }
    }
}

impl Meter {
    /// One request goes out.
    pub fn request(&self, service: &str, call: &str, bytes: u64, retry: bool) {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.requests.with(|r| {
            r.total += 1;
            r.bytes_sent += bytes;
            r.retries += u64::from(retry);
            match r.by_call.get_mut(service) {
                Some(calls) => match calls.get_mut(call) {
                    Some(n) => *n += 1,
                    None => {
                        calls.insert(call.to_string(), 1);
                    }
                },
                None => {
                    r.by_call.entry(service.to_string()).or_default().insert(call.to_string(), 1);
                }
            }
        });
    }

    /// Bytes of a response body.
    pub fn received(&self, bytes: u64) {
        self.requests.with(|r| r.bytes_received += bytes);
    }

    /// An answer's date, against this machine's clock: seconds ahead (+) of the server's.
    pub fn clock(&self, skew: i64) {
        self.skew.with(|s| *s = Some(skew));
    }

    /// How far this machine's clock is ahead (+) of the last server that told its own, in seconds.
    pub fn skew(&self) -> Option<i64> {
        self.skew.with(|s| *s)
    }

    /// Counts the time until the answer is dropped as waiting. Waits at the same time are one:
    /// what is told is by how much they made the run longer.
    fn wait_begins(&self) -> Wait<'_> {
        self.waits.with(|w| {
            w.count += 1;
            w.since.get_or_insert_with(tokio::time::Instant::now);
        });
        Wait(self)
    }

    /// Requests so far.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// A copy of the counters, with the wait that is under way.
    pub fn snapshot(&self) -> Requests {
        let mut requests = self.requests.with(|r| r.clone());
        let under_way = self.waits.with(|w| w.since.map_or(0, |since| since.elapsed().as_millis() as u64));
        requests.waited_ms += under_way;
        requests
    }
}

/// A mutex that cannot poison its readers: the closures above never panic half-way through
/// a change that matters, so the data is used even after a panic elsewhere.
mod unpoisoned {
    #[derive(Default)]
    pub struct Lock<T>(std::sync::Mutex<T>);

    impl<T> Lock<T> {
        pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
            f(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_a_short_value_is_not_shown() {
        let cx = Cx::quiet();
        let values = ["7", "longer than that", "on"].map(SecretValue::new);
        let sending = cx.sending(&values);
        assert_eq!(sending.redact("\"on\" is no number"), WITHHELD);
        assert_eq!(sending.redact("one of 70 is no number"), "one of 70 is no number");
        assert_eq!(cx.redact("\"on\" is no number"), "\"on\" is no number", "another call says what it says");
    }

    #[tokio::test(start_paused = true)]
    async fn waits_at_the_same_time_count_once() {
        let cx = Cx::quiet();
        let waits = (1..=30).map(|n| cx.wait("settling", Duration::from_secs(n)));
        futures::future::join_all(waits).await;
        assert_eq!(cx.meter().snapshot().waited_ms, 30_000);
        cx.wait("pacing", Duration::from_secs(5)).await.expect("not cancelled");
        assert_eq!(cx.meter().snapshot().waited_ms, 35_000);
        // One that is given up counts as far as it went, and one under way as far as it is.
        let mut slow = Box::pin(cx.wait("settling", Duration::from_secs(60)));
        assert!(tokio::time::timeout(Duration::from_secs(10), &mut slow).await.is_err());
        assert_eq!(cx.meter().snapshot().waited_ms, 45_000);
        drop(slow);
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!(cx.meter().snapshot().waited_ms, 45_000);
    }
}
