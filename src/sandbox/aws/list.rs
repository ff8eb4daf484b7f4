//! ListSecrets with filters, sorting and page tokens, and BatchGetSecretValue.

use base64::Engine as _;
use serde_json::{Value, json};

use super::input::{Call, Refusal, refuse};
use super::read::value;
use super::world::World;

const NAMES: &[&str] = &["description", "name", "tag-key", "tag-value", "primary-region", "owning-service", "all"];
const ORDERS: &[&str] = &["created-date", "last-accessed-date", "last-changed-date", "name"];

/// One filter: any of its values must fit.
struct Filter<'a> {
    key: &'a str,
    values: Vec<&'a str>,
}

fn filters<'a>(call: &Call<'a>) -> Result<Vec<Filter<'a>>, Refusal> {
    let invalid =
        |what: &str| refuse("ValidationException", format!("1 validation error detected: Value at 'filters' failed to satisfy constraint: {what}"));
    let list = call.list("Filters")?;
    if list.len() > 10 {
        return Err(invalid("Member must have length less than or equal to 10"));
    }
    list.iter()
        .map(|filter| {
            let key = filter.get("Key").and_then(Value::as_str).unwrap_or_default();
            if !NAMES.contains(&key) {
                return Err(invalid("Member must satisfy enum value set"));
            }
            let values: Vec<&str> = filter.get("Values").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
            if values.is_empty() || values.len() > 10 {
                return Err(invalid("Values must have 1 to 10 members"));
            }
            let legal = |v: &&str| {
                let rest = v.strip_prefix('!').unwrap_or(v);
                v.chars().count() <= 512 && rest.chars().all(|c| c.is_ascii_alphanumeric() || " :_@/+=.-!".contains(c))
            };
            if !values.iter().all(legal) {
                return Err(invalid("Member must satisfy regular expression pattern"));
            }
            Ok(Filter { key, values })
        })
        .collect()
}

impl Filter<'_> {
    fn fits(&self, entry: &Value) -> bool {
        self.values.iter().any(|value| match value.strip_prefix('!') {
            Some(rest) => !self.one(entry, rest),
            None => self.one(entry, value),
        })
    }

    /// Names, tags, regions and services by case-sensitive prefix; descriptions by words in any case.
    fn one(&self, entry: &Value, value: &str) -> bool {
        let text = |member: &str| entry.get(member).and_then(Value::as_str).unwrap_or_default();
        let tags = |member: &str| {
            let list = entry.get("Tags").and_then(Value::as_array).into_iter().flatten();
            list.filter_map(|t| t.get(member)?.as_str()).any(|t| t.starts_with(value))
        };
        let words = |text: &str| {
            let text = text.to_lowercase();
            value.to_lowercase().split_whitespace().all(|w| text.split(|c: char| !c.is_alphanumeric()).any(|t| t.starts_with(w)))
        };
        match self.key {
            "name" => text("Name").starts_with(value),
            "description" => words(text("Description")),
            "tag-key" => tags("Key"),
            "tag-value" => tags("Value"),
            "primary-region" => text("PrimaryRegion").starts_with(value),
            "owning-service" => text("OwningService").starts_with(value),
            _ => words(text("Name")) || words(text("Description")) || tags("Key") || tags("Value"),
        }
    }
}

/// A token names the place in the listing and the question it belongs to.
fn token(question: &str, position: usize) -> String {
    base64::engine::general_purpose::URL_SAFE.encode(format!("{position}|{question}"))
}

fn position(token: Option<&str>, question: &str) -> Result<Option<usize>, Refusal> {
    let Some(token) = token else { return Ok(None) };
    let decoded = base64::engine::general_purpose::URL_SAFE.decode(token).ok().and_then(|b| String::from_utf8(b).ok());
    let place = decoded.as_deref().and_then(|t| t.split_once('|')).filter(|(_, q)| *q == question).and_then(|(n, _)| n.parse().ok());
    place.map(Some).ok_or_else(|| refuse("InvalidNextTokenException", "Invalid NextToken."))
}

fn question(call: &Call<'_>) -> String {
    let part = |member: &str| call.input.get(member).cloned().unwrap_or(Value::Null);
    let text = json!([part("Filters"), part("SortBy"), part("SortOrder"), part("IncludePlannedDeletion"), part("SecretIdList")]).to_string();
    blake3::hash(text.as_bytes()).to_hex()[..16].to_string()
}

fn selected(world: &mut World, call: &Call<'_>) -> Result<Vec<Value>, Refusal> {
    let filters = filters(call)?;
    let planned = call.flag("IncludePlannedDeletion")?;
    let sort = call.text("SortBy", 0, 64)?.unwrap_or("created-date");
    let order = call.text("SortOrder", 0, 8)?.unwrap_or(if sort == "name" { "asc" } else { "desc" });
    if !ORDERS.contains(&sort) || !["asc", "desc"].contains(&order) {
        return Err(refuse(
            "ValidationException",
            "1 validation error detected: Value at 'sortBy' failed to satisfy constraint: Member must satisfy enum value set",
        ));
    }
    let mut entries = world.listing(call.region);
    entries.retain(|e| (planned || e.get("DeletedDate").is_none()) && filters.iter().all(|f| f.fits(e)));
    let name = |e: &Value| e["Name"].as_str().unwrap_or_default().to_string();
    let moment = |e: &Value, member: &str| e.get(member).and_then(Value::as_f64).unwrap_or_default();
    entries.sort_by(|a, b| {
        let by = match sort {
            "created-date" => moment(a, "CreatedDate").total_cmp(&moment(b, "CreatedDate")),
            "last-changed-date" => moment(a, "LastChangedDate").total_cmp(&moment(b, "LastChangedDate")),
            _ => std::cmp::Ordering::Equal,
        };
        by.then_with(|| name(a).cmp(&name(b)))
    });
    if order == "desc" {
        entries.reverse();
    }
    Ok(entries)
}

/// ListSecrets.
pub fn list_secrets(world: &mut World, call: &Call<'_>) -> Result<Value, Refusal> {
    world.allowed(call, "*")?;
    let size = call.page_size(100)?.min(world.page_cap.max(1));
    let question = question(call);
    let place = position(call.text("NextToken", 1, 4096)?, &question)?;
    let entries = selected(world, call)?;
    if place.is_none() && world.empty_first_page {
        return Ok(json!({ "SecretList": [], "NextToken": token(&question, 0) }));
    }
    let start = place.unwrap_or(0).min(entries.len());
    let end = (start + size).min(entries.len());
    let mut out = json!({ "SecretList": entries[start..end] });
    if end < entries.len() {
        out["NextToken"] = json!(token(&question, end));
    }
    Ok(out)
}

/// BatchGetSecretValue: by ids, or by filters with pages of at most 20.
pub fn batch_get(world: &mut World, call: &Call<'_>) -> Result<Value, Refusal> {
    world.allowed(call, "*")?;
    let invalid = |what: &str| refuse("InvalidParameterException", what.to_string());
    let (by_ids, by_filters) = (call.has("SecretIdList"), call.has("Filters"));
    let ids: Vec<String> = match (by_ids, by_filters) {
        (true, true) => return Err(invalid("Either 'SecretIdList' or 'Filters' must be provided, but not both.")),
        (false, false) => return Err(invalid("Either 'SecretIdList' or 'Filters' must be provided.")),
        (true, false) => {
            if call.has("MaxResults") {
                return Err(invalid("'Filters' not specified. 'Filters' must also be specified when 'MaxResults' is provided."));
            }
            let ids = call.list("SecretIdList")?;
            if !(1..=20).contains(&ids.len()) {
                return Err(invalid("'SecretIdList' must have 1 to 20 members."));
            }
            ids.iter().filter_map(|i| i.as_str().map(str::to_string)).collect()
        }
        (false, true) => selected(world, call)?.iter().filter_map(|e| e["ARN"].as_str().map(str::to_string)).collect(),
    };
    let question = question(call);
    let start = position(call.text("NextToken", 1, 4096)?, &question)?.unwrap_or(0).min(ids.len());
    let size = if by_ids { 20 } else { call.page_size(20)? };
    let end = (start + size).min(ids.len());
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for id in &ids[start..end] {
        let short = id.rsplit(":secret:").next().unwrap_or(id);
        let read = world.permits(call, "GetSecretValue", short).and_then(|()| value(world, call, id, None, "AWSCURRENT"));
        match read {
            Ok(found) => values.push(Value::Object(found)),
            Err(e) => errors.push(json!({ "SecretId": id, "ErrorCode": e.code, "Message": e.message })),
        }
    }
    let mut out = json!({ "SecretValues": values, "Errors": errors });
    if end < ids.len() {
        out["NextToken"] = json!(token(&question, end));
    }
    Ok(out)
}
