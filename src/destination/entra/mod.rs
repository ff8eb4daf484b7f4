//! Microsoft Entra tokens: how a connection to a Microsoft service gets one, keeps it and
//! renews it. Used by Azure Key Vault and Azure DevOps; knows neither.
//!
//! [`Tokens`] is the cache in front of one [`Grant`] and one scope. It asks once however many
//! workers want a token, renews early, and decides by the monotonic clock, so that a wrong
//! wall clock does no harm where the protocol itself carries no times.

mod aadsts;
mod assertion;
mod claims;
mod cli;
mod clouds;
mod identity;

pub use assertion::Workload;
pub use claims::Claims;
pub use clouds::{Cloud, PUBLIC_AUTHORITY, cloud_of_authority, cloud_of_vault_host};
pub use identity::Platform;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use crate::http::{Answer, ApiError, Cx, ErrorKind, Http, Policy, join};
use crate::model::connection::{Connection, Credential, check_words};
use crate::model::text::is_segment;
use crate::model::{Problems, SecretValue};

/// The word under which token requests are counted.
pub const SERVICE: &str = "entra";

/// A token is renewed when less than this is left, or half its life if that is shorter
/// (the rule of Microsoft's own clients for the five minutes).
const EARLY: Duration = Duration::from_secs(300);
/// After an early renewal failed, the next is tried this much later.
const EARLY_RETRY: Duration = Duration::from_secs(30);
/// A token this close to its end is no longer sent: it could expire on the way.
const MARGIN: Duration = Duration::from_secs(5);

/// The offline rules for the ids of a tenant and an app registration. An authority that is none
/// of Microsoft's (an AD FS, an emulator) may know other ids.
pub fn check_ids(connection: &Connection, problems: &mut Problems) {
    let text = |name: &str| match connection.credentials.get(name) {
        Some(Credential::Plain(text)) => Some(text.trim()),
        _ => None,
    };
    check_words(connection, &["tenantId", "clientId"], problems);
    let authority = connection.setting("authorityUrl").and_then(|a| url::Url::parse(a.trim()).ok());
    let microsofts = authority.is_none_or(|url| url.host_str().and_then(cloud_of_authority).is_some());
    let word = |text: &str| !text.starts_with('-') && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
    if let Some(tenant) = text("tenantId").filter(|t| !t.contains(char::is_whitespace))
        && (!word(tenant)
            || (!tenant.is_empty() && !is_segment(tenant))
            || (microsofts && !is_guid(tenant) && !tenant.trim_matches('.').contains('.')))
    {
        problems.add("credentials.tenantId", "tenant", "credentials.tenantId must be a GUID or a domain name.");
    }
    if let Some(client) = text("clientId").filter(|c| !c.contains(char::is_whitespace))
        && microsofts
        && !is_guid(client)
    {
        problems.add("credentials.clientId", "guid", "credentials.clientId must be a GUID: the application (client) id of the app registration.");
    }
}

fn is_guid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

/// How a token is obtained.
#[derive(Debug, Clone)]
pub enum Grant {
    /// An app registration with a client secret (OAuth 2.0 client credentials).
    ClientSecret { tenant: String, client_id: String, secret: SecretValue },
    /// A ready token; it cannot be renewed.
    Token(SecretValue),
    /// `az account get-access-token`. `program` is normally [`cli::program`].
    AzCli { program: String, tenant: Option<String>, subscription: Option<String> },
    /// The identity of this machine or app; `client_id` names a user-assigned one.
    ManagedIdentity { client_id: Option<String>, platform: Platform },
    /// Workload identity federation: a token file instead of a secret.
    WorkloadIdentity(Workload),
}

impl Grant {
    /// A client secret.
    pub fn client_secret(tenant: impl Into<String>, client_id: impl Into<String>, secret: SecretValue) -> Self {
        Self::ClientSecret { tenant: tenant.into(), client_id: client_id.into(), secret }
    }

    /// The Azure command line's sign-in.
    pub fn az_cli(tenant: Option<&str>, subscription: Option<&str>) -> Self {
        Self::AzCli { program: cli::program().to_string(), tenant: tenant.map(str::to_owned), subscription: subscription.map(str::to_owned) }
    }

    /// The tenant the tokens come from, when the connection names it.
    pub fn tenant(&self) -> Option<&str> {
        match self {
            Self::ClientSecret { tenant, .. } => Some(tenant),
            Self::WorkloadIdentity(workload) => Some(&workload.tenant),
            Self::AzCli { tenant, .. } => tenant.as_deref(),
            Self::Token(_) | Self::ManagedIdentity { .. } => None,
        }
    }

    /// The client id, when the connection names it.
    pub fn client_id(&self) -> Option<&str> {
        match self {
            Self::ClientSecret { client_id, .. } => Some(client_id),
            Self::WorkloadIdentity(workload) => Some(&workload.client_id),
            Self::ManagedIdentity { client_id, .. } => client_id.as_deref(),
            _ => None,
        }
    }

    /// False when a refused token cannot be replaced by a new one.
    pub fn renewable(&self) -> bool {
        !matches!(self, Self::Token(_))
    }
}

/// The tokens of one connection for one scope. Share one per connection: requests are
/// single-flight, tokens live in memory only.
pub struct Tokens {
    http: Http,
    authority: url::Url,
    grant: Grant,
    scope: String,
    audiences: Vec<String>,
    kept: Mutex<Kept>,
    /// Held by the one worker that asks for a token.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Kept {
    token: Option<Token>,
    /// When an early renewal may be tried again.
    early_after: Option<Instant>,
    /// The last failure: those who waited for that very request share it.
    failed: Option<(Instant, ApiError)>,
}

/// A token with its times on the monotonic clock.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub secret: SecretValue,
    pub renew_at: Instant,
    pub expires_at: Instant,
}

impl Token {
    /// A token that was asked for at `asked` and lives `life` from then. `renew_in` is the
    /// server's own advice (`refresh_in`).
    pub fn new(secret: SecretValue, asked: Instant, life: Duration, renew_in: Option<Duration>) -> Self {
        let life = life.min(Duration::from_secs(30 * 86_400));
        let early = EARLY.min(life / 2);
        let renew = renew_in.filter(|r| *r < life).unwrap_or(life - early).min(life - early);
        Self { secret, renew_at: asked + renew, expires_at: asked + life }
    }

    fn alive(&self) -> bool {
        Instant::now() + MARGIN.min(self.expires_at.saturating_duration_since(self.renew_at)) < self.expires_at
    }
}

impl Tokens {
    /// `authority` is the connection's `authorityUrl` or the cloud's; it may have a path.
    /// `scope` ends in `/.default`.
    pub fn new(http: Http, authority: url::Url, grant: Grant, scope: impl Into<String>) -> Self {
        Self {
            http,
            authority,
            grant,
            scope: scope.into(),
            audiences: Vec::new(),
            kept: Mutex::new(Kept::default()),
            asking: tokio::sync::Mutex::new(()),
        }
    }

    /// Audiences a ready token may name (`aud`); another one is refused before any call.
    pub fn audiences(mut self, audiences: &[&str]) -> Self {
        self.audiences = audiences.iter().map(|a| a.trim_end_matches('/').to_ascii_lowercase()).collect();
        self
    }

    /// How tokens are obtained.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The scope asked for.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// The scope without `/.default`: what the older endpoints and the CLI call the resource.
    pub fn resource(&self) -> &str {
        self.scope.strip_suffix("/.default").unwrap_or(&self.scope)
    }

    /// A token that is good now: from memory, or asked for. Fails with [`ErrorKind::Auth`]
    /// when the credentials are refused; the advice names what to change.
    pub async fn token(&self, cx: &Cx) -> Result<SecretValue, ApiError> {
        let secret = self.current(cx).await?;
        cx.redactor().learn(&secret);
        Ok(secret)
    }

    /// The token in memory while it is good, due for renewal or not; nobody is asked.
    pub fn at_hand(&self, cx: &Cx) -> Option<SecretValue> {
        let secret = self.kept().token.as_ref().filter(|t| t.alive()).map(|t| t.secret.clone())?;
        cx.redactor().learn(&secret);
        Some(secret)
    }

    async fn current(&self, cx: &Cx) -> Result<SecretValue, ApiError> {
        let begun = Instant::now();
        let (alive, due) = {
            let kept = self.kept();
            let alive = kept.token.as_ref().filter(|t| t.alive()).map(|t| t.secret.clone());
            let due = kept.token.as_ref().is_none_or(|t| t.renew_at <= begun) && kept.early_after.is_none_or(|at| at <= begun);
            (alive, due)
        };
        match alive {
            Some(secret) if !due => Ok(secret),
            Some(secret) => {
                // Early: whoever finds nobody asking asks; all others go on with the old token.
                let Ok(_one) = self.asking.try_lock() else { return Ok(secret) };
                if let Some(newer) = self.kept().token.as_ref().filter(|t| t.renew_at > begun) {
                    return Ok(newer.secret.clone());
                }
                match self.ask(cx, None).await {
                    Ok(token) => Ok(self.keep(token)),
                    Err(error) if error.kind == ErrorKind::Cancelled => Err(error),
                    Err(_) => {
                        self.kept().early_after = Some(Instant::now() + EARLY_RETRY);
                        Ok(secret)
                    }
                }
            }
            None => {
                let _one = self.asking.lock().await;
                {
                    let kept = self.kept();
                    if let Some(token) = kept.token.as_ref().filter(|t| t.alive()) {
                        return Ok(token.secret.clone());
                    }
                    if let Some((at, error)) = &kept.failed
                        && *at > begun
                    {
                        return Err(error.clone());
                    }
                }
                match self.ask(cx, None).await {
                    Ok(token) => Ok(self.keep(token)),
                    Err(error) => {
                        if error.kind != ErrorKind::Cancelled {
                            self.kept().failed = Some((Instant::now(), error.clone()));
                        }
                        Err(error)
                    }
                }
            }
        }
    }

    /// The service refused this token (401): it is dropped if it still is the one in use, so
    /// that the next [`Self::token`] asks for a new one, once for all workers. False when no
    /// other token can be had.
    pub fn refused(&self, token: &SecretValue) -> bool {
        let mut kept = self.kept();
        if kept.token.as_ref().is_some_and(|t| t.secret.same_as(token)) {
            kept.token = None;
        }
        self.grant.renewable()
    }

    /// A new token that satisfies a claims challenge (`claims`: the decoded JSON). Only where
    /// the token endpoint is asked by us; elsewhere the error says what the operator can do.
    pub async fn token_with_claims(&self, cx: &Cx, claims: &str) -> Result<SecretValue, ApiError> {
        if !matches!(self.grant, Grant::ClientSecret { .. } | Grant::WorkloadIdentity(_)) {
            return Err(ApiError::new(
                ErrorKind::Auth,
                SERVICE,
                "the service asks for a token that meets a Conditional Access policy (claims challenge), and this method cannot ask for one",
            )
            .advice("Sign in again where the token comes from, or use a client secret."));
        }
        let _one = self.asking.lock().await;
        let token = self.ask(cx, Some(claims)).await?;
        let secret = self.keep(token);
        cx.redactor().learn(&secret);
        Ok(secret)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, token: Token) -> SecretValue {
        let secret = token.secret.clone();
        *self.kept() = Kept { token: Some(token), early_after: None, failed: None };
        secret
    }

    async fn ask(&self, cx: &Cx, claims: Option<&str>) -> Result<Token, ApiError> {
        match &self.grant {
            Grant::ClientSecret { tenant, client_id, secret } => {
                cx.redactor().learn(secret);
                let mut form = vec![("grant_type", "client_credentials"), ("client_id", client_id), ("client_secret", secret.expose())];
                form.push(("scope", &self.scope));
                form.extend(claims.map(|c| ("claims", c)));
                self.token_endpoint(cx, tenant, &form).await
            }
            Grant::WorkloadIdentity(workload) => self.federated(cx, workload, claims).await,
            Grant::ManagedIdentity { client_id, platform } => platform.token(cx, &self.http, self.resource(), client_id.as_deref()).await,
            Grant::Token(secret) => claims::ready(secret, &self.audiences),
            Grant::AzCli { program, tenant, subscription } => {
                cli::token(cx, program, self.resource(), tenant.as_deref(), subscription.as_deref()).await
            }
        }
    }

    /// The token endpoint with a token file in place of the secret. The file may be renewed at
    /// this very moment: an assertion outside its times is read once more.
    async fn federated(&self, cx: &Cx, workload: &Workload, claims: Option<&str>) -> Result<Token, ApiError> {
        let mut assertion = workload.assertion()?;
        loop {
            cx.redactor().learn(&assertion);
            let mut form = vec![("grant_type", "client_credentials"), ("client_id", &workload.client_id), ("scope", &self.scope)];
            form.push(("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"));
            form.push(("client_assertion", assertion.expose()));
            form.extend(claims.map(|c| ("claims", c)));
            let error = match self.token_endpoint(cx, &workload.tenant, &form).await {
                Ok(token) => return Ok(token),
                Err(error) => error,
            };
            let newer = workload.assertion()?;
            if error.code.as_deref() != Some("AADSTS700024") || newer.same_as(&assertion) {
                return Err(workload.explain(error, &assertion));
            }
            assertion = newer;
        }
    }

    /// `POST {authority}/{tenant}/oauth2/v2.0/token`, or an AD FS's own endpoint.
    async fn token_endpoint(&self, cx: &Cx, tenant: &str, form: &[(&str, &str)]) -> Result<Token, ApiError> {
        let (url, label) = endpoint(&self.authority, tenant);
        let policy = Policy { retry: aadsts::passing, ..Policy::default() };
        let asked = Instant::now();
        let answer = self
            .http
            .send(cx, SERVICE, label, policy, || {
                Ok(self.http.request(reqwest::Method::POST, url.clone())?.header("accept", "application/json").form(form))
            })
            .await?;
        if !answer.ok() {
            return Err(aadsts::error(cx, &answer));
        }
        parse(cx, &answer, asked)
    }
}

/// The resource of a scope, or a resource as it is: without `/.default` and the last slash.
pub fn resource_of(scope: &str) -> &str {
    scope.trim_end_matches("/.default").trim_end_matches('/')
}

/// The token endpoint and its route. An AD FS (Azure Stack Hub) has no tenants: `adfs` stands in
/// the authority's path or in the tenant's place, and its endpoint has a path of its own
/// (Microsoft: "AD FS OpenID Connect/OAuth flows").
fn endpoint(authority: &url::Url, tenant: &str) -> (url::Url, &'static str) {
    const ADFS: &str = "adfs";
    let last = authority.path_segments().and_then(|mut s| s.rfind(|s| !s.is_empty()).map(str::to_ascii_lowercase));
    let label = "POST /adfs/oauth2/token";
    if last.as_deref() == Some(ADFS) {
        (join(authority, &["oauth2", "token"]), label)
    } else if tenant.eq_ignore_ascii_case(ADFS) {
        (join(authority, &[ADFS, "oauth2", "token"]), label)
    } else {
        (join(authority, &[tenant, "oauth2", "v2.0", "token"]), "POST /{tenant}/oauth2/v2.0/token")
    }
}

/// The successful answer of a token endpoint. Times may be numbers or texts.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    token_type: Option<String>,
    #[serde(default)]
    expires_in: Option<Seconds>,
    /// Unix seconds or a date; only where `expires_in` is missing (App Service).
    #[serde(default)]
    expires_on: Option<Seconds>,
    #[serde(default)]
    refresh_in: Option<Seconds>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

impl Seconds {
    fn duration(&self) -> Option<Duration> {
        let seconds = match self {
            Self::Number(n) => *n,
            Self::Text(t) => t.trim().parse().ok()?,
        };
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// The time from now to this moment: unix seconds, or `11/25/2026 02:30:00 +00:00`.
    fn until(&self) -> Option<Duration> {
        let at = match (self.duration(), self) {
            (Some(since_epoch), _) => i64::try_from(since_epoch.as_secs()).ok()?,
            (None, Self::Text(text)) => jiff::fmt::strtime::parse("%m/%d/%Y %H:%M:%S %:z", text.trim()).ok()?.to_timestamp().ok()?.as_second(),
            _ => return None,
        };
        Some(Duration::from_secs(u64::try_from(at - jiff::Timestamp::now().as_second()).unwrap_or(0)))
    }
}

fn parse(cx: &Cx, answer: &Answer, asked: Instant) -> Result<Token, ApiError> {
    let body: TokenAnswer = answer.json(SERVICE)?;
    // No header could carry it.
    let sound = body.access_token.bytes().all(|b| b.is_ascii_graphic());
    if body.access_token.is_empty() || !sound {
        return Err(ApiError::new(ErrorKind::NotTheService, SERVICE, "the token endpoint answered without a token").status(answer.status));
    }
    if let Some(kind) = body.token_type.as_deref().filter(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        let text = format!("the token endpoint gave a token of another kind than Bearer: {}", cx.redact(&crate::model::text::brief(kind, 40)));
        return Err(ApiError::new(ErrorKind::NotTheService, SERVICE, text).status(answer.status));
    }
    let stated = body.expires_in.as_ref().and_then(Seconds::duration).or_else(|| body.expires_on.as_ref()?.until());
    // Without a stated life the token is kept for a short while only.
    let life = stated.unwrap_or(EARLY);
    Ok(Token::new(SecretValue::new(body.access_token), asked, life, body.refresh_in.as_ref().and_then(Seconds::duration)))
}

#[cfg(test)]
mod tests;
