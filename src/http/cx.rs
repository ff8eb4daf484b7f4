//! The context of one run (or one question of a screen): cancellation, counting, the
//! redactor, the retry budget, and the place where waits become visible.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use unpoisoned::Lock;

use super::seat::{Busy, Seat};
use super::{ApiError, Redactor};
use crate::model::SecretValue;
use crate::model::board::Waiting;
use crate::model::run::Requests;

/// Retries one run may spend in all, whatever its size.
const RETRY_BUDGET: i64 = 500;

/// A wait that ends within this time is not worth showing.
const SOON: Duration = Duration::from_millis(250);
/// What a run waits for whose own wait is over while others are at work.
const FOR_A_SEAT: &str = "its wait is over; other runs are at work (maxRuns)";

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
    /// The waits under way, in the order they began: what is shown is one of them, and the
    /// overlay goes only when the last one ends.
    waiting: Lock<BTreeMap<u64, Waiting>>,
    seat: Seat,
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
                waiting: Lock::default(),
                seat: Seat::default(),
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

    /// A server's text with every known secret masked ([`Redactor::redact`]). Where it repeats a
    /// short value that was sent, all of it is left out.
    pub fn redact(&self, text: &str) -> String {
        self.inner.redactor.redact_answer(text, &self.sent)
    }

    /// A sentence of ours, whose server's part went through [`Self::redact`] before.
    pub fn redact_told(&self, text: &str) -> String {
        self.inner.redactor.redact_told(text)
    }

    /// Takes one retry from the run's budget; false when it is spent.
    pub fn spend_retry(&self) -> bool {
        self.inner.retries_left.fetch_sub(1, Ordering::Relaxed) > 0
    }

    /// The run's seat among those that may be at work at once.
    pub fn seat(&self) -> &Seat {
        &self.inner.seat
    }

    /// The right to send one request, until the answer is dropped: a run that has given its seat
    /// up while it waited takes one again first.
    pub async fn enter(&self, service: &str) -> Result<Busy<'_>, ApiError> {
        loop {
            if let Some(busy) = self.inner.seat.try_enter() {
                return Ok(busy);
            }
            self.seated(service).await?;
        }
    }

    /// Waits, visibly, until the run has its seat.
    async fn seated(&self, service: &str) -> Result<(), ApiError> {
        if self.inner.seat.taken() {
            return self.check(service);
        }
        // Where a seat is free it is given at once: that is no wait to speak of.
        self.wait_for(service, FOR_A_SEAT, self.inner.seat.offered()).await
    }

    /// Waits for something other than time: cancellably, and visibly when it takes more than a moment.
    pub async fn wait_for<T>(&self, service: &str, reason: &str, what: impl Future<Output = T>) -> Result<T, ApiError> {
        self.check(service)?;
        tokio::pin!(what);
        tokio::select! {
            () = self.inner.cancel.cancelled() => return Err(ApiError::cancelled(service)),
            done = &mut what => return Ok(done),
            () = tokio::time::sleep(SOON) => {}
        }
        let _shown = self.waiting(reason, None);
        tokio::select! {
            () = self.inner.cancel.cancelled() => Err(ApiError::cancelled(service)),
            done = what => Ok(done),
        }
    }

    /// The end of the first of the waits under way; `None` when there is no wait,
    /// `Some(None)` when none of them knows its end.
    pub fn next_wake(&self) -> Option<Option<jiff::Timestamp>> {
        self.inner.waiting.with(|w| (!w.is_empty()).then(|| w.values().filter_map(|w| w.until).min()))
    }

    /// The wait under way that says most: the one that lasts longest, of several the first.
    pub fn longest_wait(&self) -> Option<Waiting> {
        self.inner.waiting.with(|w| w.values().rev().max_by_key(|w| (w.reason != FOR_A_SEAT, w.until)).cloned())
    }

    /// Shows a wait for something other than time, until the answer is dropped.
    pub fn waiting(&self, reason: &str, until: Option<jiff::Timestamp>) -> impl Drop + use<> {
        Shown::new(self, Waiting { reason: reason.to_string(), until })
    }

    /// Waits before a call is made again, or its effect is looked for: as long as the service asks
    /// for (`told`), else by [`super::backoff`].
    pub async fn wait_to_retry(&self, reason: &str, told: Option<Duration>, attempt: u32) -> Result<(), ApiError> {
        self.wait(&super::asked(reason, told), told.unwrap_or_else(|| super::backoff(attempt))).await
    }

    /// Waits, visibly and cancellably.
    pub async fn wait(&self, reason: &str, duration: Duration) -> Result<(), ApiError> {
        if duration.is_zero() {
            return self.check("kms-sync");
        }
        let until = jiff::Timestamp::now().checked_add(jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::from_hours(24))).ok();
        let _shown = Shown::new(self, Waiting { reason: reason.to_string(), until });
        {
            let _counted = self.inner.meter.wait_begins();
            tokio::select! {
                () = self.inner.cancel.cancelled() => return Err(ApiError::cancelled("kms-sync")),
                () = tokio::time::sleep(duration) => {}
            }
        }
        self.seated("kms-sync").await
    }
}

/// Keeps the overlay up while it lives.
struct Shown(Cx, u64);

impl Shown {
    fn new(cx: &Cx, waiting: Waiting) -> Self {
        let id = cx.inner.waiting.with(|w| {
            let id = w.last_key_value().map_or(0, |(id, _)| id + 1);
            w.insert(id, waiting.clone());
            id
        });
        (cx.inner.waits)(Some(waiting));
        Self(cx.clone(), id)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        // Where the wait that was shown is over, one that still lasts is shown.
        let shown = self.0.inner.waiting.with(|w| {
            let last = w.last_key_value().map(|(id, _)| *id);
            w.remove(&self.1);
            (last == Some(self.1)).then(|| w.last_key_value().map(|(_, w)| w.clone()))
        });
        if let Some(left) = shown {
            (self.0.inner.waits)(left);
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
    use super::super::redact::WITHHELD;
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
