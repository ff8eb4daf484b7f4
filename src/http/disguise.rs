//! Secrets that a server's text repeats in another spelling: escaped, encoded, or in part.
//!
//! Such a text cannot be masked in place with certainty, so whoever finds one leaves it out.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// A beginning or an end of a secret of this many characters is taken for a part of it.
const PART: usize = 12;
/// So many where the secret begins as many texts do.
const COMMON_PART: usize = 28;
/// Beginnings that say nothing.
const COMMON: &[&str] = &["http://", "https://", "-----BEGIN", "postgres", "mongodb", "jdbc:"];
/// Rounds of decoding: a text may be escaped twice.
const ROUNDS: usize = 2;

/// The text with its escapes undone, and what its runs of base64 and hexadecimal digits hold;
/// nothing where there are none.
pub(super) fn readings(text: &str) -> Vec<Zeroizing<String>> {
    let mut out: Vec<Zeroizing<String>> = Vec::new();
    let mut plain = Zeroizing::new(text.to_string());
    for _ in 0..ROUNDS {
        let next = Zeroizing::new(form_decoded(&entities_decoded(&backslashes_decoded(&plain))));
        if *next == *plain {
            break;
        }
        plain = next;
        out.push(plain.clone());
    }
    let runs = |c: char| !(c.is_ascii_alphanumeric() || "+/-_=".contains(c));
    for run in plain.split(runs).filter(|r| r.len() >= 4) {
        out.extend(base64_decoded(run));
        out.extend(hex_decoded(run));
    }
    out
}

/// The beginning and the end of a secret long enough to be told from chance by them.
pub(super) fn parts(secret: &str) -> Option<[Zeroizing<String>; 2]> {
    let secret = squeezed(secret);
    let wanted = if COMMON.iter().any(|c| secret.starts_with(c)) { COMMON_PART } else { PART };
    let length = secret.chars().count();
    let cut = |n: usize| secret.char_indices().nth(n).map_or(secret.len(), |(at, _)| at);
    (length > wanted).then(|| [secret[..cut(wanted)].to_string().into(), secret[cut(length - wanted)..].to_string().into()])
}

/// A text without white space and control characters, in which parts are looked for.
pub(super) fn squeezed(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect())
}

/// `\uXXXX` and the short escapes of JSON and of most languages.
fn backslashes_decoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let mut units = Vec::new();
        let mut tail = rest;
        while let Some(unit) = tail.strip_prefix('u').and_then(|t| t.get(..4)).and_then(|h| u16::from_str_radix(h, 16).ok()) {
            units.push(unit);
            rest = &tail[5..];
            match rest.strip_prefix("\\") {
                Some(next) if next.starts_with('u') => tail = next,
                _ => break,
            }
        }
        if !units.is_empty() {
            out.extend(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
            continue;
        }
        let mut chars = rest.chars();
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some(other) => out.push(other),
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out
}

/// The entities of HTML that stand for what it must escape, and the numbered ones.
fn entities_decoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.char_indices().take(10).find(|(_, c)| *c == ';').map(|(i, _)| i);
        let found = end.and_then(|end| {
            let name = &rest[1..end];
            let number = name.strip_prefix("#x").or_else(|| name.strip_prefix("#X")).map(|h| u32::from_str_radix(h, 16));
            let number = number.or_else(|| name.strip_prefix('#').map(str::parse::<u32>));
            let c = match name {
                "amp" => Some('&'),
                "lt" => Some('<'),
                "gt" => Some('>'),
                "quot" => Some('"'),
                "apos" => Some('\''),
                _ => number.and_then(Result::ok).and_then(char::from_u32),
            };
            c.map(|c| (c, end + 1))
        });
        match found {
            Some((c, used)) => {
                out.push(c);
                rest = &rest[used..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// Percent-encoding in either case; `+` for a space only where something is percent-encoded.
fn form_decoded(text: &str) -> String {
    let plain = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    if plain == text { text.to_string() } else { percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned() }
}

fn base64_decoded(run: &str) -> Option<Zeroizing<String>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true);
    let digits: String = run
        .trim_end_matches('=')
        .chars()
        .map(|c| {
            if c == '-' {
                '+'
            } else if c == '_' {
                '/'
            } else {
                c
            }
        })
        .collect();
    let whole = if digits.len() % 4 == 1 { digits.get(..digits.len() - 1)? } else { &digits };
    let bytes = Zeroizing::new(GeneralPurpose::new(&STANDARD, config).decode(whole).ok()?);
    Some(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
}

fn hex_decoded(run: &str) -> Option<Zeroizing<String>> {
    if run.len() % 2 == 1 || !run.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let bytes: Option<Vec<u8>> = (0..run.len()).step_by(2).map(|i| u8::from_str_radix(&run[i..i + 2], 16).ok()).collect();
    Some(Zeroizing::new(String::from_utf8_lossy(&Zeroizing::new(bytes?)).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        let reads = |text: &str, secret: &str| readings(text).iter().any(|r| r.contains(secret));
        for text in [
            r"value Abc\u002Bdef\u0026ghi\u003Cjkl\u003EMno is bad",
            "value Abc+def&amp;ghi&lt;jkl&gt;Mno is bad",
            "value Abc%2bdef%26ghi%3cjkl%3eMno is bad",
            "value Abc&#43;def&#x26;ghi&lt;jkl&gt;Mno is bad",
            r"value Abc\\u002Bdef\\u0026ghi\\u003Cjkl\\u003EMno is bad",
            "value QWJjK2RlZiZnaGk8amtsPk1ubw is bad",
            "value 4162632b64656626676869 3c is bad",
        ] {
            let secret = if text.contains("4162632b") { "Abc+def&ghi" } else { "Abc+def&ghi<jkl>Mno" };
            assert!(reads(text, secret), "{text}: {:?}", readings(text));
        }
        assert!(reads(r"Schl\u00fcssel-Gr\u00f6\u00dfe-42", "Schlüssel-Größe-42"));
        assert!(reads(r"smile \ud83d\ude00!", "😀"));
        assert!(reads("a+b%21", "a b!"));
        assert!(reads("WnE5", "Zq9"));
        assert!(readings("a plain sentence, 5 > 4").iter().all(|r| !r.contains("plain")));
    }

    #[test]
    fn parts_of_long_secrets_are_found() {
        let holds = |text: &str, secret: &str| parts(secret).is_some_and(|two| two.iter().any(|p| squeezed(text).contains(p.as_str())));
        let secret = "the first twelve and the last twelve";
        assert!(holds("refused: the first tw elve…", secret));
        assert!(holds("…ed the last twelve is bad", "a secret that is named the last twelve"));
        assert!(!holds("the first", secret));
        assert!(!holds("a short", "a short"));
        assert!(!holds("see https://example.com/docs", "https://example.com/other/path/of/mine"));
    }
}
