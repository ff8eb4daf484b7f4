//! Page envelopes and partial responses.

use axum::response::Response;
use serde_json::{Value, json};

use super::answers;
use super::world::Next;

/// Page size unless asked, and the largest.
const DEFAULT: usize = 10;
const LARGEST: usize = 100;

/// Query parameters, decoded.
#[derive(Debug, Default, Clone)]
pub struct Query(pub Vec<(String, String)>);

impl Query {
    pub fn parse(text: Option<&str>) -> Self {
        Self(url::form_urlencoded::parse(text.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// How a list is cut.
pub struct Cut<'a> {
    pub query: &'a Query,
    /// The list's own address.
    pub href: String,
    pub next: &'a Next,
    pub ignores_pagelen: bool,
    pub no_size: bool,
    /// `pagelen` in the answer is the page's row count (the Pipelines service), not the size asked for.
    pub counts_rows: bool,
}

/// One page of `rows`. The second value is true when it is the first of several.
pub fn page(rows: &[Value], cut: &Cut<'_>) -> Result<(Value, bool), Box<Response>> {
    let bad = |what: &str| Box::new(answers::detailed(400, "Bad request", what));
    let mut pagelen = match cut.query.get("pagelen") {
        None => DEFAULT,
        Some(text) => text.parse().ok().filter(|n| (1..=LARGEST).contains(n)).ok_or_else(|| bad("Invalid pagelen"))?,
    };
    if cut.ignores_pagelen {
        pagelen = DEFAULT;
    }
    let opaque = *cut.next == Next::Opaque;
    let number: usize = match cut.query.get("page") {
        Some(text) if !opaque => text.parse().ok().filter(|n| *n >= 1).ok_or_else(|| bad("Invalid page"))?,
        _ => match cut.query.get("after").filter(|_| opaque) {
            Some(token) => token.strip_prefix("t0k~").and_then(|n| n.parse().ok()).ok_or_else(|| bad("Invalid page token"))?,
            None => 1,
        },
    };
    let from = (number - 1).saturating_mul(pagelen).min(rows.len());
    let values = &rows[from..(from + pagelen).min(rows.len())];
    let more = from + values.len() < rows.len();
    let mut body = json!({"page": number, "pagelen": if cut.counts_rows { values.len() } else { pagelen }, "values": values});
    if !cut.no_size {
        body["size"] = rows.len().into();
    }
    if opaque && let Some(object) = body.as_object_mut() {
        object.remove("page");
    }
    let link = |host: &str, set: &[(&str, String)]| {
        let mut out = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in cut.query.0.iter().filter(|(n, _)| !set.iter().any(|(s, _)| s == n)) {
            out.append_pair(name, value);
        }
        out.extend_pairs(set);
        format!("{host}?{}", out.finish())
    };
    let next = match cut.next {
        Next::Absent => None,
        Next::Stuck if more => Some(link(&cut.href, &[("page", number.to_string())])),
        Next::Honest if more => Some(link(&cut.href, &[("page", (number + 1).to_string())])),
        Next::Opaque if more => Some(link(&cut.href, &[("after", format!("t0k~{}", number + 1))])),
        Next::Foreign(host) if more => Some(link(&format!("{host}/2.0/elsewhere"), &[("page", (number + 1).to_string())])),
        _ => None,
    };
    if let Some(next) = next {
        body["next"] = next.into();
    }
    if number > 1 && *cut.next == Next::Honest {
        body["previous"] = link(&cut.href, &[("page", (number - 1).to_string())]).into();
    }
    Ok((body, number == 1 && more))
}

/// Cuts an object down to the paths that `fields` names.
pub fn partial(body: Value, query: &Query) -> Value {
    let Some(fields) = query.get("fields").filter(|f| !f.contains(['+', '-', '*'])) else { return body };
    let paths: Vec<Vec<&str>> = fields.split(',').map(|f| f.trim().split('.').collect()).collect();
    let paths: Vec<&[&str]> = paths.iter().map(Vec::as_slice).collect();
    pick(body, &paths)
}

fn pick(value: Value, paths: &[&[&str]]) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(|item| pick(item, paths)).collect()),
        Value::Object(map) => {
            let kept = map.into_iter().filter_map(|(name, inner)| {
                let below: Vec<&[&str]> = paths.iter().filter(|p| p.first() == Some(&name.as_str())).map(|p| &p[1..]).collect();
                if below.is_empty() {
                    return None;
                }
                let whole = below.iter().any(|p| p.is_empty());
                Some((name, if whole { inner } else { pick(inner, &below) }))
            });
            Value::Object(kept.collect())
        }
        other => other,
    }
}
