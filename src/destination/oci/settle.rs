//! Waiting for secrets between two states. One list answers for all that wait; with only a
//! few of them each is asked for by itself, which also tells its version.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::SERVICE;
use super::vault::VaultTarget;
use super::wire::{Secret, State};
use crate::http::{ApiError, Cx, ErrorKind};

/// Up to so many waiting secrets are asked for one by one.
const FEW: usize = 4;

/// How long, and how often, to look.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    /// Pauses before the first looks; the last one repeats.
    pub steps: Vec<Duration>,
    /// After this a secret is given up.
    pub limit: Duration,
}

impl Default for Patience {
    /// A change settles in a few seconds as a rule, in a minute at worst.
    fn default() -> Self {
        let steps = [500, 1000, 2000, 3000, 5000].map(Duration::from_millis).to_vec();
        Self { steps, limit: Duration::from_secs(120) }
    }
}

impl Patience {
    fn step(&self, n: usize) -> Duration {
        self.steps.get(n).or(self.steps.last()).copied().unwrap_or(Duration::from_secs(1))
    }
}

/// What the last list told, shared by all that wait.
#[derive(Default)]
pub(super) struct Board {
    seen: Mutex<Seen>,
    waiting: AtomicUsize,
}

#[derive(Default)]
struct Seen {
    /// When the last list was asked for.
    begun: Option<Instant>,
    /// Lists in a row, for the growing pause between them.
    round: usize,
    secrets: HashMap<String, Secret>,
}

/// Counts itself among the waiting while it lives.
struct Waiter<'b>(&'b AtomicUsize);

impl<'b> Waiter<'b> {
    fn new(count: &'b AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl VaultTarget {
    /// Waits until `done` says so about a secret, looking again and again. `since`: when the
    /// change was made; older knowledge does not count. `state` is shown until a look tells
    /// better. `None` means that the secret is not listed any more.
    pub(super) async fn until(
        &self,
        cx: &Cx,
        id: &str,
        name: &str,
        state: &str,
        since: Instant,
        done: impl Fn(Option<&State>) -> bool,
    ) -> Result<Option<Secret>, ApiError> {
        let _waiter = Waiter::new(&self.board.waiting);
        let begun = Instant::now();
        let mut newer = since;
        let mut shown = state.to_string();
        for step in 0.. {
            let left = self.patience.limit.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            cx.wait(&format!("{name} is {shown} at OCI Vault"), self.patience.step(step).min(left)).await?;
            let (at, secret) = self.look(cx, id, newer).await?;
            newer = at;
            let now = secret.as_ref().map(Secret::state);
            if done(now.as_ref()) {
                return Ok(secret);
            }
            if let Some(secret) = &secret {
                shown = crate::model::text::brief(&secret.lifecycle_state, 40);
            }
        }
        let waited = self.patience.limit.as_secs();
        Err(ApiError::new(ErrorKind::Unsettled, SERVICE, format!("{name} is still {shown} after {waited} s"))
            .advice("OCI Vault is busy with this secret; the next run tries again."))
    }

    /// The pause between a write whose effect is unknown and the look at it: as long as the
    /// service asks for, where it does.
    pub(super) async fn before_looking(&self, cx: &Cx, key: &str, error: &ApiError) -> Result<(), ApiError> {
        let pause = error.retry_after.unwrap_or(self.patience.step(0));
        cx.wait(&format!("what became of the write of {key} is not known; looking"), pause).await
    }

    /// The secret as of some moment after `newer`, and that moment.
    async fn look(&self, cx: &Cx, id: &str, newer: Instant) -> Result<(Instant, Option<Secret>), ApiError> {
        if self.board.waiting.load(Ordering::Relaxed) <= FEW {
            let at = Instant::now();
            // A missing right to read single secrets looks like a missing secret: the list decides.
            if let Some(secret) = self.get(cx, id).await? {
                return Ok((at, Some(secret)));
            }
        }
        let mut seen = self.board.seen.lock().await;
        if let Some(at) = seen.begun.filter(|b| *b > newer) {
            return Ok((at, seen.secrets.get(id).cloned()));
        }
        if let Some(last) = seen.begun {
            let pause = self.patience.step(seen.round);
            let rest = pause.saturating_sub(last.elapsed());
            if !rest.is_zero() {
                cx.wait("secrets are settling at OCI Vault", rest).await?;
                seen.round += 1;
            } else if last.elapsed() > pause * 4 {
                seen.round = 0;
            }
        }
        let at = Instant::now();
        let all = self.list_secrets(cx).await?;
        seen.begun = Some(at);
        seen.secrets = all.into_iter().map(|s| (s.id.clone(), s)).collect();
        Ok((at, seen.secrets.get(id).cloned()))
    }
}
