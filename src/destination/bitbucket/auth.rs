//! The three ways to authenticate, and the header each one makes.

use std::time::{Duration, Instant};

use base64::Engine as _;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use url::Url;

use super::errors;
use super::place::Endpoint;
use super::spec::{ACCESS_TOKEN, API_TOKEN, CLIENT_CREDENTIALS, SERVICE};
use crate::http::{ApiError, Cx, ErrorKind, Http, Policy};
use crate::model::SecretValue;
use crate::model::connection::ResolvedConnection;

/// A token is renewed this long before it expires.
const MARGIN: Duration = Duration::from_secs(300);
const TOKEN_URL: &str = "https://bitbucket.org/site/oauth2/access_token";

/// A connection's way to authenticate.
pub enum Auth {
    /// HTTP Basic with the account's e-mail address.
    ApiToken { email: String, token: SecretValue },
    /// Bearer.
    AccessToken { token: SecretValue },
    /// Bearer, from a token call.
    Consumer { id: String, secret: SecretValue, token_url: Url, cached: tokio::sync::Mutex<Option<Cached>> },
}

/// A consumer's access token and when to stop using it.
pub struct Cached {
    token: SecretValue,
    renew_at: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: Option<u64>,
}

impl Auth {
    /// Reads a connection's credentials.
    pub fn of(connection: &ResolvedConnection, endpoint: &Endpoint) -> Result<Self, ApiError> {
        let get = |field: &str| {
            let text = connection.text(field).ok_or_else(|| ApiError::new(ErrorKind::Invalid, SERVICE, format!("credentials.{field} is missing")))?;
            if text.chars().any(|c| c.is_control() || !c.is_ascii()) {
                return Err(ApiError::new(ErrorKind::Invalid, SERVICE, format!("credentials.{field} holds characters that no token has"))
                    .advice("Paste it again: it must be one line of plain letters, digits and signs."));
            }
            Ok(text.to_string())
        };
        match connection.method.as_str() {
            API_TOKEN => Ok(Self::ApiToken { email: get("email")?, token: SecretValue::new(get("apiToken")?) }),
            ACCESS_TOKEN => Ok(Self::AccessToken { token: SecretValue::new(get("accessToken")?) }),
            CLIENT_CREDENTIALS => {
                let token_url = match connection.setting("tokenUrl") {
                    Some(text) => Url::parse(text).map_err(|_| ApiError::new(ErrorKind::Invalid, SERVICE, "tokenUrl is not a URL"))?,
                    // A consumer's secret does not leave for the cloud when the API is elsewhere.
                    None if !endpoint.cloud => crate::http::join(&endpoint.root, &["site", "oauth2", "access_token"]),
                    None => Url::parse(TOKEN_URL).map_err(|_| ApiError::new(ErrorKind::Invalid, SERVICE, "tokenUrl is not a URL"))?,
                };
                Ok(Self::Consumer {
                    id: get("clientId")?,
                    secret: SecretValue::new(get("clientSecret")?),
                    token_url,
                    cached: tokio::sync::Mutex::new(None),
                })
            }
            other => Err(ApiError::new(ErrorKind::Invalid, SERVICE, format!("{other} is not a method of a Bitbucket connection"))),
        }
    }

    /// The method's word.
    pub fn method(&self) -> &'static str {
        match self {
            Self::ApiToken { .. } => API_TOKEN,
            Self::AccessToken { .. } => ACCESS_TOKEN,
            Self::Consumer { .. } => CLIENT_CREDENTIALS,
        }
    }

    /// Names whose rate budget is spent: the user, the token (by its fingerprint), the consumer.
    pub fn payer(&self) -> String {
        match self {
            Self::ApiToken { email, .. } => email.to_lowercase(),
            Self::AccessToken { token } => {
                let print = blake3::derive_key("kms-sync bitbucket rate budget of an access token", token.expose().as_bytes());
                print.iter().take(8).map(|b| format!("{b:02x}")).collect()
            }
            Self::Consumer { id, .. } => id.clone(),
        }
    }

    /// The secret itself: for advice by its shape.
    pub fn secret(&self) -> &SecretValue {
        match self {
            Self::ApiToken { token, .. } | Self::AccessToken { token } => token,
            Self::Consumer { secret, .. } => secret,
        }
    }

    /// Teaches the redactor everything that must not be shown.
    pub fn learn(&self, cx: &Cx) {
        cx.redactor().learn(self.secret());
        if let Self::ApiToken { email, token } = self {
            cx.redactor().learn(&basic(email, token));
        }
        if let Self::Consumer { id, secret, .. } = self {
            cx.redactor().learn(&basic(id, secret));
        }
    }

    /// The Authorization header, marked as sensitive. May fetch a token.
    pub async fn header(&self, cx: &Cx, http: &Http) -> Result<HeaderValue, ApiError> {
        let text = match self {
            Self::ApiToken { email, token } => format!("Basic {}", basic(email, token).expose()),
            Self::AccessToken { token } => format!("Bearer {}", token.expose()),
            Self::Consumer { id, secret, token_url, cached } => {
                // Held over the call: one task fetches, the others use what it got.
                let mut cached = cached.lock().await;
                if cached.as_ref().is_none_or(|c| Instant::now() >= c.renew_at) {
                    *cached = Some(fetch(cx, http, id, secret, token_url).await?);
                }
                format!("Bearer {}", cached.as_ref().map(|c| c.token.expose()).unwrap_or_default())
            }
        };
        let mut value =
            HeaderValue::from_str(&text).map_err(|_| ApiError::new(ErrorKind::Invalid, SERVICE, "the credential cannot stand in a header"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Forgets a token the server refused; true when another one can be fetched.
    pub async fn renew(&self, refused: &HeaderValue) -> bool {
        let Self::Consumer { cached, .. } = self else { return false };
        let mut cached = cached.lock().await;
        // Another task may have renewed it since: then the new one is tried.
        if cached.as_ref().is_some_and(|c| refused.as_bytes() == format!("Bearer {}", c.token.expose()).as_bytes()) {
            *cached = None;
        }
        true
    }
}

fn basic(user: &str, password: &SecretValue) -> SecretValue {
    let pair = zeroize::Zeroizing::new(format!("{user}:{}", password.expose()));
    SecretValue::new(base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()))
}

/// The client credentials grant: RFC 6749 section 4.4, as Bitbucket's consumers speak it.
async fn fetch(cx: &Cx, http: &Http, id: &str, secret: &SecretValue, token_url: &Url) -> Result<Cached, ApiError> {
    let answer = http
        .send(cx, SERVICE, "POST /site/oauth2/access_token", Policy::default(), || {
            Ok(http
                .request(Method::POST, token_url.clone())?
                .basic_auth(id, Some(secret.expose()))
                .header("accept", "application/json")
                .form(&[("grant_type", "client_credentials")]))
        })
        .await?;
    if !answer.ok() {
        return Err(errors::of_token_call(cx, &answer));
    }
    let got: TokenAnswer = answer.json(SERVICE)?;
    let token = SecretValue::new(got.access_token);
    cx.redactor().learn(&token);
    let life = Duration::from_secs(got.expires_in.unwrap_or(7200));
    Ok(Cached { token, renew_at: Instant::now() + life.saturating_sub(MARGIN).max(Duration::from_secs(1)) })
}
