//! One-to-one: the writes. One operation per key, each of them able to find out what is true
//! at AWS when a call meets a state the listing did not show.

use async_trait::async_trait;

use super::call::Pace;
use super::facts::{Detail, Facts, ROTATED, untouchable};
use super::items::Items;
use super::ops::{Content, Listed, Removal, overtaken};
use super::pauses::{NamePauses, settled};
use super::spec::SERVICE;
use super::tags::{Tags, Wanted};
use crate::destination::{Desired, EntryState, Itemised, Op, Written};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::SecretValue;
use crate::model::ledger::LedgerRow;
use crate::model::plan::Action;

#[async_trait]
impl Itemised for Items {
    fn concurrency(&self) -> usize {
        16
    }

    async fn apply(&self, cx: &Cx, op: &Op<'_>) -> Result<Written, ApiError> {
        let shown = Facts::of(op.entry).key;
        let key = self.config.key_text.clone().or(shown).unwrap_or_default();
        if let Some(error) = self.stops.before(op.action, &key) {
            return Err(error);
        }
        let result = self.carry_out(cx, op).await;
        if let Err(error) = &result {
            self.stops.note(op.action, op.key, &key, error);
        }
        result
    }
}

/// What is known of the secret while an operation works on it.
struct Work {
    arn: String,
    stamp: Option<String>,
    facts: Facts,
    detail: Detail,
    instead: Option<Action>,
    wrote: bool,
}

impl Items {
    async fn carry_out(&self, cx: &Cx, op: &Op<'_>) -> Result<Written, ApiError> {
        match (op.action, op.desired) {
            (Action::Delete, _) => self.delete(cx, op).await,
            (_, None) => Err(ApiError::new(ErrorKind::Invalid, SERVICE, format!("{}: nothing to write was given", op.key))),
            (Action::Create, Some(desired)) => self.create(cx, op, desired).await,
            (_, Some(desired)) => {
                let Some((entry, arn)) = op.entry.and_then(|e| Some((e, e.id.clone()?))) else {
                    return self.create(cx, op, desired).await;
                };
                self.check_incarnation(op, &arn)?;
                let mut work =
                    Work { arn, stamp: entry.stamp.clone(), facts: Facts::of(op.entry), detail: Detail::of(op.row), instead: None, wrote: false };
                if op.action == Action::Restore || matches!(entry.state, EntryState::Deleted { .. }) {
                    work.arn = self.restore(cx, op, &work.arn).await?;
                    self.bring_equal(cx, op, desired, work).await
                } else if op.value_differs || entry.state == EntryState::Empty {
                    self.write_value(cx, op, desired, work).await
                } else {
                    self.finish(cx, op, desired, work).await
                }
            }
        }
    }

    /// A secret whose ARN has another suffix than the one we wrote is somebody else's.
    fn check_incarnation(&self, op: &Op<'_>, arn: &str) -> Result<(), ApiError> {
        match op.row.and_then(|r| r.remote_id.as_deref()) {
            Some(ours) if ours != arn && !op.approved => Err(ApiError::new(
                ErrorKind::Conflict,
                SERVICE,
                format!("{}: the secret was deleted and created again by someone else (another ARN); it is not this sync's any more", op.key),
            )
            .advice("Approve it to take it over, or rename one of the two.")),
            _ => Ok(()),
        }
    }

    async fn create(&self, cx: &Cx, op: &Op<'_>, desired: &Desired) -> Result<Written, ApiError> {
        let detail = Detail::of(op.row);
        let wanted = self.wanted(desired, &Tags::new(), &detail);
        let mut pauses = NamePauses::default();
        loop {
            let key = self.config.key_for_create();
            let error = match self.api.create(cx, op.key, op.token, &desired.value, key, &wanted.tags).await {
                Ok((arn, version)) => return Ok(self.created(arn, version, &wanted, op)),
                Err(e) => e,
            };
            // ResourceExists or InvalidRequest: the name is taken. By what, only the state tells.
            if error.kind != ErrorKind::Conflict {
                return Err(error);
            }
            match self.api.describe(cx, op.key, op.key).await? {
                Some(there) if there.current.as_deref() == Some(op.token) => {
                    return Ok(self.created(there.arn, op.token.to_string(), &wanted, op));
                }
                Some(there) => return self.found(cx, op, desired, there, error).await,
                // The name of a secret that was just deleted for good stays blocked for a while.
                None => pauses.wait(cx, op.key, error).await?,
            }
        }
    }

    fn created(&self, arn: String, version: String, wanted: &Wanted, op: &Op<'_>) -> Written {
        let detail = Detail::created(&wanted.tags, self.config.key_text.as_deref());
        Written {
            id: Some(arn),
            stamp: Some(version),
            detail: detail.json(),
            instead: (op.action != Action::Create).then_some(Action::Create),
            note: wanted.note(),
            ..Written::default()
        }
    }

    /// A creation met a secret that the listing did not show.
    async fn found(&self, cx: &Cx, op: &Op<'_>, desired: &Desired, there: Listed, error: ApiError) -> Result<Written, ApiError> {
        if let Some(why) = untouchable(&there, &self.config.region) {
            return Err(ApiError::new(ErrorKind::Conflict, SERVICE, format!("{}: the name is taken, and {why}", op.key)));
        }
        if there.rotated {
            return Err(ApiError::new(ErrorKind::Conflict, SERVICE, format!("{}: {}", op.key, ROTATED)));
        }
        let ours = op.row.is_some_and(|r| is_ours(r, &there)) || self.shared.deleted_recently(&there.arn);
        let mut work = Work {
            arn: there.arn.clone(),
            stamp: there.current.clone(),
            facts: Facts { tags: there.tags.clone(), key: there.key.clone(), lagging: false },
            detail: Detail::of(op.row),
            instead: Some(Action::Update),
            wrote: false,
        };
        if there.deleted {
            // To agree to a creation is not to agree to what no plan has shown.
            if !ours {
                self.shared.note_met(op.key);
                return Err(ApiError::new(
                    ErrorKind::Conflict,
                    SERVICE,
                    format!("{}: a secret of this name is scheduled for deletion, and it is not this sync's", op.key),
                )
                .advice("Run again: the plan then shows it, and asks before it is restored and overwritten."));
            }
            work.arn = self.restore(cx, op, &there.arn).await?;
            work.instead = Some(Action::Restore);
            return self.bring_equal(cx, op, desired, work).await;
        }
        if there.current.is_none() || ours {
            return self.bring_equal(cx, op, desired, work).await;
        }
        // A foreign secret: taken over only when it holds the very value already.
        match self.api.get(cx, &there.arn, op.key).await?.value {
            Content::Text(value) if value.same_as(&desired.value) => self.finish(cx, op, desired, work).await,
            _ => {
                self.shared.note_met(op.key);
                Err(error.advice("Somebody else made a secret of this name that the listing did not show yet. Run again: the plan then shows it."))
            }
        }
    }

    async fn restore(&self, cx: &Cx, op: &Op<'_>, arn: &str) -> Result<String, ApiError> {
        let restored = self.api.restore(cx, arn, op.key).await?;
        self.shared.forget_deleted(arn);
        Ok(restored)
    }

    /// Reads what is there (where that can be had cheaply it is known already) and writes only
    /// a different value.
    async fn bring_equal(&self, cx: &Cx, op: &Op<'_>, desired: &Desired, work: Work) -> Result<Written, ApiError> {
        let known = op.row.is_some_and(|r| r.stamp.is_some() && r.stamp == work.stamp && r.value_hash.is_some());
        let equal = if work.stamp.is_none() {
            false
        } else if known || !op.value_differs {
            !op.value_differs
        } else {
            match settled(cx, op.key, || self.api.get(cx, &work.arn, op.key)).await?.value {
                Content::Text(value) => value.same_as(&desired.value),
                Content::Binary => {
                    return Err(ApiError::new(
                        ErrorKind::Conflict,
                        SERVICE,
                        format!("{}: the secret holds a binary value, which is not overwritten", op.key),
                    ));
                }
            }
        };
        if equal { self.finish(cx, op, desired, work).await } else { self.write_value(cx, op, desired, work).await }
    }

    async fn write_value(&self, cx: &Cx, op: &Op<'_>, desired: &Desired, mut work: Work) -> Result<Written, ApiError> {
        work.detail.count_write().map_err(|why| {
            ApiError::new(ErrorKind::Quota, SERVICE, format!("{}: {why}", op.key))
                .advice("Two programs probably write this secret in turn: leave it to one of them.")
        })?;
        let key_differs = self.key_differs(work.facts.key.as_deref(), &work.detail);
        match self.put(cx, op, &desired.value, &work.arn, key_differs).await {
            Ok(version) => {
                work.stamp = Some(version);
                work.wrote = true;
                if key_differs {
                    work.detail.note_key(self.config.key_text.as_deref(), work.facts.key.as_deref());
                }
                self.finish(cx, op, desired, work).await
            }
            Err(e) if e.kind == ErrorKind::NotFound => match self.api.describe(cx, &work.arn, op.key).await? {
                None => Box::pin(self.create(cx, op, desired)).await,
                Some(_) => Err(e),
            },
            Err(e)
                if e.code.as_deref() == Some("InvalidRequestException") && work.instead != Some(Action::Restore) && op.action != Action::Restore =>
            {
                let there = self.api.describe(cx, &work.arn, op.key).await?;
                match there {
                    // Deleted since the listing: it was ours to write, so it is brought back.
                    Some(there) if there.deleted && untouchable(&there, &self.config.region).is_none() => {
                        work.arn = self.restore(cx, op, &work.arn).await?;
                        let version = settled(cx, op.key, || self.put(cx, op, &desired.value, &work.arn, key_differs)).await?;
                        work.stamp = Some(version);
                        work.instead = Some(Action::Restore);
                        work.wrote = true;
                        self.finish(cx, op, desired, work).await
                    }
                    Some(there) => match untouchable(&there, &self.config.region) {
                        Some(why) => Err(ApiError::new(ErrorKind::Conflict, SERVICE, format!("{}: not written, because {why}", op.key))),
                        None => Err(e),
                    },
                    None => Err(e),
                }
            }
            Err(e) if e.code.as_deref() == Some("InvalidRequestException") => {
                let version = settled(cx, op.key, || self.put(cx, op, &desired.value, &work.arn, key_differs)).await?;
                work.stamp = Some(version);
                work.wrote = true;
                self.finish(cx, op, desired, work).await
            }
            Err(e) => Err(e),
        }
    }

    /// Value alone by PutSecretValue (which keeps the key and needs no more rights), value and
    /// key by one UpdateSecret.
    async fn put(&self, cx: &Cx, op: &Op<'_>, value: &SecretValue, arn: &str, with_key: bool) -> Result<String, ApiError> {
        match self.config.key_for_update().filter(|_| with_key) {
            None => self.api.put(cx, arn, op.key, op.token, value, Pace::Patient).await,
            Some(key) => match self.api.update(cx, arn, op.key, key, Some((op.token, value)), Pace::Patient).await {
                Ok(version) => Ok(version.unwrap_or_else(|| op.token.to_string())),
                // A repeated UpdateSecret with a used token may be refused: look who is current.
                Err(e) if e.code.as_deref() == Some("ResourceExistsException") => match self.api.describe(cx, arn, op.key).await? {
                    Some(there) if there.current.as_deref() == Some(op.token) => Ok(op.token.to_string()),
                    _ => Err(overtaken(op.key)),
                },
                Err(e) => Err(e),
            },
        }
    }

    /// Key and tags, after the value. Tags come last: a tag change can take away our own access.
    async fn finish(&self, cx: &Cx, op: &Op<'_>, desired: &Desired, mut work: Work) -> Result<Written, ApiError> {
        let mut changed = work.wrote;
        if !work.wrote
            && self.key_differs(work.facts.key.as_deref(), &work.detail)
            && let Some(key) = self.config.key_for_update()
        {
            self.api.update(cx, &work.arn, op.key, key, None, Pace::Patient).await?;
            work.detail.note_key(self.config.key_text.as_deref(), work.facts.key.as_deref());
            changed = true;
        }
        let (wanted, delta) = self.tag_delta(desired, &work.facts.tags, &work.detail);
        let mut note = wanted.note();
        if !delta.is_empty() {
            match self.api.retag(cx, &work.arn, op.key, &work.facts.tags, &delta).await {
                Ok(()) => {
                    changed = true;
                    work.detail.tags.retain(|k| !delta.remove.contains(k));
                    work.detail.tags.extend(delta.set.keys().cloned());
                }
                // The value stands and must be remembered; the next run reports the tags alone.
                Err(e) if work.wrote && e.kind != ErrorKind::Cancelled => note = Some(format!("the value was written, its tags were not: {e}")),
                Err(e) => return Err(e),
            }
        }
        let restored = op.action == Action::Restore || work.instead == Some(Action::Restore);
        Ok(Written {
            id: Some(work.arn),
            stamp: work.stamp,
            detail: work.detail.json(),
            instead: work.instead.filter(|i| *i != op.action),
            untouched: !changed && !restored,
            note,
            ..Written::default()
        })
    }

    async fn delete(&self, cx: &Cx, op: &Op<'_>) -> Result<Written, ApiError> {
        // By ARN: a secret that was deleted and made anew by someone else is not hit.
        let arn = op.entry.and_then(|e| e.id.clone()).or_else(|| op.row.and_then(|r| r.remote_id.clone())).unwrap_or_else(|| op.key.to_string());
        self.check_incarnation(op, &arn)?;
        let removal = if self.config.force_delete { Removal::Force } else { Removal::Window(self.config.recovery_window) };
        let mut written = Written { id: Some(arn.clone()), ..Written::default() };
        match self.api.delete(cx, &arn, op.key, removal, Pace::Patient).await {
            Ok(until) => {
                self.shared.note_deleted(&arn);
                written.note = match (removal, until) {
                    (Removal::Window(_), Some(until)) => Some(format!("can be restored until {}", until.strftime("%Y-%m-%d"))),
                    (Removal::Window(days), None) => Some(format!("can be restored for {days} days")),
                    (Removal::Force, _) => Some("deleted without recovery".into()),
                };
                Ok(written)
            }
            Err(e) if e.kind == ErrorKind::NotFound => {
                written.untouched = true;
                written.note = Some("it was gone already".into());
                Ok(written)
            }
            Err(e) if e.code.as_deref() == Some("InvalidRequestException") => match self.api.describe(cx, &arn, op.key).await? {
                None => Ok(written),
                Some(there) if there.deleted => {
                    written.untouched = true;
                    written.note = Some("its deletion was scheduled already".into());
                    Ok(written)
                }
                Some(there) if there.primary_region.is_some() => {
                    Err(e.advice("It is replicated to other regions: remove the replicas first (remove-regions-from-replication)."))
                }
                Some(_) => Err(e),
            },
            Err(e) => Err(e),
        }
    }
}

/// True when the ledger proves that the secret is the one this sync wrote or meant to write.
fn is_ours(row: &LedgerRow, there: &Listed) -> bool {
    let token = row.intent.as_ref().map(|i| i.token.as_str());
    row.remote_id.as_deref() == Some(there.arn.as_str()) || (token.is_some() && token == there.current.as_deref())
}
