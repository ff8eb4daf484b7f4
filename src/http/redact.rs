//! Masks every secret the run knows in texts that will be shown, logged or stored.
//!
//! A server's text is masked where it comes in ([`Redactor::redact`]). Sentences of ours pass
//! once more before they are told ([`Redactor::redact_told`]), as a net: there a secret that is
//! a common word stays, for it stands in the sentence whatever the secret is, and a masked word
//! beside its plain twin would give the secret away.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use base64::Engine as _;
use zeroize::Zeroizing;

use super::disguise::{TELLING, parts, readings, squeezed};
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
/// An escape sequence that a cut left incomplete is not longer (`&#x1F60`).
const LONGEST_ESCAPE: usize = 8;
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
    forms: Vec<Form>,
    /// Beginnings and ends of the long ones, by how they begin.
    parts: HashMap<[u8; TELLING], Vec<Zeroizing<String>>>,
}

/// One way in which a secret may be written.
struct Form {
    /// In small letters: a server may change the case.
    text: Zeroizing<String>,
    /// [`common`] as the secret writes it.
    common: bool,
}

impl Form {
    fn order(&self) -> (usize, &str, bool) {
        (self.text.len(), self.text.as_str(), self.common)
    }
}

/// A text and, of the same length, its small letters.
struct Text {
    shown: String,
    lower: Zeroizing<String>,
}

impl Text {
    fn new(shown: String) -> Self {
        let lower = Zeroizing::new(shown.to_ascii_lowercase());
        Self { shown, lower }
    }

    /// Masks a form everywhere, or where it stands as a word if it is short.
    fn mask(&mut self, form: &str) {
        let word = form.len() < WITHIN_WORDS && form.chars().all(char::is_alphanumeric);
        let mut out = String::with_capacity(self.shown.len());
        let mut done = 0;
        for (at, _) in self.lower.match_indices(form).filter(|(at, _)| !word || alone(&self.lower, form, *at)) {
            out.push_str(&self.shown[done..at]);
            out.push_str("***");
            done = at + form.len();
        }
        if done > 0 {
            out.push_str(&self.shown[done..]);
            *self = Self::new(out);
        }
    }
}

impl Known {
    fn refresh(&mut self) {
        if self.fresh.is_empty() {
            return;
        }
        for secret in std::mem::take(&mut self.fresh) {
            let forms = forms(secret.expose()).into_iter().filter(|f| f.len() >= SHORTEST);
            self.forms.extend(forms.map(|f| Form { common: common(&f), text: Zeroizing::new(f.to_ascii_lowercase()) }));
            for part in parts(secret.expose()) {
                if let Some(begin) = part.as_bytes().first_chunk() {
                    self.parts.entry(*begin).or_default().push(part);
                }
            }
        }
        self.forms.sort_by(|a, b| b.order().cmp(&a.order()));
        self.forms.dedup_by(|a, b| a.order() == b.order());
    }

    fn mask(&self, text: &str, spared: fn(&Form) -> bool) -> String {
        let mut out = Text::new(text.to_string());
        for form in &self.forms {
            if form.text.len() <= out.lower.len() && out.lower.contains(form.text.as_str()) && !spared(form) {
                out.mask(&form.text);
            }
        }
        self.mask_cut(&mut out, spared);
        out.shown
    }

    /// Masks the beginning of a secret where a text was cut to size in the middle of it.
    fn mask_cut(&self, text: &mut Text, spared: fn(&Form) -> bool) {
        let mut from = text.lower.len();
        while let Some(end) = text.lower[..from].rfind(CUT) {
            from = end;
            let cut = |form: &str, at: usize| {
                let rest = text.lower.get(at..end).unwrap_or_default();
                let same = rest.bytes().zip(form.bytes()).take_while(|(a, b)| a == b).count();
                // The cut may have hit an escape sequence.
                same == rest.len() || (rest.len() - same <= LONGEST_ESCAPE && matches!(rest.as_bytes()[same], b'\\' | b'&' | b'%'))
            };
            let begin = self.forms.iter().filter(|form| !spared(form)).filter_map(|form| {
                let head = form.text.char_indices().nth(CUT_SHORTEST).map(|(at, _)| &form.text[..at])?;
                text.lower[..end].match_indices(head).map(|(at, _)| at).find(|at| cut(&form.text, *at))
            });
            if let Some(begin) = begin.min() {
                text.shown.replace_range(begin..end, "***");
                *text = Text::new(std::mem::take(&mut text.shown));
                from = begin;
            }
        }
    }

    fn holds_a_part(&self, text: &str) -> bool {
        let text = squeezed(text);
        let begins = text.as_bytes().windows(TELLING).enumerate();
        let mut found = begins.filter_map(|(at, begin)| Some((at, self.parts.get(begin)?)));
        found.any(|(at, parts)| parts.iter().any(|part| text.as_bytes()[at..].starts_with(part.as_bytes())))
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

    /// Replaces each known secret by `***`: as it is or in another case, JSON-escaped,
    /// percent-encoded, base64, with spaces between its characters, and each longer line of a
    /// multi-line secret. A text that repeats one in another spelling, or a part of one, is left
    /// out whole.
    pub fn redact(&self, text: &str) -> String {
        self.redact_answer(text, &[])
    }

    /// [`Self::redact`] for the answer to a call that carried these values, too short to be
    /// masked: a text that repeats one is left out whole, for a word masked in a sentence is
    /// easily guessed.
    pub(super) fn redact_answer(&self, text: &str, short: &[SecretValue]) -> String {
        let mut known = self.lock();
        known.refresh();
        let masked = known.mask(text, |_| false);
        let readings = readings(&masked);
        let repeated = short.iter().any(|value| repeats(text, value) || repeats(&readings, value));
        if repeated || known.mask(&readings, |_| false) != *readings || known.holds_a_part(&masked) || known.holds_a_part(&readings) {
            return WITHHELD.into();
        }
        masked
    }

    /// Masks in a sentence of ours, whose server's part was masked before, what cannot be a
    /// word of the sentence.
    pub fn redact_told(&self, text: &str) -> String {
        let mut known = self.lock();
        known.refresh();
        known.mask(text, |form| form.common)
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

/// True when a text holds a secret too short to be masked, as a word of its own, or letter by
/// letter.
fn repeats(text: &str, secret: &SecretValue) -> bool {
    let value = secret.expose().trim();
    if value.is_empty() || value.len() >= SHORTEST {
        return false;
    }
    let holds = |value: &str| text.match_indices(value).any(|(at, _)| alone(text, value, at));
    holds(value) || (value.chars().count() > 1 && holds(&spaced(value)))
}

/// True when what stands there in a text does not go on as a word before or after it.
fn alone(text: &str, found: &str, at: usize) -> bool {
    let glued = |mine: Option<char>, next: Option<char>| mine.is_some_and(char::is_alphanumeric) && next.is_some_and(char::is_alphanumeric);
    let (before, after) = (text[..at].chars().next_back(), text[at + found.len()..].chars().next());
    !glued(found.chars().next(), before) && !glued(found.chars().next_back(), after)
}

/// With a space after each character.
fn spaced(text: &str) -> Zeroizing<String> {
    let mut out: String = text.chars().flat_map(|c| [c, ' ']).collect();
    out.pop();
    Zeroizing::new(out)
}

fn forms(secret: &str) -> Vec<Zeroizing<String>> {
    let mut out = vec![Zeroizing::new(secret.to_string()), Zeroizing::new(secret.trim().to_string())];
    let json = serde_json::Value::String(secret.to_string()).to_string();
    out.push(Zeroizing::new(json.trim_matches('"').to_string()));
    out.push(Zeroizing::new(percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string()));
    out.push(Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(secret)));
    out.push(Zeroizing::new(crate::model::text::sanitise(secret)));
    // A longer one is recognised by its parts.
    if secret.chars().count() <= LONGEST_WORD {
        out.push(spaced(secret));
    }
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
    fn a_secret_in_another_guise_is_masked_or_withheld() {
        let redactor = Redactor::default();
        for secret in ["Hunter2-Xy", "correct horse battery staple", "first line here\nsecond line of it\nü", "Q7f9", "ab-one\ncd-two\nef"] {
            redactor.learn(&SecretValue::new(secret));
        }
        for (text, told) in [
            ("HUNTER2-XY is bad", "*** is bad"),
            ("H u n t e r 2 - X y is bad", "*** is bad"),
            ("Correct Horse Battery Staple", "***"),
            ("q7F9, not q7f9x", "***, not q7f9x"),
            ("refused: ab-one\\ncd\\u00...", "refused: ***..."),
            ("refused: ab-one\\ncd\\...", "refused: ***..."),
            ("…ttery st aple is bad", WITHHELD),
            ("…e b a t t e r y  s t a p l e is bad", WITHHELD),
            ("…COND LINE OF IT is bad", WITHHELD),
            ("…cond line of it\\n\\u00fc is bad", WITHHELD),
            ("a second row is fine", "a second row is fine"),
        ] {
            assert_eq!(redactor.redact(text), told, "{text}");
        }
    }

    #[test]
    fn a_short_value_that_was_sent_is_found_in_other_guises() {
        let redactor = Redactor::default();
        let sent = [SecretValue::new("Zq9")];
        for text in ["Z q 9 is bad", "the body eyJjb250ZW50IjoiV25FNSJ9 is bad", "&#90;q9 is bad", r"\u005aq9"] {
            assert_eq!(redactor.redact_answer(text, &sent), WITHHELD, "{text}");
        }
        assert_eq!(redactor.redact_answer("xZq9 is another word", &sent), "xZq9 is another word");
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
