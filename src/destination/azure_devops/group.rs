//! The variable group on the wire: what is read from an answer, and the body that is written.
//!
//! Stored entries are kept as parsed JSON, so that members this version does not know are
//! carried. Our values go from [`SecretValue`] straight into the body, which is wiped.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use serde_json::Value;
use zeroize::Zeroizing;

use super::SERVICE;
use crate::http::{Answer, ApiError, ErrorKind};
use crate::model::text::brief;
use crate::model::{Map, SecretValue};

/// A variable group as the service returns it. Secret values are never in it; those of plain
/// variables are, and belong to others.
#[derive(Clone)]
pub(super) struct Group {
    pub id: i64,
    pub name: String,
    /// `Vsts`, or `AzureKeyVault` and whatever comes later.
    pub kind: String,
    pub description: Option<Value>,
    pub provider_data: Option<Value>,
    /// Absent on Azure DevOps Server 2019.
    pub references: Option<Value>,
    /// The raw text: its number of digits varies, so it is compared and never rebuilt.
    pub modified_on: String,
    pub modified_by: Option<String>,
    pub variables: Map,
    /// Why this is no group to build a write on; see [`Self::sound`].
    pub fault: Option<String>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.variables.keys().collect();
        f.debug_struct("Group").field("id", &self.id).field("name", &self.name).field("variables", &names).finish_non_exhaustive()
    }
}

impl Group {
    /// Reads a group's JSON; `None` when it is not one.
    pub fn parse(value: Value) -> Option<Self> {
        let Value::Object(mut map) = value else { return None };
        let id = map.get("id")?.as_i64()?;
        let text = |v: Option<&Value>| v.and_then(Value::as_str).map(str::to_owned);
        let name = text(map.get("name"))?;
        let modified_by = map.get("modifiedBy").and_then(|by| text(by.get("displayName")).or_else(|| text(by.get("uniqueName"))));
        let filled = |v: Option<Value>| v.filter(|v| !v.is_null());
        let provider_data = filled(map.remove("providerData"));
        let (variables, mut fault) = match map.remove("variables") {
            Some(Value::Object(variables)) => {
                let odd = variables.iter().find_map(|(name, v)| Some(format!("its variable {:?} {}", brief(name, 80), oddity(v)?)));
                (variables, odd)
            }
            None | Some(Value::Null) => (Map::new(), Some("it came without its variables".to_string())),
            Some(_) => (Map::new(), Some("its variables are not the object that the API documents".to_string())),
        };
        let kind = match map.get("type") {
            Some(Value::String(kind)) if !kind.is_empty() => kind.clone(),
            None if provider_data.is_none() => "Vsts".into(),
            _ => {
                fault = Some("it came without its type".to_string());
                "Vsts".into()
            }
        };
        Some(Self {
            id,
            name,
            kind,
            modified_on: text(map.get("modifiedOn")).or_else(|| text(map.get("createdOn"))).unwrap_or_default(),
            modified_by: modified_by.filter(|b| !b.is_empty()),
            description: filled(map.remove("description")),
            provider_data,
            references: filled(map.remove("variableGroupProjectReferences")).filter(|r| r.as_array().is_some_and(|a| !a.is_empty())),
            variables,
            fault,
        })
    }

    /// Fails on a group that was not read whole: a write replaces everything in it, so what the
    /// answer leaves out or garbles would be erased. The service never answers so; something in
    /// between may. Groups that hold no variables of their own are nobody's to write anyway.
    pub fn sound(&self) -> Result<(), ApiError> {
        let Some(fault) = self.fault.as_ref().filter(|_| self.plain()) else { return Ok(()) };
        let text = format!("the variable group {:?} was not read whole: {fault}", brief(&self.name, 80));
        Err(ApiError::new(ErrorKind::NotTheService, SERVICE, text)
            .advice("A write would erase what the answer left out, so none is sent. Check the connection's endpoint and the proxies on the way."))
    }

    /// The group of an answer; `None` for the `null` that means "no such group". The answer to a
    /// write may leave things out, so whether it is [`Self::sound`] is the caller's to ask.
    pub fn of(answer: &Answer) -> Result<Option<Self>, ApiError> {
        match answer.json::<Value>(SERVICE)? {
            Value::Null => Ok(None),
            value => Self::parse(value).map(Some).ok_or_else(|| odd(answer, "a variable group")),
        }
    }

    /// The groups of a list's page.
    pub fn list(answer: &Answer, tally: &mut Tally) -> Result<Vec<Self>, ApiError> {
        let parsed = |g| Self::parse(g).ok_or_else(|| odd(answer, "a list of variable groups"));
        tally.page(answer, "a list of variable groups")?.into_iter().map(parsed).collect()
    }

    /// True for groups that hold their variables themselves.
    pub fn plain(&self) -> bool {
        self.kind.eq_ignore_ascii_case("Vsts")
    }
}

/// The token of the next page of a list, where there is one.
pub(super) fn continuation(answer: &Answer) -> Option<String> {
    answer.header("x-ms-continuationtoken").map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned)
}

/// Counts what the pages of a list bring against what they say they bring.
#[derive(Default)]
pub(super) struct Tally {
    came: u64,
    said: u64,
}

impl Tally {
    /// The `value` array every page is wrapped in.
    pub fn page(&mut self, answer: &Answer, what: &str) -> Result<Vec<Value>, ApiError> {
        let Value::Object(mut map) = answer.json::<Value>(SERVICE)? else { return Err(odd(answer, what)) };
        let Some(Value::Array(items)) = map.remove("value") else { return Err(odd(answer, what)) };
        self.came += items.len() as u64;
        self.said = self.said.max(map.get("count").and_then(Value::as_u64).unwrap_or_default());
        Ok(items)
    }

    /// Fails when less came than was said, at the end of the list.
    pub fn complete(&self, what: &str) -> Result<(), ApiError> {
        if self.said <= self.came {
            return Ok(());
        }
        Err(ApiError::new(ErrorKind::NotTheService, SERVICE, format!("the list of {what} is incomplete: {} of {} came", self.came, self.said))
            .advice("Nothing was written. Check the connection's endpoint and the proxies on the way."))
    }
}

fn odd(answer: &Answer, what: &str) -> ApiError {
    ApiError::new(ErrorKind::NotTheService, SERVICE, format!("the answer is not {what} as the API documents it"))
        .status(answer.status)
        .advice("Check the connection's endpoint; a proxy or another product may answer there.")
}

/// What is wrong with a stored entry; `None` when it can be carried.
fn oddity(entry: &Value) -> Option<&'static str> {
    let Value::Object(entry) = entry else { return Some("is no object") };
    match (entry.get("isSecret"), entry.get("value")) {
        (Some(flag), _) if !flag.is_boolean() && !flag.is_null() => Some("has an isSecret that is neither true nor false"),
        (_, Some(value)) if !value.is_string() && !value.is_null() => Some("has a value that is no text"),
        _ => None,
    }
}

/// True for a stored entry whose value is hidden. The flag is absent when false.
pub(super) fn is_secret(entry: &Value) -> bool {
    entry.get("isSecret").and_then(Value::as_bool).unwrap_or(false)
}

/// One variable of the body.
#[derive(Clone)]
pub(super) enum Slot {
    /// Not ours, or left as it is: a secret without `value`, which keeps it; anything else whole.
    Carried(Value),
    /// Ours: a secret with its value, and whatever other members the stored entry had.
    Ours { rest: Map, value: SecretValue },
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Carried(_) => "Carried",
            Self::Ours { .. } => "Ours",
        })
    }
}

impl Slot {
    /// What to send so that a stored entry stays exactly as it is.
    pub fn carry(entry: &Value) -> Self {
        match entry {
            Value::Object(map) if is_secret(entry) => Self::Carried(Value::Object(without(map, &["value"]))),
            other => Self::Carried(other.clone()),
        }
    }

    /// What to send for a value of ours, over the stored entry when there is one.
    pub fn ours(stored: Option<&Value>, value: SecretValue) -> Self {
        let rest = stored.and_then(Value::as_object).map(|m| without(m, &["value", "isSecret"])).unwrap_or_default();
        Self::Ours { rest, value }
    }
}

fn without(map: &Map, members: &[&str]) -> Map {
    map.iter().filter(|(k, _)| !members.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

impl Serialize for Slot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Carried(value) => value.serialize(serializer),
            Self::Ours { rest, value } => {
                let mut map = serializer.serialize_map(Some(rest.len() + 2))?;
                map.serialize_entry("isSecret", &true)?;
                map.serialize_entry("value", value.expose())?;
                for (name, member) in rest {
                    map.serialize_entry(name, member)?;
                }
                map.end()
            }
        }
    }
}

/// The six members a write takes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Body<'a> {
    pub name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<&'a Value>,
    #[serde(rename = "type")]
    pub kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_data: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variable_group_project_references: Option<&'a Value>,
    pub variables: &'a BTreeMap<String, Slot>,
}

impl Body<'_> {
    /// The JSON text in one allocation that is wiped: its size is counted first, so that no
    /// half-filled copy stays behind in memory.
    pub fn bytes(&self) -> Result<bytes::Bytes, ApiError> {
        let failed =
            |e: serde_json::Error| ApiError::new(ErrorKind::Invalid, SERVICE, format!("the request could not be written ({:?})", e.classify()));
        let mut counter = Counter(0);
        serde_json::to_writer(&mut counter, self).map_err(failed)?;
        let mut text = Zeroizing::new(Vec::with_capacity(counter.0));
        serde_json::to_writer(&mut *text, self).map_err(failed)?;
        Ok(bytes::Bytes::from_owner(text))
    }
}

struct Counter(usize);

impl std::io::Write for Counter {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0 += buf.len();
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The reference a group has in its project. Its name must be the group's own.
pub(super) fn reference(project: &str, name: &str, description: Option<&Value>) -> Value {
    let mut reference = serde_json::json!({"name": name, "projectReference": {"id": project}});
    if let Some(description) = description {
        reference["description"] = description.clone();
    }
    Value::Array(vec![reference])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_texts_hold_names_and_no_values() {
        let group = serde_json::json!({"id": 7, "name": "prod", "variables": {"THEIRS": {"value": "canary"}}});
        let group = Group::parse(group).expect("a group");
        let slots = [Slot::carry(&group.variables["THEIRS"]), Slot::ours(None, SecretValue::new("canary"))];
        let text = format!("{group:?} {slots:?}");
        assert!(text.contains("THEIRS") && !text.contains("canary"), "{text}");
    }

    #[test]
    fn entries_are_carried_whole_and_secrets_without_a_value() {
        for (stored, sent) in [
            (r#"{"isSecret":true,"value":null}"#, r#"{"isSecret":true}"#),
            (r#"{"isReadOnly":true,"isSecret":true}"#, r#"{"isReadOnly":true,"isSecret":true}"#),
            (r#"{"value":"v"}"#, r#"{"value":"v"}"#),
            (
                r#"{"contentType":"x","enabled":true,"new":[1,{"a":null}],"value":null}"#,
                r#"{"contentType":"x","enabled":true,"new":[1,{"a":null}],"value":null}"#,
            ),
        ] {
            let stored: Value = serde_json::from_str(stored).expect("json");
            assert_eq!(serde_json::to_string(&Slot::carry(&stored)).expect("json"), sent);
        }
        let stored = serde_json::json!({"value": "old", "isReadOnly": true});
        let slot = Slot::ours(Some(&stored), SecretValue::new("a\"\n"));
        assert_eq!(serde_json::to_string(&slot).expect("json"), r#"{"isSecret":true,"value":"a\"\n","isReadOnly":true}"#);
        assert!(!format!("{slot:?}").contains("a\\\""), "Debug shows no value");
    }

    #[test]
    fn groups_are_read_with_what_may_be_absent() {
        let group = Group::parse(serde_json::json!({"id": 3, "name": "g", "variables": {"A": {"value": null, "isSecret": true}},
            "modifiedOn": "2017-12-12T06:35:52.08Z", "variableGroupProjectReferences": [], "description": null}))
        .expect("a group");
        assert!(group.plain() && group.references.is_none() && group.description.is_none());
        assert_eq!(group.modified_on, "2017-12-12T06:35:52.08Z");
        for bad in [serde_json::json!({"id": "x"}), serde_json::json!([]), serde_json::json!({"id": 1, "variables": {}})] {
            assert!(Group::parse(bad).is_none());
        }
    }

    #[test]
    fn only_a_group_that_was_read_whole_is_sound() {
        let group = |more: Value| {
            let mut group = serde_json::json!({"id": 1, "name": "g", "type": "Vsts", "variables": {"A": {"value": "v"}}});
            for (member, value) in more.as_object().expect("members") {
                group[member] = value.clone();
            }
            Group::parse(group).expect("a group").sound()
        };
        for good in [
            serde_json::json!({}),
            serde_json::json!({"variables": {}}),
            serde_json::json!({"variables": {"A": {"isSecret": null, "value": null}, "B": {}}}),
            // Not ours to write, so not ours to judge.
            serde_json::json!({"variables": null, "type": "AzureKeyVault"}),
        ] {
            group(good.clone()).unwrap_or_else(|e| panic!("{good}: {e}"));
        }
        for (bad, word) in [
            (serde_json::json!({"variables": null}), "without its variables"),
            (serde_json::json!({"variables": []}), "not the object"),
            (serde_json::json!({"variables": "A"}), "not the object"),
            (serde_json::json!({"variables": {"A": null}}), "\"A\" is no object"),
            (serde_json::json!({"variables": {"A": "v"}}), "\"A\" is no object"),
            (serde_json::json!({"variables": {"A": {"isSecret": "true"}}}), "neither true nor false"),
            (serde_json::json!({"variables": {"A": {"value": 1}}}), "no text"),
            (serde_json::json!({"type": null}), "without its type"),
            (serde_json::json!({"type": 1}), "without its type"),
        ] {
            let error = group(bad.clone()).expect_err("not whole");
            assert!(error.text().contains(word) && error.text().contains("none is sent"), "{bad}: {error}");
        }
        let bare = Group::parse(serde_json::json!({"id": 1, "name": "g"})).expect("a group");
        assert!(bare.sound().is_err());
        let linked = Group::parse(serde_json::json!({"id": 1, "name": "g", "variables": {}, "providerData": {"vault": "v"}})).expect("a group");
        assert!(linked.sound().expect_err("of what type?").text().contains("type"));
    }

    #[test]
    fn a_body_has_the_six_members_only() {
        let variables = BTreeMap::from([("A".to_string(), Slot::ours(None, SecretValue::new("v")))]);
        let references = reference("p", "g", None);
        let body = Body {
            name: "g",
            description: None,
            kind: "Vsts",
            provider_data: None,
            variable_group_project_references: Some(&references),
            variables: &variables,
        };
        let text = String::from_utf8(body.bytes().expect("bytes").to_vec()).expect("text");
        assert_eq!(
            text,
            r#"{"name":"g","type":"Vsts","variableGroupProjectReferences":[{"name":"g","projectReference":{"id":"p"}}],"variables":{"A":{"isSecret":true,"value":"v"}}}"#
        );
    }
}
