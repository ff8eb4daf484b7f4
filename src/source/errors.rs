//! What the KMS means when it refuses: classification over both generations of the server.
//!
//! The two generations swap 401 and 403, so the `error` word and the message decide and the
//! status only where they are silent. Used by every call of the client.

use serde_json::Value;

use crate::http::{Answer, ApiError, Cx, ErrorKind};
use crate::model::text::brief;

/// The word under which requests are counted and errors are shown.
pub(crate) const SERVICE: &str = "kms";

/// Said for a dead token by old servers and for a token of the wrong kind by all.
const NOT_ALLOWED: &str = "not allowed to access this resource";

/// A refused call: the error for the operator, and what the client decides on.
#[derive(Debug)]
pub(super) struct Refusal {
    pub error: ApiError,
    /// The server's `error` word; empty when there was no answer in the documented shape.
    name: String,
    /// The flattened message in lower case, for comparisons only.
    text: String,
    /// The server does not know the route (as opposed to the object).
    pub route_missing: bool,
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self { error, name: String::new(), text: String::new(), route_missing: false }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

impl Refusal {
    /// Reads an answer that is neither 2xx nor 304.
    pub fn read(cx: &Cx, answer: &Answer) -> Self {
        let status = answer.status;
        let body: Option<Value> = answer.is_json().then(|| serde_json::from_slice(&answer.body).ok()).flatten().filter(Value::is_object);
        let Some(body) = body else { return Self::shapeless(cx, answer) };
        let word = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
        let name = brief(word("error"), 80);
        let mut message = flatten(body.get("message").unwrap_or(&Value::Null));
        if message.is_empty() {
            message = if name.is_empty() { format!("the server answered {status}") } else { name.clone() };
        }
        let text = message.to_lowercase();
        let route_missing = matches!(status, 404 | 405 | 501) && (text.starts_with("route ") || matches!(name.as_str(), "" | "Not Found"));
        let kind = classify(status, &name, &text);
        let mut error = ApiError::new(kind, SERVICE, cx.redact(&message)).status(status).code(&name).request_id(Some(word("reqId"))).masked(cx);
        error = error.retry_after(answer.retry_after());
        if let Some(advice) = advice(kind, &text) {
            error = error.advice(advice);
        }
        Self { error, name, text, route_missing }
    }

    /// An answer that is not the documented JSON: a proxy, a sign-in page, a redirect.
    fn shapeless(cx: &Cx, answer: &Answer) -> Self {
        let status = answer.status;
        let excerpt = cx.redact(&answer.excerpt());
        let said = if excerpt.is_empty() { String::new() } else { format!(": {excerpt}") };
        let error = match status {
            300..=399 => {
                let to = answer.header("location").map(|l| cx.redact(&brief(l, 200))).unwrap_or_default();
                ApiError::new(ErrorKind::NotTheService, SERVICE, format!("the address redirects to {to}"))
                    .advice("Redirects are not followed with credentials: give the connection the address it really lives at as baseUrl.")
            }
            429 => ApiError::new(ErrorKind::Throttled, SERVICE, format!("rate limited{said}")).retry_after(answer.retry_after()),
            500.. | 408 => ApiError::new(ErrorKind::Transient, SERVICE, format!("the server or a proxy before it failed{said}")),
            407 => ApiError::new(ErrorKind::Auth, SERVICE, format!("the proxy asks for credentials{said}")),
            _ => ApiError::new(ErrorKind::NotTheService, SERVICE, format!("the answer is not the KMS's{said}"))
                .advice("Check baseUrl and the proxy settings: something else answers there."),
        };
        Self { error: error.status(status), name: String::new(), text: excerpt.to_lowercase(), route_missing: status == 404 }
    }

    /// True when a new login may help: the token expired, was revoked or is used up.
    pub fn dead_token(&self) -> bool {
        if self.name == "PermissionDenied" {
            return false;
        }
        matches!(self.name.as_str(), "TokenError" | "UnauthorizedError") || dead_token_text(&self.text) || self.not_allowed()
            // A framework's or proxy's bare 401.
            || (self.error.status == Some(401) && matches!(self.name.as_str(), "" | "Unauthorized"))
    }

    /// The text that stands for a dead token or for one of the wrong kind.
    pub fn not_allowed(&self) -> bool {
        self.text.contains(NOT_ALLOWED)
    }

    pub fn kind(&self) -> ErrorKind {
        self.error.kind
    }

    /// True when the message holds `what` (in lower case).
    pub fn says(&self, what: &str) -> bool {
        self.text.contains(what)
    }

    /// A refusal that says: something of that name exists already.
    pub fn already_there(&self) -> bool {
        self.error.status == Some(409) || (matches!(self.error.status, Some(400)) && (self.says("already exist") || self.says("duplicate")))
    }
}

/// Texts of a token that is no longer good, whatever the status.
fn dead_token_text(text: &str) -> bool {
    text.contains("jwt") || text.contains("invalid token") || text.contains("number of uses limit reached") || text.contains("token has expired")
}

fn classify(status: u16, name: &str, text: &str) -> ErrorKind {
    match name {
        "PermissionDenied" | "PermissionBoundaryError" => return ErrorKind::Permission,
        "TokenError" | "UnauthorizedError" => return ErrorKind::Auth,
        "ValidationFailure" => return ErrorKind::Invalid,
        "NotFound" => return ErrorKind::NotFound,
        _ => {}
    }
    if dead_token_text(text) && (status >= 500 || (400..404).contains(&status)) {
        return ErrorKind::Auth;
    }
    match status {
        401 => ErrorKind::Auth,
        403 => ErrorKind::Permission,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        429 => ErrorKind::Throttled,
        408 | 500.. => ErrorKind::Transient,
        400 if text.contains("not found") => ErrorKind::NotFound,
        _ => ErrorKind::Invalid,
    }
}

/// What the operator can do, by class and by the server's words.
fn advice(kind: ErrorKind, text: &str) -> Option<&'static str> {
    const BY_TEXT: &[(&str, &str)] = &[
        (
            "temporarily locked",
            "Wrong secrets locked this identity, for everyone who uses it. Correct the connection, wait until the lock ends \
             (5 minutes unless changed), then test it; no further login is tried by itself.",
        ),
        ("expired client secret", "Create a new client secret for the machine identity and store it in the connection."),
        ("client secret usage limit", "The client secret's number of uses is spent: create one without a limit and store it in the connection."),
        ("invalid credentials", "Check clientId and clientSecret of the connection, then test it; no further login is tried by itself."),
        ("number of uses limit", "The access token's number of uses is spent: raise the limit of the machine identity."),
        ("plan restriction", "The KMS plan does not include this."),
        ("not available on your current plan", "The KMS plan does not include this."),
    ];
    if let Some((_, advice)) = BY_TEXT.iter().find(|(words, _)| text.contains(words)) {
        return Some(advice);
    }
    match kind {
        ErrorKind::Auth => Some("The credentials were refused: check the connection and test it."),
        ErrorKind::Permission => Some("Give the machine identity this right in the project's access control, or use another identity."),
        ErrorKind::Throttled => Some("The KMS counts requests per address: other programs behind the same one share the budget."),
        _ => None,
    }
}

/// Flattens a `message`: a text, an array of `{path, message}`, or an object.
fn flatten(message: &Value) -> String {
    match message {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(flatten).filter(|p| !p.is_empty()).collect::<Vec<_>>().join("; "),
        Value::Object(map) => {
            let said = map.get("message").map(flatten).unwrap_or_default();
            let path: Vec<String> = match map.get("path") {
                Some(Value::Array(path)) => path.iter().map(|p| p.as_str().map_or_else(|| p.to_string(), str::to_owned)).collect(),
                Some(Value::String(path)) => vec![path.clone()],
                _ => Vec::new(),
            };
            match (path.is_empty(), said.is_empty()) {
                (true, _) => said,
                (false, true) => path.join("."),
                (false, false) => format!("{}: {said}", path.join(".")),
            }
        }
        _ => String::new(),
    }
}

/// Which answers another attempt may mend. An old server's 500 for a bad token is not one.
pub(super) fn worth_retrying(answer: &Answer) -> bool {
    crate::http::retryable_status(answer)
        && !(answer.status == 500 && answer.body.len() < 4096 && dead_token_text(&String::from_utf8_lossy(&answer.body).to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn refusal(status: u16, body: &str) -> Refusal {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("content-type", if body.starts_with('<') { "text/html" } else { "application/json" }.parse().expect("header"));
        Refusal::read(&Cx::quiet(), &Answer { status, headers, body: Zeroizing::new(body.as_bytes().to_vec()) })
    }

    #[test]
    fn both_generations_are_told_apart_by_the_word() {
        let cases = [
            // (status, error, message, class, dead token)
            (401, "UnauthorizedError", "Invalid credentials", ErrorKind::Auth, true),
            (403, "UnauthorizedError", "Invalid credentials", ErrorKind::Auth, true),
            (403, "TokenError", "Your token has expired. Please re-authenticate.", ErrorKind::Auth, true),
            (500, "Internal Server Error", "jwt expired", ErrorKind::Auth, true),
            (500, "InternalServerError", "invalid token", ErrorKind::Auth, true),
            (403, "PermissionDenied", "You are not allowed to read on secrets", ErrorKind::Permission, false),
            (401, "PermissionDenied", "You are not allowed to read on secrets", ErrorKind::Permission, false),
            (403, "ForbideenError", "no", ErrorKind::Permission, false),
            (403, "ForbiddenError", "You are not allowed to access this resource", ErrorKind::Permission, true),
            (400, "BadRequest", "Unable to renew because access token number of uses limit reached", ErrorKind::Auth, true),
            (400, "BadRequest", "Folder not found", ErrorKind::NotFound, false),
            (404, "NotFound", "Project not found", ErrorKind::NotFound, false),
            (400, "BadRequest", "Missing project id or environment", ErrorKind::Invalid, false),
            (429, "RateLimitExceeded", "Rate limit exceeded. Please try again in 20 seconds", ErrorKind::Throttled, false),
            (500, "InternalServerError", "Something went wrong", ErrorKind::Transient, false),
            (504, "GatewayTimeout", "slow", ErrorKind::Transient, false),
        ];
        for (status, error, message, kind, dead) in cases {
            let body = serde_json::json!({"reqId": "req-1", "statusCode": status, "message": message, "error": error}).to_string();
            let refusal = refusal(status, &body);
            assert_eq!((refusal.kind(), refusal.dead_token()), (kind, dead), "{status} {error} {message}");
            assert!(!refusal.route_missing);
            assert_eq!(refusal.error.request_id.as_deref(), Some("req-1"));
        }
    }

    #[test]
    fn a_missing_route_is_not_a_missing_object() {
        let framework = r#"{"message":"Route GET:/api/v4/secrets?x=1 not found","error":"Not Found","statusCode":404}"#;
        assert!(refusal(404, framework).route_missing);
        assert!(!refusal(404, r#"{"message":"Folder not found","error":"NotFound","statusCode":404}"#).route_missing);
        assert!(refusal(404, "<html>no such page</html>").route_missing);
    }

    #[test]
    fn validation_arrays_are_flattened() {
        let body = r#"{"reqId":"req-9","message":[{"code":"too_small","path":["secrets",0,"secretKey"],"message":"Required"},
            {"path":[],"message":"and more"}],"error":"ValidationFailure"}"#;
        for status in [422, 403] {
            let refusal = refusal(status, body);
            assert_eq!(refusal.kind(), ErrorKind::Invalid);
            assert!(refusal.error.message.contains("secrets.0.secretKey: Required; and more"), "{}", refusal.error);
            assert!(refusal.error.text().contains("req-9"));
        }
    }

    #[test]
    fn pages_and_redirects_name_the_address() {
        assert_eq!(refusal(403, "<html>Sign in</html>").kind(), ErrorKind::NotTheService);
        assert_eq!(refusal(502, "<html>Bad gateway</html>").kind(), ErrorKind::Transient);
        assert_eq!(refusal(301, "<html></html>").kind(), ErrorKind::NotTheService);
    }
}
