//! The JSON object of many-to-one: reading it without losing what is not ours, and writing it
//! in one stable form (keys sorted, UTF-8 as it is, no white space).

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

use super::names::VALUE_MAX;
use crate::model::SecretValue;
use crate::model::text::brief;

/// One member.
#[derive(Debug, Clone)]
pub enum Member {
    /// A text, as the console and this tool write them.
    Text(SecretValue),
    /// Anything else, kept exactly as it was written.
    Other(SecretValue),
}

impl Member {
    fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) | (Self::Other(a), Self::Other(b)) => a.same_as(b),
            _ => false,
        }
    }
}

/// The members by key.
pub type Members = BTreeMap<String, Member>;

/// True when both hold the same members; order, escapes and white space do not count.
pub fn same(a: &Members, b: &Members) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((k, v), (l, w))| k == l && v.same_as(w))
}

/// Reads a secret's text. The error is the end of a sentence and never quotes the text.
pub fn parse(text: &str) -> Result<Members, String> {
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Err("is no JSON".into());
    }
    let trimmed = text.trim();
    if !trimmed.starts_with('{') {
        return Err("is JSON, and not an object of keys and values".into());
    }
    let mut members = Members::new();
    for (raw_key, raw_value) in split(trimmed) {
        let key: String = serde_json::from_str(raw_key).map_err(|_| "holds a key that is no valid text".to_string())?;
        let member = match serde_json::from_str::<String>(raw_value) {
            Ok(text) => Member::Text(SecretValue::new(text)),
            Err(_) => Member::Other(SecretValue::new(raw_value)),
        };
        if members.insert(key.clone(), member).is_some() {
            return Err(format!("holds the key {:?} twice", brief(&key, 60)));
        }
    }
    Ok(members)
}

/// Key and value texts of the members of a valid JSON object.
fn split(object: &str) -> Vec<(&str, &str)> {
    let bytes = object.as_bytes();
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let (mut start, mut colon) = (1usize, None);
    let mut out = Vec::new();
    for (i, byte) in bytes.iter().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b':' if depth == 1 && colon.is_none() => colon = Some(i),
            b',' | b'}' if depth == 1 => {
                if let Some(colon) = colon.take() {
                    out.push((object[start..colon].trim(), object[colon + 1..i].trim()));
                }
                start = i + 1;
                depth -= usize::from(*byte == b'}');
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    out
}

/// Writes the object.
pub fn render(members: &Members) -> SecretValue {
    let mut out = String::from("{");
    for (i, (key, member)) in members.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(&quoted(key));
        out.push(':');
        match member {
            Member::Text(value) => out.push_str(&quoted(value.expose())),
            Member::Other(raw) => out.push_str(raw.expose()),
        }
    }
    out.push('}');
    SecretValue::new(out)
}

fn quoted(text: &str) -> zeroize::Zeroizing<String> {
    zeroize::Zeroizing::new(serde_json::Value::String(text.to_string()).to_string())
}

/// Why the text does not fit into one secret, naming the largest keys.
pub fn overflow(members: &Members, text: &SecretValue) -> Option<String> {
    if text.len() <= VALUE_MAX {
        return None;
    }
    let mut sizes: Vec<(usize, &String)> = members
        .iter()
        .map(|(key, member)| match member {
            Member::Text(v) | Member::Other(v) => (v.len(), key),
        })
        .collect();
    sizes.sort_by(|a, b| b.cmp(a));
    let largest: Vec<String> = sizes.iter().take(5).map(|(size, key)| format!("{} ({size})", brief(key, 60))).collect();
    Some(format!("all keys together need {} bytes, one secret holds {VALUE_MAX}; the largest: {}", text.len(), largest.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(member: &Member) -> &str {
        match member {
            Member::Text(v) | Member::Other(v) => v.expose(),
        }
    }

    #[test]
    fn what_is_not_ours_survives_to_the_letter() {
        let members = parse(" { \"b\" : \"x,}\\\"\" , \"n\": 1.50e3, \"o\": {\"a\":[1,{\"}\":2}]}, \"e\":\"\" }\n").expect("an object");
        assert_eq!(members.keys().collect::<Vec<_>>(), ["b", "e", "n", "o"]);
        assert_eq!(text(&members["b"]), "x,}\"");
        assert_eq!(render(&members).expose(), r#"{"b":"x,}\"","e":"","n":1.50e3,"o":{"a":[1,{"}":2}]}}"#);
        assert_eq!(render(&parse("{}").expect("empty")).expose(), "{}");
    }

    #[test]
    fn order_and_escapes_do_not_count() {
        let a = parse(r#"{"k":"é","z":"1"}"#).expect("a");
        let b = parse("{\"z\":\"1\",\n \"k\":\"\\u00e9\"}").expect("b");
        assert!(same(&a, &b));
        assert!(!same(&a, &parse(r#"{"k":"é","z":1}"#).expect("c")));
        assert_eq!(render(&b).expose(), r#"{"k":"é","z":"1"}"#);
    }

    #[test]
    fn other_contents_are_refused_without_quoting_them() {
        for bad in ["[1]", "\"hunter2\"", "hunter2", "{\"a\":1", "", "{\"a\":\"1\",\"a\":\"2\"}", "null"] {
            let why = parse(bad).expect_err(bad);
            assert!(!why.contains("hunter2"));
        }
    }

    #[test]
    fn an_overflow_names_the_largest_keys() {
        let members: Members = (1..8).map(|i| (format!("K{i}"), Member::Text(SecretValue::new("a".repeat(i * 5000))))).collect();
        let text = render(&members);
        let why = overflow(&members, &text).expect("too large");
        assert!(why.contains("K7 (35000), K6 (30000)") && why.contains(&text.len().to_string()), "{why}");
        let fits: Members = [("a".to_string(), Member::Text(SecretValue::new("x".repeat(VALUE_MAX - 8))))].into();
        assert_eq!(overflow(&fits, &render(&fits)), None);
    }

    proptest::proptest! {
        #[test]
        fn render_and_parse_are_inverse(map in proptest::collection::btree_map(".*", ".*", 0..8)) {
            let members: Members = map.iter().map(|(k, v)| (k.clone(), Member::Text(SecretValue::new(v.clone())))).collect();
            let back = parse(render(&members).expose()).expect("our own text");
            proptest::prop_assert!(same(&members, &back));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".*") {
            let _ = parse(&text);
        }
    }
}
