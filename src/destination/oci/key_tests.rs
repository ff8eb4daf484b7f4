//! Every form of private key, and what is said of the wrong ones. The fixtures are the
//! sandbox's published test key in other clothes, made with OpenSSL 3, and Oracle's published
//! 1024-bit key.

use super::key::{PrivateKey, fingerprint, match_fingerprint, normalise};
use crate::model::SecretValue;
use crate::sandbox::oci::{TEST_FINGERPRINT, TEST_KEY};

const PASSPHRASE: &str = "kms-sync-test";
const PKCS1: &str = include_str!("fixtures/pkcs1.pem");
pub(super) const ORACLE: &str = include_str!("fixtures/oracle-1024.pem");
const ENCRYPTED: &[(&str, &str)] = &[
    ("PKCS#1 AES-128", include_str!("fixtures/pkcs1-aes128.pem")),
    ("PKCS#1 AES-256", include_str!("fixtures/pkcs1-aes256.pem")),
    ("PKCS#1 3DES", include_str!("fixtures/pkcs1-des3.pem")),
    ("PKCS#8 AES-256", include_str!("fixtures/pkcs8-aes256.pem")),
    ("PKCS#8 3DES", include_str!("fixtures/pkcs8-des3.pem")),
    ("PKCS#8 PBKDF2 with SHA-1", include_str!("fixtures/pkcs8-sha1.pem")),
];

fn load(text: &str, passphrase: Option<&str>) -> Result<String, String> {
    let passphrase = passphrase.map(SecretValue::new);
    let result = PrivateKey::load(text, passphrase.as_ref()).map(|k| k.fingerprint);
    if let Err(message) = &result {
        // No line of the input, and no longer run of base64, may stand in a message.
        for line in text.lines().filter(|l| l.len() > 20 && !l.starts_with("-----")) {
            assert!(!message.contains(line), "{message}");
        }
        assert!(!message.split(' ').any(|w| w.len() > 60), "{message}");
    }
    result
}

#[test]
fn plain_forms() {
    let one_line = TEST_KEY.trim().replace('\n', " ");
    let forms = [
        ("PKCS#8", TEST_KEY.to_string()),
        ("PKCS#1", PKCS1.to_string()),
        ("label after the footer", format!("{}\nOCI_API_KEY\n", TEST_KEY.trim_end())),
        ("text before the header", format!("Bag Attributes\n    friendlyName: x\n{TEST_KEY}")),
        ("CRLF", TEST_KEY.replace('\n', "\r\n")),
        ("one line with spaces", one_line),
        ("escaped line breaks", TEST_KEY.trim().replace('\n', "\\n")),
        ("white space around", format!("\n\n  {TEST_KEY}  \n")),
    ];
    for (what, text) in &forms {
        assert_eq!(load(text, None).as_deref(), Ok(TEST_FINGERPRINT), "{what}");
        assert_eq!(load(text, Some("a passphrase that is not needed")).as_deref(), Ok(TEST_FINGERPRINT), "{what} with a passphrase");
    }
}

#[test]
fn encrypted_forms() {
    for (what, text) in ENCRYPTED {
        assert_eq!(load(text, Some(PASSPHRASE)).as_deref(), Ok(TEST_FINGERPRINT), "{what}");
        let none = load(text, None).expect_err("no passphrase");
        assert!(none.contains("encrypted"), "{what}: {none}");
        let wrong = load(text, Some("wrong")).expect_err("wrong passphrase");
        assert!(wrong.contains("passphrase"), "{what}: {wrong}");
        let labelled = format!("{}\nOCI_API_KEY", text.trim_end());
        assert_eq!(load(&labelled, Some(PASSPHRASE)).as_deref(), Ok(TEST_FINGERPRINT), "{what} with a label");
        // As fields of one line leave it: line breaks are spaces, or gone.
        for between in [" ", ""] {
            let line = text.trim().replace('\n', between);
            assert_eq!(load(&line, Some(PASSPHRASE)).as_deref(), Ok(TEST_FINGERPRINT), "{what} on one line: {between:?}");
            assert!(load(&line, None).expect_err("no passphrase").contains("encrypted"), "{what} on one line: {between:?}");
        }
    }
}

#[test]
fn wrong_kinds_are_named() {
    for (text, word) in [
        (include_str!("fixtures/public.pem"), "public key"),
        (include_str!("fixtures/ec.pem"), "RSA"),
        (include_str!("fixtures/ec-pkcs8.pem"), "RSA"),
        (ORACLE, "2048"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----", "OpenSSH"),
        ("not a key", "PEM"),
        ("", "PEM"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "damaged"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----", "passphrase"),
        (&TEST_KEY[..TEST_KEY.len() / 2], "PEM"),
    ] {
        let message = load(text, None).expect_err(word);
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[test]
fn the_fingerprint_is_that_of_openssl() {
    use rsa::pkcs1::{DecodeRsaPrivateKey, EncodeRsaPublicKey};
    // Computed with `openssl rsa -pubout -outform DER | openssl md5 -c`.
    let key = rsa::RsaPrivateKey::from_pkcs1_pem(ORACLE).expect("Oracle's key");
    let public = key.to_public_key().to_pkcs1_der().expect("public half");
    assert_eq!(fingerprint(public.as_bytes()), "73:61:a2:21:67:e0:df:be:7e:4b:93:1e:15:98:a5:b7");
}

#[test]
fn fingerprints_are_normalised_and_compared() {
    assert_eq!(normalise(&TEST_FINGERPRINT.to_uppercase()).as_deref(), Some(TEST_FINGERPRINT));
    assert_eq!(normalise(&format!(" {TEST_FINGERPRINT}\n")).as_deref(), Some(TEST_FINGERPRINT));
    assert_eq!(normalise(&TEST_FINGERPRINT.replace(':', "")).as_deref(), Some(TEST_FINGERPRINT));
    for bad in ["", "aa:bb", "zz:1f:44:fb:20:ff:d9:fc:86:31:c2:73:d9:74:bf:ac"] {
        assert_eq!(normalise(bad), None, "{bad}");
    }
    let key = PrivateKey::load(TEST_KEY, None).expect("key");
    let other = "00:1f:44:fb:20:ff:d9:fc:86:31:c2:73:d9:74:bf:ac";
    let message = match_fingerprint(&key, other).expect_err("another key");
    assert!(message.contains(TEST_FINGERPRINT) && message.contains(other), "{message}");
}
