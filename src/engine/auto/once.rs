//! Every enabled sync, once.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::broadcast::error::TryRecvError;

use super::{Clocks, SourceKey};
use crate::engine::{hooks, pool};
use crate::http::Cx;
use crate::model::run::{RunKind, RunRecord, RunRequest, Trigger};
use crate::model::sync::SyncConfig;
use crate::source::{Polled, SourceMap};

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
        let sources = self.shared_sources(&enabled).await;
        for config in enabled {
            let request = RunRequest::new(config.name.as_str(), RunKind::Sync, Trigger::Auto);
            let source = self.source_key(&config).and_then(|key| sources.get(&key).cloned());
            match engine.submit(&request, source) {
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

    fn source_key(&self, config: &SyncConfig) -> Option<SourceKey> {
        let account = self.inner.engine.pool().account(config.source_connection.as_deref()).ok()?;
        Some((account.id, pool::place(config)))
    }

    /// The sources that several syncs read, read once. One that cannot be read is left out: each
    /// of its syncs tells why.
    async fn shared_sources(&self, syncs: &[SyncConfig]) -> HashMap<SourceKey, Arc<SourceMap>> {
        let mut readers: HashMap<SourceKey, (usize, Option<String>)> = HashMap::new();
        for config in syncs {
            if let Some(key) = self.source_key(config) {
                let slot = readers.entry(key).or_default();
                *slot = (slot.0 + 1, config.source_connection.clone());
            }
        }
        let cx = Cx::new(self.inner.stop.child_token(), Arc::new(|_| {}));
        let mut read = HashMap::new();
        for (key, (_, named)) in readers.into_iter().filter(|(_, (n, _))| *n > 1) {
            let Ok((_, source)) = self.inner.engine.pool().source(named.as_deref()).await else { continue };
            if let Ok(Polled::Changed { map, .. }) = source.poll(&cx, &key.1, None).await {
                read.insert(key, Arc::from(map));
            }
        }
        read
    }
}
