//! Masks every secret the run knows in texts that will be shown, logged or stored.
//!
//! A server's text is masked where it comes in ([`Redactor::redact`]). Sentences of ours pass
//! once more before they are told ([`Redactor::redact_told`]), as a net: there a secret that is
//! a common word stays, for it stands in the sentence whatever the secret is, and a masked word
//! beside its plain twin would give the secret away.

use std::collections::HashSet;
use std::sync::Mutex;

use base64::Engine as _;
use zeroize::Zeroizing;

use super::disguise::{parts, readings, squeezed};
use crate::model::SecretValue;

/// Shorter texts are not masked: they occur by chance, and masking would give them away.
pub(super) const SHORTEST: usize = 4;
/// A shorter text of letters and digits is masked where it stands as a word of its own: within
/// longer words (`prod` in `production`, `5432` in `15432`) it occurs by chance.
const WITHIN_WORDS: usize = 8;
/// Stands for a server's text that repeats a secret in a way that cannot be masked in it.
pub(super) const WITHHELD: &str = "(what it said is not shown, for it repeats the value)";
/// How `model::text::brief` ends a text that it cut.
const CUT: &str = "...";
/// A cut secret is told from chance by this many characters.
const CUT_SHORTEST: usize = 6;
/// Words of ours are not longer.
const LONGEST_WORD: usize = 24;
/// Numbers of ours (limits, counts, ports) have no more digits.
const LONGEST_NUMBER: usize = 5;

/// Knows every value, token and credential of a run.
#[derive(Default)]
pub struct Redactor {
    known: Mutex<Known>,
}

/// Learning is cheap, for a run learns thousands of values and redacts a handful of texts:
/// the encoded forms are made when the first text comes.
#[derive(Default)]
struct Known {
    seen: HashSet<[u8; 32]>,
    fresh: Vec<SecretValue>,
    /// Longest first.
    forms: Vec<Zeroizing<String>>,
    /// Beginnings and ends of the long ones.
    parts: Vec<[Zeroizing<String>; 2]>,
}

impl Known {
    /// Masks the beginning of a secret where a text was cut to size in the middle of it.
    fn mask_cut(&self, mut text: String, spared: fn(&str) -> bool) -> String {
        let mut from = text.len();
        while let Some(end) = text[..from].rfind(CUT) {
            from = end;
            let begin = self.forms.iter().filter(|form| !spared(form)).filter_map(|form| {
                let head = form.char_indices().nth(CUT_SHORTEST).map(|(at, _)| &form[..at])?;
                text[..end].match_indices(head).map(|(at, _)| at).find(|at| form.starts_with(&text[*at..end]))
            });
            if let Some(begin) = begin.min() {
                text.replace_range(begin..end, "***");
                from = begin;
            }
        }
        text
    }
}

impl Redactor {
    /// Adds a secret to mask.
    pub fn learn(&self, secret: &SecretValue) {
        if secret.expose().trim().len() < SHORTEST {
            return;
        }
        let mut known = self.lock();
        // Tokens are learned again with every call that carries them.
        if known.seen.insert(*blake3::hash(secret.expose().as_bytes()).as_bytes()) {
            known.fresh.push(secret.clone());
        }
    }

    /// Replaces each known secret by `***`: as it is, JSON-escaped, percent-encoded, base64, and
    /// each longer line of a multi-line secret. A text that repeats one in another spelling, or
    /// a part of one, is left out whole.
    pub fn redact(&self, text: &str) -> String {
        let masked = self.mask_all(text, |_| false);
        let readings = readings(&masked);
        if readings.iter().any(|r| self.mask_all(r, |_| false) != **r) || self.holds_a_part(&masked, &readings) {
            return WITHHELD.into();
        }
        masked
    }

    fn holds_a_part(&self, text: &str, readings: &[Zeroizing<String>]) -> bool {
        let known = self.lock();
        let texts: Vec<_> = std::iter::once(text).chain(readings.iter().map(|r| r.as_str())).map(squeezed).collect();
        known.parts.iter().flatten().any(|part| texts.iter().any(|t| t.contains(part.as_str())))
    }

    /// Masks in a sentence of ours, whose server's part was masked before, what cannot be a
    /// word of the sentence.
    pub fn redact_told(&self, text: &str) -> String {
        self.mask_all(text, common)
    }

    fn mask_all(&self, text: &str, spared: fn(&str) -> bool) -> String {
        let mut known = self.lock();
        if !known.fresh.is_empty() {
            let fresh = std::mem::take(&mut known.fresh);
            known.forms.extend(fresh.iter().flat_map(|s| forms(s.expose())).filter(|f| f.len() >= SHORTEST));
            known.parts.extend(fresh.iter().filter_map(|s| parts(s.expose())));
            known.forms.sort_by(|a, b| (b.len(), b.as_str()).cmp(&(a.len(), a.as_str())));
            known.forms.dedup();
        }
        let mut out = text.to_string();
        for form in &known.forms {
            if form.len() <= out.len() && out.contains(form.as_str()) && !spared(form) {
                out = mask(&out, form);
            }
        }
        if out.contains(CUT) { known.mask_cut(out, spared) } else { out }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// True for what may be a word, a name or a number in a sentence of ours: words of one case
/// (`source`, `Production`, `DB_HOST`, `aws-secrets-manager`) and short numbers.
fn common(form: &str) -> bool {
    if form.chars().all(|c| c.is_ascii_digit()) {
        return form.len() <= LONGEST_NUMBER;
    }
    let word = |part: &str| {
        let letters = part.trim_end_matches(|c: char| c.is_ascii_digit());
        let tail = letters.get(1..).unwrap_or_default();
        part.len() - letters.len() <= 2
            && letters.chars().all(|c| c.is_ascii_alphabetic())
            && (tail.chars().all(|c| c.is_ascii_lowercase()) || letters.chars().all(|c| c.is_ascii_uppercase()))
    };
    form.split_whitespace().all(|w| w.len() <= LONGEST_WORD) && form.split([' ', '-', '_', '.', ',', ':', '/', '(', ')']).all(word)
}

/// True when a text holds a secret too short to be masked, as a word of its own.
pub(super) fn repeats(text: &str, secret: &SecretValue) -> bool {
    let value = secret.expose().trim();
    if value.is_empty() || value.len() >= SHORTEST {
        return false;
    }
    let glued = |mine: Option<char>, next: Option<char>| mine.is_some_and(char::is_alphanumeric) && next.is_some_and(char::is_alphanumeric);
    text.match_indices(value).any(|(at, _)| {
        let (before, after) = (text[..at].chars().next_back(), text[at + value.len()..].chars().next());
        !glued(value.chars().next(), before) && !glued(value.chars().next_back(), after)
    })
}

fn mask(text: &str, form: &str) -> String {
    if form.len() >= WITHIN_WORDS || !form.chars().all(char::is_alphanumeric) {
        return text.replace(form, "***");
    }
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (at, _) in text.match_indices(form) {
        let end = at + form.len();
        let within =
            text[..at].chars().next_back().is_some_and(char::is_alphanumeric) || text[end..].chars().next().is_some_and(char::is_alphanumeric);
        out.push_str(&text[done..at]);
        out.push_str(if within { form } else { "***" });
        done = end;
    }
    out.push_str(&text[done..]);
    out
}

fn forms(secret: &str) -> Vec<Zeroizing<String>> {
    let mut out = vec![Zeroizing::new(secret.to_string()), Zeroizing::new(secret.trim().to_string())];
    let json = serde_json::Value::String(secret.to_string()).to_string();
    out.push(Zeroizing::new(json.trim_matches('"').to_string()));
    out.push(Zeroizing::new(percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string()));
    out.push(Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(secret)));
    out.push(Zeroizing::new(crate::model::text::sanitise(secret)));
    if secret.contains('\n') {
        out.extend(secret.lines().map(str::trim).filter(|l| l.len() >= 8).map(|l| Zeroizing::new(l.to_string())));
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
    fn a_secret_that_was_cut_is_masked_too() {
        let redactor = Redactor::default();
        redactor.learn(&SecretValue::new("ababababab-secret"));
        redactor.learn(&SecretValue::new("another secret"));
        for (text, masked) in [
            ("refused: abababab... (code 1)", "refused: ***... (code 1)"),
            ("refused: anothe... and ababababab-s...", "refused: ***... and ***..."),
            ("refused: anoth...", "refused: anoth..."),
            ("another word...", "another word..."),
            ("...", "..."),
        ] {
            assert_eq!(redactor.redact(text), masked);
        }
    }

    #[test]
    fn a_short_word_is_masked_as_a_word() {
        let redactor = Redactor::default();
        redactor.learn(&SecretValue::new("prod"));
        redactor.learn(&SecretValue::new("a-b4"));
        for (text, masked) in [
            ("\"prod\" in production, not prod", "\"***\" in production, not ***"),
            ("reprod prods prod.", "reprod prods ***."),
            ("xa-b4x", "x***x"),
            ("éprod prod", "éprod ***"),
        ] {
            assert_eq!(redactor.redact(text), masked);
        }
    }

    #[test]
    fn words_of_our_own_sentences_stay() {
        let redactor = Redactor::default();
        for secret in
            ["source", "Production", "could not", "DB_HOST", "eu-west-1", "1024", "configuration", "x9K-source", "hunter2hunter2", "sourceControl"]
        {
            redactor.learn(&SecretValue::new(secret));
        }
        let told = "The source eu-west-1 could not be read: DB_HOST holds 1024 bytes (Production configuration)";
        assert_eq!(redactor.redact_told(told), told);
        assert_eq!(redactor.redact("no DB_HOST"), "no ***", "a server's text is masked as ever");
        for leak in ["x9K-source", "hunter2hunter2", "sourceControl"] {
            assert_eq!(redactor.redact_told(&format!("refused: {leak}.")), "refused: ***.");
        }
    }

    #[test]
    fn a_short_secret_is_found_as_a_word() {
        for (text, secret, found) in [
            ("\"a7\" is not allowed", "a7", true),
            ("value a7.", " a7\n", true),
            ("a72 is not allowed", "a7", false),
            ("cat", "a", false),
            ("é1 1é", "1", false),
            ("cost: $1", "$1", true),
            ("anything", "", false),
            ("long is masked", "long", false),
        ] {
            assert_eq!(repeats(text, &SecretValue::new(secret)), found, "{text:?} {secret:?}");
        }
    }

    #[test]
    fn short_texts_stay() {
        let redactor = Redactor::default();
        redactor.learn(&SecretValue::new("a"));
        assert_eq!(redactor.redact("a cat"), "a cat");
    }
}
