//! Turns refused answers into errors an operator can act on.
//!
//! Facts: Oracle's "API Errors" page; texts of live services as published in public issues.
//! A missing right and a missing object give the same 404, by design: the advice names both.

use serde::Deserialize;

use super::SERVICE;
use super::calls::Call;
use crate::http::{Answer, ApiError, Cx, ErrorKind};

/// Beyond this difference of clocks (seconds) a refused signature is blamed on the clock: the
/// service accepts five minutes.
const SKEW: i64 = 240;

#[derive(Default, Deserialize)]
struct Body {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

/// Kind and advice by provider code; the first row that fits wins. An empty code fits any, a
/// status of 0 too; the text, where given, must occur in the message.
const TABLE: &[(u16, &str, &str, ErrorKind, &str)] = &[
    (
        400,
        "",
        "already exists",
        ErrorKind::Conflict,
        "Names are unique in a vault over all compartments, and a secret pending deletion keeps its name.",
    ),
    (
        400,
        "",
        "ScheduledTimeOfDeletion",
        ErrorKind::Invalid,
        "OCI accepts 1 to 30 days from now by its own clock: check this machine's clock and deletionDays.",
    ),
    (400, "", "invalid format", ErrorKind::Invalid, "OCI takes base64 content only; report this with the request id."),
    (400, "LimitExceeded", "version", ErrorKind::Quota, super::versions::ADVICE),
    (
        400,
        "LimitExceeded",
        "",
        ErrorKind::Quota,
        "The tenancy's limit is reached (5,000 secrets by default, 30 active versions of one secret); secrets pending deletion count too. Ask Oracle for more, or delete some.",
    ),
    (
        400,
        "QuotaExceeded",
        "",
        ErrorKind::Quota,
        "The compartment's quota is used up: raise it, or delete secrets; those pending deletion count too.",
    ),
    (
        400,
        "RelatedResourceNotAuthorizedOrNotFound",
        "",
        ErrorKind::NotFound,
        "One of the sync's OCIDs (compartment, vault, encryption key) does not exist, or the policy does not let this user use it: allow use keys and use vaults in its compartment.",
    ),
    (
        400,
        "",
        "reus",
        ErrorKind::Invalid,
        "A reuse rule of the secret forbids a value that it held before: choose another value in the source, or change the rule in the OCI Console.",
    ),
    (400, "", "tag", ErrorKind::Invalid, "The tenancy's tag rules refuse this secret: a required tag or tag default is in the way."),
    (401, "", "clock skew", ErrorKind::Auth, "This machine's clock is wrong: set it (NTP), then try again."),
    (
        401,
        "",
        "verify the HTTP",
        ErrorKind::Auth,
        "The private key does not belong to this fingerprint, or something changed the request on its way. A key that was just uploaded may need a minute.",
    ),
    (
        401,
        "",
        "",
        ErrorKind::Auth,
        "Check user OCID, tenancy OCID, fingerprint, region (is the tenancy subscribed to it?) and that the API key is still listed under the user in the OCI Console.",
    ),
    (404, "NotAuthorizedOrNotFound", "", ErrorKind::NotFound, ""),
    (404, "", "", ErrorKind::NotTheService, "This address does not serve the API: check the connection's region and endpoints."),
    (409, "IncorrectState", "", ErrorKind::Unsettled, "The secret is between two states; the next run tries again."),
    (409, "LockConflict", "", ErrorKind::Transient, ""),
    (409, "", "", ErrorKind::Conflict, "Another resource or a change by somebody else is in the way."),
    (412, "", "", ErrorKind::Conflict, "The secret was changed by somebody else meanwhile: run again."),
    (413, "", "", ErrorKind::Invalid, "The value is too large for OCI Vault (25 KB)."),
    (429, "", "", ErrorKind::Throttled, "OCI limits this user's rate; fewer syncs at once or a later run helps."),
    (400, "", "", ErrorKind::Invalid, ""),
    (403, "", "", ErrorKind::Permission, ""),
];

/// The error for a refused answer.
pub(super) fn error(cx: &Cx, call: &Call, answer: &Answer) -> ApiError {
    let body: Body = if answer.is_json() { serde_json::from_slice(&answer.body).unwrap_or_default() } else { Body::default() };
    let code = body.code.unwrap_or_default();
    let said = answer.redirect().or(body.message.filter(|m| !m.trim().is_empty())).unwrap_or_else(|| answer.excerpt());
    let said = cx.redact(&said);
    let reason = if said.trim().is_empty() { String::new() } else { format!(": {said}") };
    let row = TABLE.iter().find(|(status, c, text, ..)| {
        *status == answer.status && (c.is_empty() || code == *c) && (text.is_empty() || said.to_lowercase().contains(&text.to_lowercase()))
    });
    let (kind, advice) = match row {
        Some((.., kind, advice)) => (*kind, (*advice).to_string()),
        None if matches!(answer.status, 408 | 500..=599) && answer.status != 501 => (ErrorKind::Transient, String::new()),
        None => (ErrorKind::NotTheService, "This is not an answer of OCI: check the connection's endpoints and proxy settings.".to_string()),
    };
    let advice = match answer.status {
        401 => clock(answer, said.to_lowercase().contains("clock skew")).unwrap_or(advice),
        _ => advice,
    };
    let message = match (answer.status, kind) {
        // First what helps: the service's own sentence is the same for every missing right.
        (403, _) => format!("{}: the policy lacks {}{reason}", call.label, call.right),
        (404, ErrorKind::NotFound) => format!("{}: not there, or the policy lacks {}{reason}", call.label, call.right),
        _ if said.is_empty() => format!("{} was refused", call.label),
        _ => format!("{}: {said}", call.label),
    };
    let mut error = ApiError::new(kind, SERVICE, message)
        .code(code)
        .status(answer.status)
        .request_id(answer.header("opc-request-id"))
        .masked(cx)
        .retry_after(answer.retry_after())
        .ambiguous(call.write && (answer.ok() || answer.status >= 500 || answer.status == 408));
    if !advice.is_empty() {
        error = error.advice(advice);
    }
    error
}

/// The advice when the clocks differ by more than a signature allows, or when the service says so
/// (`named`) and its own answer shows that they do not.
fn clock(answer: &Answer, named: bool) -> Option<String> {
    let skew = answer.clock_skew()?;
    if skew.abs() <= SKEW {
        return named.then(|| {
            "This machine's clock agrees with the time of OCI's answer: a proxy or gateway on the way probably held the request back or changed its \
             date, or answers in OCI's place."
                .to_string()
        });
    }
    let (minutes, word) = (skew.abs().div_euclid(60).max(1), if skew > 0 { "fast" } else { "slow" });
    Some(format!("This machine's clock is {minutes} min {word} by OCI's clock: set it (NTP); signatures are good for 5 minutes only."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::oci::calls;

    fn answer(status: u16, body: serde_json::Value, date: Option<&str>) -> Answer {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("opc-request-id", "AB/CD/EF".parse().expect("header"));
        if let Some(date) = date {
            headers.insert("date", date.parse().expect("header"));
        }
        Answer { status, headers, body: zeroize::Zeroizing::new(body.to_string().into_bytes()) }
    }

    fn of(call: &Call, status: u16, code: &str, message: &str) -> ApiError {
        error(&Cx::quiet(), call, &answer(status, serde_json::json!({"code": code, "message": message}), None))
    }

    #[test]
    fn codes_become_kinds() {
        for (status, code, message, kind) in [
            (400, "InvalidParameter", "Secret name already exists", ErrorKind::Conflict),
            (400, "InvalidParameter", "ScheduledTimeOfDeletion is in invalid range", ErrorKind::Invalid),
            (400, "LimitExceeded", "limit", ErrorKind::Quota),
            (400, "QuotaExceeded", "quota", ErrorKind::Quota),
            (400, "InvalidParameter", "the content must not be reused", ErrorKind::Invalid),
            (400, "RelatedResourceNotAuthorizedOrNotFound", "key", ErrorKind::NotFound),
            (400, "CannotParseRequest", "x", ErrorKind::Invalid),
            (401, "NotAuthenticated", "x", ErrorKind::Auth),
            (403, "NotAllowed", "x", ErrorKind::Permission),
            (404, "NotAuthorizedOrNotFound", "x", ErrorKind::NotFound),
            (404, "", "no such page", ErrorKind::NotTheService),
            (409, "IncorrectState", "x", ErrorKind::Unsettled),
            (409, "Conflict", "x", ErrorKind::Conflict),
            (412, "NoEtagMatch", "x", ErrorKind::Conflict),
            (413, "", "x", ErrorKind::Invalid),
            (429, "TooManyRequests", "User-rate limit exceeded.", ErrorKind::Throttled),
            (503, "ServiceUnavailable", "x", ErrorKind::Transient),
            (501, "NotImplemented", "x", ErrorKind::NotTheService),
        ] {
            assert_eq!(of(&calls::UPDATE, status, code, message).kind, kind, "{status} {code}");
        }
    }

    #[test]
    fn a_missing_right_is_named() {
        for (call, right) in [
            (calls::GET_BUNDLE, "SECRET_BUNDLE_READ"),
            (calls::SCHEDULE, "SECRET_DELETE"),
            (calls::CREATE, "KEY_ENCRYPT"),
            (calls::LIST_SECRETS, "SECRET_INSPECT"),
        ] {
            let text = of(&call, 404, "NotAuthorizedOrNotFound", "Authorization failed or requested resource not found").text();
            assert!(text.contains(right) && text.contains("AB/CD/EF"), "{text}");
        }
    }

    #[test]
    fn a_wrong_clock_is_told_in_minutes() {
        let server = crate::http::http_date(jiff::Timestamp::now() - jiff::SignedDuration::from_secs(365));
        let body = serde_json::json!({"code": "NotAuthenticated", "message": "no"});
        let error = error(&Cx::quiet(), &calls::GET_USER, &answer(401, body, Some(&server)));
        assert!(error.text().contains("6 min fast"), "{}", error.text());
    }

    #[test]
    fn a_right_clock_is_not_blamed() {
        let body = serde_json::json!({"code": "NotAuthenticated", "message": "Date is outside the allowed clock skew"});
        let now = crate::http::http_date(jiff::Timestamp::now());
        let told = error(&Cx::quiet(), &calls::GET_USER, &answer(401, body.clone(), Some(&now))).text();
        assert!(told.contains("clock agrees") && !told.contains("clock is wrong"), "{told}");
        let undated = error(&Cx::quiet(), &calls::GET_USER, &answer(401, body, None)).text();
        assert!(undated.contains("clock is wrong"), "{undated}");
    }

    #[test]
    fn lost_writes_are_ambiguous_reads_are_not() {
        assert!(of(&calls::UPDATE, 500, "InternalServerError", "x").ambiguous);
        assert!(!of(&calls::GET_SECRET, 500, "InternalServerError", "x").ambiguous);
        assert!(!of(&calls::UPDATE, 429, "TooManyRequests", "x").ambiguous);
    }
}
