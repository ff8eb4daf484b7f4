//! Readings of sources that several runs share.
//!
//! Runs that are asked for together and read the same place read it once: the first one that
//! comes to it sends the requests, which count as its own, and the others take what it got. A
//! run never takes a reading that was made before it was asked for, nor one made before an
//! import wrote into a source: an edit that somebody made before asking is always seen. What a
//! reading brought is kept in memory until the last run that may take it has come, and for
//! [`FRESH`] at most.
//!
//! A reading belongs to the run that makes it. When that one is cancelled, the next that waits
//! makes its own; when it fails, the failure is told to those that waited for it, and whoever
//! comes later tries anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::http::{ApiError, Cx, ErrorKind};
use crate::source::{Source, SourceMap, SourceRef};

/// How long a reading is shared.
const FRESH: Duration = Duration::from_secs(60);
/// What a wait for another run's reading says.
const WAITS: &str = "another run reads the same source";

/// An account's id and a place in it.
type Key = (String, SourceRef);

/// The order in which things were asked for and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// The readings.
#[derive(Default)]
pub struct Readings {
    clock: AtomicU64,
    /// What was read before is not shared any more: a source was written since.
    written: AtomicU64,
    slots: Mutex<HashMap<Key, Weak<Slot>>>,
}

/// One place: who reads it now, and what the last reading brought.
#[derive(Default)]
struct Slot(AsyncMutex<Option<Reading>>);

struct Reading {
    begun: Moment,
    ended: Moment,
    at: Instant,
    /// An account that was opened anew may be another one.
    account: Arc<dyn Source>,
    result: Result<Arc<SourceMap>, ApiError>,
}

/// A run's claim to what is read of its source from now on. While it is held, a reading that
/// serves it is kept.
pub struct Claim {
    asked: Moment,
    slot: Mutex<Option<Arc<Slot>>>,
}

impl Readings {
    /// This moment: for several runs that are asked for together.
    pub fn now(&self) -> Moment {
        Moment(self.clock.fetch_add(1, Ordering::SeqCst))
    }

    /// The claim of a run that was asked for at this moment, to a place of the account with this id.
    pub fn claim(&self, asked: Moment, account: String, place: SourceRef) -> Claim {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| slot.strong_count() > 0);
        let known = slots.entry((account, place)).or_default();
        let slot = known.upgrade().unwrap_or_default();
        *known = Arc::downgrade(&slot);
        Claim { asked, slot: Mutex::new(Some(slot)) }
    }

    /// A source was written: nobody takes what was read before.
    pub fn outdate(&self) {
        self.written.store(self.now().0, Ordering::SeqCst);
    }

    /// The content of a claim's place, read now or by another run since the claim was made. A
    /// claim serves once.
    ///
    /// # Errors
    /// Those of [`Source::read`], of this run's own reading or of the one it waited for;
    /// `Cancelled` when this run was cancelled.
    pub async fn read(&self, claim: &Claim, account: &Arc<dyn Source>, cx: &Cx, place: &SourceRef) -> Result<Arc<SourceMap>, ApiError> {
        let slot = claim.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(slot) = slot else { return account.read(cx, place).await.map(Arc::new) };
        let came = self.now();
        let mut last = cx.wait_for(crate::source::SERVICE, WAITS, slot.0.lock()).await?;
        if let Some(reading) = &*last
            && reading.begun > claim.asked.max(Moment(self.written.load(Ordering::SeqCst)))
            && Arc::ptr_eq(&reading.account, account)
            && (if reading.result.is_ok() { reading.at.elapsed() < FRESH } else { came < reading.ended })
        {
            return reading.result.clone();
        }
        *last = None;
        let begun = self.now();
        let result = account.read(cx, place).await.map(Arc::new);
        let cancelled = result.as_ref().is_err_and(|e| e.kind == ErrorKind::Cancelled);
        // A claim made meanwhile is no use for this reading, so nobody is missed.
        if !cancelled && Arc::strong_count(&slot) > 1 {
            *last = Some(Reading { begun, ended: self.now(), at: Instant::now(), account: account.clone(), result: result.clone() });
            tokio::spawn(forget(Arc::downgrade(&slot), begun));
        }
        result
    }
}

/// Lets a reading go that is too old to be shared, though runs that queue still hold their claims.
async fn forget(slot: Weak<Slot>, begun: Moment) {
    tokio::time::sleep(FRESH).await;
    let Some(slot) = slot.upgrade() else { return };
    let mut last = slot.0.lock().await;
    if last.as_ref().is_some_and(|r| r.begun == begun) {
        *last = None;
    }
}

#[cfg(test)]
mod tests;
