//! The private key of a connection: every form in which people hold it, and its fingerprint.
//!
//! Errors here are sentences of ours. No parser's error is printed: some of them carry key bytes.

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, KeyIvInit};
use md5::{Digest, Md5};
use ring::rsa::KeyPair;
use zeroize::Zeroizing;

use crate::model::SecretValue;

/// The passphrase as it is meant: without the line break that a file or a paste leaves behind it.
/// `None` when nothing is left.
pub(super) fn passphrase(given: &SecretValue) -> Option<SecretValue> {
    let text = given.expose().trim_end_matches(['\r', '\n']);
    (!text.is_empty()).then(|| SecretValue::new(text))
}

/// A loaded RSA key.
pub(super) struct PrivateKey {
    pub pair: KeyPair,
    /// 16 lower-case hex pairs joined by colons, as the Console shows it.
    pub fingerprint: String,
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrivateKey({})", self.fingerprint)
    }
}

impl PrivateKey {
    /// Loads a PEM text: PKCS#1 or PKCS#8, plain or encrypted, with or without the trailing
    /// `OCI_API_KEY` line that Oracle recommends. A passphrase for a plain key is ignored, as
    /// Oracle's SDKs do.
    pub fn load(text: &str, passphrase: Option<&SecretValue>) -> Result<Self, String> {
        let text = Zeroizing::new(unescape(text));
        let blocks = pem::parse_many(text.as_bytes()).map_err(|_| NOT_PEM.to_string())?;
        let Some(block) = blocks.iter().find(|b| b.tag().ends_with("PRIVATE KEY")).or(blocks.first()) else {
            return Err(NOT_PEM.to_string());
        };
        let wrong = |kind: &str, fix: &str| Err(format!("this is {kind}; {fix}"));
        let pair = match block.tag() {
            "RSA PRIVATE KEY" => match block.headers().get("DEK-Info") {
                Some(info) => KeyPair::from_der(&legacy_decrypt(block.contents(), info, passphrase)?),
                None => KeyPair::from_der(block.contents()),
            },
            "PRIVATE KEY" => KeyPair::from_pkcs8(block.contents()),
            "ENCRYPTED PRIVATE KEY" => KeyPair::from_pkcs8(&pkcs8_decrypt(block.contents(), passphrase)?),
            "PUBLIC KEY" | "RSA PUBLIC KEY" => return wrong("a public key", "give the private key whose public half was uploaded to OCI"),
            "OPENSSH PRIVATE KEY" => {
                return wrong("an OpenSSH key", "OCI API keys are RSA keys in PEM form; add one under your user's API keys in the OCI Console");
            }
            "EC PRIVATE KEY" | "DSA PRIVATE KEY" => {
                return wrong("not an RSA key", "OCI API keys are RSA keys; add one under your user's API keys in the OCI Console");
            }
            "CERTIFICATE" => return wrong("a certificate", "give the private key of an OCI API key"),
            _ => return Err(NOT_PEM.to_string()),
        }
        .map_err(|e| refusal(&e.to_string()))?;
        let fingerprint = fingerprint(pair.public().as_ref());
        Ok(Self { pair, fingerprint })
    }
}

const NOT_PEM: &str = "this is not a PEM private key (it begins with -----BEGIN PRIVATE KEY----- or -----BEGIN RSA PRIVATE KEY-----)";
const ENCRYPTED: &str = "this private key is encrypted: give its passphrase";
const WRONG_PASSPHRASE: &str = "the passphrase does not open this private key";

/// Keys pasted out of environment files often carry `\n` as two characters; in a field of one line
/// the line breaks are spaces, or nothing.
fn unescape(text: &str) -> String {
    if text.trim().contains('\n') {
        return text.to_string();
    }
    let text = text.replace("\\r", "").replace("\\n", "\n");
    match headers_apart(&text) {
        Some(whole) if !text.trim().contains('\n') => whole,
        _ => text,
    }
}

/// A key of one line with the headers of RFC 1421 on lines of their own: an old encrypted key
/// means nothing without them. `None` for a text without such headers.
fn headers_apart(text: &str) -> Option<String> {
    let (begin, rest) = text.split_once("Proc-Type:")?;
    let (kind, rest) = rest.split_once("DEK-Info:")?;
    let (cipher, rest) = rest.split_once(',')?;
    // The initial vector is as long as the cipher's block; base64 may follow without a space.
    let digits = if cipher.trim().starts_with("DES") { 16 } else { 32 };
    let (iv, body) = rest.trim_start().split_at_checked(digits)?;
    Some(format!("{}\nProc-Type: {}\nDEK-Info: {},{iv}\n\n{}", begin.trim(), kind.trim(), cipher.trim(), body.trim_start()))
}

fn refusal(why: &str) -> String {
    match why {
        "TooSmall" => "this RSA key has fewer than 2048 bits: OCI requires at least 2048".into(),
        "TooLarge" => "this RSA key has more than 4096 bits, more than can be used here".into(),
        "WrongAlgorithm" => "this is not an RSA key; OCI API keys are RSA keys".into(),
        _ => "this private key is damaged or not a two-prime RSA key; download it again or make a new API key".into(),
    }
}

fn pkcs8_decrypt(der: &[u8], passphrase: Option<&SecretValue>) -> Result<Zeroizing<Vec<u8>>, String> {
    let passphrase = passphrase.ok_or(ENCRYPTED)?;
    let info = pkcs8::EncryptedPrivateKeyInfo::try_from(der).map_err(|_| {
        "this encrypted private key uses a scheme that is not supported; rewrite it with: openssl pkcs8 -topk8 -v2 aes256 -in key.pem -out new.pem"
            .to_string()
    })?;
    let open = info.decrypt(passphrase.expose()).map_err(|_| WRONG_PASSPHRASE.to_string())?;
    Ok(Zeroizing::new(open.as_bytes().to_vec()))
}

/// The encryption of old OpenSSL files (RFC 1421 headers): the key is a chain of MD5 over
/// passphrase and salt, the salt is the first eight bytes of the initial vector.
fn legacy_decrypt(data: &[u8], info: &str, passphrase: Option<&SecretValue>) -> Result<Zeroizing<Vec<u8>>, String> {
    let passphrase = passphrase.ok_or(ENCRYPTED)?;
    let (cipher, iv) = info.split_once(',').ok_or("the DEK-Info header of this private key is damaged")?;
    let iv = unhex(iv.trim()).filter(|iv| iv.len() >= 8).ok_or("the DEK-Info header of this private key is damaged")?;
    let (length, block) = match cipher.trim() {
        "AES-128-CBC" => (16, 16),
        "AES-192-CBC" => (24, 16),
        "AES-256-CBC" => (32, 16),
        "DES-EDE3-CBC" => (24, 8),
        other => return Err(format!("this private key is encrypted with {}, which is not supported", crate::model::text::brief(other, 40))),
    };
    if iv.len() != block {
        return Err("the DEK-Info header of this private key is damaged".into());
    }
    let mut key = Zeroizing::new(Vec::<u8>::with_capacity(48));
    let mut last = Zeroizing::new(Vec::<u8>::new());
    while key.len() < length {
        let mut md5 = Md5::new();
        md5.update(last.as_slice());
        md5.update(passphrase.expose().as_bytes());
        md5.update(&iv[..8]);
        *last = md5.finalize().to_vec();
        key.extend_from_slice(&last);
    }
    key.truncate(length);
    let open = match cipher.trim() {
        "AES-128-CBC" => cbc::Decryptor::<aes::Aes128>::new_from_slices(&key, &iv).ok().and_then(|d| d.decrypt_padded_vec_mut::<Pkcs7>(data).ok()),
        "AES-192-CBC" => cbc::Decryptor::<aes::Aes192>::new_from_slices(&key, &iv).ok().and_then(|d| d.decrypt_padded_vec_mut::<Pkcs7>(data).ok()),
        "AES-256-CBC" => cbc::Decryptor::<aes::Aes256>::new_from_slices(&key, &iv).ok().and_then(|d| d.decrypt_padded_vec_mut::<Pkcs7>(data).ok()),
        _ => cbc::Decryptor::<des::TdesEde3>::new_from_slices(&key, &iv).ok().and_then(|d| d.decrypt_padded_vec_mut::<Pkcs7>(data).ok()),
    };
    // One wrong passphrase in 256 leaves valid padding: what it yields is no DER sequence.
    open.map(Zeroizing::new).filter(|der| der.first() == Some(&0x30)).ok_or_else(|| WRONG_PASSPHRASE.to_string())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let ok = text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit());
    ok.then(|| (0..text.len()).step_by(2).filter_map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect())
}

/// The fingerprint OCI shows: MD5 over the DER SubjectPublicKeyInfo, as colon-joined hex.
/// `public` is the PKCS#1 public key.
pub(super) fn fingerprint(public: &[u8]) -> String {
    let mut md5 = Md5::new();
    md5.update(spki(public));
    md5.finalize().iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

/// Wraps a PKCS#1 public key into SubjectPublicKeyInfo (RFC 8017, RFC 5280).
fn spki(public: &[u8]) -> Vec<u8> {
    const RSA_ENCRYPTION: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let bits = tlv(0x03, &[&[0], public].concat());
    tlv(0x30, &[RSA_ENCRYPTION, &bits].concat())
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    if content.len() < 0x80 {
        out.push(content.len() as u8);
    } else {
        let length: Vec<u8> = content.len().to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
        out.push(0x80 | length.len() as u8);
        out.extend(length);
    }
    out.extend_from_slice(content);
    out
}

/// A fingerprint as it is typed, in the form OCI prints; `None` when it is none.
pub(super) fn normalise(text: &str) -> Option<String> {
    let hex: String = text.trim().chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase();
    let fits = hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then(|| hex.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).into_owned()).collect::<Vec<_>>().join(":"))
}

/// Whether the key is the one the fingerprint names; the sentence tells both.
pub(super) fn match_fingerprint(key: &PrivateKey, said: &str) -> Result<(), String> {
    if key.fingerprint == said {
        return Ok(());
    }
    Err(format!("this private key has fingerprint {}, the connection says {said}", key.fingerprint))
}
