//! The documents that commands are given.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::model::{Problems, json};
use crate::service::ServiceError;

/// Reads a document from a file or standard input.
pub fn document(path: &Path) -> Result<Value, ServiceError> {
    let bad = |member: &str, rule: &str, text: String| {
        let mut problems = Problems::default();
        problems.add(member, rule, text);
        ServiceError::from(problems)
    };
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().lock().take(1 << 24).read_to_string(&mut text).map_err(|e| bad("", "readable", format!("standard input: {e}")))?;
        text
    } else {
        std::fs::read_to_string(path).map_err(|e| bad("", "readable", format!("{}: {e}", path.display())))?
    };
    json::parse(&text).map_err(|e| match &e.duplicate {
        Some(member) => bad(member, "unique", e.to_string()),
        None => bad("", "json", format!("not valid JSON: {e}")),
    })
}
