//! What `doctor` can tell about this machine's files without talking to anybody: no command
//! is run, no request is made, nothing is written.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::{Loaded, StoreError, StoreErrorKind, shown};
use super::files::{self, Access};
use super::seal::SealMode;
use super::{EngineLock, Settings, Store, read_hash_key, resolve};
use crate::model::Finding;
use crate::model::connection::{Connection, Credential};
use crate::model::sync::SyncConfig;
use crate::model::text::{brief, sanitise};

/// Looks at directories, files, keys, database, settings, syncs and connections.
pub fn doctor(store: &Store) -> Vec<Finding> {
    let mut found = Vec::new();
    directories(store, &mut found);
    left_behind(store, &mut found);
    let settings = settings(store, &mut found);
    keys(store, &mut found);
    database(store, &mut found);
    engine(store, &mut found);
    let connections = store.connections();
    sealing(store, &settings, &connections, &mut found);
    for loaded in &connections {
        connection(store, loaded, &settings, &mut found);
    }
    syncs(store, &connections, &mut found);
    found
}

fn well(what: impl Into<String>, detail: impl Into<String>) -> Finding {
    Finding { ok: true, what: what.into(), detail: detail.into(), fix: None }
}

fn ill(what: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { ok: false, what: what.into(), detail: detail.into(), fix: Some(fix.into()) }
}

fn of_error(what: impl Into<String>, error: StoreError) -> Finding {
    let fix = error.fix.clone();
    let detail = StoreError { fix: None, ..error }.text();
    Finding { ok: false, what: what.into(), detail, fix }
}

fn name_of(path: &Path) -> String {
    sanitise(&path.display().to_string())
}

fn directories(store: &Store, found: &mut Vec<Finding>) {
    let dirs = store.dirs();
    for (what, path, strict) in [
        ("config directory", dirs.config.clone(), false),
        ("syncs directory", dirs.syncs(), true),
        ("connections directory", dirs.connections(), true),
        ("state directory", dirs.state.clone(), false),
    ] {
        let looked = files::look(&path).and_then(|meta| match meta {
            Some(meta) => {
                files::check_dir(&path, &meta, strict)?;
                // Configuration may be read-only; without its state nothing works.
                if path == dirs.state {
                    writable(&path)?;
                }
                Ok(std::fs::metadata(&path).ok())
            }
            None => Ok(None),
        });
        found.push(match looked {
            Err(error) => of_error(what, error),
            Ok(None) => match path.ancestors().skip(1).find(|dir| dir.exists()).map_or(Ok(()), writable) {
                Ok(()) => well(what, format!("{}: made on first use", name_of(&path))),
                Err(error) => of_error(what, error),
            },
            Ok(Some(_)) if path != dirs.state && writable(&path).is_err() => Finding {
                fix: Some(format!("To create or edit here, make it writable: chown or chmod {}", shown(&path))),
                ..well(what, format!("{}: read only for this user", name_of(&path)))
            },
            Ok(Some(meta)) => {
                let mode = meta.mode() & 0o777;
                let open = mode & 0o077 != 0;
                let detail = if open {
                    format!("{}: mode {mode:04o}, others can see the names of the files in it", name_of(&path))
                } else {
                    format!("{}: mode {mode:04o}", name_of(&path))
                };
                Finding { fix: open.then(|| format!("chmod 700 {}", shown(&path))), ..well(what, detail) }
            }
        });
    }
}

/// Checks that files can be made in a directory, without making one.
fn writable(dir: &Path) -> Result<(), StoreError> {
    use rustix::fs::Access;
    let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::access(dir, all).map_err(|refused| StoreError::io("write into it", dir, &refused.into()))
}

/// Temporary files of writes that a crash cut short.
fn left_behind(store: &Store, found: &mut Vec<Finding>) {
    let dirs = store.dirs();
    for dir in [dirs.config.clone(), dirs.syncs(), dirs.connections(), dirs.state.clone()] {
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let left: Vec<PathBuf> = entries.filter(|e| e.file_name().to_string_lossy().starts_with(files::TEMP_PREFIX)).map(|e| e.path()).collect();
        if !left.is_empty() {
            let list: Vec<String> = left.iter().map(|p| shown(p)).collect();
            found.push(ill(
                "unfinished writes",
                format!("{} temporary file(s) in {}, left by a write that was cut short (or is going on now)", left.len(), name_of(&dir)),
                format!("When no kms-sync is running: rm {}", list.join(" ")),
            ));
        }
    }
}

fn settings(store: &Store, found: &mut Vec<Finding>) -> Settings {
    match store.settings() {
        Ok(settings) => {
            let drift = settings.drift_hours.map_or("off".to_string(), |h| format!("every {h} h ({})", settings.drift_action));
            let paused = if settings.paused { "; all auto-syncs are PAUSED" } else { "" };
            found.push(well("settings", format!("sources polled every {} s, drift check {drift}{paused}", settings.poll_interval_secs)));
            settings
        }
        Err(error) => {
            found.push(of_error("settings", error));
            Settings::default()
        }
    }
}

fn keys(store: &Store, found: &mut Vec<Finding>) {
    for mode in [SealMode::KeyFile, SealMode::Passphrase] {
        match store.keys().check(mode) {
            Ok(Some(id)) => found.push(well("sealing key", format!("{}: id {id}", name_of(&store.keys().path(mode))))),
            Ok(None) => {}
            Err(error) => found.push(of_error("sealing key", error)),
        }
    }
    match read_hash_key(&store.hash_key_path()) {
        Ok(Some(_)) => found.push(well("ledger key", name_of(&store.hash_key_path()))),
        Ok(None) => found.push(well("ledger key", "made on first use")),
        Err(error) => found.push(of_error("ledger key", error)),
    }
}

fn database(store: &Store, found: &mut Vec<Finding>) {
    let path = store.db().path();
    let companions = ["-wal", "-shm"].map(|c| PathBuf::from(format!("{}{c}", path.display())));
    for file in &companions {
        if let Err(error) = files::look(file).and_then(|m| m.map_or(Ok(()), |meta| files::check_file(file, &meta, Access::Private))) {
            found.push(of_error("state database", error));
        }
    }
    found.push(match files::look(path) {
        Ok(None) => well("state database", "made on first use"),
        Ok(Some(_)) => match store.db().quick_check() {
            Ok(None) => well("state database", format!("{}: sound", name_of(path))),
            Ok(Some(what)) => of_error("state database", store.db().damaged(&format!("is damaged: {}", brief(&what, 200)))),
            Err(error) => of_error("state database", error),
        },
        Err(error) => of_error("state database", error),
    });
}

fn engine(store: &Store, found: &mut Vec<Finding>) {
    found.push(match EngineLock::holder(store.dirs()) {
        Ok(None) => well("engine", "no kms-sync runs syncs of this state directory now"),
        Ok(Some(holder)) => well("engine", format!("held by pid {} ({}) since {}", holder.process.pid, brief(&holder.what, 80), holder.since)),
        Err(error) => of_error("engine", error),
    });
}

/// What the seal protects, and whether every file follows the chosen way.
fn sealing(store: &Store, settings: &Settings, connections: &[Loaded<Connection>], found: &mut Vec<Finding>) {
    found.push(well("sealed credentials", settings.seal.promise()));
    let Ok(current) = store.keys().key_id(settings.seal) else {
        return;
    };
    let otherwise: Vec<&str> = connections
        .iter()
        .filter(|l| {
            l.result.as_ref().is_ok_and(|c| {
                let key = |c: &Credential| match c {
                    Credential::Sealed(text) => text.split_once(':').map(|(id, _)| id.to_string()),
                    _ => None,
                };
                c.credentials.values().filter_map(key).any(|id| Some(id) != current)
            })
        })
        .map(|l| l.name.as_str())
        .collect();
    if !otherwise.is_empty() {
        found.push(ill(
            "sealed credentials",
            format!("sealed by another key than the settings' ({}): {}", settings.seal, otherwise.join(", ")),
            "A change of the way to seal was cut short or done by hand: change it again, or add these connections again.",
        ));
    }
}

fn connection(store: &Store, loaded: &Loaded<Connection>, settings: &Settings, found: &mut Vec<Finding>) {
    let what = format!("connection {}", sanitise(&loaded.name));
    let connection = match &loaded.result {
        Ok(connection) => connection,
        Err(broken) => {
            found.push(ill(what, format!("{}: {}", name_of(&broken.path), broken.reason), broken.fix.clone()));
            return;
        }
    };
    let before = found.len();
    for (field, credential) in &connection.credentials {
        let checked = match credential {
            Credential::Plain(_) => Ok(()),
            Credential::Literal(_) => Err(StoreError::new(StoreErrorKind::Refused, "stands in the clear in the file")
                .at(&loaded.path)
                .fix(format!("Seal it: kms-sync connection add -f {} (and remove it from version control and backups).", shown(&loaded.path)))),
            Credential::Env(name) => resolve::from_env(name).map(|_| ()),
            Credential::File(path) => resolve::secret_file(Path::new(path)).map(|_| ()),
            Credential::Command(argv) => find_program(argv),
            Credential::Sealed(sealed) => unsealable(store, sealed, settings),
        };
        if let Err(error) = checked {
            found.push(of_error(format!("{what}, {field}"), error));
        }
    }
    if let Some(Err(why)) = connection.ca_file.as_deref().map(crate::http::authorities) {
        found.push(ill(format!("{what}, caFile"), why, "Put the PEM certificates of the endpoints' authority there, or correct the path."));
    }
    if found.len() == before {
        let kinds: Vec<&str> = connection.credentials.values().filter_map(kind_of).collect();
        let kinds = if kinds.is_empty() { "no secrets".to_string() } else { format!("secrets from: {}", kinds.join(", ")) };
        found.push(well(what, format!("{}, {}; {kinds}", connection.app, connection.method)));
    }
}

fn kind_of(credential: &Credential) -> Option<&'static str> {
    match credential {
        Credential::Plain(_) => None,
        Credential::Literal(_) => Some("clear text"),
        Credential::Env(_) => Some("environment"),
        Credential::File(_) => Some("file"),
        Credential::Command(_) => Some("command (not run)"),
        Credential::Sealed(_) => Some("sealed"),
    }
}

/// Opens a sealed credential, or as much as can be proved while the passphrase is unknown.
fn unsealable(store: &Store, sealed: &str, settings: &Settings) -> Result<(), StoreError> {
    if store.keys().locked(settings.seal)
        && let Some(id) = store.keys().key_id(settings.seal)?
        && sealed.starts_with(&format!("{id}:"))
    {
        return Ok(());
    }
    store.keys().unseal(sealed).map(|_| ())
}

fn find_program(argv: &[String]) -> Result<(), StoreError> {
    let program = argv.first().map(String::as_str).unwrap_or_default();
    let fail = |message: String| StoreError::new(StoreErrorKind::Reference, message);
    let runnable = |path: &Path| std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    let path = resolve::home_expanded(Path::new(program));
    let there = if program.contains('/') {
        runnable(&path)
    } else {
        std::env::var_os("PATH").is_some_and(|dirs| std::env::split_paths(&dirs).any(|d| runnable(&d.join(&path))))
    };
    if there {
        return Ok(());
    }
    Err(fail(format!("the command {} is not an executable file (or not in PATH)", brief(program, 100))).fix("Give its full path, or install it."))
}

fn syncs(store: &Store, connections: &[Loaded<Connection>], found: &mut Vec<Finding>) {
    let all = store.syncs();
    let mut sound = 0;
    for loaded in &all {
        let what = format!("sync {}", sanitise(&loaded.name));
        match &loaded.result {
            Err(broken) => found.push(ill(what, format!("{}: {}", name_of(&broken.path), broken.reason), broken.fix.clone())),
            Ok(config) => match missing_connection(config, connections) {
                Some(missing) => found.push(ill(
                    what,
                    format!("there is no connection {:?}", brief(&missing, 80)),
                    "Add it (kms-sync connection add), or change the sync.",
                )),
                None => sound += 1,
            },
        }
    }
    found.push(well("syncs", format!("{sound} of {} can be used", all.len())));
    // Asking the database would make it; a missing one knows no sync.
    if files::look(store.db().path()).is_ok_and(|m| m.is_some())
        && let Ok(known) = store.known_syncs()
    {
        for name in known.iter().filter(|n| !store.has_sync(n)) {
            found.push(ill(
                format!("sync {}", sanitise(name)),
                "its file is gone, its ledger is still here: the keys it wrote stay protected from other syncs".to_string(),
                format!("Bring {} back, or forget it: kms-sync delete {}", shown(&store.sync_path(name)), sanitise(name)),
            ));
        }
    }
}

fn missing_connection(config: &SyncConfig, connections: &[Loaded<Connection>]) -> Option<String> {
    let there = |word: &String| connections.iter().any(|l| l.name == *word || l.result.as_ref().is_ok_and(|c| c.id == *word));
    [Some(&config.connection_id), config.source_connection.as_ref()].into_iter().flatten().find(|w| !there(w)).cloned()
}
