//! One call to a vault: the token, the pace, the challenge, throttling, redirects. What an
//! answer means is the caller's business.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;

use super::SERVICE;
use super::address::VaultUrl;
use super::errors::{Refusal, Right, failure};
use super::pace::Pace;
use super::wire::{self, Secret, not_a_vault};
use crate::destination::entra::{Claims, Tokens, resource_of};
use crate::http::{Answer, ApiError, Cx, ErrorKind, Http, Pacer, Policy, join};
use crate::model::Memory;
use crate::model::text::brief;

/// Rounds of waiting after the attempts of one call ended throttled.
const THROTTLE_ROUNDS: u32 = 5;

/// How long settling is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// In all, per secret and phase.
    pub limit: Duration,
    /// One step of the waiting schedule.
    pub unit: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { limit: Duration::from_secs(120), unit: Duration::from_secs(1) }
    }
}

impl Patience {
    /// The wait before look number `n` (from 0): 1, 2, 2, 3, 5, 5, … units.
    pub fn step(&self, n: usize) -> Duration {
        const STEPS: [u32; 5] = [1, 2, 2, 3, 5];
        self.unit * STEPS[n.min(STEPS.len() - 1)]
    }
}

/// A vault that may be called.
pub(super) struct Vault {
    pub address: VaultUrl,
    /// Where calls go: the vault's URL, or the connection's endpoint.
    pub base: url::Url,
    pub api_version: String,
    pub http: Http,
    pub tokens: Arc<Tokens>,
    pub pace: Arc<Pace>,
    /// Creations of all vaults of this connection.
    pub together: Arc<Pacer>,
    pub memory: Arc<dyn Memory>,
    pub patience: Patience,
}

/// One call.
pub(super) struct Call<'a> {
    pub method: Method,
    pub url: url::Url,
    /// The route for the request counters.
    pub label: &'static str,
    pub body: Option<&'a [u8]>,
    /// May it be sent again when it is unknown whether it took effect?
    pub repeatable: bool,
    /// Counts against the quota of creations.
    pub creates: bool,
    /// Sent once: trouble is not waited out.
    pub once: bool,
}

impl Vault {
    /// Equal texts are the same vault, reached the same way.
    pub fn identity(&self) -> String {
        self.address.identity_at(&self.base)
    }

    /// The URL of a resource below the vault.
    pub fn url(&self, segments: &[&str]) -> url::Url {
        let mut url = join(&self.base, segments);
        url.query_pairs_mut().append_pair("api-version", &self.api_version);
        url
    }

    fn get(url: url::Url, label: &'static str) -> Call<'static> {
        Call { method: Method::GET, url, label, body: None, repeatable: true, creates: false, once: false }
    }

    /// One page of a list: the first one, or the one a link leads to.
    pub async fn page(&self, cx: &Cx, url: url::Url, label: &'static str) -> Result<Answer, ApiError> {
        self.call(cx, &Self::get(url, label)).await
    }

    /// The current version of a secret.
    pub async fn secret(&self, cx: &Cx, name: &str) -> Result<Answer, ApiError> {
        self.call(cx, &Self::get(self.url(&["secrets", name]), "GET /secrets/{name}")).await
    }

    /// The current version of a secret, for a look that may as well be made by the next run.
    pub async fn glance(&self, cx: &Cx, name: &str) -> Result<Answer, ApiError> {
        let call = Self::get(self.url(&["secrets", name]), "GET /secrets/{name}");
        self.call(cx, &Call { once: true, ..call }).await
    }

    /// A new version. An ambiguous failure is the caller's to resolve.
    pub async fn set(&self, cx: &Cx, name: &str, body: &[u8]) -> Result<Answer, ApiError> {
        let url = self.url(&["secrets", name]);
        let label = "PUT /secrets/{name}";
        self.call(cx, &Call { method: Method::PUT, url, label, body: Some(body), repeatable: false, creates: true, once: false }).await
    }

    /// Changes the tags of a version (of the current one where none is named), not its value.
    pub async fn retag(&self, cx: &Cx, name: &str, version: Option<&str>, body: &[u8]) -> Result<Answer, ApiError> {
        let url = self.url(&["secrets", name, version.unwrap_or_default()]);
        let label = "PATCH /secrets/{name}";
        self.call(cx, &Call { method: Method::PATCH, url, label, body: Some(body), repeatable: true, creates: false, once: false }).await
    }

    /// A deleted secret.
    pub async fn grave(&self, cx: &Cx, name: &str) -> Result<Answer, ApiError> {
        self.call(cx, &Self::get(self.url(&["deletedsecrets", name]), "GET /deletedsecrets/{name}")).await
    }

    /// Soft deletion. Repeating it is harmless: the second answer is a 404.
    pub async fn delete(&self, cx: &Cx, name: &str) -> Result<Answer, ApiError> {
        let url = self.url(&["secrets", name]);
        let label = "DELETE /secrets/{name}";
        self.call(cx, &Call { method: Method::DELETE, url, label, body: None, repeatable: true, creates: false, once: false }).await
    }

    /// Starts the recovery of a deleted secret.
    pub async fn recover(&self, cx: &Cx, name: &str) -> Result<Answer, ApiError> {
        let url = self.url(&["deletedsecrets", name, "recover"]);
        let label = "POST /deletedsecrets/{name}/recover";
        self.call(cx, &Call { method: Method::POST, url, label, body: Some(b""), repeatable: true, creates: false, once: false }).await
    }

    /// The bundle of this secret out of an answer.
    pub fn bundle(&self, answer: &Answer, name: &str) -> Result<Secret, ApiError> {
        let secret: Secret = wire::read(answer, &format!("the answer about {name}"))?;
        match secret.name_and_version(self.base.path()) {
            Some((named, _)) if named.eq_ignore_ascii_case(name) => Ok(secret),
            _ => Err(not_a_vault(&format!("the answer about {name}"), "it names another secret, or none").status(answer.status)),
        }
    }

    /// The version in a bundle's id.
    pub fn version(&self, secret: &Secret) -> Option<String> {
        secret.name_and_version(self.base.path())?.1
    }

    /// Sends a call with a token, once more with a fresh one after a 401, and waits out
    /// throttling together with every other worker of this vault.
    pub async fn call(&self, cx: &Cx, call: &Call<'_>) -> Result<Answer, ApiError> {
        let mut token = self.tokens.token(cx).await?;
        let request_id = uuid::Uuid::new_v4().to_string();
        let pacer = if call.creates { &self.pace.creations } else { &*self.pace.calls };
        let (mut renewed, mut round) = (false, 0);
        loop {
            if call.creates {
                self.together.ready(cx).await?;
            }
            let attempts = if call.once { 1 } else { Policy::default().attempts };
            let policy = Policy { repeatable: call.repeatable, pacer: Some(pacer), attempts, ..Policy::default() };
            let sent = self.http.send(cx, SERVICE, call.label, policy, || {
                if call.creates {
                    self.pace.created(&*self.memory, &self.identity());
                }
                let mut request = self
                    .http
                    .request(call.method.clone(), call.url.clone())?
                    .bearer_auth(token.expose())
                    .header("accept", "application/json")
                    .header("x-ms-client-request-id", &request_id);
                if let Some(body) = call.body {
                    request = request.body(body.to_vec());
                    if !body.is_empty() {
                        request = request.header("content-type", "application/json");
                    }
                }
                Ok(request)
            });
            let answer = sent.await.map_err(|e| self.unreachable(e))?;
            match answer.status {
                300..=399 => {
                    let told = answer.redirect().unwrap_or_default();
                    let error = ApiError::new(ErrorKind::NotTheService, SERVICE, told).status(answer.status);
                    return Err(error.advice("A vault does not redirect: check the Vault Base URL and the proxy settings."));
                }
                401 => {
                    let refused = self.challenged(cx, &answer);
                    if renewed || refused.final_word {
                        return Err(refused.error);
                    }
                    renewed = true;
                    token = match &refused.claims {
                        Some(claims) => self.tokens.token_with_claims(cx, claims).await?,
                        None if self.tokens.refused(&token) => self.tokens.token(cx).await?,
                        None => return Err(refused.error),
                    };
                }
                429 if !call.once && round < THROTTLE_ROUNDS && cx.spend_retry() => {
                    pacer.throttled(answer.retry_after());
                    round += 1;
                }
                _ => return Ok(answer),
            }
        }
    }

    pub(super) fn unreachable(&self, error: ApiError) -> ApiError {
        let unresolved = error.advice.as_deref().is_some_and(|a| a.contains("does not resolve"));
        if error.kind == ErrorKind::Unreachable && unresolved && self.address.cloud().is_some() {
            return error.advice(
                "There is no vault of that name (or it was deleted), or this machine cannot resolve the private DNS zone of its private endpoint.",
            );
        }
        error
    }

    /// What a 401 says: whether a fresh token may help, and the error if it does not.
    fn challenged(&self, cx: &Cx, answer: &Answer) -> Refused {
        let challenge = answer.header("www-authenticate").map(Challenge::parse).unwrap_or_default();
        let refusal = Refusal::read(answer);
        let error = failure(cx, answer, "the vault refused the token", Right::List);
        if let (Some(theirs), Some(ours)) = (challenge.tenant(), self.tenant())
            && is_guid(&theirs)
            && is_guid(&ours)
            && !theirs.eq_ignore_ascii_case(&ours)
        {
            let theirs = brief(&theirs, 60);
            let mut error = ApiError::new(ErrorKind::Auth, SERVICE, format!("the vault belongs to tenant {theirs}, the connection to {ours}"))
                .status(401)
                .request_id(answer.header("x-ms-request-id"))
                .advice("Use a connection of the vault's tenant.");
            error.code = akv_code(&refusal.message);
            return Refused { error, claims: None, final_word: true };
        }
        let mut error = error;
        if let Some(code) = akv_code(&refusal.message) {
            let advice = match code.as_str() {
                "AKV10022" => "The token is for another service or cloud: check the scope of the token and the vault's cloud.",
                "AKV10032" => "The token comes from another tenant than the vault's.",
                _ => "The vault does not accept the token: check tenant, cloud and credentials of the connection.",
            };
            error.code = Some(code);
            error = error.advice(advice);
        }
        if let Some(theirs) = challenge.resource().filter(|r| !r.eq_ignore_ascii_case(self.tokens.resource())) {
            let theirs = brief(theirs, 120);
            error = error
                .advice(format!("The vault asks for tokens for {theirs}: if you know it for yours, set tokenResource on the connection to that."));
        }
        Refused { error, claims: challenge.claims(), final_word: false }
    }

    /// The tenant our tokens come from: as configured, or as the ready token says.
    fn tenant(&self) -> Option<String> {
        use crate::destination::entra::Grant;
        match self.tokens.grant() {
            Grant::Token(token) => Claims::peek(token)?.tid,
            grant => grant.tenant().map(str::to_owned),
        }
    }
}

struct Refused {
    error: ApiError,
    claims: Option<String>,
    final_word: bool,
}

fn is_guid(text: &str) -> bool {
    uuid::Uuid::try_parse(text).is_ok()
}

/// `AKV10032` out of a message that begins with it.
fn akv_code(message: &str) -> Option<String> {
    let rest = &message[message.find("AKV")?..];
    let code: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
    (code.len() > 3 && code[3..].bytes().all(|b| b.is_ascii_digit())).then_some(code)
}

/// The parameters of `WWW-Authenticate: Bearer …`.
#[derive(Debug, Default)]
struct Challenge(Vec<(String, String)>);

impl Challenge {
    fn parse(header: &str) -> Self {
        let Some((scheme, rest)) = header.trim().split_once(' ') else { return Self::default() };
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Self::default();
        }
        let mut out = Vec::new();
        let mut rest = rest.trim();
        while let Some((name, after)) = rest.split_once('=') {
            let after = after.trim_start();
            let (value, next) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
                None => after.split_once(',').unwrap_or((after, "")),
            };
            out.push((name.trim().to_ascii_lowercase(), value.trim().to_string()));
            rest = next.trim_start_matches([',', ' ']);
        }
        Self(out)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The first path segment of the authorisation URL.
    fn tenant(&self) -> Option<String> {
        let url = url::Url::parse(self.get("authorization").or_else(|| self.get("authorization_uri"))?).ok()?;
        url.path_segments()?.next().filter(|s| !s.is_empty()).map(str::to_owned)
    }

    /// Whom the vault wants tokens for.
    fn resource(&self) -> Option<&str> {
        let named = self.get("resource").or_else(|| self.get("scope"))?;
        Some(resource_of(named)).filter(|r| !r.is_empty())
    }

    /// The decoded claims a claims challenge asks for.
    fn claims(&self) -> Option<String> {
        use base64::Engine as _;
        if !self.get("error")?.eq_ignore_ascii_case("insufficient_claims") {
            return None;
        }
        let text = self.get("claims")?.trim_end_matches('=').replace('+', "-").replace('/', "_");
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()?;
        String::from_utf8(bytes).ok()
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let c = Challenge::parse(r#"Bearer authorization="https://login.windows.net/t-1", resource="https://vault.azure.net""#);
        assert_eq!(c.tenant().as_deref(), Some("t-1"));
        let c = Challenge::parse(r#"bearer authorization_uri="https://login.example/t2/x", error="insufficient_claims", claims="eyJhIjoxfQ==""#);
        assert_eq!((c.tenant().as_deref(), c.claims().as_deref()), (Some("t2"), Some(r#"{"a":1}"#)));
        for odd in ["", "Bearer", "Basic realm=x", "Bearer a=", "Bearer =\"", "Bearer claims=x, error=insufficient_claims"] {
            assert_eq!(Challenge::parse(odd).tenant(), None, "{odd}");
        }
    }

    #[test]
    fn codes_of_the_vault_are_found() {
        assert_eq!(akv_code("[TokenExpired] AKV10032: Invalid issuer.").as_deref(), Some("AKV10032"));
        assert_eq!(akv_code("AKV: no"), None);
    }

    #[test]
    fn the_waiting_schedule() {
        let steps: Vec<_> = (0..7).map(|n| Patience::default().step(n).as_secs()).collect();
        assert_eq!(steps, [1, 2, 2, 3, 5, 5, 5]);
    }
}
