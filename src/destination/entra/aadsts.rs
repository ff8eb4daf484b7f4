//! Entra's error numbers: what they mean and what to do. Classified by number, because
//! neither the HTTP status nor the OAuth word tells them apart.

use serde::Deserialize;

use super::SERVICE;
use crate::http::{Answer, ApiError, Cx, ErrorKind, retryable_status};
use crate::model::text::brief;

/// Whether asking again helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    No,
    /// In some minutes.
    Later,
    /// At once, with backoff.
    Soon,
}

struct Meaning {
    codes: &'static [u32],
    advice: &'static str,
    again: Again,
}

const fn no(codes: &'static [u32], advice: &'static str) -> Meaning {
    Meaning { codes, advice, again: Again::No }
}

/// Source: Microsoft's "Authentication and authorization error codes" page, and experience.
static MEANINGS: &[Meaning] = &[
    no(&[7000215], "The client secret is wrong: the secret's value is needed, not its id; the portal shows the value once, at creation."),
    no(&[7000222], "The client secret has expired: create a new one under the app's Certificates & secrets."),
    no(&[700016], "No such application in this tenant: check the client id, and that the tenant id is the app's."),
    no(&[7000112], "The application is disabled: an administrator must enable it."),
    no(&[7000218], "The request carried no client secret: the stored secret is empty."),
    no(&[7000229], "The application has no service principal in this tenant: register it or give consent there."),
    no(&[90002], "No such tenant: check the tenant id, and the authority if it lives in a national cloud."),
    no(&[900023], "The tenant is neither a GUID nor a verified domain name."),
    no(&[90038, 900382], "The tenant lives in another national cloud: set the connection's authorityUrl to that cloud's."),
    no(&[500011], "The tenant does not know this service: the scope belongs to another cloud, or the service was never used in this tenant."),
    no(&[70011, 1002012], "The scope is malformed: it must be a resource followed by /.default."),
    no(&[53003, 530032], "Conditional Access or the tenant's security policy blocks it: see the policy for workload identities (location, risk)."),
    no(&[50034], "The user is not in this directory: run `az login --tenant TENANT`."),
    no(&[50076, 50079, 50158, 70043, 700082], "The sign-in needs multi-factor authentication or has expired: run `az login` again."),
    no(&[700024], "The assertion is outside its time range: check this machine's clock, and that the token file is renewed."),
    no(
        &[70021, 700211, 700212, 700213],
        "No federated credential of the app matches the token file: compare its issuer, subject and audience with the app's.",
    ),
    no(&[700027], "The assertion's key is not registered with the app."),
    Meaning { codes: &[90055], advice: "The tenant is blocked for too many requests: wait some minutes.", again: Again::Later },
    Meaning { codes: &[50196], advice: "Entra saw a loop of identical token requests: wait some minutes.", again: Again::Later },
    Meaning { codes: &[90033, 90012, 90006, 90024, 50000], advice: "Entra is unavailable for the moment: try again.", again: Again::Soon },
];

fn find(code: u32) -> Option<&'static Meaning> {
    MEANINGS.iter().find(|m| m.codes.contains(&code))
}

/// The class and advice of a number.
pub(super) fn meaning(code: u32) -> (ErrorKind, Option<&'static str>) {
    match find(code) {
        None => (ErrorKind::Auth, None),
        Some(m) => {
            let kind = match m.again {
                Again::No => ErrorKind::Auth,
                Again::Later => ErrorKind::Throttled,
                Again::Soon => ErrorKind::Transient,
            };
            (kind, Some(m.advice))
        }
    }
}

/// The first `AADSTS` number in a text.
pub(super) fn code_in(text: &str) -> Option<u32> {
    let rest = &text[text.find("AADSTS")? + 6..];
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Refusal {
    error: String,
    error_description: String,
    error_codes: Vec<u32>,
    trace_id: String,
}

impl Refusal {
    fn read(answer: &Answer) -> Option<Self> {
        if !answer.is_json() {
            return None;
        }
        serde_json::from_slice(&answer.body).ok().filter(|r: &Self| !r.error.is_empty() || !r.error_description.is_empty())
    }

    fn code(&self) -> Option<u32> {
        self.error_codes.first().copied().or_else(|| code_in(&self.error_description))
    }
}

/// Whether the answer is worth another attempt: a passing status, or a passing number
/// whatever the status.
pub(super) fn passing(answer: &Answer) -> bool {
    match Refusal::read(answer).as_ref().and_then(Refusal::code).and_then(find) {
        Some(m) => m.again == Again::Soon || (m.again == Again::Later && answer.status == 429),
        None => retryable_status(answer),
    }
}

/// A refusal as an error: number, first line of the description, trace id, advice.
pub(super) fn error(cx: &Cx, answer: &Answer) -> ApiError {
    let Some(refusal) = Refusal::read(answer) else {
        return no_refusal(cx, answer);
    };
    let line = refusal.error_description.lines().next().unwrap_or_default();
    let text = cx.redact(if line.is_empty() { &refusal.error } else { line });
    let code = refusal.code();
    let (kind, advice) = match code {
        Some(code) => meaning(code),
        None if answer.status == 404 => {
            (ErrorKind::NotTheService, Some("The authority has no token endpoint there: check the connection's authorityUrl and tenant id."))
        }
        None if answer.status == 429 => (ErrorKind::Throttled, None),
        None if answer.status >= 500 => (ErrorKind::Transient, None),
        None => (ErrorKind::Auth, None),
    };
    let shown = code.map_or_else(|| brief(&refusal.error, 60), |c| format!("AADSTS{c}"));
    // The description repeats the number: say it once.
    let text = text.strip_prefix(&format!("{shown}:")).map(str::trim).unwrap_or(&text).to_string();
    let mut error = ApiError::new(kind, SERVICE, format!("no token: {text}"))
        .status(answer.status)
        .code(shown)
        .request_id(Some(refusal.trace_id))
        .masked(cx)
        .retry_after(answer.retry_after());
    if let Some(advice) = advice {
        error = error.advice(advice);
    }
    error
}

fn no_refusal(cx: &Cx, answer: &Answer) -> ApiError {
    let (kind, text) = match answer.status {
        429 => (ErrorKind::Throttled, "the token endpoint is throttling".to_string()),
        s if s >= 500 => (ErrorKind::Transient, format!("the token endpoint fails: {}", cx.redact(&answer.excerpt()))),
        _ => {
            let other = || "what answered is not Entra's token endpoint".to_string();
            (ErrorKind::NotTheService, answer.redirect().map_or_else(other, |told| format!("no token: {told}")))
        }
    };
    ApiError::new(kind, SERVICE, text)
        .status(answer.status)
        .retry_after(answer.retry_after())
        .advice("Check the connection's authorityUrl and the proxy settings.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_texts() {
        assert_eq!(code_in("x AADSTS7000215: Invalid"), Some(7000215));
        assert_eq!(code_in("AADSTS"), None);
        assert_eq!(code_in("nothing"), None);
    }

    #[test]
    fn every_number_is_told_with_its_advice_and_only_passing_ones_are_tried_again() {
        for meaning in MEANINGS {
            for code in meaning.codes {
                let body = serde_json::json!({"error": "invalid_client", "error_codes": [code], "trace_id": "t-1",
                    "error_description": format!("AADSTS{code}: Something.\r\nTrace ID: t-1")});
                let answer = Answer { status: 400, headers: Default::default(), body: zeroize::Zeroizing::new(body.to_string().into_bytes()) };
                let error = error(&Cx::quiet(), &answer);
                assert!(error.text().contains(&format!("AADSTS{code}")) && error.text().contains(meaning.advice), "{error}");
                assert_eq!(passing(&answer), meaning.again == Again::Soon, "{code}");
                assert_eq!(error.kind == ErrorKind::Auth, meaning.again == Again::No, "{code}");
            }
        }
    }

    #[test]
    fn an_answer_that_is_no_refusal_is_told_by_its_status() {
        let of = |status, body: &str| {
            let answer = Answer { status, headers: Default::default(), body: zeroize::Zeroizing::new(body.as_bytes().to_vec()) };
            error(&Cx::quiet(), &answer).kind
        };
        assert_eq!(of(404, "<html>"), ErrorKind::NotTheService);
        assert_eq!(of(404, r#"{"error":"not_found"}"#), ErrorKind::NotTheService);
        assert_eq!(of(400, ""), ErrorKind::NotTheService);
        assert_eq!(of(503, "<html>"), ErrorKind::Transient);
        assert_eq!(of(429, ""), ErrorKind::Throttled);
        assert_eq!(of(400, r#"{"error":"odd"}"#), ErrorKind::Auth);
    }

    #[test]
    fn every_number_stands_once_and_has_advice() {
        let mut all: Vec<u32> = MEANINGS.iter().flat_map(|m| m.codes.iter().copied()).collect();
        let n = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), n);
        assert!(MEANINGS.iter().all(|m| m.advice.ends_with('.')));
    }
}
