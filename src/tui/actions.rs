//! What verdicts lead to: calls of the service whose answers become a line in the log, a page
//! or a question. Screens say what they want; only this file knows how it is carried out.

use std::collections::{HashMap, VecDeque};

use super::app::{App, Page};
use super::fx::{Call, Effect, Level, Move, Reply, Ticket};
use super::modal::{self, Decision, Modal, Question, Verdict};
use super::panes::plan::PlanPane;
use super::text;
use super::wizard::Wizard;
use crate::model::board::Event;
use crate::model::run::{RunKind, RunStatus, Trigger};
use crate::service::{Approval, PlanTarget, RunRequest, ServiceError};

/// What an awaited answer is for.
enum Purpose {
    Start(String),
    Enable(String, bool),
    Cancel(String),
    /// With what became of its secrets.
    Delete(String, String),
    RemoveConnection(String),
    Pause(bool),
    Edit {
        sync: String,
        copy: bool,
    },
    Approve {
        sync: String,
        run: bool,
    },
    AskApproval(String),
    /// Its removals, then its deletion.
    Forget(String),
}

/// Answers awaited, and what follows the end of a run.
#[derive(Default)]
pub struct Pending {
    waiting: HashMap<Ticket, Purpose>,
    /// Syncs to forget once their removals have succeeded.
    forget: HashMap<String, Removals>,
}

/// What is taken away before a sync is forgotten.
struct Removals {
    /// Those to come, by their `left_behind`.
    rest: VecDeque<bool>,
    /// Secrets removed so far.
    removed: usize,
}

impl Removals {
    /// Starts the next one; false when there is none.
    fn next(app: &mut App, sync: &str) -> bool {
        let Some(left_behind) = app.actions.forget.get_mut(sync).and_then(|r| r.rest.pop_front()) else { return false };
        let request = RunRequest { left_behind, ..RunRequest::new(sync, RunKind::Remove, Trigger::Manual) };
        ask(app, Call::Start(request), Purpose::Start(sync.to_string()));
        true
    }
}

fn ask(app: &mut App, call: Call, purpose: Purpose) {
    let ticket = app.fx.call(call);
    app.actions.waiting.insert(ticket, purpose);
}

/// Leaves the app, asking when runs are going.
pub fn quit(app: &mut App, at_once: bool) {
    let runs = app.world.runs();
    let asked = matches!(app.modals.last(), Some(Modal::Question(q)) if q.buttons.iter().any(|b| b.verdict == Verdict::Quit));
    if (at_once && asked) || runs == 0 || app.world.board.engine.attached {
        return app.fx.effect(Effect::Quit);
    }
    let lines = vec![
        format!("{} going in this process.", text::count(runs, "run is", "runs are")),
        "Leaving parks them: what is in flight finishes, the next start carries on from there.".into(),
    ];
    app.modals.push(Modal::Question(Question::new("Quit while syncs are running?", lines, "Stay").button("Quit", Verdict::Quit)));
}

/// Pauses or resumes the demo's play.
pub fn play(app: &mut App) {
    app.world.demo_paused = !app.world.demo_paused;
    app.fx.effect(Effect::Play(app.world.demo_paused));
    let text = if app.world.demo_paused { "The demo's own changes are paused (w resumes)" } else { "The demo changes things by itself again" };
    app.world.note(Level::Info, text);
}

/// Carries out a verdict.
pub fn carry_out(app: &mut App, verdict: Verdict) {
    match verdict {
        Verdict::Nothing => {}
        Verdict::Quit => app.fx.effect(Effect::Quit),
        Verdict::Discard => {
            if matches!(app.pages.last(), Some(Page::Wizard(w)) if w.replaces.is_none()) {
                app.fx.moves.push(Move::Keep(None));
            }
            app.fx.moves.push(Move::Pop);
        }
        Verdict::SetAside => {
            if let Some(draft) = app.unfinished() {
                app.fx.moves.push(Move::Keep(Some(Box::new(draft))));
                app.world.note(Level::Info, "the unfinished sync is kept: the next new sync begins with it");
            }
            app.fx.moves.push(Move::Pop);
        }
        Verdict::Resume => {
            let draft = app.world.draft.value.clone().flatten();
            match draft.and_then(|d| Wizard::from_draft(&d, &app.world, &mut app.fx)) {
                Some(wizard) => app.pages.push(Page::Wizard(Box::new(wizard))),
                None => app.world.note(Level::Bad, "the unfinished sync's destination is not known to this version"),
            }
        }
        Verdict::StartAnew => {
            app.fx.moves.push(Move::Keep(None));
            app.pages.push(Page::Wizard(Box::new(Wizard::new(&app.world))));
        }
        Verdict::Start { syncs, kind, verify, priority } => {
            for sync in syncs {
                let request = RunRequest { verify, prioritize: priority, ..RunRequest::new(sync.as_str(), kind, Trigger::Manual) };
                ask(app, Call::Start(request), Purpose::Start(sync));
            }
        }
        Verdict::RemoveLeftBehind(sync) => {
            let request = RunRequest { left_behind: true, ..RunRequest::new(sync.as_str(), RunKind::Remove, Trigger::Manual) };
            ask(app, Call::Start(request), Purpose::Start(sync));
        }
        Verdict::RemoveForGood { syncs, auto } => {
            carry_out(app, Verdict::Enable { syncs: auto, on: false });
            carry_out(app, Verdict::Start { syncs, kind: RunKind::Remove, verify: false, priority: None });
        }
        Verdict::Cancel { sync, run } => ask(app, Call::Cancel { run }, Purpose::Cancel(sync)),
        Verdict::Enable { syncs, on } => {
            for name in syncs {
                ask(app, Call::Enable { name: name.clone(), on }, Purpose::Enable(name, on));
            }
        }
        Verdict::Forget { syncs, remove_first } => {
            for name in syncs {
                if remove_first {
                    // Its earlier settings may have left something behind.
                    ask(app, Call::Sync { name: name.clone() }, Purpose::Forget(name));
                } else {
                    ask(app, Call::Delete { name: name.clone() }, Purpose::Delete(name, "the destination is untouched".into()));
                }
            }
        }
        Verdict::RemoveConnection(name) => ask(app, Call::RemoveConnection { name: name.clone() }, Purpose::RemoveConnection(name)),
        Verdict::Pause(on) => ask(app, Call::Pause(on), Purpose::Pause(on)),
        Verdict::Plan(sync) => {
            let pane = PlanPane::new(&sync, &mut app.fx);
            app.pages.push(Page::Plan(Box::new(pane)));
        }
        Verdict::Edit { sync, copy } => ask(app, Call::Document { name: sync.clone() }, Purpose::Edit { sync, copy }),
        Verdict::AskApproval(sync) => {
            let target = PlanTarget::Stored { name: sync.clone() };
            app.world.note(Level::Info, format!("{sync}: looking at what needs your decision …"));
            ask(app, Call::Plan { target, verify: false }, Purpose::AskApproval(sync));
        }
        Verdict::Decide { sync: Some(sync), keys, decision } => decide(app, sync, keys, decision),
        Verdict::Decide { sync: None, keys, decision } => {
            if let Some(Page::Wizard(wizard)) = app.pages.last_mut() {
                wizard.decided(keys, decision, &mut app.fx);
            }
        }
        Verdict::TakeOver(id) => {
            if let Some(Page::Wizard(wizard)) = app.pages.last_mut() {
                wizard.take_over(id, &mut app.fx);
            }
        }
        Verdict::SaveAnyway => {
            if let Some(Page::Edit(edit)) = app.pages.last_mut() {
                edit.save(&mut app.fx);
            }
        }
        Verdict::Select(sync) => app.dashboard.select(&sync, &app.world),
        Verdict::Act(action) => app.act(action),
    }
}

fn decide(app: &mut App, sync: String, keys: Vec<String>, decision: Decision) {
    let approval = match decision {
        Decision::KeepAlways => Approval { sync: sync.clone(), approve: Vec::new(), keep: keys },
        Decision::Delete => Approval { sync: sync.clone(), approve: keys, keep: Vec::new() },
        Decision::KeepNow => {
            let request = RunRequest { withhold: true, ..RunRequest::new(sync.as_str(), RunKind::Sync, Trigger::Manual) };
            return ask(app, Call::Start(request), Purpose::Start(sync));
        }
    };
    ask(app, Call::Approve(approval), Purpose::Approve { sync, run: true });
}

/// Takes an answer that a verdict asked for; gives back any other.
pub fn reply(app: &mut App, ticket: Ticket, reply: Reply) -> Option<Reply> {
    let Some(purpose) = app.actions.waiting.remove(&ticket) else {
        return Some(reply);
    };
    match (purpose, reply) {
        (Purpose::Start(sync), Reply::Run(answer)) => {
            if let Err(error) = answer {
                app.actions.forget.remove(&sync);
                failed(app, &sync, &error);
            }
        }
        (Purpose::Forget(sync), Reply::Sync(answer)) => match answer {
            Ok(doc) => {
                app.actions.forget.insert(sync.clone(), Removals { rest: doc.removals().collect(), removed: 0 });
                Removals::next(app, &sync);
            }
            Err(error) => failed(app, &sync, &error),
        },
        (Purpose::Enable(sync, on), Reply::Sync(answer)) => match answer {
            Ok(_) => app.world.note(Level::Good, format!("{sync}: auto-sync {}", if on { "on" } else { "off" })),
            Err(error) => failed(app, &sync, &error),
        },
        (Purpose::Cancel(sync), Reply::Act(answer)) => match answer {
            Ok(()) => app.world.note(Level::Info, format!("{sync}: cancelling; what is in flight finishes")),
            Err(error) => failed(app, &sync, &error),
        },
        (Purpose::Delete(sync, secrets), Reply::Act(answer)) => match answer {
            Ok(()) => app.world.note(Level::Good, format!("{sync} deleted; {secrets}")),
            Err(error) => failed(app, &sync, &error),
        },
        (Purpose::RemoveConnection(name), Reply::Act(answer)) => match answer {
            Ok(()) => {
                app.world.note(Level::Good, format!("connection {name} removed"));
                app.world.connections.ask(&mut app.fx, Call::Connections);
            }
            Err(error) => failed(app, &name, &error),
        },
        (Purpose::Pause(on), Reply::Act(answer)) => match answer {
            Ok(()) if on => app.world.note(Level::Warn, "all auto-syncs are paused (P resumes)"),
            Ok(()) => app.world.note(Level::Good, "auto-syncs go on"),
            Err(error) => failed(app, "pause", &error),
        },
        (Purpose::Edit { sync, copy }, Reply::Document(answer)) => match answer {
            Ok(document) => match Wizard::from_document(&document, &sync, copy, &app.world, &mut app.fx) {
                Some(wizard) => app.pages.push(Page::Wizard(Box::new(wizard))),
                None => app.world.note(Level::Bad, format!("{sync}: its destination is not known to this version")),
            },
            Err(error) => failed(app, &sync, &error),
        },
        (Purpose::Approve { sync, run }, Reply::Act(answer)) => match answer {
            Ok(()) if run => {
                let verdict = Verdict::Start { syncs: vec![sync], kind: RunKind::Sync, verify: false, priority: None };
                carry_out(app, verdict);
            }
            Ok(()) => {}
            Err(error) => failed(app, &sync, &error),
        },
        (Purpose::AskApproval(sync), Reply::Plan(answer)) => match answer {
            Ok(plan) if plan.needs_approval.is_empty() => {
                app.world.note(Level::Good, format!("{sync}: nothing needs your decision any more"));
            }
            Ok(plan) => {
                let place = app.world.board.cards.get(&sync).map(|c| c.destination_label.clone()).unwrap_or_default();
                app.modals.push(modal::approval(Some(sync.clone()), &sync, &place, &plan));
            }
            Err(error) => failed(app, &sync, &error),
        },
        (_, other) => return Some(other),
    }
    None
}

fn failed(app: &mut App, what: &str, error: &ServiceError) {
    app.world.note(Level::Bad, format!("{what}: {}", error.message));
}

/// What follows the end of a run.
pub fn event(app: &mut App, event: &Event) {
    let Event::Finished { sync, record } = event else {
        return;
    };
    let Some(removals) = app.actions.forget.get_mut(sync).filter(|_| record.kind == RunKind::Remove) else {
        return;
    };
    if record.status == RunStatus::Succeeded {
        removals.removed += record.counts.deleted as usize;
        let removed = format!("{} there were removed before", crate::plan::count(removals.removed, "secret"));
        if !Removals::next(app, sync) {
            app.actions.forget.remove(sync);
            ask(app, Call::Delete { name: sync.clone() }, Purpose::Delete(sync.clone(), removed));
        }
    } else {
        app.actions.forget.remove(sync);
        app.world.note(Level::Bad, format!("{sync} is kept: its secrets could not be removed"));
    }
}

/// The question before a sync is forgotten.
pub fn ask_delete(syncs: Vec<String>) -> Modal {
    let what = if syncs.len() == 1 { syncs[0].clone() } else { text::count(syncs.len(), "sync", "syncs") };
    let lines = vec![
        "The secrets at the destination stay as they are, or are removed first.".into(),
        "Its history and what it remembers of the destination are forgotten.".into(),
    ];
    let forget = |remove_first| Verdict::Forget { syncs: syncs.clone(), remove_first };
    let question = Question::new(format!("Delete {what}?"), lines, "Keep it")
        .button("Delete, leave the secrets", forget(false))
        .button("Remove the secrets, then delete", forget(true));
    Modal::Question(question)
}

/// The question before secrets are taken away from a destination; `auto` are those of the
/// syncs whose auto-sync is on.
pub fn ask_remove(app_cards: &[(String, String, Option<u64>)], left_behind: Option<usize>, auto: &[String]) -> Modal {
    let syncs: Vec<String> = app_cards.iter().map(|c| c.0.clone()).collect();
    let what = if syncs.len() == 1 { syncs[0].clone() } else { text::count(syncs.len(), "sync", "syncs") };
    let mut lines: Vec<String> = app_cards
        .iter()
        .map(|(name, place, keys)| match keys {
            Some(n) => format!("{name}: {} at {place}", text::count(*n as usize, "key", "keys")),
            None => format!("{name}: its keys at {place}"),
        })
        .take(6)
        .collect();
    lines.push("They are deleted there, as far as the destination can be undone. The source is untouched, the sync stays.".into());
    let verdict = Verdict::Start { syncs: syncs.clone(), kind: RunKind::Remove, verify: false, priority: None };
    if !auto.is_empty() {
        let names = crate::model::text::names(auto, 3);
        lines.push(format!("Auto-sync of {names} is on: the next change of the source, or the next drift check, writes them again."));
    }
    let mut question = Question::new(format!("Remove the synced secrets of {what}?"), lines, "Keep them").button("Remove them", verdict);
    if let (Some(keys), [(sync, ..)]) = (left_behind, app_cards) {
        question = question.button(format!("Only the {keys} left behind"), Verdict::RemoveLeftBehind(sync.clone()));
    }
    if !auto.is_empty() {
        question = question.button("Auto-sync off, then remove", Verdict::RemoveForGood { syncs, auto: auto.to_vec() });
    }
    Modal::Question(question)
}
