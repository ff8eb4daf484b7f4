//! Connections: named credentials for one app, as files and as the engine uses them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sync::{check_slug, unknown};
use super::{Map, Problems, SecretValue, text};

/// One credential field.
#[derive(Debug, Clone)]
pub enum Credential {
    /// The text itself; sealed before it touches the disk.
    Literal(SecretValue),
    /// Read from an environment variable at use.
    Env(String),
    /// Read from a file at use; one trailing newline is trimmed.
    File(String),
    /// Printed by a command at use (no shell, 30 s); one trailing newline is trimmed.
    Command(Vec<String>),
    /// Sealed at rest by the store (armoured text).
    Sealed(String),
    /// A field that is no secret (an id, an organisation's name), kept readable.
    Plain(String),
}

impl Credential {
    /// Reads `"text"`, `{"env":…}`, `{"file":…}`, `{"command":[…]}` or the stored `{"sealed":…}`.
    pub fn parse(value: &Value, secret: bool) -> Option<Self> {
        match value {
            Value::String(s) if secret => Some(Self::Literal(SecretValue::new(s.clone()))),
            Value::String(s) => Some(Self::Plain(s.clone())),
            Value::Object(map) if map.len() == 1 => {
                let (key, inner) = map.iter().next()?;
                match (key.as_str(), inner) {
                    ("env", Value::String(s)) if !s.is_empty() => Some(Self::Env(s.clone())),
                    ("file", Value::String(s)) if !s.is_empty() => Some(Self::File(s.clone())),
                    ("sealed", Value::String(s)) => Some(Self::Sealed(s.clone())),
                    ("command", Value::Array(parts)) if parts.first().and_then(Value::as_str).is_some_and(|p| !p.trim().is_empty()) => {
                        parts.iter().map(|p| p.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>().map(Self::Command)
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The JSON that is written to disk. A literal must have been sealed before.
    pub fn stored(&self) -> Option<Value> {
        Some(match self {
            Self::Literal(_) => return None,
            Self::Plain(s) => Value::String(s.clone()),
            Self::Env(s) => serde_json::json!({ "env": s }),
            Self::File(s) => serde_json::json!({ "file": s }),
            Self::Command(c) => serde_json::json!({ "command": c }),
            Self::Sealed(s) => serde_json::json!({ "sealed": s }),
        })
    }
}

/// Stands for a credential that is stored already, in the document of an edit.
pub fn stored() -> Value {
    serde_json::json!({ "stored": true })
}

/// A field of a connection method, as data: forms, validation and printing read it.
#[derive(Debug, Clone, Copy)]
pub struct CredentialField {
    /// JSON name.
    pub name: &'static str,
    /// Label on the form.
    pub label: &'static str,
    pub required: bool,
    /// Secrets are masked, sealed and never printed; others are printed by `connection list`.
    pub secret: bool,
    /// May hold line breaks (a PEM key).
    pub multiline: bool,
    pub help: &'static str,
}

/// One way to authenticate.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionMethod {
    pub name: &'static str,
    pub label: &'static str,
    pub fields: &'static [CredentialField],
}

/// A top-level setting of a connection beside its credentials (an endpoint, an authority).
#[derive(Debug, Clone, Copy)]
pub struct ConnectionSetting {
    pub name: &'static str,
    pub label: &'static str,
    /// True when the value must be a URL.
    pub url: bool,
    pub help: &'static str,
}

/// What one app's connections look like.
#[derive(Debug, Clone, Copy)]
pub struct AppSpec {
    /// The word in files: `hanzo-kms`, `aws`, …
    pub app: &'static str,
    pub title: &'static str,
    /// Older words accepted on input.
    pub aliases: &'static [&'static str],
    pub methods: &'static [ConnectionMethod],
    /// Beyond `caFile` and `allowInsecureHttp`, which every connection has.
    pub settings: &'static [ConnectionSetting],
    /// Rules between fields, offline. Also asked about a method that is not listed: a problem
    /// with the field `method` then says why that method is refused.
    pub check: fn(&Connection, &mut Problems),
}

/// A connection as stored.
#[derive(Debug, Clone)]
pub struct Connection {
    pub id: String,
    pub name: String,
    pub app: String,
    pub method: String,
    pub description: Option<String>,
    pub credentials: BTreeMap<String, Credential>,
    /// Endpoint fields, `authorityUrl`, and other top-level settings of the app.
    pub settings: Map,
    pub ca_file: Option<String>,
    pub allow_insecure_http: bool,
}

const FIELDS: &[&str] = &["id", "name", "app", "method", "description", "credentials", "caFile", "allowInsecureHttp"];

impl Connection {
    /// Reads and checks a connection document. `spec_of` finds an app by its word or alias;
    /// `apps` lists the words for suggestions. A missing id is drawn.
    pub fn parse(document: &Value, spec_of: impl Fn(&str) -> Option<&'static AppSpec>, apps: &[&str]) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let Some(object) = document.as_object() else {
            return Err(Problems::one("", "object", "The connection must be one JSON object."));
        };
        let mut reader = super::sync::Reader { object, prefix: "", problems: &mut problems };
        let name = reader.text("name", true, usize::MAX).unwrap_or_default();
        let app = reader.text("app", true, 64).unwrap_or_default();
        let method = reader.text("method", true, 64).unwrap_or_default();
        let description = reader.text("description", false, 256).filter(|d| !d.is_empty());
        let id = reader.text("id", false, 64).filter(|i| !i.is_empty()).unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let ca_file = reader.text("caFile", false, 4096).filter(|c| !c.is_empty());
        let allow_insecure_http = reader.flag("allowInsecureHttp").unwrap_or(false);
        check_slug("name", &name, 64, &mut problems);
        if let Some(bad) = id.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_".contains(*c))) {
            problems.add("id", "alphabet", format!("id may hold letters, digits, - and _; {bad:?} is not allowed. Leave it out to get a new one."));
        }
        let spec = spec_of(&app);
        if spec.is_none() && !app.is_empty() {
            let hint = text::closest(&app, apps.iter().copied()).map(|k| format!(" Did you mean {k}?")).unwrap_or_default();
            problems.add("app", "choice", format!("{:?} is not an app; known are {}.{hint}", text::brief(&app, 60), apps.join(", ")));
        }
        let mut connection = Self {
            id,
            name,
            app: spec.map_or(app, |s| s.app.to_string()),
            method,
            description,
            credentials: BTreeMap::new(),
            settings: Map::new(),
            ca_file,
            allow_insecure_http,
        };
        let Some(spec) = spec else {
            return Err(problems);
        };
        connection.read_settings(object, spec, &mut problems);
        if !connection.method.is_empty() && !spec.methods.iter().any(|m| m.name == connection.method) {
            // The app may know the method and say why it cannot be used.
            let mut own = Problems::default();
            (spec.check)(&connection, &mut own);
            if let Some(reason) = own.0.into_iter().find(|p| p.field == "method") {
                problems.0.push(reason);
                return Err(problems);
            }
        }
        connection.read_credentials(object, spec, &mut problems);
        if problems.is_empty() {
            (spec.check)(&connection, &mut problems);
        }
        problems.into_result(connection)
    }

    fn read_settings(&mut self, object: &Map, spec: &AppSpec, problems: &mut Problems) {
        for (key, value) in object {
            if FIELDS.contains(&key.as_str()) {
                continue;
            }
            let Some(setting) = spec.settings.iter().find(|s| s.name == key) else {
                unknown(key, key, FIELDS.iter().copied().chain(spec.settings.iter().map(|s| s.name)), problems);
                continue;
            };
            if value.is_null() || value.as_str() == Some("") {
                continue;
            }
            if setting.url {
                match value.as_str() {
                    Some(url) => check_endpoint(key, url, self.allow_insecure_http, problems),
                    None => problems.add(key, "type", format!("{key} must be a URL.")),
                }
            }
            self.settings.insert(key.clone(), value.clone());
        }
    }

    fn read_credentials(&mut self, object: &Map, spec: &AppSpec, problems: &mut Problems) {
        let Some(method) = spec.methods.iter().find(|m| m.name == self.method) else {
            if !self.method.is_empty() {
                let names: Vec<_> = spec.methods.iter().map(|m| m.name).collect();
                let hint = if self.method == "oauth" {
                    " The browser sign-in belongs to the server's own app and cannot be used here.".to_string()
                } else {
                    text::closest(&self.method, names.iter().copied()).map(|k| format!(" Did you mean {k}?")).unwrap_or_default()
                };
                problems.add(
                    "method",
                    "choice",
                    format!("{:?} is not a method of {}; known are {}.{hint}", text::brief(&self.method, 60), spec.app, names.join(", ")),
                );
            }
            return;
        };
        let empty = Map::new();
        let given = match object.get("credentials") {
            Some(Value::Object(map)) => map,
            None | Some(Value::Null) => &empty,
            Some(_) => {
                problems.add("credentials", "type", "credentials must be an object.");
                return;
            }
        };
        for key in given.keys().filter(|k| !method.fields.iter().any(|f| f.name == k.as_str())) {
            unknown(&format!("credentials.{key}"), key, method.fields.iter().map(|f| f.name), problems);
        }
        for field in method.fields {
            let path = format!("credentials.{}", field.name);
            match given.get(field.name) {
                None | Some(Value::Null) => {
                    if field.required {
                        problems.add(&path, "required", format!("{path} ({}) is required.", field.label));
                    }
                }
                Some(value) => match Credential::parse(value, field.secret) {
                    Some(credential) => {
                        let text = match &credential {
                            Credential::Literal(s) => Some(s.expose().trim()),
                            Credential::Plain(s) => Some(s.trim()),
                            _ => None,
                        };
                        if let Some(text) = text {
                            if text.is_empty() && field.required {
                                problems.add(&path, "required", format!("{path} ({}) must not be empty.", field.label));
                            }
                            if text.chars().any(|c| c.is_control() && !(field.multiline && matches!(c, '\n' | '\r' | '\t'))) {
                                problems.add(&path, "control-characters", format!("{path} must not hold control characters or line breaks."));
                            }
                            if text.is_empty() {
                                continue;
                            }
                        }
                        self.credentials.insert(field.name.to_string(), credential);
                    }
                    None => problems.add(
                        &path,
                        "credential",
                        format!("{path} must be a text, {{\"env\":\"NAME\"}}, {{\"file\":\"PATH\"}} or {{\"command\":[\"prog\",\"arg\"]}}."),
                    ),
                },
            }
        }
    }

    /// A text setting (an endpoint, an authority).
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).and_then(Value::as_str)
    }

    /// The secret fields that are held, without their content. A command's words may hold a
    /// secret, so they stay untold.
    pub fn held(&self, spec: &AppSpec) -> Map {
        let method = spec.methods.iter().find(|m| m.name == self.method);
        let secret = |name: &str| method.is_some_and(|m| m.fields.iter().any(|f| f.name == name && f.secret));
        let shown = |credential: &Credential| match credential {
            Credential::Env(_) | Credential::File(_) => credential.stored().unwrap_or_else(stored),
            _ => stored(),
        };
        self.credentials.iter().filter(|(name, _)| secret(name)).map(|(name, c)| (name.clone(), shown(c))).collect()
    }

    /// What `connection list --json` prints: no secret field, references included.
    pub fn public(&self, spec: &AppSpec) -> Value {
        let method = spec.methods.iter().find(|m| m.name == self.method);
        let credentials: Map = self
            .credentials
            .iter()
            .filter(|(name, c)| {
                !matches!(c, Credential::Literal(_) | Credential::Sealed(_))
                    && method.is_some_and(|m| m.fields.iter().any(|f| f.name == *name && !f.secret))
            })
            .filter_map(|(name, c)| Some((name.clone(), c.stored()?)))
            .collect();
        let mut out = Map::new();
        out.insert("name".into(), self.name.clone().into());
        out.insert("id".into(), self.id.clone().into());
        out.insert("app".into(), self.app.clone().into());
        out.insert("method".into(), self.method.clone().into());
        if let Some(description) = &self.description {
            out.insert("description".into(), description.clone().into());
        }
        out.insert("credentials".into(), Value::Object(credentials));
        for (key, value) in &self.settings {
            out.insert(key.clone(), value.clone());
        }
        if let Some(ca) = &self.ca_file {
            out.insert("caFile".into(), ca.clone().into());
        }
        if self.allow_insecure_http {
            out.insert("allowInsecureHttp".into(), true.into());
        }
        Value::Object(out)
    }
}

/// Credentials that are one word: a blank in them is a slip of copying, and no server takes it.
pub fn check_words(connection: &Connection, fields: &[&str], problems: &mut Problems) {
    for field in fields {
        let blank = match connection.credentials.get(*field) {
            Some(Credential::Literal(text)) => text.expose().trim().contains(char::is_whitespace),
            Some(Credential::Plain(text)) => text.trim().contains(char::is_whitespace),
            _ => false,
        };
        if blank {
            problems.add(format!("credentials.{field}"), "white-space", format!("credentials.{field} must not hold white space."));
        }
    }
}

/// An endpoint must be https, or http to a loopback host, or http with the connection's consent.
pub fn check_endpoint(field: &str, url: &str, allow_insecure_http: bool, problems: &mut Problems) {
    match url::Url::parse(url.trim()) {
        Ok(parsed) if parsed.host_str().is_none() || !matches!(parsed.scheme(), "http" | "https") => {
            problems.add(field, "url", format!("{field} must be an http or https URL with a host."));
        }
        Ok(parsed) => {
            if !parsed.username().is_empty() || parsed.password().is_some() {
                problems.add(field, "url", format!("{field} must not carry a user or password."));
            }
            if parsed.query().is_some() || parsed.fragment().is_some() {
                problems.add(field, "url", format!("{field} must not carry a query or fragment."));
            }
            if parsed.scheme() == "http" && !allow_insecure_http && !is_loopback(&parsed) {
                problems.add(
                    field,
                    "insecure-http",
                    format!("{field} is plain http to another machine: use https, or set \"allowInsecureHttp\": true on the connection."),
                );
            }
        }
        Err(_) => problems.add(field, "url", format!("{field} must be a URL such as https://host.")),
    }
}

/// True when the URL's host is this machine's loopback.
pub fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(d)) => d == "localhost" || d.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// A connection whose credentials were resolved to texts, for one session. Debug shows none.
#[derive(Debug, Clone)]
pub struct ResolvedConnection {
    pub id: String,
    pub name: String,
    pub app: String,
    pub method: String,
    pub credentials: BTreeMap<String, SecretValue>,
    pub settings: Map,
    pub ca_file: Option<String>,
    pub allow_insecure_http: bool,
}

impl ResolvedConnection {
    /// A credential's text, trimmed of surrounding white space.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.credentials.get(field).map(|c| c.expose().trim()).filter(|t| !t.is_empty())
    }

    /// A text setting.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).and_then(Value::as_str).map(str::trim).filter(|s| !s.is_empty())
    }
}

/// A connection as screens and lists see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionView {
    pub id: String,
    pub name: String,
    pub app: String,
    pub method: String,
    /// The document of [`Connection::public`].
    pub public: Value,
    /// The secret fields that are held, by name: the reference where it is one to a variable or a
    /// file, else [`stored`]. An edit that gives them back keeps them.
    #[serde(default)]
    pub held: Map,
    /// Names of syncs that use it.
    pub used_by: Vec<String>,
}
