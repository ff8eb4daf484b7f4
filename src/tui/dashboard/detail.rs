//! Draws the details of the selected sync: overview, live run, secrets of the last run, history.

use ratatui::layout::Rect;

use super::{Dashboard, TABS, table};
use crate::destination::registry;
use crate::model::board::{Card, LiveRun, Waiting};
use crate::model::run::{Counts, Outcome, RunKind, RunRecord, RunStatus, SecretOutcome};
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::ui::{Hit, Ui};
use crate::tui::words;
use crate::tui::world::World;

/// Writes the tabs' names over the frame's line, the one in front marked.
pub fn draw_tabs(ui: &mut Ui<'_>, tab: usize, right: u16, y: u16, room: u16) {
    let wide = room > 44;
    let names: Vec<String> = TABS.iter().enumerate().map(|(n, name)| if wide { format!("{} {name}", n + 1) } else { (n + 1).to_string() }).collect();
    let total: usize = names.iter().map(|n| text::width(n) + 2).sum();
    if total + 4 > room as usize {
        return;
    }
    let mut x = right.saturating_sub(total as u16 + 1);
    for (n, name) in names.iter().enumerate() {
        let shown = if n == tab { format!("[{name}]") } else { format!(" {name} ") };
        let role = if n == tab { Role::Accent } else { Role::Text };
        let end = ui.put(x, y, &shown, role, 16);
        ui.hit(Rect::new(x, y, end - x, 1), Hit::Tab(n));
        x = end;
    }
}

/// Draws the pane's inside.
pub fn draw(ui: &mut Ui<'_>, dashboard: &Dashboard, world: &World, area: Rect) {
    if area.height == 0 || area.width < 8 {
        return;
    }
    let area = Rect { x: area.x + 1, width: area.width - 2, ..area };
    let Some(card) = dashboard.shown.as_ref().and_then(|name| world.board.cards.get(name)) else {
        if let Some(demo) = &world.demo {
            ui.paragraph(area, demo, Role::Dim);
        }
        return;
    };
    match dashboard.tab {
        0 => overview(ui, dashboard, card, world, area),
        1 => live(ui, dashboard, card, world, area),
        2 => secrets(ui, dashboard, card, area),
        _ => history(ui, dashboard, world, area),
    }
}

fn line(ui: &mut Ui<'_>, area: &mut Rect, pieces: &[(&str, Role)]) {
    if area.height > 0 {
        ui.pieces(area.x, area.y, pieces, area.width as usize);
        skip(area, 1);
    }
}

fn skip(area: &mut Rect, rows: u16) {
    let rows = rows.min(area.height);
    area.y += rows;
    area.height -= rows;
}

/// A label and its value, wrapped to at most three lines.
fn labelled(ui: &mut Ui<'_>, area: &mut Rect, label: &str, value: &str, role: Role) {
    const LABEL: u16 = 18;
    if area.height == 0 || area.width <= LABEL {
        return;
    }
    ui.put(area.x, area.y, &text::end(label, LABEL as usize - 1), Role::Dim, LABEL as usize);
    let room = Rect { x: area.x + LABEL, width: area.width - LABEL, height: area.height.min(3), ..*area };
    let used = ui.paragraph(room, value, role).max(1);
    skip(area, used);
}

fn overview(ui: &mut Ui<'_>, dashboard: &Dashboard, card: &Card, world: &World, mut area: Rect) {
    let title = registry::find(&card.destination).map_or(card.destination.as_str(), |p| p.spec().title);
    line(
        ui,
        &mut area,
        &[(&card.source_label, Role::Text), ("  →  ", Role::Dim), (&card.destination_label, Role::Text), ("  ", Role::Dim), (title, Role::Dim)],
    );
    if let Some(why) = &card.broken {
        let used = ui.paragraph(area, &format!("✗ {why}"), Role::Bad);
        return skip(&mut area, used);
    }
    let status = words::of_card(card);
    let next = match (&card.run, &card.next, world.board.engine.paused) {
        (Some(run), ..) => run.waiting.as_ref().map(|w| format!(": {}", waiting(ui, world, w))).unwrap_or_default(),
        (None, _, true) => ", all auto-syncs are paused".to_string(),
        (None, Some(next), _) => format!(", next check in {} ({})", ui.until(next.at), next.why),
        (None, None, _) => String::new(),
    };
    labelled(ui, &mut area, "Status", &format!("{} {}{next}", status.symbol, status.word), status.role);
    last_run(ui, dashboard, card, &mut area);
    let schema = card.key_schema.as_deref().unwrap_or("none: every key there is this sync's");
    labelled(ui, &mut area, "Key Schema", schema, if card.key_schema.is_some() { Role::Text } else { Role::Warn });
    labelled(ui, &mut area, "Connection", &card.connection, Role::Text);
    if let Some(doc) = &dashboard.document.value {
        let o = &doc.sync_options;
        let behavior = o.initial_sync_behavior.to_string().replace('-', " ");
        let deletes = if o.deletes() { "deletes what the source lacks" } else { "never deletes" };
        let auto = if doc.is_enabled { "auto-sync on" } else { "auto-sync off" };
        labelled(ui, &mut area, "Options", &format!("{behavior} · {auto} · {deletes}"), Role::Text);
        let spec = registry::find(&card.destination).map(|p| p.spec());
        for field in spec.map(|s| s.options).unwrap_or_default() {
            if let Some(value) = o.extra.get(field.name).filter(|v| !v.is_null() && **v != serde_json::Value::Bool(false)) {
                labelled(ui, &mut area, field.label, &plain(value), Role::Text);
            }
        }
        for field in spec.map(|s| s.config).unwrap_or_default() {
            let stored = field.label_into.and_then(|l| doc.destination_config.get(l)).or_else(|| doc.destination_config.get(field.name));
            if let Some(value) = stored {
                labelled(ui, &mut area, field.label, &plain(value), Role::Text);
            }
        }
        if let Some(keys) = doc.left_behind {
            let told = format!("{} of an earlier configuration; R takes them away", text::count(keys, "key", "keys"));
            labelled(ui, &mut area, "Left behind", &told, Role::Warn);
        }
        if let Some(text) = &doc.description {
            labelled(ui, &mut area, "Description", text, Role::Dim);
        }
    }
}

/// The last run's record, once it is here.
fn newest<'d>(dashboard: &'d Dashboard, card: &Card) -> Option<&'d RunRecord> {
    let last = card.last.as_ref()?;
    dashboard.history.value.as_ref()?.first().filter(|r| r.id == last.id)
}

fn last_run(ui: &mut Ui<'_>, dashboard: &Dashboard, card: &Card, area: &mut Rect) {
    let Some(last) = &card.last else {
        return;
    };
    let (symbol, word, role) = words::run_status(last.status);
    let when = ui.ago(last.at);
    let what = words::occasion(last.kind, newest(dashboard, card).map(|r| r.trigger));
    labelled(ui, area, "Last run", &format!("{symbol} {what} {word} {when}: {}", words::result(last.status, &last.counts)), role);
    if let Some(message) = &last.message {
        let role = if last.status == RunStatus::Succeeded { Role::Dim } else { role };
        let used = ui.paragraph(Rect { height: area.height.min(5), ..*area }, message, role);
        skip(area, used);
    }
}

/// A member's value for people; a list of pairs as `key=value`.
fn plain(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(on) => if *on { "on" } else { "off" }.into(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(pair) => format!("{}={}", pair.get("key").map(plain).unwrap_or_default(), pair.get("value").map(plain).unwrap_or_default()),
        other => other.to_string(),
    }
}

/// What is waited for, and until when.
fn waiting(ui: &mut Ui<'_>, world: &World, wait: &Waiting) -> String {
    let until = wait.until.map(|at| format!(" until {}, {} left", world.clock(at), ui.countdown(at))).unwrap_or_default();
    format!("{}{until}", wait.reason)
}

fn live(ui: &mut Ui<'_>, dashboard: &Dashboard, card: &Card, world: &World, mut area: Rect) {
    let Some(run) = &card.run else {
        return at_rest(ui, dashboard, card, area);
    };
    let phase = words::phase_sentence(run.phase);
    let what = words::occasion(run.kind, Some(run.trigger));
    gauge(ui, card, run, world, &mut area);
    match &run.waiting {
        Some(wait) => {
            let text = format!("◔ {what} waits: {}", waiting(ui, world, wait));
            let used = ui.paragraph(Rect { height: area.height.min(3), ..area }, &text, Role::Warn);
            skip(&mut area, used);
        }
        None => {
            let queue = run.queue_position.map(|n| format!(", number {n} in the queue")).unwrap_or_default();
            line(ui, &mut area, &[(&format!("◐ {what} {phase}{queue}"), Role::Accent)]);
        }
    }
    let foot = 2.min(area.height);
    let list = Rect { height: area.height - foot, ..area };
    let active = run.active.iter().map(|(key, doing)| (("◐", doing.as_str(), Role::Accent), key.as_str(), None));
    let done = run.recent.iter().rev().map(|s| (words::outcome(s.outcome), s.key.as_str(), s.reason.as_deref()));
    outcomes(ui, active.chain(done).collect(), list, dashboard.scroll);
    skip(&mut area, list.height);
    totals(ui, &run.counts, &mut area);
    let meter = format!(
        "{} same  requests {}  retries {}  waited {}",
        run.counts.unchanged,
        run.requests,
        run.retries,
        text::duration_ms(run.waited_ms as i64)
    );
    ui.put(area.x, area.y, &meter, Role::Dim, area.width as usize);
    ui.put_right(area.right(), area.y, "x cancel", Role::Dim, 10);
}

fn gauge(ui: &mut Ui<'_>, card: &Card, run: &LiveRun, world: &World, area: &mut Rect) {
    let rate = table::rate(card, world).unwrap_or_default();
    let figures =
        if run.total > 0 { format!("{} of {}  {rate:>6}", run.done.min(run.total), run.total) } else { words::phase_word(run.phase).into() };
    let width = (area.width as usize).saturating_sub(text::width(&figures) + 3).min(80);
    let filled = if run.total == 0 { 0 } else { (run.done.min(run.total) as usize * width) / run.total as usize };
    line(
        ui,
        area,
        &[
            ("[", Role::Dim),
            (&"█".repeat(filled), Role::Accent),
            (&" ".repeat(width - filled), Role::Text),
            ("] ", Role::Dim),
            (&figures, Role::Text),
        ],
    );
}

fn totals(ui: &mut Ui<'_>, counts: &Counts, area: &mut Rect) {
    let all = format!(
        "{} created  {} updated  {} recovered  {} failed  {} skipped  {} deleted",
        counts.created, counts.updated, counts.restored, counts.failed, counts.skipped, counts.deleted
    );
    line(ui, area, &[(&all, Role::Text)]);
}

fn at_rest(ui: &mut Ui<'_>, dashboard: &Dashboard, card: &Card, mut area: Rect) {
    let Some(last) = &card.last else {
        return line(ui, &mut area, &[("Nothing has run yet: s syncs now, p shows the plan.", Role::Dim)]);
    };
    let (symbol, word, role) = words::run_status(last.status);
    let when = ui.ago(last.at);
    let what = words::occasion(last.kind, newest(dashboard, card).map(|r| r.trigger));
    let text = format!("{symbol} {what} {word} {when}: {}, {} same", words::result(last.status, &last.counts), last.counts.unchanged);
    line(ui, &mut area, &[(&text, role)]);
    if let Some(message) = &last.message {
        let role = if last.status == RunStatus::Succeeded { Role::Dim } else { role };
        let used = ui.paragraph(Rect { height: area.height.min(4), ..area }, message, role);
        skip(&mut area, used);
    }
    if last.status == RunStatus::NeedsApproval {
        line(ui, &mut area, &[("A shows the keys and asks what to do with them.", Role::Warn)]);
    }
    let newest = dashboard.history.value.as_ref().and_then(|h| h.first());
    if let Some(record) = newest {
        cost(ui, record, &mut area);
        outcomes(ui, record_rows(record), area, dashboard.scroll);
    }
}

fn cost(ui: &mut Ui<'_>, record: &RunRecord, area: &mut Rect) {
    let r = &record.requests;
    let took = record.finished_at.map(|f| f.as_millisecond() - record.started_at.as_millisecond()).unwrap_or(0);
    let text =
        format!("took {}  requests {}  retries {}  waited {}", text::duration_ms(took), r.total, r.retries, text::duration_ms(r.waited_ms as i64));
    line(ui, area, &[(&text, Role::Dim)]);
}

type OutcomeRow<'a> = ((&'static str, &'a str, Role), &'a str, Option<&'a str>);

fn record_rows(record: &RunRecord) -> Vec<OutcomeRow<'_>> {
    let mut rows: Vec<&SecretOutcome> = record.secrets.iter().collect();
    // What went wrong first.
    rows.sort_by_key(|s| !matches!(s.outcome, Outcome::Failed | Outcome::Conflict | Outcome::Withheld));
    rows.into_iter().map(|s| (words::outcome(s.outcome), s.key.as_str(), s.reason.as_deref())).collect()
}

/// A line for each key: symbol, outcome, key, reason.
fn outcomes(ui: &mut Ui<'_>, rows: Vec<OutcomeRow<'_>>, area: Rect, scroll: usize) {
    let room = area.height as usize;
    let first = scroll.min(rows.len().saturating_sub(room));
    let names = (area.width as usize).saturating_sub(12);
    let longest = |texts: &mut dyn Iterator<Item = &str>| texts.map(text::width).max().unwrap_or(0);
    let key_width = text::share(names, longest(&mut rows.iter().map(|r| r.1)), longest(&mut rows.iter().filter_map(|r| r.2)));
    for (i, ((symbol, word, role), key, reason)) in rows.iter().skip(first).take(room).enumerate() {
        let y = area.y + i as u16;
        let key = text::pad(&crate::model::text::sanitise(key), if reason.is_some() { key_width } else { names });
        let word = text::pad(word, 10);
        ui.pieces(
            area.x,
            y,
            &[(symbol, *role), (" ", Role::Text), (&word, *role), (&key, Role::Text), ("  ", Role::Text), (reason.unwrap_or_default(), Role::Dim)],
            area.width as usize,
        );
    }
    if rows.len() > room && room > 0 {
        let text = format!(" {} of {}{} ", (first + room).min(rows.len()), rows.len(), if scroll == 0 { ", Enter opens" } else { "" });
        ui.put_right(area.right(), area.bottom() - 1, &text, Role::Dim, 30);
    }
}

fn secrets(ui: &mut Ui<'_>, dashboard: &Dashboard, card: &Card, mut area: Rect) {
    if let Some(run) = &card.run {
        let rows = run.recent.iter().rev().map(|s| (words::outcome(s.outcome), s.key.as_str(), s.reason.as_deref())).collect();
        return outcomes(ui, rows, area, dashboard.scroll);
    }
    if waits(ui, dashboard, area) {
        return;
    }
    let runs = dashboard.history.value.as_deref().unwrap_or_default();
    let Some(record) = runs.iter().find(|r| !r.secrets.is_empty()) else {
        return line(ui, &mut area, &[("No run has touched a secret yet: p shows what a sync would do.", Role::Dim)]);
    };
    let told = |ui: &mut Ui<'_>, run: &RunRecord| {
        let when = ui.ago(run.finished_at.unwrap_or(run.started_at));
        let (symbol, word, role) = words::run_status(run.status);
        (symbol, role, format!(" {} {word} {when}, {} same", words::occasion(run.kind, Some(run.trigger)), run.counts.unchanged))
    };
    if let Some(newest) = runs.first().filter(|newest| newest.id != record.id) {
        let (symbol, role, text) = told(ui, newest);
        line(ui, &mut area, &[(symbol, role), (&text, Role::Text), (", no secret touched; before that:", Role::Dim)]);
    }
    let (symbol, role, text) = told(ui, record);
    line(ui, &mut area, &[(symbol, role), (&text, Role::Dim)]);
    outcomes(ui, record_rows(record), area, dashboard.scroll);
}

fn waits(ui: &mut Ui<'_>, dashboard: &Dashboard, area: Rect) -> bool {
    if let Some(error) = &dashboard.history.error {
        ui.paragraph(area, &format!("✗ {} (r asks again)", error.message), Role::Bad);
        return true;
    }
    if dashboard.history.value.is_none() {
        ui.put(area.x, area.y, "asking …", Role::Dim, area.width as usize);
        return true;
    }
    false
}

fn history(ui: &mut Ui<'_>, dashboard: &Dashboard, world: &World, mut area: Rect) {
    if waits(ui, dashboard, area) {
        return;
    }
    let runs = dashboard.history.value.as_deref().unwrap_or_default();
    if runs.is_empty() {
        return line(ui, &mut area, &[("No runs yet: s syncs now.", Role::Dim)]);
    }
    spark(ui, runs, &mut area);
    let room = area.height as usize;
    let first = dashboard.scroll.min(runs.len().saturating_sub(room));
    // Most runs are syncs: why one was started says what it was.
    let what = |run: &RunRecord| match run.kind {
        RunKind::Sync => words::trigger(run.trigger).to_string(),
        kind => words::occasion(kind, Some(run.trigger)),
    };
    let status = runs.iter().map(|r| text::width(words::run_status(r.status).1)).max().unwrap_or(0);
    let occasion = runs.iter().map(|r| text::width(&what(r))).max().unwrap_or(0);
    for run in runs.iter().skip(first).take(room) {
        let (symbol, word, role) = words::run_status(run.status);
        let took = run.finished_at.map_or("running".into(), |f| text::duration_ms(f.as_millisecond() - run.started_at.as_millisecond()));
        let message = run.message.as_ref().filter(|_| run.status != RunStatus::Succeeded).map(|m| format!(": {m}")).unwrap_or_default();
        // Beside the table there is no room for both times and the result.
        let head = if area.width < 64 {
            format!("  {}  {}  ", text::pad(&ui.ago(run.started_at), 8), text::pad(&what(run), occasion))
        } else {
            format!("  {}  {} {}  ", world.date(run.started_at), text::pad(&what(run), occasion), text::right(&took, 9))
        };
        let tail = format!("{}{message}", words::result(run.status, &run.counts));
        line(ui, &mut area, &[(symbol, role), (" ", Role::Text), (&text::pad(word, status), role), (&head, Role::Text), (&tail, Role::Dim)]);
    }
}

/// Durations as bars, oldest first, and the results below them as symbols.
fn spark(ui: &mut Ui<'_>, runs: &[RunRecord], area: &mut Rect) {
    if area.height < 4 {
        return;
    }
    let cells = (area.width as usize).saturating_sub(12).min(runs.len());
    let shown: Vec<&RunRecord> = runs[..cells].iter().rev().collect();
    let took: Vec<u64> =
        shown.iter().map(|r| r.finished_at.map_or(0, |f| (f.as_millisecond() - r.started_at.as_millisecond()).max(0) as u64)).collect();
    line(ui, area, &[("durations   ", Role::Dim), (&text::sparkline(&took, cells), Role::Accent)]);
    if area.height > 0 {
        let mut x = ui.put(area.x, area.y, "results     ", Role::Dim, 12);
        for run in shown {
            let (symbol, _, role) = words::run_status(run.status);
            x = ui.put(x, area.y, symbol, role, 1);
        }
        skip(area, 1);
    }
}
