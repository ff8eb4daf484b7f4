//! OCI Vault: one secret per key, in one compartment of one vault of Oracle Cloud.
//!
//! | file | subject |
//! | --- | --- |
//! | `spec` | forms, labels, offline rules of the connection |
//! | `ocid`, `region`, `names` | identifiers, hosts, key and value limits |
//! | `key`, `signer`, `config_file` | the private key, request signatures, `~/.oci/config` |
//! | `calls`, `client`, `fault`, `wire` | the calls as data, sending and paging, errors, JSON |
//! | `session` | connection test and pickers |
//! | `vault`, `apply`, `create`, `settle` | list and read, write one key, wait for secrets between two states |
//! | `proved` | when each value was last read, and what a run takes for granted |
//! | `versions` | room for one more version of a secret that is full |
//!
//! What shapes everything here: every change is asynchronous, so the next call on a secret is
//! refused until it settles; the list tells neither version nor time of change; and a secret
//! whose deletion is pending keeps its name.
//!
//! Facts: Oracle's API reference for Vault Secret Management and Secret Retrieval
//! (20180608, 20190301), "Request Signatures", and the requests of Oracle's Python SDK 2.189.

mod apply;
mod calls;
mod client;
mod config_file;
mod create;
mod fault;
mod key;
#[cfg(test)]
mod key_tests;
mod names;
mod ocid;
mod proved;
mod region;
mod session;
mod settle;
mod signer;
#[cfg(test)]
mod signer_tests;
mod spec;
mod vault;
#[cfg(test)]
mod vault_tests;
mod versions;
mod wire;

use std::sync::Arc;

use super::{KeySpace, Provider, Session, Spec};
use crate::http::ApiError;
use crate::model::connection::ResolvedConnection;
use crate::model::sync::{Reader, SyncOptions};
use crate::model::{Map, Memory, Problems};

/// The word under which requests are counted and errors are reported.
const SERVICE: &str = "oci";

/// Days until a deleted secret is erased, when the sync does not say: what the KMS's own engine sends.
const DELETION_DAYS: i64 = 7;

/// The provider.
pub struct OciVault;

fn text<'m>(config: &'m Map, field: &str) -> &'m str {
    config.get(field).and_then(serde_json::Value::as_str).map(str::trim).unwrap_or_default()
}

impl Provider for OciVault {
    fn spec(&self) -> &'static Spec {
        &spec::SPEC
    }

    fn check(&self, config: &Map, options: &SyncOptions, problems: &mut Problems) {
        ocid::check(config, "compartmentOcid", "Compartment", &["tenancy", "compartment"], problems);
        ocid::check(config, "vaultOcid", "Vault", &["vault"], problems);
        ocid::check(config, "keyOcid", "Encryption Key", &["key"], problems);
        let mut reader = Reader { object: &options.extra, prefix: "syncOptions.", problems };
        reader.number("deletionDays", 1, 30);
        reader.flag("pruneVersions");
    }

    fn label(&self, config: &Map) -> String {
        let vault = text(config, "vaultOcid");
        let tail: String = vault.rsplit('.').next().unwrap_or_default().chars().rev().take(6).collect::<Vec<_>>().into_iter().rev().collect();
        match ocid::region(vault) {
            Some(region) => format!("OCI Vault {region} …{tail}"),
            None => format!("OCI Vault {}", if tail.is_empty() { vault } else { &tail }),
        }
    }

    fn keys(&self, _config: &Map) -> Box<dyn KeySpace> {
        Box::new(names::Names)
    }

    fn names_place(&self) -> bool {
        true
    }

    fn overlaps(&self, a: &Map, b: &Map) -> bool {
        ["compartmentOcid", "vaultOcid"].iter().all(|f| text(a, f) == text(b, f))
    }

    fn connect(&self, connection: ResolvedConnection, memory: Arc<dyn Memory>) -> Result<Arc<dyn Session>, ApiError> {
        Ok(Arc::new(session::OciSession::new(&connection, memory)?))
    }
}
