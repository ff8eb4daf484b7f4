//! Ledger commits: intents before the first write, confirmations as writes succeed.
//!
//! Confirmations are gathered while the disk is busy and committed together, so that a
//! thousand fast writes do not wait for a thousand disk flushes; each is on disk within
//! milliseconds of its write. What dies in between is resolved by its intent.

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::model::ledger::LedgerRow;
use crate::model::run::SecretOutcome;
use crate::store::{Noted, Store};

/// Rows in one transaction at most.
const BATCH: usize = 256;

/// A row, a word about a key for the run's history, or both: they are on disk together.
#[derive(Default)]
struct Entry {
    row: Option<LedgerRow>,
    noted: Option<Noted>,
}

/// Confirms rows in the background, in order.
pub struct Committer {
    /// The run whose history it writes.
    run: String,
    entries: mpsc::UnboundedSender<Entry>,
    task: JoinHandle<Result<(), String>>,
}

impl Committer {
    /// A committer for one run of one sync at one target.
    pub fn start(store: Store, run: String, sync_id: String, target: String) -> Self {
        let (entries, mut incoming) = mpsc::unbounded_channel::<Entry>();
        let task = tokio::task::spawn_blocking(move || {
            while let Some(first) = incoming.blocking_recv() {
                let mut batch = vec![first];
                while batch.len() < BATCH {
                    match incoming.try_recv() {
                        Ok(row) => batch.push(row),
                        Err(_) => break,
                    }
                }
                let (rows, noted): (Vec<_>, Vec<_>) = batch.into_iter().map(|e| (e.row, e.noted)).unzip();
                let (rows, noted): (Vec<_>, Vec<_>) = (rows.into_iter().flatten().collect(), noted.into_iter().flatten().collect());
                store.put_rows(&sync_id, &target, &rows, &noted).map_err(|e| e.to_string())?;
            }
            Ok(())
        });
        Self { run, entries, task }
    }

    /// Hands over a confirmed row that the run's history says nothing about.
    pub fn adopt(&self, row: LedgerRow) {
        self.send(Entry { row: Some(row), noted: None });
    }

    /// Hands over the row of a write that was done, and its outcome; `None`: it turned out to
    /// be needless.
    pub fn confirm(&self, row: LedgerRow, outcome: Option<SecretOutcome>) {
        let noted = Noted { run: self.run.clone(), key: row.key.clone(), outcome };
        self.send(Entry { row: Some(row), noted: Some(noted) });
    }

    /// Hands over what became of a key without a row.
    pub fn note(&self, outcome: SecretOutcome) {
        let noted = Noted { run: self.run.clone(), key: outcome.key.clone(), outcome: Some(outcome) };
        self.send(Entry { row: None, noted: Some(noted) });
    }

    fn send(&self, entry: Entry) {
        // The receiver ends early only when the database refused a batch; `finish` tells.
        let _ = self.entries.send(entry);
    }

    /// Waits until everything is on disk.
    pub async fn finish(self) -> Result<(), String> {
        drop(self.entries);
        match self.task.await {
            Ok(result) => result,
            Err(_) => Err("the ledger writer ended unexpectedly".into()),
        }
    }
}
