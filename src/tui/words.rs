//! The words and symbols of statuses, outcomes and results. A status is a symbol and a word.

use super::fx::Level;
use super::theme::Role;
use crate::model::board::{Card, LiveRun, Phase};
use crate::model::plan::Action;
use crate::model::run::{Counts, Outcome, RunKind, RunRecord, RunStatus, Trigger};

/// How a sync stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub symbol: &'static str,
    pub word: String,
    pub role: Role,
    /// What needs the operator sorts first.
    pub rank: u8,
}

fn status(symbol: &'static str, word: impl Into<String>, role: Role, rank: u8) -> Status {
    Status { symbol, word: word.into(), role, rank }
}

/// The status of a card.
pub fn of_card(card: &Card) -> Status {
    if card.broken.is_some() {
        return status("✗", "broken", Role::Bad, 1);
    }
    if let Some(run) = &card.run {
        return of_run(run);
    }
    if card.enabled && card.next.as_ref().is_some_and(|n| n.unread) {
        return status("✗", "no source", Role::Bad, 1);
    }
    match card.last.as_ref().map(|l| l.status) {
        Some(RunStatus::NeedsApproval) => status("?", "approve", Role::Warn, 0),
        Some(RunStatus::Failed) => status("✗", "failed", Role::Bad, 1),
        Some(RunStatus::Interrupted) => status("✗", "interrupted", Role::Bad, 1),
        Some(RunStatus::Cancelled) => status("⊘", "cancelled", Role::Warn, 4),
        Some(RunStatus::Succeeded) if card.last.as_ref().is_some_and(|l| l.kind == RunKind::Remove) => status("○", "removed", Role::Dim, 6),
        Some(RunStatus::Succeeded) if card.enabled && card.next.as_ref().is_some_and(|n| n.drifted) => status("!", "drifted", Role::Warn, 2),
        Some(RunStatus::Succeeded) if card.enabled => status("✓", "in sync", Role::Good, 5),
        None if card.enabled => status("○", "new", Role::Text, 4),
        _ => status("‖", "manual", Role::Dim, 6),
    }
}

fn of_run(run: &LiveRun) -> Status {
    if run.waiting.is_some() && run.phase != Phase::Queued {
        return status("◔", "waiting", Role::Warn, 2);
    }
    match run.phase {
        Phase::Queued => status("◔", run.queue_position.map_or("queued".into(), |n| format!("queued {n}")), Role::Warn, 3),
        Phase::Applying | Phase::Settling | Phase::Importing if run.total > 0 => {
            status("◐", format!("{}/{}", run.done.min(run.total), run.total), Role::Accent, 3)
        }
        phase => status("◐", phase_word(phase), Role::Accent, 3),
    }
}

/// A short word for a phase.
pub fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Queued => "queued",
        Phase::ReadingSource => "reading",
        Phase::ReadingDestination => "listing",
        Phase::Importing => "importing",
        Phase::Planning => "planning",
        Phase::Applying => "writing",
        Phase::Settling => "settling",
        Phase::Finishing => "finishing",
    }
}

/// A sentence for a phase.
pub fn phase_sentence(phase: Phase) -> &'static str {
    match phase {
        Phase::Queued => "waits for its turn",
        Phase::ReadingSource => "reads the secrets from Hanzo KMS",
        Phase::ReadingDestination => "lists what the destination holds",
        Phase::Importing => "imports secrets from the destination",
        Phase::Planning => "works out what differs",
        Phase::Applying => "writes to the destination",
        Phase::Settling => "waits for secrets between two states",
        Phase::Finishing => "records the result",
    }
}

/// Symbol, word and role of an outcome.
pub fn outcome(outcome: Outcome) -> (&'static str, &'static str, Role) {
    match outcome {
        Outcome::Created => ("✓", "created", Role::Good),
        Outcome::Updated => ("✓", "updated", Role::Good),
        Outcome::Restored => ("↺", "recovered", Role::Good),
        Outcome::Deleted => ("✓", "deleted", Role::Good),
        Outcome::Imported => ("✓", "imported", Role::Good),
        Outcome::Skipped => ("–", "skipped", Role::Dim),
        Outcome::Conflict => ("!", "conflict", Role::Bad),
        Outcome::Failed => ("✗", "failed", Role::Bad),
        Outcome::Withheld => ("?", "asks", Role::Warn),
        Outcome::NotReached => ("○", "not yet", Role::Dim),
    }
}

/// Symbol, word and role of a planned change.
pub fn action(action: Action) -> (&'static str, &'static str, Role) {
    match action {
        Action::Create => ("+", "create", Role::Good),
        Action::Update => ("~", "update", Role::Warn),
        Action::Restore => ("↺", "recover", Role::Good),
        Action::Delete => ("-", "delete", Role::Bad),
        Action::Import => ("←", "import", Role::Accent),
    }
}

/// Symbol and role of a run's end.
pub fn run_status(status: RunStatus) -> (&'static str, &'static str, Role) {
    match status {
        RunStatus::Succeeded => ("✓", "succeeded", Role::Good),
        RunStatus::Failed => ("✗", "failed", Role::Bad),
        RunStatus::Cancelled => ("⊘", "cancelled", Role::Warn),
        RunStatus::Interrupted => ("✗", "interrupted", Role::Bad),
        RunStatus::NeedsApproval => ("?", "needs approval", Role::Warn),
    }
}

/// What a kind of run is called.
pub fn kind(kind: RunKind) -> &'static str {
    match kind {
        RunKind::Sync => "sync",
        RunKind::Import => "import",
        RunKind::Remove => "removal",
    }
}

/// Why a run was started.
pub fn trigger(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::Manual => "by hand",
        Trigger::Auto => "source changed",
        Trigger::Created => "first run",
        Trigger::Drift => "drift check",
    }
}

/// `3 created, 1 failed`, without zeros.
pub fn counts(counts: &Counts) -> String {
    let what = touched(counts);
    if what.is_empty() { "nothing to change".into() } else { what }
}

/// What a finished run did. One that was cut off does not know whether there was more to change.
pub fn result(status: RunStatus, counted: &Counts) -> String {
    if status == RunStatus::Succeeded {
        return counts(counted);
    }
    let what = touched(counted);
    if what.is_empty() { "nothing was changed".into() } else { what }
}

/// The counts that are not zero; empty when all are.
fn touched(counts: &Counts) -> String {
    let parts = [
        (counts.created, "created"),
        (counts.updated, "updated"),
        (counts.restored, "recovered"),
        (counts.deleted, "deleted"),
        (counts.imported, "imported"),
        (counts.skipped, "skipped"),
        (counts.failed, "failed"),
    ];
    let shown: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    shown.join(", ")
}

/// A kind of run and why it was started, where that is known.
pub fn occasion(kind_of_run: RunKind, why: Option<Trigger>) -> String {
    why.map_or_else(|| kind(kind_of_run).to_string(), |t| format!("{} ({})", kind(kind_of_run), trigger(t)))
}

/// Why a run waits, for a row that names the destination already: without the service's name
/// before it, and without what stands in brackets.
pub fn brief(reason: &str) -> &str {
    let said = match reason.split_once(' ') {
        Some((service, said)) if service.ends_with(':') || said.starts_with("answered ") || said.starts_with("asked ") => said,
        _ => reason,
    };
    said.split('(').next().unwrap_or_default().trim()
}

/// The line about a finished run.
pub fn finished(sync: &str, record: &RunRecord) -> (Level, String) {
    let what = result(record.status, &record.counts);
    let message = record.message.as_deref().map(|m| format!(": {m}")).unwrap_or_default();
    match (record.status, record.kind) {
        (RunStatus::Succeeded, RunKind::Sync) if record.trigger == Trigger::Drift => {
            let found = if record.counts.writes() > 0 { format!("drift check repaired: {what}") } else { "drift check, nothing to repair".into() };
            (Level::Good, format!("{sync}: {found}"))
        }
        (RunStatus::Succeeded, RunKind::Sync) => (Level::Good, format!("{sync} in sync: {what}")),
        (RunStatus::Succeeded, k) => (Level::Good, format!("{sync} {} done: {what}", kind(k))),
        (RunStatus::Failed, _) => (Level::Bad, format!("{sync} failed{message}")),
        (RunStatus::Cancelled, _) => (Level::Warn, format!("{sync} cancelled: {what}")),
        (RunStatus::Interrupted, _) => (Level::Bad, format!("{sync} was interrupted{message}")),
        (RunStatus::NeedsApproval, _) => (Level::Warn, format!("{sync} asks for your decision (A){message}")),
    }
}

/// Symbol and role of a log level.
pub fn level(level: Level) -> (&'static str, Role) {
    match level {
        Level::Info => ("·", Role::Text),
        Level::Good => ("✓", Role::Good),
        Level::Warn => ("!", Role::Warn),
        Level::Bad => ("✗", Role::Bad),
    }
}
