//! Creating a secret, and what to make of a name that is taken.

use std::sync::{MutexGuard, PoisonError};

use tokio::time::Instant;

use super::super::{Op, Written};
use super::SERVICE;
use super::apply::{Known, conflict, desired, with_content};
use super::calls;
use super::client::Ask;
use super::vault::{TAG, VaultTarget};
use super::wire::{Bundle, Secret, State};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::plan::Action;

impl VaultTarget {
    fn full(&self) -> MutexGuard<'_, Option<ApiError>> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn create(&self, cx: &Cx, op: &Op<'_>, restored: bool) -> Result<Written, ApiError> {
        if let Some(error) = self.full().clone() {
            return Err(error);
        }
        let want = desired(op)?;
        let head = serde_json::json!({
            "compartmentId": self.compartment,
            "vaultId": self.vault,
            "keyId": self.key,
            "secretName": op.key,
            "freeformTags": { "managed-by": "kms-sync", TAG: self.sync_id },
            "enableAutoGeneration": false,
        });
        // A token is bound to what it made: after a secret was erased during this very
        // operation, a new one is needed.
        let mut token = if restored { uuid::Uuid::new_v4().to_string() } else { op.token.to_string() };
        for attempt in 0..2 {
            let body = with_content(&head, &want.value);
            let since = Instant::now();
            let headers = [("opc-retry-token", token.as_str())];
            let ask = Ask { path: &["secrets"], body: Some(body), headers: &headers, ..Ask::default() };
            let error = match self.client.send(cx, &calls::CREATE, ask).await {
                Ok(answer) if super::client::genuine(&answer) => match answer.json::<Secret>(SERVICE) {
                    Ok(secret) => {
                        let (id, version) = (secret.id.clone(), secret.current_version_number.unwrap_or(1));
                        let mut written = self.landed(cx, op.key, &id, secret, "CREATING", since, Some(version)).await?;
                        written.instead = (op.action != Action::Create).then_some(Action::Create);
                        return Ok(written);
                    }
                    // It was accepted, and nobody knows as what.
                    Err(error) => error.ambiguous(true),
                },
                Ok(answer) => super::fault::error(cx, &calls::CREATE, &answer),
                Err(error) => error,
            };
            match error.kind {
                ErrorKind::Conflict if error.code.as_deref() == Some("InvalidatedRetryToken") && attempt == 0 => {
                    token = uuid::Uuid::new_v4().to_string();
                }
                ErrorKind::Conflict if error.status == Some(400) => return self.name_taken(cx, op, error).await,
                ErrorKind::Quota => {
                    *self.full() = Some(error.clone());
                    return Err(error);
                }
                _ if error.ambiguous => {
                    return match self.find(cx, op.key).await {
                        Ok(Some(secret)) if secret.tag(TAG) == Some(&self.sync_id) => {
                            Box::pin(self.converge(cx, op, Some(Known::of(&secret)))).await.map(|w| Written { untouched: false, instead: None, ..w })
                        }
                        _ => Err(error),
                    };
                }
                _ => return Err(error),
            }
        }
        Err(conflict(format!("{} could not be created: its retry token was refused twice", op.key), "Run again."))
    }

    /// The name exists though the listing did not show it, or not any more.
    async fn name_taken(&self, cx: &Cx, op: &Op<'_>, error: ApiError) -> Result<Written, ApiError> {
        let want = desired(op)?;
        if let Some(secret) = self.find(cx, op.key).await? {
            let ours = secret.tag(TAG) == Some(&self.sync_id) || op.row.is_some_and(|r| r.remote_id.as_deref() == Some(&secret.id));
            if secret.state() == State::Deleted {
                return Err(conflict(
                    format!("the name {} is still held by a secret that was deleted", op.key),
                    "OCI frees it later; run again then.",
                ));
            }
            if ours || op.approved {
                return Box::pin(self.converge(cx, op, Some(Known::of(&secret)))).await;
            }
            // Perhaps it is what a creation of ours made whose answer was lost: then it comes to rest
            // with the very value.
            let active = match secret.state() {
                State::Moving(_) => self.stable(cx, op.key, &secret.id, "CREATING").await?.is_some_and(|known| known.state == State::Active),
                state => state == State::Active,
            };
            if active && self.bundle(cx, &secret.id).await.ok().and_then(|b| b.value().ok()).is_some_and(|v| v.same_as(&want.value)) {
                return Ok(Written { id: Some(secret.id), untouched: true, ..Written::default() });
            }
            return Err(conflict(
                format!("{} appeared in the vault while this run was going, made by somebody else", op.key),
                "Run again: the plan then shows it and asks before it is overwritten.",
            ));
        }
        let query = [("secretName", op.key), ("vaultId", self.vault.as_str())];
        let ask = Ask { path: &["secretbundles", "actions", "getByName"], query: &query, ..Ask::default() };
        let elsewhere = self.client.get::<Bundle>(cx, &calls::GET_BUNDLE_BY_NAME, ask).await;
        let text = match elsewhere {
            Ok(bundle) if !bundle.secret_id.is_empty() => {
                format!("the name {} is taken by {} in another compartment", op.key, crate::model::text::brief(&bundle.secret_id, 120))
            }
            _ => format!("the name {} is reserved by a secret pending deletion in another compartment, or by one that this user cannot see", op.key),
        };
        Err(conflict(text, "Names are unique in a vault over all compartments: use a key schema, or remove the other secret.")
            .code(error.code.unwrap_or_default())
            .status(400)
            .request_id(error.request_id))
    }
}
