//! Pacing: how fast one connection may call one quota group of its provider.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
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
    state: Mutex<State>,
    calm: AtomicU32,
}

struct State {
    limiter: std::sync::Arc<DefaultDirectRateLimiter>,
    /// Requests per second now.
    rate: f64,
    floor: f64,
    ceiling: f64,
    burst: u32,
    hold: Option<(Instant, String)>,
    /// Held this long (doubling, five times at most) when the provider throttles without
    /// saying for how long.
    unasked: Option<Duration>,
    /// Throttled holds in a row.
    streak: u32,
    /// When the rate was last halved.
    halved: Option<Instant>,
}

impl Pacer {
    /// `name` is shown while waiting. `rate` and `ceiling` in requests per second, `burst` in requests.
    pub fn new(name: impl Into<String>, rate: f64, ceiling: f64, burst: u32) -> Self {
        let burst = burst.max(1);
        Self {
            name: name.into(),
            state: Mutex::new(State {
                limiter: limiter(rate, burst),
                rate,
                floor: (rate / 50.0).max(0.02),
                ceiling: ceiling.max(rate),
                burst,
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

    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Waits for this request's turn. Waits over a fifth of a second are shown.
    pub async fn ready(&self, cx: &Cx) -> Result<(), ApiError> {
        loop {
            let hold = self.with(|s| s.hold.clone().filter(|(until, _)| *until > Instant::now()));
            if let Some((until, reason)) = hold {
                cx.wait(&reason, until - Instant::now()).await?;
                continue;
            }
            let limiter = self.with(|s| s.limiter.clone());
            let Err(not_until) = limiter.check() else { return Ok(()) };
            let wait = not_until.wait_time_from(governor::clock::Clock::now(&governor::clock::DefaultClock::default()));
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
        if let Some(hold) = hold.or(unasked) {
            self.hold(hold, &format!("{} asked to wait", self.name));
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
        self.with(|s| s.streak = 0);
        if self.calm.fetch_add(1, Ordering::Relaxed) + 1 < CALM {
            return;
        }
        self.calm.store(0, Ordering::Relaxed);
        self.with(|s| {
            if s.rate < s.ceiling {
                s.rate = (s.rate * 1.1).min(s.ceiling);
                s.limiter = limiter(s.rate, s.burst);
            }
        });
    }

    /// Requests per second allowed now.
    pub fn rate(&self) -> f64 {
        self.with(|s| s.rate)
    }
}

fn limiter(rate: f64, burst: u32) -> std::sync::Arc<DefaultDirectRateLimiter> {
    let period = Duration::from_secs_f64(1.0 / rate.clamp(0.001, 1_000_000.0));
    // `with_period` refuses only a zero period, and the clamp above keeps it at a microsecond or more.
    let quota = Quota::with_period(period).unwrap_or_else(|| Quota::per_second(std::num::NonZeroU32::MIN));
    let burst = std::num::NonZeroU32::new(burst).unwrap_or(std::num::NonZeroU32::MIN);
    std::sync::Arc::new(RateLimiter::direct(quota.allow_burst(burst)))
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
