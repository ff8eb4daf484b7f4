//! Where the lists of the wizard's fields come from, and which answers they still fit.

use serde_json::Value;

use super::{NEW, Wizard, steps};
use crate::destination::Choice;
use crate::destination::form::Input;
use crate::model::Map;
use crate::service::{ChoicesAsk, FolderAsk};
use crate::tui::form::picker::split_path;
use crate::tui::fx::{Call, Fx, Move, Reply, Ticket};
use crate::tui::world::World;

fn choice(value: &str, label: &str, detail: Option<String>) -> Choice {
    Choice { value: value.into(), label: label.into(), detail }
}

impl Wizard {
    /// The KMS account in force.
    pub fn account(&self, world: &World) -> Option<String> {
        let named = self.forms[0].item("sourceConnection").map(|i| i.value()).filter(|v| !v.is_empty());
        named.or_else(|| match world.connections_of(crate::source::APP.app).as_slice() {
            [only] => Some(only.name.clone()),
            _ => None,
        })
    }

    /// The lists of connections, which need no call; a single connection is taken at once.
    pub fn connections_changed(&mut self, world: &World, fx: &mut Fx) {
        let Some(provider) = self.provider else {
            return;
        };
        for (form, id, app) in [(0, "sourceConnection", &crate::source::APP), (1, "connectionId", provider.spec().app)] {
            let stored = world.connections_of(app.app);
            let Some(item) = self.forms[form].item_mut(id) else {
                continue;
            };
            let rows = stored.iter().map(|c| choice(&c.name, &c.name, Some(c.method.clone())));
            let new = choice(NEW, &format!("+ new {} connection …", app.title), Some(String::new()));
            item.choices.value = Some(rows.chain([new]).collect());
            // An edited document may name the connection by its id.
            if let Some(named) = stored.iter().find(|c| c.id == item.value()) {
                item.called = Some(named.name.clone());
            } else if form == 1
                && item.is_empty()
                && let [only] = stored.as_slice()
            {
                item.set(&only.name);
            }
        }
        if self.step == 1 {
            self.run_test(world, fx, false);
        }
        self.validate(world);
    }

    /// Fetches the list of a field, unless the one at hand still fits.
    pub(super) fn need(&mut self, form: usize, n: usize, again: bool, world: &World, fx: &mut Fx) {
        let Some(item) = self.forms[form].items.get(n) else {
            return;
        };
        let id = item.id.clone();
        let wanted = match id.as_str() {
            "sourceConnection" | "connectionId" => {
                if again {
                    fx.moves.push(Move::Connections);
                }
                return;
            }
            "projectId" | "environment" => self.account(world).map(|account| (account.clone(), Call::Projects { account })),
            "secretPath" => self.folder_call(form, world),
            _ => self.live_call(&id),
        };
        let Some((stamp, call)) = wanted else {
            let item = &mut self.forms[form].items[n];
            if !matches!(self.provider.and_then(|p| steps::field_of(p.spec(), &id)).map(|f| f.input), Some(Input::Suggest(_))) {
                item.choices.clear(fx);
                item.asked = None;
            }
            return self.suggest(form, n);
        };
        let item = &mut self.forms[form].items[n];
        // A failure is no answer: the next opening asks again.
        let there = item.choices.value.is_some() && item.choices.error.is_none();
        let fits = item.asked.as_ref() == Some(&stamp) && (item.choices.busy() || there);
        if fits && !again {
            return;
        }
        if id == "environment" && !again && self.offer_environments() {
            return;
        }
        let item = &mut self.forms[form].items[n];
        if item.asked.as_ref() != Some(&stamp) {
            item.choices.value = None;
        }
        item.asked = Some(stamp);
        item.choices.ask(fx, call);
    }

    /// A list was closed before its answer came: it is waited for no longer.
    pub(super) fn give_up(&mut self, form: usize, n: usize, fx: &mut Fx) {
        if let Some(item) = self.forms[form].items.get_mut(n) {
            item.choices.give_up(fx);
            item.asked = None;
        }
    }

    fn folder_call(&self, form: usize, world: &World) -> Option<(String, Call)> {
        let (project_id, environment) = (self.forms[0].value("projectId"), self.forms[0].value("environment"));
        let account = self.account(world).filter(|_| !project_id.is_empty() && !environment.is_empty())?;
        let typed = match &self.forms[form].popup {
            Some(popup) => popup.query.text().to_string(),
            None => self.forms[0].value("secretPath"),
        };
        let (path, _) = split_path(&typed);
        let stamp = format!("{account}\n{project_id}\n{environment}\n{path}");
        Some((stamp, Call::Folders(FolderAsk { account, project_id, environment, path })))
    }

    fn live_call(&self, id: &str) -> Option<(String, Call)> {
        let provider = self.provider?;
        let field = steps::field_of(provider.spec(), id)?;
        let Input::Live { depends } = field.input else {
            return None;
        };
        let connection = Some(self.forms[1].value("connectionId")).filter(|c| !c.is_empty())?;
        let document = self.document();
        let mut filled: Map = document.get("destinationConfig").and_then(Value::as_object).cloned().unwrap_or_default();
        if id.starts_with("syncOptions.") {
            filled.extend(document.get("syncOptions").and_then(Value::as_object).cloned().unwrap_or_default());
        }
        let values: Option<Vec<&str>> = depends.iter().map(|d| filled.get(*d).and_then(Value::as_str).filter(|v| !v.is_empty())).collect();
        let stamp = format!("{connection}\n{}", values?.join("\n"));
        let ask = ChoicesAsk { kind: provider.spec().kind.into(), connection, field: field.name.into(), filled };
        Some((stamp, Call::Choices(ask)))
    }

    fn suggest(&mut self, form: usize, n: usize) {
        let Some(provider) = self.provider else {
            return;
        };
        let item = &mut self.forms[form].items[n];
        if let Some(Input::Suggest(list)) = steps::field_of(provider.spec(), &item.id).map(|f| f.input) {
            item.choices.value = Some(list.iter().map(|v| choice(v, v, None)).collect());
        }
    }

    /// Offers the environments of the chosen project, when it is known.
    fn offer_environments(&mut self) -> bool {
        let project = self.forms[0].value("projectId");
        let Some(project) = self.projects.iter().find(|p| p.id == project) else {
            return false;
        };
        let rows = project.environments.iter().map(|e| choice(&e.slug, &e.slug, (e.name != e.slug).then(|| e.name.clone()))).collect();
        if let Some(item) = self.forms[0].item_mut("environment") {
            item.asked = None;
            item.choices.error = None;
            item.choices.value = Some(rows);
        }
        true
    }

    fn offer_projects(&mut self) {
        let rows: Vec<Choice> = self.projects.iter().map(|p| choice(&p.id, &p.name, p.slug.clone())).collect();
        let Some(item) = self.forms[0].item_mut("projectId") else {
            return;
        };
        let value = item.value();
        if value.is_empty()
            && let [only] = rows.as_slice()
        {
            item.set(&only.value);
        }
        let value = item.value();
        item.called = rows.iter().find(|c| c.value == value).map(|c| c.label.clone());
        item.choices.value = Some(rows);
    }

    /// Takes lists that arrived.
    pub(super) fn take_choices(&mut self, ticket: Ticket, reply: Reply, world: &World, _fx: &mut Fx) -> Option<Reply> {
        let asked = self.forms.iter_mut().find_map(|f| {
            let n = f.items.iter().position(|i| i.choices.awaits(ticket))?;
            Some((f, n))
        });
        let Some((form, n)) = asked else { return Some(reply) };
        form.pin();
        let item = &mut form.items[n];
        match reply {
            Reply::Choices(answer) => {
                item.choices.take(answer);
                // What may be typed depends on whether the list is refused.
                self.validate(world);
            }
            Reply::Projects(Ok(projects)) => {
                item.choices.take(Ok(Vec::new()));
                self.projects = projects;
                self.offer_projects();
                self.offer_environments();
                self.validate(world);
            }
            Reply::Projects(Err(error)) => item.choices.take(Err(error)),
            other => return Some(other),
        }
        None
    }

    /// A value that others were picked under has changed: those are picked anew.
    pub(super) fn clear_dependents(&mut self, id: &str) {
        match id {
            "sourceConnection" => {
                self.projects.clear();
                for id in ["projectId", "environment"] {
                    self.reset(0, id, "");
                }
                self.reset(0, "secretPath", "/");
            }
            "projectId" => {
                self.reset(0, "environment", "");
                self.reset(0, "secretPath", "/");
                self.offer_environments();
            }
            "connectionId" => self.clear_live(|_| true),
            _ => {
                if let Some((_, name)) = id.split_once('.') {
                    let name = name.to_string();
                    self.clear_live(|depends| depends.contains(&name.as_str()));
                }
            }
        }
    }

    fn clear_live(&mut self, concerned: impl Fn(&[&str]) -> bool) {
        let Some(provider) = self.provider else {
            return;
        };
        let mut cleared: Vec<&str> = Vec::new();
        for field in provider.spec().config.iter().chain(provider.spec().options) {
            let Input::Live { depends } = field.input else {
                continue;
            };
            if concerned(depends) || depends.iter().any(|d| cleared.contains(d)) {
                cleared.push(field.name);
            }
        }
        for name in cleared {
            self.reset(1, &format!("destinationConfig.{name}"), "");
            self.reset(2, &format!("syncOptions.{name}"), "");
        }
    }

    fn reset(&mut self, form: usize, id: &str, value: &str) {
        if let Some(item) = self.forms[form].item_mut(id) {
            item.set(value);
            (item.called, item.asked, item.touched) = (None, None, false);
            item.choices.value = None;
        }
    }
}
