//! Whose a key is: what the ledger's row proves about what stands at the destination, and which
//! other sync stands for it.

use super::Inputs;
use crate::destination::{Entry, EntryState, Freshness, Missing};
use crate::model::ledger::{LedgerRow, Other};

/// True for a row of a key that this sync wrote, and did not delete since.
pub(super) fn live(row: &LedgerRow) -> bool {
    row.value_hash.is_some()
}

/// Why a key whose import did not arrive whole is not this sync's to delete.
pub(super) const NOT_ARRIVED: &str = "its value was to be imported, and the KMS does not hold it";

/// Rows of keys that another hand took away: not `there`, and not merely unlisted as yet.
pub(super) fn gone<'i>(inputs: &'i Inputs<'_>, there: impl Fn(&str) -> bool + 'i) -> impl Iterator<Item = &'i LedgerRow> {
    let rows = inputs.ledger.rows.values().filter(move |r| live(r) && r.intent.is_none() && !there(&r.fold));
    rows.filter(|r| inputs.destination.missing(r) == Missing::Gone)
}

/// True unless both sides name an object and the names differ: then the key was deleted and
/// made anew by somebody else.
pub(super) fn same_object(entry: &Entry, row: &LedgerRow) -> bool {
    match (&entry.id, &row.remote_id) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    }
}

/// Whether the ledger shows that this sync wrote what stands there. A write that was
/// announced and never confirmed counts when the destination shows its token or its value.
pub(super) fn owned(inputs: &Inputs<'_>, entry: &Entry, row: &LedgerRow) -> bool {
    if row.value_hash.is_some() {
        return true;
    }
    let Some(intent) = &row.intent else { return false };
    if intent.action == "delete" {
        return true;
    }
    if announced(inputs, entry, row) || !inputs.destination.readable() {
        return true;
    }
    // Brought back by a run that died before it could write the new value.
    entry.value.as_ref().is_some_and(|value| row.buried_hash() == Some(inputs.hasher.hash(value).as_str()))
}

/// Whether a write that was announced and never confirmed is what stands there: the destination
/// shows its token, or its value.
pub(super) fn announced(inputs: &Inputs<'_>, entry: &Entry, row: &LedgerRow) -> bool {
    let Some(intent) = row.intent.as_ref().filter(|i| i.action != "delete") else { return false };
    entry.stamp.as_deref() == Some(intent.token.as_str())
        || entry.value.as_ref().is_some_and(|value| intent.value_hash.as_deref() == Some(inputs.hasher.hash(value).as_str()))
}

/// Why an own key is not as this sync left it; `None` when it is, or when nothing can tell.
pub(super) fn tampered(inputs: &Inputs<'_>, entry: &Entry, row: &LedgerRow) -> Option<&'static str> {
    if announced(inputs, entry, row) {
        return None;
    }
    match (&entry.value, &row.value_hash) {
        (Some(value), Some(hash)) => (inputs.hasher.hash(value) != *hash).then_some("edited outside since this sync wrote it"),
        (None, Some(_)) if inputs.destination.readable() && entry.state == EntryState::Active => match inputs.destination.freshness(entry, row) {
            Freshness::Changed(_) => Some("edited outside since this sync wrote it"),
            Freshness::Unknown => Some("perhaps edited outside since this sync wrote it"),
            Freshness::Same | Freshness::Unseen => None,
        },
        _ => None,
    }
}

/// True for a key that this sync carries beside another one that wrote it: it keeps the other
/// from deleting the key, and does not make it this sync's to change.
pub(super) fn beside(inputs: &Inputs<'_>, fold: &str, row: Option<&LedgerRow>) -> bool {
    row.is_some_and(LedgerRow::stands_beside) && inputs.ledger.others.get(fold).is_some_and(|o| !o.row.stands_beside())
}

/// The other sync that stands for a key, when what is there now is what its ledger tells. Where
/// nothing there tells, the later write of the two counts.
pub(super) fn sibling<'i>(inputs: &'i Inputs<'_>, entry: &Entry, fold: &str, own: Option<&LedgerRow>) -> Option<&'i Other> {
    let other = inputs.ledger.others.get(fold)?;
    let hash = other.row.value_hash.as_deref().filter(|_| same_object(entry, &other.row))?;
    let freshness = |row: &LedgerRow| inputs.destination.freshness(entry, row);
    let own = own.filter(|r| live(r));
    let later = own.is_none_or(|r| r.written_at < other.row.written_at);
    let theirs = match &entry.value {
        Some(value) => inputs.hasher.hash(value) == hash,
        None => match freshness(&other.row) {
            Freshness::Same => later || !own.is_some_and(|r| freshness(r) == Freshness::Same),
            Freshness::Unseen => later,
            Freshness::Unknown | Freshness::Changed(_) => false,
        },
    };
    theirs.then_some(other)
}
