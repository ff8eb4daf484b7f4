//! How busy the providers are kept: requests per second of runs, polls, drift checks and plans,
//! told while there are any; and the second hand of what else is told while runs go.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::queue::Queue;
use super::waits::Teller;
use super::{Engine, blocking};
use crate::http::Cx;
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

/// A question whose requests count among the rates, until this is dropped.
pub struct Counted {
    engine: Engine,
    id: u64,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut queue = self.engine.queue();
        if let Some(cx) = queue.asking.remove(&self.id) {
            add(&mut queue.sent, &cx.meter().snapshot());
        }
    }
}

impl Engine {
    /// Counts the requests of something that is no run among the rates, until the answer is dropped.
    pub fn counted(&self, cx: &Cx) -> Counted {
        let mut queue = self.queue();
        let id = queue.ticket();
        queue.asking.insert(id, cx.clone());
        self.begin_telling(&mut queue);
        Counted { engine: self.clone(), id }
    }

    /// Has the rates told, unless they are.
    pub(super) fn begin_telling(&self, queue: &mut Queue) {
        if !std::mem::replace(&mut queue.telling, true) {
            tokio::spawn(tell(self.clone(), queue.sent_so_far()));
        }
    }
}

/// Publishes rates, budgets and waits once a second until nothing is sent, runs or is queued any
/// more. What had been sent `before` does not count.
async fn tell(engine: Engine, before: Totals) {
    let mut window = Window::default();
    let (mut teller, mut ticks) = (Teller::default(), 0);
    window.push(before);
    loop {
        tokio::time::sleep(TICK).await;
        let budgets: BTreeMap<String, String> = engine.pool().budgets().into_iter().collect();
        let rates = window.push(engine.queue().sent_so_far());
        let runs = engine.busy() > 0;
        let over = rates.is_empty() && engine.stop_telling_when_idle();
        // Polls are no runs: of them nothing is noted.
        if runs || !teller.idle() {
            (teller, ticks) = noted(&engine, teller, ticks).await;
        }
        engine.hub().facts(|f| {
            f.rates = rates;
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
    use crate::store::{Dirs, Store};

    #[tokio::test(start_paused = true)]
    async fn what_is_no_run_counts_while_it_asks_and_afterwards() {
        let home = tempfile::tempdir().expect("a directory");
        let dirs = Dirs::resolve(Some(home.path().join("config")), Some(home.path().join("state"))).expect("directories");
        let engine = Engine::new(Store::open(dirs).expect("a store"), Default::default());
        let rates = || engine.hub().read(|b| b.engine.rates.clone());
        let ask = |cx: &Cx, n| (0..n).for_each(|_| cx.meter().request("kms", "GET /api/v4/secrets", 0, false));
        // A poll that is over before anybody looks.
        let poll = Cx::quiet();
        let counted = engine.counted(&poll);
        ask(&poll, 6);
        drop(counted);
        // A plan that takes longer.
        let plan = Cx::quiet();
        let counted = engine.counted(&plan);
        tokio::time::sleep(TICK + TICK / 2).await;
        assert_eq!(rates(), BTreeMap::from([("kms".to_string(), 6.0)]));
        ask(&plan, 4);
        tokio::time::sleep(TICK).await;
        assert_eq!(rates(), BTreeMap::from([("kms".to_string(), 5.0)]));
        drop(counted);
        tokio::time::sleep(TICK * (WINDOW as u32 + 2)).await;
        assert_eq!(rates(), BTreeMap::new());
        assert!(!engine.queue().telling, "nothing is told of nothing");
    }

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
