//! Who we are at the KMS: one bearer token per account, shared by every sync and run.
//!
//! Every login spends a use of the client secret and three rejected ones lock the identity
//! for everybody, so there is one login at a time, none per run, and none by itself after a
//! rejection. Tokens are not renewed: renewing past the ceiling deletes the token, while a
//! new login at 80 % of its life always works.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::errors::{Refusal, SERVICE};
use super::pace::Bucket;
use super::wire::{Call, Wire};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::SecretValue;
use crate::model::connection::ResolvedConnection;

/// Two forced logins without a success between them are at least this far apart.
const RELOGIN_PAUSE: Duration = Duration::from_secs(60);

/// The account's credentials and its present token.
pub(super) struct Auth {
    method: Method,
    state: Mutex<State>,
}

enum Method {
    Universal { client_id: SecretValue, client_secret: SecretValue, organization: Option<String> },
    Token(SecretValue),
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    logins: u64,
    /// The last login was rejected: nothing is tried until the operator asks for it.
    refused: Option<ApiError>,
    forced_at: Option<Instant>,
}

struct Token {
    bearer: SecretValue,
    number: u64,
    renew_at: Option<Instant>,
    dies_at: Option<Instant>,
    /// Some call was answered with it.
    proven: AtomicBool,
}

/// A token to use, and its number for telling whether a newer one exists.
pub(super) struct Ticket {
    pub bearer: SecretValue,
    pub number: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Login {
    access_token: String,
    /// Seconds; 0 means that it never expires.
    expires_in: Option<f64>,
    /// Seconds; 0 means no ceiling.
    #[serde(rename = "accessTokenMaxTTL")]
    max_ttl: Option<f64>,
}

impl Auth {
    pub fn new(connection: &ResolvedConnection) -> Result<Self, ApiError> {
        let need = |field: &str| {
            connection
                .text(field)
                .map(SecretValue::new)
                .ok_or_else(|| ApiError::new(ErrorKind::Invalid, SERVICE, format!("the KMS account {} has no {field}", connection.name)))
        };
        let method = match connection.method.as_str() {
            "universal-auth" => Method::Universal {
                client_id: need("clientId")?,
                client_secret: need("clientSecret")?,
                organization: connection.text("organizationSlug").map(str::to_owned),
            },
            "token" => Method::Token(need("token")?),
            other => {
                return Err(ApiError::new(
                    ErrorKind::Invalid,
                    SERVICE,
                    format!("the KMS account {} uses an unknown method {other:?}", connection.name),
                ));
            }
        };
        Ok(Self { method, state: Mutex::new(State::default()) })
    }

    /// The identity for texts: a client id, or the kind of token.
    pub fn identity(&self) -> String {
        match &self.method {
            Method::Universal { client_id, .. } => format!("machine identity {}", crate::model::text::brief(client_id.expose(), 60)),
            Method::Token(token) if token.expose().starts_with("st.") => "service token".to_string(),
            Method::Token(_) => "access token".to_string(),
        }
    }

    /// True when the next call needs no login.
    pub async fn at_hand(&self) -> bool {
        let fresh = |token: &Token| token.renew_at.is_none_or(|at| Instant::now() < at);
        !self.logs_in() || self.state.lock().await.token.as_ref().is_some_and(fresh)
    }

    /// True when the token is had by logging in.
    pub fn logs_in(&self) -> bool {
        matches!(self.method, Method::Universal { .. })
    }

    /// True for `st.` tokens, which are tied to one project and may override what is asked.
    pub fn is_service_token(&self) -> bool {
        matches!(&self.method, Method::Token(token) if token.expose().starts_with("st."))
    }

    /// An organisation id as the token's own claims or the connection tell it.
    pub async fn organization_id(&self) -> Option<String> {
        if let Method::Universal { organization: Some(given), .. } = &self.method
            && uuid::Uuid::parse_str(given).is_ok()
        {
            return Some(given.clone());
        }
        let state = self.state.lock().await;
        let bearer = match &self.method {
            Method::Token(token) => token,
            Method::Universal { .. } => &state.token.as_ref()?.bearer,
        };
        claim(bearer.expose(), &["organizationId", "orgId"])
    }

    /// A token for the next call: logs in when there is none or its life is mostly over.
    /// Callers queue behind one login.
    pub async fn ticket(&self, cx: &Cx, wire: &Wire) -> Result<Ticket, Refusal> {
        let (client_id, client_secret, organization) = match &self.method {
            Method::Universal { client_id, client_secret, organization } => (client_id, client_secret, organization),
            Method::Token(token) => {
                cx.redactor().learn(token);
                return Ok(Ticket { bearer: token.clone(), number: 0 });
            }
        };
        cx.redactor().learn(client_secret);
        let mut state = self.state.lock().await;
        let now = Instant::now();
        if let Some(token) = &state.token
            && token.renew_at.is_none_or(|at| now < at)
        {
            cx.redactor().learn(&token.bearer);
            return Ok(Ticket { bearer: token.bearer.clone(), number: token.number });
        }
        let outcome = match &state.refused {
            Some(refused) => Err(Refusal::from(refused.clone())),
            None => login(cx, wire, client_id, client_secret, organization.as_deref()).await,
        };
        match outcome {
            Ok(answer) => {
                state.logins += 1;
                let token = Token::new(answer, state.logins);
                cx.redactor().learn(&token.bearer);
                let ticket = Ticket { bearer: token.bearer.clone(), number: token.number };
                state.token = Some(token);
                Ok(ticket)
            }
            Err(refusal) => {
                if refusal.kind() == ErrorKind::Auth || refusal.kind() == ErrorKind::Permission {
                    state.refused = Some(refusal.error.clone());
                }
                // The old token may still have a fifth of its life.
                match &state.token {
                    Some(token) if token.dies_at.is_none_or(|at| now < at) => {
                        cx.redactor().learn(&token.bearer);
                        Ok(Ticket { bearer: token.bearer.clone(), number: token.number })
                    }
                    _ => Err(refusal),
                }
            }
        }
    }

    /// A call was answered with this token.
    pub async fn proven(&self, number: u64) {
        if number == 0 {
            return;
        }
        if let Some(token) = self.state.lock().await.token.as_ref().filter(|t| t.number == number) {
            token.proven.store(true, Ordering::Relaxed);
        }
    }

    /// The server called this token dead. True when the call should be repeated: another
    /// caller has a newer token already, or a new login makes sense.
    pub async fn dead(&self, number: u64) -> bool {
        if number == 0 {
            return false;
        }
        let mut state = self.state.lock().await;
        match &state.token {
            Some(token) if token.number != number => return true,
            Some(token) => {
                let recently = state.forced_at.is_some_and(|at| at.elapsed() < RELOGIN_PAUSE);
                if !token.proven.load(Ordering::Relaxed) && recently {
                    return false;
                }
            }
            None => {}
        }
        state.token = None;
        state.forced_at = Some(Instant::now());
        true
    }

    /// The operator asks: a rejected login may be tried once more.
    pub async fn forgive(&self) {
        self.state.lock().await.refused = None;
    }

    /// Gives the token back to the server at a clean exit. Failures do not matter.
    pub async fn revoke(&self, cx: &Cx, wire: &Wire) {
        let Some(token) = self.state.lock().await.token.take() else { return };
        let body = serde_json::json!({ "accessToken": token.bearer.expose() }).to_string();
        let call = Call::with_body(reqwest::Method::POST, "POST /api/v1/auth/token/revoke", "api/v1/auth/token/revoke", body)
            .bucket(Bucket::Auth)
            .attempts(1);
        if let Err(error) = wire.send(cx, &call, None).await {
            tracing::debug!(%error, "the KMS token was not revoked");
        }
    }
}

impl Token {
    fn new(answer: Login, number: u64) -> Self {
        let now = Instant::now();
        let expires_in = answer.expires_in.unwrap_or(0.0);
        let life = [expires_in, answer.max_ttl.unwrap_or(0.0)]
            .into_iter()
            .filter(|s| s.is_finite() && *s > 0.0)
            .min_by(f64::total_cmp)
            .map(|seconds| Duration::from_secs_f64(seconds.min(1e9)));
        // `expiresIn` 0 is a token that never expires, whatever the ceiling says.
        let life = life.filter(|_| expires_in > 0.0);
        Self {
            bearer: SecretValue::new(answer.access_token),
            number,
            renew_at: life.and_then(|l| now.checked_add(l.mul_f64(0.8))),
            dies_at: life.and_then(|l| now.checked_add(l)),
            proven: AtomicBool::new(false),
        }
    }
}

async fn login(cx: &Cx, wire: &Wire, client_id: &SecretValue, client_secret: &SecretValue, organization: Option<&str>) -> Result<Login, Refusal> {
    const PATH: &str = "api/v1/auth/universal-auth/login";
    let mut body = serde_json::json!({ "clientId": client_id.expose(), "clientSecret": client_secret.expose() });
    if let Some(organization) = organization {
        body["organizationSlug"] = organization.into();
    }
    let call =
        Call::with_body(reqwest::Method::POST, "POST /api/v1/auth/universal-auth/login", PATH, body.to_string()).bucket(Bucket::Auth).attempts(3);
    let answer = wire.send(cx, &call, None).await?;
    if answer.ok() {
        return match answer.json::<Login>(SERVICE) {
            Ok(login) if !login.access_token.trim().is_empty() => Ok(login),
            Ok(_) => Err(ApiError::new(ErrorKind::NotTheService, SERVICE, "the login answer holds no token").into()),
            Err(error) => Err(wire.explain(cx, error.into()).await),
        };
    }
    let mut refusal = wire.explain(cx, Refusal::read(cx, &answer)).await;
    // Whatever else a login is refused for (an address outside the trusted ones, an unknown
    // organisation), repeating it by itself changes nothing.
    if matches!(refusal.kind(), ErrorKind::Permission | ErrorKind::Invalid | ErrorKind::NotFound) && !refusal.route_missing {
        refusal.error.kind = ErrorKind::Auth;
    }
    refusal.error.message = format!("login refused: {}", refusal.error.message);
    Err(refusal)
}

/// A text claim of a JWT, unverified: only for choosing what to ask.
fn claim(token: &str, names: &[&str]) -> Option<String> {
    use base64::Engine as _;
    let payload = token.split('.').nth(1)?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    names.iter().find_map(|n| claims.get(n)?.as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(expires_in: f64, max_ttl: f64) -> Token {
        Token::new(Login { access_token: "t".into(), expires_in: Some(expires_in), max_ttl: Some(max_ttl) }, 1)
    }

    #[tokio::test]
    async fn life_is_counted_in_the_servers_words() {
        assert!(token(0.0, 2_592_000.0).renew_at.is_none(), "0 never expires");
        let ahead = |at: Option<Instant>| at.map(|at| at.duration_since(Instant::now()).as_secs_f64().round());
        assert_eq!(ahead(token(100.0, 0.0).renew_at), Some(80.0));
        assert_eq!(ahead(token(100.0, 50.0).renew_at), Some(40.0));
        assert_eq!(ahead(token(100.0, 1e9).dies_at), Some(100.0));
    }

    #[test]
    fn claims_are_read_leniently() {
        // {"organizationId":"o-1"}
        assert_eq!(claim("x.eyJvcmdhbml6YXRpb25JZCI6Im8tMSJ9.y", &["organizationId"]).as_deref(), Some("o-1"));
        assert_eq!(claim("st.not.jwt", &["organizationId"]), None);
        assert_eq!(claim("opaque", &["organizationId"]), None);
    }
}
