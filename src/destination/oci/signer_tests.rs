//! Signatures against the published vectors: V1 and V2 are Oracle's own, V3 to V6 were made
//! with the signer of Oracle's Python SDK. The vectors' key has 1024 bits, which the product
//! refuses, so their bytes are made with the `rsa` crate over the product's signing string;
//! PKCS#1 v1.5 is deterministic, so the product's own backend is checked against it too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, Request, Url};
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs1v15::SigningKey;
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::sha2::Sha256;
use rsa::signature::{SignatureEncoding as _, Signer as _};

use super::key::PrivateKey;
use super::signer::{Signer, body_hash, encode, prepare, signing_string};
use crate::sandbox::oci::{TEST_FINGERPRINT, TEST_KEY};

const OLD: &str = "Thu, 05 Jan 2014 21:31:40 GMT";
const NEW: &str = "Tue, 02 Jan 2024 03:04:05 GMT";
const VAULTS: &str = "https://vaults.eu-frankfurt-1.oci.oraclecloud.com/20180608/secrets";
const ID: &str = "ocid1.vaultsecret.oc1.eu-frankfurt-1.amaaaaaaexamplesecret";

fn request(method: Method, url: &str, body: Option<&str>, date: &str) -> Request {
    let mut request = Request::new(method, url.parse::<Url>().expect("url"));
    *request.body_mut() = body.map(|b| b.to_string().into());
    prepare(&mut request, date).expect("prepared");
    request
}

fn oracle_signature(request: &Request) -> String {
    let key = rsa::RsaPrivateKey::from_pkcs1_pem(super::key_tests::ORACLE).expect("Oracle's key");
    STANDARD.encode(SigningKey::<Sha256>::new(key).sign(signing_string(request).as_bytes()).to_bytes())
}

#[test]
fn v1_get() {
    let url = "https://iaas.us-phoenix-1.oraclecloud.com/20160918/instances?availabilityDomain=Pjwf%3A%20PHX-AD-1\
               &compartmentId=ocid1.compartment.oc1..aaaaaaaam3we6vgnherjq5q2idnccdflvjsnog7mlr6rtdb25gilchfeyjxa\
               &displayName=TeamXInstances\
               &volumeId=ocid1.volume.oc1.phx.abyhqljrgvttnlx73nmrwfaux7kcvzfs3s66izvxf2h4lgvyndsdsnoiwr5q";
    assert_eq!(
        oracle_signature(&request(Method::GET, url, None, OLD)),
        "GBas7grhyrhSKHP6AVIj/h5/Vp8bd/peM79H9Wv8kjoaCivujVXlpbKLjMPeDUhxkFIWtTtLBj3sUzaFj34XE6YZAHc9r2DmE4pMwOAy/kiITcZxa1oHPOeRheC0jP2dqbTll8fmTZVwKZOKHYPtrLJIJQHJjNvxFWeHQjMaR7M="
    );
}

#[test]
fn v2_post() {
    let body = r#"{
    "compartmentId": "ocid1.compartment.oc1..aaaaaaaam3we6vgnherjq5q2idnccdflvjsnog7mlr6rtdb25gilchfeyjxa",
    "instanceId": "ocid1.instance.oc1.phx.abuw4ljrlsfiqw6vzzxb43vyypt4pkodawglp3wqxjqofakrwvou52gb6s5a",
    "volumeId": "ocid1.volume.oc1.phx.abyhqljrgvttnlx73nmrwfaux7kcvzfs3s66izvxf2h4lgvyndsdsnoiwr5q"
}"#;
    assert_eq!(body.len(), 316);
    assert_eq!(body_hash(body.as_bytes()), "V9Z20UJTvkvpJ50flBzKE32+6m2zJjweHpDMX/U4Uy0=");
    let url = "https://iaas.us-phoenix-1.oraclecloud.com/20160918/volumeAttachments";
    assert_eq!(
        oracle_signature(&request(Method::POST, url, Some(body), OLD)),
        "Mje8vIDPlwIHmD/cTDwRxE7HaAvBg16JnVcsuqaNRim23fFPgQfLoOOxae6WqKb1uPjYEl0qIdazWaBy/Ml8DRhqlocMwoSXv0fbukP8J5N80LCmzT/FFBvIvTB91XuXI3hYfP9Zt1l7S6ieVadHUfqBedWH0itrtPJBgKmrWso="
    );
}

#[test]
fn v3_a_page_token_is_encoded() {
    let query = [
        ("compartmentId", "ocid1.compartment.oc1..aaaaexample"),
        ("vaultId", "ocid1.vault.oc1.eu-frankfurt-1.aaaaexample"),
        ("limit", "1000"),
        ("page", "AAAA+bBb/c=="),
    ];
    let mut url: Url = VAULTS.parse().expect("url");
    url.set_query(Some(&query.map(|(k, v)| format!("{k}={}", encode(v))).join("&")));
    assert!(url.as_str().ends_with("&page=AAAA%2BbBb%2Fc%3D%3D"), "{url}");
    assert_eq!(
        oracle_signature(&request(Method::GET, url.as_str(), None, NEW)),
        "RNf8ep2IY5kqWDUq4eO7BL1bABvRLcPUgnTfE3qCUxdD5ucXooVYqbF5VBwLlKc20PDjhIbshPoRMwe6rr2UzJCNrlLTd8TDtHvyVlrbLNNfvjdV7zvNcHC2yod5Tquhi68ThRNbV9QNndy9EKqwqT75+Vuo5fc1kvkIoSHWmgI="
    );
}

#[test]
fn v4_an_empty_body_is_signed() {
    let request = request(Method::POST, &format!("{VAULTS}/{ID}/actions/cancelDeletion"), None, NEW);
    assert!(signing_string(&request).contains("\ncontent-length: 0\n"));
    assert!(signing_string(&request).ends_with("x-content-sha256: 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="));
    assert_eq!(
        oracle_signature(&request),
        "YsJ+zZXBpkPaWEID5ORcUI4qMRFiu+OybjSSF1Tzr+Eh17SiLugX4hi+zcuWFH0Hg6FlD5ICQacAxJOUk/C9MJGUZKxTCZCvtipcsW9Rlv249l89Jm/e++eDzvw90L2u/f5s6qoUsp0yMtO8q9bskKh4BJHeT22934D8ompVaH8="
    );
}

#[test]
fn v5_create() {
    let body = concat!(
        r#"{"compartmentId":"ocid1.compartment.oc1..aaaaexample","vaultId":"ocid1.vault.oc1.eu-frankfurt-1.aaaaexample","#,
        r#""keyId":"ocid1.key.oc1.eu-frankfurt-1.aaaaexample","secretName":"DB_PASSWORD","enableAutoGeneration":false,"#,
        r#""secretContent":{"contentType":"BASE64","content":"aGVsbG8="}}"#
    );
    assert_eq!((body.len(), body_hash(body.as_bytes()).as_str()), (278, "9bjCRBC3LZMtLdioGjgkvWdYR9j+NNKnue3ycHGZtsQ="));
    assert_eq!(
        oracle_signature(&request(Method::POST, VAULTS, Some(body), NEW)),
        "kGIsBYBYt8hpzj9WD5+EAWIM21vrmNX/IDDnGhHLBQw19yFvKnGIlMx5yKr5+7vgrfoiyWajwEhDUqWvmcFkB8II7XB2SgkBv0P86Acua1DYbngtHcEyz7IcjWamVv7pQaXHpldNE2nGZzFxVxUOn2RVYvqLSZPQHxNJaFzL+/A="
    );
}

#[test]
fn v6_update() {
    let body = r#"{"enableAutoGeneration":false,"secretContent":{"contentType":"BASE64","content":"cMOkc3N3w7ZyZA=="}}"#;
    assert_eq!((body.len(), body_hash(body.as_bytes()).as_str()), (100, "isgK6/v7XOO34p6Uoqg34BnLSat3+YdhXuBhuyvIvUg="));
    assert_eq!(
        oracle_signature(&request(Method::PUT, &format!("{VAULTS}/{ID}"), Some(body), NEW)),
        "e3nNA9MS/fvX5jS+5KmNnW1t/cr9YMCBPcmqvAyebvtzvsFvCQrDUo+68xx3rADPfN9HtWtzLg0MW8xYdozDxJRKFSUN+Qj5sT1sbPgqHPXiA0cIoeNQqwA3qDMbF9GoJvc525NbvRvCqARGbCUE/IPJLDK+4A7P4/eDPayw9Q8="
    );
}

#[test]
fn the_url_is_signed_as_it_is_sent() {
    let request = request(Method::GET, "http://127.0.0.1:7400/oci/20180608/secrets?name=a'b c&x=%2F%2B%20", None, NEW);
    assert_eq!(
        signing_string(&request),
        format!("date: {NEW}\n(request-target): get /oci/20180608/secrets?name=a%27b%20c&x=%2F%2B%20\nhost: 127.0.0.1:7400")
    );
}

#[test]
fn both_backends_agree() {
    let signer = Signer::new("t", "u", TEST_FINGERPRINT, PrivateKey::load(TEST_KEY, None).expect("key"));
    let mut request = Request::new(Method::POST, VAULTS.parse().expect("url"));
    signer.sign(&mut request, crate::http::parse_http_date(NEW).expect("date")).expect("signed");
    let key = rsa::RsaPrivateKey::from_pkcs8_pem(TEST_KEY).expect("key");
    let expected = STANDARD.encode(SigningKey::<Sha256>::new(key).sign(signing_string(&request).as_bytes()).to_bytes());
    let header = request.headers()["authorization"].to_str().expect("text");
    assert_eq!(
        header,
        format!(
            "Signature version=\"1\",keyId=\"t/u/{TEST_FINGERPRINT}\",algorithm=\"rsa-sha256\",\
             headers=\"date (request-target) host content-length content-type x-content-sha256\",signature=\"{expected}\""
        )
    );
    assert!(!format!("{:?}", signer.key).contains("MII"));
}
