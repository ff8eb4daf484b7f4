//! Writing one secret: a new version, a recovery before it where the name lies deleted, a
//! soft deletion. Every wait here is bounded and visible.

use async_trait::async_trait;
use tokio::time::Instant;

use super::SERVICE;
use super::errors::{BEING_DELETED, BEING_RECOVERED, DELETED, DISABLED, Refusal, Right, failure};
use super::stamp::Mark;
use super::target::{KeyVaultTarget, READERS};
use super::wire::{Keep, not_a_vault, put_body, tags_body};
use crate::destination::{Confirmed, Desired, Itemised, Op, Written};
use crate::http::{Answer, ApiError, Cx, ErrorKind};
use crate::model::ledger::{LedgerRow, Stamp};
use crate::model::plan::Action;

/// How often a write whose fate is unknown is looked into and tried again.
const RETRIES: u32 = 5;

#[async_trait]
impl Itemised for KeyVaultTarget {
    fn concurrency(&self) -> usize {
        READERS
    }

    async fn apply(&self, cx: &Cx, op: &Op<'_>) -> Result<Written, ApiError> {
        match (op.action, op.desired) {
            (Action::Delete, _) => self.remove(cx, op.key).await,
            (Action::Update, Some(_)) if !op.value_differs => self.retag(cx, op).await,
            (_, Some(desired)) => Writer::new(self, cx, op, desired).run(op.action == Action::Restore).await,
            (action, None) => Err(ApiError::new(ErrorKind::Invalid, SERVICE, format!("{action} {} without a value", op.key))),
        }
    }

    /// The current version is ours: so is the stamp, when its second is over. A write by
    /// another hand leaves the stamp soft, so that the next run reads and compares.
    async fn confirm(&self, cx: &Cx, key: &str, stamp: &Stamp) -> Result<Confirmed, ApiError> {
        let Some(then) = Mark::parse(stamp) else { return Ok(Confirmed::Unproved) };
        let answer = self.vault.glance(cx, key).await?;
        match answer.status {
            200..=299 => {}
            // Deleted or disabled since; the next list shows it.
            403 if Refusal::read(&answer).inner == DISABLED => return Ok(Confirmed::Unproved),
            404 if answer.is_json() => return Ok(Confirmed::Unproved),
            _ => return Err(failure(cx, &answer, &format!("get {key}"), Right::Get)),
        }
        let bundle = self.vault.bundle(&answer, key)?;
        let version = self.vault.version(&bundle);
        if version.is_none() || version != then.version {
            return Ok(if version.is_none() { Confirmed::Unproved } else { Confirmed::Overtaken });
        }
        let now = Mark::looked_at(&bundle.attributes, version, &answer);
        Ok(if now.soft { Confirmed::Unproved } else { Confirmed::Ours(now.text()) })
    }
}

impl KeyVaultTarget {
    /// The ownership tag on a secret whose value is as it should be: no new version.
    async fn retag(&self, cx: &Cx, op: &Op<'_>) -> Result<Written, ApiError> {
        let stamp = op.entry.and_then(|e| e.stamp.clone());
        let mut keep = Keep::of(op.entry);
        if !self.sign(&mut keep) {
            return Ok(Written { stamp, untouched: true, note: Some(FULL_OF_TAGS.into()), ..Written::default() });
        }
        // The version that was compared: a newer one by another hand keeps its own tags.
        let known = [stamp, op.row.and_then(|r| r.stamp.clone())];
        let version = known.iter().flatten().find_map(|text| Mark::parse(text)?.version);
        let body = tags_body(&keep.tags.unwrap_or_default());
        let answer = self.vault.retag(cx, op.key, version.as_deref(), &body).await?;
        if !answer.ok() {
            return Err(failure(cx, &answer, &format!("tag {}", op.key), Right::Set));
        }
        let bundle = self.vault.bundle(&answer, op.key)?;
        let mark = Mark::written(&bundle.attributes, self.vault.version(&bundle).or(version));
        Ok(Written { note: Some("tagged, no new version".into()), ..stamped(Some(mark.text()), &answer) })
    }

    /// Soft deletion. Its end is not waited for: the next write of the name does that.
    async fn remove(&self, cx: &Cx, name: &str) -> Result<Written, ApiError> {
        let begun = Instant::now();
        let mut look = 0;
        loop {
            let answer = self.vault.delete(cx, name).await?;
            match answer.status {
                200..=299 => {
                    let gone = self.vault.bundle(&answer, name)?;
                    let note = match gone.scheduled_purge_date.and_then(|s| jiff::Timestamp::from_second(s).ok()) {
                        Some(until) => format!("can be recovered until {until}"),
                        None if gone.recovery_id.is_some() => "can be recovered".into(),
                        None => "gone for good: the vault has no soft delete".into(),
                    };
                    return Ok(Written { note: Some(note), ..Written::default() });
                }
                // By an earlier attempt whose answer was lost, or by another hand: nobody can tell.
                404 if answer.is_json() => return Ok(Written { note: Some("it is gone".into()), ..Written::default() }),
                409 => match Refusal::read(&answer).transition() {
                    Some(BEING_DELETED | DELETED) => return Ok(Written { note: Some("it is deleted".into()), ..Written::default() }),
                    _ if begun.elapsed() < self.vault.patience.limit => {
                        cx.wait(&format!("{name}: in transition in the vault, waiting to delete it"), self.vault.patience.step(look)).await?;
                        look += 1;
                    }
                    _ => return Err(failure(cx, &answer, &format!("delete {name}"), Right::Delete)),
                },
                _ => return Err(failure(cx, &answer, &format!("delete {name}"), Right::Delete)),
            }
        }
    }
}

/// Why a secret does not carry the ownership tag.
const FULL_OF_TAGS: &str = "it has 15 tags already, so the ownership tag was not set";

/// The steps of one write.
struct Writer<'a> {
    target: &'a KeyVaultTarget,
    cx: &'a Cx,
    name: &'a str,
    desired: &'a Desired,
    action: Action,
    /// What others set on the current version, kept on the new one.
    keep: Keep,
    recovered: bool,
    /// A deleted secret of this name may be brought back: it is this sync's, or the plan showed
    /// it and the operator agreed. To agree to a creation is not to agree to what nobody saw.
    may_recover: bool,
}

/// What stands at the destination after looking.
enum Found {
    /// The wanted value: nothing to write.
    Equal(Written),
    /// Another value, or it cannot be read.
    Other,
}

impl<'a> Writer<'a> {
    fn new(target: &'a KeyVaultTarget, cx: &'a Cx, op: &Op<'a>, desired: &'a Desired) -> Self {
        let keep = Keep::of(op.entry);
        let may_recover = op.action == Action::Restore || op.row.is_some_and(LedgerRow::was_ours);
        Self { target, cx, name: op.key, desired, action: op.action, keep, recovered: false, may_recover }
    }

    async fn run(mut self, recover_first: bool) -> Result<Written, ApiError> {
        if recover_first && let Some(written) = self.recover().await? {
            return Ok(written);
        }
        let patience = self.target.vault.patience;
        let (mut begun, mut look) = (Instant::now(), 0);
        loop {
            let answer = match self.put().await? {
                Put::Found(written) => return Ok(self.done(written)),
                Put::Answer(answer) => answer,
            };
            match answer.status {
                200..=299 => return self.written(&answer).await,
                409 => {
                    let transition = Refusal::read(&answer).transition();
                    if begun.elapsed() >= patience.limit {
                        return Err(self.unsettled(&answer));
                    }
                    if matches!(transition, Some(DELETED | BEING_RECOVERED)) && !self.may_recover {
                        return Err(self.not_ours(&answer));
                    }
                    if transition == Some(DELETED) {
                        let before = self.recovered;
                        if let Some(written) = self.recover().await? {
                            return Ok(written);
                        }
                        if self.recovered && !before {
                            // The recovery had its own time; the write after it has its own too.
                            (begun, look) = (Instant::now(), 0);
                            continue;
                        }
                    }
                    let state = match transition {
                        Some(BEING_DELETED) => "being deleted",
                        Some(BEING_RECOVERED) => "being recovered",
                        _ => "in transition",
                    };
                    self.cx.wait(&format!("{}: {state} in the vault", self.name), patience.step(look)).await?;
                    look += 1;
                }
                _ => return Err(self.refused(&answer)),
            }
        }
    }

    /// One PUT, sent again where that is safe. A write whose fate is unknown is looked into
    /// first, so that a lost answer does not make one version after another.
    async fn put(&self) -> Result<Put, ApiError> {
        let mut keep = self.keep.clone();
        self.target.sign(&mut keep);
        let body = put_body(&self.desired.value, &keep);
        let mut tries = 0;
        loop {
            tries += 1;
            let sent = self.target.vault.set(self.cx, self.name, &body).await;
            let told = match &sent {
                Ok(answer) if matches!(answer.status, 408 | 500 | 502 | 503 | 504) => answer.retry_after(),
                Err(error) if error.ambiguous => None,
                _ => return sent.map(Put::Answer),
            };
            if tries >= RETRIES || !self.cx.spend_retry() {
                return sent.map(Put::Answer);
            }
            self.cx.wait_to_retry(&format!("{}: what became of its write is not known", self.name), told, tries).await?;
            if let Found::Equal(written) = self.look().await? {
                return Ok(Put::Found(written));
            }
        }
    }

    /// Reads the current version, to see whether it already is what we want.
    async fn look(&self) -> Result<Found, ApiError> {
        let answer = self.target.vault.secret(self.cx, self.name).await?;
        if !answer.ok() {
            return Ok(Found::Other);
        }
        let read = self.target.read_answer(self.cx, &answer, self.name)?;
        match read.value {
            Some(value) if value.same_as(&self.desired.value) => Ok(Found::Equal(stamped(read.stamp, &answer))),
            _ => Ok(Found::Other),
        }
    }

    /// Brings the deleted secret back and waits for it. `Some`: it came back with the wanted
    /// value. `None`: a PUT is due (it came back with another value, or was purged meanwhile).
    async fn recover(&mut self) -> Result<Option<Written>, ApiError> {
        let vault = &self.target.vault;
        let answer = vault.recover(self.cx, self.name).await?;
        match answer.status {
            200..=299 => {
                self.recovered = true;
                if let Ok(back) = vault.bundle(&answer, self.name) {
                    if back.is_managed() {
                        return Err(self.in_the_way("came back as part of a certificate and is left alone"));
                    }
                    self.keep = back.keep();
                }
            }
            // Purged meanwhile, or not deleted (any more): the name is free, or its secret is active.
            404 if answer.is_json() => return self.back_already().await,
            // Already on its way, or still being deleted.
            409 => {
                let state = if Refusal::read(&answer).transition() == Some(BEING_DELETED) { "being deleted" } else { "being recovered" };
                self.cx.wait(&format!("{}: {state} in the vault", self.name), vault.patience.step(0)).await?;
                return self.back_already().await;
            }
            _ => return Err(failure(self.cx, &answer, &format!("recover {}", self.name), Right::Recover)),
        }
        let (begun, mut look) = (Instant::now(), 0);
        loop {
            let answer = vault.secret(self.cx, self.name).await?;
            match answer.status {
                404 if begun.elapsed() < vault.patience.limit => {
                    self.cx.wait(&format!("{}: being recovered in the vault", self.name), vault.patience.step(look)).await?;
                    look += 1;
                }
                404 => {
                    return Err(ApiError::new(
                        ErrorKind::Unsettled,
                        SERVICE,
                        format!("recover {}: the vault has not brought it back within {} s", self.name, vault.patience.limit.as_secs()),
                    )
                    .advice("The recovery goes on in the vault: the next run carries on from there."));
                }
                200..=299 => {
                    let bundle = vault.bundle(&answer, self.name)?;
                    if bundle.is_managed() {
                        return Err(self.in_the_way("came back as part of a certificate and is left alone"));
                    }
                    self.keep = bundle.keep();
                    let read = self.target.read_answer(self.cx, &answer, self.name)?;
                    let equal = read.value.is_some_and(|v| v.same_as(&self.desired.value));
                    return Ok(equal.then(|| Written { instead: self.instead(), ..stamped(read.stamp, &answer) }));
                }
                403 if Refusal::read(&answer).inner == DISABLED => return Err(self.in_the_way("came back disabled and is left alone")),
                // It is there; only reading it is not permitted.
                403 => return Ok(None),
                _ => return Err(failure(self.cx, &answer, &format!("recover {}", self.name), Right::Recover)),
            }
        }
    }

    /// After a recovery that was not this answer's: the first attempt's, perhaps, whose answer was
    /// lost. What came back with the wanted value needs no new version.
    async fn back_already(&self) -> Result<Option<Written>, ApiError> {
        Ok(match self.look().await? {
            Found::Equal(written) => Some(Written { instead: self.instead(), ..written }),
            Found::Other => None,
        })
    }

    async fn written(&self, answer: &Answer) -> Result<Written, ApiError> {
        let vault = &self.target.vault;
        let named = vault.bundle(answer, self.name).map(|bundle| (vault.version(&bundle), bundle));
        let odd = match named {
            Ok((Some(version), bundle)) => {
                let stamp = bundle.attributes.updated.is_some().then(|| Mark::written(&bundle.attributes, Some(version)).text());
                return Ok(self.done(stamped(stamp, answer)));
            }
            Ok((None, _)) => not_a_vault(&format!("the answer to writing {}", self.name), "it names no version"),
            Err(error) => error,
        };
        // Success in words that are not a vault's proves nothing: the secret itself does.
        match self.look().await? {
            Found::Equal(written) => Ok(self.done(written)),
            Found::Other => Err(odd),
        }
    }

    fn done(&self, mut written: Written) -> Written {
        written.instead = self.instead();
        let mut notes = Vec::new();
        let over = self.keep.exp.filter(|at| *at <= jiff::Timestamp::now().as_second());
        if let Some(at) = over.and_then(|s| jiff::Timestamp::from_second(s).ok()) {
            notes.push(format!("its expiry date, {}, is past and was kept", at.strftime("%Y-%m-%d")));
        }
        if !self.target.sign(&mut self.keep.clone()) {
            notes.push(FULL_OF_TAGS.into());
        }
        written.note = (!notes.is_empty()).then(|| notes.join("; "));
        written
    }

    fn instead(&self) -> Option<Action> {
        (self.recovered && self.action != Action::Restore).then_some(Action::Restore)
    }

    fn in_the_way(&self, why: &str) -> ApiError {
        ApiError::new(ErrorKind::Conflict, SERVICE, format!("{} {why}", self.name))
    }

    /// The name is held by a deleted secret that this sync never wrote. The next listing shows it.
    fn not_ours(&self, answer: &Answer) -> ApiError {
        self.target.hidden.met(&self.desired.key);
        let mut error = failure(self.cx, answer, &format!("set {}", self.name), Right::Set);
        error.kind = ErrorKind::Conflict;
        error.message = format!("{} is the name of a secret that was deleted and that this sync did not write", self.name);
        error.advice("Run again: the plan then shows the deleted secret and asks before it is brought back and overwritten.")
    }

    fn unsettled(&self, answer: &Answer) -> ApiError {
        let mut error = failure(self.cx, answer, &format!("set {}", self.name), Right::Set);
        error.kind = ErrorKind::Unsettled;
        error.advice("The vault did not free the name in time: the next run tries again.")
    }

    fn refused(&self, answer: &Answer) -> ApiError {
        let error = failure(self.cx, answer, &format!("set {}", self.name), Right::Set);
        if error.kind == ErrorKind::Invalid && self.desired.value.is_empty() {
            return error.advice("This vault does not take empty values; the secret there was left as it is.");
        }
        if error.kind == ErrorKind::Invalid && self.desired.value.len() > 25_000 {
            return error.advice("The value is at the vault's limit of 25 KB.");
        }
        error
    }
}

/// What was written under this stamp, which `answer` showed.
fn stamped(stamp: Option<Stamp>, answer: &Answer) -> Written {
    let confirm_in = stamp.as_deref().and_then(Mark::parse).and_then(|mark| mark.look_in(answer));
    Written { stamp, confirm_in, ..Written::default() }
}

/// The end of one PUT.
enum Put {
    Answer(Answer),
    /// Its answer was lost, and the wanted value stands there.
    Found(Written),
}
