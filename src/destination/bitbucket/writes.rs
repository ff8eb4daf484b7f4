//! One operation on one variable, and what is true after answers that say little: a
//! duplicate, a lost answer, a variable that went away meanwhile.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

use async_trait::async_trait;
use reqwest::Method;
use serde_json::{Value, json};

use super::budget::Patience;
use super::client::{Call, Secured};
use super::errors::{self, Told};
use super::paging;
use super::spec::SERVICE;
use super::target::{Variable, Variables, stamp, usable};
use crate::destination::{Itemised, Op, Written};
use crate::http::{Answer, ApiError, Cx, ErrorKind, backoff};
use crate::model::plan::Action;

/// Tries of one creation when answers are lost or refused for passing reasons.
const TRIES: u32 = 3;

#[async_trait]
impl Itemised for Variables {
    /// Few: the hourly budget makes more useless, and an environment's variables sit behind a cache.
    fn concurrency(&self) -> usize {
        if self.environment.is_some() { 2 } else { 4 }
    }

    async fn apply(&self, cx: &Cx, op: &Op<'_>) -> Result<Written, ApiError> {
        if let Some(error) = self.stopped() {
            return Err(error);
        }
        if !self.proved.load(Ordering::Relaxed) {
            let alone = self.first.lock().await;
            if let Some(error) = self.stopped() {
                return Err(error);
            }
            if !self.proved.load(Ordering::Relaxed) {
                let result = self.carry_out(cx, op).await;
                self.learn_from(&result);
                return result;
            }
            drop(alone);
        }
        let result = self.carry_out(cx, op).await;
        self.learn_from(&result);
        result
    }
}

impl Variables {
    async fn carry_out(&self, cx: &Cx, op: &Op<'_>) -> Result<Written, ApiError> {
        cx.check(SERVICE)?;
        let result = self.write(cx, op).await;
        if result.is_ok() {
            self.overrides.wrote(op.key, op.action != Action::Delete);
        }
        result
    }

    async fn write(&self, cx: &Cx, op: &Op<'_>) -> Result<Written, ApiError> {
        if op.action == Action::Delete {
            return self.delete(cx, op).await;
        }
        let Some(desired) = op.desired else {
            return Err(ApiError::new(ErrorKind::Invalid, SERVICE, format!("{}: there is no value to write", op.key)));
        };
        let write = Secured { key: op.key, value: &desired.value };
        match op.action {
            Action::Create => self.create(cx, op, write).await,
            _ => match op.entry.and_then(|e| e.id.as_deref()).or(op.row.and_then(|r| r.remote_id.as_deref())) {
                Some(uuid) => self.update(cx, op, write, uuid).await,
                None => self.create(cx, op, write).await,
            },
        }
    }

    /// POST. A duplicate or a lost answer is resolved by listing again, never by a blind repeat.
    async fn create(&self, cx: &Cx, op: &Op<'_>, write: Secured<'_>) -> Result<Written, ApiError> {
        let what = format!("cannot create {}", write.key);
        let mut lost = false;
        let mut last = None;
        for attempt in 1..=TRIES {
            let sent = self.post(cx, write).await;
            let since = Instant::now();
            match sent {
                Ok(answer) if answer.ok() => match accepted(&answer)? {
                    Some((uuid, secured)) => return Ok(written(&uuid, secured, action(op, Action::Create))),
                    None => lost = true,
                },
                Ok(answer) if answer.status == 409 => {
                    let told = Told::read(&answer.body);
                    if let Some(found) = self.find(cx, write.key, since, lost || told.duplicate()).await? {
                        return self.take(cx, op, write, &found, lost).await;
                    }
                    let error = self.refused(cx, &answer, &what, write);
                    if told.duplicate() {
                        return Err(
                            error.advice("Bitbucket says that the variable exists, but does not list it: look into the repository's settings.")
                        );
                    }
                    last = Some(error);
                    cx.wait("Bitbucket answered 409, tries again", backoff(attempt)).await?;
                    continue;
                }
                Ok(answer) if answer.status == 408 || answer.status >= 500 => {
                    last = Some(self.refused(cx, &answer, &what, write));
                    lost = true;
                }
                Ok(answer) if answer.status == 404 => return Err(self.gone(cx, &answer, &what, write).await),
                Ok(answer) => return Err(self.rejected(cx, &answer, &what, write)),
                Err(error) if error.ambiguous => {
                    last = Some(error);
                    lost = true;
                }
                Err(error) => return Err(error),
            }
            // It may be there now: the list tells, then the value is put to be sure.
            if let Some(found) = self.find(cx, write.key, since, false).await? {
                return self.take(cx, op, write, &found, true).await;
            }
            if attempt < TRIES {
                cx.wait("Bitbucket lost an answer, tries again", backoff(attempt)).await?;
            }
        }
        Err(last.unwrap_or_else(|| ApiError::new(ErrorKind::Transient, SERVICE, what).ambiguous(true)))
    }

    async fn post(&self, cx: &Cx, write: Secured<'_>) -> Result<Answer, ApiError> {
        let repository = self.address();
        let call = Call {
            method: Method::POST,
            route: self.route(),
            path: self.path(&repository),
            slash: false,
            query: Vec::new(),
            body: Some(write),
            patience: Patience::Run,
        };
        self.api.send(cx, &call).await
    }

    /// Looks for a variable; with `certain` it must exist, and a lagging list gets time.
    async fn find(&self, cx: &Cx, key: &str, since: Instant, certain: bool) -> Result<Option<Variable>, ApiError> {
        let waits = if certain || self.environment.is_some() { self.api.tempo.settle.as_slice() } else { &[] };
        let mut since = since;
        let mut waits = waits.iter();
        loop {
            let rows = self.look(cx, since).await?;
            let mut hits = rows.iter().filter(|v| v.key == key);
            match (hits.next(), hits.next()) {
                (Some(one), None) => return Ok(Some(one.clone())),
                (Some(_), Some(_)) => {
                    return Err(ApiError::new(ErrorKind::Conflict, SERVICE, format!("{key}: several variables have this key"))
                        .advice("Delete all but one in Bitbucket's settings; none of them was touched."));
                }
                (None, _) => {}
            }
            let Some(wait) = waits.next() else { return Ok(None) };
            cx.wait(&format!("Bitbucket: {key} is not listed yet"), *wait).await?;
            since = Instant::now();
        }
    }

    /// Puts the value on a variable that turned out to exist, if it is ours to overwrite.
    async fn take(&self, cx: &Cx, op: &Op<'_>, write: Secured<'_>, found: &Variable, lost: bool) -> Result<Written, ApiError> {
        let ours = lost || op.approved || op.row.is_some_and(|r| r.intent.is_some() || r.remote_id.as_deref() == Some(&found.uuid));
        if !ours {
            return Err(ApiError::new(ErrorKind::Conflict, SERVICE, format!("{}: somebody else made this variable meanwhile", write.key))
                .status(409)
                .advice("Nothing was overwritten. Run the sync again: the plan will ask."));
        }
        let answer = self.put(cx, write, &found.uuid).await?;
        let did = if lost { Action::Create } else { Action::Update };
        match self.confirmed(cx, &answer, &found.uuid, write)? {
            Some(secured) => Ok(written(&found.uuid, secured, action(op, did))),
            None => Err(self.refused(cx, &answer, &format!("cannot update {}", write.key), write)),
        }
    }

    /// PUT on a known uuid; one that went away is created anew.
    async fn update(&self, cx: &Cx, op: &Op<'_>, write: Secured<'_>, uuid: &str) -> Result<Written, ApiError> {
        let what = format!("cannot update {}", write.key);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let answer = self.put(cx, write, uuid).await?;
            let since = Instant::now();
            if answer.status == 409 && attempt < TRIES && !Told::read(&answer.body).duplicate() {
                cx.wait("Bitbucket answered 409, tries again", backoff(attempt)).await?;
                continue;
            }
            if let Some(secured) = self.confirmed(cx, &answer, uuid, write)? {
                return Ok(written(uuid, secured, action(op, Action::Update)));
            }
            if answer.status != 404 {
                return Err(self.rejected(cx, &answer, &what, write));
            }
            // The list tells whether the variable, or all around it, is gone.
            return match self.find_other(cx, write.key, uuid, since).await? {
                Some(found) => self.take(cx, op, write, &found, false).await,
                None => self.create(cx, op, write).await,
            };
        }
    }

    /// A variable of this key with another uuid than the one that is gone.
    async fn find_other(&self, cx: &Cx, key: &str, gone: &str, since: Instant) -> Result<Option<Variable>, ApiError> {
        let rows = self.look(cx, since).await?;
        Ok(rows.iter().find(|v| v.key == key && v.uuid != gone).cloned())
    }

    async fn put(&self, cx: &Cx, write: Secured<'_>, uuid: &str) -> Result<Answer, ApiError> {
        self.on_one(cx, Method::PUT, uuid, Some(write)).await
    }

    async fn on_one(&self, cx: &Cx, method: Method, uuid: &str, body: Option<Secured<'_>>) -> Result<Answer, ApiError> {
        if !usable(uuid) {
            return Err(ApiError::new(ErrorKind::Invalid, SERVICE, "a variable without a usable uuid cannot be addressed"));
        }
        let repository = self.address();
        let mut path = self.path(&repository);
        path.push(uuid);
        let route = format!("{}/{{variable}}", self.route());
        let call = Call { method, route: &route, path, slash: false, query: Vec::new(), body, patience: Patience::Run };
        self.api.send(cx, &call).await
    }

    /// DELETE. A variable that is gone already is what was wanted.
    async fn delete(&self, cx: &Cx, op: &Op<'_>) -> Result<Written, ApiError> {
        let Some(uuid) = op.entry.and_then(|e| e.id.as_deref()).or(op.row.and_then(|r| r.remote_id.as_deref())) else {
            return Err(ApiError::new(ErrorKind::Invalid, SERVICE, format!("{}: its uuid is not known, so it cannot be deleted", op.key)));
        };
        let answer = self.on_one(cx, Method::DELETE, uuid, None).await?;
        if !answer.ok() && answer.status != 404 {
            return Err(self.failed(cx, &answer, &format!("cannot delete {}", op.key)));
        }
        self.graves.lock().unwrap_or_else(PoisonError::into_inner).insert(uuid.to_string(), Instant::now());
        let note = (answer.status == 404).then(|| "was gone already".to_string());
        Ok(Written { id: Some(uuid.to_string()), note, ..Written::default() })
    }

    /// `Some(secured)` when a PUT was carried out.
    fn confirmed(&self, cx: &Cx, answer: &Answer, uuid: &str, write: Secured<'_>) -> Result<Option<bool>, ApiError> {
        if !answer.ok() {
            if (300..400).contains(&answer.status) {
                return Err(self.refused(cx, answer, &format!("cannot update {}", write.key), write));
            }
            return Ok(None);
        }
        if answer.body.is_empty() {
            return Ok(Some(true));
        }
        let body = paging::object(answer).map_err(|e| e.ambiguous(true))?;
        if let Some(other) = body.get("uuid").and_then(Value::as_str)
            && other != uuid
        {
            return Err(ApiError::new(ErrorKind::NotTheService, SERVICE, format!("{}: the answer is about another variable", write.key)));
        }
        Ok(Some(body.get("secured").and_then(Value::as_bool).unwrap_or(true)))
    }

    fn refused(&self, cx: &Cx, answer: &Answer, what: &str, write: Secured<'_>) -> ApiError {
        errors::of(cx, &self.api.auth, answer, what, Some(&self.place.full_name()), Some(write.value))
    }

    /// A refusal of this key; an empty value that is refused once is not sent again.
    fn rejected(&self, cx: &Cx, answer: &Answer, what: &str, write: Secured<'_>) -> ApiError {
        let error = self.refused(cx, answer, what, write);
        if answer.status == 400 && error.kind == ErrorKind::Invalid && write.value.is_empty() {
            self.api.set_refuses_empty();
            return error.advice("Bitbucket refuses an empty value here: the key is skipped from now on, and an existing variable stays as it is.");
        }
        error
    }

    /// A creation answered 404: the list tells what is gone.
    async fn gone(&self, cx: &Cx, answer: &Answer, what: &str, write: Secured<'_>) -> ApiError {
        match self.look(cx, Instant::now()).await {
            Err(error) => error,
            Ok(_) => self.refused(cx, answer, what, write).advice(format!(
                "The variables of {} can be listed, but not written: the account must be administrator of the repository.",
                self.name()
            )),
        }
    }
}

/// The uuid (and whether it is secured) of a created variable. `None`: accepted without naming it.
fn accepted(answer: &Answer) -> Result<Option<(String, bool)>, ApiError> {
    let located = || {
        let last = answer.header("location")?.split(['?', '#']).next()?.trim_end_matches('/').rsplit('/').next()?.to_string();
        super::place::uuid(&last)
    };
    if answer.body.is_empty() {
        return Ok(located().map(|uuid| (uuid, true)));
    }
    let body = paging::object(answer).map_err(|e| e.ambiguous(true))?;
    let uuid = body.get("uuid").and_then(Value::as_str).filter(|u| usable(u)).map(str::to_owned).or_else(located);
    let secured = body.get("secured").and_then(Value::as_bool).unwrap_or(true);
    Ok(uuid.map(|uuid| (uuid, secured)))
}

fn action(op: &Op<'_>, did: Action) -> Option<Action> {
    (op.action != did && !(op.action == Action::Restore && did == Action::Update)).then_some(did)
}

fn written(uuid: &str, secured: bool, instead: Option<Action>) -> Written {
    let note = (!secured).then(|| "Bitbucket did not secure it".to_string());
    Written { id: Some(uuid.to_string()), stamp: Some(stamp(uuid, secured)), detail: json!({}), instead, note, ..Written::default() }
}
