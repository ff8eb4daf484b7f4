//! How fast vaults may be called: the service's quotas, which count for one vault whoever calls
//! it, over connections and over the processes that follow one another.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::SERVICE;
use crate::destination::common::Common;
use crate::http::Pacer;
use crate::model::Memory;

/// Microsoft counts in spans of this length ("Azure Key Vault service limits").
const SPAN: Duration = Duration::from_secs(10);
/// Creations of one vault in a span, of the 300 that it takes. New names and new versions
/// count alike, and so do the certificates and keys that anybody imports there: the rest is
/// left to others.
const CREATIONS: u32 = 250;
/// A subscription takes five times as many as a vault. Which vaults share one cannot be told
/// from here: those of a connection are taken together.
const CREATIONS_OF_ALL: u32 = 5 * CREATIONS;
/// Calls of any kind to one vault: in a second, and at once. At most 1,100 in a span, of the
/// 4,000 that it takes from everybody, the applications that read their secrets included.
const CALLS_PER_SECOND: f64 = 100.0;
const CALLS_AT_ONCE: u32 = 100;

/// How fast one vault may be called, whoever answers for it.
pub(super) struct Pace {
    /// Every call; a throttled one holds back all workers.
    pub calls: Arc<Pacer>,
    /// New versions.
    pub creations: Pacer,
    kept: Mutex<Kept>,
}

/// How much of the span's creations is remembered for the next process.
struct Kept {
    /// Creations since it was.
    since: u32,
    at: Instant,
}

/// Creations are remembered in lots of this many: a process that ends, however it ends, leaves
/// no more than this uncounted.
const LOT: u32 = 25;

impl Pace {
    /// The pace of a vault that nobody has called yet. `unit`: the first pause after a
    /// throttled call without Retry-After, which vaults do not document; Microsoft's guidance
    /// for them is 1, 2, 4, 8, 16 s.
    pub fn new(name: &str, unit: Duration) -> Self {
        let calls = Arc::new(Pacer::new(name, CALLS_PER_SECOND, CALLS_PER_SECOND, CALLS_AT_ONCE).holding(unit));
        let creations = Pacer::new(name, 50.0, 50.0, 50).capped(CREATIONS, SPAN).within(calls.clone());
        Self { calls, creations, kept: Mutex::new(Kept { since: LOT, at: Instant::now() }) }
    }

    /// A creation goes out: the next process must know, if it comes soon.
    pub fn created(&self, memory: &dyn Memory, vault: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.since += 1;
        if kept.since < LOT && kept.at.elapsed() < Duration::from_secs(1) {
            return;
        }
        *kept = Kept { since: 0, at: Instant::now() };
        let now = jiff::Timestamp::now().as_millisecond();
        let sent: Vec<i64> = self.creations.recent().iter().map(|age| now - age.as_millis() as i64).collect();
        memory.put(&remembered_as(vault), serde_json::json!(sent));
    }

    /// Counts what an earlier process created in this span.
    fn resume(&self, memory: &dyn Memory, vault: &str) {
        let sent: Vec<i64> = memory.get(&remembered_as(vault)).and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default();
        let now = jiff::Timestamp::now().as_millisecond();
        let ages: Vec<Duration> = sent.iter().filter_map(|at| u64::try_from(now - at).ok().map(Duration::from_millis)).collect();
        self.creations.resume(&ages);
    }

    /// The pace of one vault, the same for every connection of this process: its quotas count
    /// whoever calls.
    pub fn of(vault: &str, name: &str, unit: Duration, memory: &dyn Memory) -> Arc<Self> {
        static ALL: Common<Pace> = Common::new();
        ALL.of(vault, || {
            let pace = Self::new(name, unit);
            pace.resume(memory, vault);
            pace
        })
    }

    /// What is left of this span's creations, and the pace of all calls.
    pub fn budget(&self) -> String {
        let left = (CREATIONS as usize).saturating_sub(self.creations.recent().len());
        format!("{left} of {CREATIONS} writes left in 10 s, {:.0} calls/s", self.calls.rate())
    }

    /// The creations of all vaults of a connection.
    pub fn of_all(connection: &str) -> Pacer {
        Pacer::new(connection, 250.0, 250.0, CREATIONS).capped(CREATIONS_OF_ALL, SPAN)
    }
}

fn remembered_as(vault: &str) -> String {
    format!("{SERVICE}|creations|{vault}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::http::Cx;

    #[tokio::test(start_paused = true)]
    async fn the_budget_tells_what_is_left_of_the_span() {
        let pace = Pace::new("kv", Duration::from_secs(1));
        assert_eq!(pace.budget(), "250 of 250 writes left in 10 s, 100 calls/s");
        for _ in 0..3 {
            pace.creations.ready(&Cx::quiet()).await.expect("turn");
        }
        assert_eq!(pace.budget(), "247 of 250 writes left in 10 s, 100 calls/s");
        pace.calls.throttled(None);
        tokio::time::advance(SPAN).await;
        assert_eq!(pace.budget(), "250 of 250 writes left in 10 s, 50 calls/s");
    }

    /// When `n` turns of twelve workers came, in seconds since the beginning.
    async fn turns(n: usize, creates: bool) -> Vec<f64> {
        let pace = Pace::new("kv", Duration::from_secs(1));
        let (begun, left, times) = (Instant::now(), std::cell::Cell::new(n), std::cell::RefCell::new(Vec::new()));
        let workers = (0..12).map(|_| async {
            while left.get() > 0 {
                left.set(left.get() - 1);
                let pacer = if creates { &pace.creations } else { &*pace.calls };
                pacer.ready(&Cx::quiet()).await.expect("turn");
                times.borrow_mut().push(begun.elapsed().as_secs_f64());
            }
        });
        futures::future::join_all(workers).await;
        times.into_inner()
    }

    fn most_in_a_span(times: &[f64]) -> usize {
        times.iter().map(|from| times.iter().filter(|t| (*from..from + 9.999).contains(*t)).count()).max().unwrap_or(0)
    }

    #[tokio::test(start_paused = true)]
    async fn the_quotas_of_a_vault_hold_in_any_ten_seconds() {
        let creations = turns(1000, true).await;
        assert_eq!(most_in_a_span(&creations), 250, "of 300");
        let (few, all) = (creations[39], creations[999]);
        assert!(few < 0.1 && (30.0..36.0).contains(&all), "few at once, and many as fast as the quota lets them: {few} {all}");
        let calls = turns(5000, false).await;
        assert!(most_in_a_span(&calls) <= 1_100, "of 4,000: {}", most_in_a_span(&calls));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_follows_soon_goes_on_counting() {
        #[derive(Default)]
        struct Notes(Mutex<BTreeMap<String, serde_json::Value>>);
        impl Memory for Notes {
            fn get(&self, key: &str) -> Option<serde_json::Value> {
                self.0.lock().expect("lock").get(key).cloned()
            }
            fn put(&self, key: &str, value: serde_json::Value) {
                self.0.lock().expect("lock").insert(key.into(), value);
            }
        }
        let notes = Notes::default();
        let (first, second) = (Pace::new("kv", Duration::from_secs(1)), Pace::new("kv", Duration::from_secs(1)));
        for _ in 0..210 {
            first.creations.ready(&Cx::quiet()).await.expect("turn");
            first.created(&notes, "v");
        }
        second.resume(&notes, "v");
        let counted = second.creations.recent().len();
        assert!((210 - LOT as usize..=210).contains(&counted), "{counted}");
        let other = Pace::new("kv", Duration::from_secs(1));
        other.resume(&notes, "another vault");
        assert!(other.creations.recent().is_empty());
    }

    #[test]
    fn a_vault_has_one_pace_whoever_calls() {
        use crate::model::Forgetful;
        let unit = Duration::from_secs(1);
        let one = Pace::of("https://unit-one.vault.test", "one", unit, &Forgetful);
        assert!(Arc::ptr_eq(&one, &Pace::of("https://unit-one.vault.test", "one", unit, &Forgetful)));
        assert!(!Arc::ptr_eq(&one, &Pace::of("https://unit-two.vault.test", "two", unit, &Forgetful)));
        drop(one);
        assert_eq!(Pace::of("https://unit-one.vault.test", "one", unit, &Forgetful).calls.rate(), CALLS_PER_SECOND);
    }
}
