//! Log lines that machines read: a sentence for people, and beside it members of fixed names.
//!
//! | `event` | when |
//! | --- | --- |
//! | `ready`, `stopping`, `reload`, `summary` | the engine's own life |
//! | `run-queued`, `run-started` | at level DEBUG |
//! | `run-waits` | a run's wait of some seconds begins; each reason once per run |
//! | `queue` | runs wait for their turn since some seconds; once until the line is empty |
//! | `run-ended` | with status, counts, duration and requests |
//! | `notice` | everything else worth a look |

use crate::model::Time;
use crate::model::run::{Counts, RunKind, RunRecord, RunStatus, Trigger};

/// The members of a line.
#[derive(Default)]
pub struct Line<'a> {
    pub event: &'static str,
    pub sync: Option<&'a str>,
    pub run: Option<&'a str>,
    pub kind: Option<RunKind>,
    pub trigger: Option<Trigger>,
    pub status: Option<RunStatus>,
    pub counts: Option<&'a Counts>,
    pub duration_ms: Option<i64>,
    pub requests: Option<u64>,
    pub retries: Option<u64>,
    pub waited_ms: Option<u64>,
    /// Why it failed, or what it waits for.
    pub reason: Option<&'a str>,
    /// The destination's kind.
    pub provider: Option<&'a str>,
    /// When a wait ends.
    pub until: Option<Time>,
}

/// One call for each level: a level is part of a line's static description.
macro_rules! emit {
    ($level:ident, $line:ident, $text:ident) => {
        tracing::$level!(
            event = $line.event,
            sync = $line.sync,
            run = $line.run,
            kind = $line.kind.map(<&str>::from),
            trigger = $line.trigger.map(<&str>::from),
            status = $line.status.map(<&str>::from),
            counts = $line.counts.and_then(|c| serde_json::to_string(c).ok()),
            durationMs = $line.duration_ms,
            requests = $line.requests,
            retries = $line.retries,
            waitedMs = $line.waited_ms,
            reason = $line.reason,
            provider = $line.provider,
            waitingUntil = $line.until.and_then(|t| Time::from_millisecond(t.as_millisecond()).ok()).map(|t| t.to_string()),
            "{}",
            $text
        )
    };
}

impl<'a> Line<'a> {
    /// The members that tell of a run that has ended.
    pub fn ended(record: &'a RunRecord, provider: &'a str) -> Self {
        Self {
            event: "run-ended",
            sync: Some(&record.sync),
            run: Some(&record.id),
            kind: Some(record.kind),
            trigger: Some(record.trigger),
            status: Some(record.status),
            counts: Some(&record.counts),
            duration_ms: record.finished_at.map(|f| f.as_millisecond() - record.started_at.as_millisecond()),
            requests: Some(record.requests.total),
            retries: Some(record.requests.retries),
            waited_ms: Some(record.requests.waited_ms),
            reason: record.message.as_deref(),
            provider: Some(provider),
            until: None,
        }
    }

    /// Writes it. `level` is `error`, `warn` or `info`.
    pub fn log(&self, level: &str, text: &str) {
        let line = self;
        match level {
            "error" => emit!(error, line, text),
            "warn" => emit!(warn, line, text),
            _ => emit!(info, line, text),
        }
    }
}
