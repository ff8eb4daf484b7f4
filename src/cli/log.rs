//! The log: lines for people, or one JSON object a line for collectors.
//!
//! The members of a JSON line are fixed: `timestamp`, `level` and `message` on every line, the
//! others (see [`crate::engine::lines`]) where they apply. Text lines carry the message, which says
//! the same in words, and such members as it does not hold.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling::{Builder, Rotation};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::args::LogFormat;

/// Members that a text line leaves out: its message says the same in words.
const FOR_MACHINES: &[&str] = &[
    "event",
    "sync",
    "run",
    "kind",
    "trigger",
    "status",
    "counts",
    "durationMs",
    "requests",
    "retries",
    "waitedMs",
    "reason",
    "provider",
    "waitingUntil",
    "succeeded",
    "all",
];

/// True while messages for people are lines of the log, too.
static HOLDS_NOTES: AtomicBool = AtomicBool::new(false);

/// True when a note belongs into the log.
pub fn holds_notes() -> bool {
    HOLDS_NOTES.load(Ordering::Relaxed)
}

/// Writes each event as one line.
struct Lines<W> {
    writer: W,
    format: LogFormat,
}

/// Gathers an event's members.
#[derive(Default)]
struct Members {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Members {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            // An object, written down by the caller.
            ("counts", Value::String(text)) => self.others.push(("counts", serde_json::from_str(&text).unwrap_or(Value::String(text)))),
            (name, value) => self.others.push((name, value)),
        }
    }
}

impl Visit for Members {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

/// One event as a line, without its end.
fn line(format: LogFormat, at: &str, level: &str, members: Members) -> String {
    let Members { message, others } = members;
    match format {
        LogFormat::Json => {
            // People look at these lines, too: what they look for first stands first.
            let head = [("timestamp", Value::from(at)), ("level", level.into()), ("message", message.into())];
            let members = head.into_iter().chain(others).map(|(name, value)| format!("{}:{value}", Value::from(name)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        LogFormat::Text => {
            let mut text = format!("{at} {level:>5} {}", crate::model::text::sanitise(&message).replace('\n', " "));
            for (name, value) in others {
                let shown = value.as_str().map_or_else(|| value.to_string(), str::to_string);
                let told = FOR_MACHINES.contains(&name) && (name != "sync" || message.contains(&shown));
                if !told {
                    text.push_str(&format!(" {name}={}", crate::model::text::sanitise(&shown).replace('\n', " ")));
                }
            }
            text
        }
    }
}

impl<S: Subscriber, W: for<'w> MakeWriter<'w> + 'static> Layer<S> for Lines<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut members = Members::default();
        event.record(&mut members);
        let mut text = line(self.format, &crate::model::now().to_string(), event.metadata().level().as_str(), members);
        text.push('\n');
        // A log that cannot be written must not end the work.
        let _ = self.writer.make_writer().write_all(text.as_bytes());
    }
}

/// Log lines in files of the state directory, a week of them: the terminal belongs to the
/// screens. The answer writes what is left when it is dropped.
pub fn to_file(state: &std::path::Path) -> Option<WorkerGuard> {
    // Before the appender looks into it: it complains on the terminal that is not its own.
    std::fs::create_dir_all(state.join("log")).ok()?;
    let files =
        Builder::new().rotation(Rotation::DAILY).filename_prefix("kms-sync").filename_suffix("log").max_log_files(7).build(state.join("log")).ok()?;
    let (writer, guard) = tracing_appender::non_blocking(files);
    let lines = Lines { writer, format: LogFormat::Text };
    let started = tracing_subscriber::registry().with(lines.with_filter(EnvFilter::new("kms_sync=info"))).try_init();
    started.ok().map(|()| guard)
}

/// Log lines on standard error. With `notes` whatever else is said there is a line of the log, too.
pub fn to_stderr(verbose: u8, format: LogFormat, notes: bool) {
    let level = match verbose {
        0 => "kms_sync=info",
        1 => "kms_sync=debug",
        _ => "kms_sync=trace",
    };
    let lines = Lines { writer: std::io::stderr, format };
    // A second call in one process (tests) keeps the first.
    if tracing_subscriber::registry().with(lines.with_filter(EnvFilter::new(level))).try_init().is_ok() {
        HOLDS_NOTES.store(notes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Members {
        let others = vec![("event", "run-ended".into()), ("sync", "web".into()), ("durationMs", 12.into()), ("why", "x\u{1b}[2J".into())];
        Members { message: "web: 1 created\nand more".into(), others }
    }

    #[test]
    fn a_json_line_holds_every_member_and_a_text_line_what_its_message_does_not_say() {
        let json = line(LogFormat::Json, "2026-01-01T00:00:00Z", "INFO", members());
        let parsed: Value = serde_json::from_str(&json).expect("JSON");
        assert!(!json.contains('\n'));
        assert_eq!(parsed["message"], "web: 1 created\nand more");
        assert_eq!((&parsed["durationMs"], &parsed["sync"]), (&Value::from(12), &Value::from("web")));
        let text = line(LogFormat::Text, "2026-01-01T00:00:00Z", "INFO", members());
        assert!(text.starts_with("2026-01-01T00:00:00Z  INFO web: 1 created"), "{text}");
        assert!(!text.contains("run-ended") && text.contains(" why=x") && !text.contains('\u{1b}') && !text.contains('\n'), "{text:?}");
        let unnamed = Members { message: "an automatic run was not started".into(), others: vec![("sync", "web".into())] };
        assert!(line(LogFormat::Text, "t", "WARN", unnamed).ends_with("not started sync=web"));
    }
}
