//! Many-to-one: the read-modify-write of the one secret.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::call::{Pace, most_attempts};
use super::document::{Object, Seen};
use super::facts::Detail;
use super::lanes::Lane;
use super::object::{Member, Members, overflow, render, same};
use super::ops::{Listed, Removal, overtaken};
use super::pauses::NamePauses;
use super::spec::SERVICE;
use crate::destination::{Batch, BatchWritten, Document, Op, Written};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::plan::Action;
use crate::model::{SecretValue, Time};

/// A description younger than this is good enough to write on; a wait makes it older.
const FRESH: Duration = Duration::from_secs(2);

#[async_trait]
impl Document for Object {
    async fn apply(&self, cx: &Cx, batch: &Batch<'_>) -> Result<BatchWritten, ApiError> {
        let Some(first) = batch.changes.first() else { return Ok(BatchWritten::default()) };
        self.api.turn(cx, Lane::Put).await?;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let seen = match seen {
            Some(seen) if seen.at.elapsed() < FRESH => seen,
            old => {
                let listed = self.describe(cx).await?;
                let version = |l: &Option<Listed>| l.as_ref().and_then(|l| l.current.clone());
                let keys = old.filter(|o| version(&o.listed).is_some() && version(&o.listed) == version(&listed)).and_then(|o| o.keys);
                Seen { listed, keys, at: Instant::now() }
            }
        };
        let mut detail = self.detail();
        let result = match seen.listed {
            None => self.create(cx, batch, first, &mut detail).await?,
            Some(there) => self.change(cx, batch, first, there, seen.keys, &mut detail).await?,
        };
        self.shared.remember(&format!("detail|{}", self.name), detail.json());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(outcomes(batch, result, &detail))
    }
}

/// What became of the object.
struct Done {
    arn: String,
    version: Option<String>,
    untouched: bool,
    note: Option<String>,
}

fn outcomes(batch: &Batch<'_>, done: Done, detail: &Detail) -> BatchWritten {
    let written = Written {
        id: Some(done.arn.clone()),
        stamp: done.version.clone(),
        detail: detail.json(),
        untouched: done.untouched,
        note: done.note,
        ..Written::default()
    };
    BatchWritten {
        outcomes: batch.changes.iter().map(|op| (op.key.to_string(), Ok(written.clone()))).collect(),
        stamp: done.version,
        id: Some(done.arn),
    }
}

impl Object {
    async fn create(&self, cx: &Cx, batch: &Batch<'_>, first: &Op<'_>, detail: &mut Detail) -> Result<Done, ApiError> {
        let members = wanted(Members::new(), batch);
        if members.is_empty() {
            return Ok(Done { arn: self.name.clone(), version: None, untouched: true, note: Some("the secret was gone already".into()) });
        }
        let text = self.fitting(&members)?;
        let mut pauses = NamePauses::default();
        let (arn, version) = loop {
            let error = match self.api.create(cx, &self.name, first.token, &text, self.config.key_for_create(), &self.config.tags).await {
                Ok(made) => break made,
                Err(e) if e.kind == ErrorKind::Conflict => e,
                Err(e) => return Err(e),
            };
            match self.describe(cx).await? {
                Some(there) if there.current.as_deref() == Some(first.token) => break (there.arn, first.token.to_string()),
                Some(there) if there.deleted => return self.change(cx, batch, first, there, None, detail).await,
                // Made by somebody else since the description: the next run reads and plans it.
                Some(_) => return Err(error),
                None => pauses.wait(cx, &self.name, error).await?,
            }
        };
        self.remember(&version, &members);
        *detail = Detail::created(&self.config.tags, self.config.key_text.as_deref());
        Ok(Done { arn, version: Some(version), untouched: false, note: None })
    }

    async fn change(
        &self,
        cx: &Cx,
        batch: &Batch<'_>,
        first: &Op<'_>,
        there: Listed,
        keys: Option<BTreeSet<String>>,
        detail: &mut Detail,
    ) -> Result<Done, ApiError> {
        let only_deletes = batch.changes.iter().all(|op| op.action == Action::Delete);
        if there.deleted {
            if only_deletes && batch.desired.is_empty() {
                return Ok(Done { arn: there.arn, version: None, untouched: true, note: Some("its deletion was scheduled already".into()) });
            }
            // A restore of what is not ours was planned, shown and agreed to.
            let agreed = batch.changes.iter().any(|op| op.action == Action::Restore);
            if batch.ledger.rows.is_empty() && !self.shared.deleted_recently(&there.arn) && !agreed {
                return Err(self
                    .conflict("is scheduled for deletion, and this sync never wrote it")
                    .advice("Run again: the plan then asks before it is restored. Or choose another Secret Name."));
            }
            self.restore(cx, &there.arn).await?;
        }
        let (mut there, mut keys, mut attempt, mut unsure) = (there, keys, 1, false);
        let mut done = loop {
            let base = self.base(cx, batch, &there, keys.clone()).await?;
            let members = wanted(base.clone().unwrap_or_default(), batch);
            let pace = Pace::Prompt { again: attempt > 1 };
            // Nothing is left in a secret that this sync made: it goes, with its recovery window.
            let removes = members.is_empty() && only_deletes && detail.created;
            let result = if removes {
                self.remove(cx, &there, pace).await
            } else if base.as_ref().is_none_or(|b| !same(b, &members)) {
                let text = self.fitting(&members)?;
                if attempt == 1 {
                    detail.count_write().map_err(|why| {
                        ApiError::new(ErrorKind::Quota, SERVICE, format!("{}: {why}", self.name))
                            .advice("Two programs probably write this secret in turn: leave it to one of them.")
                    })?;
                }
                let key_differs = self.key_differs(there.key.as_deref(), detail);
                self.write(cx, &there, first.token, &text, key_differs, pace).await
            } else {
                break self.as_it_is(cx, &there, detail).await?;
            };
            let error = match result {
                Ok(done) if removes => return Ok(done),
                Ok(done) => {
                    if let Some(version) = &done.version {
                        self.remember(version, &members);
                    }
                    break done;
                }
                Err(error) => error,
            };
            unsure |= error.ambiguous;
            let lane = if removes { Lane::Delete } else { Lane::Put };
            let now = self.look_again(cx, error, attempt, lane).await.map_err(|e| {
                let ambiguous = unsure || e.ambiguous;
                e.ambiguous(ambiguous)
            })?;
            attempt += 1;
            if removes && now.deleted {
                return Ok(self.removed(&now, None));
            }
            if now.deleted {
                return Err(self.conflict("was scheduled for deletion while it was written").ambiguous(unsure));
            }
            if !removes && now.current.as_deref() == Some(first.token) {
                self.remember(first.token, &members);
                break Done { arn: now.arn, version: now.current, untouched: false, note: None };
            }
            keys = keys.filter(|_| now.current == there.current);
            there = now;
        };
        if self.key_differs(there.key.as_deref(), detail) {
            detail.note_key(self.config.key_text.as_deref(), there.key.as_deref());
        }
        self.write_tags(cx, &there, detail, &mut done).await?;
        Ok(done)
    }

    /// After a write that was refused for the moment, or whose answer was lost: waits, and tells
    /// what is there then. Gives the error back when it is no matter of waiting.
    async fn look_again(&self, cx: &Cx, error: ApiError, attempt: u32, lane: Lane) -> Result<Listed, ApiError> {
        if !error.kind.passing() || attempt >= most_attempts(error.kind) || !cx.spend_retry() {
            return Err(error);
        }
        // Where AWS said how long, the lane holds everybody back for that time.
        if error.kind != ErrorKind::Throttled || error.retry_after.is_none() {
            cx.wait_to_retry(&format!("{SERVICE}: {}; looking at the secret again", error.message), error.retry_after, attempt).await?;
        }
        self.api.turn(cx, lane).await?;
        self.describe(cx).await?.ok_or(error)
    }

    /// The object holds what it should; its key may still differ.
    async fn as_it_is(&self, cx: &Cx, there: &Listed, detail: &Detail) -> Result<Done, ApiError> {
        let mut done = Done { arn: there.arn.clone(), version: there.current.clone(), untouched: true, note: None };
        if self.key_differs(there.key.as_deref(), detail)
            && let Some(key) = self.config.key_for_update()
        {
            self.api.update(cx, &there.arn, &self.name, key, None, Pace::Patient).await?;
            done.untouched = false;
        }
        Ok(done)
    }

    async fn restore(&self, cx: &Cx, arn: &str) -> Result<(), ApiError> {
        self.api.restore(cx, arn, &self.name).await?;
        self.shared.forget_deleted(arn);
        Ok(())
    }

    /// The object to change; `None` when every member of it is known to be replaced or removed,
    /// so that it need not be read.
    async fn base(&self, cx: &Cx, batch: &Batch<'_>, there: &Listed, keys: Option<BTreeSet<String>>) -> Result<Option<Members>, ApiError> {
        if !there.deleted && there.current.is_none() {
            return Ok(Some(Members::new()));
        }
        let value_differs = batch.changes.iter().any(|op| op.value_differs || op.action != Action::Update);
        let covered =
            |k: &String| batch.desired.iter().any(|d| d.key == *k) || batch.changes.iter().any(|op| op.action == Action::Delete && op.key == k);
        if let Some(keys) = keys.filter(|_| !there.deleted && batch.frozen.is_empty() && value_differs)
            && keys.iter().all(covered)
            && !batch.desired.is_empty()
        {
            return Ok(None);
        }
        Ok(Some(self.members(cx, &there.arn).await?.0))
    }

    fn fitting(&self, members: &Members) -> Result<SecretValue, ApiError> {
        let text = render(members);
        match overflow(members, &text) {
            None => Ok(text),
            Some(why) => Err(ApiError::new(ErrorKind::Invalid, SERVICE, format!("{}: {why}", self.name))
                .advice("Nothing was written. Shorten values, or use one-to-one mapping.")),
        }
    }

    async fn write(&self, cx: &Cx, there: &Listed, token: &str, text: &SecretValue, with_key: bool, pace: Pace) -> Result<Done, ApiError> {
        let version = match self.config.key_for_update().filter(|_| with_key) {
            None => self.api.put(cx, &there.arn, &self.name, token, text, pace).await?,
            Some(key) => match self.api.update(cx, &there.arn, &self.name, key, Some((token, text)), pace).await {
                Ok(version) => version.unwrap_or_else(|| token.to_string()),
                Err(e) if e.code.as_deref() == Some("ResourceExistsException") => match self.describe(cx).await? {
                    Some(now) if now.current.as_deref() == Some(token) => token.to_string(),
                    _ => return Err(overtaken(&self.name)),
                },
                Err(e) => return Err(e),
            },
        };
        Ok(Done { arn: there.arn.clone(), version: Some(version), untouched: false, note: None })
    }

    async fn write_tags(&self, cx: &Cx, there: &Listed, detail: &mut Detail, done: &mut Done) -> Result<(), ApiError> {
        let delta = self.tag_delta(there, detail);
        if delta.is_empty() {
            return Ok(());
        }
        match self.api.retag(cx, &there.arn, &self.name, &there.tags, &delta).await {
            Ok(()) => {
                detail.tags.retain(|k| !delta.remove.contains(k));
                detail.tags.extend(delta.set.into_keys());
                done.untouched = false;
                Ok(())
            }
            // The value stands and must be remembered; the next run reports the tags alone.
            Err(e) if !done.untouched && e.kind != ErrorKind::Cancelled => {
                done.note = Some(format!("the value was written, the secret's tags were not: {e}"));
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    async fn remove(&self, cx: &Cx, there: &Listed, pace: Pace) -> Result<Done, ApiError> {
        let removal = if self.config.force_delete { Removal::Force } else { Removal::Window(self.config.recovery_window) };
        let until = match self.api.delete(cx, &there.arn, &self.name, removal, pace).await {
            Ok(until) => until.filter(|_| matches!(removal, Removal::Window(_))),
            Err(e) if e.kind == ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        Ok(self.removed(there, until))
    }

    fn removed(&self, there: &Listed, until: Option<Time>) -> Done {
        self.shared.note_deleted(&there.arn);
        let note = match until {
            Some(until) => format!("the secret {} can be restored until {}", self.name, until.strftime("%Y-%m-%d")),
            None => format!("the secret {} was deleted", self.name),
        };
        Done { arn: there.arn.clone(), version: None, untouched: false, note: Some(note) }
    }
}

/// The object as the batch wants it: removals out, the source's values in, all else as it was.
fn wanted(mut members: Members, batch: &Batch<'_>) -> Members {
    for op in &batch.changes {
        if op.action == Action::Delete {
            members.remove(op.key);
        }
    }
    for desired in batch.desired {
        if batch.frozen.contains(&desired.fold) {
            continue;
        }
        members.insert(desired.key.clone(), Member::Text(desired.value.clone()));
    }
    members
}
