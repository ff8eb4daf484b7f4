//! The hourly budget of one credential: how many calls it made in the rolling hour, whether
//! the next one may go, and what to do after a refusal.
//!
//! Facts (Atlassian, "API request limits"): authenticated calls below `/2.0/repositories` are
//! counted over a rolling hour, 1,000 by default, more for access tokens of large workspaces.
//! The count is per user for API tokens, per token for access tokens, per consumer for OAuth.
//! A refusal is a 429 in plain text, without `Retry-After` and without the number left; only
//! access tokens see `X-RateLimit-*` headers. A single 429 therefore says little: the hour may be
//! spent by other tools, or everybody is limited for a while. So the log of send times is kept here, over
//! restarts through [`Memory`], and shared by all sessions of a credential in this process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::spec::SERVICE;
use super::tempo::Tempo;
use crate::destination::common::Common;
use crate::http::{Answer, ApiError, Cx, ErrorKind, RETRY_AFTER_CAP};
use crate::model::Memory;

/// The window is kept in this many slots: a call leaves the count at most one slot late.
const SLOTS: i64 = 360;
/// Waits shorter than this are borne even by a screen's question.
const PATIENCE_OF_A_SCREEN: Duration = Duration::from_secs(2);
/// How often a waiting call looks whether the trying call has been answered.
const LOOK: Duration = Duration::from_millis(50);

/// Who asks: a run waits, a screen wants to hear why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    Run,
    Question,
}

/// The send log of one credential and the gate before every call.
pub struct Budget {
    name: String,
    tempo: Tempo,
    memory: Arc<dyn Memory>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Calls per slot, this process and earlier ones.
    sent: BTreeMap<i64, u32>,
    /// The part of `sent` that [`Memory`] has not seen.
    unsaved: BTreeMap<i64, u32>,
    saved_at: i64,
    /// The operator's own number, if any.
    given: Option<u32>,
    /// What `X-RateLimit-Limit` said.
    limit: Option<u32>,
    pause: Option<Pause>,
    /// `X-RateLimit-NearLimit` said true; the earliest moment of the next write.
    near: Option<i64>,
}

struct Pause {
    until: i64,
    step: usize,
    probing: bool,
    /// What is known of the cause, without a time.
    reason: String,
    /// Until when is a guess: one call tries first.
    guessed: bool,
}

impl Pause {
    /// Why nothing is sent, and until when.
    fn told(&self) -> String {
        let then = if self.guessed { "one call tries again" } else { "goes on" };
        format!("{}; {then} at {}", self.reason, clock(self.until))
    }
}

/// What a refusal tells besides its status.
#[derive(Default)]
struct Hints {
    /// `Retry-After`.
    wait: Option<Duration>,
    /// `X-RateLimit-Limit`: calls per hour.
    limit: Option<u32>,
    /// `X-RateLimit-NearLimit`.
    near: Option<bool>,
}

impl Hints {
    fn of(answer: &Answer) -> Self {
        let text = |name: &str| answer.header(name).map(|t| t.trim().to_ascii_lowercase());
        Self {
            wait: answer.retry_after(),
            limit: text("x-ratelimit-limit").and_then(|t| t.parse().ok()).filter(|n| (10..=1_000_000).contains(n)),
            near: text("x-ratelimit-nearlimit").and_then(|t| t.parse().ok()),
        }
    }
}

/// Permission for one call. Tell it the answer.
pub struct Turn<'b> {
    budget: &'b Budget,
    probe: bool,
}

impl Budget {
    /// The budget named `name` (provider's word, endpoint, public part of the credential).
    /// All sessions of one credential in this process share it.
    pub fn shared(name: String, tempo: &Tempo, given: Option<u32>, memory: &Arc<dyn Memory>) -> Arc<Self> {
        static KNOWN: Common<Budget> = Common::new();
        let budget = KNOWN.of(&name, || {
            let state = Mutex::new(State { given, ..State::default() });
            let budget = Self { name: name.clone(), tempo: tempo.clone(), memory: memory.clone(), state };
            budget.load();
            budget
        });
        if given.is_some() {
            budget.lock().given = given;
        }
        budget
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn window(&self) -> i64 {
        i64::try_from(self.tempo.window.as_millis()).unwrap_or(i64::MAX / 4).max(1)
    }

    fn slot(&self) -> i64 {
        (self.window() / SLOTS).max(1)
    }

    /// The number of calls a window allows, as far as known.
    fn limit(&self, state: &State) -> u32 {
        state.given.or(state.limit).unwrap_or(self.tempo.budget).max(1)
    }

    /// The part of the limit we use ourselves.
    fn allowance(&self, state: &State) -> u32 {
        let limit = self.limit(state);
        (limit - limit * self.tempo.reserve.min(99) / 100).max(1)
    }

    fn count(&self, state: &mut State, now: i64) -> u32 {
        let (slot, window) = (self.slot(), self.window());
        state.sent.retain(|at, _| (*at + 1) * slot + window > now && *at * slot <= now + window);
        state.sent.values().sum()
    }

    /// The moment when at most `below - 1` of the calls counted now are left in the window.
    fn free_at(&self, state: &mut State, now: i64, below: u32) -> i64 {
        let mut left = self.count(state, now);
        for (at, n) in &state.sent {
            if left < below {
                break;
            }
            left -= (*n).min(left);
            if left < below {
                return (*at + 1) * self.slot() + self.window();
            }
        }
        now
    }

    /// Waits for this call's turn; a question gets an error instead of a long wait.
    pub async fn turn(&self, cx: &Cx, write: bool, patience: Patience) -> Result<Turn<'_>, ApiError> {
        loop {
            cx.check(SERVICE)?;
            let (reason, wait) = match self.decide(now(), write) {
                Ok(probe) => return Ok(Turn { budget: self, probe }),
                Err(wait) => wait,
            };
            if patience == Patience::Question && wait > PATIENCE_OF_A_SCREEN {
                return Err(ApiError::new(ErrorKind::Throttled, SERVICE, reason)
                    .advice(format!("Try again after {}.", clock(now() + i64::try_from(wait.as_millis()).unwrap_or(0))))
                    .retry_after(Some(wait)));
            }
            cx.wait(&reason, wait).await?;
        }
    }

    /// `Ok(true)`: go, and this call tries whether a pause is over.
    fn decide(&self, now: i64, write: bool) -> Result<bool, (String, Duration)> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let until = |at: i64| Duration::from_millis(u64::try_from(at - now).unwrap_or(0).max(1));
        let mut probe = false;
        if let Some(pause) = &mut state.pause {
            if now < pause.until {
                return Err((pause.told(), until(pause.until)));
            }
            if pause.probing {
                return Err(("Bitbucket: one call tries whether the rate limit has passed".into(), LOOK));
            }
            pause.probing = true;
            probe = true;
        } else {
            let used = self.count(state, now);
            let allowance = self.allowance(state);
            if used >= allowance {
                let free = self.free_at(state, now, allowance);
                let (limit, kept) = (self.limit(state), self.limit(state) - allowance);
                return Err((
                    format!(
                        "Bitbucket's hourly budget is used up: {used} of {limit} calls in the last hour, {kept} are left to other tools; goes on at {}",
                        clock(free)
                    ),
                    until(free),
                ));
            }
            if let Some(next) = state.near.filter(|_| write) {
                if now < next {
                    return Err(("Bitbucket says its rate limit is near: writes are spread over the hour".into(), until(next)));
                }
                // The last fifth of the limit, spread evenly over the window.
                state.near = Some(now + self.window() / i64::from((self.limit(state) / 5).max(1)));
            }
        }
        self.note(state, now);
        Ok(probe)
    }

    /// Counts a call that was sent again without a turn of its own (a retry after server trouble).
    pub fn sent_again(&self) {
        let mut state = self.lock();
        self.note(&mut state, now());
    }

    fn note(&self, state: &mut State, now: i64) {
        let slot = now / self.slot();
        *state.sent.entry(slot).or_default() += 1;
        *state.unsaved.entry(slot).or_default() += 1;
        if now - state.saved_at >= 1000 || state.unsaved.values().sum::<u32>() >= 20 {
            self.save(state, now);
        }
    }

    /// Calls left in this window for our own use.
    pub fn left(&self) -> u32 {
        let mut state = self.lock();
        if state.pause.as_ref().is_some_and(|p| now() < p.until) {
            return 0;
        }
        let used = self.count(&mut state, now());
        self.allowance(&state).saturating_sub(used)
    }

    /// When calls are possible again, if none are now.
    pub fn resumes(&self) -> Option<String> {
        let mut guard = self.lock();
        let now = now();
        if let Some(pause) = guard.pause.as_ref().filter(|p| now < p.until) {
            return Some(clock(pause.until));
        }
        let allowance = self.allowance(&guard);
        (self.count(&mut guard, now) >= allowance).then(|| clock(self.free_at(&mut guard, now, allowance)))
    }

    /// For the engine's pane.
    pub fn text(&self) -> String {
        let (used, limit) = {
            let mut state = self.lock();
            (self.count(&mut state, now()), self.limit(&state))
        };
        match self.resumes() {
            Some(at) => format!("{used} of {limit} calls in the last hour, paused until {at}"),
            None => format!("{used} of {limit} calls in the last hour"),
        }
    }

    /// A call was refused by 429. Bitbucket as a rule says neither why nor for how long: what is
    /// known decides how long nothing is sent, and only what is known is told.
    fn refused(&self, probe: bool, hints: &Hints) {
        let now = now();
        let mut guard = self.lock();
        let state = &mut *guard;
        state.limit = hints.limit.or(state.limit);
        let step = match &state.pause {
            Some(pause) if probe => (pause.step + 1).min(self.tempo.probes.len().saturating_sub(1)),
            // Calls that were under way together are refused together: one pause for all of them.
            Some(pause) if now < pause.until || pause.probing => pause.step,
            _ => 0,
        };
        let (limit, used) = (self.limit(state), self.count(state, now));
        let after = |wait: Duration| now + i64::try_from(wait.as_millis()).unwrap_or(i64::MAX / 4);
        let guess = after(self.tempo.probes.get(step).copied().unwrap_or(Duration::from_secs(60)));
        let ours = used >= limit;
        let (until, guessed, why) = match hints.wait {
            Some(wait) => {
                let most = if wait >= RETRY_AFTER_CAP { " or more, the longest that is waited" } else { "" };
                (after(wait), false, format!("and asks to wait {} s{most}", wait.as_secs_f64().ceil()))
            }
            None if ours => {
                let free = self.free_at(state, now, limit);
                let why = format!("the {limit} calls of this hour are used up, {used} of them by kms-sync, whose oldest ones leave the hour first");
                (free.max(guess), free < guess, why)
            }
            None if hints.near == Some(true) => {
                let why =
                    format!("the {limit} calls of this hour are used up, {used} of them by kms-sync, the others by other tools of this credential");
                (guess, true, why)
            }
            None => {
                let near = if hints.near == Some(false) { ", though it calls the hourly limit not near" } else { "" };
                let why = format!(
                    "without saying why or for how long{near}: {used} of the {limit} calls of this hour are kms-sync's, so either other tools of \
                     this credential made the rest, or Bitbucket limits for a reason of its own"
                );
                (guess, true, why)
            }
        };
        let probing = state.pause.as_ref().is_some_and(|p| p.probing) && !probe;
        let until = state.pause.as_ref().filter(|_| !probe).map_or(until, |p| until.max(p.until));
        let again = if probe { " again" } else { "" };
        let joint = if why.starts_with("the ") { ": " } else { " " };
        state.pause = Some(Pause { until, step, probing, reason: format!("Bitbucket answered 429{again}{joint}{why}"), guessed });
        self.save(state, now);
    }

    fn passed(&self, probe: bool, hints: &Hints) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if probe && state.pause.take().is_some() {
            self.save(state, now());
        }
        state.limit = hints.limit.or(state.limit);
        match hints.near {
            Some(true) if state.near.is_none() => state.near = Some(now()),
            Some(false) => state.near = None,
            _ => {}
        }
    }

    fn load(&self) {
        let Some(kept) = self.memory.get(&self.name) else { return };
        let now = now();
        let mut guard = self.lock();
        let state = &mut *guard;
        state.sent = read_slots(&kept, self.slot());
        state.limit = kept.get("limit").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        let until = kept.get("pausedUntil").and_then(Value::as_i64).filter(|until| *until > now && *until < now + 2 * self.window());
        let reason = "Bitbucket answered 429 before this process began".to_string();
        state.pause = until.map(|until| Pause { until, step: 0, probing: false, reason, guessed: true });
        self.count(state, now);
    }

    /// Adds what this process sent to what [`Memory`] holds: other processes write there too.
    fn save(&self, state: &mut State, now: i64) {
        let mut slots = self.memory.get(&self.name).map(|kept| read_slots(&kept, self.slot())).unwrap_or_default();
        for (at, n) in std::mem::take(&mut state.unsaved) {
            *slots.entry(at).or_default() += n;
        }
        for (at, n) in &state.sent {
            let slot = slots.entry(*at).or_default();
            *slot = (*slot).max(*n);
        }
        state.sent = slots;
        self.count(state, now);
        state.saved_at = now;
        let sent: serde_json::Map<String, Value> = state.sent.iter().map(|(at, n)| (at.to_string(), json!(n))).collect();
        let document = json!({ "slot": self.slot(), "sent": sent, "limit": state.limit, "pausedUntil": state.pause.as_ref().map(|p| p.until) });
        self.memory.put(&self.name, document);
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        let now = now();
        let mut state = std::mem::take(self.state.get_mut().unwrap_or_else(PoisonError::into_inner));
        if !state.unsaved.is_empty() {
            self.save(&mut state, now);
        }
    }
}

impl Turn<'_> {
    /// Takes note of the answer; true when it was a refusal and the call must wait for a new turn.
    pub fn answered(mut self, answer: &Answer) -> bool {
        let (probe, hints) = (std::mem::take(&mut self.probe), Hints::of(answer));
        if answer.status == 429 {
            self.budget.refused(probe, &hints);
            return true;
        }
        self.budget.passed(probe, &hints);
        false
    }
}

impl Drop for Turn<'_> {
    /// A trying call that got no answer leaves the try to the next one.
    fn drop(&mut self) {
        if self.probe
            && let Some(pause) = &mut self.budget.lock().pause
        {
            pause.probing = false;
        }
    }
}

fn read_slots(kept: &Value, slot: i64) -> BTreeMap<i64, u32> {
    if kept.get("slot").and_then(Value::as_i64) != Some(slot) {
        return BTreeMap::new();
    }
    let sent = kept.get("sent").and_then(Value::as_object);
    sent.into_iter().flatten().filter_map(|(at, n)| Some((at.parse().ok()?, u32::try_from(n.as_u64()?).ok()?))).collect()
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A moment as the operator's clock shows it.
pub fn clock(at: i64) -> String {
    match jiff::Timestamp::from_millisecond(at) {
        Ok(at) => at.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string(),
        Err(_) => "later".into(),
    }
}
