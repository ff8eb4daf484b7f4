//! Forms to the documented request and back, and the rules beside the fields.

use serde_json::{Map, Value, json};

use super::{Wizard, steps};
use crate::destination::form::Input;
use crate::destination::registry;
use crate::model::Problems;
use crate::model::schema::{self, KeySchema};
use crate::model::sync::{MEMBERS, SyncConfig};
use crate::tui::form::{Item, Kind};
use crate::tui::theme::Role;
use crate::tui::world::World;

/// Members of an answer that must not travel into a new request.
const STATE: &[&str] = &["id", "version", "createdAt", "updatedAt", "folderId", "connection", "folder"];

/// Whether a stored document says this, in the words of a form.
fn said(base: &Value, object: &str, name: &str, value: &str) -> bool {
    match base.get(object).and_then(|o| o.get(name)) {
        Some(Value::String(text)) => text == value,
        Some(other) => other.to_string().as_str() == value,
        None => false,
    }
}

impl Wizard {
    /// The documented request, as far as it is filled in.
    pub fn document(&self) -> Value {
        let mut root = self.base.as_object().cloned().unwrap_or_default();
        for word in STATE {
            root.remove(*word);
        }
        root.remove("isAutoSyncEnabled");
        let mut options = take_object(&mut root, "syncOptions");
        let mut config = take_object(&mut root, "destinationConfig");
        for item in self.forms.iter().flat_map(|f| &f.items) {
            let value = if item.hidden { Value::Null } else { self.value_of(item) };
            let (map, name) = match item.id.split_once('.') {
                Some(("syncOptions", name)) => (&mut options, name),
                Some((_, name)) => (&mut config, name),
                None => (&mut root, item.id.as_str()),
            };
            if let Some(member) = self.provider.and_then(|p| steps::field_of(p.spec(), &item.id)).and_then(|f| f.label_into) {
                match (&item.called, item.touched, value.is_null()) {
                    (_, _, true) => drop(map.remove(member)),
                    (Some(called), _, _) => drop(map.insert(member.into(), json!(called))),
                    // Typed by hand: the old label may belong to another value.
                    (None, true, _) => drop(map.remove(member)),
                    (None, false, _) => {}
                }
            }
            if value.is_null() {
                map.remove(name);
            } else {
                map.insert(name.to_string(), value);
            }
        }
        if let Some(provider) = self.provider {
            root.insert("destination".into(), json!(provider.spec().kind));
        }
        root.insert("syncOptions".into(), Value::Object(options));
        root.insert("destinationConfig".into(), Value::Object(config));
        Value::Object(ordered(root))
    }

    fn value_of(&self, item: &Item) -> Value {
        let field = self.provider.and_then(|p| steps::field_of(p.spec(), &item.id));
        let pairs = field.is_some_and(|f| matches!(f.input, Input::Pairs));
        let typed = item.value();
        let text = field.and_then(|f| f.expand).and_then(|expand| expand(&typed)).unwrap_or(typed);
        match &item.kind {
            // A switch that is off and was never on stays unsaid; `isEnabled` is always said.
            Kind::Flag if !item.on && item.id != "isEnabled" && !self.in_base(&item.id) => Value::Null,
            Kind::Flag => json!(item.on),
            _ if text.is_empty() => Value::Null,
            // An optional field left at what it starts with stays unsaid, too.
            _ if !item.required && !self.in_base(&item.id) && self.default_of(&item.id) == Some(text.as_str()) => Value::Null,
            Kind::Number { .. } => text.parse::<i64>().map_or(json!(text), |n| json!(n)),
            Kind::Area if pairs => parse_pairs(&text),
            _ => json!(text),
        }
    }

    fn in_base(&self, id: &str) -> bool {
        match id.split_once('.') {
            Some((object, name)) => self.base.get(object).is_some_and(|o| o.get(name).is_some()),
            None => self.base.get(id).is_some(),
        }
    }

    fn default_of(&self, id: &str) -> Option<&'static str> {
        self.provider.and_then(|p| steps::field_of(p.spec(), id)).and_then(|f| f.default)
    }

    /// Fills the forms from a stored request.
    pub fn fill(&mut self, document: &Value) {
        for item in self.forms.iter_mut().flat_map(|f| &mut f.items) {
            let value = match item.id.split_once('.') {
                Some((object, name)) => document.get(object).and_then(|o| o.get(name)),
                None => document.get(&item.id),
            };
            match value {
                Some(Value::String(s)) => item.set(s),
                Some(Value::Bool(b)) => {
                    item.on = *b;
                    item.touched = true;
                }
                Some(Value::Number(n)) => item.set(&n.to_string()),
                Some(Value::Array(pairs)) => item.set(&print_pairs(pairs)),
                _ => {}
            }
            let label = self.provider.and_then(|p| steps::field_of(p.spec(), &item.id)).and_then(|f| f.label_into);
            item.called = label.and_then(|l| document.get("destinationConfig")?.get(l)?.as_str().map(str::to_string));
        }
    }

    /// Shows and hides fields, and puts the rules' verdicts beside them.
    pub fn validate(&mut self, world: &World) {
        let Some(provider) = self.provider else {
            return;
        };
        let accounts = world.connections_of(crate::source::APP.app).len();
        if let Some(item) = self.forms[0].item_mut("sourceConnection") {
            item.hidden = accounts == 1 && item.is_empty();
        }
        // A condition may name a field of either step.
        let values: Vec<(String, String)> = self.forms[1..=2].iter().flat_map(|f| &f.items).map(|i| (i.id.clone(), i.value())).collect();
        let environment = self.environment_name();
        for item in self.forms[1..=2].iter_mut().flat_map(|f| &mut f.items) {
            let field = steps::field_of(provider.spec(), &item.id);
            let condition = field.and_then(|f| f.only_if);
            item.hidden = match (condition, item.id.split_once('.')) {
                // A field that depends on itself is there for documents that say something unusual.
                (Some((field, value)), Some((object, own))) if field == own => !said(&self.base, object, own, value),
                (Some((field, value)), _) => !values.iter().any(|(id, v)| id.split_once('.').is_some_and(|(_, n)| n == field) && v == value),
                (None, _) => false,
            };
            if field.is_some_and(|f| f.follows_environment) {
                item.follows = environment.as_ref().map(|name| format!("{name} (from the environment)"));
            }
        }
        let problems = SyncConfig::parse(&self.document(), Some(provider.spec().kind), registry::rules, &registry::kinds()).err().unwrap_or_default();
        self.spread(&problems);
        self.check_refused();
        let taken = |name: &str| world.board.cards.contains_key(name) && self.replaces.as_deref() != Some(name);
        let name = self.forms[3].value("name").to_lowercase();
        if taken(&name)
            && let Some(item) = self.forms[3].item_mut("name")
        {
            item.problem = Some(format!("A sync named {name} exists already."));
            item.touched = true;
        }
        self.preview();
    }

    /// Where a list is refused, some fields take only what needs no looking up.
    fn check_refused(&mut self) {
        for item in self.forms[1..=2].iter_mut().flat_map(|f| &mut f.items).filter(|i| !i.hidden && !i.is_empty() && i.problem.is_none()) {
            item.problem = item.unlisted().filter(|u| !(u.fits)(&item.value())).map(|u| u.text.to_string());
        }
    }

    /// The chosen environment's name, or its slug where the server gives no name; `None` while
    /// neither is known.
    fn environment_name(&self) -> Option<String> {
        let (project, slug) = (self.forms[0].value("projectId"), self.forms[0].value("environment"));
        let project = self.projects.iter().find(|p| p.id == project)?;
        let known = project.environments.iter().find(|e| e.slug == slug)?;
        Some(if known.name.trim().is_empty() { slug } else { known.name.trim().to_string() })
    }

    /// Puts problems beside their fields.
    pub fn spread(&mut self, problems: &Problems) {
        for item in self.forms.iter_mut().flat_map(|f| &mut f.items) {
            let own =
                problems.0.iter().find(|p| p.field == item.id || p.field.strip_prefix(&item.id).is_some_and(|rest| rest.starts_with(['[', '.'])));
            item.problem = match own {
                _ if item.hidden => None,
                _ if item.required && item.is_empty() => Some(format!("{} is required.", item.label)),
                Some(problem) => Some(problem.message.clone()),
                None => None,
            };
            if let Kind::Number { min, max } = item.kind
                && !item.is_empty()
                && item.value().parse::<i64>().is_err()
            {
                item.problem = Some(format!("{} must be a whole number from {min} to {max}.", item.label));
            }
        }
    }

    /// Shows what an example key becomes under the schema.
    fn preview(&mut self) {
        let Some(provider) = self.provider else {
            return;
        };
        let template = self.forms[2].value("syncOptions.keySchema");
        let environment = self.forms[0].value("environment");
        let config = self.document().get("destinationConfig").and_then(Value::as_object).cloned().unwrap_or_default();
        let mut problems = Problems::default();
        schema::check(&template, "", &mut problems);
        let keys = provider.keys(&config);
        let shown = if problems.is_empty() {
            let environment = if environment.is_empty() { "dev" } else { &environment };
            let made = if keys.schema_on_keys() { KeySchema::new(Some(&template), environment).apply("DB_PASSWORD") } else { "DB_PASSWORD".into() };
            match keys.convert(&made) {
                Ok(key) => Some((Role::Dim, format!("DB_PASSWORD → {key}"))),
                Err(_) => Some((Role::Warn, format!("{made} is refused there"))),
            }
        } else {
            None
        };
        if let Some(item) = self.forms[2].item_mut("syncOptions.keySchema") {
            item.status = shown;
        }
    }

    /// The command that does the same.
    pub fn command(&self) -> String {
        let kind = self.provider.map(|p| p.spec().kind).unwrap_or_default();
        match &self.replaces {
            Some(name) => format!("kms-sync update {name} -f - <<'JSON'"),
            None => format!("kms-sync create -f - --destination {kind} <<'JSON'"),
        }
    }

    /// The documented call that does the same on the server.
    pub fn curl(&self, world: &World) -> Vec<String> {
        let kind = self.provider.map(|p| p.spec().kind).unwrap_or_default();
        let account = self.account(world);
        let base = world
            .connections_of(crate::source::APP.app)
            .into_iter()
            .find(|c| account.as_deref().is_none_or(|a| a == c.name || a == c.id))
            .and_then(|c| c.public.get("baseUrl")?.as_str().map(str::to_string))
            .unwrap_or_else(|| crate::source::DEFAULT_BASE_URL.into());
        let filtered = ["includeKeys", "excludeKeys"].iter().any(|m| self.base.get("syncOptions").is_some_and(|o| o.get(m).is_some()));
        let warning = filtered.then(|| "# The server does not know includeKeys and excludeKeys: it would carry every key.".to_string());
        let call = vec![
            "curl --request POST \\".into(),
            format!("  --url {}/api/v1/secret-syncs/{kind} \\", base.trim_end_matches('/')),
            "  --header \"Authorization: Bearer $KMS_TOKEN\" \\".into(),
            "  --header 'Content-Type: application/json' \\".into(),
            "  --data @- <<'JSON'".into(),
        ];
        warning.into_iter().chain(call).collect()
    }
}

fn take_object(root: &mut Map<String, Value>, name: &str) -> Map<String, Value> {
    match root.remove(name) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Members in the documented order.
fn ordered(mut root: Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    for name in MEMBERS {
        if let Some(value) = root.remove(*name) {
            out.insert((*name).into(), value);
        }
    }
    out.extend(root);
    out
}

/// `key=value` lines to pairs; a line without `=` is a key without value.
fn parse_pairs(text: &str) -> Value {
    let pairs = text.lines().map(str::trim).filter(|l| !l.is_empty()).map(|line| {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        json!({ "key": key.trim(), "value": value.trim() })
    });
    Value::Array(pairs.collect())
}

fn print_pairs(pairs: &[Value]) -> String {
    let text = |pair: &Value, name: &str| pair.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
    pairs.iter().map(|p| format!("{}={}", text(p, "key"), text(p, "value"))).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_go_there_and_back() {
        let pairs = parse_pairs("team=payments\n\n owner = a=b \nbare");
        assert_eq!(pairs, json!([{"key": "team", "value": "payments"}, {"key": "owner", "value": "a=b"}, {"key": "bare", "value": ""}]));
        assert_eq!(print_pairs(pairs.as_array().unwrap()), "team=payments\nowner=a=b\nbare=");
    }
}
