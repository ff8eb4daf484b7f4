//! What a token says of itself, read without verifying it: for messages, and to refuse a
//! ready token that cannot work before it is sent.

use std::time::Duration;

use base64::Engine as _;
use serde::Deserialize;
use tokio::time::Instant;

use super::{SERVICE, Token};
use crate::http::{ApiError, ErrorKind};
use crate::model::SecretValue;
use crate::model::text::brief;

/// Claims of an access token that help in messages. All are optional, none is trusted.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Claims {
    /// A text in access tokens, a list in the tokens of some other issuers.
    #[serde(default, deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    #[serde(default)]
    pub iss: Option<String>,
    #[serde(default)]
    pub sub: Option<String>,
    /// Tenant.
    #[serde(default)]
    pub tid: Option<String>,
    /// Application, in v1 tokens; v2 tokens say `azp`.
    #[serde(default)]
    pub appid: Option<String>,
    #[serde(default)]
    pub azp: Option<String>,
    /// Object id of the user or service principal.
    #[serde(default)]
    pub oid: Option<String>,
    #[serde(default)]
    pub upn: Option<String>,
    /// Unix seconds.
    #[serde(default)]
    pub exp: Option<i64>,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::<Either>::deserialize(d)? {
        None => Vec::new(),
        Some(Either::One(text)) => vec![text],
        Some(Either::Many(list)) => list,
    })
}

impl Claims {
    /// Reads a JWT's payload; `None` when the token is opaque.
    pub fn peek(token: &SecretValue) -> Option<Self> {
        let mut parts = token.expose().trim().split('.');
        let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Who the token speaks for: `app 1111…, object 2222…, tenant 3333…`.
    pub fn identity(&self) -> Option<String> {
        let mut parts = Vec::new();
        if let Some(upn) = &self.upn {
            parts.push(brief(upn, 80));
        }
        let named = [("app", self.appid.as_ref().or(self.azp.as_ref())), ("object", self.oid.as_ref()), ("tenant", self.tid.as_ref())];
        parts.extend(named.into_iter().filter_map(|(word, id)| Some(format!("{word} {}", brief(id?, 80)))));
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// A ready token as a [`Token`]; refused when it has ended or is for another service.
pub(super) fn ready(secret: &SecretValue, audiences: &[String]) -> Result<Token, ApiError> {
    let claims = Claims::peek(secret).unwrap_or_default();
    if let Some(aud) = claims.aud.first()
        && !audiences.is_empty()
        && !audiences.contains(&aud.trim_end_matches('/').to_ascii_lowercase())
    {
        return Err(ApiError::new(ErrorKind::Auth, SERVICE, format!("the access token is for {}, not for this service", brief(aud, 120)))
            .advice(format!("Ask for a token whose audience is {}.", audiences.first().map_or("", String::as_str))));
    }
    let Some(exp) = claims.exp else {
        // Opaque: the service decides.
        return Ok(Token::new(secret.clone(), Instant::now(), Duration::from_secs(86_400), None));
    };
    let now = jiff::Timestamp::now();
    if exp <= now.as_second() {
        let when = jiff::Timestamp::from_second(exp).map_or_else(|_| exp.to_string(), |t| t.to_string());
        return Err(ApiError::new(ErrorKind::Auth, SERVICE, format!("the access token ended at {when}"))
            .advice("Store a new one in the connection; a ready token cannot be renewed."));
    }
    // Nothing can be gained by renewing early: the same token would come back.
    let left = Duration::from_secs(exp.abs_diff(now.as_second())).min(Duration::from_secs(30 * 86_400));
    let at = Instant::now() + left;
    Ok(Token { secret: secret.clone(), renew_at: at, expires_at: at })
}
