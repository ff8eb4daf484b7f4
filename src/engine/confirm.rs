//! Second looks at what was just written, where the answer to a write does not prove that the
//! stamp stands for it alone (stamps of whole seconds, which another hand may share).
//!
//! They go beside the writes that follow, so that a run ends a moment after its last write
//! however many keys it had. What is not proved stays as it was recorded, and the next run
//! looks. Nothing here fails a run, and no run waits long for it.

use std::collections::VecDeque;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::progress::Progress;
use crate::destination::{Confirmed, Itemised};
use crate::http::Cx;
use crate::model::ledger::LedgerRow;

/// Shown while only this is left to do.
const REASON: &str = "confirming stamps";
/// What a key's outcome says when another hand came in between.
const OVERTAKEN: &str = "somebody else wrote it right after this run: the next run looks at it again";
/// After the last write this much is spent at most.
const PATIENCE: Duration = Duration::from_secs(20);

/// A written key, and when it may be looked at.
struct Look {
    row: LedgerRow,
    due: Instant,
}

/// Where writes tell what is to be looked at again; dropping it says that all is written.
pub(super) struct Looks(mpsc::UnboundedSender<Option<Look>>);

/// The other end of [`Looks`].
pub(super) struct Due(mpsc::UnboundedReceiver<Option<Look>>);

impl Looks {
    /// Both ends.
    pub fn new() -> (Self, Due) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), Due(receiver))
    }

    /// A key was written; its stamp can be proved `after` this much time, or needs no proof.
    pub fn add(&self, row: &LedgerRow, after: Option<Duration>) {
        if let Some(after) = after {
            // Nobody takes it any more when an earlier look has failed.
            let _ = self.0.send(Some(Look { row: row.clone(), due: Instant::now() + after }));
        }
    }

    /// The connection is of no use any more: nothing is looked at.
    pub fn give_up(&self) {
        let _ = self.0.send(None);
    }
}

/// Looks again at one run's keys.
pub(super) struct Confirmer<'a> {
    pub cx: &'a Cx,
    pub target: &'a dyn Itemised,
    /// Takes rows whose stamp is proved now.
    pub record: &'a (dyn Fn(LedgerRow) + Send + Sync),
    pub progress: &'a Progress,
}

impl Confirmer<'_> {
    /// Ends when everything is written and looked at, or at the first look that fails, or
    /// with the run's cancellation.
    pub async fn run(&self, Due(mut due): Due) {
        let limit = self.target.concurrency().max(1);
        let (mut waiting, mut going) = (VecDeque::<Look>::new(), FuturesUnordered::new());
        loop {
            let first = waiting.front().filter(|_| going.len() < limit.div_ceil(2)).map(|look| look.due);
            tokio::select! {
                () = self.cx.cancel_token().cancelled() => return,
                news = due.recv() => match news {
                    Some(Some(look)) => waiting.push_back(look),
                    Some(None) => return,
                    None => break,
                },
                looked = going.next(), if !going.is_empty() => if looked == Some(false) { return },
                () = tokio::time::sleep_until(first.unwrap_or_else(Instant::now)), if first.is_some() => {
                    going.extend(waiting.pop_front().map(|look| self.look(look.row)));
                }
            }
        }
        if waiting.is_empty() && going.is_empty() {
            return;
        }
        let _shown = self.cx.waiting(REASON, None);
        let rest = async {
            loop {
                while going.len() < limit && waiting.front().is_some_and(|look| look.due <= Instant::now()) {
                    going.extend(waiting.pop_front().map(|look| self.look(look.row)));
                }
                let useful = match (going.is_empty(), waiting.front()) {
                    (true, None) => return,
                    (true, Some(next)) => self.cx.wait(REASON, next.due.saturating_duration_since(Instant::now())).await.is_ok(),
                    (false, _) => going.next().await.unwrap_or(true),
                };
                if !useful {
                    return;
                }
            }
        };
        // Cut short, the rest of the stamps stays for the next run.
        let _ = tokio::time::timeout(PATIENCE, rest).await;
    }

    /// One look. False when more of them are pointless.
    async fn look(&self, row: LedgerRow) -> bool {
        let Some(stamp) = &row.stamp else { return true };
        match self.target.confirm(self.cx, &row.key, stamp).await {
            Ok(Confirmed::Ours(stamp)) => (self.record)(LedgerRow { stamp: Some(stamp), ..row }),
            Ok(Confirmed::Unproved) => {}
            Ok(Confirmed::Overtaken) => self.progress.remark(&row.key, OVERTAKEN),
            Err(error) => {
                tracing::info!("stamps stay unconfirmed until the next run: {}", self.cx.redact(&error.text()));
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::destination::{Op, Written};
    use crate::http::{ApiError, ErrorKind};

    const SECOND: Duration = Duration::from_secs(1);

    /// Notes when it was asked about which key.
    #[derive(Default)]
    struct Target {
        asked: Mutex<Vec<(String, Instant)>>,
        broken: bool,
    }

    #[async_trait]
    impl Itemised for Target {
        async fn apply(&self, _cx: &Cx, _op: &Op<'_>) -> Result<Written, ApiError> {
            Ok(Written::default())
        }

        async fn confirm(&self, _cx: &Cx, key: &str, stamp: &String) -> Result<Confirmed, ApiError> {
            self.asked.lock().expect("lock").push((key.to_string(), Instant::now()));
            tokio::time::sleep(Duration::from_millis(50)).await;
            match key {
                _ if self.broken => Err(ApiError::new(ErrorKind::Throttled, "x", "slower")),
                "theirs" => Ok(Confirmed::Overtaken),
                "late" => Ok(Confirmed::Unproved),
                _ => Ok(Confirmed::Ours(format!("{stamp} proved"))),
            }
        }
    }

    fn row(key: &str) -> LedgerRow {
        LedgerRow {
            fold: key.into(),
            key: key.into(),
            source_key: key.into(),
            remote_id: None,
            stamp: Some("s".into()),
            previous_stamp: None,
            value_hash: Some("h".into()),
            written_at: crate::model::now(),
            intent: None,
            detail: serde_json::Value::Null,
        }
    }

    /// What is recorded of `writes`, and what the run took from the last write on.
    async fn after(cx: &Cx, target: &Target, writes: impl AsyncFnOnce(Looks)) -> (Vec<String>, Duration) {
        let recorded = Mutex::new(Vec::new());
        let record = |row: LedgerRow| recorded.lock().expect("lock").push(format!("{}: {}", row.key, row.stamp.unwrap_or_default()));
        let progress = Progress::silent();
        let confirmer = Confirmer { cx, target, record: &record, progress: &progress };
        let (looks, due) = Looks::new();
        let written = async {
            writes(looks).await;
            Instant::now()
        };
        let (written, ()) = tokio::join!(written, confirmer.run(due));
        let took = written.elapsed();
        (recorded.into_inner().expect("lock"), took)
    }

    fn asked(target: &Target) -> Vec<String> {
        target.asked.lock().expect("lock").iter().map(|(key, _)| key.clone()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn looks_go_beside_the_writes_and_the_end_waits_for_the_last_alone() {
        let (cx, target) = (Cx::quiet(), Target::default());
        let begun = Instant::now();
        let (stamps, took) = after(&cx, &target, async |looks| {
            for i in 0..100 {
                looks.add(&row(&format!("k{i:02}")), Some(SECOND));
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        })
        .await;
        assert_eq!(stamps.len(), 100);
        assert!(stamps.iter().all(|s| s.ends_with("s proved")), "{stamps:?}");
        assert!(took < Duration::from_millis(1300), "{took:?}");
        let asked = target.asked.lock().expect("lock");
        assert!(asked[0].1 - begun < Duration::from_millis(1300), "the first was looked at while others were written");
        assert!(cx.meter().snapshot().waited_ms < 1300, "one wait, not one for each key");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_proved_stays_as_it_was_recorded() {
        let target = Target::default();
        let (stamps, _) = after(&Cx::quiet(), &target, async |looks| {
            for key in ["ours", "late", "theirs"] {
                looks.add(&row(key), Some(SECOND));
            }
            looks.add(&row("needless"), None);
        })
        .await;
        assert_eq!(stamps, ["ours: s proved"], "nothing else is recorded anew");
        assert_eq!(asked(&target), ["ours", "late", "theirs"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_ends_it() {
        let target = Target { broken: true, ..Target::default() };
        let (stamps, took) = after(&Cx::quiet(), &target, async |looks| {
            (0..50).for_each(|i| looks.add(&row(&i.to_string()), Some(SECOND)));
        })
        .await;
        assert_eq!(stamps.len(), 0);
        assert!(asked(&target).len() <= target.concurrency() && took < 2 * SECOND);
        let target = Target::default();
        let (_, took) = after(&Cx::quiet(), &target, async |looks| {
            looks.add(&row("a"), Some(SECOND));
            looks.give_up();
        })
        .await;
        assert_eq!((asked(&target).len(), took), (0, Duration::ZERO), "the writes had found the connection broken");
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_ends_it_at_once() {
        let (cx, target) = (Cx::quiet(), Target::default());
        let (_, took) = after(&cx, &target, async |looks| {
            looks.add(&row("a"), Some(SECOND));
            let cancel = cx.cancel_token().clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                cancel.cancel();
            });
        })
        .await;
        assert_eq!(asked(&target).len(), 0);
        assert!(took < Duration::from_millis(200), "{took:?}");
    }
}
