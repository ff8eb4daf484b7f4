//! The unfinished sync: kept at every step, so that a line that drops costs nothing, and taken
//! up again. It holds what the documented request holds, so no credential and no secret value.

use serde_json::Value;

use super::{REVIEW, STEPS, Wizard};
use crate::destination::registry;
use crate::model::Time;
use crate::service::Draft;
use crate::tui::fx::{Fx, Move};
use crate::tui::modal::{Modal, Question, Verdict};
use crate::tui::world::World;

impl Wizard {
    /// What would be lost now; `None` when this is an edit, or nothing was filled in.
    pub fn draft(&self, now: Time) -> Option<Draft> {
        (self.provider.is_some() && self.dirty && self.replaces.is_none()).then(|| Draft { document: self.document(), step: self.step, at: now })
    }

    /// The members that no form shows (a copy may have some).
    fn unseen(&self, document: &Value) -> Value {
        let mut rest = document.clone();
        let shown = self.forms.iter().flat_map(|f| &f.items).map(|i| i.id.as_str());
        for id in shown.chain(["destination"]) {
            let (object, name) = match id.split_once('.') {
                Some((object, name)) => (rest.get_mut(object), name),
                None => (Some(&mut rest), id),
            };
            if let Some(map) = object.and_then(Value::as_object_mut) {
                map.remove(name);
            }
        }
        if let Some(map) = rest.as_object_mut() {
            map.retain(|_, v| v.as_object().is_none_or(|o| !o.is_empty()));
        }
        rest
    }

    /// Keeps the draft as it is now.
    pub(super) fn keep(&self, world: &World, fx: &mut Fx) {
        if let Some(draft) = self.draft(world.now) {
            fx.moves.push(Move::Keep(Some(Box::new(draft))));
        }
    }

    /// Goes on where a draft was left. `None` when its destination is unknown.
    pub fn from_draft(draft: &Draft, world: &World, fx: &mut Fx) -> Option<Self> {
        let mut wizard = Self::new(world);
        wizard.choose(registry::find(draft.document.get("destination")?.as_str()?)?, world, fx);
        wizard.fill(&draft.document);
        wizard.base = wizard.unseen(&draft.document);
        wizard.dirty = true;
        wizard.connections_changed(world, fx);
        // A step is entered only over steps whose fields are in order.
        let mut step = 0;
        while step < draft.step.min(REVIEW) {
            wizard.validate(world);
            if wizard.forms[step].items.iter().any(|i| !i.hidden && i.problem.is_some()) {
                break;
            }
            step += 1;
        }
        wizard.enter(step, world, fx);
        Some(wizard)
    }
}

/// Whether to go on with the unfinished sync.
pub fn question(draft: &Draft, world: &World) -> Modal {
    let text = |name: &str| draft.document.get(name).and_then(Value::as_str).map(str::to_string);
    let provider = text("destination").and_then(|kind| registry::find(&kind));
    let from = match (text("environment"), text("secretPath")) {
        (Some(environment), Some(path)) => format!("{environment}:{path}"),
        (Some(environment), None) => environment,
        _ => "(no source yet)".into(),
    };
    let to = provider.map_or_else(|| "an unknown destination".to_string(), |p| p.spec().title.to_string());
    let step = STEPS.get(draft.step).copied().unwrap_or(STEPS[0]);
    let lines = vec![format!("{from}  →  {to}"), format!("Left at the step {step} on {}.", world.date(draft.at))];
    let question = Question::bare("Go on with the unfinished sync?", lines);
    Modal::Question(question.button("Go on", Verdict::Resume).button("Start anew, forget it", Verdict::StartAnew))
}
