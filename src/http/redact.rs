//! Masks every secret the run knows in texts that will be shown, logged or stored.

use std::sync::RwLock;

use base64::Engine as _;

use crate::model::SecretValue;

/// Shorter texts are not masked: they occur by chance, and masking would give them away.
const SHORTEST: usize = 4;

/// Knows every value, token and credential of a run.
#[derive(Default)]
pub struct Redactor {
    secrets: RwLock<Vec<SecretValue>>,
}

impl Redactor {
    /// Adds a secret to mask.
    pub fn learn(&self, secret: &SecretValue) {
        if secret.expose().trim().len() < SHORTEST {
            return;
        }
        // Tokens are learned again with every call that carries them.
        let known = |all: &[SecretValue]| all.iter().any(|s| s.expose() == secret.expose());
        if !known(&self.secrets.read().unwrap_or_else(std::sync::PoisonError::into_inner)) {
            self.secrets.write().unwrap_or_else(std::sync::PoisonError::into_inner).push(secret.clone());
        }
    }

    /// Replaces each known secret by `***`: as it is, JSON-escaped, percent-encoded, base64, and
    /// each longer line of a multi-line secret.
    pub fn redact(&self, text: &str) -> String {
        let secrets = self.secrets.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut out = text.to_string();
        let mut longest: Vec<&SecretValue> = secrets.iter().collect();
        longest.sort_by_key(|s| std::cmp::Reverse(s.len()));
        for secret in longest {
            for form in forms(secret.expose()) {
                if form.len() >= SHORTEST && out.contains(form.as_str()) {
                    out = out.replace(form.as_str(), "***");
                }
            }
        }
        out
    }
}

fn forms(secret: &str) -> Vec<zeroize::Zeroizing<String>> {
    let mut out = vec![zeroize::Zeroizing::new(secret.to_string()), zeroize::Zeroizing::new(secret.trim().to_string())];
    let json = serde_json::Value::String(secret.to_string()).to_string();
    out.push(zeroize::Zeroizing::new(json.trim_matches('"').to_string()));
    out.push(zeroize::Zeroizing::new(percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string()));
    out.push(zeroize::Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(secret)));
    out.push(zeroize::Zeroizing::new(crate::model::text::sanitise(secret)));
    if secret.contains('\n') {
        out.extend(secret.lines().map(str::trim).filter(|l| l.len() >= 8).map(|l| zeroize::Zeroizing::new(l.to_string())));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_masked() {
        let redactor = Redactor::default();
        redactor.learn(&SecretValue::new("p\"a ss/1"));
        let json = serde_json::json!({"v": "p\"a ss/1"}).to_string();
        for text in ["value p\"a ss/1 refused", json.as_str(), "?q=p%22a%20ss%2F1", "cCJhIHNzLzE="] {
            let out = redactor.redact(text);
            assert!(out.contains("***"), "{text} -> {out}");
            assert!(!out.contains("a ss"), "{out}");
        }
    }

    #[test]
    fn short_texts_stay() {
        let redactor = Redactor::default();
        redactor.learn(&SecretValue::new("a"));
        assert_eq!(redactor.redact("a cat"), "a cat");
    }
}
