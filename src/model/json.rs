//! JSON documents that people write: a member given twice is an error. The parser would take the
//! last one in silence, and a safety option must not be overruled that way.
//! And documents that programs read, with their members in the documented order, which
//! [`Value`] does not keep.

use std::fmt;

use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::text::brief;

/// Why a text is no document. Never quotes its content, except a member's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct JsonError {
    pub what: String,
    /// The path of the member that stands twice.
    pub duplicate: Option<String>,
    /// The text ends early.
    pub truncated: bool,
}

/// Reads one JSON document; a byte order mark at its front is passed over.
pub fn parse(text: &str) -> Result<Value, JsonError> {
    let text = text.trim_start_matches('\u{feff}');
    let mut twice = None;
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Strict { path: String::new(), twice: &mut twice }.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    read.map_err(|error| {
        let at = format!("line {}, column {}", error.line(), error.column());
        let truncated = error.classify() == serde_json::error::Category::Eof;
        let what = match &twice {
            Some(member) => format!("{} is given twice, the second time at {at}.", brief(member, 120)),
            None if text.trim().is_empty() => "it is empty".to_string(),
            None if truncated => format!("it ends early, at {at}"),
            None => at,
        };
        JsonError { what, duplicate: twice.clone(), truncated }
    })
}

struct Strict<'a> {
    path: String,
    twice: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(value) = seq.next_element_seed(Strict { path: format!("{}[{}]", self.path, out.len()), twice: &mut *self.twice })? {
            out.push(value);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            if out.contains_key(&name) {
                *self.twice = Some(path);
                return Err(A::Error::custom("a member stands twice"));
            }
            let value = map.next_value_seed(Strict { path, twice: &mut *self.twice })?;
            out.insert(name, value);
        }
        Ok(Value::Object(out))
    }
}

/// A document with one member, in the member's own order.
pub struct One<'a, T>(pub &'static str, pub &'a T);

impl<T: Serialize> Serialize for One<'_, T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0, self.1)?;
        map.end()
    }
}

/// A document with a list, and what could not be listed when there is such.
pub struct List<'a, T> {
    pub member: &'a str,
    pub all: &'a T,
    pub broken: &'a [Value],
}

impl<T: Serialize> Serialize for List<'_, T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(self.member, self.all)?;
        if !self.broken.is_empty() {
            map.serialize_entry("broken", self.broken)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_read_as_the_parser_reads_them() {
        for text in [
            "{}",
            "[]",
            "null",
            "true",
            "-7",
            "18446744073709551615",
            "1.5e3",
            "\"a\\u00e9\\n\"",
            "\u{feff}{\"a\":1}",
            r#"{"a":[1,{"b":null,"c":"x"}],"d":{"a":1}}"#,
        ] {
            assert_eq!(parse(text).unwrap(), serde_json::from_str::<Value>(text.trim_start_matches('\u{feff}')).unwrap(), "{text}");
        }
    }

    #[test]
    fn a_member_given_twice_is_named_by_its_path() {
        for (text, path) in [
            (r#"{"a":1,"a":2}"#, "a"),
            (r#"{"syncOptions":{"disableSecretDeletion":true,"x":1,"disableSecretDeletion":false}}"#, "syncOptions.disableSecretDeletion"),
            (r#"{"tags":[{"key":"a"},{"key":"b","key":"c"}]}"#, "tags[1].key"),
            (r#"{"a":1,"\u0061":2}"#, "a"),
        ] {
            assert_eq!(parse(text).unwrap_err().duplicate.as_deref(), Some(path), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_told_without_its_content() {
        for text in ["", "  ", "{", "{\"token\":\"canary-value", "{} {}", "{\"a\" canary}", "nul"] {
            let error = parse(text).unwrap_err();
            assert!(!error.to_string().contains("canary") && error.duplicate.is_none(), "{error}");
        }
        assert!(parse("{\"a\":").unwrap_err().truncated);
    }
}
