//! Progress of runs on standard error: a bar on a terminal, plain lines otherwise.

use std::collections::{HashMap, HashSet};
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::broadcast::error::RecvError;

use super::output::note;
use crate::model::board::{Event, Phase};
use crate::model::text::sanitise;
use crate::service::{Service, Watch};

/// Lines at most this often per sync when there is no terminal.
const QUIET: Duration = Duration::from_secs(5);

/// A wait that lasts more than a second is told; it has so many seconds or more by the clock.
const LONG: i64 = 2;

/// Different waits of one run that are told.
const REASONS: usize = 20;

/// Shows runs until it is dropped or the events end.
pub async fn show(mut watch: Watch) {
    if std::io::stderr().is_terminal() { bars(&mut watch).await } else { lines(&mut watch).await }
}

/// Waits for the answer to a question, and says meanwhile what it waits for itself. With `sync`
/// only what is told of that one is taken for it, where others ask, too.
pub async fn told<T>(service: &dyn Service, sync: Option<&str>, question: impl Future<Output = T>) -> T {
    let telling = async {
        let mut told = HashSet::new();
        // Who cannot be watched answers all the same.
        if let Ok(mut watch) = service.watch().await {
            loop {
                match watch.events.recv().await {
                    Ok(Event::Waiting { sync: of, waiting: Some(waiting) })
                        if sync.is_none_or(|s| s == of) && waiting.lasts(LONG) && told.len() < REASONS && told.insert(waiting.plain()) =>
                    {
                        note(&format!("{}: waits: {}", sanitise(&of), sanitise(&waiting.told())));
                    }
                    Err(RecvError::Closed) => break,
                    _ => {}
                }
            }
        }
        std::future::pending::<T>().await
    };
    tokio::select! {
        // Watched first: the question may wait at once.
        biased;
        never = telling => never,
        answer = question => answer,
    }
}

async fn bars(watch: &mut Watch) {
    let multi = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    let style = ProgressStyle::with_template("{prefix:<24} [{bar:30}] {pos:>6}/{len:<6} {per_sec:>8}  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let mut bars: HashMap<String, ProgressBar> = HashMap::new();
    loop {
        let event = match watch.events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        watch.board.apply(&event);
        match &event {
            Event::Run { sync, .. } if !bars.contains_key(sync) => {
                let bar = multi.add(ProgressBar::new(0).with_style(style.clone()).with_prefix(sanitise(sync)));
                bars.insert(sync.clone(), bar);
            }
            Event::Finished { sync, .. } => {
                if let Some(bar) = bars.remove(sync) {
                    bar.finish_and_clear();
                }
            }
            _ => {}
        }
        for (sync, bar) in &bars {
            let Some(run) = watch.board.cards.get(sync).and_then(|c| c.run.as_ref()) else { continue };
            bar.set_length(run.total);
            bar.set_position(run.done.min(run.total));
            let message = match &run.waiting {
                Some(waiting) => sanitise(&waiting.told()),
                None => run.phase.to_string().replace('-', " "),
            };
            if bar.message() != message {
                bar.set_message(message);
            }
        }
    }
}

async fn lines(watch: &mut Watch) {
    let mut said: HashMap<String, std::time::Instant> = HashMap::new();
    // Thirty operations that wait for one thing are one wait.
    let mut waits: HashMap<String, HashSet<String>> = HashMap::new();
    loop {
        let event = match watch.events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        watch.board.apply(&event);
        match &event {
            Event::Run { sync, run } if run.phase != Phase::Queued => {
                said.insert(sync.clone(), std::time::Instant::now());
                note(&format!("{}: {} started", sanitise(sync), run.kind));
            }
            Event::Queue { sync, position: Some(n) } if said.insert(sync.clone(), std::time::Instant::now()).is_none() => {
                note(&format!("{}: queued, number {n}", sanitise(sync)));
            }
            Event::Waiting { sync, waiting: Some(waiting) } => {
                // A wait that lasts is worth a line; short ones would flood the log.
                let told = waits.entry(sync.clone()).or_default();
                // Figures that change are no new reason.
                if waiting.lasts(LONG) && told.len() < REASONS && told.insert(waiting.plain()) {
                    note(&format!("{}: waits: {}", sanitise(sync), sanitise(&waiting.told())));
                }
            }
            Event::Done { sync, .. } => {
                let due = said.get(sync).is_none_or(|t| t.elapsed() >= QUIET);
                if let Some(run) = watch.board.cards.get(sync).and_then(|c| c.run.as_ref()).filter(|_| due) {
                    said.insert(sync.clone(), std::time::Instant::now());
                    note(&format!("{}: {} of {}", sanitise(sync), run.done, run.total));
                }
            }
            Event::Finished { sync, .. } => {
                waits.remove(sync);
                said.remove(sync);
            }
            _ => {}
        }
    }
}
