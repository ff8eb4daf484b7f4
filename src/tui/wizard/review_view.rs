//! Draws the Review step: every value, the plan, the warnings, the buttons; or the JSON.

use ratatui::layout::Rect;
use serde_json::Value;

use super::Wizard;
use super::review::Stage;
use crate::model::Time;
use crate::model::board::Waiting;
use crate::model::plan::{Action, PlanDoc};
use crate::tui::form::view::{MASK, draw_buttons};
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::ui::Ui;
use crate::tui::words;
use crate::tui::world::World;

/// One drawn row: pieces with roles.
pub type Row = Vec<(String, Role)>;

fn row(pieces: &[(&str, Role)]) -> Row {
    pieces.iter().map(|(t, r)| ((*t).to_string(), *r)).collect()
}

/// Draws below the header of steps; `frame` is the whole frame, for the lines through it.
pub fn draw(ui: &mut Ui<'_>, wizard: &Wizard, world: &World, area: Rect, frame: Rect) {
    if wizard.review.json {
        return draw_json(ui, wizard, world, area);
    }
    let buttons = Rect { y: area.bottom().saturating_sub(1), height: 1, ..area };
    let summary = summary(wizard, area.width as usize);
    let warnings = warnings(wizard, area.width as usize);
    let most = area.height / 4;
    // Warnings that do not fit in a box of their own go on below the plan, where they can be scrolled to.
    let (warning_rows, more) = if warnings.len() as u16 > most { (0, warnings.as_slice()) } else { (warnings.len() as u16, &[][..]) };
    let summary_rows = (summary.len() as u16).min(area.height / 2);
    for (i, pieces) in summary.iter().take(summary_rows as usize).enumerate() {
        put(ui, pieces, area.x, area.y + i as u16, area.width);
    }
    let y = area.y + summary_rows;
    let note = wizard.review.plan.value.as_ref().map(|p| totals(p, area.width as usize)).unwrap_or_default();
    ui.divider(frame, y, "Plan", &note);
    let below = 1 + if warning_rows > 0 { warning_rows + 1 } else { 0 };
    let plan = Rect { y: y + 1, height: area.bottom().saturating_sub(y + 1 + below), ..area };
    draw_plan(ui, wizard, more, plan);
    if warning_rows > 0 {
        ui.divider(frame, plan.bottom(), "Warnings", "");
        for (i, pieces) in warnings.iter().take(warning_rows as usize).enumerate() {
            put(ui, pieces, area.x, plan.bottom() + 1 + i as u16, area.width);
        }
    }
    match wizard.review.stage {
        Stage::Idle => draw_buttons(ui, &wizard.buttons(), Some(wizard.review.at), buttons),
        stage => {
            let word = match stage {
                Stage::Storing => "storing the sync …",
                Stage::Approving => "recording your decision …",
                _ => "starting the run …",
            };
            let spinner = ui.spinner();
            ui.pieces(buttons.x + 2, buttons.y, &[(spinner, Role::Warn), (" ", Role::Text), (word, Role::Text)], area.width as usize);
        }
    }
}

/// Draws pieces one after the other.
pub fn put(ui: &mut Ui<'_>, pieces: &Row, x: u16, y: u16, width: u16) {
    let pieces: Vec<(&str, Role)> = pieces.iter().map(|(t, r)| (t.as_str(), *r)).collect();
    ui.pieces(x, y, &pieces, width as usize);
}

fn text_of(document: &Value, name: &str) -> String {
    document.get(name).and_then(Value::as_str).unwrap_or_default().to_string()
}

fn summary(wizard: &Wizard, width: usize) -> Vec<Row> {
    let doc = &wizard.review.document;
    let mut rows = Vec::new();
    let mut add = |label: &str, value: String| {
        for (i, line) in text::wrap(&crate::model::text::sanitise(&value), width.saturating_sub(15)).into_iter().enumerate() {
            rows.push(row(&[(&text::pad(if i == 0 { label } else { "" }, 14), Role::Dim), (&line, Role::Text)]));
        }
    };
    let called = |form: usize, id: &str| wizard.forms[form].item(id).and_then(|i| i.called.clone());
    let project = called(0, "projectId").unwrap_or_else(|| text_of(doc, "projectId"));
    let held = wizard.review.plan.value.as_ref().map(|p| format!("  ({})", text::count(p.source.secrets, "secret", "secrets"))).unwrap_or_default();
    add("Source", format!("{project}  {}:{}{held}", text_of(doc, "environment"), text_of(doc, "secretPath")));
    let config: Vec<String> = wizard.forms[1]
        .items
        .iter()
        .filter(|i| !i.hidden && i.id != "connectionId")
        .filter_map(|i| {
            let value = if i.is_empty() { i.follows.clone()? } else { i.called.clone().unwrap_or_else(|| shown(i)) };
            Some(format!("{} {value}", i.label.trim_end_matches(" (Optional)")))
        })
        .collect();
    let connection = called(1, "connectionId").unwrap_or_else(|| text_of(doc, "connectionId"));
    add("Destination", format!("{} through {connection}  {}", wizard.place(), config.join(" · ")));
    add("Sync Options", options(wizard));
    let description = text_of(doc, "description").replace('\n', " ");
    let description = if description.is_empty() { String::new() } else { format!(" · {description}") };
    add("Details", format!("{}{description}", text_of(doc, "name")));
    rows
}

fn shown(item: &crate::tui::form::Item) -> String {
    match &item.kind {
        crate::tui::form::Kind::Choice(options) => options.get(item.chosen).map(|o| o.label.clone()).unwrap_or_default(),
        crate::tui::form::Kind::Flag => if item.on { "on" } else { "off" }.into(),
        _ => item.value().replace('\n', ", "),
    }
}

fn options(wizard: &Wizard) -> String {
    let mut parts = Vec::new();
    for item in wizard.forms[2].items.iter().filter(|i| !i.hidden) {
        match item.id.as_str() {
            "syncOptions.initialSyncBehavior" => parts.push(shown(item)),
            "syncOptions.keySchema" if item.is_empty() => parts.push("no Key Schema".into()),
            "isEnabled" => parts.push(format!("auto-sync {}", if item.on { "on" } else { "off" })),
            "syncOptions.disableSecretDeletion" => parts.push(if item.on { "never deletes" } else { "deletes" }.into()),
            _ if item.is_empty() || (matches!(item.kind, crate::tui::form::Kind::Flag) && !item.on) => {}
            _ => parts.push(format!("{} {}", item.label, shown(item))),
        }
    }
    parts.join(" · ")
}

fn warnings(wizard: &Wizard, width: usize) -> Vec<Row> {
    let mut texts: Vec<(String, Role)> = Vec::new();
    let review = &wizard.review;
    if let Some(error) = &review.error {
        texts.push((error.message.clone(), Role::Bad));
    }
    if let Some(error) = &review.check.error {
        texts.push((error.message.clone(), Role::Bad));
    }
    let foreign = review.plan.value.as_ref().map_or(0, |p| p.needs_approval.len());
    if foreign > 0 {
        let text = format!("{} there would be deleted or overwritten that this sync did not write.", text::count(foreign, "secret", "secrets"));
        texts.push((text, Role::Warn));
    }
    for (i, rival) in review.rivals.value.iter().flatten().enumerate() {
        let way = if i == 0 { " T switches it off." } else { "" };
        texts.push((format!("{}{way}", rival.text), Role::Warn));
    }
    // Once there is a plan, its own warnings say it.
    if review.plan.value.is_none() && wizard.forms[2].value("syncOptions.keySchema").is_empty() {
        let deletes = wizard.forms[2].item("syncOptions.disableSecretDeletion").is_some_and(|i| !i.on);
        let more = if deletes { ": everything there that the source lacks is this sync's to delete" } else { "" };
        texts.push((format!("No Key Schema{more}."), Role::Warn));
    }
    for warning in review.plan.value.iter().flat_map(|p| &p.warnings) {
        texts.push((warning.clone(), Role::Warn));
    }
    texts
        .into_iter()
        .flat_map(|(text, role)| {
            let lines = text::wrap(&crate::model::text::sanitise(&text), width.saturating_sub(3));
            lines
                .into_iter()
                .enumerate()
                .map(move |(i, line)| row(&[(if i == 0 { "! " } else { "  " }, role), (&line, Role::Text)]))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// `+ 28 create  ~ 4 update  - 2 delete  = 22 same`; without the words where there is no room for them.
pub fn totals(plan: &PlanDoc, width: usize) -> String {
    let mut parts: Vec<String> = [Action::Create, Action::Update, Action::Restore, Action::Import, Action::Delete]
        .into_iter()
        .filter_map(|a| {
            let n = plan.count(a);
            let (symbol, word, _) = words::action(a);
            (n > 0).then(|| format!("{symbol} {n} {word}"))
        })
        .collect();
    parts.push(format!("= {} same", plan.unchanged));
    if !plan.needs_approval.is_empty() {
        parts.push(format!("? {} ask", plan.needs_approval.len()));
    }
    if !plan.conflicts.is_empty() {
        parts.push(format!("! {} conflict", plan.conflicts.len()));
    }
    let all = parts.join("  ");
    if text::width(&all) + 14 <= width {
        return all;
    }
    parts.iter().map(|p| p.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join("  ")
}

/// A line of a plan: symbol, name, and what stands beside it.
type Line<'p> = ((&'p str, Role), (String, Role), Row);

/// The plan as rows; values are never shown, their change is.
pub fn plan_rows(plan: &PlanDoc, width: usize) -> Vec<Row> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    let asks: Vec<&str> = plan.needs_approval.iter().map(|a| a.key.as_str()).collect();
    for ask in &plan.needs_approval {
        let deletes = plan.changes.iter().any(|c| c.key == ask.key && c.action == Action::Delete);
        let beside = row(&[("asks first  ", Role::Warn), (&ask.reason, Role::Dim)]);
        lines.push(((if deletes { "-" } else { "~" }, Role::Warn), (clean(&ask.key), Role::Text), beside));
    }
    for conflict in &plan.conflicts {
        lines.push((("!", Role::Bad), (clean(&conflict.keys.join(", ")), Role::Text), row(&[(&conflict.reason, Role::Dim)])));
    }
    for change in plan.changes.iter().filter(|c| !asks.contains(&c.key.as_str())) {
        let (symbol, _, role) = words::action(change.action);
        let reason = change.reason.clone().unwrap_or_default();
        let value = match change.action {
            Action::Create | Action::Import => MASK.to_string(),
            Action::Update => format!("{MASK} → {MASK}"),
            Action::Restore | Action::Delete => String::new(),
        };
        let gap = if value.is_empty() || reason.is_empty() { "" } else { "  " };
        lines.push(((symbol, role), (clean(&change.key), Role::Text), row(&[(&value, Role::Dim), (gap, Role::Dim), (&reason, Role::Dim)])));
    }
    for skipped in &plan.skipped {
        let key = skipped.key.as_ref().or(skipped.source_key.as_ref()).map(|k| clean(k)).unwrap_or_default();
        lines.push((("–", Role::Dim), (key, Role::Dim), row(&[(&skipped.reason, Role::Dim)])));
    }
    let beside = |row: &Row| row.iter().map(|(t, _)| text::width(t)).sum::<usize>();
    let room = width.saturating_sub(2);
    let longest = lines.iter().map(|l| text::width(&l.1.0)).max().unwrap_or(0);
    let column = text::share(room, longest, lines.iter().map(|l| beside(&l.2)).max().unwrap_or(0));
    let whole = |(symbol, (key, role), rest): Line<'_>| {
        let key = text::pad(&key, if beside(&rest) == 0 { room } else { column });
        let head = row(&[(symbol.0, symbol.1), (" ", Role::Text), (&key, role), ("  ", Role::Text)]);
        head.into_iter().chain(rest).collect()
    };
    lines.into_iter().map(whole).collect()
}

fn clean(text: &str) -> String {
    crate::model::text::sanitise(text)
}

fn draw_plan(ui: &mut Ui<'_>, wizard: &Wizard, warnings: &[Row], area: Rect) {
    let load = &wizard.review.plan;
    if let Some(error) = &load.error {
        let used = ui.paragraph(area, &format!("✗ The plan could not be made: {}", error.message), Role::Bad);
        if used < area.height {
            ui.put(area.x, area.y + used, "Ctrl-R tries again; the sync can be created without a plan.", Role::Dim, area.width as usize);
        }
        return;
    }
    let Some(plan) = &load.value else {
        draw_asking(ui, READING, load.since(), wizard.review.waiting.as_ref(), area);
        return;
    };
    // First what warns: it is short, and nobody scrolls through a hundred keys to find it.
    let mut rows = warnings.to_vec();
    let changes = plan_rows(plan, area.width as usize);
    if changes.is_empty() {
        rows.push(row(&[("Nothing to change: both sides agree.", Role::Good)]));
    }
    rows.extend(changes);
    draw_rows(ui, &rows, wizard.review.scroll, area);
}

/// What a plan does while it is made.
pub const READING: &str = "reading the source and listing the destination, nothing is written …";

/// Draws what a plan that is being made does, for how long by now, and what it waits for.
pub fn draw_asking(ui: &mut Ui<'_>, what: &str, since: Option<Time>, waiting: Option<&Waiting>, area: Rect) {
    let width = area.width as usize;
    let spinner = ui.spinner();
    ui.pieces(area.x, area.y, &[(spinner, Role::Warn), (" ", Role::Text), (what, Role::Text)], width);
    let Some(since) = since.filter(|_| area.height > 1) else { return };
    let past = ui.elapsed(since);
    let wait = waiting.map(|w| ui.wait(&w.reason, w.until, width.saturating_sub(20)));
    let waits = wait.map_or_else(|| "for its answers".to_string(), |w| format!("({w})"));
    ui.put(area.x + 2, area.y + 1, &format!("waited {past} {waits}"), Role::Dim, width.saturating_sub(2));
    if area.height > 2 {
        ui.put(area.x + 2, area.y + 2, "Esc goes back and gives up.", Role::Dim, width.saturating_sub(2));
    }
}

/// Draws as many rows as fit from an offset, and says how many there are.
pub fn draw_rows(ui: &mut Ui<'_>, rows: &[Row], scroll: usize, area: Rect) {
    let room = area.height as usize;
    let first = scroll.min(rows.len().saturating_sub(room));
    for (i, pieces) in rows.iter().skip(first).take(room).enumerate() {
        put(ui, pieces, area.x, area.y + i as u16, area.width);
    }
    if rows.len() > room && room > 0 {
        ui.put_right(area.right(), area.bottom() - 1, &format!(" {} of {} ↑↓", (first + room).min(rows.len()), rows.len()), Role::Dim, 20);
    }
}

fn draw_json(ui: &mut Ui<'_>, wizard: &Wizard, world: &World, area: Rect) {
    let json: Vec<String> = serde_json::to_string_pretty(&wizard.review.document).unwrap_or_default().lines().map(str::to_string).collect();
    let mut lines: Vec<(String, Role)> = vec![("The command that does the same:".into(), Role::Dim), (wizard.command(), Role::Text)];
    lines.extend(json.iter().map(|l| (l.clone(), Role::Text)));
    lines.push(("JSON".into(), Role::Text));
    lines.push((String::new(), Role::Text));
    lines.push(("The documented call to the server:".into(), Role::Dim));
    lines.extend(wizard.curl(world).into_iter().map(|l| (l, Role::Text)));
    lines.push(("… the same JSON …".into(), Role::Dim));
    lines.push(("JSON".into(), Role::Text));
    let rows: Vec<Row> = lines.into_iter().map(|(l, r)| vec![(l, r)]).collect();
    draw_rows(ui, &rows, wizard.review.scroll, area);
}
