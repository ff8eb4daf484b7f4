//! Answers that are no success, turned into what failed and what to do.
//!
//! A status proves nothing here: an expired token may be answered by 203, 302 or 200 with a
//! sign-in page, and most refusals are told apart by `typeKey` or the code that begins the
//! message. Microsoft: "Troubleshoot TF and VS errors", "Rate and usage limits".

use serde_json::Value;

use super::SERVICE;
use crate::http::{Answer, ApiError, Cx, ErrorKind};
use crate::model::text::brief;

/// What a call was for: it decides which right is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    ListProjects,
    Read,
    Create,
    Update,
    Delete,
}

impl Doing {
    fn writes(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Delete)
    }

    fn role(self) -> &'static str {
        match self {
            Self::ListProjects => {
                "Type the project's id by hand, or give the identity \"View project-level information\" and its token the scope Project and Team (Read)."
            }
            Self::Read => {
                "The identity needs the role Reader in the project's Library (Pipelines > Library > Security), and a token the scope Variable Groups (Read)."
            }
            Self::Create => {
                "The identity needs the role Creator in the project's Library (Pipelines > Library > Security), and a token the scope Variable Groups (Read, create, & manage)."
            }
            Self::Update | Self::Delete => {
                "The identity needs the role Administrator of this variable group (Pipelines > Library > the group > Security), and a token the scope Variable Groups (Read, create, & manage)."
            }
        }
    }
}

/// What is known of the connection when an answer is judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// The connection's `orgName`.
    pub organisation: &'a str,
    /// Entra tokens, not a personal access token.
    pub bearer: bool,
    pub tenant: Option<&'a str>,
    /// A call of this connection has succeeded before.
    pub worked: bool,
}

/// A refusal's body in its three known shapes.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    pub type_key: String,
    pub message: String,
}

impl Refusal {
    pub fn read(answer: &Answer) -> Self {
        if !answer.is_json() {
            return Self::default();
        }
        let Ok(value) = serde_json::from_slice::<Value>(answer.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&answer.body)) else {
            return Self::default();
        };
        let text = |v: &Value, name: &str| v.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
        let message = [text(&value, "message"), text(&value, "Message"), value.get("value").map(|v| text(v, "Message")).unwrap_or_default()];
        let type_key = match text(&value, "typeKey") {
            key if key.is_empty() => text(&value, "ClassName").rsplit('.').next().unwrap_or_default().to_string(),
            key => key,
        };
        Self { type_key, message: message.into_iter().find(|m| !m.is_empty()).unwrap_or_default() }
    }

    /// `TF400813`, `VS800075`: the code that begins a message.
    fn code(&self) -> Option<&str> {
        let word = self.message.split([':', ' ']).next()?;
        let digits = word.strip_prefix("TF").or_else(|| word.strip_prefix("VS"))?;
        (!digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())).then_some(word)
    }
}

struct Meaning {
    /// Found in the typeKey, or at the beginning of the message, or (prose) anywhere in it.
    signs: &'static [&'static str],
    kind: ErrorKind,
    advice: &'static str,
}

static MEANINGS: &[Meaning] = &[
    Meaning {
        signs: &["ProjectDoesNotExist", "VS800075", "TF200016"],
        kind: ErrorKind::NotFound,
        advice: "The project is not there, or this identity cannot see it: pick it again, or ask for access to it.",
    },
    Meaning {
        signs: &["TF400733"],
        kind: ErrorKind::Throttled,
        advice: "The identity used more than its share: it is served again after some minutes.",
    },
    Meaning {
        signs: &["UnauthorizedRequestException", "TF400813"],
        kind: ErrorKind::Auth,
        advice: "The credential is not accepted by this organization.",
    },
    Meaning {
        signs: &["VariableGroupNotFoundException"],
        kind: ErrorKind::NotFound,
        advice: "The variable group is gone: the next run makes it anew.",
    },
    Meaning {
        signs: &["VariableGroupExistsException"],
        kind: ErrorKind::Conflict,
        advice: "A variable group with this name exists. If it is not shown to this identity, ask its administrator for the role Reader, or choose another group name.",
    },
    Meaning {
        signs: &["VssVersionOutOfRangeException", "VssInvalidPreviewVersionException"],
        kind: ErrorKind::Invalid,
        advice: "Set the connection's apiVersion to a version this server offers, or leave it empty.",
    },
    Meaning {
        signs: &["must have at least one variable"],
        kind: ErrorKind::Invalid,
        advice: "A variable group must keep at least one variable: add one of your own, or delete the group.",
    },
    Meaning {
        signs: &["Sharing of variable group is not allowed", "is not part of project"],
        kind: ErrorKind::Invalid,
        advice: "Groups cannot be shared with further projects here: remove the other projects from the group, or choose another group name.",
    },
    Meaning { signs: &["Access denied", "AccessDeniedException", "AccessCheckException"], kind: ErrorKind::Permission, advice: "" },
];

fn meaning(refusal: &Refusal) -> Option<&'static Meaning> {
    let fits = |sign: &&str| {
        (!refusal.type_key.is_empty() && refusal.type_key.starts_with(*sign))
            || refusal.message.starts_with(*sign)
            || (sign.contains(' ') && refusal.message.contains(*sign))
    };
    MEANINGS.iter().find(|m| m.signs.iter().any(fits))
}

/// True when the same call may be sent again as it is. A 500 that forbids sharing is for good.
pub(super) fn passing(answer: &Answer) -> bool {
    let trouble = matches!(answer.status, 408 | 429 | 500 | 502 | 503 | 504);
    let known = if answer.status >= 400 { meaning(&Refusal::read(answer)).map(|m| m.kind) } else { None };
    known == Some(ErrorKind::Throttled) || (trouble && known.is_none())
}

/// The answer, when it is one of the API's; an error with advice otherwise. The order of the
/// questions matters: a sign-in page must never be taken for "no data".
pub(super) fn judge(cx: &Cx, doing: Doing, facts: Facts<'_>, answer: Answer) -> Result<Answer, ApiError> {
    let status = answer.status;
    if let Some(told) = answer.redirect() {
        // A 302 leads to the sign-in; other redirects say nothing about the credential.
        return Err(match status {
            302 => sign_in(cx, &answer, facts, &format!("{told}: the credential is not accepted")),
            _ => not_the_service(&answer, &told),
        });
    }
    if status == 203 {
        return Err(sign_in(cx, &answer, facts, "the service answers with its sign-in page: the credential is not accepted"));
    }
    if status == 401 {
        return Err(unauthorised(cx, doing, facts, &answer));
    }
    if answer.ok() {
        let empty = answer.body.iter().all(u8::is_ascii_whitespace);
        if empty && doing == Doing::Delete {
            return Ok(answer);
        }
        if empty {
            return Err(not_the_service(&answer, "the answer is empty where the API documents JSON"));
        }
        if !answer.is_json() {
            let page = cx.redact(&answer.excerpt());
            let text = page.to_lowercase();
            return Err(if text.contains("sign in") || text.contains("sign-in") || text.contains("signin") {
                sign_in(cx, &answer, facts, &format!("a sign-in page came instead of data: {page}"))
            } else {
                not_the_service(&answer, &format!("a page came instead of data: {page}"))
            }
            .masked(cx));
        }
        return Ok(answer);
    }
    Err(refused(cx, doing, &answer).masked(cx))
}

fn with_ids(error: ApiError, answer: &Answer) -> ApiError {
    let id = ["activityid", "x-vss-e2eid", "x-tfs-session"].iter().find_map(|h| answer.header(h)).map(str::to_owned);
    error.status(answer.status).request_id(id).retry_after(answer.retry_after())
}

fn not_the_service(answer: &Answer, text: &str) -> ApiError {
    with_ids(ApiError::new(ErrorKind::NotTheService, SERVICE, text), answer)
        .advice("Check the connection's endpoint and the proxy settings; behind a sign-in, check the credential.")
}

fn sign_in(cx: &Cx, answer: &Answer, facts: Facts<'_>, text: &str) -> ApiError {
    let told = told_by_header(cx, answer).map(|t| format!("{text} ({t})"));
    let error = ApiError::new(ErrorKind::Auth, SERVICE, told.as_deref().unwrap_or(text));
    with_ids(error, answer).advice(credential_advice(answer, facts))
}

/// `X-TFS-ServiceError`, percent-encoded text such as "the personal access token has expired".
fn told_by_header(cx: &Cx, answer: &Answer) -> Option<String> {
    let text = answer.header("x-tfs-serviceerror")?;
    let text = percent_encoding::percent_decode_str(text).decode_utf8_lossy().replace('+', " ");
    Some(cx.redact(&brief(&text, 300))).filter(|t| !t.is_empty())
}

fn credential_advice(answer: &Answer, facts: Facts<'_>) -> String {
    let theirs = answer.header("x-vss-resourcetenant").map(str::trim).filter(|t| !t.is_empty());
    if facts.bearer {
        match theirs {
            Some("00000000-0000-0000-0000-000000000000") => {
                return "This organization is not connected to an Entra tenant, so it accepts no Entra token: use a personal access token.".into();
            }
            Some(theirs) if facts.tenant.is_some_and(|ours| is_guid(ours) && !ours.eq_ignore_ascii_case(theirs)) => {
                return format!("The organization belongs to the Entra tenant {}: the connection's tenantId is another one.", brief(theirs, 60));
            }
            _ => {}
        }
        return "Add the identity to the organization as a user with an access level (Organization settings > Users), and check the tenant.".into();
    }
    format!(
        "The personal access token is wrong, expired, revoked or of another organization than orgName says ({}): correct orgName, or make a new token for that organization. Tokens for all organizations end on 2026-12-01.",
        brief(facts.organisation, 80)
    )
}

fn unauthorised(cx: &Cx, doing: Doing, facts: Facts<'_>, answer: &Answer) -> ApiError {
    let refusal = Refusal::read(answer);
    let said = Some(cx.redact(&brief(&refusal.message, 300))).filter(|m| !m.is_empty()).or_else(|| told_by_header(cx, answer));
    let text = said.map_or_else(|| "the credential is not accepted".to_string(), |s| format!("the credential is not accepted: {s}"));
    // A token that reads and may not write is not a bad token.
    if facts.worked && doing.writes() && !text.contains("expired") {
        let error = ApiError::new(ErrorKind::Permission, SERVICE, text).code(&refusal.type_key);
        return with_ids(error, answer).advice(doing.role());
    }
    let error = ApiError::new(ErrorKind::Auth, SERVICE, text).code(&refusal.type_key);
    with_ids(error, answer).advice(credential_advice(answer, facts))
}

fn refused(cx: &Cx, doing: Doing, answer: &Answer) -> ApiError {
    let refusal = Refusal::read(answer);
    let known = meaning(&refusal);
    let kind = known.map(|m| m.kind).unwrap_or(match answer.status {
        403 => ErrorKind::Permission,
        404 if refusal.message.is_empty() => ErrorKind::NotTheService,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        413 => ErrorKind::Quota,
        429 => ErrorKind::Throttled,
        408 | 500.. => ErrorKind::Transient,
        _ => ErrorKind::Invalid,
    });
    let message = if refusal.message.is_empty() { cx.redact(&answer.excerpt()) } else { cx.redact(&brief(&refusal.message, 500)) };
    let message = if message.is_empty() { "the service gives no reason".to_string() } else { message };
    let code = if refusal.type_key.is_empty() { refusal.code().unwrap_or_default().to_string() } else { refusal.type_key.clone() };
    let advice = match (known.map(|m| m.advice).filter(|a| !a.is_empty()), kind) {
        (Some(advice), _) => advice,
        (None, ErrorKind::Permission) => doing.role(),
        (None, ErrorKind::NotTheService) => {
            "The organization (or collection) does not exist or does not know this identity: check orgName and the endpoint for a typing error."
        }
        (None, ErrorKind::Quota) => {
            "The group is too large for the service: split the folder over several syncs, each with a variableGroupName of its own."
        }
        (None, ErrorKind::Throttled) => "The identity used more than its share: it is served again after some minutes.",
        (None, _) => "",
    };
    let error = with_ids(ApiError::new(kind, SERVICE, message).code(code), answer).ambiguous(doing.writes() && kind == ErrorKind::Transient);
    if advice.is_empty() { error } else { error.advice(advice) }
}

/// A GUID in its usual form.
pub(super) fn is_guid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderMap, HeaderName};

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut map = HeaderMap::new();
        for (k, v) in headers {
            map.insert(k.parse::<HeaderName>().expect("name"), v.parse().expect("value"));
        }
        Answer { status, headers: map, body: zeroize::Zeroizing::new(body.as_bytes().to_vec()) }
    }

    fn judged(doing: Doing, worked: bool, answer: Answer) -> Result<Answer, ApiError> {
        judge(&Cx::quiet(), doing, Facts { organisation: "contoso", bearer: false, tenant: None, worked }, answer)
    }

    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8; api-version=7.1");
    const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");

    #[test]
    fn sign_in_pages_are_never_data() {
        let page = "<!DOCTYPE html><html><title>Azure DevOps Services | Sign In</title></html>";
        for a in [
            answer(302, &[("location", "https://spsprodeus.vssps.visualstudio.com/_signin?x=1")], ""),
            answer(203, &[HTML], page),
            answer(203, &[JSON], "{\"count\":0,\"value\":[]}"),
            answer(200, &[HTML], page),
            answer(200, &[JSON], page),
        ] {
            let status = a.status;
            let error = judged(Doing::Read, false, a).err().expect("no data");
            assert_eq!(error.kind, ErrorKind::Auth, "{status} {error}");
            assert!(error.text().contains("personal access token"), "{error}");
        }
        for a in [answer(200, &[HTML], "<html>proxy"), answer(200, &[("content-type", "text/plain")], "hello"), answer(200, &[JSON], " ")] {
            assert_eq!(judged(Doing::Read, false, a).err().expect("no data").kind, ErrorKind::NotTheService);
        }
        assert!(judged(Doing::Read, false, answer(200, &[JSON], "null")).is_ok());
        assert!(judged(Doing::Delete, true, answer(204, &[], "")).is_ok());
    }

    #[test]
    fn unauthorised_says_why() {
        let expired = answer(401, &[("x-tfs-serviceerror", "Access+Denied%3A+The+Personal+Access+Token+used+has+expired.")], "");
        let error = judged(Doing::Read, false, expired).err().expect("refused");
        assert!(error.text().contains("Token used has expired"), "{error}");
        let write = judged(Doing::Update, true, answer(401, &[HTML], "<html>")).err().expect("refused");
        assert_eq!(write.kind, ErrorKind::Permission, "a token that reads is not a bad token");
        assert!(write.text().contains("Administrator"));
        let bearer = Facts { organisation: "contoso", bearer: true, tenant: Some("11111111-1111-1111-1111-111111111111"), worked: false };
        for (tenant, words) in [
            ("00000000-0000-0000-0000-000000000000", "use a personal access token"),
            ("22222222-2222-2222-2222-222222222222", "belongs to the Entra tenant 2222"),
            ("11111111-1111-1111-1111-111111111111", "as a user with an access level"),
        ] {
            let a = answer(302, &[("x-vss-resourcetenant", tenant)], "");
            let error = judge(&Cx::quiet(), Doing::Read, bearer, a).err().expect("refused");
            assert!(error.text().contains(words), "{error}");
        }
    }

    #[test]
    fn refusals_are_told_by_type_then_by_code() {
        let body = |key: &str, message: &str| serde_json::json!({"$id": "1", "typeKey": key, "message": message, "errorCode": 0}).to_string();
        for (status, key, message, kind) in [
            (400, "ProjectDoesNotExistException", "VS800075: The project with id 'x' does not exist", ErrorKind::NotFound),
            (404, "ProjectDoesNotExistWithNameException", "TF200016: The following project does not exist: x.", ErrorKind::NotFound),
            (400, "", "VS800075: The project", ErrorKind::NotFound),
            (409, "VariableGroupExistsException", "Variable group 'X' already exists.", ErrorKind::Conflict),
            (404, "VariableGroupNotFoundException", "gone", ErrorKind::NotFound),
            (403, "AccessDeniedException", "denied", ErrorKind::Permission),
            (429, "", "TF400733: The request has been canceled", ErrorKind::Throttled),
            (500, "", "Sharing of variable group is not allowed.", ErrorKind::Invalid),
            (400, "ArgumentException", "Variable group must have at least one variable defined.", ErrorKind::Invalid),
            (413, "", "too big", ErrorKind::Quota),
            (502, "", "", ErrorKind::Transient),
        ] {
            let error = judged(Doing::Update, true, answer(status, &[JSON, ("activityid", "act-1")], &body(key, message))).err().expect("refused");
            assert_eq!(error.kind, kind, "{status} {key} {message}");
            assert_eq!(error.request_id.as_deref(), Some("act-1"));
        }
        let error = judged(Doing::Read, false, answer(404, &[HTML], "<html>404 not found</html>")).err().expect("refused");
        assert!(error.text().contains("orgName"), "{error}");
        assert!(!passing(&answer(500, &[JSON], &body("", "Sharing of variable group is not allowed."))));
        assert!(passing(&answer(500, &[JSON], &body("", "oops"))));
        assert!(passing(&answer(400, &[JSON], &body("", "TF400733: The request has been canceled"))));
        assert!(!passing(&answer(409, &[JSON], &body("VariableGroupExistsException", "x"))));
    }

    #[test]
    fn other_shapes_of_refusals_are_read() {
        let wrapped = judged(Doing::Create, true, answer(400, &[JSON], r#"{"count":1,"value":{"Message":"cannot parse"}}"#)).err().expect("refused");
        assert!(wrapped.text().contains("cannot parse"));
        let old = judged(Doing::Create, true, answer(404, &[JSON], r#"{"ClassName":"X.VariableGroupNotFoundException","Message":"gone"}"#));
        assert_eq!(old.err().expect("refused").code.as_deref(), Some("VariableGroupNotFoundException"));
    }
}
