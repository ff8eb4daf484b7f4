//! One connection to Azure: which grant, which tokens, which pace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::SERVICE;
use super::address::{self, VaultUrl};
use super::api::{Patience, Vault};
use super::errors::{Right, failure};
use super::hidden::Hidden;
use super::pace::Pace;
use super::target::KeyVaultTarget;
use crate::destination::entra::{Claims, Cloud, Grant, Platform, Tokens, Workload, cloud_of_authority, resource_of};
use crate::destination::{Choice, Destination, Session, Target, TestReport};
use crate::http::{ApiError, Cx, ErrorKind, Http, Pacer};
use crate::model::connection::{ResolvedConnection, check_endpoint};
use crate::model::{Map, Memory, Problems, SecretValue};

/// Data-plane version: the oldest that every cloud, Azure Stack and emulator is likely to
/// know and that has every field used here.
const API_VERSION: &str = "7.4";
/// The service principal "Azure Key Vault": tokens may name it as their audience.
const KEY_VAULT_APP: &str = "cfa8b339-82a2-471a-a3c9-0fc0be7a4093";

/// One connection.
pub(super) struct KeyVaultSession {
    connection: ResolvedConnection,
    memory: Arc<dyn Memory>,
    http: Http,
    grant: Grant,
    allowed: Vec<String>,
    /// By resource: one token serves all vaults of a cloud.
    tokens: Mutex<HashMap<String, Arc<Tokens>>>,
    /// By vault: quotas are per vault. Kept, so that a pace outlives the runs that share it.
    paces: Mutex<HashMap<String, Arc<Pace>>>,
    /// Creations of all vaults together.
    together: Arc<Pacer>,
    pub(super) patience: Patience,
}

impl KeyVaultSession {
    pub fn new(connection: ResolvedConnection, memory: Arc<dyn Memory>) -> Result<Self, ApiError> {
        let allowed = address::allowed_hosts(connection.settings.get("allowedVaultHosts")).map_err(invalid)?;
        Ok(Self {
            http: Http::new(&connection),
            grant: grant(&connection)?,
            allowed,
            tokens: Mutex::default(),
            paces: Mutex::default(),
            together: Arc::new(Pace::of_all("Key Vault")),
            patience: Patience::default(),
            connection,
            memory,
        })
    }

    /// Tokens for a vault's cloud; for other hosts the authority's cloud decides, else the
    /// public one. A vault and an authority of different clouds are an error before any call.
    fn tokens(&self, vault: Option<&VaultUrl>) -> Result<Arc<Tokens>, ApiError> {
        let projected = std::env::var("AZURE_AUTHORITY_HOST").ok().filter(|_| matches!(self.grant, Grant::WorkloadIdentity(_)));
        let given = self
            .connection
            .setting("authorityUrl")
            .or(projected.as_deref())
            .map(url::Url::parse)
            .transpose()
            .map_err(|_| invalid("authorityUrl is not a URL"))?;
        let of_authority = given.as_ref().and_then(|u| cloud_of_authority(u.host_str()?));
        let of_vault = vault.and_then(VaultUrl::cloud);
        if let (Some(a), Some(v)) = (of_authority, of_vault)
            && a != v
        {
            return Err(invalid(format!("the vault is in {}, the connection's authority in {}", v.title, a.title))
                .advice(format!("Set authorityUrl to {}, or use a connection of the vault's cloud.", v.authority)));
        }
        let cloud = of_vault.or(of_authority).unwrap_or_else(Cloud::public);
        let authority = match given {
            Some(url) => url,
            None => url::Url::parse(cloud.authority).map_err(|_| invalid("authorityUrl is not a URL"))?,
        };
        // Outside Microsoft's clouds the operator says whom tokens are for: a server that named
        // it could name another service and be handed a token for that.
        let resource = self.connection.setting("tokenResource").unwrap_or(cloud.vault_scope);
        let resource = resource_of(resource);
        let mut all = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = all.entry(resource.to_string()).or_insert_with(|| {
            let scope = format!("{resource}/.default");
            Arc::new(Tokens::new(self.http.clone(), authority, self.grant.clone(), scope).audiences(&[resource, KEY_VAULT_APP]))
        });
        Ok(tokens.clone())
    }

    /// A vault that may be called: its address, tokens and pace. Offline.
    pub fn vault(&self, given: &str) -> Result<Vault, ApiError> {
        let address = VaultUrl::parse(given).map_err(|(_, message)| invalid(message))?;
        let base = match self.connection.setting("endpoint") {
            Some(endpoint) => self.endpoint(endpoint, &address)?,
            None => {
                address.admitted(&self.allowed).map_err(|why| {
                    invalid(format!("no token is sent to this address: {why}"))
                        .advice("Correct the Vault Base URL, or add its host to allowedVaultHosts.")
                })?;
                address.url.clone()
            }
        };
        let tokens = self.tokens(Some(&address))?;
        let pace = {
            let vault = address.identity_at(&base);
            let name = format!("Key Vault {}", address.short());
            let mut all = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(vault).or_insert_with_key(|vault| Pace::of(vault, &name, self.patience.unit, &*self.memory)).clone()
        };
        let api_version = self.connection.setting("apiVersion").unwrap_or(API_VERSION).to_string();
        Ok(Vault {
            address,
            base,
            api_version,
            http: self.http.clone(),
            tokens,
            pace,
            together: self.together.clone(),
            memory: self.memory.clone(),
            patience: self.patience,
        })
    }

    /// The operator's own endpoint stands for the vault; it may name the vault in its path.
    fn endpoint(&self, endpoint: &str, address: &VaultUrl) -> Result<url::Url, ApiError> {
        let text = endpoint.replace("{vault}", &address.name());
        let mut problems = Problems::default();
        check_endpoint("endpoint", &text, self.connection.allow_insecure_http, &mut problems);
        if let Some(message) = problems.of("endpoint") {
            return Err(invalid(message));
        }
        url::Url::parse(&text).map_err(|_| invalid("endpoint is not a URL"))
    }

    /// Who the token speaks for.
    fn identity(&self, token: &SecretValue) -> String {
        let claimed = Claims::peek(token).and_then(|c| c.identity());
        claimed.unwrap_or_else(|| match (self.grant.client_id(), self.grant.tenant()) {
            (Some(app), Some(tenant)) => format!("app {app}, tenant {tenant}"),
            (Some(app), None) => format!("app {app}"),
            _ => format!("the identity of the {} sign-in", self.connection.method),
        })
    }
}

#[async_trait]
impl Session for KeyVaultSession {
    async fn test(&self, cx: &Cx, config: Option<&Map>) -> Result<TestReport, ApiError> {
        let given = config.and_then(|c| c.get("vaultBaseUrl")).and_then(|v| v.as_str()).map(str::trim).filter(|t| !t.is_empty());
        let vault = given.map(|g| self.vault(g)).transpose()?;
        let tokens = match &vault {
            Some(vault) => vault.tokens.clone(),
            None => self.tokens(None)?,
        };
        let token = tokens.token(cx).await?;
        let mut report = TestReport { identity: self.identity(&token), notes: Vec::new() };
        if !self.grant.renewable()
            && let Some(end) = Claims::peek(&token).and_then(|c| jiff::Timestamp::from_second(c.exp?).ok())
        {
            report.notes.push(format!("The token ends at {end} and cannot be renewed."));
        }
        let Some(vault) = vault else {
            report.notes.push("A token was obtained. Rights at a vault are checked once the Vault Base URL is known.".into());
            return Ok(report);
        };
        let mut url = vault.url(&["secrets"]);
        url.query_pairs_mut().append_pair("maxresults", "1");
        let answer = vault.page(cx, url, "GET /secrets").await?;
        if !answer.ok() {
            return Err(failure(cx, &answer, "list secrets", Right::List));
        }
        super::wire::page(&answer, "the list of secrets")?;
        report.notes.push(format!("The vault {} answers, and its secrets can be listed.", vault.address.short()));
        report.notes.push("The rights to get, set, recover and delete cannot be proved without using them.".into());
        if let Some(skew) = answer.clock_skew().filter(|s| s.abs() > 300) {
            report.notes.push(format!("This machine's clock differs from the vault's by {skew} s."));
        }
        Ok(report)
    }

    async fn choices(&self, _cx: &Cx, _field: &str, _filled: &Map) -> Result<Vec<Choice>, ApiError> {
        // Vaults are listed by Azure Resource Manager only, for which these tokens are not good.
        Ok(Vec::new())
    }

    fn budget(&self) -> Option<String> {
        let paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        // Of several vaults each is named by its host.
        let host = |vault: &String| {
            url::Url::parse(vault.split(' ').next().unwrap_or_default())
                .ok()
                .and_then(|u| u.host_str().map(str::to_owned))
                .unwrap_or_else(|| vault.clone())
        };
        let mut texts: Vec<String> = paces.iter().map(|(vault, pace)| format!("{}: {}", host(vault), pace.budget())).collect();
        texts.sort_unstable();
        match (paces.len(), paces.values().next()) {
            (1, Some(pace)) => Some(pace.budget()),
            _ => (!texts.is_empty()).then(|| texts.join("; ")),
        }
    }

    async fn open(&self, _cx: &Cx, target: &Target) -> Result<Arc<dyn Destination>, ApiError> {
        let given = target.config.get("vaultBaseUrl").and_then(|v| v.as_str()).unwrap_or_default();
        let vault = self.vault(given)?;
        let hidden = Hidden::new(self.memory.clone(), &target.sync_id, &vault.identity());
        Ok(Arc::new(KeyVaultTarget::new(vault, hidden, target)))
    }
}

fn invalid(message: impl AsRef<str>) -> ApiError {
    ApiError::new(ErrorKind::Invalid, SERVICE, message)
}

fn grant(connection: &ResolvedConnection) -> Result<Grant, ApiError> {
    let need = |name: &str| {
        connection.text(name).map(str::to_owned).ok_or_else(|| {
            ApiError::new(ErrorKind::Auth, SERVICE, format!("the connection {} has no {name}", connection.name)).advice("Complete the connection.")
        })
    };
    Ok(match connection.method.as_str() {
        "client-secret" => Grant::client_secret(need("tenantId")?, need("clientId")?, SecretValue::new(need("clientSecret")?)),
        "access-token" => Grant::Token(SecretValue::new(need("accessToken")?)),
        "az-cli" => Grant::az_cli(connection.text("tenantId"), connection.text("subscription")),
        "managed-identity" => {
            Grant::ManagedIdentity { client_id: connection.text("clientId").map(str::to_owned), platform: Platform::from_environment() }
        }
        "workload-identity" => {
            Grant::WorkloadIdentity(Workload::new(connection.text("tenantId"), connection.text("clientId"), connection.text("tokenFile"))?)
        }
        other => return Err(invalid(format!("the method {other} is not known"))),
    })
}
