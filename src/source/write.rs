//! The way back: keys that an import writes into the folder.
//!
//! Batches of at most 100 items and 512 KiB, one after another. A batch fails as a whole for
//! one bad name, so a refused batch is divided until the bad ones stand alone. A change
//! policy on the path turns a write into a request for approval, which is an outcome.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Api, Kms};
use super::errors::{Refusal, SERVICE};
use super::list::Ask;
use super::shapes::{Row, tidy};
use super::wire::Call;
use super::{SourceRef, SourceWrite, WriteOutcome};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::SecretValue;
use crate::model::text::brief;

/// Items of one batch.
const MOST_ITEMS: usize = 100;
/// Bytes of keys and values in one batch (escaping is allowed for by the server's own limit).
const MOST_BYTES: usize = 512 * 1024;
/// Single refusals in a row, without a success, after which the rest is taken to fail alike.
const HOPELESS: usize = 5;

/// White space as ECMAScript trims it: the byte order mark counts, NEXT LINE does not
/// (ECMA-262, `String.prototype.trim`).
fn white(c: char) -> bool {
    c == '\u{feff}' || (c.is_whitespace() && c != '\u{85}')
}

/// What the server keeps of a value: it trims the outer white space of every written value,
/// and a value that ends with a line break keeps one.
pub fn stored_form(value: &str) -> Cow<'_, str> {
    let trimmed = value.trim_matches(white);
    if !value.ends_with('\n') {
        return Cow::Borrowed(trimmed);
    }
    let start = value.len() - value.trim_start_matches(white).len();
    match value.get(start..start + trimmed.len() + 1) {
        Some(kept) if kept.ends_with('\n') && !trimmed.is_empty() => Cow::Borrowed(kept),
        _ => Cow::Owned(format!("{trimmed}\n")),
    }
}

/// Change requests this session made and has not seen merged or closed.
#[derive(Default)]
pub(super) struct Pending(Mutex<HashMap<(SourceRef, String), Request>>);

#[derive(Clone)]
struct Request {
    id: String,
    slug: String,
    value: SecretValue,
}

/// One batch's answer.
enum Answered {
    Done,
    Approval { id: String, slug: String },
}

struct Progress<'w> {
    outcomes: Vec<(String, WriteOutcome)>,
    failed_in_row: usize,
    at: &'w SourceRef,
    /// The project's slug, which old servers want in batches.
    slug: Option<String>,
}

impl Kms {
    /// Writes all keys and says what became of each.
    pub async fn write_all(&self, cx: &Cx, at: &SourceRef, writes: &[SourceWrite]) -> Result<Vec<(String, WriteOutcome)>, ApiError> {
        let mut progress = Progress { outcomes: Vec::with_capacity(writes.len()), failed_in_row: 0, at, slug: None };
        writes.iter().for_each(|w| cx.redactor().learn(&w.value));
        let mut rest = Vec::new();
        for write in writes {
            match self.still_open(cx, at, write).await? {
                Some(slug) => progress.outcomes.push((write.key.clone(), WriteOutcome::AwaitsApproval(slug))),
                None => rest.push(write),
            }
        }
        if rest.is_empty() {
            return Ok(progress.outcomes);
        }
        if self.api() == Api::Unknown {
            // One cheap question tells which batch routes exist, before anything is written.
            self.list(cx, Ask::stored(at)).await?;
        }
        if self.api() == Api::V3 {
            progress.slug = self.project(cx, &at.project_id).await?.and_then(|p| p.slug);
        }
        let (creates, updates): (Vec<_>, Vec<_>) = rest.into_iter().partition(|w| w.create);
        for chunk in chunks(&creates) {
            self.create(cx, &mut progress, chunk).await?;
        }
        for chunk in chunks(&updates) {
            self.halve(cx, &mut progress, chunk, false).await?;
        }
        Ok(progress.outcomes)
    }

    /// Creates a chunk. When some of it exists by now, the folder is listed anew and the chunk
    /// divided into creations, updates and what is as wanted already.
    async fn create(&self, cx: &Cx, progress: &mut Progress<'_>, chunk: &[&SourceWrite]) -> Result<(), ApiError> {
        match self.batch(cx, progress, chunk, true).await {
            Ok(answered) => {
                self.note(progress, chunk, &answered);
                Ok(())
            }
            Err(refusal) if refusal.already_there() || refusal.error.ambiguous => self.resolve_conflict(cx, progress, chunk).await,
            Err(refusal) => self.divide(cx, progress, chunk, true, refusal).await,
        }
    }

    async fn resolve_conflict(&self, cx: &Cx, progress: &mut Progress<'_>, chunk: &[&SourceWrite]) -> Result<(), ApiError> {
        let now = self.list(cx, Ask { recursive: false, ..Ask::stored(progress.at) }).await?;
        let have: HashMap<&str, &Row> = now.secrets.iter().filter(|r| r.shared()).map(|r| (r.secret_key.as_str(), r)).collect();
        let (mut missing, mut different) = (Vec::new(), Vec::new());
        for write in chunk {
            match have.get(write.key.trim()) {
                None => missing.push(*write),
                Some(row) if row.secret_value.as_ref().is_some_and(|v| stored_form(v.0.expose()) == stored_form(write.value.expose())) => {
                    progress.outcomes.push((write.key.clone(), WriteOutcome::Done));
                }
                Some(_) if write.yields => {
                    let why = "the KMS got a value for it while the import was going, and that one stays".to_string();
                    progress.outcomes.push((write.key.clone(), WriteOutcome::Failed(why)));
                }
                Some(_) => different.push(*write),
            }
        }
        for part in chunks(&missing) {
            Box::pin(self.halve(cx, progress, part, true)).await?;
        }
        for part in chunks(&different) {
            Box::pin(self.halve(cx, progress, part, false)).await?;
        }
        Ok(())
    }

    async fn halve(&self, cx: &Cx, progress: &mut Progress<'_>, chunk: &[&SourceWrite], create: bool) -> Result<(), ApiError> {
        if chunk.is_empty() {
            return Ok(());
        }
        if progress.failed_in_row >= HOPELESS
            && let Some((_, WriteOutcome::Failed(why))) = progress.outcomes.last()
        {
            let why = why.clone();
            progress.outcomes.extend(chunk.iter().map(|w| (w.key.clone(), WriteOutcome::Failed(why.clone()))));
            return Ok(());
        }
        match self.batch(cx, progress, chunk, create).await {
            Ok(answered) => {
                self.note(progress, chunk, &answered);
                Ok(())
            }
            Err(refusal) => self.divide(cx, progress, chunk, create, refusal).await,
        }
    }

    /// A refused chunk: what concerns the whole account ends the writing, the rest is halved
    /// until the bad names stand alone.
    async fn divide(&self, cx: &Cx, progress: &mut Progress<'_>, chunk: &[&SourceWrite], create: bool, refusal: Refusal) -> Result<(), ApiError> {
        if refusal.kind().whole_connection() && progress.outcomes.is_empty() {
            return Err(refusal.into());
        }
        let settled =
            matches!(refusal.kind(), ErrorKind::Invalid | ErrorKind::Permission | ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::Quota);
        if chunk.len() == 1 || !settled {
            progress.failed_in_row += 1;
            let why = refusal.error.text();
            progress.outcomes.extend(chunk.iter().map(|w| (w.key.clone(), WriteOutcome::Failed(why.clone()))));
            return Ok(());
        }
        let (left, right) = chunk.split_at(chunk.len() / 2);
        Box::pin(self.halve(cx, progress, left, create)).await?;
        Box::pin(self.halve(cx, progress, right, create)).await
    }

    fn note(&self, progress: &mut Progress<'_>, chunk: &[&SourceWrite], answered: &Answered) {
        progress.failed_in_row = 0;
        let mut pending = self.pending.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for write in chunk {
            let outcome = match answered {
                Answered::Done => WriteOutcome::Done,
                Answered::Approval { id, slug } => {
                    let request = Request { id: id.clone(), slug: slug.clone(), value: write.value.clone() };
                    pending.insert((progress.at.clone(), write.key.clone()), request);
                    WriteOutcome::AwaitsApproval(waiting(slug))
                }
            };
            progress.outcomes.push((write.key.clone(), outcome));
        }
    }

    /// Sends one batch.
    async fn batch(&self, cx: &Cx, progress: &Progress<'_>, chunk: &[&SourceWrite], create: bool) -> Result<Answered, Refusal> {
        let at = progress.at;
        // Comments are left alone: none is sent.
        let secrets: Vec<Value> = chunk.iter().map(|w| json!({ "secretKey": w.key, "secretValue": w.value.expose() })).collect();
        let mut body = json!({ "environment": at.environment, "secretPath": tidy(&at.path), "secrets": secrets });
        let (path, labels) = if self.api() == Api::V3 {
            // Old batches know only the slug, newer ones either; other members are ignored.
            body["workspaceId"] = at.project_id.clone().into();
            if let Some(slug) = &progress.slug {
                body["projectSlug"] = slug.clone().into();
            }
            ("api/v3/secrets/batch/raw", ["POST /api/v3/secrets/batch/raw", "PATCH /api/v3/secrets/batch/raw"])
        } else {
            body["projectId"] = at.project_id.clone().into();
            ("api/v4/secrets/batch", ["POST /api/v4/secrets/batch", "PATCH /api/v4/secrets/batch"])
        };
        let body = body.to_string();
        let call = if create {
            // A creation whose answer was lost may stand: the folder is listed before another try.
            Call::with_body(Method::POST, labels[0], path, body).once_only()
        } else {
            Call::with_body(Method::PATCH, labels[1], path, body)
        };
        let answer: Value = self.call(cx, &call).await?.json(SERVICE)?;
        Ok(match answer.get("approval").filter(|a| a.is_object()) {
            Some(approval) => {
                let word = |key: &str| approval.get(key).and_then(Value::as_str).unwrap_or_default();
                Answered::Approval { id: word("id").to_string(), slug: brief(word("slug"), 80) }
            }
            None => Answered::Done,
        })
    }

    /// The slug of a change request of ours for the same key and value that is still open: a
    /// second one would only be in the approvers' way.
    async fn still_open(&self, cx: &Cx, at: &SourceRef, write: &SourceWrite) -> Result<Option<String>, ApiError> {
        let place = (at.clone(), write.key.clone());
        let known = {
            let pending = self.pending.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            pending.get(&place).filter(|r| r.value.same_as(&write.value)).cloned()
        };
        let Some(request) = known else { return Ok(None) };
        let call = Call::get("GET /api/v1/secret-approval-requests/{id}", "api/v1/secret-approval-requests").segment(&request.id);
        let open = match self.call(cx, &call).await {
            Ok(answer) => {
                let body: Value = answer.json(SERVICE)?;
                let merged = body.pointer("/approval/hasMerged").and_then(Value::as_bool).unwrap_or(false);
                !merged && body.pointer("/approval/status").and_then(Value::as_str).is_none_or(|s| s == "open")
            }
            // Who may not look at it (or where it is gone) asks anew.
            Err(refusal) if matches!(refusal.kind(), ErrorKind::Permission | ErrorKind::NotFound) => false,
            Err(refusal) => return Err(refusal.into()),
        };
        if open {
            return Ok(Some(waiting(&request.slug)));
        }
        self.pending.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&place);
        Ok(None)
    }
}

fn waiting(slug: &str) -> String {
    format!("change request {slug} created, waiting for approval")
}

/// Cuts by number and size; one oversized item stands alone. A name occurs once in a batch.
fn chunks<'w, 's>(writes: &'s [&'w SourceWrite]) -> Vec<&'s [&'w SourceWrite]> {
    let mut out = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    let mut names = HashSet::new();
    for (i, write) in writes.iter().enumerate() {
        let size = write.key.len() + write.value.len() + 64;
        if i > start && (i - start >= MOST_ITEMS || bytes + size > MOST_BYTES || names.contains(write.key.as_str())) {
            out.push(&writes[start..i]);
            (start, bytes) = (i, 0);
            names.clear();
        }
        bytes += size;
        names.insert(write.key.as_str());
    }
    if start < writes.len() {
        out.push(&writes[start..]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &str, bytes: usize) -> SourceWrite {
        SourceWrite { key: key.into(), value: SecretValue::new("x".repeat(bytes)), create: true, yields: false }
    }

    #[test]
    fn batches_are_cut_by_number_and_size() {
        let many: Vec<_> = (0..250).map(|i| write(&format!("K{i}"), 10)).collect();
        let refs: Vec<_> = many.iter().collect();
        assert_eq!(chunks(&refs).iter().map(|c| c.len()).collect::<Vec<_>>(), [100, 100, 50]);
        let big: Vec<_> = (0..4).map(|i| write(&format!("K{i}"), 300 * 1024)).collect();
        assert_eq!(chunks(&big.iter().collect::<Vec<_>>()).len(), 4);
        let twice = [write("A", 1), write("A", 2)];
        assert_eq!(chunks(&twice.iter().collect::<Vec<_>>()).len(), 2);
        assert!(chunks(&[]).is_empty());
    }

    #[test]
    fn the_servers_trimming_is_known() {
        for (given, kept) in [
            ("a", "a"),
            (" a ", "a"),
            ("a\n", "a\n"),
            ("a\n\n", "a\n"),
            ("\n a \n", "a\n"),
            ("", ""),
            ("\n", "\n"),
            ("a\r\n", "a\n"),
            ("\u{feff}a\u{a0}", "a"),
            ("\u{85}a", "\u{85}a"),
            ("a\r\nb", "a\r\nb"),
        ] {
            assert_eq!(stored_form(given), kept, "{given:?}");
        }
    }
}
