//! Sending a draft: one PUT or POST, checked by its answer; and what to do when the answer
//! is lost, when somebody else was faster, or when one variable is refused.
//!
//! The service has no revision to compare: the last writer wins. Between the reading that a
//! PUT is built on and the PUT itself nothing else is sent and nothing waited for, no token
//! either; a foreign change that falls into that gap is lost and cannot be noticed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use reqwest::Method;
use serde_json::Value;

use super::SERVICE;
use super::api::Resource;
use super::client::{Call, Scope};
use super::draft::{BODY_LARGE, Circumstances, Draft, NAMES_LIMIT, names_size};
use super::errors::Doing;
use super::group::{Body, Group, Slot, is_secret, reference};
use super::keys::Keys;
use super::target::DevOpsTarget;
use crate::destination::common::Common;
use crate::destination::{Batch, BatchWritten, Destination as _, Document, KeySpace};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::text::{brief, mentions};

/// A listing older than this (a question to the operator lay in between, or a wait) is read
/// again before it is written over.
const STALE: Duration = Duration::from_secs(2);
/// Writes sent for one batch before giving up.
const ATTEMPTS: u32 = 5;
/// Variables left out of one batch because the service refused them by name; each costs one
/// write beyond [`ATTEMPTS`].
const EXCLUSIONS: usize = 10;

/// The description of a group that this tool makes.
const DESCRIPTION: &str = "Secrets from Hanzo KMS, kept up to date by kms-sync.";

const POST: &str = "POST /_apis/distributedtask/variablegroups";
const PUT: &str = "PUT /_apis/distributedtask/variablegroups/{id}";
const DELETE: &str = "DELETE /_apis/distributedtask/variablegroups/{id}";

#[async_trait]
impl Document for DevOpsTarget {
    async fn apply(&self, cx: &Cx, batch: &Batch<'_>) -> Result<BatchWritten, ApiError> {
        let lock = lock_of(&self.identity());
        let _one_writer = lock.lock().await;
        let turn = self.client.turn(cx).await?;
        let current = self.current(cx, turn.asked).await?;
        let circumstances = Circumstances::default();
        Write { target: self, cx, batch, circumstances, ours: false, uncertain: false, lost_create: None, renewed: false }.run(current).await
    }
}

/// One writer per group in this process, whatever connection it comes through.
fn lock_of(identity: &str) -> Arc<tokio::sync::Mutex<()>> {
    static LOCKS: Common<tokio::sync::Mutex<()>> = Common::new();
    LOCKS.of(identity, tokio::sync::Mutex::default)
}

impl DevOpsTarget {
    /// The group as it is now: the listing when it is fresh and nothing was `waited` for since,
    /// read again otherwise.
    async fn current(&self, cx: &Cx, waited: bool) -> Result<Option<Group>, ApiError> {
        let seen = self.seen().clone();
        let Some(seen) = seen else {
            return self.checked(self.find(cx).await?);
        };
        if !waited && seen.at.elapsed() < STALE {
            return Ok(seen.group);
        }
        match seen.group {
            None => self.checked(self.find(cx).await?),
            Some(old) => match self.get(cx, old.id).await? {
                Some(group) if group.name.to_lowercase() == old.name.to_lowercase() => self.checked(Some(group)),
                _ => Err(moved()),
            },
        }
    }

    fn checked(&self, group: Option<Group>) -> Result<Option<Group>, ApiError> {
        if let Some(group) = &group {
            self.usable(group)?;
        }
        Ok(group)
    }
}

fn moved() -> ApiError {
    ApiError::new(ErrorKind::Conflict, SERVICE, "the variable group was deleted or renamed after the plan was made; nothing was written")
        .advice("Run the sync again: it plans on what is there now.")
}

pub(super) struct Write<'w> {
    pub(super) target: &'w DevOpsTarget,
    cx: &'w Cx,
    pub(super) batch: &'w Batch<'w>,
    circumstances: Circumstances,
    /// This batch made the group.
    pub(super) ours: bool,
    /// A write was sent whose effect is unknown.
    pub(super) uncertain: bool,
    /// Folded names of a create whose answer was lost.
    lost_create: Option<HashSet<String>>,
    /// The service refused a token of this batch, and another one was asked for.
    renewed: bool,
}

/// True when a wait and another look may help: the write was throttled, or nobody knows its effect.
fn unsure(error: &ApiError) -> bool {
    error.ambiguous || error.kind == ErrorKind::Throttled
}

/// How to go on after a failed write.
enum Next {
    /// Build the draft anew on this state.
    Again(Option<Group>),
    GiveUp(ApiError),
}

impl Write<'_> {
    async fn run(mut self, mut current: Option<Group>) -> Result<BatchWritten, ApiError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let draft = Draft::new(current.as_ref(), self.batch, &self.circumstances);
            let begun = Instant::now();
            if !draft.changed && !self.uncertain {
                return Ok(self.untouched(draft, current.as_ref()));
            }
            let result = match (&current, draft.variables.is_empty()) {
                (None, true) => return Ok(self.untouched(draft, None)),
                (Some(group), true) => return self.delete(group.clone(), draft).await,
                (Some(group), false) => self.put(group, &draft).await,
                (None, false) => self.post(&draft).await,
            };
            let error = match self.whole(result).await {
                Ok(after) => return Ok(self.finish(draft, current.as_ref(), &after)),
                Err(error) => error,
            };
            match self.recover(error, attempt, current, &draft, begun).await {
                Next::Again(group) => current = group,
                Next::GiveUp(error) => {
                    let uncertain = self.uncertain || error.ambiguous;
                    return Err(error.ambiguous(uncertain));
                }
            }
        }
    }

    /// An answer that leaves the variables out, or garbles them, is completed by a reading.
    async fn whole(&self, result: Result<Group, ApiError>) -> Result<Group, ApiError> {
        let after = result?;
        if !after.variables.is_empty() && after.sound().is_ok() {
            return Ok(after);
        }
        match self.target.get(self.cx, after.id).await? {
            Some(group) if !group.variables.is_empty() => Ok(group),
            _ => Err(ApiError::new(ErrorKind::Transient, SERVICE, "the write was answered, but the group cannot be read").ambiguous(true)),
        }
    }

    async fn recover(&mut self, error: ApiError, attempt: u32, current: Option<Group>, draft: &Draft, begun: Instant) -> Next {
        match self.try_recover(&error, attempt, current, draft, begun).await {
            Ok(Some(next)) => Next::Again(next),
            Ok(None) => Next::GiveUp(error),
            Err(other) => Next::GiveUp(other),
        }
    }

    /// `Some(state)`: write again upon this state. `None`: the error stands.
    async fn try_recover(
        &mut self,
        error: &ApiError,
        attempt: u32,
        current: Option<Group>,
        draft: &Draft,
        begun: Instant,
    ) -> Result<Option<Option<Group>>, ApiError> {
        // A write that found out one more refused variable was not in vain.
        let attempt = attempt.saturating_sub(self.circumstances.excluded.len() as u32);
        if attempt >= ATTEMPTS || error.kind == ErrorKind::Cancelled {
            return Ok(None);
        }
        if unsure(error) {
            if !self.cx.spend_retry() {
                return Ok(None);
            }
            if error.ambiguous {
                self.uncertain = true;
                self.circumstances.tried.extend(draft.writes());
                if current.is_none() {
                    self.lost_create = Some(draft.folds());
                }
            }
            self.before_looking(error, attempt).await?;
            return Ok(Some(match current {
                // Whatever it shows, the values cannot be seen: the write is repeated upon it.
                Some(group) => self.again(&group).await?,
                None => self.found().await?,
            }));
        }
        match (&current, error.kind) {
            // The write was not carried out, and asking for a token may have taken long.
            (Some(group), ErrorKind::Unsettled) => self.again(group).await.map(Some),
            (None, ErrorKind::Unsettled) => self.found().await.map(Some),
            (None, ErrorKind::Conflict) => self.taken(error).await.map(Some),
            (Some(group), ErrorKind::NotFound) if error.code.as_deref().is_some_and(|c| c.starts_with("VariableGroupNotFound")) => {
                match self.target.find(self.cx).await? {
                    // Gone since the listing: what this sync holds is written to a new one.
                    None => Ok(Some(None)),
                    Some(other) if other.id != group.id => Err(moved()),
                    Some(_) => Ok(None),
                }
            }
            (_, ErrorKind::Invalid) if error.status == Some(400) && self.circumstances.excluded.len() < EXCLUSIONS => {
                let Some(key) = named_in(&error.message, draft) else { return Ok(None) };
                let mut why = error.clone();
                why.message = format!("refused by the service: {}", error.message);
                // Named again though it was left out: that does not help.
                if self.circumstances.excluded.insert(Keys.fold(&key), why).is_some() {
                    return Ok(None);
                }
                match current {
                    Some(group) if begun.elapsed() >= STALE => self.again(&group).await.map(Some),
                    current => Ok(Some(current)),
                }
            }
            _ => Ok(None),
        }
    }

    /// The pause between a write that was throttled or lost and the next look at the group.
    async fn before_looking(&self, error: &ApiError, attempt: u32) -> Result<(), ApiError> {
        let reason = format!("Azure DevOps: {}; looking at the group again", brief(&error.message, 120));
        self.cx.wait_to_retry(&reason, error.retry_after, attempt).await
    }

    /// The group as it is now, after a wait or a write that was refused.
    async fn again(&self, group: &Group) -> Result<Option<Group>, ApiError> {
        match self.target.get(self.cx, group.id).await? {
            Some(fresh) => self.target.checked(Some(fresh)),
            None => self.target.checked(self.target.find(self.cx).await?),
        }
    }

    /// The group under its name. After a create without an answer it is ours when it looks like
    /// what was sent; another one shows that the create did nothing.
    async fn found(&mut self) -> Result<Option<Group>, ApiError> {
        let found = self.target.checked(self.target.find(self.cx).await?)?;
        if let (Some(group), Some(sent)) = (&found, &self.lost_create) {
            let secret: HashSet<String> = group.variables.iter().filter(|(_, v)| is_secret(v)).map(|(name, _)| Keys.fold(name)).collect();
            self.ours = group.description.as_ref().and_then(Value::as_str) == Some(DESCRIPTION) && sent.is_subset(&secret);
            if !self.ours {
                self.lost_create = None;
                self.uncertain = false;
                self.circumstances.tried.clear();
            }
        }
        Ok(found)
    }

    /// The name is taken: by a create of ours whose answer was lost, by somebody faster, or by
    /// a group that this identity may not see.
    async fn taken(&mut self, error: &ApiError) -> Result<Option<Group>, ApiError> {
        let pauses: &[u64] = if self.uncertain { &[0, 500, 1000, 2000] } else { &[0, 500] };
        for pause in pauses {
            if *pause > 0 {
                self.cx.wait("a variable group of this name exists and is not listed yet", Duration::from_millis(*pause)).await?;
            }
            let found = self.found().await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        let mut invisible = error.clone();
        invisible.message = format!("a variable group {:?} exists in this project, but this identity cannot see it", brief(&self.target.group, 80));
        Err(invisible.advice(
            "Ask its administrator for the role Reader (to write it: Administrator) of that group, or set variableGroupName to another name.",
        ))
    }

    async fn post(&mut self, draft: &Draft) -> Result<Group, ApiError> {
        let description = Value::String(DESCRIPTION.into());
        let references = reference(&self.target.project, &self.target.group, Some(&description));
        let body = Body {
            name: &self.target.group,
            description: Some(&description),
            kind: "Vsts",
            provider_data: None,
            variable_group_project_references: self.target.client.version().writes_at_organisation().then_some(&references),
            variables: &draft.variables,
        };
        self.send(Method::POST, POST, Doing::Create, &[], body, draft).await
    }

    async fn put(&mut self, group: &Group, draft: &Draft) -> Result<Group, ApiError> {
        let made = reference(&self.target.project, &group.name, group.description.as_ref());
        let references = match &group.references {
            Some(references) => Some(references),
            None => self.target.client.version().writes_at_organisation().then_some(&made),
        };
        let body = Body {
            name: &group.name,
            description: group.description.as_ref(),
            kind: &group.kind,
            provider_data: group.provider_data.as_ref(),
            variable_group_project_references: references,
            variables: &draft.variables,
        };
        self.send(Method::PUT, PUT, Doing::Update, &[&group.id.to_string()], body, draft).await
    }

    async fn send(
        &mut self,
        method: Method,
        label: &'static str,
        doing: Doing,
        tail: &[&str],
        body: Body<'_>,
        draft: &Draft,
    ) -> Result<Group, ApiError> {
        let names = names_size(draft.variables.keys().map(String::as_str));
        if names > NAMES_LIMIT {
            return Err(ApiError::new(
                ErrorKind::Quota,
                SERVICE,
                format!(
                    "{} variables with {} KiB of names in one group: no pipeline job that uses it could start",
                    draft.variables.len(),
                    names >> 10
                ),
            )
            .advice("Split the folder over several syncs, each with a variableGroupName of its own, or use a Key Vault for the larger part."));
        }
        let bytes = body.bytes()?;
        let size = bytes.len();
        let scope = Scope::Write(&self.target.project);
        let call = Call { method, label, doing, resource: Resource::Groups, scope, tail, query: Vec::new(), body: Some(bytes) };
        let answer = self.target.client.write(self.cx, &call, &mut self.renewed).await.map_err(|mut error| {
            if error.status == Some(413) || (error.kind == ErrorKind::Invalid && size > BODY_LARGE) {
                error.message = format!("{} (the request has {size} bytes)", error.message);
            }
            // An answer that is no JSON leaves open whether the group was written.
            if error.kind == ErrorKind::NotTheService && error.status.is_some_and(|s| s < 300) {
                error.ambiguous = true;
            }
            error
        })?;
        let lost = |text: &str| ApiError::new(ErrorKind::Transient, SERVICE, text).status(answer.status).ambiguous(true);
        match Group::of(&answer) {
            Ok(Some(group)) if tail.first().is_some_and(|id| *id != group.id.to_string()) => Err(lost("the write was answered with another group")),
            Ok(Some(group)) => Ok(group),
            Ok(None) => Err(ApiError::new(ErrorKind::NotFound, SERVICE, "the variable group is gone")
                .code("VariableGroupNotFoundException")
                .status(answer.status)),
            Err(_) => Err(lost("the write was answered by something else than the group")),
        }
    }

    /// The last variable goes: a group may not be empty, so it is deleted, if it is ours.
    async fn delete(mut self, group: Group, draft: Draft) -> Result<BatchWritten, ApiError> {
        if !self.made_by_us(&group) {
            return Err(ApiError::new(
                ErrorKind::Invalid,
                SERVICE,
                format!(
                    "the variable group {:?} would be left empty, which Azure DevOps does not allow, and this sync did not make it",
                    brief(&group.name, 80)
                ),
            )
            .advice("Add a variable of your own to the group, or delete the group in Azure DevOps; nothing was changed."));
        }
        for attempt in 1..=ATTEMPTS {
            let id = group.id.to_string();
            let call = Call {
                method: Method::DELETE,
                label: DELETE,
                doing: Doing::Delete,
                resource: Resource::Groups,
                scope: Scope::Write(&self.target.project),
                tail: &[&id],
                query: if self.target.client.version().writes_at_organisation() {
                    vec![("projectIds", self.target.project.clone())]
                } else {
                    Vec::new()
                },
                body: None,
            };
            let error = match self.target.client.write(self.cx, &call, &mut self.renewed).await {
                Ok(_) => return Ok(self.deleted(&group, draft)),
                Err(error) => error,
            };
            let gone = error.status == Some(404);
            let unsure = unsure(&error);
            let outdated = error.kind == ErrorKind::Unsettled && attempt < ATTEMPTS;
            let worth_a_look = gone || outdated || (unsure && attempt < ATTEMPTS && self.cx.spend_retry());
            if !worth_a_look {
                return Err(error);
            }
            self.uncertain |= error.ambiguous;
            if unsure {
                self.before_looking(&error, attempt).await?;
            }
            match self.target.checked(self.target.get(self.cx, group.id).await?)? {
                None => return Ok(self.deleted(&group, draft)),
                Some(_) if gone => return Err(error),
                Some(fresh) if Draft::new(Some(&fresh), self.batch, &self.circumstances).variables.is_empty() => {}
                // A foreign variable came in between: the group stays.
                Some(_) => return Err(moved()),
            }
        }
        Err(moved())
    }
}

/// The variable of ours that a refusal names; the longest wins.
fn named_in(message: &str, draft: &Draft) -> Option<String> {
    draft
        .variables
        .iter()
        .filter(|(name, slot)| matches!(slot, Slot::Ours { .. }) && !name.is_empty() && mentions(message, name))
        .map(|(name, _)| name.clone())
        .max_by_key(String::len)
}
