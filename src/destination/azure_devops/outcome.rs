//! What a write did, key by key: compared with the answer, noted for the operator, remembered.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::SERVICE;
use super::draft::{Draft, Fate, note};
use super::group::{Group, is_secret};
use super::keys::Keys;
use super::write::Write;
use crate::destination::{BatchWritten, KeySpace, Written};
use crate::http::{ApiError, ErrorKind};
use crate::model::plan::Action;
use crate::model::text::brief;

impl Write<'_> {
    pub(super) fn made_by_us(&self, group: &Group) -> bool {
        let id = group.id.to_string();
        self.target.trace.group(group.id).created
            || self.batch.ledger.rows.values().any(|r| r.remote_id.as_ref() == Some(&id) && r.detail["created"] == true)
    }

    pub(super) fn deleted(&self, group: &Group, draft: Draft) -> BatchWritten {
        self.target.forget(group.id);
        let outcomes = draft
            .fates
            .into_iter()
            .map(|(key, fate)| match fate {
                Fate::Refused(error) => (key, Err(error)),
                _ => {
                    let note = format!("the variable group {:?} was empty and was deleted", brief(&group.name, 80));
                    (key, Ok(Written { note: Some(note), ..Written::default() }))
                }
            })
            .collect();
        BatchWritten { outcomes, stamp: None, id: None }
    }

    /// Nothing had to be sent.
    pub(super) fn untouched(&self, draft: Draft, group: Option<&Group>) -> BatchWritten {
        let outcomes = draft
            .fates
            .into_iter()
            .map(|(key, fate)| match fate {
                Fate::Refused(error) => (key, Err(error)),
                _ => (key, Ok(Written { untouched: true, note: Some("it was gone already".into()), ..Written::default() })),
            })
            .collect();
        // The rows keep the stamps they have: nothing was proved about them here.
        BatchWritten { outcomes, stamp: None, id: group.map(|g| g.id.to_string()) }
    }

    /// Compares the answer with what was sent, key by key, and remembers the new stamp.
    pub(super) fn finish(&self, draft: Draft, before: Option<&Group>, after: &Group) -> BatchWritten {
        let base = before.map(|g| g.modified_on.as_str()).filter(|_| !self.uncertain);
        let created = before.is_none() || self.ours;
        let known = self.batch.ledger.rows.values().any(|r| r.stamp.as_deref() == base);
        self.target.remember(after, base, known && base.is_some(), created);
        let (id, stamp) = (after.id.to_string(), Some(after.modified_on.clone()).filter(|s| !s.is_empty()));
        let by_us = created || self.made_by_us(after);
        let sent: HashSet<String> = draft.folds();
        let foreign = after.variables.keys().map(|k| Keys.fold(k)).any(|f| !sent.contains(&f));
        let stored: HashMap<String, &Value> = after.variables.iter().map(|(k, v)| (Keys.fold(k), v)).collect();
        let mut outcomes = Vec::with_capacity(draft.fates.len());
        for ((key, fate), op) in draft.fates.into_iter().zip(&self.batch.changes) {
            let result = match fate {
                Fate::Refused(error) => Err(error),
                Fate::Done => Ok(Written { untouched: true, note: Some("it was gone already".into()), ..Written::default() }),
                Fate::Remove(name) if stored.contains_key(&Keys.fold(&name)) => Err(unconfirmed(&name, "still holds it")),
                Fate::Remove(_) => Ok(Written { id: Some(id.clone()), stamp: stamp.clone(), note: self.taken_from(after), ..Written::default() }),
                Fate::Write(name) => match stored.get(&Keys.fold(&name)) {
                    None => Err(unconfirmed(&name, "does not hold it")),
                    Some(entry) if !is_secret(entry) => Err(unconfirmed(&name, "holds it as a plain variable")),
                    Some(_) => Ok(Written {
                        id: Some(id.clone()),
                        stamp: stamp.clone(),
                        detail: serde_json::json!({"created": by_us}),
                        instead: match (op.action, before.is_some_and(|g| g.variables.contains_key(&name))) {
                            (Action::Update, false) => Some(Action::Create),
                            _ => None,
                        },
                        note: note(op),
                        ..Written::default()
                    }),
                },
            };
            outcomes.push((key, result));
        }
        if self.target.removal.is_some() {
            self.forget_when_empty(&outcomes);
        }
        if foreign && let Some((_, Ok(first))) = outcomes.iter_mut().find(|(_, r)| r.is_ok()) {
            let remark = "another writer changed the group at the same moment";
            first.note = Some(first.note.take().map_or_else(|| remark.to_string(), |n| format!("{n}; {remark}")));
        }
        BatchWritten { outcomes, stamp, id: Some(id) }
    }

    /// Where a removal took a key from, when that is not the group the configuration names today.
    fn taken_from(&self, group: &Group) -> Option<String> {
        let removal = self.target.removal.as_ref()?;
        (removal.wanted.to_lowercase() != group.name.to_lowercase()).then(|| {
            format!("taken from the variable group {:?}, which this sync wrote; {:?} is not touched", brief(&group.name, 80), removal.wanted)
        })
    }

    /// A removal that left nothing of this sync in the group: the group is none of its business
    /// any more, whatever it is called.
    fn forget_when_empty(&self, outcomes: &[(String, Result<Written, ApiError>)]) {
        let gone: HashSet<String> = outcomes.iter().filter(|(_, result)| result.is_ok()).map(|(key, _)| Keys.fold(key)).collect();
        if self.batch.ledger.rows.values().filter(|r| r.stands()).all(|r| gone.contains(&r.fold)) {
            self.target.trace.forget_sync(&self.target.sync_id);
        }
    }
}

fn unconfirmed(name: &str, what: &str) -> ApiError {
    ApiError::new(ErrorKind::Conflict, SERVICE, format!("the write was accepted, but the group as answered {what}: {}", brief(name, 80)))
        .advice("Run the sync again; another writer may have been at work at the same moment.")
}
