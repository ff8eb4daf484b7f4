//! Bitbucket's errors in all their shapes, turned into what the operator can do.
//!
//! Five services answer with five shapes, and gateways with HTML: everything is parsed
//! leniently, nothing that is not JSON is quoted where a value may be in it.

use serde_json::Value;

use super::auth::Auth;
use super::spec::{ACCESS_TOKEN, API_TOKEN, SERVICE};
use crate::http::{Answer, ApiError, Cx, ErrorKind, Redactor};
use crate::model::SecretValue;

/// What an error body says, whatever its shape.
#[derive(Debug, Default, PartialEq)]
pub struct Told {
    pub message: Option<String>,
    pub detail: Option<String>,
    pub required: Vec<String>,
    pub granted: Vec<String>,
    /// The Pipelines service's own code (`variable-service.variable.duplicate`).
    pub key: Option<String>,
    pub fields: Vec<(String, String)>,
    pub id: Option<String>,
    /// `{"errors":[…]}`: the shape of Data Center.
    pub data_center: bool,
}

impl Told {
    /// Reads an error body; an empty answer for what is no JSON object.
    pub fn read(body: &[u8]) -> Self {
        let Ok(Value::Object(root)) = serde_json::from_slice::<Value>(body) else { return Self::default() };
        if let Some(first) = root.get("errors").and_then(Value::as_array).and_then(|e| e.first()) {
            return Self { message: text(first.get("message")), data_center: true, ..Self::default() };
        }
        let mut told = Self::default();
        match root.get("error") {
            // OAuth: {"error":"code","error_description":"…"}
            Some(Value::String(code)) => {
                told.key = Some(code.clone());
                told.message = text(root.get("error_description")).or_else(|| Some(code.clone()));
            }
            Some(Value::Object(error)) => {
                told.message = text(error.get("message"));
                told.id = text(error.get("id"));
                told.key = error.get("data").and_then(|d| text(d.get("key")));
                match error.get("detail") {
                    Some(Value::String(detail)) => told.detail = Some(detail.clone()),
                    Some(Value::Object(detail)) => {
                        told.required = list(detail.get("required"));
                        told.granted = list(detail.get("granted"));
                    }
                    _ => {}
                }
                for (field, problems) in error.get("fields").and_then(Value::as_object).into_iter().flatten() {
                    told.fields.push((field.clone(), list(Some(problems)).join(", ")));
                }
            }
            // The deployments service: {"key","message","arguments"}
            _ => {
                told.key = text(root.get("key"));
                told.message = text(root.get("message"));
            }
        }
        told
    }

    /// True when a scope is missing, whatever the status.
    pub fn lacks_scope(&self) -> bool {
        !self.required.is_empty() || self.says("required privilege scopes")
    }

    /// The scopes that are required and not granted.
    pub fn missing(&self) -> Vec<&str> {
        self.required.iter().filter(|s| !self.granted.contains(s)).map(String::as_str).collect()
    }

    /// True when a variable of this key exists already.
    pub fn duplicate(&self) -> bool {
        self.key.as_deref().is_some_and(|k| k.ends_with("variable.duplicate")) || self.says("already exists")
    }

    /// True for calls that this kind of credential cannot make at all.
    pub fn wrong_mechanism(&self) -> bool {
        self.says("not accessible by this authentication mechanism")
    }

    /// True when the request's path or body could not be understood: our fault, or a bad id.
    pub fn malformed(&self) -> bool {
        self.key.as_deref() == Some("unexpected.response.body") || self.says("unexpected response body")
    }

    fn says(&self, words: &str) -> bool {
        [&self.message, &self.detail].into_iter().flatten().any(|t| t.to_lowercase().contains(words))
    }

    fn sentence(&self) -> Option<String> {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.message.clone());
        parts.extend(self.detail.clone());
        parts.extend(self.fields.iter().map(|(f, p)| format!("{f}: {p}")));
        (!parts.is_empty()).then(|| parts.join(": "))
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned)
}

fn list(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(items)) => items.iter().filter_map(|i| i.as_str().map(str::to_owned)).collect(),
        Some(Value::String(one)) => vec![one.clone()],
        _ => Vec::new(),
    }
}

/// The request id, under whichever name it comes.
fn request_id(answer: &Answer, told: &Told) -> Option<String> {
    ["x-request-id", "atl-traceid", "atl-request-id", "x-b3-traceid"]
        .iter()
        .find_map(|name| answer.header(name))
        .map(str::to_owned)
        .or_else(|| told.id.clone())
}

/// The error for an answer that is not a success. `what` names the work: `cannot list the
/// variables of acme/api`. `place` is `acme/api`. `value` is the value the request carried.
pub fn of(cx: &Cx, auth: &Auth, answer: &Answer, what: &str, place: Option<&str>, value: Option<&SecretValue>) -> ApiError {
    let told = Told::read(&answer.body);
    let said = answer.redirect().or_else(|| told.sentence()).or_else(|| value.is_none().then(|| answer.excerpt()).filter(|e| !e.is_empty()));
    let said = said.map(|s| mask(cx, &s, value));
    let message = said.map_or_else(|| what.to_string(), |s| format!("{what}: {s}"));
    let (kind, advice) = classify(auth, answer, &told, place);
    let mut error =
        ApiError::new(kind, SERVICE, message).status(answer.status).request_id(request_id(answer, &told)).retry_after(answer.retry_after());
    // A gateway's 5xx does not say whether the service behind it did the work.
    error.ambiguous = kind == ErrorKind::Transient;
    if let Some(key) = &told.key {
        error = error.code(key);
    }
    let error = error.masked(cx);
    match advice {
        Some(advice) => error.advice(advice),
        None => error,
    }
}

/// The error of an answer that refuses the credential itself; `None` for one that refuses
/// something else.
pub fn turned_away(cx: &Cx, auth: &Auth, answer: &Answer) -> Option<ApiError> {
    let told = Told::read(&answer.body);
    let refused = answer.status == 401 && !told.lacks_scope() && !told.wrong_mechanism();
    refused.then(|| of(cx, auth, answer, "the credential is not accepted", None, None))
}

/// Takes every secret out of a server's text, the value just sent first of all.
fn mask(cx: &Cx, text: &str, value: Option<&SecretValue>) -> String {
    let Some(value) = value.filter(|v| !v.is_empty()) else { return cx.redact(text) };
    let local = Redactor::default();
    local.learn(value);
    cx.redact(&local.redact(text))
}

fn classify(auth: &Auth, answer: &Answer, told: &Told, place: Option<&str>) -> (ErrorKind, Option<String>) {
    if told.data_center {
        return (ErrorKind::NotTheService, Some(DATA_CENTER.into()));
    }
    if told.lacks_scope() {
        return (ErrorKind::Permission, Some(scope_advice(auth, told)));
    }
    if told.wrong_mechanism() {
        let advice = if auth.method() == API_TOKEN {
            "This call was made with method api-token (Basic), as Bitbucket wants it: check the e-mail address and whether the token is an API token."
                .to_string()
        } else {
            format!("This call was made with method {} (Bearer): use method api-token with the account's e-mail address.", auth.method())
        };
        return (ErrorKind::Permission, Some(advice));
    }
    let place = place.unwrap_or("the repository");
    match answer.status {
        300..=399 => (
            ErrorKind::NotTheService,
            Some("Check the endpoint and the proxy settings of the connection, and whether the repository was renamed or moved.".into()),
        ),
        400 if told.malformed() => {
            (ErrorKind::Invalid, Some("An id in the configuration is not one: pick the deployment environment again (its uuid, in braces).".into()))
        }
        400 | 405 | 422 => (ErrorKind::Invalid, None),
        401 => (ErrorKind::Auth, Some(token_advice(auth))),
        402 => (ErrorKind::Quota, Some("The workspace's plan or its build minutes do not allow it: see Workspace settings, Plan details.".into())),
        403 => (
            ErrorKind::Permission,
            Some(format!(
                "The account must be administrator of {place}; also check the workspace's IP allowlist (Workspace settings, Access controls)."
            )),
        ),
        404 => (
            ErrorKind::NotFound,
            Some(format!(
                "Either {place} does not exist, or this credential has no access to it (Bitbucket hides private things), or the token is limited to \
                 another workspace."
            )),
        ),
        409 => (ErrorKind::Conflict, None),
        410 => (ErrorKind::Invalid, Some("Bitbucket has removed this call: enter the workspace by hand.".into())),
        413 | 414 => (ErrorKind::Invalid, Some("The value is too large for a variable.".into())),
        429 => (ErrorKind::Throttled, Some(limit_advice(answer))),
        408 | 500..=599 => (ErrorKind::Transient, None),
        _ => (ErrorKind::NotTheService, Some("Check the endpoint and the proxy settings of the connection.".into())),
    }
}

/// What to say to an operator whose endpoint is a Data Center.
pub const DATA_CENTER: &str =
    "This is Bitbucket Data Center, which has no Pipelines variables. kms-sync writes to Bitbucket Cloud (https://api.bitbucket.org).";

/// Until when to wait after a 429 outside the hourly log, as far as the answer says so.
fn limit_advice(answer: &Answer) -> String {
    match answer.retry_after() {
        Some(wait) => {
            let at = jiff::Timestamp::now().as_millisecond() + i64::try_from(wait.as_millis()).unwrap_or(0);
            format!("Bitbucket asks to wait {} s: try again after {}.", wait.as_secs_f64().ceil(), super::budget::clock(at))
        }
        None => "Bitbucket did not say why or for how long; its limits count over a rolling hour: try again in a few minutes.".into(),
    }
}

fn scope_advice(auth: &Auth, told: &Told) -> String {
    let missing = match told.missing().as_slice() {
        [] if told.required.is_empty() => "a scope that Bitbucket did not name".to_string(),
        [] => told.required.join(", "),
        list => list.join(", "),
    };
    let remedy = match auth.method() {
        API_TOKEN => "Scopes cannot be added to a token: create a new API token with them.",
        ACCESS_TOKEN => "Permissions cannot be added to a token: create a new access token with Pipelines: Edit variables.",
        _ => "Tick the permission at the OAuth consumer.",
    };
    format!("Missing: {}. {remedy}", crate::model::text::brief(&missing, 200))
}

/// The reasons of a 401, most likely first, without those that the token's shape rules out.
fn token_advice(auth: &Auth) -> String {
    let token = auth.secret().expose();
    if token.starts_with("ATBB") {
        return "This looks like an app password; app passwords were switched off on 2026-07-28: create an API token.".into();
    }
    match auth {
        Auth::ApiToken { email, .. } => {
            if token.starts_with("ATCTT") {
                return "This looks like an access token: choose method access-token.".into();
            }
            let mut reasons = vec!["it is wrong, expired or revoked", "it was created without Bitbucket scopes"];
            if !email.contains('@') {
                reasons.insert(0, "the user name is given where the account's e-mail address is needed");
            } else {
                reasons.push("the e-mail address is not that of the account that made it");
            }
            if token.starts_with("ATATT") && token.len() < 150 {
                reasons.insert(0, "it was cut off when it was pasted (API tokens have about 190 characters)");
            }
            format!("Bitbucket does not accept the API token: {}.", reasons.join("; or "))
        }
        Auth::AccessToken { .. } if token.starts_with("ATATT") => {
            "This looks like an API token: choose method api-token, with the account's e-mail address.".into()
        }
        Auth::AccessToken { .. } => {
            "The access token is wrong, expired, revoked or was rotated: create or rotate it in the repository's settings.".into()
        }
        Auth::Consumer { .. } => "The consumer's token is not accepted: check the OAuth consumer in the workspace's settings.".into(),
    }
}

/// The error of the OAuth token call.
pub fn of_token_call(cx: &Cx, answer: &Answer) -> ApiError {
    let told = Told::read(&answer.body);
    let message = answer.redirect().or(told.message.clone()).unwrap_or_else(|| answer.excerpt());
    let message = cx.redact(&message);
    let limited = limit_advice(answer);
    let (kind, advice) = match (answer.status, told.key.as_deref()) {
        (_, Some("invalid_grant")) => (ErrorKind::Auth, "Tick \"This is a private consumer\" at the OAuth consumer."),
        (_, Some("unauthorized_client" | "invalid_client")) | (401, _) => (ErrorKind::Auth, "The consumer's key or secret is wrong."),
        (429, _) => (ErrorKind::Throttled, limited.as_str()),
        (500..=599 | 408, _) => (ErrorKind::Transient, "Try again later."),
        (400 | 403, _) => (ErrorKind::Auth, "Check the OAuth consumer in the workspace's settings."),
        _ => (ErrorKind::NotTheService, "Check tokenUrl."),
    };
    let mut error = ApiError::new(kind, SERVICE, format!("no token for the OAuth consumer: {message}")).status(answer.status).advice(advice);
    if let Some(key) = &told.key {
        error = error.code(key);
    }
    error.masked(cx)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_read() {
        let core = Told::read(br#"{"type":"error","error":{"message":"Bad request","detail":"why","fields":{"key":["is odd"]},"id":"r1"}}"#);
        assert_eq!(core.sentence().as_deref(), Some("Bad request: why: key: is odd"));
        assert_eq!(core.id.as_deref(), Some("r1"));
        let pipelines = Told::read(
            br#"{"error":{"message":"Conflict","detail":"A variable with the key provided already exists.","data":{"key":"variable-service.variable.duplicate","arguments":{}}}}"#,
        );
        assert!(pipelines.duplicate());
        let deploy = Told::read(br#"{"key":"environment.not-found","message":"gone","arguments":{}}"#);
        assert_eq!((deploy.key.as_deref(), deploy.message.as_deref()), (Some("environment.not-found"), Some("gone")));
        let oauth = Told::read(br#"{"error":"invalid_grant","error_description":"public consumer"}"#);
        assert_eq!((oauth.key.as_deref(), oauth.message.as_deref()), (Some("invalid_grant"), Some("public consumer")));
        let scopes = Told::read(br#"{"error":{"message":"lack","detail":{"granted":["a"],"required":["b"]}}}"#);
        assert!(scopes.lacks_scope());
        assert!(Told::read(br#"{"errors":[{"context":null,"message":"no","exceptionName":"x"}]}"#).data_center);
        assert_eq!(Told::read(b"<html>"), Told::default());
        assert_eq!(Told::read(b""), Told::default());
    }

    #[test]
    fn a_401_names_only_reasons_the_shape_allows() {
        let api = |token: &str| Auth::ApiToken { email: "ops@example.com".into(), token: SecretValue::new(token) };
        assert!(token_advice(&api("ATBBabc")).contains("2026-07-28"));
        assert!(token_advice(&api("ATCTT3xabc")).contains("choose method access-token"));
        assert!(token_advice(&api("ATATT3xshort")).contains("cut off"));
        let whole = format!("ATATT3x{}", "a".repeat(185));
        assert!(!token_advice(&api(&whole)).contains("cut off"));
        assert!(token_advice(&Auth::AccessToken { token: SecretValue::new(whole) }).contains("choose method api-token"));
        let by_name = Auth::ApiToken { email: "ops".into(), token: SecretValue::new("x") };
        assert!(token_advice(&by_name).contains("user name"));
    }
}
