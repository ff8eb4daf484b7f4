//! From the SDK's errors to ours. Every SDK error ends here and is dropped: its `Debug` (and
//! the SDK's own error-context printer) would show an unparsed body, which may hold a secret.
//!
//! Codes: the common errors of AWS query and JSON services, and the errors of the Secrets
//! Manager and STS API references. STS answers XML with 403, Secrets Manager JSON with 400.

use std::time::Duration;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::spec::SERVICE;
use crate::http::{ApiError, Cx, ErrorKind, RETRY_AFTER_CAP, parse_http_date};
use crate::model::text::brief;

/// What a code means and what the operator can do.
struct Rule {
    codes: &'static [&'static str],
    kind: ErrorKind,
    advice: &'static str,
}

/// The texts below advise; the classes decide.
const RULES: &[Rule] = &[
    Rule {
        codes: &["InvalidClientTokenId", "UnrecognizedClientException"],
        kind: ErrorKind::Auth,
        advice: "The access key is unknown or inactive, is a temporary key (ASIA…) without its session token, or belongs to another partition (China, GovCloud) than the region.",
    },
    Rule {
        codes: &["SignatureDoesNotMatch", "InvalidSignatureException"],
        kind: ErrorKind::Auth,
        advice: "The secret access key does not fit the key id, this machine's clock is wrong, or a proxy changes the headers.",
    },
    Rule {
        codes: &["ExpiredToken", "ExpiredTokenException"],
        kind: ErrorKind::Auth,
        advice: "The session is over: paste new temporary keys into the connection.",
    },
    Rule {
        codes: &["RequestExpired", "RequestTimeTooSkewed"],
        kind: ErrorKind::Auth,
        advice: "This machine's clock is wrong: set it (for example with timedatectl set-ntp true).",
    },
    Rule {
        codes: &["IncompleteSignature", "IncompleteSignatureException", "MissingAuthenticationToken", "MissingAuthenticationTokenException"],
        kind: ErrorKind::Auth,
        advice: "The request arrived unsigned: look for stray characters in the keys, or a proxy that strips the Authorization header.",
    },
    Rule {
        codes: &["AccessDenied", "AccessDeniedException", "UnauthorizedOperation"],
        kind: ErrorKind::Permission,
        advice: "Allow the named action in the policy of this key or role (or look for a service control policy or permission boundary that denies it).",
    },
    Rule {
        codes: &["RegionDisabledException", "OptInRequired"],
        kind: ErrorKind::Permission,
        advice: "The region, or STS in it, is switched off for this account: enable it in the account settings.",
    },
    Rule {
        codes: &[
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "RequestThrottledException",
            "RequestThrottled",
            "TooManyRequestsException",
            "RequestLimitExceeded",
            "SlowDown",
        ],
        kind: ErrorKind::Throttled,
        advice: "The account's request rate is used up, perhaps by other programs: run again later.",
    },
    Rule {
        codes: &["InternalServiceError", "InternalFailure", "InternalServerError", "ServiceUnavailable", "ServiceUnavailableException"],
        kind: ErrorKind::Transient,
        advice: "AWS had trouble of its own: run again later.",
    },
    Rule {
        codes: &["LimitExceededException"],
        kind: ErrorKind::Quota,
        advice: "A quota is full: about 100 versions of one secret within a day, or 500,000 secrets in a region. Wait, or delete what is not needed.",
    },
    Rule { codes: &["ResourceExistsException"], kind: ErrorKind::Conflict, advice: "Run again: the next listing shows the other secret." },
    Rule {
        codes: &["InvalidRequestException"],
        kind: ErrorKind::Conflict,
        advice: "The secret's state does not allow this (deletion pending, or managed by another service).",
    },
    Rule {
        codes: &["InvalidParameterException", "ValidationException", "ValidationError", "InvalidParameterValue"],
        kind: ErrorKind::Invalid,
        advice: "AWS refuses the name, value, key or tags for good: change them.",
    },
    Rule { codes: &["InvalidNextTokenException"], kind: ErrorKind::Conflict, advice: "The listing changed while it was read: run again." },
    Rule { codes: &["ResourceNotFoundException"], kind: ErrorKind::NotFound, advice: "The secret is gone, or has no value yet." },
    Rule {
        codes: &["EncryptionFailure", "DecryptionFailure"],
        kind: ErrorKind::Invalid,
        advice: "The KMS key is disabled, pending deletion, in another region, or not symmetric: repair it or choose another KMS Key.",
    },
    Rule {
        codes: &["PreconditionNotMetException", "MalformedPolicyDocumentException", "PublicPolicyException"],
        kind: ErrorKind::Invalid,
        advice: "AWS refuses this for good.",
    },
];

/// An answer in the SDK's raw form.
type Raw = HttpResponse;

/// Wraps an SDK error. `about` says what was being done, for example `CreateSecret app/TOKEN`.
pub fn wrap<E: ProvideErrorMetadata>(cx: &Cx, about: &str, error: &SdkError<E, Raw>) -> ApiError {
    match error {
        SdkError::ServiceError(inner) => {
            let meta = inner.err().meta();
            coded(cx, about, meta.code(), meta.message(), inner.raw())
        }
        // The answer began and broke off: the call may have taken effect.
        SdkError::ResponseError(inner) => {
            ApiError::new(ErrorKind::Transient, SERVICE, format!("{about}: the answer broke off before it was complete"))
                .status(inner.raw().status().as_u16())
                .ambiguous(true)
        }
        SdkError::TimeoutError(_) => ApiError::new(ErrorKind::Transient, SERVICE, format!("{about}: no complete answer in time")).ambiguous(true),
        SdkError::DispatchFailure(inner) => match inner.as_connector_error() {
            Some(source) => transport(cx, about, source, inner.is_timeout()),
            None => ApiError::new(ErrorKind::Transient, SERVICE, format!("{about}: the request could not be sent")).ambiguous(true),
        },
        SdkError::ConstructionFailure(_) => ApiError::new(ErrorKind::Invalid, SERVICE, format!("{about}: the request could not be built")),
        _ => ApiError::new(ErrorKind::Transient, SERVICE, format!("{about}: failed")).ambiguous(true),
    }
}

fn coded(cx: &Cx, about: &str, code: Option<&str>, message: Option<&str>, raw: &Raw) -> ApiError {
    let status = raw.status().as_u16();
    let id = raw.headers().get("x-amzn-requestid").or_else(|| raw.headers().get("x-amz-request-id"));
    if let Some(told) = crate::http::redirect(status, raw.headers().get("location")) {
        return ApiError::new(ErrorKind::NotTheService, SERVICE, format!("{about}: {told}"))
            .advice("AWS does not redirect: check the endpoint and the proxy settings of the connection.")
            .status(status)
            .request_id(id)
            .masked(cx);
    }
    let Some(code) = code.filter(|c| !c.is_empty()) else {
        // Not an AWS answer: a proxy's page, a portal, a gateway's error.
        return match status {
            429 => ApiError::new(ErrorKind::Throttled, SERVICE, format!("{about}: too many requests")),
            500..=599 => {
                ApiError::new(ErrorKind::Transient, SERVICE, format!("{about}: the server, or a proxy before it, had trouble")).ambiguous(true)
            }
            _ => ApiError::new(ErrorKind::NotTheService, SERVICE, format!("{about}: what answered is not AWS (the answer is not in its form)"))
                .advice("Check the endpoint and the proxy settings of the connection.")
                .ambiguous(true),
        }
        .status(status)
        .request_id(id)
        .masked(cx)
        .retry_after(retry_after(raw));
    };
    let message = cx.redact(&brief(message.unwrap_or("no message"), 300));
    entry(about, code, &message).status(status).request_id(id).masked(cx).retry_after(retry_after(raw))
}

/// An error from its code and (redacted) text, as a batch answer lists them per secret.
pub fn entry(about: &str, code: &str, message: &str) -> ApiError {
    let rule = RULES.iter().find(|r| r.codes.contains(&code));
    let mut advice = rule.map(|r| r.advice);
    let mut kind = rule.map_or(ErrorKind::Invalid, |r| r.kind);
    if kind == ErrorKind::Permission && message.to_lowercase().contains("kms") {
        advice = Some("Allow this key or role to use the KMS key: kms:GenerateDataKey and kms:Decrypt in its policy and in the key's policy.");
    }
    let text = message.to_lowercase();
    if matches!(code, "SignatureDoesNotMatch" | "InvalidSignatureException") && (text.contains("expired") || text.contains("not yet current")) {
        kind = ErrorKind::Auth;
        advice = Some("This machine's clock is wrong: set it (for example with timedatectl set-ntp true).");
    }
    let error = ApiError::new(kind, SERVICE, format!("{about}: {message}")).code(code);
    match advice {
        Some(advice) => error.advice(advice),
        None => error,
    }
}

/// `x-amz-retry-after` counts milliseconds; a gateway's own Retry-After counts seconds.
fn retry_after(raw: &Raw) -> Option<Duration> {
    let number = |name: &str| raw.headers().get(name).and_then(|t| t.trim().parse::<u64>().ok());
    number("x-amz-retry-after").map(Duration::from_millis).or_else(|| number("retry-after").map(Duration::from_secs)).map(|d| d.min(RETRY_AFTER_CAP))
}

/// Seconds by which this machine's clock is ahead (+) of the server's, from the answer's `Date`.
pub fn clock_skew<E>(error: &SdkError<E, Raw>) -> Option<i64> {
    let server = parse_http_date(error.raw_response()?.headers().get("date")?)?;
    Some(jiff::Timestamp::now().as_second() - server.as_second())
}

/// The words of an error and its causes. Only for errors without an answer (they hold no body).
pub fn causes(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if out.last() != Some(&text) {
            out.push(text);
        }
        next = error.source();
    }
    out
}

fn transport(cx: &Cx, about: &str, source: &(dyn std::error::Error + 'static), timeout: bool) -> ApiError {
    let causes = causes(source);
    let all = causes.join(": ").to_lowercase();
    let deepest = cx.redact(&brief(causes.last().map_or("", String::as_str), 200));
    let connecting = all.contains("(connect)") || all.contains("dns error") || all.contains("failed to lookup") || all.contains("connect timeout");
    if all.contains("certificate") || all.contains("invalid peer") {
        return ApiError::new(ErrorKind::Invalid, SERVICE, format!("{about}: TLS could not be set up: {deepest}"))
            .advice("The server's certificate is not trusted: give the connection a caFile with the authority's certificate.");
    }
    if timeout && !connecting {
        return ApiError::new(ErrorKind::Transient, SERVICE, format!("{about}: no connection in time")).ambiguous(true);
    }
    if connecting {
        let advice = if all.contains("dns") || all.contains("lookup") {
            "The host name does not resolve: check the region or the endpoint for a typing error, or the machine's DNS."
        } else {
            "Nothing answers there: check the endpoint, the network and the proxy settings."
        };
        return ApiError::new(ErrorKind::Unreachable, SERVICE, format!("{about}: cannot connect: {deepest}")).advice(advice);
    }
    ApiError::new(ErrorKind::Transient, SERVICE, format!("{about}: the connection broke before the answer was complete ({deepest})")).ambiguous(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_classed() {
        for (code, kind) in [
            ("ThrottlingException", ErrorKind::Throttled),
            ("LimitExceededException", ErrorKind::Quota),
            ("ResourceNotFoundException", ErrorKind::NotFound),
            ("AccessDenied", ErrorKind::Permission),
            ("ExpiredTokenException", ErrorKind::Auth),
            ("InternalServiceError", ErrorKind::Transient),
            ("SomethingNew", ErrorKind::Invalid),
        ] {
            assert_eq!(entry("x", code, "m").kind, kind, "{code}");
        }
        let kms = entry("GetSecretValue a", "AccessDeniedException", "Access to KMS is not allowed");
        assert!(kms.advice.is_some_and(|a| a.contains("kms:Decrypt")));
        let clock = entry("x", "InvalidSignatureException", "Signature expired: 2020 is now earlier than 2021");
        assert!(clock.advice.is_some_and(|a| a.contains("clock")));
    }

    #[test]
    fn no_code_is_classed_by_status() {
        let raw = |status: u16| HttpResponse::new(status.try_into().expect("status"), aws_smithy_types::body::SdkBody::empty());
        let cx = Cx::quiet();
        assert_eq!(coded(&cx, "x", None, None, &raw(503)).kind, ErrorKind::Transient);
        assert_eq!(coded(&cx, "x", None, None, &raw(200)).kind, ErrorKind::NotTheService);
        assert_eq!(coded(&cx, "x", None, None, &raw(429)).kind, ErrorKind::Throttled);
        let mut moved = raw(301);
        moved.headers_mut().insert("location", "https://elsewhere.example/x?ticket=1");
        let error = coded(&cx, "x", None, None, &moved);
        assert!(error.kind == ErrorKind::NotTheService && error.text().contains("a redirect to elsewhere.example, which"), "{error}");
        let mut slow = raw(400);
        slow.headers_mut().insert("x-amz-retry-after", "300");
        assert_eq!(coded(&cx, "x", Some("ThrottlingException"), None, &slow).retry_after, Some(Duration::from_millis(300)));
    }
}
