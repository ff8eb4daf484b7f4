//! Every enabled sync, once.

use tokio::sync::broadcast::error::TryRecvError;

use super::Clocks;
use crate::engine::hooks;
use crate::model::run::{RunKind, RunRecord, RunRequest, Trigger};

impl Clocks {
    /// Runs every enabled sync once and waits for the end, hooks included: for cron. The
    /// number counts the syncs that could not even start.
    pub async fn once(&self) -> (Vec<RunRecord>, usize) {
        let engine = &self.inner.engine;
        let mut endings = engine.endings();
        let mut records = Vec::new();
        let mut ids = Vec::new();
        let mut refused = 0;
        let mut enabled = Vec::new();
        for loaded in engine.store().syncs() {
            match loaded.result {
                Ok(config) if config.is_enabled => enabled.push(config),
                Ok(_) => {}
                // Told when the configuration was read.
                Err(_) => refused += 1,
            }
        }
        let asked = engine.readings().now();
        for config in enabled {
            let request = RunRequest::new(config.name.as_str(), RunKind::Sync, Trigger::Auto);
            match engine.submit_with(&request, asked) {
                Ok(id) => ids.push(id),
                Err(error) => {
                    refused += 1;
                    engine.hub().notice("error", format!("{}: {error}", config.name), Some(&config.name));
                }
            }
        }
        for id in ids {
            records.extend(engine.finished(&id).await);
        }
        loop {
            match endings.try_recv() {
                Ok(finished) => hooks::told(engine, finished).await,
                Err(TryRecvError::Lagged(n)) => engine.hub().notice("warn", hooks::dropped(n), None),
                Err(_) => break,
            }
        }
        (records, refused)
    }
}
