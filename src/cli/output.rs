//! Standard output: JSON documents and plain tables.

use std::io::{IsTerminal, Write};

use serde::Serialize;
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use crate::model::json::List;
use crate::model::plan::{Action, PlanDoc};
use crate::model::run::{Outcome, RunRecord, RunStatus};
use crate::model::text::sanitise;
use crate::service::ServiceError;
use crate::store::{Broken, Loaded};

/// Where and how results are printed.
pub struct Out {
    pub json: bool,
    pub colour: bool,
}

impl Out {
    /// JSON or text; colour only on a terminal that wants it.
    pub fn new(json: bool, no_color: bool) -> Self {
        Self { json, colour: !json && !no_color && std::io::stdout().is_terminal() }
    }

    /// Prints a failure: as the document of `--json`, or on standard error.
    pub fn error(&self, error: &ServiceError) {
        if self.json {
            print_json(&error_document(error));
            return;
        }
        // A message that says more than the rules names a file.
        if error.fields.is_empty() || error.message != error.fields.to_string() {
            note(&format!("error: {}", sanitise(&error.message)));
        } else {
            for problem in &error.fields.0 {
                let field = if problem.field.is_empty() { "document" } else { &problem.field };
                note(&format!("error: {}: {} [{}]", sanitise(field), sanitise(&problem.message), problem.rule));
            }
        }
    }

    /// Prints lines of text.
    pub fn text(&self, text: &str) {
        print_text(text);
    }

    /// Colours a status word.
    pub fn status(&self, status: RunStatus) -> String {
        let (symbol, code) = match status {
            RunStatus::Succeeded => ("✓", "32"),
            RunStatus::Failed => ("✗", "31"),
            RunStatus::Cancelled => ("–", "2"),
            RunStatus::Interrupted => ("!", "33"),
            RunStatus::NeedsApproval => ("?", "33"),
        };
        let word = format!("{symbol} {status}");
        if self.colour { format!("\u{1b}[{code}m{word}\u{1b}[0m") } else { word }
    }
}

/// `{"error":{kind,message,fields}}`.
pub fn error_document(error: &ServiceError) -> Value {
    json!({"error": {"kind": error.kind.to_string(), "message": error.message, "fields": error.fields.0}})
}

/// One JSON document, pretty, with a newline.
pub fn print_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print_text(&text),
        Err(error) => note(&format!("error: the result could not be printed: {error}")),
    }
}

/// The files of a listing that cannot be used, by name, each said on standard error.
pub fn tell_broken<T>(all: Vec<Loaded<T>>) -> Vec<(String, Broken)> {
    let broken: Vec<_> = all.into_iter().filter_map(|l| l.result.err().map(|why| (l.name, why))).collect();
    for (_, why) in &broken {
        note(&format!("error: {}", crate::model::text::sanitise(&why.to_string())));
    }
    broken
}

/// Prints a list with, where there are such, the files that cannot be used; answers the exit code.
pub fn print_list(member: &str, all: &impl serde::Serialize, broken: &[(String, Broken)]) -> i32 {
    let broken: Vec<Value> = broken
        .iter()
        .map(|(name, b)| json!({"name": name, "path": b.path.display().to_string(), "reason": b.reason, "fix": b.fix, "fields": b.problems.0}))
        .collect();
    print_json(&List { member, all, broken: &broken });
    i32::from(!broken.is_empty())
}

/// True once a result could not be written (a full disk).
pub static LOST: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Text to standard output. A closed pipe ends the output, not the program.
pub fn print_text(text: &str) {
    let mut out = std::io::stdout().lock();
    let newline: &[u8] = if text.ends_with('\n') { b"" } else { b"\n" };
    let written = out.write_all(text.as_bytes()).and_then(|()| out.write_all(newline)).and_then(|()| out.flush());
    if let Err(error) = written
        && error.kind() != std::io::ErrorKind::BrokenPipe
        && !LOST.swap(true, std::sync::atomic::Ordering::Relaxed)
    {
        note(&format!("error: the result could not be written to standard output: {error}"));
    }
}

/// A line to standard error; of the log, where the log is there.
pub fn note(text: &str) {
    if !super::log::holds_notes() {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    } else if let Some(error) = text.strip_prefix("error: ") {
        tracing::error!(event = "notice", "{error}");
    } else if let Some(warning) = text.strip_prefix("warning: ") {
        tracing::warn!(event = "notice", "{warning}");
    } else {
        tracing::info!(event = "notice", "{text}");
    }
}

/// A table with a header; columns as wide as their widest cell.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|r| r.iter().map(|c| sanitise_keeping_colour(c)).collect()).collect();
    let mut widths: Vec<usize> = header.iter().map(|h| h.width()).collect();
    for row in &rows {
        for (i, cell) in row.iter().enumerate() {
            widths[i] = widths[i].max(visible_width(cell));
        }
    }
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = (usize, &str)>| {
        let mut text = String::new();
        for (i, cell) in cells {
            text.push_str(cell);
            text.push_str(&" ".repeat(widths[i] - visible_width(cell) + 2));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&mut header.iter().enumerate().map(|(i, h)| (i, *h)));
    for row in &rows {
        line(&mut row.iter().enumerate().map(|(i, c)| (i, c.as_str())));
    }
    out
}

fn visible_width(text: &str) -> usize {
    let mut width = 0;
    let mut rest = text;
    while let Some(at) = rest.find('\u{1b}') {
        width += rest[..at].width();
        rest = rest[at..].find('m').map_or("", |end| &rest[at + end + 1..]);
    }
    width + rest.width()
}

/// Our own colour codes stay, everything else is made visible.
fn sanitise_keeping_colour(cell: &str) -> String {
    let inner = cell.strip_prefix("\u{1b}[").and_then(|c| c.strip_suffix("\u{1b}[0m")).and_then(|c| c.split_once('m'));
    match inner {
        Some((code, text)) if code.chars().all(|c| c.is_ascii_digit()) => format!("\u{1b}[{code}m{}\u{1b}[0m", sanitise(text)),
        _ => sanitise(cell),
    }
}

/// A finished run as text.
pub fn run_text(out: &Out, record: &RunRecord) -> String {
    let mut text = format!("{}  {}\n", out.status(record.status), sanitise(&crate::engine::summary(record)));
    for secret in record.secrets.iter().filter(|s| attention(s.outcome)).take(50) {
        let reason = secret.reason.as_deref().unwrap_or_default();
        text.push_str(&format!("   {:<12} {}  {}\n", secret.outcome.to_string(), sanitise(&secret.key), sanitise(reason)));
    }
    if let Some(told) = record.message.as_ref().filter(|_| record.status == RunStatus::Succeeded) {
        text.push_str(&format!("   {}\n", sanitise(told)));
    }
    let r = &record.requests;
    text.push_str(&format!("   {} requests, {} retries, waited {:.1} s\n", r.total, r.retries, r.waited_ms as f64 / 1000.0));
    text
}

fn attention(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Failed | Outcome::Conflict | Outcome::Withheld | Outcome::Skipped | Outcome::NotReached)
}

/// A plan as text; values are never part of it.
pub fn plan_text(plan: &PlanDoc) -> String {
    let mut text = String::new();
    for change in &plan.changes {
        let sign = match change.action {
            Action::Create => "+",
            Action::Update => "~",
            Action::Restore => "↺",
            Action::Delete => "-",
            Action::Import => "<",
        };
        let asks = plan.needs_approval.iter().any(|a| a.key == change.key);
        let reason = change.reason.as_deref().map(|r| format!("  {}", sanitise(r))).unwrap_or_default();
        text.push_str(&format!("{sign} {}{reason}{}\n", sanitise(&change.key), if asks { "  (asks first)" } else { "" }));
    }
    for skipped in &plan.skipped {
        let key = skipped.key.as_deref().or(skipped.source_key.as_deref()).unwrap_or_default();
        text.push_str(&format!("· {}  skipped: {}\n", sanitise(key), sanitise(&skipped.reason)));
    }
    for conflict in &plan.conflicts {
        text.push_str(&format!("! {}  {}\n", sanitise(&conflict.keys.join(", ")), sanitise(&conflict.reason)));
    }
    for warning in &plan.warnings {
        text.push_str(&format!("! {}\n", sanitise(warning)));
    }
    for approval in &plan.needs_approval {
        text.push_str(&format!("? {}  {}\n", sanitise(&approval.key), sanitise(&approval.reason)));
    }
    let n = |a| plan.count(a);
    text.push_str(&format!(
        "{}: {} to create, {} to update, {} to restore, {} to delete, {} to import, {} unchanged; {} requests\n",
        plan.sync,
        n(Action::Create),
        n(Action::Update),
        n(Action::Restore),
        n(Action::Delete),
        n(Action::Import),
        plan.unchanged,
        plan.requests.total,
    ));
    text
}
