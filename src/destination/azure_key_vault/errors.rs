//! The service's errors as advice.

use serde::Deserialize;

use super::SERVICE;
use crate::http::{Answer, ApiError, Cx, ErrorKind};
use crate::model::text::brief;

/// Inner codes of a 409.
pub(super) const DELETED: &str = "ObjectIsDeletedButRecoverable";
pub(super) const BEING_DELETED: &str = "ObjectIsBeingDeleted";
pub(super) const BEING_RECOVERED: &str = "ObjectIsBeingRecovered";
/// Inner code of a 403 on reading a disabled secret: no matter of rights.
pub(super) const DISABLED: &str = "SecretDisabled";

/// A right on secrets, as both permission models call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    List,
    Get,
    Set,
    Delete,
    Recover,
}

impl Right {
    fn policy(self) -> &'static str {
        match self {
            Self::List => "List",
            Self::Get => "Get",
            Self::Set => "Set",
            Self::Delete => "Delete",
            Self::Recover => "Recover",
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::List => "Microsoft.KeyVault/vaults/secrets/readMetadata/action",
            Self::Get => "Microsoft.KeyVault/vaults/secrets/getSecret/action",
            Self::Set => "Microsoft.KeyVault/vaults/secrets/setSecret/action",
            Self::Delete => "Microsoft.KeyVault/vaults/secrets/delete",
            Self::Recover => "Microsoft.KeyVault/vaults/secrets/recover/action",
        }
    }
}

/// `{"error":{"code","message","innererror":{"code"}}}`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Envelope {
    error: Body,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    code: Option<String>,
    message: Option<String>,
    innererror: Option<Inner>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Inner {
    code: Option<String>,
    innererror: Option<Box<Inner>>,
}

/// An error answer, read.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    pub code: String,
    pub inner: String,
    /// As the service wrote it: redact before showing.
    pub message: String,
}

impl Refusal {
    /// Reads an error body; empty texts when it is none.
    pub fn read(answer: &Answer) -> Self {
        if !answer.is_json() {
            return Self::default();
        }
        let body = serde_json::from_slice::<Envelope>(&answer.body).unwrap_or_default().error;
        let mut inner = body.innererror;
        let mut code = String::new();
        while let Some(step) = inner {
            code = step.code.unwrap_or(code);
            inner = step.innererror.map(|b| *b);
        }
        Self { code: body.code.unwrap_or_default(), inner: code, message: body.message.unwrap_or_default() }
    }

    /// Which transition a 409 speaks of: by its inner code, else by its words.
    pub fn transition(&self) -> Option<&'static str> {
        for known in [DELETED, BEING_DELETED, BEING_RECOVERED] {
            if self.inner == known || self.code == known {
                return Some(known);
            }
        }
        let words = self.message.to_ascii_lowercase();
        if words.contains("being recovered") {
            Some(BEING_RECOVERED)
        } else if words.contains("being deleted") || words.contains("being purged") {
            Some(BEING_DELETED)
        } else if words.contains("deleted but recoverable") || (words.contains("deleted") && words.contains("recover")) {
            Some(DELETED)
        } else {
            None
        }
    }
}

/// An error answer as an error. `what` says what was tried (`set DB-PASSWORD`), `right` is
/// the right it needs.
pub(super) fn failure(cx: &Cx, answer: &Answer, what: &str, right: Right) -> ApiError {
    let refusal = Refusal::read(answer);
    let told = cx.redact(&brief(&essence(&refusal.message), 400));
    let text = match (told.is_empty(), answer.is_json()) {
        (false, _) => told,
        (true, true) => String::new(),
        (true, false) => cx.redact(&answer.excerpt()),
    };
    let text = if text.trim().is_empty() { format!("the vault answered {}, and gave no reason", answer.status) } else { text };
    let (kind, advice) = classify(answer, &refusal, right);
    let code = if refusal.inner.is_empty() { &refusal.code } else { &refusal.inner };
    let mut error = ApiError::new(kind, SERVICE, format!("{what}: {text}"))
        .status(answer.status)
        .code(code)
        .request_id(answer.header("x-ms-request-id"))
        .masked(cx)
        .retry_after(answer.retry_after());
    if let Some(advice) = advice {
        error = error.advice(advice);
    }
    error
}

/// What an operator needs of a message: without the lines that repeat the request or give
/// advice of ours in other words, and without the issuer in the caller's description. The rest
/// of a 403 fills a small screen before it comes to the point.
fn essence(message: &str) -> String {
    const NOISE: [&str; 6] = ["If role assignments", "Action:", "Resource:", "Assignment:", "DecisionReason:", "Vault:"];
    let lines = message.lines().map(str::trim).filter(|l| !l.is_empty() && !NOISE.iter().any(|n| l.starts_with(n)));
    let mut text = lines.collect::<Vec<_>>().join(" ");
    if let Some(at) = text.find(" For help resolving this issue") {
        text.truncate(at);
    }
    while let Some(at) = text.find(";iss=") {
        let end = text[at + 1..].find([';', '\'', ' ']).map_or(text.len(), |n| at + 1 + n);
        text.replace_range(at..end, "");
    }
    text
}

fn classify(answer: &Answer, refusal: &Refusal, right: Right) -> (ErrorKind, Option<String>) {
    let fixed = |kind, text: &str| (kind, Some(text.to_string()));
    match answer.status {
        300..=399 => fixed(ErrorKind::NotTheService, "A vault does not redirect: check the Vault Base URL and the proxy settings."),
        400 | 413 | 422 => (ErrorKind::Invalid, invalid(refusal)),
        401 => fixed(ErrorKind::Auth, "The vault does not accept the token: check tenant, cloud and credentials of the connection."),
        403 => forbidden(refusal, right),
        404 if !answer.is_json() => fixed(ErrorKind::NotTheService, "What answered is not a vault: check the Vault Base URL."),
        404 => (ErrorKind::NotFound, None),
        405 => fixed(ErrorKind::NotTheService, "What answered is not a vault: check the Vault Base URL."),
        409 => match refusal.transition() {
            Some(_) => (ErrorKind::Unsettled, None),
            None => (ErrorKind::Conflict, None),
        },
        408 => (ErrorKind::Transient, None),
        429 => fixed(ErrorKind::Throttled, "The vault is throttling: other clients use up its quota too (300 creations in 10 s for all of them)."),
        s if s >= 500 => (ErrorKind::Transient, None),
        _ => (ErrorKind::NotTheService, None),
    }
}

fn invalid(refusal: &Refusal) -> Option<String> {
    let words = refusal.message.to_ascii_lowercase();
    words.contains("api-version").then(|| "Set apiVersion on the connection to a version this vault knows.".to_string())
}

fn forbidden(refusal: &Refusal, right: Right) -> (ErrorKind, Option<String>) {
    let (policy, action) = (right.policy(), right.action());
    let advice = match refusal.inner.as_str() {
        DISABLED => return (ErrorKind::Conflict, Some("The secret is disabled in the vault; it is left alone until someone enables it.".into())),
        "ForbiddenByPolicy" => format!(
            "Add the secrets permission {policy} to the vault's access policy for the object id in the message (that of the service principal, not of the app registration)."
        ),
        "ForbiddenByRbac" => format!(
            "Assign the role Key Vault Secrets Officer at the vault (it includes {action}) to the caller in the message; a new assignment takes up to 10 minutes."
        ),
        "ForbiddenByFirewall" => "Add the address in the message to the vault's firewall, or run from inside its network.".into(),
        "ForbiddenByConnection" => "The vault takes private connections only: use its private endpoint and its DNS zone.".into(),
        _ => format!(
            "The identity may lack the secrets permission {policy} (RBAC: {action}); the role Key Vault Secrets Officer has all that is needed."
        ),
    };
    (ErrorKind::Permission, Some(advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, headers: Default::default(), body: zeroize::Zeroizing::new(body.as_bytes().to_vec()) }
    }

    #[test]
    fn every_inner_code_of_a_403_has_its_own_advice() {
        let cx = Cx::quiet();
        for (inner, word) in [
            ("ForbiddenByPolicy", "access policy for the object id"),
            ("ForbiddenByRbac", "10 minutes"),
            ("ForbiddenByFirewall", "firewall"),
            ("ForbiddenByConnection", "private endpoint"),
            ("SecretDisabled", "disabled"),
            ("AccessDenied", "Secrets Officer"),
        ] {
            let body = serde_json::json!({"error": {"code": "Forbidden", "message": "no", "innererror": {"code": inner}}}).to_string();
            let error = failure(&cx, &answer(403, &body), "set A", Right::Set);
            assert!(error.text().contains(word) && error.text().contains(inner), "{error}");
            assert_eq!(error.kind == ErrorKind::Permission, inner != DISABLED);
        }
        let bare = failure(&cx, &answer(403, r#"{"error":{"code":"Forbidden","message":"no"}}"#), "list secrets", Right::List);
        assert!(bare.text().contains("List"), "{bare}");
    }

    #[test]
    fn a_refusal_comes_to_the_point() {
        let rbac = "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\nCaller: appid=a-1;oid=o-1;iss=https://sts.windows.net/t-1/\r\nAction: 'Microsoft.KeyVault/vaults/secrets/readMetadata/action'\r\nResource: '/subscriptions/x'\r\nAssignment: (not found)\r\nDecisionReason: null \r\nVault: kv1;location=westeurope\r\n";
        assert_eq!(essence(rbac), "Caller is not authorized to perform action on resource. Caller: appid=a-1;oid=o-1");
        let policy = "The user, group or application 'appid=a-1;oid=o-1;iss=https://sts.windows.net/t-1/' does not have secrets list permission on key vault 'kv1;location=westeurope'. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125287";
        assert_eq!(
            essence(policy),
            "The user, group or application 'appid=a-1;oid=o-1' does not have secrets list permission on key vault 'kv1;location=westeurope'."
        );
        assert_eq!(essence("busy"), "busy");
        assert_eq!(essence("x;iss="), "x");
    }

    #[test]
    fn a_conflict_is_told_by_code_or_words() {
        let of = |body: &str| Refusal::read(&answer(409, body)).transition();
        for code in [DELETED, BEING_DELETED, BEING_RECOVERED] {
            let body = serde_json::json!({"error": {"code": "Conflict", "innererror": {"code": code}}}).to_string();
            assert_eq!(of(&body), Some(code));
        }
        let words = |text: &str| of(&serde_json::json!({"error": {"code": "Conflict", "message": text}}).to_string());
        assert_eq!(words("Secret X is currently being recovered and cannot be re-created; retry later."), Some(BEING_RECOVERED));
        assert_eq!(words("Secret X is currently in a deleted but recoverable state, and its name cannot be reused"), Some(DELETED));
        assert_eq!(words("busy"), None);
        assert_eq!(of("<html>"), None);
    }
}
