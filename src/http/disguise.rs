//! Secrets that a server's text repeats in another spelling: escaped, encoded, or in part.
//!
//! Such a text cannot be masked in place with certainty, so whoever finds one leaves it out.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// A beginning or an end of a secret, or of one of its lines, of this many characters is taken
/// for a part of it.
const PART: usize = 12;
/// So many where it begins as many texts do.
const COMMON_PART: usize = 28;
/// Beginnings that say nothing.
const COMMON: &[&str] = &["http://", "https://", "postgres", "mongodb", "jdbc:"];
/// Keys in PEM and names of cloud resources begin alike for much longer.
const ALIKE: &[&str] = &["-----", "arn:", "ocid1."];
/// A line that long is looked for by itself.
const LINE: usize = 16;
/// What is left of a part without its white space tells it from chance when it is that long.
pub(super) const TELLING: usize = 8;
/// Rounds of decoding: a text may be escaped or encoded twice.
const ROUNDS: usize = 2;

/// Stands between two readings: belongs to neither.
const BETWEEN: &str = "\u{e000}";

/// The text with its escapes undone, and what its runs of base64 and hexadecimal digits hold,
/// one after the other; empty where there are none.
pub(super) fn readings(text: &str) -> Zeroizing<String> {
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
    let bare = Zeroizing::new(plain.chars().filter(|c| !unseen(*c)).collect::<String>());
    if *bare != *plain {
        out.push(bare.clone());
        plain = bare;
    }
    let mut encoded = vec![plain];
    for _ in 0..ROUNDS {
        encoded = encoded.iter().flat_map(|text| decoded(text)).collect();
        out.extend(encoded.iter().cloned());
    }
    let all: Vec<&str> = out.iter().map(|reading| reading.as_str()).collect();
    Zeroizing::new(all.join(BETWEEN))
}

/// What the runs of base64 and hexadecimal digits of a text hold, where that is text.
fn decoded(text: &str) -> Vec<Zeroizing<String>> {
    let digit = |c: char| c.is_ascii_alphanumeric() || "+/-_=".contains(c);
    let runs = text.split(|c| !digit(c)).filter(|run| run.len() >= 4 && !word(run));
    // A run whose beginning was cut away does not begin with a group of four.
    let cuts = |run: &'_ str| if run.len() >= 12 { 4 } else { 1 };
    let unpacked = |run| (0..cuts(run)).filter_map(move |from| str::get(run, from..)).filter_map(base64_decoded);
    let hex = hex_listed(text).into_iter().filter_map(|run| hex_decoded(&run));
    runs.flat_map(|run| unpacked(run).chain(hex_decoded(run))).chain(hex).collect()
}

/// Hexadecimal pairs that a text lists one by one (`41 62 63`, `41:62:63`, `0x41, 0x62`), joined.
fn hex_listed(text: &str) -> Vec<Zeroizing<String>> {
    let pair = |word: &str| {
        let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")).unwrap_or(word);
        (digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit())).then(|| digits.to_string())
    };
    let mut out: Vec<Zeroizing<String>> = Vec::new();
    let mut run = Zeroizing::new(String::new());
    for word in text.split(|c: char| c.is_whitespace() || ":,;-".contains(c)).filter(|word| !word.is_empty()) {
        match pair(word.trim_matches(|c: char| !c.is_ascii_alphanumeric())) {
            Some(digits) => run.push_str(&digits),
            None => out.push(std::mem::take(&mut run)),
        }
    }
    out.push(run);
    out.retain(|run| run.len() >= 4);
    out
}

/// An ordinary word would be read as bytes that say anything.
fn word(run: &str) -> bool {
    let tail = run.get(1..).unwrap_or_default();
    run.len() < 16 && (tail.bytes().all(|b| b.is_ascii_lowercase()) || run.bytes().all(|b| b.is_ascii_uppercase()))
}

/// By what a secret long enough to be told from chance is recognised in part: the beginnings
/// and ends of the whole and of each of its longer lines, [`squeezed`].
pub(super) fn parts(secret: &str) -> Vec<Zeroizing<String>> {
    // A key of several lines is often kept as one, with its line feeds escaped.
    let lines = secret.lines().flat_map(|line| line.split("\\n"));
    let lines = lines.filter(|line| line.len() < secret.len() && line.chars().count() >= LINE);
    std::iter::once(secret).chain(lines).flat_map(ends).collect()
}

fn ends(text: &str) -> Vec<Zeroizing<String>> {
    let text = text.trim();
    let begins = |with: &[&str]| with.iter().any(|c| text.starts_with(c));
    let head = match () {
        () if begins(ALIKE) => None,
        () if begins(COMMON) => first(text.chars(), COMMON_PART, COMMON_PART),
        () => first(text.chars(), PART, TELLING),
    };
    let tail = if text.ends_with("-----") { None } else { first(text.chars().rev(), PART, TELLING) };
    head.into_iter().chain(tail.map(|t| t.chars().rev().collect::<String>().into())).collect()
}

/// The first characters, squeezed: at least so many, and so many that are left when they are
/// squeezed. `None` where that is all there are: the whole is looked for anyway.
fn first(chars: impl Iterator<Item = char>, length: usize, least: usize) -> Option<Zeroizing<String>> {
    let (mut taken, mut left) = (0, Zeroizing::new(String::new()));
    for c in chars {
        if taken >= length && left.chars().count() >= least {
            return Some(left);
        }
        taken += 1;
        squeeze(c, &mut left);
    }
    None
}

/// A text in small letters, without white space and characters that cannot be shown (nor what
/// stands for them), in which parts are looked for.
pub(super) fn squeezed(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(text.len()));
    text.chars().for_each(|c| squeeze(c, &mut out));
    out
}

fn squeeze(c: char, out: &mut String) {
    if !c.is_whitespace() && !unseen(c) {
        out.extend(c.to_lowercase());
    }
}

/// True for characters that show nothing (control characters, and what Unicode calls ignorable by
/// default: soft hyphens, zero-width characters, directions, selectors), and for what stands for one.
fn unseen(c: char) -> bool {
    (c.is_control() && !c.is_whitespace())
        || matches!(c,
            char::REPLACEMENT_CHARACTER | '\u{2400}'..='\u{2421}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// `\uXXXX`, `\u{…}`, the bytes `\xNN`, and the short escapes of JSON and of most languages.
fn backslashes_decoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (units, after) = row(rest, &['u'], 4);
        if !units.is_empty() {
            out.extend(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
            rest = after;
            continue;
        }
        let (bytes, after) = row(rest, &['x', 'X'], 2);
        if !bytes.is_empty() {
            let bytes: Vec<u8> = bytes.into_iter().map(|byte| byte as u8).collect();
            out.push_str(&String::from_utf8_lossy(&bytes));
            rest = after;
            continue;
        }
        let braced = rest.strip_prefix("u{").and_then(|t| t.split_once('}'));
        if let Some((c, after)) = braced.and_then(|(h, after)| Some((char::from_u32(u32::from_str_radix(h, 16).ok()?)?, after))) {
            out.push(c);
            rest = after;
            continue;
        }
        let mut chars = rest.chars();
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            // Cut within the escape.
            Some('u') => out.push_str("\\u"),
            Some(other) => out.push(other),
            None => out.push('\\'),
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out
}

/// The numbers of the escapes of one kind that a text begins with, its first backslash gone, and
/// what follows them.
fn row<'t>(text: &'t str, marks: &[char], digits: usize) -> (Vec<u16>, &'t str) {
    let (mut numbers, mut rest, mut tail) = (Vec::new(), text, text);
    while let Some(number) = tail.strip_prefix(marks).and_then(|t| t.get(..digits)).and_then(|h| u16::from_str_radix(h, 16).ok()) {
        numbers.push(number);
        rest = &tail[1 + digits..];
        match rest.strip_prefix('\\').filter(|next| next.starts_with(marks)) {
            Some(next) => tail = next,
            None => break,
        }
    }
    (numbers, rest)
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
    let standard = |c| match c {
        '-' => '+',
        '_' => '/',
        c => c,
    };
    let digits: String = run.trim_end_matches('=').chars().map(standard).collect();
    let whole = if digits.len() % 4 == 1 { digits.get(..digits.len() - 1)? } else { &digits };
    let bytes = Zeroizing::new(GeneralPurpose::new(&STANDARD, config).decode(whole).ok()?);
    shown(&bytes)
}

fn hex_decoded(run: &str) -> Option<Zeroizing<String>> {
    if run.len() % 2 == 1 || !run.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let bytes: Option<Vec<u8>> = (0..run.len()).step_by(2).map(|i| u8::from_str_radix(&run[i..i + 2], 16).ok()).collect();
    shown(&Zeroizing::new(bytes?))
}

/// Bytes that are text, but for a character cut at either end: other bytes were no text encoded.
fn shown(bytes: &[u8]) -> Option<Zeroizing<String>> {
    let text = Zeroizing::new(String::from_utf8_lossy(bytes).into_owned());
    let inner = text.trim_matches(char::REPLACEMENT_CHARACTER);
    let strange = |c: char| c == char::REPLACEMENT_CHARACTER || (c.is_control() && !c.is_whitespace());
    (!inner.is_empty() && !inner.contains(strange)).then(|| Zeroizing::new(inner.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        let reads = |text: &str, secret: &str| readings(text).contains(secret);
        for text in [
            r"value Abc\u002Bdef\u0026ghi\u003Cjkl\u003EMno is bad",
            "value Abc+def&amp;ghi&lt;jkl&gt;Mno is bad",
            "value Abc%2bdef%26ghi%3cjkl%3eMno is bad",
            "value Abc&#43;def&#x26;ghi&lt;jkl&gt;Mno is bad",
            r"value Abc\\u002Bdef\\u0026ghi\\u003Cjkl\\u003EMno is bad",
            "value QWJjK2RlZiZnaGk8amtsPk1ubw is bad",
            "value 4162632b64656626676869 3c is bad",
            "value 41 62 63 2B 64 65 66 26 67 68 69 is bad",
            "value '41:62:63:2b:64:65:66:26:67:68:69' is bad",
            "value [0x41, 0x62, 0x63, 0x2b, 0x64, 0x65, 0x66, 0x26, 0x67, 0x68, 0x69] is bad",
            r"value \x41\x62\x63\x2B\x64ef\x26ghi is bad",
            r"value \u{41}bc\u{2b}def&ghi is bad",
            "value A\u{200b}b\u{ad}c\u{2060}+\u{feff}d\u{fe0f}e\u{34f}f\u{fffd}&ghi is bad",
        ] {
            let secret = if !text.contains("jkl") && !text.contains("QWJj") { "Abc+def&ghi" } else { "Abc+def&ghi<jkl>Mno" };
            assert!(reads(text, secret), "{text}: {:?}", readings(text));
        }
        assert!(reads(r"Schl\u00fcssel-Gr\u00f6\u00dfe-42", "Schlüssel-Größe-42"));
        assert!(reads(r"smile \ud83d\ude00!", "😀"));
        assert!(reads(r"Gr\xc3\xb6\xc3\x9fe", "Größe"));
        assert_eq!(*readings("at 10:15:30 on 2026-11-25"), "", "times are no text");
        assert!(reads("a+b%21", "a b!"));
        assert!(reads("WnE5", "Zq9"));
        for text in [
            "the body eyJjb250ZW50IjoiV25FNSJ9 was refused",
            "the body …J7ImNvbnRlbnQiOiJXbkU1In0= was refused",
            r"the body eyJjb250ZW50IjoiV25FNSJ9\u00",
        ] {
            assert!(reads(text, "Zq9"), "encoded twice: {text}");
        }
        assert_eq!(*readings("message resource vaults"), "", "words are not taken for encoded bytes");
        assert!(!readings("a plain sentence, 5 > 4").contains("plain"));
    }

    #[test]
    fn parts_of_long_secrets_are_found() {
        let holds = |text: &str, secret: &str| parts(secret).iter().any(|p| squeezed(text).contains(p.as_str()));
        let secret = "the first twelve and the last twelve";
        assert!(holds("refused: the first tw elve…", secret));
        assert!(holds("…ed the last twelve is bad", "a secret that is named the last twelve"));
        assert!(holds("REFUSED: THE FIRST TWELVE", secret));
        assert!(holds("refused: t\u{200b}h\u{ad}e fir\u{2060}st twe\u{feff}lve", secret));
        assert!(holds("refused: g t w e l v e t e n", "a b c d e f g twelve ten"));
        assert!(holds("at line 2: the second line g", "one\nthe second line goes here\nthree"));
        assert!(holds("…ond\u{240d} line goes here", "one\nthe second line goes here\nthree"));
        assert!(!holds("-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\nAAAABBBBCCCCDDDDEEEEFFFF\n-----END PRIVATE KEY-----"));
        assert!(holds("unexpected AAAABBBBCCCCDD", r"-----BEGIN PRIVATE KEY-----\nAAAABBBBCCCCDDDDEEEEFFFF\n-----END PRIVATE KEY-----"));
        assert!(!holds("arn:aws:secretsmanager:eu-west-1:1:secret:x", "arn:aws:secretsmanager:eu-west-1:1:secret:other"));
        assert!(holds("no such secret:the-other", "arn:aws:secretsmanager:eu-west-1:1:secret:the-other"));
        assert!(!holds("the first", secret));
        assert!(!holds("a short", "a short"));
        assert!(!holds("see https://example.com/docs", "https://example.com/other/path/of/mine"));
    }
}
