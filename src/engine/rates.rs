//! How busy the providers are kept: requests per second, told while something runs; and the
//! second hand of what else is told meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::waits::Teller;
use super::{Engine, blocking};
use crate::model::run::Requests;
use crate::store::StoreError;

/// Pause between two tellings.
const TICK: Duration = Duration::from_secs(1);
/// Ticks that a rate is the average of.
const WINDOW: usize = 3;

/// Ticks between two notes that this process still carries out its runs.
const SEEN: u64 = 5;

/// Requests by provider.
pub(super) type Totals = BTreeMap<String, u64>;

/// Adds the requests of a run.
pub(super) fn add(totals: &mut Totals, requests: &Requests) {
    for (service, calls) in &requests.by_call {
        *totals.entry(service.clone()).or_default() += calls.values().sum::<u64>();
    }
}

/// The average over the last ticks; what stood still is left out.
#[derive(Default)]
struct Window(VecDeque<Totals>);

impl Window {
    fn push(&mut self, totals: Totals) -> BTreeMap<String, f64> {
        if self.0.len() > WINDOW {
            self.0.pop_front();
        }
        self.0.push_back(totals);
        let (Some(first), Some(last)) = (self.0.front(), self.0.back()) else { return BTreeMap::new() };
        let seconds = (self.0.len() - 1).max(1) as f64 * TICK.as_secs_f64();
        let risen = |service: &str, n: u64| n.saturating_sub(first.get(service).copied().unwrap_or_default());
        last.iter().map(|(s, n)| (s.clone(), risen(s, *n) as f64 / seconds)).filter(|(_, rate)| *rate > 0.0).collect()
    }
}

/// Publishes rates, budgets and waits once a second until nothing runs or is queued any more.
pub(super) async fn tell(engine: Engine) {
    let mut window = Window::default();
    let (mut teller, mut ticks) = (Teller::default(), 0);
    // Only what is sent from now on counts.
    window.push(engine.sent());
    loop {
        tokio::time::sleep(TICK).await;
        let budgets: BTreeMap<String, String> = engine.pool().budgets().into_iter().collect();
        let rates = window.push(engine.sent());
        let over = engine.stop_telling_when_idle();
        (teller, ticks) = noted(&engine, teller, ticks).await;
        engine.hub().facts(|f| {
            f.rates = if over { BTreeMap::new() } else { rates };
            f.budgets = budgets;
        });
        if over {
            return;
        }
    }
}

/// What goes to the state database, off the async threads.
async fn noted(engine: &Engine, mut teller: Teller, ticks: u64) -> (Teller, u64) {
    let engine = engine.clone();
    let work = blocking(move || {
        teller.tick(&engine);
        if ticks.is_multiple_of(SEEN) {
            engine.store().note_seen();
        }
        Ok::<_, StoreError>(teller)
    });
    // Only a defect ends it without an answer.
    (work.await.unwrap_or_default(), ticks + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_rose_over_the_window() {
        let mut window = Window::default();
        let totals = |n: u64| Totals::from([("aws".to_string(), n), ("kms".to_string(), 1)]);
        window.push(totals(10));
        assert_eq!(window.push(totals(20)), BTreeMap::from([("aws".to_string(), 10.0)]));
        window.push(totals(40));
        assert_eq!(window.push(totals(40))["aws"], 10.0);
        assert_eq!(window.push(totals(40))["aws"], 20.0 / 3.0);
        window.push(totals(40));
        assert_eq!(window.push(totals(40)), BTreeMap::new());
    }
}
