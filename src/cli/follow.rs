//! Starts runs and stays with them to their end; and the check for a terminal.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::access::Access;
use super::output::note;
use super::{progress, signals};
use crate::model::run::{RunRecord, RunRequest, RunStatus};
use crate::service::{Service, ServiceError, ServiceErrorKind};

/// Pause between tries to start a run that another one is in the way of.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between looks for the next engine.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// An engine that ends finishes what is in flight first: it may take this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs that were followed to their end.
pub struct Followed {
    pub records: Vec<RunRecord>,
    /// True when some were not even started; why was said on standard error.
    pub refused: bool,
}

/// What became of runs that one engine was asked for.
#[derive(Default)]
struct Round {
    /// By the place of their request.
    records: Vec<(usize, RunRecord)>,
    /// The engine ended before these did, or before they began.
    open: Vec<(usize, RunRequest)>,
    /// Some began there.
    began: bool,
    /// Why one was not started, when others were or none could be.
    refused: Option<ServiceError>,
}

/// Starts runs, shows their progress, and waits for all; a signal cancels them once. With
/// `wait` a sync that is running already is waited for.
async fn round(service: Arc<dyn Service>, requests: Vec<(usize, RunRequest)>, wait: bool) -> Round {
    let mut round = Round::default();
    let gone = |error: &ServiceError| error.kind == ServiceErrorKind::Unreachable;
    let watch = match service.watch().await {
        Ok(watch) => watch,
        Err(error) if gone(&error) => return Round { open: requests, ..round },
        Err(error) => return Round { refused: Some(error), ..round },
    };
    let shown = AbortOnDropHandle::new(tokio::spawn(progress::show(watch)));
    let stopped = CancellationToken::new();
    let signals = stopped.clone();
    let _signals = AbortOnDropHandle::new(tokio::spawn(async move {
        signals::until_stopped().await;
        note("cancelling: what is in flight is finished first");
        signals.cancel();
    }));
    let mut started = Vec::new();
    let several = requests.len() > 1;
    let together = if several { together(&*service, &requests).await } else { Vec::new() };
    let mut together = together.into_iter();
    for (at, request) in requests {
        let sync = request.sync.clone();
        let answer = match together.next() {
            Some(answer) if !busy(&answer, wait) => answer,
            _ => tokio::select! {
                answer = start(&*service, request.clone(), wait) => answer,
                () = stopped.cancelled() => Err(ServiceError::new(ServiceErrorKind::Cancelled, "stopped before it began")),
            },
        };
        match answer {
            Ok(id) => started.push((at, request, id)),
            Err(error) if gone(&error) => round.open.push((at, request)),
            Err(error) => {
                if several {
                    note(&crate::model::text::sanitise(&format!("{sync} was not started: {error}")));
                }
                round.refused.get_or_insert(error);
            }
        }
    }
    round.began = !started.is_empty();
    let all = async {
        for (at, request, id) in &started {
            match service.finished(id).await {
                // Its engine was stopped: it goes on where it stood, with the next.
                Ok(record) if record.status == RunStatus::Interrupted => round.open.push((*at, request.clone())),
                Ok(record) => round.records.push((*at, record)),
                Err(error) if gone(&error) => round.open.push((*at, request.clone())),
                Err(error) => {
                    round.refused.get_or_insert(error);
                }
            }
        }
    };
    let cancelling = async {
        stopped.cancelled().await;
        for (_, _, id) in &started {
            // A run that has just ended needs no cancelling.
            let _ = service.cancel(id).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = all => {}
        () = cancelling => {}
    }
    drop(shown);
    round
}

/// Starts runs at one service and waits for all of them.
pub async fn runs(service: Arc<dyn Service>, requests: Vec<RunRequest>) -> Result<Followed, ServiceError> {
    let round = round(service, requests.into_iter().enumerate().collect(), false).await;
    match round.refused {
        Some(error) if round.records.is_empty() => Err(error),
        refused => Ok(Followed { refused: refused.is_some(), records: round.records.into_iter().map(|(_, r)| r).collect() }),
    }
}

/// Starts runs and stays with them to their end. When the engine that was asked ends before
/// they do, the next one is asked to go on, or this process becomes it. When one cannot be
/// started, the others go on; it is an error when none could.
pub async fn to_the_end(access: &mut Access, requests: Vec<RunRequest>) -> Result<Followed, ServiceError> {
    let mut open: Vec<(usize, RunRequest)> = requests.into_iter().enumerate().collect();
    let (mut records, mut refused) = (Vec::new(), None);
    let (mut since, mut pause) = (None, PAUSE);
    loop {
        let round = round(access.service.clone(), open, access.waits()).await;
        records.extend(round.records);
        refused = refused.or(round.refused);
        open = round.open;
        if open.is_empty() {
            break;
        }
        if !access.elsewhere() {
            // The engine is this process, and it is told to end: nobody goes on here.
            refused = refused.or_else(|| Some(ServiceError::new(ServiceErrorKind::Cancelled, "kms-sync was stopped before the runs ended")));
            break;
        }
        if round.began {
            (since, pause) = (None, PAUSE);
        }
        let begun = *since.get_or_insert_with(|| {
            note("the engine that was asked has ended, or is about to; going on with the next");
            tokio::time::Instant::now()
        });
        if begun.elapsed() > PATIENCE {
            let text = format!("The engine has been ending for {} s and takes no runs: look at its log, or stop it.", PATIENCE.as_secs());
            return Err(ServiceError::new(ServiceErrorKind::Unreachable, text));
        }
        let wait = pause;
        pause = (pause * 2).min(LONGEST_PAUSE);
        tokio::select! {
            renewed = access.renew(wait) => renewed?,
            () = signals::until_stopped() => {
                refused = refused.or_else(|| Some(ServiceError::new(ServiceErrorKind::Cancelled, "stopped before it began")));
                break;
            }
        }
    }
    records.sort_by_key(|(at, _)| *at);
    let records: Vec<RunRecord> = records.into_iter().map(|(_, record)| record).collect();
    match refused {
        Some(error) if records.is_empty() => Err(error),
        refused => Ok(Followed { records, refused: refused.is_some() }),
    }
}

/// Starts what was asked for together. One answer per request.
async fn together(service: &dyn Service, requests: &[(usize, RunRequest)]) -> Vec<Result<String, ServiceError>> {
    match service.start_together(requests.iter().map(|(_, request)| request.clone()).collect()).await {
        Ok(answers) => answers,
        Err(error) => requests.iter().map(|_| Err(error.clone())).collect(),
    }
}

/// True when something is in the way of a run that it is to wait for.
fn busy(answer: &Result<String, ServiceError>, wait: bool) -> bool {
    wait && answer.as_ref().is_err_and(|e| e.kind == ServiceErrorKind::Busy)
}

async fn start(service: &dyn Service, request: RunRequest, wait: bool) -> Result<String, ServiceError> {
    let mut told = false;
    loop {
        match service.start(request.clone()).await {
            Err(error) if wait && error.kind == ServiceErrorKind::Busy => {
                if !std::mem::replace(&mut told, true) {
                    note(&format!("waiting: {error}"));
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

/// 130 when somebody cancelled, 1 when anything else than success came of it.
pub fn code(records: &[RunRecord]) -> i32 {
    if records.iter().any(|r| r.status == RunStatus::Cancelled) { 130 } else { i32::from(records.iter().any(|r| r.status != RunStatus::Succeeded)) }
}
