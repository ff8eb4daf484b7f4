//! The configuration file of Oracle's SDKs and CLI (`~/.oci/config`), for connections that use it.
//!
//! Every profile inherits what it lacks from `[DEFAULT]`. Comments are whole lines; values are
//! taken literally, without interpolation.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::key::PrivateKey;
use crate::model::SecretValue;

/// What a profile tells.
#[derive(Debug)]
pub(super) struct Profile {
    pub user: String,
    pub tenancy: String,
    pub region: String,
    pub fingerprint: String,
    pub key: PrivateKey,
    /// The key's PEM text, for the redactor.
    pub pem: SecretValue,
}

type Sections = HashMap<String, HashMap<String, String>>;

/// Splits an INI text into sections. A key before the first section is an error, as for Oracle.
fn parse(text: &str) -> Result<Sections, String> {
    let mut sections = Sections::new();
    let mut current: Option<String> = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim().trim_start_matches('\u{feff}');
        if line.is_empty() || line.starts_with('#') || line.starts_with(';') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            current = Some(name.trim().to_string());
            sections.entry(name.trim().to_string()).or_default();
            continue;
        }
        let at = line.find(['=', ':']).ok_or_else(|| format!("line {} is neither a section nor key=value", number + 1))?;
        let section = current.as_ref().ok_or_else(|| format!("line {} stands before the first [PROFILE]", number + 1))?;
        let (key, value) = (line[..at].trim().to_ascii_lowercase(), line[at + 1..].trim().to_string());
        sections.entry(section.clone()).or_default().insert(key, value);
    }
    Ok(sections)
}

/// `~` at the beginning is the home directory.
fn expand(path: &str) -> PathBuf {
    match path.strip_prefix("~/").or(path.strip_prefix("~\\")) {
        Some(rest) => home().join(rest),
        None => PathBuf::from(path),
    }
}

fn home() -> PathBuf {
    directories::BaseDirs::new().map(|d| d.home_dir().to_path_buf()).unwrap_or_default()
}

/// The file to read: as given, else `$OCI_CONFIG_FILE`, else `~/.oci/config`, else `~/.oraclebmc/config`.
fn locate(given: Option<&str>) -> PathBuf {
    if let Some(path) = given {
        return expand(path);
    }
    if let Some(path) = std::env::var_os("OCI_CONFIG_FILE").filter(|p| !p.is_empty()) {
        return expand(&path.to_string_lossy());
    }
    let usual = home().join(".oci/config");
    let old = home().join(".oraclebmc/config");
    if !usual.exists() && old.exists() { old } else { usual }
}

/// Refuses a key file that other users of the machine can read.
#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).map(|m| m.permissions().mode()).unwrap_or(0);
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(format!("the key file {} can be read by others (mode {:03o}): chmod 600 {}", path.display(), mode & 0o777, path.display()))
}

#[cfg(not(unix))]
fn check_mode(_path: &Path) -> Result<(), String> {
    Ok(())
}

/// Reads a profile and its key. Errors are sentences that name the file, never its content.
pub(super) fn read(path: Option<&str>, profile: Option<&str>) -> Result<Profile, String> {
    let file = locate(path);
    let text = std::fs::read_to_string(&file).map_err(|e| format!("the OCI config file {}: {e}", file.display()))?;
    let shown = file.display();
    let sections = parse(&text).map_err(|e| format!("the OCI config file {shown}: {e}"))?;
    let name = profile.map(str::trim).filter(|p| !p.is_empty()).unwrap_or("DEFAULT");
    let Some(own) = sections.get(name) else {
        let mut known: Vec<&str> = sections.keys().map(String::as_str).collect();
        known.sort_unstable();
        return Err(format!("the OCI config file {shown} has no profile {name:?}; it has {}", known.join(", ")));
    };
    let get = |key: &str| own.get(key).or_else(|| sections.get("DEFAULT").and_then(|d| d.get(key))).map(String::as_str).filter(|v| !v.is_empty());
    let need = |key: &str| get(key).map(str::to_string).ok_or_else(|| format!("the profile {name} in {shown} has no {key}"));
    if get("security_token_file").is_some() && get("user").is_none() {
        return Err(format!("the profile {name} in {shown} is a session token profile, which is not supported: use an API key"));
    }
    if get("key_content").is_some() {
        return Err(format!("the profile {name} in {shown} holds key_content: OCI's own tools refuse a key inside the file; use key_file"));
    }
    let region = match get("region") {
        Some(region) => region.to_string(),
        None => std::env::var("OCI_REGION").ok().filter(|r| !r.is_empty()).ok_or_else(|| format!("the profile {name} in {shown} has no region"))?,
    };
    let (user, tenancy) = (need("user")?, need("tenancy")?);
    let said = need("fingerprint")?;
    let fingerprint = super::key::normalise(&said).ok_or_else(|| format!("the fingerprint of profile {name} in {shown} is not 16 hex pairs"))?;
    let key_file = expand(&need("key_file")?);
    let pem = Zeroizing::new(std::fs::read_to_string(&key_file).map_err(|e| format!("the key file {}: {e}", key_file.display()))?);
    check_mode(&key_file)?;
    // A passphrase inherited for another key does no harm: plain keys ignore it.
    let passphrase = get("pass_phrase").map(|p| SecretValue::new(p.to_string()));
    let key = PrivateKey::load(&pem, passphrase.as_ref()).map_err(|e| format!("the key file {}: {e}", key_file.display()))?;
    super::key::match_fingerprint(&key, &fingerprint).map_err(|e| format!("the profile {name} in {shown}: {e}"))?;
    Ok(Profile { user, tenancy, region, fingerprint, key, pem: SecretValue::new(pem.as_str().to_string()) })
}
