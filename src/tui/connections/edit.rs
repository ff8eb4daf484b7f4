//! The form of one connection: name, method, the method's fields (typed, or a reference to an
//! environment variable, a file or a command), endpoints. Tested before it is stored.

use crossterm::event::KeyEvent;
use ratatui::layout::Rect;
use serde_json::{Map, Value, json};

use crate::destination::{TestReport, registry};
use crate::model::connection::{AppSpec, Connection, ConnectionView, stored};
use crate::service::ServiceError;
use crate::tui::form::{Form, FormEvent, Item, Kind, Opt, Origin, view as form_view};
use crate::tui::fx::{Call, Fx, Level, Load, Move, Reply, Ticket};
use crate::tui::keys::{Action, Context};
use crate::tui::modal::{Modal, Question, Verdict};
use crate::tui::theme::Role;
use crate::tui::ui::Ui;
use crate::tui::world::World;

const BUTTONS: [&str; 4] = ["Test and save", "Test", "Save untested", "Back"];

/// A connection being written.
pub struct Edit {
    app: Option<&'static AppSpec>,
    only_destinations: bool,
    /// The stored connection that is edited.
    replaces: Option<ConnectionView>,
    pub form: Form,
    /// Fields of other methods, as they were left: choosing among methods loses nothing.
    aside: Vec<Item>,
    test: Load<TestReport>,
    /// Store it when the test succeeds.
    then_save: bool,
    saving: Option<Ticket>,
    error: Option<ServiceError>,
    dirty: bool,
}

impl Edit {
    /// For a known app.
    pub fn new(app: &'static AppSpec) -> Self {
        let mut edit = Self::empty(Some(app));
        edit.lay_out();
        edit
    }

    /// The app is chosen in the form.
    pub fn choose() -> Self {
        let mut edit = Self::empty(None);
        edit.lay_out();
        edit
    }

    /// The app is chosen among those of destinations.
    pub fn choose_destination() -> Self {
        let mut edit = Self::empty(None);
        edit.only_destinations = true;
        edit.lay_out();
        edit
    }

    /// Edits a stored one; its secrets cannot be shown and are typed again.
    pub fn from_view(view: &ConnectionView) -> Option<Self> {
        let mut edit = Self::empty(Some(registry::app(&view.app)?));
        edit.replaces = Some(view.clone());
        edit.lay_out();
        Some(edit)
    }

    fn empty(app: Option<&'static AppSpec>) -> Self {
        Self {
            app,
            only_destinations: false,
            replaces: None,
            form: Form::default(),
            aside: Vec::new(),
            test: Load::default(),
            then_save: false,
            saving: None,
            error: None,
            dirty: false,
        }
    }

    fn spec(&self) -> Option<&'static AppSpec> {
        self.app.or_else(|| registry::app(&self.form.value("app")))
    }

    /// Builds the fields for the app and method in force, keeping what was filled in.
    fn lay_out(&mut self) {
        let mut old = std::mem::take(&mut self.form);
        let apps: Vec<&'static AppSpec> = registry::apps().into_iter().skip(usize::from(self.only_destinations)).collect();
        let mut items = Vec::new();
        if self.app.is_none() {
            let options = apps.iter().map(|a| Opt { value: a.app.into(), label: a.title.into(), help: String::new() }).collect();
            let mut item = Item::new("app", "App", "What the credentials are for.", Kind::Choice(options));
            item.set(&old.value("app"));
            items.push(item);
        }
        let spec = self.app.or_else(|| registry::app(&old.value("app"))).or(apps.first().copied());
        let mut name = Item::new("name", "Name", "How syncs call this connection. Must be slug-friendly.", Kind::Line);
        name.placeholder = spec.map(|s| format!("for example prod-{}", s.app)).unwrap_or_default();
        items.push(name);
        if let Some(spec) = spec {
            let chosen = old.item("method").map(Item::value).or_else(|| self.replaces.as_ref().map(|r| r.method.clone()));
            let method = spec.methods.iter().find(|m| Some(m.name) == chosen.as_deref()).or(spec.methods.first());
            let options = spec.methods.iter().map(|m| Opt { value: m.name.into(), label: m.label.into(), help: String::new() }).collect();
            let mut item = Item::new("method", "Method", "How to authenticate.", Kind::Choice(options));
            if let Some(method) = method {
                item.set(method.name);
            }
            items.push(item);
            for field in method.into_iter().flat_map(|m| m.fields) {
                let kind = if field.secret { Kind::Secret { multiline: field.multiline } } else { Kind::Line };
                let mut item = Item::new(format!("credentials.{}", field.name), field.label, field.help, kind);
                item.required = field.required;
                item.origin = Some(Origin::Typed);
                item.held = field.secret && self.replaces.as_ref().is_some_and(|r| r.held.contains_key(field.name));
                item.placeholder = match (field.required, item.held) {
                    (true, true) => "empty; Ctrl-E goes round to what is stored".into(),
                    (false, true) => "none any more; Ctrl-E goes round to what is stored".into(),
                    (true, false) => "not filled in yet".into(),
                    (false, false) => "(none)".into(),
                };
                items.push(item);
            }
            for setting in spec.settings {
                items.push(Item::new(setting.name, setting.label, setting.help, Kind::Line).optional());
            }
        }
        items.push(Item::new("caFile", "CA File", "An extra certificate authority for this connection, as a PEM file.", Kind::Line).optional());
        let plain = "Accept plain http to other machines. Values then travel unprotected.";
        items.push(Item::new("allowInsecureHttp", "Insecure HTTP", plain, Kind::Flag));
        for item in &mut items {
            if let Some(kept) = old.items.iter().chain(&self.aside).find(|i| i.id == item.id && i.kind == item.kind) {
                item.line = kept.line.clone();
                (item.on, item.origin, item.touched) = (kept.on, kept.origin, kept.touched);
            } else if let Some(view) = self.replaces.as_ref().filter(|_| old.items.is_empty() || item.held) {
                prefill(item, view);
            }
        }
        if self.replaces.is_some()
            && let Some(name) = items.iter_mut().find(|i| i.id == "name")
        {
            name.locked = Some("(the name stays)");
        }
        let focused = old.focused().map(|i| i.id.clone());
        self.aside.retain(|kept| old.items.iter().all(|i| i.id != kept.id));
        self.aside.extend(old.items.drain(..).filter(|i| items.iter().all(|new| new.id != i.id)));
        self.form = Form::new(items);
        self.form.buttons = BUTTONS.to_vec();
        if let Some(n) = focused.and_then(|id| self.form.position(&id)) {
            self.form.focus = n;
        }
        self.validate();
    }

    /// The connection document, as far as it is filled in. What stays as stored is said so.
    pub fn document(&self) -> Value {
        self.document_with(stored())
    }

    fn document_with(&self, kept: Value) -> Value {
        let mut root = Map::new();
        let mut credentials = Map::new();
        if let Some(view) = &self.replaces {
            root.insert("id".into(), json!(view.id));
        }
        if let Some(spec) = self.spec() {
            root.insert("app".into(), json!(spec.app));
        }
        for item in &self.form.items {
            let value = match (&item.kind, item.origin) {
                (Kind::Flag, _) if !item.on => continue,
                (Kind::Flag, _) => json!(true),
                _ if item.is_empty() => continue,
                (_, Some(Origin::Env)) => json!({ "env": item.value() }),
                (_, Some(Origin::File)) => json!({ "file": item.value() }),
                (_, Some(Origin::Command)) => json!({ "command": shell_words::split(&item.value()).unwrap_or_default() }),
                (_, Some(Origin::Stored)) => kept.clone(),
                _ => json!(item.value()),
            };
            match item.id.split_once('.') {
                Some((_, name)) => credentials.insert(name.into(), value),
                None => root.insert(item.id.clone(), value),
            };
        }
        root.insert("credentials".into(), Value::Object(credentials));
        Value::Object(root)
    }

    fn validate(&mut self) {
        let apps: Vec<&str> = registry::apps().iter().map(|a| a.app).collect();
        // What is stored cannot be looked into here; neither can a variable.
        let document = self.document_with(json!({ "env": "STORED" }));
        let problems = Connection::parse(&document, registry::app, &apps).err().unwrap_or_default();
        for item in &mut self.form.items {
            item.problem = problems.of(&item.id).map(|p| if item.is_empty() { format!("{} is required.", item.label) } else { p.to_string() });
        }
    }

    pub fn contexts(&self) -> Vec<Context> {
        vec![Context::Form]
    }

    pub fn can(&self, action: Action) -> bool {
        match action {
            Action::Test => !self.test.busy() && self.saving.is_none(),
            Action::Enter => self.saving.is_none() && self.form.can(action),
            _ => self.form.can(action),
        }
    }

    pub fn act(&mut self, action: Action, world: &mut World, fx: &mut Fx) {
        match action {
            Action::Test => self.run_test(false, fx),
            Action::Reveal => {
                let focus = self.form.focus;
                if let Some(item) = self.form.items.get_mut(focus) {
                    item.revealed = world.now.checked_add(jiff::SignedDuration::from_secs(10)).ok();
                }
            }
            _ => {
                let event = self.form.act(action);
                self.on_event(event, fx);
            }
        }
    }

    pub fn text(&mut self, key: &KeyEvent, _world: &World, fx: &mut Fx) {
        let event = self.form.text(key);
        self.on_event(event, fx);
    }

    pub fn paste(&mut self, text: &str, _world: &World, fx: &mut Fx) {
        let event = self.form.paste(text);
        self.on_event(event, fx);
    }

    fn on_event(&mut self, event: FormEvent, fx: &mut Fx) {
        match event {
            FormEvent::Changed(n) => {
                self.dirty = true;
                self.test.clear(fx);
                self.error = None;
                if self.form.items[n].id == "app" {
                    // Another app's fields mean other things, even under the same name.
                    self.form.items.retain(|i| matches!(i.id.as_str(), "app" | "name"));
                    self.aside.clear();
                    self.lay_out();
                } else if self.form.items[n].id == "method" {
                    self.lay_out();
                } else {
                    self.validate();
                }
            }
            FormEvent::Press(0) => self.run_test(true, fx),
            FormEvent::Press(1) => self.run_test(false, fx),
            FormEvent::Press(2) if self.form.focus_problem() => {}
            FormEvent::Press(2) => self.save(fx),
            FormEvent::Press(_) | FormEvent::Back => self.close(fx),
            _ => {}
        }
    }

    fn close(&mut self, fx: &mut Fx) {
        if !self.dirty {
            return fx.pop();
        }
        let lines = vec!["What was filled in is lost; nothing has been stored.".into()];
        fx.ask(Modal::Question(Question::new("Leave without saving the connection?", lines, "Stay").button("Leave", Verdict::Discard)));
    }

    fn run_test(&mut self, then_save: bool, fx: &mut Fx) {
        if self.form.focus_problem() {
            return;
        }
        self.then_save = then_save;
        self.error = None;
        self.test.value = None;
        self.test.ask(fx, Call::Try { document: self.document() });
    }

    /// Stores it.
    pub fn save(&mut self, fx: &mut Fx) {
        let replace = self.replaces.is_some();
        self.saving = Some(fx.call(Call::SaveConnection { document: self.document(), replace }));
    }

    pub fn reply(&mut self, ticket: Ticket, reply: Reply, world: &mut World, fx: &mut Fx) -> Option<Reply> {
        match reply {
            Reply::Report(answer) if self.test.awaits(ticket) => {
                let failed = answer.as_ref().err().cloned();
                self.test.take(answer);
                match failed {
                    None if self.then_save => self.save(fx),
                    Some(error) if self.then_save => {
                        let lines =
                            vec![format!("The test failed: {}", error.message), "Stored as it is, syncs that use it will fail the same way.".into()];
                        let question = Question::new("Save a connection that does not work?", lines, "Go back to it");
                        fx.ask(Modal::Question(question.button("Save it", Verdict::SaveAnyway)));
                    }
                    _ => {}
                }
                None
            }
            Reply::Connection(answer) if self.saving == Some(ticket) => {
                self.saving = None;
                match answer {
                    Ok(view) => {
                        world.note(Level::Good, format!("connection {} saved", view.name));
                        fx.pop();
                        fx.moves.push(Move::Stored(Box::new(view)));
                    }
                    Err(error) => {
                        for item in &mut self.form.items {
                            if let Some(problem) = error.fields.of(&item.id) {
                                item.problem = Some(problem.to_string());
                            }
                        }
                        self.form.focus_problem();
                        self.error = Some(error);
                    }
                }
                None
            }
            other => Some(other),
        }
    }

    /// The title of the screen.
    pub fn title(&self) -> String {
        match (&self.replaces, self.app) {
            (Some(view), _) => format!("Edit connection {}", view.name),
            (None, Some(app)) => format!("New {} connection", app.title),
            (None, None) => "New connection".into(),
        }
    }

    /// Draws into the work area.
    pub fn draw(&self, ui: &mut Ui<'_>, area: Rect) {
        let inside = ui.frame(area, &self.title(), "");
        let body = Rect { x: inside.x + 1, width: inside.width.saturating_sub(2), ..inside };
        let result = self.result(ui);
        // What to do about a failure stands at the end of its text: it must not be cut off.
        let lines = result.as_ref().map_or(0, |(text, _)| crate::tui::text::wrap(text, body.width.into()).len());
        let rows = if lines > 0 { (lines as u16 + 1).clamp(3, 6).min(body.height / 3) } else { 0 };
        form_view::draw(ui, &self.form, Rect { height: body.height - rows, ..body }, &[]);
        if let Some((text, role)) = result {
            let at = Rect { y: body.bottom() - rows, height: rows, ..body };
            ui.divider(area, at.y, "Test", "");
            ui.paragraph(Rect { y: at.y + 1, height: rows.saturating_sub(1), ..at }, &text, role);
        }
    }

    fn result(&self, ui: &mut Ui<'_>) -> Option<(String, Role)> {
        if self.saving.is_some() {
            return Some((format!("{} saving …", ui.spinner()), Role::Warn));
        }
        if let Some(error) = &self.error {
            return Some((format!("✗ {}", error.message), Role::Bad));
        }
        if self.test.busy() {
            return Some((format!("{} testing …", ui.spinner()), Role::Warn));
        }
        match (&self.test.value, &self.test.error) {
            (_, Some(error)) => Some((format!("✗ {}", error.message), Role::Bad)),
            (Some(report), None) => {
                let notes = if report.notes.is_empty() { String::new() } else { format!(" · {}", report.notes.join(" · ")) };
                Some((format!("✓ works: {}{notes}", report.identity), Role::Good))
            }
            (None, None) => None,
        }
    }
}

fn prefill(item: &mut Item, view: &ConnectionView) {
    let value = match item.id.split_once('.') {
        Some((_, name)) => view.held.get(name).or_else(|| view.public.get("credentials").and_then(|c| c.get(name))),
        None => view.public.get(&item.id),
    };
    match value {
        Some(value) if *value == stored() => item.origin = Some(Origin::Stored),
        Some(Value::String(s)) => item.set(s),
        Some(Value::Bool(b)) => item.on = *b,
        Some(Value::Object(reference)) => {
            let origin = [("env", Origin::Env), ("file", Origin::File), ("command", Origin::Command)];
            for (word, origin) in origin {
                match reference.get(word) {
                    Some(Value::String(s)) => {
                        item.origin = Some(origin);
                        item.set(s);
                    }
                    Some(Value::Array(parts)) => {
                        item.origin = Some(origin);
                        item.set(&shell_words::join(parts.iter().filter_map(Value::as_str)));
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
}
