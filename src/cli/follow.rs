//! Starts runs and stays with them to their end; and the check for a terminal.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::access::Access;
use super::output::note;
use super::{progress, serve};
use crate::model::run::{RunRecord, RunRequest};
use crate::service::{Service, ServiceError, ServiceErrorKind};

/// Pause between tries to start a run that another one is in the way of.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs that were followed to their end.
pub struct Followed {
    pub records: Vec<RunRecord>,
    /// True when some were not even started; why was said on standard error.
    pub refused: bool,
}

/// Starts runs, shows their progress, and waits for all; a signal cancels them once. With
/// `wait` a sync that is running already is waited for. When one cannot be started, the
/// others go on; it is an error when none could, or when the engine has gone.
pub async fn runs(service: Arc<dyn Service>, requests: Vec<RunRequest>, wait: bool) -> Result<Followed, ServiceError> {
    let watch = service.watch().await?;
    let shown = AbortOnDropHandle::new(tokio::spawn(progress::show(watch)));
    let stopped = CancellationToken::new();
    let signals = stopped.clone();
    let _signals = AbortOnDropHandle::new(tokio::spawn(async move {
        serve::until_stopped().await;
        note("cancelling: what is in flight is finished first");
        signals.cancel();
    }));
    let mut ids = Vec::new();
    let mut early = None;
    for request in requests {
        let sync = request.sync.clone();
        let started = tokio::select! {
            started = start(&*service, request, wait) => started,
            () = stopped.cancelled() => Err(ServiceError::new(ServiceErrorKind::Cancelled, "stopped before it began")),
        };
        match started {
            Ok(id) => ids.push(id),
            Err(error) => {
                if !ids.is_empty() || early.is_some() {
                    note(&crate::model::text::sanitise(&format!("{sync} was not started: {error}")));
                }
                early = Some(early.unwrap_or(error));
            }
        }
    }
    let all = async {
        let mut records = Vec::new();
        for id in &ids {
            records.push(service.finished(id).await?);
        }
        Ok::<_, ServiceError>(records)
    };
    let cancelling = async {
        stopped.cancelled().await;
        for id in &ids {
            // A run that has just ended needs no cancelling.
            let _ = service.cancel(id).await;
        }
        std::future::pending::<()>().await;
    };
    let records = tokio::select! {
        records = all => records?,
        () = cancelling => Vec::new(),
    };
    drop(shown);
    match early {
        Some(error) if records.is_empty() || error.kind == ServiceErrorKind::Unreachable => Err(error),
        early => Ok(Followed { records, refused: early.is_some() }),
    }
}

/// Like [`runs`]; when the engine that was asked ends, the next one is asked to go on.
pub async fn to_the_end(access: &mut Access, requests: Vec<RunRequest>) -> Result<Followed, ServiceError> {
    loop {
        match runs(access.service.clone(), requests.clone(), access.waits()).await {
            // A run that ended with its engine goes on where it stood.
            Err(gone) if gone.kind == ServiceErrorKind::Unreachable && access.elsewhere() => {
                note("the engine that was asked has ended; going on with the next");
                access.renew().await?;
            }
            ended => return ended,
        }
    }
}

async fn start(service: &dyn Service, request: RunRequest, wait: bool) -> Result<String, ServiceError> {
    let mut told = false;
    loop {
        match service.start(request.clone()).await {
            Err(busy) if wait && busy.kind == ServiceErrorKind::Busy => {
                if !std::mem::replace(&mut told, true) {
                    note(&format!("waiting: {busy}"));
                }
                tokio::time::sleep(PAUSE).await;
            }
            started => return started,
        }
    }
}

/// The terminal app cannot be drawn into a file.
pub fn needs_terminal() -> Result<(), ServiceError> {
    if std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(ServiceError::new(ServiceErrorKind::Invalid, "The terminal app needs a terminal; `kms-sync --help` lists the commands for scripts."))
}
