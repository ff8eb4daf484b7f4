//! Writing one key: a small machine that looks at the state a secret is in and takes the next
//! step towards the wanted one, waiting where OCI is between two states.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::super::{Desired, Itemised, Op, Written};
use super::SERVICE;
use super::calls;
use super::client::Ask;
use super::vault::{Facts, VaultTarget};
use super::versions;
use super::wire::{Secret, State, stamp, version_of};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::plan::Action;
use crate::model::{SecretValue, Time};

/// Steps one key may take before it is given up: enough for a deletion that is called off,
/// found erased, and created anew, with a lost answer on the way.
const STEPS: usize = 12;
/// Keys whose operations may overlap. High, because most of the time is waiting for OCI to
/// settle, and one list serves all that wait; pace and requests in flight are bounded elsewhere.
const OVERLAP: usize = 256;

/// A secret as the machine knows it.
#[derive(Clone)]
pub(super) struct Known {
    id: String,
    pub(super) state: State,
}

/// What a look at a secret's content told.
enum Look {
    /// It holds the wanted value; `None`: it is between two states.
    Done(Option<Written>),
    /// It does not, or cannot be read; the number of its current version.
    Differs(Option<u64>),
}

impl Known {
    pub(super) fn of(secret: &Secret) -> Self {
        Self { id: secret.id.clone(), state: secret.state() }
    }
}

/// The moment of erasure to ask for. The service counts by its own clock and refuses less than
/// 1 and more than 30 days: an hour of margin keeps a clock that is a little off from failing.
pub(super) fn deletion_time(now: Time, days: i64) -> String {
    let margin = match days {
        ..=1 => 1,
        30.. => -1,
        _ => 0,
    };
    let at = now + jiff::SignedDuration::from_hours(24 * days.clamp(1, 30) + margin);
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// `{"secretContent":…}` with the value in base64, built without leaving copies behind.
pub(super) fn with_content(head: &serde_json::Value, value: &SecretValue) -> Vec<u8> {
    let encoded = Zeroizing::new(STANDARD.encode(value.expose().as_bytes()));
    let head = head.to_string();
    let mut out = Vec::with_capacity(head.len() + encoded.len() + 80);
    out.extend_from_slice(head.strip_suffix('}').unwrap_or(&head).as_bytes());
    out.extend_from_slice(br#","secretContent":{"contentType":"BASE64","content":""#);
    out.extend_from_slice(encoded.as_bytes());
    out.extend_from_slice(br#""}}"#);
    out
}

pub(super) fn desired<'o>(op: &'o Op<'_>) -> Result<&'o Desired, ApiError> {
    op.desired.ok_or_else(|| ApiError::new(ErrorKind::Invalid, SERVICE, format!("no value was given for {}", op.key)))
}

pub(super) fn conflict(text: String, advice: &str) -> ApiError {
    ApiError::new(ErrorKind::Conflict, SERVICE, text).advice(advice)
}

impl VaultTarget {
    /// Brings a key to its wanted value from whatever state it is in.
    pub(super) async fn converge(&self, cx: &Cx, op: &Op<'_>, start: Option<Known>) -> Result<Written, ApiError> {
        let mut restored = false;
        let result = self.steps(cx, op, start, &mut restored).await;
        // A deletion that was called off is an effect, whatever failed after it.
        result.map_err(|e| if restored { e.ambiguous(true) } else { e })
    }

    async fn steps(&self, cx: &Cx, op: &Op<'_>, start: Option<Known>, restored: &mut bool) -> Result<Written, ApiError> {
        let mut known = start;
        let mut fresh = true;
        for _ in 0..STEPS {
            let Some(secret) = known.clone() else { return self.create(cx, op, *restored).await };
            match &secret.state {
                State::Active => match self.make_equal(cx, op, &secret.id, fresh).await? {
                    Some(mut written) => {
                        written.instead = match (op.action, *restored) {
                            (Action::Restore, true) => None,
                            (_, true) => Some(Action::Restore),
                            (Action::Update, false) => None,
                            (_, false) => Some(Action::Update),
                        };
                        // Bringing a secret back is a change even when its value was right already.
                        written.untouched &= !*restored;
                        return Ok(written);
                    }
                    None => known = self.stable(cx, op.key, &secret.id, "changing").await?,
                },
                State::Moving(word) => known = self.stable(cx, op.key, &secret.id, word).await?,
                State::PendingDeletion => {
                    *restored |= self.cancel(cx, op, &secret.id).await?;
                    let since = Instant::now();
                    // The list may lag behind the cancellation: "pending" is no end here.
                    let done = |s: Option<&State>| matches!(s, None | Some(State::Active | State::Deleted | State::Failed(_)));
                    known = self.until(cx, &secret.id, op.key, "CANCELLING_DELETION", since, done).await?.as_ref().map(Known::of);
                }
                State::Deleted => known = None,
                State::Failed(word) => {
                    return Err(conflict(
                        format!("{} is {word} at OCI Vault", op.key),
                        "Look at the secret in the OCI Console; nothing was touched.",
                    ));
                }
            }
            fresh = false;
        }
        Err(ApiError::new(ErrorKind::Unsettled, SERVICE, format!("{} does not come to rest: somebody else keeps changing it", op.key)))
    }

    /// Waits for a state that can be acted on.
    pub(super) async fn stable(&self, cx: &Cx, key: &str, id: &str, word: &str) -> Result<Option<Known>, ApiError> {
        let done = |s: Option<&State>| !matches!(s, Some(State::Moving(_)));
        Ok(self.until(cx, id, key, word, Instant::now(), done).await?.as_ref().map(Known::of))
    }

    /// Reads, and writes if the value differs. `None`: OCI was between two states, look again.
    async fn make_equal(&self, cx: &Cx, op: &Op<'_>, id: &str, fresh: bool) -> Result<Option<Written>, ApiError> {
        let want = desired(op)?;
        let mut look = !(fresh && op.entry.is_some_and(|e| e.value.is_some()));
        let mut lost: Option<ApiError> = None;
        let mut version = op.entry.and_then(|e| e.stamp.as_deref()).and_then(version_of);
        // The version that was given up for the new one, or why none could be.
        let mut room: Option<Result<u64, ApiError>> = None;
        // A write whose answer was lost is looked for before it is sent again: it would make a
        // second version of thirty.
        for _ in 0..4 {
            if look {
                match self.already(cx, op, want, id, lost.is_some()).await? {
                    Look::Done(done) => return Ok(done),
                    Look::Differs(now) => version = now.or(version),
                }
            }
            if self.prune && room.is_none() && version.is_some_and(|v| v >= versions::MAX) {
                room = self.make_room(cx, op.key, id, false).await.transpose();
            }
            let head = serde_json::json!({ "enableAutoGeneration": false });
            let body = with_content(&head, &want.value);
            let since = Instant::now();
            let answer = self.client.send(cx, &calls::UPDATE, Ask { path: &["secrets", id], body: Some(body), ..Ask::default() }).await;
            let error = match answer {
                Ok(answer) if super::client::genuine(&answer) => match answer.json::<Secret>(SERVICE) {
                    Ok(secret) => {
                        let mut written = self.landed(cx, op.key, id, secret, "UPDATING", since, None).await?;
                        if let Some(Ok(number)) = room {
                            written.note = Some(format!("version {number} was scheduled for deletion to make room"));
                        }
                        return Ok(Some(written));
                    }
                    // Perhaps the service never saw it: a look tells.
                    Err(error) => error.ambiguous(true),
                },
                Ok(answer) => super::fault::error(cx, &calls::UPDATE, &answer),
                Err(error) => error,
            };
            match error.kind {
                ErrorKind::Unsettled => return Ok(None),
                _ if error.ambiguous => {
                    look = true;
                    self.before_looking(cx, op.key, &error).await?;
                    lost = Some(error);
                }
                ErrorKind::Quota if self.prune => match room {
                    None => match self.make_room(cx, op.key, id, true).await? {
                        Some(number) => room = Some(Ok(number)),
                        None => return Err(error),
                    },
                    Some(Err(why)) => return Err(why),
                    Some(Ok(_)) => return Err(error),
                },
                ErrorKind::Quota => return Err(error.advice(versions::ADVICE)),
                _ => return Err(error),
            }
        }
        Err(lost.unwrap_or_else(|| ApiError::new(ErrorKind::Transient, SERVICE, format!("{} could not be written", op.key))))
    }

    /// Whether the secret holds the wanted value already.
    async fn already(&self, cx: &Cx, op: &Op<'_>, want: &Desired, id: &str, ours: bool) -> Result<Look, ApiError> {
        let bundle = match self.bundle(cx, id).await {
            Ok(bundle) => bundle,
            Err(e) if e.kind == ErrorKind::Unsettled => return Ok(Look::Done(None)),
            // Without the right to read, or without a current version (after a deletion was
            // called off), writing is all that can be done.
            Err(e) if matches!(e.kind, ErrorKind::NotFound | ErrorKind::Permission) => {
                let moving = self.get(cx, id).await?.is_some_and(|s| s.state() != State::Active);
                return Ok(if moving { Look::Done(None) } else { Look::Differs(None) });
            }
            Err(e) => return Err(e),
        };
        let mark = op.entry.map(|e| Facts::of(e).mark).unwrap_or_default();
        let read = self.read_of(cx, id, &bundle, &mark);
        if read.value.as_ref().is_some_and(|v| v.same_as(&want.value)) {
            // A write of ours may still be settling.
            if ours && self.get(cx, id).await.ok().flatten().is_some_and(|s| matches!(s.state(), State::Moving(_))) {
                return Ok(Look::Done(None));
            }
            let written = Written { id: Some(id.to_string()), stamp: read.stamp, untouched: !ours, ..Written::default() };
            return Ok(Look::Done(Some(written)));
        }
        match read.problem {
            Some(problem) if !op.approved => {
                Err(conflict(format!("{}: {problem}", op.key), "It was left as it is: approve overwriting it, or rename one of the two."))
            }
            _ => Ok(Look::Differs(bundle.version_number)),
        }
    }

    /// After a write was accepted: waits until it settled, and tells what is there. An error
    /// here is ambiguous: the write took effect, what became of it is open.
    #[allow(clippy::too_many_arguments, reason = "each says one thing about one write")]
    pub(super) async fn landed(
        &self,
        cx: &Cx,
        key: &str,
        id: &str,
        answer: Secret,
        word: &str,
        since: Instant,
        version: Option<u64>,
    ) -> Result<Written, ApiError> {
        self.settled(cx, key, id, answer, word, since, version).await.map_err(|e| e.ambiguous(true))
    }

    #[allow(clippy::too_many_arguments, reason = "as above")]
    async fn settled(
        &self,
        cx: &Cx,
        key: &str,
        id: &str,
        answer: Secret,
        word: &str,
        since: Instant,
        version: Option<u64>,
    ) -> Result<Written, ApiError> {
        let mark = answer.mark();
        let secret = match answer.state() {
            State::Active => Some(answer),
            _ => match self.until(cx, id, key, word, since, |s| !matches!(s, None | Some(State::Moving(_)))).await {
                // The write was accepted: cancelling the run ends the wait, not the write.
                Err(e) if e.kind == ErrorKind::Cancelled => {
                    return Ok(Written {
                        id: Some(id.to_string()),
                        stamp: version.map(|v| stamp(id, v, &mark)),
                        note: Some(format!("still {word} when the run was cancelled")),
                        ..Written::default()
                    });
                }
                other => other?,
            },
        };
        let Some(secret) = secret else {
            return Err(conflict(format!("{key} vanished after it was written"), "Somebody else deleted it; run again."));
        };
        match secret.state() {
            State::Active => {}
            State::Failed(word) => {
                let details = secret.lifecycle_details.as_deref().filter(|d| !d.trim().is_empty()).unwrap_or("no details");
                return Err(conflict(
                    format!("{key} became {word}: {}", cx.redact(details)),
                    "Check that the encryption key is an enabled AES key of this vault.",
                ));
            }
            _ => {
                return Err(conflict(
                    format!("{key} became {} after it was written", crate::model::text::brief(&secret.lifecycle_state, 40)),
                    "Somebody else deletes it; run again.",
                ));
            }
        }
        let version = secret.current_version_number.or(version);
        Ok(Written {
            id: Some(id.to_string()),
            stamp: version.map(|v| stamp(id, v, &secret.mark())),
            note: version.filter(|v| *v >= versions::MANY && !self.prune).map(versions::warning),
            ..Written::default()
        })
    }

    /// Calls a deletion off. True when it was this call that did it.
    async fn cancel(&self, cx: &Cx, op: &Op<'_>, id: &str) -> Result<bool, ApiError> {
        let ask = Ask { path: &["secrets", id, "actions", "cancelDeletion"], ..Ask::default() };
        match self.client.call(cx, &calls::CANCEL, ask).await {
            Ok(_) => Ok(true),
            // Somebody was faster, or the deadline came: the wait that follows tells which.
            Err(e) if e.kind == ErrorKind::Unsettled => Ok(false),
            Err(e) if e.ambiguous => {
                self.before_looking(cx, op.key, &e).await?;
                match self.find_id(cx, id).await?.map(|s| s.state()) {
                    Some(State::PendingDeletion) | None => Err(e),
                    Some(_) => Ok(true),
                }
            }
            Err(e) if e.kind == ErrorKind::NotFound => {
                let mut e = e;
                e.kind = ErrorKind::Permission;
                e.message = format!("the pending deletion of {} cannot be called off: {}", op.key, e.message);
                Err(e)
            }
            Err(e) => Err(e),
        }
    }

    /// One secret by the list, which needs the least right; `None` when it is not listed.
    async fn find_id(&self, cx: &Cx, id: &str) -> Result<Option<Secret>, ApiError> {
        if let Some(secret) = self.get(cx, id).await? {
            return Ok(Some(secret));
        }
        Ok(self.list_secrets(cx).await?.into_iter().find(|s| s.id == id))
    }

    async fn delete(&self, cx: &Cx, op: &Op<'_>) -> Result<Written, ApiError> {
        let Some(start) = start(op) else { return Ok(Written { untouched: true, ..Written::default() }) };
        let id = start.id.clone();
        let mut known = Some(start);
        let mut sent = false;
        let mut lost: Option<ApiError> = None;
        for _ in 0..STEPS {
            match known.map(|k| k.state) {
                None | Some(State::PendingDeletion | State::Deleted) => {
                    let note = if sent { None } else { Some("it was gone or pending deletion already".to_string()) };
                    return Ok(Written { id: Some(id), untouched: !sent, note, ..Written::default() });
                }
                Some(State::Moving(word)) => known = self.stable(cx, op.key, &id, &word).await?,
                Some(State::Failed(word)) => {
                    return Err(conflict(
                        format!("{} is {word} at OCI Vault", op.key),
                        "Look at the secret in the OCI Console; nothing was touched.",
                    ));
                }
                Some(State::Active) => {
                    let time = deletion_time(Time::now(), self.deletion_days);
                    let body = serde_json::json!({ "timeOfDeletion": time }).to_string().into_bytes();
                    let ask = Ask { path: &["secrets", &id, "actions", "scheduleDeletion"], body: Some(body), ..Ask::default() };
                    let since = Instant::now();
                    match self.client.call(cx, &calls::SCHEDULE, ask).await {
                        Ok(_) => {
                            // The list may lag: "active" is no end here.
                            let done = |s: Option<&State>| matches!(s, None | Some(State::PendingDeletion | State::Deleted | State::Failed(_)));
                            match self.until(cx, &id, op.key, "SCHEDULING_DELETION", since, done).await {
                                Err(e) if e.kind != ErrorKind::Cancelled => return Err(e.ambiguous(true)),
                                _ => {}
                            }
                            let day = &time[..10];
                            return Ok(Written {
                                id: Some(id),
                                note: Some(format!("unavailable now, erased on {day}, can be brought back until then")),
                                ..Written::default()
                            });
                        }
                        Err(e) if e.kind == ErrorKind::Unsettled => known = self.stable(cx, op.key, &id, "changing").await?,
                        Err(e) if e.ambiguous => {
                            sent = true;
                            self.before_looking(cx, op.key, &e).await?;
                            lost = Some(e);
                            known = self.find_id(cx, &id).await?.as_ref().map(Known::of);
                        }
                        // Gone, or no right: only the list may say "gone".
                        Err(e) if e.kind == ErrorKind::NotFound => {
                            if self.list_secrets(cx).await?.iter().any(|s| s.id == id && s.state() != State::Deleted) {
                                let mut e = e;
                                e.kind = ErrorKind::Permission;
                                return Err(e);
                            }
                            known = None;
                        }
                        Err(e) => return Err(e),
                    }
                }
            }
        }
        Err(lost.unwrap_or_else(|| {
            ApiError::new(ErrorKind::Unsettled, SERVICE, format!("{} does not come to rest: somebody else keeps changing it", op.key))
        }))
    }
}

/// What the listing showed of a key.
fn start(op: &Op<'_>) -> Option<Known> {
    let entry = op.entry?;
    Some(Known { id: entry.id.clone()?, state: State::of(&Facts::of(entry).state) })
}

#[async_trait]
impl Itemised for VaultTarget {
    fn concurrency(&self) -> usize {
        OVERLAP
    }

    async fn apply(&self, cx: &Cx, op: &Op<'_>) -> Result<Written, ApiError> {
        match op.action {
            Action::Delete => self.delete(cx, op).await,
            Action::Create if op.entry.is_none() => self.create(cx, op, false).await,
            Action::Create | Action::Update | Action::Restore => self.converge(cx, op, start(op)).await,
            Action::Import => Err(ApiError::new(ErrorKind::Invalid, SERVICE, "an import is not written here")),
        }
    }
}
