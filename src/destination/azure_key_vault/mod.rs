//! Azure Key Vault: secrets of one vault, each an object of its own.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `app` | the connection's methods, settings and rules |
//! | `address` | vault URLs: what is one, and where a token may go |
//! | `keys` | names: conversion, folding, limits |
//! | `stamp` | what the ledger keeps of a secret's state, and when one-second stamps may be believed |
//! | `api` | one call: token, challenge, throttling |
//! | `pace` | the quotas of vaults, and how they are kept |
//! | `errors` | the service's errors as advice |
//! | `hidden` | deleted names that a write met and the next plan shows |
//! | `wire` | the JSON of the data plane |
//! | `session`, `target`, `write` | the three layers of [`super`] |
//!
//! Facts of the API: Microsoft's REST reference "Key Vault data plane, Secrets" (7.4), the
//! published specification, and "Azure Key Vault soft-delete overview". Purging is never done.

mod address;
mod api;
mod app;
mod errors;
mod hidden;
mod keys;
mod pace;
mod session;
mod stamp;
mod target;
mod wire;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;

use super::form::{Field, Input};
use super::{KeySpace, Provider, Session, Spec};
use crate::http::ApiError;
use crate::model::connection::ResolvedConnection;
use crate::model::sync::{Reader, SyncOptions};
use crate::model::{Map, Memory, Problems};

/// The word under which requests are counted.
pub(crate) const SERVICE: &str = "azure-key-vault";

/// The provider.
pub static PROVIDER: KeyVault = KeyVault;

static SPEC: Spec = Spec {
    kind: "azure-key-vault",
    title: "Azure Key Vault",
    short: "Key Vault",
    service: SERVICE,
    app: &app::APP,
    import_note: None,
    config: &[Field::text("vaultBaseUrl", "Vault Base URL", "The URL of your Azure Key Vault.").expand(address::expanded)],
    // The dashboard's form has no such fields: each is shown where a document changed it.
    options: &[
        Field::text(
            "disableCertificateImport",
            "Leave Certificates Alone",
            "Secrets with a certificate's content type are neither read, imported nor deleted. Those that a certificate manages never are.",
        )
        .input(Input::Flag)
        .optional()
        .only_if("disableCertificateImport", "false"),
        Field::text(
            "ownershipTag",
            "Ownership Tag",
            "Each secret carries the tag kms-sync with this sync's id. Everybody who may list the vault sees it.",
        )
        .input(Input::Flag)
        .optional()
        .only_if("ownershipTag", "true"),
    ],
    notes: &[
        "Secrets in Hanzo KMS that contain an underscore (_) will be converted to a hyphen (-) when synced to Azure Key Vault.",
        "The identity needs these secrets permissions: secrets/list, secrets/get, secrets/set, secrets/recover, and secrets/delete unless deletion is disabled. Any role with these permissions would work, such as the Key Vault Secrets Officer role.",
        "A bare vault name is enough here: my-key-vault stands for https://my-key-vault.vault.azure.net.",
    ],
};

/// Azure Key Vault.
#[derive(Debug, Clone, Copy)]
pub struct KeyVault;

#[async_trait]
impl Provider for KeyVault {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn check(&self, config: &Map, options: &SyncOptions, problems: &mut Problems) {
        let mut reader = Reader { object: config, prefix: "destinationConfig.", problems };
        let given = reader.text("vaultBaseUrl", true, 2048).unwrap_or_default();
        if !given.is_empty() && !given.contains("://") {
            problems.add("destinationConfig.vaultBaseUrl", "url", "Vault Base URL must be a URL such as https://my-key-vault.vault.azure.net.");
            return;
        }
        if !given.is_empty()
            && let Err((rule, message)) = address::VaultUrl::parse(&given)
        {
            problems.add("destinationConfig.vaultBaseUrl", rule, message);
        }
        let mut reader = Reader { object: &options.extra, prefix: "syncOptions.", problems };
        reader.flag("disableCertificateImport");
        reader.flag("ownershipTag");
    }

    fn label(&self, config: &Map) -> String {
        match target_of(config) {
            Some(vault) => format!("Key Vault {}", vault.short()),
            None => "Key Vault".to_string(),
        }
    }

    fn keys(&self, _config: &Map) -> Box<dyn KeySpace> {
        Box::new(keys::Keys)
    }

    fn names_place(&self) -> bool {
        true
    }

    fn overlaps(&self, a: &Map, b: &Map) -> bool {
        match (target_of(a), target_of(b)) {
            (Some(a), Some(b)) => a.identity() == b.identity(),
            _ => false,
        }
    }

    fn connect(&self, connection: ResolvedConnection, memory: Arc<dyn Memory>) -> Result<Arc<dyn Session>, ApiError> {
        Ok(Arc::new(session::KeyVaultSession::new(connection, memory)?))
    }
}

fn target_of(config: &Map) -> Option<address::VaultUrl> {
    address::VaultUrl::parse(config.get("vaultBaseUrl")?.as_str()?).ok()
}
