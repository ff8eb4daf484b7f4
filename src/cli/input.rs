//! What commands are given: documents, and a person's agreement.

use std::io::{IsTerminal, Read};
use std::path::Path;

use serde_json::Value;

use super::output::note;
use crate::model::{Problems, json};
use crate::service::{ServiceError, ServiceErrorKind};

/// Reads a document from a file or standard input.
pub fn document(path: &Path) -> Result<Value, ServiceError> {
    let bad = |member: &str, rule: &str, text: String| ServiceError::from(Problems::one(member, rule, text));
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

/// Asks on a terminal; refuses without `--yes` elsewhere.
pub fn confirm(yes: bool, question: &str, word: &str) -> Result<(), ServiceError> {
    if yes {
        return Ok(());
    }
    let refuse = |text: String| Err(ServiceError::new(ServiceErrorKind::Invalid, text));
    if !std::io::stdin().is_terminal() {
        return refuse(format!("{question} Nobody can be asked here: give --yes."));
    }
    note(&format!("{question} Type {word} to go on:"));
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line).is_err() || line.trim() != word {
        return refuse("Nothing was done.".into());
    }
    Ok(())
}
