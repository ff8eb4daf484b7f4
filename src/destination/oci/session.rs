//! One connection to Oracle Cloud: its test, the pickers, and opening a vault.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::super::{Choice, Destination, Session, Target, TestReport};
use super::calls;
use super::client::{Ask, Client};
use super::config_file;
use super::key::{self, PrivateKey};
use super::ocid;
use super::region::Endpoints;
use super::settle::Patience;
use super::signer::Signer;
use super::vault::VaultTarget;
use super::wire::{Compartment, Key, Named, Vault};
use super::{SERVICE, text};
use crate::http::{ApiError, Cx, ErrorKind, Http};
use crate::model::connection::ResolvedConnection;
use crate::model::{Map, Memory, SecretValue};

pub(super) struct OciSession {
    client: Arc<Client>,
    user: String,
    tenancy: String,
    /// Key and passphrase, for the redactor.
    secrets: Vec<SecretValue>,
    pub(super) patience: Patience,
    memory: Arc<dyn Memory>,
}

fn invalid(why: impl AsRef<str>) -> ApiError {
    ApiError::new(ErrorKind::Invalid, SERVICE, why)
}

impl OciSession {
    /// Reads the credentials and builds the signer. No call is made.
    pub fn new(connection: &ResolvedConnection, memory: Arc<dyn Memory>) -> Result<Self, ApiError> {
        let need = |field: &str| connection.text(field).map(str::to_string).ok_or_else(|| invalid(format!("credentials.{field} is missing")));
        let (user, tenancy, region, fingerprint, key, secrets) = if connection.method == "config-file" {
            let p = config_file::read(connection.text("path"), connection.text("profile")).map_err(invalid)?;
            (p.user, p.tenancy, p.region, p.fingerprint, p.key, vec![p.pem])
        } else {
            let pem = connection.credentials.get("privateKey").cloned().ok_or_else(|| invalid("credentials.privateKey is missing"))?;
            let passphrase = connection.credentials.get("passphrase").and_then(key::passphrase);
            let key = PrivateKey::load(pem.expose(), passphrase.as_ref()).map_err(|e| invalid(format!("credentials.privateKey: {e}")))?;
            let said = need("fingerprint")?;
            let said = key::normalise(&said).ok_or_else(|| invalid("credentials.fingerprint must be 16 hex pairs joined by colons"))?;
            key::match_fingerprint(&key, &said).map_err(|e| {
                invalid(e).advice("Give the key that belongs to this fingerprint, or the fingerprint that the OCI Console shows for this key.")
            })?;
            let secrets = std::iter::once(pem).chain(passphrase).collect();
            (need("userOcid")?, need("tenancyOcid")?, need("region")?, said, key, secrets)
        };
        for (field, value, kind) in [("user", &user, "user"), ("tenancy", &tenancy, "tenancy")] {
            if let Some(why) = ocid::fault(value, &[kind]) {
                return Err(invalid(format!("the {field} OCID: {why}")));
            }
        }
        let endpoints = Endpoints::new(connection, &region, &tenancy)?;
        let signer = Signer::new(&tenancy, &user, &fingerprint, key);
        let client = Arc::new(Client::new(Http::with(connection.ca_file.clone(), true), signer, endpoints));
        Ok(Self { client, user, tenancy, secrets, patience: Patience::default(), memory })
    }

    fn learn(&self, cx: &Cx) {
        for secret in &self.secrets {
            cx.redactor().learn(secret);
        }
    }

    /// A vault of another region than the connection's is the commonest mistake: told before
    /// any call.
    fn check_region(&self, config: &Map) -> Result<(), ApiError> {
        let endpoints = &self.client.endpoints;
        for (field, label) in [("vaultOcid", "vault"), ("keyOcid", "encryption key")] {
            if let Some(there) = ocid::region(text(config, field)).filter(|r| !endpoints.serves(r)) {
                return Err(invalid(format!("the {label} lies in region {there}, and the connection works in {}", endpoints.vault_region))
                    .advice("Use a connection whose region is the vault's."));
            }
        }
        Ok(())
    }

    async fn vault(&self, cx: &Cx, id: &str) -> Result<Vault, ApiError> {
        self.client.get(cx, &calls::GET_VAULT, Ask { path: &["vaults", id], ..Ask::default() }).await
    }

    /// Where a vault's keys are served.
    fn management(&self, vault: &Vault) -> Result<url::Url, ApiError> {
        match (&self.client.endpoints.management, &vault.management_endpoint) {
            (Some(url), _) => Ok(url.clone()),
            (None, Some(text)) => self.client.endpoints.trust_management(text),
            (None, None) => Err(ApiError::new(ErrorKind::NotTheService, SERVICE, "the vault names no management endpoint")),
        }
    }

    async fn compartments(&self, cx: &Cx) -> Result<Vec<Choice>, ApiError> {
        let root = Ask { path: &["tenancies", &self.tenancy], ..Ask::default() };
        let root: String = match self.client.get::<Named>(cx, &calls::GET_TENANCY, root).await {
            Ok(tenancy) if !tenancy.name.is_empty() => tenancy.name,
            Ok(_) => "root".into(),
            // The right to see the tenancy is a separate one: its compartments may still be listed.
            Err(e) if matches!(e.kind, ErrorKind::NotFound | ErrorKind::Permission) => "root".into(),
            Err(e) => return Err(e),
        };
        let query =
            [("compartmentId", self.tenancy.as_str()), ("accessLevel", "ANY"), ("compartmentIdInSubtree", "true"), ("lifecycleState", "ACTIVE")];
        let list: Vec<Compartment> = self.client.list(cx, &calls::LIST_COMPARTMENTS, None, &["compartments"], &query, Some("1000")).await?;
        let mut choices = paths(&root, &self.tenancy, &list);
        choices.sort_by(|a, b| a.label.cmp(&b.label));
        choices.insert(0, Choice { value: self.tenancy.clone(), label: format!("{root} (root)"), detail: Some("the tenancy itself".into()) });
        Ok(choices)
    }

    async fn vaults(&self, cx: &Cx, compartment: &str) -> Result<Vec<Choice>, ApiError> {
        let query = [("compartmentId", compartment), ("sortBy", "DISPLAYNAME"), ("sortOrder", "ASC")];
        let list: Vec<Vault> = self.client.list(cx, &calls::LIST_VAULTS, None, &["vaults"], &query, Some("100")).await?;
        let choice = |v: Vault| Choice {
            detail: Some(format!("{}…{}", v.vault_type.map(|t| format!("{} ", t.to_lowercase())).unwrap_or_default(), tail(&v.id))),
            label: shown(&v.display_name, &v.id),
            value: v.id,
        };
        Ok(list.into_iter().filter(|v| v.lifecycle_state.eq_ignore_ascii_case("ACTIVE")).map(choice).collect())
    }

    /// Enabled AES keys of the vault, in the sync's compartment and in the vault's own. Keys of
    /// the vault that are all unfit are an error that says why.
    async fn keys(&self, cx: &Cx, compartment: &str, vault: &str) -> Result<Vec<Choice>, ApiError> {
        let vault = self.vault(cx, vault).await?;
        let base = self.management(&vault)?;
        let mut places = vec![compartment.to_string()];
        if !vault.compartment_id.is_empty() && vault.compartment_id != compartment {
            places.push(vault.compartment_id.clone());
        }
        let (mut choices, mut refused): (Vec<Choice>, Option<ApiError>) = (Vec::new(), None);
        let mut unfit = Vec::new();
        for place in &places {
            let query = [("compartmentId", place.as_str()), ("algorithm", "AES")];
            let list = match self.client.list::<Key>(cx, &calls::LIST_KEYS, Some(&base), &["keys"], &query, Some("100")).await {
                Ok(list) => list,
                Err(e) => {
                    refused = Some(e);
                    continue;
                }
            };
            for key in list {
                match usable(&key, &vault.id) {
                    None => choices.push(Choice {
                        detail: key.protection_mode.as_deref().map(|m| format!("{} …{}", m.to_lowercase(), tail(&key.id))),
                        label: shown(&key.display_name, &key.id),
                        value: key.id,
                    }),
                    Some(why) if key.vault_id.as_deref().is_none_or(|v| v == vault.id) => {
                        unfit.push(format!("{}: {why}", shown(&key.display_name, &key.id)));
                    }
                    Some(_) => {}
                }
            }
        }
        match refused {
            _ if !choices.is_empty() => Ok(choices),
            Some(error) => Err(error),
            None if unfit.is_empty() => Ok(choices),
            None => Err(invalid(format!("no key here can be used ({})", unfit.join("; ")))
                .advice("Secrets need an enabled AES key of this vault: enable one, or type the OCID of one that lies in another compartment.")),
        }
    }

    /// Looks at the target of a sync: the vault, its key, and the right to list.
    async fn test_target(&self, cx: &Cx, config: &Map, notes: &mut Vec<String>) -> Result<(), ApiError> {
        self.check_region(config)?;
        let (compartment, vault_id, key_id) = (text(config, "compartmentOcid"), text(config, "vaultOcid"), text(config, "keyOcid"));
        let query = [("compartmentId", compartment), ("limit", "1"), ("vaultId", vault_id)];
        let _: Vec<serde::de::IgnoredAny> =
            self.client.get(cx, &calls::LIST_SECRETS, Ask { path: &["secrets"], query: &query, ..Ask::default() }).await?;
        notes.push("the vault's secrets can be listed in this compartment".into());
        let vault = match self.vault(cx, vault_id).await {
            Ok(vault) => vault,
            Err(e) => {
                notes.push(format!("the vault itself could not be looked at: {}", e.text()));
                return Ok(());
            }
        };
        if !vault.lifecycle_state.eq_ignore_ascii_case("ACTIVE") {
            notes.push(format!("the vault is {}: secrets cannot be written", crate::model::text::brief(&vault.lifecycle_state, 40)));
        }
        if key_id.is_empty() {
            return Ok(());
        }
        let base = self.management(&vault)?;
        match self.client.get::<Key>(cx, &calls::GET_KEY, Ask { path: &["keys", key_id], base: Some(&base), ..Ask::default() }).await {
            Ok(key) => match usable(&key, &vault.id) {
                Some(why) => return Err(invalid(format!("the encryption key {key_id} cannot be used: {why}"))),
                None => notes.push(format!("the encryption key {} is enabled", shown(&key.display_name, &key.id))),
            },
            Err(e) => {
                let hint = match (ocid::vault_segment(vault_id), ocid::vault_segment(key_id)) {
                    (Some(v), Some(k)) if v != k => " By its OCID it seems to belong to another vault.",
                    _ => "",
                };
                notes.push(format!("the encryption key could not be looked at: {}{hint}", e.text()));
            }
        }
        Ok(())
    }

    pub(super) fn target(&self, target: &Target) -> Result<VaultTarget, ApiError> {
        self.check_region(&target.config)?;
        Ok(VaultTarget::new(self.client.clone(), self.memory.clone(), target, self.patience.clone()))
    }
}

/// Why a key cannot encrypt secrets of a vault; `None` when it can.
fn usable(key: &Key, vault: &str) -> Option<String> {
    let algorithm = key.algorithm.as_deref().or(key.key_shape.as_ref().and_then(|s| s.algorithm.as_deref()));
    if !key.lifecycle_state.eq_ignore_ascii_case("ENABLED") {
        return Some(format!("it is {}", crate::model::text::brief(&key.lifecycle_state, 40)));
    }
    if let Some(other) = algorithm.filter(|a| !a.eq_ignore_ascii_case("AES")) {
        return Some(format!("it is an {} key, and secrets need a symmetric AES key", crate::model::text::brief(other, 20)));
    }
    key.vault_id.as_deref().filter(|v| *v != vault).map(|_| "it belongs to another vault".to_string())
}

fn shown(name: &str, id: &str) -> String {
    if name.trim().is_empty() { format!("…{}", tail(id)) } else { crate::model::text::brief(name, 120) }
}

fn tail(id: &str) -> String {
    let count = id.chars().count();
    id.chars().skip(count.saturating_sub(6)).collect()
}

/// Compartments as paths: names repeat, and only the way down from the root tells them apart.
fn paths(root: &str, tenancy: &str, list: &[Compartment]) -> Vec<Choice> {
    let by_id: HashMap<&str, &Compartment> = list.iter().map(|c| (c.id.as_str(), c)).collect();
    let living = list.iter().filter(|c| c.lifecycle_state.is_empty() || c.lifecycle_state.eq_ignore_ascii_case("ACTIVE"));
    let mut seen = std::collections::HashSet::new();
    living
        .filter(|c| seen.insert(c.id.as_str()))
        .map(|c| {
            let mut parts = vec![c.name.as_str()];
            let mut parent = c.compartment_id.as_deref();
            // Six levels are the documented depth; the bound also ends a circle.
            for _ in 0..12 {
                match parent.and_then(|p| by_id.get(p)) {
                    Some(up) => {
                        parts.push(up.name.as_str());
                        parent = up.compartment_id.as_deref();
                    }
                    None => break,
                }
            }
            if parent.is_some_and(|p| p == tenancy) {
                parts.push(root);
            }
            parts.reverse();
            Choice {
                value: c.id.clone(),
                label: crate::model::text::brief(&parts.join("/"), 200),
                detail: c.description.as_deref().filter(|d| !d.is_empty()).map(|d| crate::model::text::brief(d, 80)),
            }
        })
        .collect()
}

#[async_trait]
impl Session for OciSession {
    async fn test(&self, cx: &Cx, config: Option<&Map>) -> Result<TestReport, ApiError> {
        self.learn(cx);
        let region = &self.client.endpoints.region;
        let mut notes = Vec::new();
        let ask = Ask { path: &["users", &self.user], ..Ask::default() };
        let identity = match self.client.get::<Named>(cx, &calls::GET_USER, ask).await {
            Ok(user) => format!("user {} in {region}", crate::model::text::brief(&user.name, 80)),
            // The signature was accepted all the same: a bad one is 401.
            Err(e) if e.kind == ErrorKind::NotFound => {
                notes.push("authenticated; the user may not look at itself, so its rights are not proven yet".into());
                format!("user …{} in {region}", tail(&self.user))
            }
            Err(e) => return Err(e),
        };
        match config {
            Some(config) if !text(config, "vaultOcid").is_empty() => self.test_target(cx, config, &mut notes).await?,
            _ => {
                let compartment = config.map(|c| text(c, "compartmentOcid")).filter(|c| !c.is_empty()).unwrap_or(&self.tenancy);
                let query = [("compartmentId", compartment), ("limit", "1")];
                match self.client.call(cx, &calls::LIST_VAULTS, Ask { path: &["vaults"], query: &query, ..Ask::default() }).await {
                    Ok(_) => notes.push("vaults can be listed".into()),
                    Err(e) if matches!(e.kind, ErrorKind::NotFound | ErrorKind::Permission) => {
                        notes.push("vaults cannot be listed in the root compartment; the vault's OCID can be typed".into());
                    }
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(TestReport { identity, notes })
    }

    async fn choices(&self, cx: &Cx, field: &str, filled: &Map) -> Result<Vec<Choice>, ApiError> {
        self.learn(cx);
        let (compartment, vault) = (text(filled, "compartmentOcid"), text(filled, "vaultOcid"));
        let listed = match field {
            "compartmentOcid" => self.compartments(cx).await,
            "vaultOcid" if compartment.is_empty() => Err(invalid("choose the compartment first")),
            "vaultOcid" => self.vaults(cx, compartment).await,
            "keyOcid" if compartment.is_empty() || vault.is_empty() => Err(invalid("choose compartment and vault first")),
            "keyOcid" => {
                self.check_region(filled)?;
                self.keys(cx, compartment, vault).await
            }
            other => Err(invalid(format!("{other} has no list to choose from"))),
        };
        listed.map_err(|e| match e.kind {
            // A missing right is no case for Oracle's support: the room is for what can be done.
            ErrorKind::NotFound | ErrorKind::Permission => ApiError { request_id: None, ..e.advice("Type the OCID, or add the right.") },
            _ => e,
        })
    }

    async fn open(&self, cx: &Cx, target: &Target) -> Result<Arc<dyn Destination>, ApiError> {
        self.learn(cx);
        Ok(Arc::new(self.target(target)?))
    }

    fn budget(&self) -> Option<String> {
        Some(self.client.pace())
    }
}
