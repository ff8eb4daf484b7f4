//! The JSON of the secrets data plane.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::SERVICE;
use crate::destination::Entry;
use crate::http::{Answer, ApiError, ErrorKind};
use crate::model::SecretValue;

/// Attributes of a secret's version. Times are unix seconds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Attributes {
    pub enabled: Option<bool>,
    pub nbf: Option<i64>,
    pub exp: Option<i64>,
    pub created: Option<i64>,
    pub updated: Option<i64>,
    pub recovery_level: Option<String>,
}

/// An item of a list, a bundle, or a deleted one: the members of all three.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Secret {
    #[serde(deserialize_with = "secret_text")]
    pub value: Option<SecretValue>,
    pub id: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub attributes: Attributes,
    pub content_type: Option<String>,
    pub tags: Option<BTreeMap<String, Option<String>>>,
    pub managed: Option<bool>,
    /// The key of the certificate that a secret is half of; bundles only.
    pub kid: Option<String>,
    /// Present when the vault keeps the deleted secret.
    pub recovery_id: Option<String>,
    pub scheduled_purge_date: Option<i64>,
}

fn secret_text<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SecretValue>, D::Error> {
    Ok(Option::<String>::deserialize(d)?.map(SecretValue::new))
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

impl Secret {
    /// Name and version out of the id. The name is the segment after `secrets` (or
    /// `deletedsecrets`), percent-decoded; `under` is the path of the vault's URL.
    pub fn name_and_version(&self, under: &str) -> Option<(String, Option<String>)> {
        let url = url::Url::parse(self.id.as_deref()?).ok()?;
        let path = url.path();
        let path = path.strip_prefix(under.trim_end_matches('/')).unwrap_or(path);
        let mut segments = path.split('/').skip_while(|s| !matches!(*s, "secrets" | "deletedsecrets")).skip(1);
        let name = percent_encoding::percent_decode_str(segments.next()?).decode_utf8().ok()?.into_owned();
        let version = segments.next().filter(|v| !v.is_empty()).map(str::to_owned);
        (!name.is_empty()).then_some((name, version))
    }

    /// True for the secret half of a certificate: its writes belong to the certificate.
    pub fn is_managed(&self) -> bool {
        self.managed == Some(true) || self.kid.is_some()
    }

    /// True for the content types that certificates use, which people also set by hand.
    pub fn looks_like_certificate(&self) -> bool {
        self.content_type.as_deref().is_some_and(|t| {
            let t = t.trim();
            t.eq_ignore_ascii_case("application/x-pkcs12") || t.eq_ignore_ascii_case("application/x-pem-file")
        })
    }

    /// What a new version must be given again, because a PUT describes the whole version.
    pub fn keep(&self) -> Keep {
        Keep {
            content_type: self.content_type.clone().filter(|t| !t.is_empty()),
            tags: self.tags.clone().filter(|t| !t.is_empty()),
            exp: self.attributes.exp,
            nbf: self.attributes.nbf,
        }
    }
}

/// The description of a version that others gave and a new version keeps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Keep {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, Option<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
}

impl Keep {
    /// What the listing showed of a secret.
    pub fn of(entry: Option<&Entry>) -> Self {
        entry.and_then(|e| serde_json::from_value(e.facts.clone()).ok()).unwrap_or_default()
    }
}

/// One page of a list. Without a list of secrets it is none: taken for an empty vault, it would
/// have everything written anew.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    pub value: Vec<Secret>,
    #[serde(default)]
    pub next_link: Option<String>,
}

/// A page out of a successful answer, `what` for the error's text.
pub(super) fn page(answer: &Answer, what: &str) -> Result<Page, ApiError> {
    read(answer, what)
}

/// A successful answer. An error's envelope is none, whatever its status says.
pub(super) fn read<T: serde::de::DeserializeOwned>(answer: &Answer, what: &str) -> Result<T, ApiError> {
    #[derive(Deserialize)]
    struct Envelope {
        error: Option<serde::de::IgnoredAny>,
    }
    if let Ok(Envelope { error: Some(_) }) = answer.json::<Envelope>(SERVICE) {
        return Err(not_a_vault(what, "it says that it succeeded, and holds an error").status(answer.status));
    }
    // A list would do for an object as far as the parser is concerned.
    if answer.is_json() && answer.body.trim_ascii_start().first() == Some(&b'[') {
        return Err(not_a_vault(what, "it is a list").status(answer.status));
    }
    answer.json(SERVICE).map_err(|error| ApiError {
        message: not_a_vault(what, &error.message).message,
        advice: error.advice.clone().or_else(|| Some(ADVICE.into())),
        ..error
    })
}

const ADVICE: &str = "Check the Vault Base URL, the connection's endpoint and the proxy settings: something else answers there.";

/// An answer that no vault gives.
pub(super) fn not_a_vault(what: &str, why: &str) -> ApiError {
    ApiError::new(ErrorKind::NotTheService, SERVICE, format!("{what} is not an answer of Key Vault: {why}")).advice(ADVICE)
}

/// The body of a PUT.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Put<'a> {
    value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a BTreeMap<String, Option<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<Dates>,
}

#[derive(Serialize)]
struct Dates {
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
}

/// The body of a PATCH that changes tags and nothing else.
pub(super) fn tags_body(tags: &BTreeMap<String, Option<String>>) -> Vec<u8> {
    serde_json::json!({ "tags": tags }).to_string().into_bytes()
}

/// A PUT's body. Wiped when dropped: it holds the value.
pub(super) fn put_body(value: &SecretValue, keep: &Keep) -> zeroize::Zeroizing<Vec<u8>> {
    let attributes = (keep.exp.is_some() || keep.nbf.is_some()).then_some(Dates { nbf: keep.nbf, exp: keep.exp });
    let put = Put { value: value.expose(), content_type: keep.content_type.as_deref(), tags: keep.tags.as_ref(), attributes };
    // Texts and numbers only: serialising them cannot fail.
    zeroize::Zeroizing::new(serde_json::to_vec(&put).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(id: &str, under: &str) -> Option<(String, Option<String>)> {
        Secret { id: Some(id.into()), ..Secret::default() }.name_and_version(under)
    }

    #[test]
    fn names_come_from_their_place_in_the_id() {
        let plain = |n: &str| Some((n.to_string(), None));
        assert_eq!(parts("https://v.vault.azure.net/secrets/a", "/"), plain("a"));
        assert_eq!(parts("https://v.vault.azure.net:443/secrets/a/", "/"), plain("a"));
        assert_eq!(parts("https://v.vault.azure.net/secrets/a/0123", "/"), Some(("a".into(), Some("0123".into()))));
        assert_eq!(parts("https://v.vault.azure.net/deletedsecrets/secrets", "/"), plain("secrets"));
        assert_eq!(parts("http://127.0.0.1:1/secrets/secrets/x", "/secrets/"), plain("x"));
        assert_eq!(parts("https://v.vault.azure.net/keys/a", "/"), None);
        assert_eq!(parts("nonsense", "/"), None);
    }

    #[test]
    fn a_put_carries_what_others_set() {
        let keep = Keep { content_type: Some("text/plain".into()), tags: None, exp: Some(9), nbf: None };
        let body = put_body(&SecretValue::new("v\r\n"), &keep);
        assert_eq!(&body[..], br#"{"value":"v\r\n","contentType":"text/plain","attributes":{"exp":9}}"#);
        assert_eq!(&put_body(&SecretValue::new(""), &Keep::default())[..], br#"{"value":""}"#);
    }

    #[test]
    fn nulls_are_absent() {
        let page: Page =
            serde_json::from_str(r#"{"value":[{"id":"x","attributes":null,"tags":null,"managed":null}],"nextLink":null}"#).expect("page");
        assert_eq!(page.value[0].attributes.updated, None);
        assert!(page.next_link.is_none());
    }
}
