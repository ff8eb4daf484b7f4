//! Pacing: how fast one connection may call one quota group of its provider.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use super::{ApiError, Cx};

/// After this many clean answers in a row the rate grows by a tenth.
const CALM: u32 = 20;
/// Refusals within this time halve the rate once.
const ONE_SIGNAL: Duration = Duration::from_secs(1);

/// A rate limiter that slows down when the provider throttles and recovers slowly, with a
/// hold during which nothing is sent at all. Shared by every sync of a connection.
pub struct Pacer {
    name: String,
    /// A wider quota that every request counts against, too.
    within: Option<Arc<Pacer>>,
    state: Mutex<State>,
    calm: AtomicU32,
}

struct State {
    /// Requests per second now.
    rate: f64,
    floor: f64,
    ceiling: f64,
    burst: u32,
    limiter: Limiter,
    window: Option<Window>,
    hold: Option<(Instant, String)>,
    /// Held this long (doubling, five times at most) when the provider throttles without
    /// saying for how long.
    unasked: Option<Duration>,
    /// Throttled holds in a row.
    streak: u32,
    /// When the rate was last halved.
    halved: Option<Instant>,
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>;

/// The runtime's clock: the same that the waits go by.
#[derive(Clone)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

/// A full bucket of `burst` requests that refills at `rate` a second.
fn limiter(rate: f64, burst: u32) -> Limiter {
    let step = Duration::from_secs_f64(1.0 / rate.clamp(0.001, 1_000_000.0));
    // A step of at least a microsecond is none that the quota refuses.
    let quota = Quota::with_period(step).unwrap_or(Quota::per_second(NonZeroU32::MIN));
    RateLimiter::direct_with_clock(quota.allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN)), TokioClock(Instant::now()))
}

/// An empty one: that a rate grows is no reason for a burst.
fn drained(rate: f64, burst: u32) -> Limiter {
    let limiter = limiter(rate, burst);
    for _ in 0..burst {
        let _ = limiter.check();
    }
    limiter
}

/// A hard limit on the requests of any span of time.
struct Window {
    limit: usize,
    span: Duration,
    sent: VecDeque<Instant>,
}

impl Pacer {
    /// `name` is shown while waiting. `rate` and `ceiling` in requests per second, `burst` in requests.
    pub fn new(name: impl Into<String>, rate: f64, ceiling: f64, burst: u32) -> Self {
        let burst = burst.max(1);
        Self {
            name: name.into(),
            within: None,
            state: Mutex::new(State {
                rate,
                floor: (rate / 50.0).max(0.02),
                ceiling: ceiling.max(rate),
                burst,
                limiter: limiter(rate, burst),
                window: None,
                hold: None,
                unasked: None,
                streak: 0,
                halved: None,
            }),
            calm: AtomicU32::new(0),
        }
    }

    /// For providers that throttle without Retry-After: everyone waits `base`, then twice as
    /// long, up to sixteen times.
    pub fn holding(self, base: Duration) -> Self {
        self.with(|s| s.unasked = Some(base));
        self
    }

    /// For providers that count requests in spans of time: whatever rate and burst are, no span
    /// of this length sees more than `limit`.
    pub fn capped(self, limit: u32, span: Duration) -> Self {
        self.with(|s| s.window = Some(Window { limit: limit.max(1) as usize, span, sent: VecDeque::new() }));
        self
    }

    /// What this pacer lets through counts against `wider`, too, and throttling slows both.
    pub fn within(mut self, wider: Arc<Pacer>) -> Self {
        self.within = Some(wider);
        self
    }

    /// How long ago each request of the present span of a cap was let through, for the next
    /// process.
    pub fn recent(&self) -> Vec<Duration> {
        let now = Instant::now();
        let ages = |w: &Window| w.sent.iter().map(|at| now.duration_since(*at)).filter(|age| *age < w.span).collect();
        self.with(|s| s.window.as_ref().map(ages).unwrap_or_default())
    }

    /// Counts requests that an earlier process let through, as [`Self::recent`] told of it.
    pub fn resume(&self, ages: &[Duration]) {
        let now = Instant::now();
        self.with(|s| {
            let Some(window) = &mut s.window else { return };
            let mut sent: Vec<Instant> = ages.iter().filter(|age| **age < window.span).filter_map(|age| now.checked_sub(*age)).collect();
            sent.extend(window.sent.drain(..));
            sent.sort_unstable();
            window.sent = sent.into();
        });
    }

    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Waits for this request's turn. Waits over a fifth of a second are shown.
    pub async fn ready(&self, cx: &Cx) -> Result<(), ApiError> {
        if let Some(wider) = &self.within {
            Box::pin(wider.ready(cx)).await?;
        }
        loop {
            let hold = self.with(|s| s.hold.clone().filter(|(until, _)| *until > Instant::now()));
            if let Some((until, reason)) = hold {
                cx.wait(&reason, until - Instant::now()).await?;
                continue;
            }
            let Some(wait) = self.with(|s| s.take(Instant::now())) else { return Ok(()) };
            if wait > Duration::from_millis(200) {
                cx.wait(&format!("{} pacing", self.name), wait).await?;
            } else {
                cx.check(&self.name)?;
                tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
            }
        }
    }

    /// The provider throttled: half the rate, and nothing at all for `hold`.
    pub fn throttled(&self, hold: Option<Duration>) {
        if let Some(wider) = &self.within {
            wider.throttled(hold);
        }
        self.calm.store(0, Ordering::Relaxed);
        let unasked = self.with(|s| {
            // Requests that were in flight together are refused together: one signal, not many.
            if s.halved.is_none_or(|at| at.elapsed() >= ONE_SIGNAL) {
                s.halved = Some(Instant::now());
                s.rate = (s.rate / 2.0).max(s.floor);
                s.limiter = limiter(s.rate, 1);
            }
            if s.hold.as_ref().is_some_and(|(until, _)| *until > Instant::now()) {
                return None;
            }
            let pause = s.unasked? * 2u32.pow(s.streak.min(4));
            s.streak += 1;
            Some(pause)
        });
        if let Some(wait) = hold.or(unasked) {
            self.hold(wait, &super::asked(&format!("{} asked to wait", self.name), hold));
        }
    }

    /// Sends nothing for `duration`; the reason is shown to whoever waits.
    pub fn hold(&self, duration: Duration, reason: &str) {
        let until = Instant::now() + duration;
        self.with(|s| {
            if s.hold.as_ref().is_none_or(|(old, _)| *old < until) {
                s.hold = Some((until, reason.to_string()));
            }
        });
    }

    /// A clean answer: the rate grows again, slowly.
    pub fn calm(&self) {
        if let Some(wider) = &self.within {
            wider.calm();
        }
        self.with(|s| s.streak = 0);
        if self.calm.fetch_add(1, Ordering::Relaxed) + 1 < CALM {
            return;
        }
        self.calm.store(0, Ordering::Relaxed);
        self.with(|s| {
            if s.rate < s.ceiling {
                s.rate = (s.rate * 1.1).min(s.ceiling);
                s.limiter = drained(s.rate, s.burst);
            }
        });
    }

    /// Requests per second allowed now.
    pub fn rate(&self) -> f64 {
        self.with(|s| s.rate)
    }
}

impl State {
    /// Takes a turn at `now`, or tells how long to wait before asking again.
    fn take(&mut self, now: Instant) -> Option<Duration> {
        let crowded = self.window.as_mut().map_or(Duration::ZERO, |w| w.wait(now));
        if !crowded.is_zero() {
            return Some(crowded);
        }
        if let Err(not_until) = self.limiter.check() {
            return Some(not_until.wait_time_from(self.limiter.clock().now()));
        }
        if let Some(window) = &mut self.window {
            window.sent.push_back(now);
        }
        None
    }
}

impl Window {
    fn wait(&mut self, now: Instant) -> Duration {
        while self.sent.front().is_some_and(|at| now.duration_since(*at) >= self.span) {
            self.sent.pop_front();
        }
        match self.sent.len().checked_sub(self.limit).and_then(|over| self.sent.get(over)) {
            Some(at) => (*at + self.span).saturating_duration_since(now),
            None => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn throttling_halves_and_calm_restores() {
        let pacer = Pacer::new("test", 100.0, 100.0, 10);
        for _ in 0..8 {
            pacer.throttled(None);
        }
        assert_eq!(pacer.rate(), 50.0, "eight refusals of one moment are one signal");
        for _ in 0..CALM {
            pacer.calm();
        }
        assert!(pacer.rate() > 54.0 && pacer.rate() < 56.0);
    }

    #[tokio::test]
    async fn unasked_holds_double_and_count_once_per_hold() {
        let pacer = Pacer::new("test", 1000.0, 1000.0, 10).holding(Duration::from_millis(40));
        let waited = |pacer: &Pacer| pacer.with(|s| s.hold.as_ref().map(|(until, _)| *until - Instant::now())).expect("held");
        (0..12).for_each(|_| pacer.throttled(None));
        assert!(waited(&pacer) <= Duration::from_millis(40));
        pacer.ready(&Cx::quiet()).await.expect("turn");
        pacer.throttled(None);
        let second = waited(&pacer);
        assert!(second > Duration::from_millis(60) && second <= Duration::from_millis(80), "{second:?}");
        pacer.throttled(Some(Duration::from_secs(7)));
        assert!(waited(&pacer) > Duration::from_secs(6), "what the provider asks for goes first");
    }

    /// When `n` requests of twelve workers went out, in seconds since the beginning.
    async fn sent(pacer: Arc<Pacer>, n: usize) -> Vec<f64> {
        let (begun, left, times) = (Instant::now(), Arc::new(AtomicU32::new(n as u32)), Arc::new(Mutex::new(Vec::new())));
        let workers = (0..12).map(|_| {
            let (pacer, left, times) = (pacer.clone(), left.clone(), times.clone());
            async move {
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                    pacer.ready(&Cx::quiet()).await.expect("turn");
                    times.lock().expect("lock").push(begun.elapsed().as_secs_f64());
                }
            }
        });
        futures::future::join_all(workers).await;
        let mut times = times.lock().expect("lock").clone();
        times.sort_by(f64::total_cmp);
        times
    }

    /// The most requests in any span of this many seconds.
    fn most(times: &[f64], span: f64) -> usize {
        (0..times.len()).map(|i| times[i..].iter().take_while(|t| **t < times[i] + span).count()).max().unwrap_or(0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_lets_its_burst_through_and_then_its_rate() {
        let times = sent(Arc::new(Pacer::new("test", 25.0, 25.0, 40)), 290).await;
        assert_eq!(times.iter().filter(|t| **t == 0.0).count(), 40);
        let end = times[times.len() - 1];
        assert!((10.0..10.5).contains(&end), "250 more at 25 a second: {end}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cap_holds_in_any_span_of_time() {
        let pacer = Arc::new(Pacer::new("test", 1000.0, 1000.0, 500).capped(250, Duration::from_secs(10)));
        let times = sent(pacer, 1000).await;
        assert_eq!(most(&times, 10.0), 250);
        assert!((30.0..30.2).contains(&times[999]), "four spans: {}", times[999]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cap_holds_over_a_restart() {
        let pacer = || Arc::new(Pacer::new("test", 1000.0, 1000.0, 500).capped(250, Duration::from_secs(10)));
        let first = pacer();
        sent(first.clone(), 200).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        let second = pacer();
        second.resume(&first.recent());
        let times = sent(second, 100).await;
        assert!(times[49] < 1.0 && times[50] >= 5.0, "fifty are left of the span: {} {}", times[49], times[50]);
        let late = pacer();
        late.resume(&[Duration::from_secs(10), Duration::from_secs(86_400)]);
        assert!(late.recent().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_that_grows_again_brings_no_burst() {
        let pacer = Arc::new(Pacer::new("test", 100.0, 100.0, 50));
        pacer.throttled(None);
        for _ in 0..CALM * 10 {
            pacer.calm();
        }
        assert_eq!(pacer.rate(), 100.0);
        let times = sent(pacer, 200).await;
        assert!(most(&times, 1.0) <= 102, "{}", most(&times, 1.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_narrow_quota_counts_against_the_wider_one() {
        let wider = Arc::new(Pacer::new("all", 100.0, 100.0, 10));
        let narrow = Arc::new(Pacer::new("some", 1000.0, 1000.0, 100).within(wider.clone()));
        let times = sent(narrow.clone(), 100).await;
        assert!((0.9..1.0).contains(&times[99]), "{}", times[99]);
        narrow.throttled(Some(Duration::from_secs(3)));
        assert_eq!(wider.rate(), 50.0);
        let begun = Instant::now();
        wider.ready(&Cx::quiet()).await.expect("turn");
        assert!(begun.elapsed() >= Duration::from_secs(3), "throttling holds both");
    }

    #[tokio::test]
    async fn a_hold_ends_and_cancel_cuts_it_short() {
        let pacer = Pacer::new("test", 1000.0, 1000.0, 10);
        pacer.hold(Duration::from_millis(30), "held");
        let begun = Instant::now();
        pacer.ready(&Cx::quiet()).await.expect("turn");
        assert!(begun.elapsed() >= Duration::from_millis(30));
        pacer.hold(Duration::from_secs(60), "held");
        let cx = Cx::quiet();
        cx.cancel_token().cancel();
        assert!(pacer.ready(&cx).await.is_err());
    }
}
