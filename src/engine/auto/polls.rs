//! The poll: one conditional request per distinct source, and what follows from its answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::attempts::Retry;
use super::{Ask, Clocks, DEBOUNCE, Heard, Hearing, POLL_CEILING, SourceKey, State, Trouble, ahead, jitter};
use crate::engine::{carried, steps};
use crate::http::{Cx, ErrorKind};
use crate::model::Memory;
use crate::model::board::Waiting;
use crate::model::run::Trigger;
use crate::model::sync::SyncConfig;
use crate::source::{Polled, SourceMap};
use crate::store::Settings;

/// A poll's wait of so many seconds is told.
const LONG: i64 = 3;

impl Clocks {
    pub(super) fn poll(&self, key: SourceKey, config: SyncConfig, etag: Option<String>, heard: Hearing) {
        let (engine, stop) = (self.inner.engine.clone(), self.inner.stop.clone());
        tokio::spawn(async move {
            let (told, about) = (heard.clone(), key.clone());
            let waits = move |waiting: Option<Waiting>| {
                if waiting.as_ref().is_none_or(|w| w.lasts(LONG)) {
                    // The loop may have ended.
                    let _ = told.send(Heard::Held(about.clone(), waiting));
                }
            };
            let cx = Cx::new(stop.child_token(), Arc::new(waits));
            let counted = engine.counted(&cx);
            let result = async {
                let (_, source) = engine.pool().source(config.source_connection.as_deref()).await?;
                source.poll(&cx, &key.1, etag.as_deref()).await
            }
            .await;
            drop(counted);
            let result = match result {
                Ok(polled) => {
                    let print = match &polled {
                        Polled::Changed { map, .. } => engine.store().hasher().ok().map(|h| steps::content(map, &h)),
                        Polled::Unchanged => None,
                    };
                    Ok((polled, print))
                }
                Err(error) => {
                    if error.kind == ErrorKind::Auth {
                        engine.pool().note_refused(config.source_connection.as_deref());
                    }
                    Err((error.kind, cx.redact_told(&error.text())))
                }
            };
            // The loop may have ended.
            let _ = heard.send(Heard::Polled(key, result));
        });
    }

    /// A poll waits (the server asked for patience), or goes on.
    pub(super) fn held(&self, state: &mut State, key: &SourceKey, waiting: Option<Waiting>) {
        let Some(group) = state.groups.get_mut(key).filter(|g| g.polling) else { return };
        group.held = waiting.map(|waiting| {
            let (since, told) = group.held.as_ref().map_or_else(|| (crate::model::now(), false), |(_, since, told)| (*since, *told));
            if !told {
                let text = format!("the look at {}:{} waits: {}", key.1.environment, key.1.path, waiting.told());
                self.inner.engine.hub().notice("info", text, None);
            }
            (waiting, since, true)
        });
    }

    pub(super) fn polled(
        &self,
        state: &mut State,
        settings: &Settings,
        key: SourceKey,
        result: Result<(Polled, Option<String>), (ErrorKind, String)>,
    ) {
        let engine = &self.inner.engine;
        let interval = Duration::from_secs(settings.poll_interval_secs);
        let Some(group) = state.groups.get_mut(&key) else { return };
        group.polling = false;
        group.held = None;
        group.due = Some(Instant::now() + jitter(interval));
        match result {
            Err((ErrorKind::Cancelled, _)) => {}
            Err((kind, text)) => {
                group.failures += 1;
                if group.failures == 1 {
                    engine.hub().notice("error", format!("{}:{} could not be read: {text}", key.1.environment, key.1.path), None);
                }
                // A rejected login is not tried again on a timer: it would lock the identity.
                let pointless = matches!(kind, ErrorKind::Auth | ErrorKind::NotTheService);
                let wait = jitter(interval.saturating_mul(2u32.saturating_pow(group.failures.min(10))).min(POLL_CEILING));
                let since = group.trouble.as_ref().map_or_else(crate::model::now, |t| t.since);
                group.trouble = Some(Trouble { text, since, next: (!pointless).then(|| ahead(wait)) });
                group.due = (!pointless).then(|| Instant::now() + wait);
            }
            Ok((polled, print)) => {
                group.failures = 0;
                if group.trouble.take().is_some() {
                    engine.hub().notice("info", format!("{}:{} can be read again", key.1.environment, key.1.path), None);
                }
                let Polled::Changed { map, etag } = polled else { return };
                if settings.paused {
                    // Paused while this poll was under way: the old tag finds the change again later.
                    return;
                }
                group.etag = etag.clone();
                let cursor = crate::store::Cursor { etag, checked_at: crate::model::now(), changed_at: Some(crate::model::now()) };
                if let Err(error) = engine.store().set_cursor(&cursor_key(&key), &cursor) {
                    tracing::warn!("the source's tag could not be saved: {error}");
                }
                if let Some(print) = &print {
                    engine.store().put(&seen_key(&key), print.clone().into());
                }
                let map: Arc<SourceMap> = Arc::from(map);
                for config in &group.syncs {
                    if print.as_ref().is_some_and(|content| carried::is(engine.store(), config, content)) {
                        continue;
                    }
                    if let Some(pending) = state.pending.get_mut(&config.name) {
                        if !pending.learn(print.as_ref().map(|content| carried::mark(config, content))) {
                            continue;
                        }
                        if engine.is_busy(&config.name) {
                            pending.again = Some(print.clone().unwrap_or_default());
                            continue;
                        }
                    }
                    let started = self.submit(&config.name, Trigger::Auto, Ask::Polled(map.clone()));
                    if let Some(pending) = state.pending.get_mut(&config.name).filter(|_| !started) {
                        pending.retry = Some(Retry::after(DEBOUNCE, Trigger::Auto));
                    }
                }
            }
        }
    }
}

pub(super) fn cursor_key((account, place): &SourceKey) -> String {
    format!("{account}|{}|{}|{}|{}", place.project_id, place.environment, place.path, place.recursive)
}

/// Where the fingerprint of the content is kept that the cursor's tag stands for.
pub(super) fn seen_key(key: &SourceKey) -> String {
    format!("seen:{}", cursor_key(key))
}
