//! Signature Version 4: every request must be signed with a known key, for this service, with
//! a clock that is at most five minutes off. (AWS General Reference, "Signing AWS API requests".)

use axum::http::{HeaderMap, Uri};
use ring::{digest, hmac};

use super::input::{Refusal, refuse};
use super::world::World;

/// Seconds a signature may be old or ahead.
const TOLERANCE: i64 = 300;

/// A request as it was signed.
pub struct Signed<'a> {
    pub method: &'a str,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// Who calls, and where.
pub struct Caller {
    pub arn: String,
    pub key_id: String,
    pub region: String,
}

/// Codes differ between the JSON service and STS.
struct Codes {
    missing: &'static str,
    unknown: &'static str,
    signature: &'static str,
    expired: &'static str,
}

const JSON: Codes = Codes {
    missing: "MissingAuthenticationTokenException",
    unknown: "UnrecognizedClientException",
    signature: "InvalidSignatureException",
    expired: "ExpiredTokenException",
};
const STS: Codes =
    Codes { missing: "MissingAuthenticationToken", unknown: "InvalidClientTokenId", signature: "SignatureDoesNotMatch", expired: "ExpiredToken" };

/// Checks a request's signature.
pub fn check(world: &World, request: &Signed<'_>, service: &str) -> Result<Caller, Refusal> {
    let codes = if service == "sts" { &STS } else { &JSON };
    let header = |name: &str| request.headers.get(name).and_then(|v| v.to_str().ok());
    let Some(authorization) = header("authorization") else {
        return Err(refuse(codes.missing, "Request is missing Authentication Token"));
    };
    let incomplete =
        || refuse("IncompleteSignatureException", "Authorization header requires 'Credential', 'SignedHeaders' and 'Signature' parameters.");
    let parameters = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or_else(incomplete)?;
    let parameter = |name: &str| parameters.split(',').find_map(|p| p.trim().strip_prefix(name)?.strip_prefix('='));
    let (Some(credential), Some(signed), Some(signature)) = (parameter("Credential"), parameter("SignedHeaders"), parameter("Signature")) else {
        return Err(incomplete());
    };
    let scope: Vec<&str> = credential.split('/').collect();
    let [id, date, region, of_service, "aws4_request"] = scope.as_slice() else { return Err(incomplete()) };
    if *of_service != service {
        return Err(refuse(codes.signature, format!("Credential should be scoped to correct service: '{service}'.")));
    }
    let Some(key) = world.keys.get(*id) else {
        return Err(refuse(codes.unknown, "The security token included in the request is invalid."));
    };
    if key.token.as_deref() != header("x-amz-security-token") {
        return Err(refuse(codes.unknown, "The security token included in the request is invalid."));
    }
    if key.expires.is_some_and(|end| end <= world.now()) {
        return Err(refuse(codes.expired, "The security token included in the request is expired"));
    }
    let time = header("x-amz-date").ok_or_else(incomplete)?;
    check_time(world, time, codes)?;
    let canonical = canonical_request(request, signed);
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{time}\n{date}/{region}/{of_service}/aws4_request\n{}",
        hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref())
    );
    let mut secret = format!("AWS4{}", key.secret).into_bytes();
    for part in [date, region, of_service, &"aws4_request"] {
        secret = mac(&secret, part.as_bytes());
    }
    if hex(&mac(&secret, to_sign.as_bytes())) != signature {
        return Err(refuse(
            codes.signature,
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.",
        ));
    }
    Ok(Caller { arn: key.arn.clone(), key_id: id.to_string(), region: region.to_string() })
}

fn check_time(world: &World, text: &str, codes: &Codes) -> Result<(), Refusal> {
    let parsed = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok().and_then(|t| t.to_zoned(jiff::tz::TimeZone::UTC).ok());
    let Some(signed) = parsed else {
        return Err(refuse("IncompleteSignatureException", "Date must be in ISO-8601 'basic format'."));
    };
    let age = world.now() - signed.timestamp().as_second();
    if age > TOLERANCE {
        return Err(refuse(codes.signature, format!("Signature expired: {text} is now earlier than the accepted time")));
    }
    if age < -TOLERANCE {
        return Err(refuse(codes.signature, format!("Signature not yet current: {text} is still later than the accepted time")));
    }
    Ok(())
}

fn canonical_request(request: &Signed<'_>, signed: &str) -> String {
    let mut headers = String::new();
    for name in signed.split(';') {
        let values: Vec<String> = request
            .headers
            .get_all(name)
            .iter()
            .map(|v| String::from_utf8_lossy(v.as_bytes()).split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        headers.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    let payload = request
        .headers
        .get("x-amz-content-sha256")
        .and_then(|h| h.to_str().ok())
        .map(str::to_string)
        .unwrap_or_else(|| hex(digest::digest(&digest::SHA256, request.body).as_ref()));
    let mut query: Vec<&str> = request.uri.query().unwrap_or_default().split('&').filter(|q| !q.is_empty()).collect();
    query.sort_unstable();
    format!("{}\n{}\n{}\n{headers}\n{signed}\n{payload}", request.method, request.uri.path(), query.join("&"))
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
