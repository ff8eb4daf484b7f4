//! Listening to the servers' event streams: what they say is a hint to look, nothing more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Clocks, Heard, Hearing, State, jitter};
use crate::engine::Engine;
use crate::http::{Cx, ErrorKind};
use crate::source::SourceRef;

/// Listens to one server's event stream. It ends when it is dropped.
pub(super) struct Listener {
    places: Vec<SourceRef>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Listener {
    /// True when it gave up.
    pub fn over(&self) -> bool {
        self.task.is_finished()
    }
}

impl Clocks {
    /// Keeps one listener per account, on the places its syncs read from.
    pub(super) fn listen(&self, state: &mut State, heard: &Hearing) {
        let mut wanted: HashMap<String, (Vec<SourceRef>, Option<String>)> = HashMap::new();
        for ((account, place), group) in &state.groups {
            let slot = wanted.entry(account.clone()).or_default();
            slot.0.push(place.clone());
            slot.1 = group.syncs.first().and_then(|s| s.source_connection.clone());
        }
        state.listeners.retain(|account, _| wanted.contains_key(account));
        for (account, (mut places, named)) in wanted {
            places.sort_by(|a, b| (&a.project_id, &a.environment, &a.path).cmp(&(&b.project_id, &b.environment, &b.path)));
            if state.listeners.get(&account).is_some_and(|l| l.places == places) {
                continue;
            }
            let stop = self.inner.stop.child_token();
            let work = listening(self.inner.engine.clone(), account.clone(), named, places.clone(), stop.clone(), heard.clone());
            let task = tokio::spawn(work);
            state.listeners.insert(account, Listener { places, stop, task });
        }
    }
}

/// Turns a server's events into hints. Ends when the server offers none.
async fn listening(engine: Engine, account: String, named: Option<String>, places: Vec<SourceRef>, stop: CancellationToken, heard: Hearing) {
    let cx = Cx::new(stop.clone(), Arc::new(|_| {}));
    let mut failures = 0u32;
    while !stop.is_cancelled() {
        let result = match engine.pool().source(named.as_deref()).await {
            Ok((_, source)) => source.hint(&cx, &places).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(None) => return,
            Ok(Some(changes)) => {
                failures = 0;
                if heard.send(Heard::Hint(account.clone(), changes)).is_err() {
                    return;
                }
            }
            Err(error) if matches!(error.kind, ErrorKind::Auth | ErrorKind::Permission | ErrorKind::Invalid | ErrorKind::NotTheService) => {
                tracing::debug!("no hints from the KMS: {}", error.text());
                return;
            }
            Err(_) => {
                failures += 1;
                let wait = Duration::from_secs(2u64.saturating_pow(failures.min(6))).min(Duration::from_secs(60));
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(jitter(wait)) => {}
                }
            }
        }
    }
}
