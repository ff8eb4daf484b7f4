//! The configuration files: one JSON document per sync and per connection.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::{Broken, Loaded, StoreError, StoreErrorKind, shown};
use super::files::{self, Access};
use super::seal::SealMode;
use super::{Settings, Store};
use crate::destination::registry;
use crate::model::connection::{Connection, Credential, stored};
use crate::model::sync::{KindRules, SyncConfig};
use crate::model::text::brief;
use crate::model::{Map, Problems, SecretValue, json};

/// Longer sync names are cut to this and told apart by a hash: a file's name may have 255 bytes.
const MAX_STEM: usize = 240;

/// The file name (without `.json`) of a sync or connection.
fn stem_of(name: &str) -> String {
    if name.len() <= MAX_STEM {
        return name.to_string();
    }
    // A point cannot occur in a name, so no other name has this stem.
    let mut cut: String = name.chars().take(200).collect();
    cut.push('.');
    cut.push_str(&blake3::hash(name.as_bytes()).to_hex()[..16]);
    cut
}

/// A name that cannot leave its directory. What else a name must be, the model checks.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 1024 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// Parses JSON without ever quoting its content in the error.
pub(super) fn parse_json(text: &str, path: &Path) -> Result<Value, StoreError> {
    json::parse(text).map_err(|e| {
        let what = match e {
            _ if text.trim().is_empty() => "is empty".to_string(),
            e if e.truncated => format!("is truncated: {e}"),
            e if e.duplicate.is_some() => format!("cannot be trusted: {e}"),
            e => format!("is not JSON: {e}"),
        };
        StoreError::new(StoreErrorKind::Broken, what)
            .at(path)
            .fix(format!("Mend it there, bring it back from version control, or move it away: mv {0} {0}.broken", shown(path)))
    })
}

fn pretty(document: &Value) -> Vec<u8> {
    let mut text = format!("{document:#}").into_bytes();
    text.push(b'\n');
    text
}

fn not_found(what: &str, name: &str, known: impl Iterator<Item = String>) -> StoreError {
    let known: Vec<String> = known.collect();
    let hint = crate::model::text::closest(name, known.iter().map(String::as_str)).map(|k| format!(" Did you mean {k}?")).unwrap_or_default();
    StoreError::new(StoreErrorKind::NotFound, format!("there is no {what} {:?}.{hint}", brief(name, 80)))
}

/// A document whose members break rules: each is told with its member and its word.
fn against_rules(path: &Path, problems: Problems, fix: &str) -> Broken {
    Broken { path: path.to_path_buf(), reason: problems.ruled(), fix: fix.to_string(), problems }
}

/// A document that names something else than its file does.
fn misnamed(path: &Path, what: &str, name: &str, fix: &str) -> Broken {
    let problems = Problems::one("name", "file-name", format!("The {what} in it is named {:?}, and the file is not.", brief(name, 80)));
    against_rules(path, problems, fix)
}

/// Reads a sync's document and checks every rule of its kind.
fn parse_sync(text: &str, stem: &str, path: &Path) -> Result<SyncConfig, Broken> {
    parse_sync_by(text, stem, path, registry::rules, &registry::kinds())
}

pub(super) fn parse_sync_by<'r>(
    text: &str,
    stem: &str,
    path: &Path,
    rules: impl Fn(&str) -> Option<&'r dyn KindRules>,
    kinds: &[&str],
) -> Result<SyncConfig, Broken> {
    let document = parse_json(text, path).map_err(|e| Broken::of(path, e))?;
    let config = SyncConfig::parse(&document, None, rules, kinds)
        .map_err(|problems| against_rules(path, problems, "Correct these members in the file, or create the sync again."))?;
    if stem_of(&config.name) != stem {
        let fix = format!("Rename the file to {}.json, or the sync in it.", stem_of(&config.name));
        return Err(misnamed(path, "sync", &config.name, &fix));
    }
    Ok(config)
}

/// Reads a connection's document and checks every rule.
fn parse_connection(text: &str, stem: &str, path: &Path) -> Result<Connection, Broken> {
    let mut document = parse_json(text, path).map_err(|e| Broken::of(path, e))?;
    if let Some(object) = document.as_object_mut()
        && object.get("id").is_none_or(Value::is_null)
    {
        object.insert("id".into(), id_of_name(stem).into());
    }
    let apps: Vec<&str> = registry::apps().iter().map(|a| a.app).collect();
    let mut connection = Connection::parse(&document, registry::app, &apps)
        .map_err(|problems| against_rules(path, problems, "Correct these members in the file, or add the connection again."))?;
    if connection.name != stem {
        let fix = format!("Rename the file to {}.json, or the connection in it.", brief(&connection.name, 80));
        return Err(misnamed(path, "connection", &connection.name, &fix));
    }
    // Files written by hand name their neighbours; a service's working directory is no place to look.
    make_absolute(&mut connection, path.parent().and_then(Path::parent).unwrap_or(Path::new("/")));
    Ok(connection)
}

/// The id of a connection file that a person wrote without one: the same on every load.
fn id_of_name(name: &str) -> String {
    let hash = blake3::hash(format!("kms-sync connection {name}").as_bytes());
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

fn make_absolute(connection: &mut Connection, base: &Path) {
    let fixed = |text: &str| {
        let path = Path::new(text);
        (path.is_relative() && !path.starts_with("~")).then(|| base.join(path).to_string_lossy().into_owned())
    };
    for credential in connection.credentials.values_mut() {
        if let Credential::File(path) = credential
            && let Some(absolute) = fixed(path)
        {
            *path = absolute;
        }
    }
    if let Some(absolute) = connection.ca_file.as_deref().and_then(fixed) {
        connection.ca_file = Some(absolute);
    }
}

/// The document of a connection whose secrets are sealed.
fn connection_document(connection: &Connection) -> Result<Value, StoreError> {
    let mut credentials = Map::new();
    for (field, credential) in &connection.credentials {
        let stored = credential.stored().ok_or_else(|| StoreError::new(StoreErrorKind::Invalid, format!("{field} was not sealed")))?;
        credentials.insert(field.clone(), stored);
    }
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| out.insert(key.to_string(), value);
    put("name", connection.name.clone().into());
    put("id", connection.id.clone().into());
    put("app", connection.app.clone().into());
    put("method", connection.method.clone().into());
    if let Some(description) = &connection.description {
        put("description", description.clone().into());
    }
    put("credentials", Value::Object(credentials));
    for (key, value) in &connection.settings {
        put(key, value.clone());
    }
    if let Some(ca) = &connection.ca_file {
        put("caFile", ca.clone().into());
    }
    if connection.allow_insecure_http {
        put("allowInsecureHttp", true.into());
    }
    Ok(Value::Object(out))
}

impl Store {
    /// Every stored sync, sorted by name. One bad file never hides the others.
    pub fn syncs(&self) -> Vec<Loaded<SyncConfig>> {
        load_all(&self.dirs().syncs(), Access::Readable, parse_sync)
    }

    /// One sync by name.
    pub fn sync(&self, name: &str) -> Result<SyncConfig, StoreError> {
        let name = name.trim().to_lowercase();
        let dir = self.dirs().syncs();
        let known = || files::json_files(&dir).unwrap_or_default().into_iter().map(|(n, _)| n);
        if !is_name(&name) {
            return Err(not_found("sync", &name, known()));
        }
        let stem = stem_of(&name);
        let path = dir.join(format!("{stem}.json"));
        match files::read(&path, Access::Readable)? {
            Some(text) => Ok(parse_sync(&text, &stem, &path)?),
            None => Err(not_found("sync", &name, known())),
        }
    }

    /// True when a file of that name is stored, usable or not.
    pub fn has_sync(&self, name: &str) -> bool {
        is_name(name) && files::look(&self.sync_path(name)).is_ok_and(|m| m.is_some())
    }

    /// Stores a sync, replacing the one of the same name in one step.
    pub fn save_sync(&self, config: &SyncConfig) -> Result<(), StoreError> {
        self.stage_sync(config)?.commit()
    }

    /// Stores a new sync; `false` when one of that name exists, also when another process made
    /// it a moment ago.
    pub fn create_sync(&self, config: &SyncConfig) -> Result<bool, StoreError> {
        self.stage_sync(config)?.commit_new()
    }

    fn stage_sync(&self, config: &SyncConfig) -> Result<files::Staged, StoreError> {
        if !is_name(&config.name) {
            return Err(StoreError::new(StoreErrorKind::Invalid, format!("{:?} is not a sync's name", brief(&config.name, 80))));
        }
        let document = serde_json::to_string_pretty(config).map_err(|e| StoreError::new(StoreErrorKind::Invalid, e.to_string()))?;
        files::ensure_dir(&self.dirs().syncs(), true)?;
        files::stage(&self.sync_path(&config.name), format!("{document}\n").as_bytes())
    }

    /// Removes a sync's file; its state stays until [`Store::forget_sync`].
    pub fn remove_sync(&self, name: &str) -> Result<(), StoreError> {
        if is_name(name) && files::remove(&self.sync_path(name))? { Ok(()) } else { Err(not_found("sync", name, std::iter::empty())) }
    }

    /// The file of a sync.
    pub fn sync_path(&self, name: &str) -> PathBuf {
        self.dirs().syncs().join(format!("{}.json", stem_of(name)))
    }

    /// Every stored connection, sorted by name. Nothing is unsealed.
    pub fn connections(&self) -> Vec<Loaded<Connection>> {
        load_all(&self.dirs().connections(), Access::Private, parse_connection)
    }

    /// One connection by name, or by id.
    pub fn connection(&self, name_or_id: &str) -> Result<Connection, StoreError> {
        let wanted = name_or_id.trim();
        if is_name(wanted) {
            let path = self.connection_path(wanted);
            if let Some(text) = files::read(&path, Access::Private)? {
                return Ok(parse_connection(&text, wanted, &path)?);
            }
        }
        let all = self.connections();
        if let Some(found) = all.iter().filter_map(|l| l.result.as_ref().ok()).find(|c| c.id.eq_ignore_ascii_case(wanted)) {
            return Ok(found.clone());
        }
        let mut error = not_found("connection", wanted, all.iter().map(|l| l.name.clone()));
        let broken: Vec<&str> = all.iter().filter(|l| l.result.is_err()).map(|l| l.name.as_str()).collect();
        if !broken.is_empty() {
            error = error.fix(format!("These connection files could not be read, see kms-sync doctor: {}.", broken.join(", ")));
        }
        Err(error)
    }

    /// Seals what is literal and stores the connection. One that replaces another of its name
    /// keeps that one's id, because syncs may refer to it. Returns what was stored.
    pub fn save_connection(&self, mut connection: Connection) -> Result<Connection, StoreError> {
        if !is_name(&connection.name) {
            return Err(StoreError::new(StoreErrorKind::Invalid, format!("{:?} is not a connection's name", brief(&connection.name, 80))));
        }
        let _guard = self.config_guard()?;
        for other in self.connections() {
            let Ok(there) = other.result else { continue };
            if there.name == connection.name {
                connection.id = there.id;
            } else if there.id == connection.id {
                let text = format!("id is the one of the connection {}: leave it out to get a new one.", there.name);
                return Err(Problems::one("id", "unique", text).into());
            }
        }
        let here = std::env::current_dir().map_err(|e| StoreError::io("find the working directory", Path::new("."), &e))?;
        make_absolute(&mut connection, &here);
        self.check_content(&connection)?;
        self.seal_literals(&mut connection, self.settings()?.seal)?;
        let document = connection_document(&connection)?;
        files::ensure_dir(&self.dirs().connections(), true)?;
        files::write(&self.connection_path(&connection.name), &pretty(&document))?;
        Ok(connection)
    }

    /// Refuses what no use of the connection could go well with: a CA file that holds no
    /// certificate, a sealed text that nothing here opens.
    fn check_content(&self, connection: &Connection) -> Result<(), StoreError> {
        let mut problems = Problems::default();
        if let Some(Err(why)) = connection.ca_file.as_deref().map(crate::http::authorities) {
            problems.add("caFile", "certificate", format!("{why}."));
        }
        for (field, credential) in &connection.credentials {
            let Credential::Sealed(sealed) = credential else { continue };
            // With the passphrase still unknown only the form can be judged.
            if let Err(error) = self.keys().unseal(sealed)
                && error.kind != StoreErrorKind::Locked
            {
                problems.add(format!("credentials.{field}"), "sealed", format!("credentials.{field}: {}.", error.message));
            }
        }
        Ok(problems.into_result(())?)
    }

    /// Replaces each credential `{"stored": true}` of an edited document by what the stored
    /// connection of that name holds in that field.
    pub fn with_stored_credentials(&self, mut document: Value) -> Result<Value, StoreError> {
        let name = document.get("name").and_then(Value::as_str).unwrap_or_default().to_string();
        let Some(credentials) = document.get_mut("credentials").and_then(Value::as_object_mut) else { return Ok(document) };
        if !credentials.values().any(|v| *v == stored()) {
            return Ok(document);
        }
        let held = if is_name(&name) { self.connection(&name).map(|c| c.credentials).unwrap_or_default() } else { Default::default() };
        let mut problems = Problems::default();
        for (field, value) in credentials.iter_mut().filter(|(_, v)| **v == stored()) {
            match held.get(field).and_then(Credential::stored) {
                Some(there) => *value = there,
                None => {
                    problems.add(format!("credentials.{field}"), "stored", format!("credentials.{field}: nothing is stored for it; give its value."))
                }
            }
        }
        if problems.is_empty() {
            return Ok(document);
        }
        Err(problems.into())
    }

    /// Removes a connection's file.
    pub fn remove_connection(&self, name: &str) -> Result<(), StoreError> {
        if is_name(name) && files::remove(&self.connection_path(name))? { Ok(()) } else { Err(not_found("connection", name, std::iter::empty())) }
    }

    /// The file of a connection.
    pub fn connection_path(&self, name: &str) -> PathBuf {
        self.dirs().connections().join(format!("{name}.json"))
    }

    fn seal_literals(&self, connection: &mut Connection, mode: SealMode) -> Result<(), StoreError> {
        for credential in connection.credentials.values_mut() {
            if let Credential::Literal(text) = credential {
                *credential = Credential::Sealed(self.keys().seal(mode, text)?);
            }
        }
        Ok(())
    }

    /// Changes how the sealing key is kept, and seals every stored credential anew: all new
    /// files are written beside the old ones first, then put in place. Until the end both keys
    /// exist, so a crash at any moment leaves every credential readable. A passphrase is needed
    /// for [`SealMode::Passphrase`] unless it was given before; when that way is already in use
    /// the passphrase is changed.
    pub fn change_seal(&self, mode: SealMode, passphrase: Option<&SecretValue>) -> Result<(), StoreError> {
        let _guard = self.config_guard()?;
        let settings = self.settings()?;
        if let Some(passphrase) = passphrase.filter(|_| mode == SealMode::Passphrase) {
            self.keys().set_passphrase(passphrase)?;
        }
        let mut staged = Vec::new();
        for loaded in self.connections() {
            let mut connection = loaded.result?;
            let mut touched = false;
            for credential in connection.credentials.values_mut() {
                let text = match credential {
                    Credential::Literal(text) => text.clone(),
                    Credential::Sealed(sealed) => self.keys().unseal(sealed)?,
                    _ => continue,
                };
                *credential = Credential::Sealed(self.keys().seal(mode, &text)?);
                touched = true;
            }
            if touched {
                staged.push(files::stage(&loaded.path, &pretty(&connection_document(&connection)?))?);
            }
        }
        for file in staged {
            file.commit()?;
        }
        if settings.seal != mode {
            self.write_settings(&Settings { seal: mode, ..settings })?;
        }
        let other = if mode == SealMode::KeyFile { SealMode::Passphrase } else { SealMode::KeyFile };
        self.keys().forget(other)
    }
}

fn load_all<T>(dir: &Path, access: Access, parse: impl Fn(&str, &str, &Path) -> Result<T, Broken>) -> Vec<Loaded<T>> {
    let found = match files::json_files(dir) {
        Ok(found) => found,
        Err(error) => {
            let name = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            return vec![Loaded { name, path: dir.to_path_buf(), result: Err(Broken::of(dir, error)) }];
        }
    };
    found
        .into_iter()
        .filter_map(|(name, path)| {
            let result = match files::read(&path, access) {
                Ok(Some(text)) => parse(&text, &name, &path),
                // Removed between the listing and the reading.
                Ok(None) => return None,
                Err(error) => Err(Broken::of(&path, error)),
            };
            Some(Loaded { name, path, result })
        })
        .collect()
}
