//! Ledger commits: intents before the first write, confirmations as writes succeed.
//!
//! Confirmations are gathered while the disk is busy and committed together, so that a
//! thousand fast writes do not wait for a thousand disk flushes; each is on disk within
//! milliseconds of its write. What dies in between is resolved by its intent.

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::model::ledger::LedgerRow;
use crate::store::Store;

/// Rows in one transaction at most.
const BATCH: usize = 256;

/// Confirms rows in the background, in order.
pub struct Committer {
    rows: mpsc::UnboundedSender<LedgerRow>,
    task: JoinHandle<Result<(), String>>,
}

impl Committer {
    /// A committer for one sync at one target.
    pub fn start(store: Store, sync_id: String, target: String) -> Self {
        let (rows, mut incoming) = mpsc::unbounded_channel::<LedgerRow>();
        let task = tokio::task::spawn_blocking(move || {
            while let Some(first) = incoming.blocking_recv() {
                let mut batch = vec![first];
                while batch.len() < BATCH {
                    match incoming.try_recv() {
                        Ok(row) => batch.push(row),
                        Err(_) => break,
                    }
                }
                store.confirm(&sync_id, &target, &batch).map_err(|e| e.to_string())?;
            }
            Ok(())
        });
        Self { rows, task }
    }

    /// Hands over a confirmed row.
    pub fn confirm(&self, row: LedgerRow) {
        // The receiver ends early only when the database refused a batch; `finish` tells.
        let _ = self.rows.send(row);
    }

    /// Waits until everything is on disk.
    pub async fn finish(self) -> Result<(), String> {
        drop(self.rows);
        match self.task.await {
            Ok(result) => result,
            Err(_) => Err("the ledger writer ended unexpectedly".into()),
        }
    }
}
