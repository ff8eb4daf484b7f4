//! Command hooks: told of results, never of secrets.
//!
//! `onFailure` runs when a sync's run fails after it had been well, `onRecovery` when it
//! succeeds again, `onChange` after each run that wrote something. The command gets the run's
//! record as JSON on standard input, without a shell, and thirty seconds.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::{Engine, Finished};
use crate::model::run::{RunKind, RunRecord, RunStatus};

/// Longest life of a hook's process.
const LIMIT: Duration = Duration::from_secs(30);
/// How many runs back a telling one is looked for.
const LOOK_BACK: usize = 20;

/// Watches run ends and starts hooks until the engine goes.
pub async fn watch(engine: Engine) {
    let mut endings = engine.endings();
    loop {
        match endings.recv().await {
            Ok(finished) => told(&engine, finished).await,
            Err(tokio::sync::broadcast::error::RecvError::Lagged(n)) => tracing::warn!("{n} results were too fast for the hooks"),
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Starts the hooks of one result and waits for them.
pub(super) async fn told(engine: &Engine, finished: Arc<Finished>) {
    let settings = engine.settings();
    let record = &finished.record;
    if matches!(record.status, RunStatus::Cancelled | RunStatus::Interrupted) || record.kind != RunKind::Sync {
        return;
    }
    let failed = record.status != RunStatus::Succeeded;
    // The run before this one decides whether a state began or ended; what was cancelled or
    // cut off says nothing about the sync's health.
    let (store, name) = (engine.store().clone(), record.sync.clone());
    let runs = super::blocking(move || store.runs(&name, LOOK_BACK)).await.unwrap_or_default();
    let telling = |r: &&RunRecord| r.kind == RunKind::Sync && !matches!(r.status, RunStatus::Cancelled | RunStatus::Interrupted);
    let before = runs.iter().skip_while(|r| r.id != record.id).skip(1).find(telling);
    let was_failing = before.is_some_and(|r| r.status != RunStatus::Succeeded);
    let mut events = Vec::new();
    if failed && !was_failing {
        events.push(("onFailure", settings.on_failure));
    }
    if !failed && was_failing {
        events.push(("onRecovery", settings.on_recovery));
    }
    if record.counts.writes() > 0 {
        events.push(("onChange", settings.on_change));
    }
    for (event, command) in events {
        let Some(command) = command.filter(|c| !c.is_empty()) else { continue };
        let body = serde_json::json!({ "event": event, "run": record }).to_string();
        if let Err(error) = run(&command, body).await {
            engine.hub().notice("warn", format!("the {event} hook {}: {error}", command[0]), Some(&record.sync));
        }
    }
}

async fn run(command: &[String], body: String) -> Result<(), String> {
    let mut child = tokio::process::Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("did not start: {e}"))?;
    let work = async {
        if let Some(mut stdin) = child.stdin.take() {
            // A hook that does not read its input is no failure.
            let _ = stdin.write_all(body.as_bytes()).await;
        }
        child.wait().await
    };
    match tokio::time::timeout(LIMIT, work).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("ended with {status}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("took longer than 30 s and was ended".into()),
    }
}
