//! Room for one more version: a secret holds 30 active ones. Where the sync allows it, the
//! oldest version that is deprecated and nothing else is given up, by scheduling its deletion.
//!
//! Facts: Oracle's "Secret Versions and Rotation States" and ScheduleSecretVersionDeletion
//! (deprecated versions only, 1 to 30 days ahead). Which answer the 31st version draws is not
//! documented: the versions are counted before, and a refusal is taken seriously after.

use super::SERVICE;
use super::apply::deletion_time;
use super::calls;
use super::client::Ask;
use super::vault::VaultTarget;
use super::wire::{State, Version};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::Time;

/// Active versions a secret holds at most.
pub(super) const MAX: u64 = 30;
/// From this version on the outcome warns.
pub(super) const MANY: u64 = 25;
/// Looks at the versions before it is given up: a refusal and a lost answer each cost one.
const LOOKS: usize = 4;
/// Days until a version that was given up is erased: the least that OCI accepts.
const DAYS: i64 = 1;

/// What the operator can do about a secret that is full, without the option.
pub(super) const ADVICE: &str = "A secret holds at most 30 active versions: turn on Prune Versions (syncOptions.pruneVersions), or schedule \
                                 the deletion of deprecated versions in the OCI Console, then run again.";

/// The note beside a write that made a version with a high number.
pub(super) fn warning(version: u64) -> String {
    if version < MAX {
        format!("version {version}; OCI holds at most {MAX} active versions of a secret")
    } else {
        format!("version {version}; OCI holds at most {MAX} active versions of a secret, so the next change may be refused: see Prune Versions")
    }
}

impl VaultTarget {
    /// Gives up the oldest deprecated version of a secret that is full, and answers its number.
    /// `refused`: the service said that it is full, whatever is counted here.
    pub(super) async fn make_room(&self, cx: &Cx, key: &str, id: &str, refused: bool) -> Result<Option<u64>, ApiError> {
        let mut sent: Option<u64> = None;
        for _ in 0..LOOKS {
            let path = ["secrets", id, "versions"];
            let versions: Vec<Version> = self.client.list(cx, &calls::LIST_VERSIONS, None, &path, &[], Some("1000")).await?;
            let active: Vec<&Version> = versions.iter().filter(|v| v.time_of_deletion.is_none()).collect();
            if sent.is_some_and(|n| active.iter().all(|v| v.version_number != n)) {
                return Ok(sent);
            }
            if !refused && (active.len() as u64) < MAX {
                return Ok(None);
            }
            let Some(oldest) = active.iter().filter(|v| v.only_deprecated()).map(|v| v.version_number).min() else {
                let text = format!("{key} is full, and none of its {} active versions is a deprecated one that could go", active.len());
                return Err(ApiError::new(ErrorKind::Quota, SERVICE, text)
                    .advice("Current, previous, pending and latest versions are never taken: look at the secret's versions in the OCI Console."));
            };
            let number = oldest.to_string();
            let body = serde_json::json!({ "timeOfDeletion": deletion_time(Time::now(), DAYS) }).to_string().into_bytes();
            let path = ["secrets", id, "version", number.as_str(), "actions", "scheduleDeletion"];
            match self.client.call(cx, &calls::SCHEDULE_VERSION, Ask { path: &path, body: Some(body), ..Ask::default() }).await {
                Ok(_) => {
                    self.rest(cx, key, id).await?;
                    return Ok(Some(oldest));
                }
                Err(e) if e.kind == ErrorKind::Unsettled => self.rest(cx, key, id).await?,
                Err(e) if e.ambiguous => {
                    sent = Some(oldest);
                    self.before_looking(cx, key, &e).await?;
                }
                Err(mut e) => {
                    e.message = format!("{key} holds {MAX} active versions, and the oldest could not be given up: {}", e.message);
                    return Err(e);
                }
            }
        }
        Err(ApiError::new(ErrorKind::Unsettled, SERVICE, format!("no room could be made for a new version of {key}: it keeps changing")))
    }

    /// Waits while the secret is between two states.
    async fn rest(&self, cx: &Cx, key: &str, id: &str) -> Result<(), ApiError> {
        if let Some(State::Moving(word)) = self.get(cx, id).await?.map(|s| s.state()) {
            self.stable(cx, key, id, &word).await?;
        }
        Ok(())
    }
}
