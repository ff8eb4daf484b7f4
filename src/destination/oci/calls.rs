//! The calls this provider makes, as data: label, host, the right each needs, and whether a
//! lost answer may be answered by sending again.
//!
//! Facts: Oracle's "Details for Vault, Key Management, and Secret Management Service" (rights)
//! and the requests of Oracle's SDKs. UpdateSecret, the two ScheduleDeletions and
//! CancelSecretDeletion take no retry token: after a lost answer the caller looks first.

/// Which of the five services answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Identity,
    Kms,
    Vaults,
    Secrets,
}

impl Service {
    /// The version prefix of its paths.
    pub fn version(self) -> &'static str {
        match self {
            Self::Identity => "20160918",
            Self::Kms | Self::Vaults => "20180608",
            Self::Secrets => "20190301",
        }
    }
}

/// One kind of call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// What is counted: method and route.
    pub label: &'static str,
    pub service: Service,
    /// The permission, and the policy verb that grants it; empty where none is known.
    pub right: &'static str,
    /// May be sent again when it is unknown whether it took effect.
    pub repeatable: bool,
    /// Counts against the pace of writes.
    pub write: bool,
}

const fn read(label: &'static str, service: Service, right: &'static str) -> Call {
    Call { label, service, right, repeatable: true, write: false }
}

pub(super) const GET_USER: Call = read("GET /users/{userId}", Service::Identity, "USER_INSPECT (inspect users)");
pub(super) const GET_TENANCY: Call = read("GET /tenancies/{tenancyId}", Service::Identity, "TENANCY_INSPECT (inspect tenancies)");
pub(super) const LIST_COMPARTMENTS: Call = read("GET /compartments", Service::Identity, "COMPARTMENT_INSPECT (inspect compartments in tenancy)");
pub(super) const LIST_VAULTS: Call = read("GET /vaults", Service::Kms, "VAULT_INSPECT (inspect vaults)");
pub(super) const GET_VAULT: Call = read("GET /vaults/{vaultId}", Service::Kms, "VAULT_READ (read vaults)");
pub(super) const LIST_KEYS: Call = read("GET /keys", Service::Kms, "KEY_INSPECT (inspect keys)");
pub(super) const GET_KEY: Call = read("GET /keys/{keyId}", Service::Kms, "KEY_READ (read keys)");
pub(super) const LIST_SECRETS: Call = read("GET /secrets", Service::Vaults, "SECRET_INSPECT (inspect secrets)");
pub(super) const GET_SECRET: Call = read("GET /secrets/{secretId}", Service::Vaults, "SECRET_READ (read secrets)");
pub(super) const GET_BUNDLE: Call = read("GET /secretbundles/{secretId}", Service::Secrets, "SECRET_BUNDLE_READ (read secret-bundles)");
pub(super) const GET_BUNDLE_BY_NAME: Call =
    read("POST /secretbundles/actions/getByName", Service::Secrets, "SECRET_BUNDLE_READ (read secret-bundles)");
pub(super) const LIST_VERSIONS: Call = read("GET /secrets/{secretId}/versions", Service::Vaults, "SECRET_VERSION_INSPECT (inspect secret-versions)");
/// Carries a retry token, which makes it repeatable for 24 hours.
pub(super) const CREATE: Call = Call {
    label: "POST /secrets",
    service: Service::Vaults,
    right: "SECRET_CREATE (manage secrets), KEY_ENCRYPT and KEY_DECRYPT (use keys) or VAULT_CREATE_SECRET (use vaults)",
    repeatable: true,
    write: true,
};
pub(super) const UPDATE: Call =
    Call { label: "PUT /secrets/{secretId}", service: Service::Vaults, right: "SECRET_UPDATE (use secrets)", repeatable: false, write: true };
pub(super) const SCHEDULE: Call = Call {
    label: "POST /secrets/{secretId}/actions/scheduleDeletion",
    service: Service::Vaults,
    right: "SECRET_DELETE (manage secrets)",
    repeatable: false,
    write: true,
};
pub(super) const CANCEL: Call = Call {
    label: "POST /secrets/{secretId}/actions/cancelDeletion",
    service: Service::Vaults,
    right: "SECRET_DELETE (manage secrets)",
    repeatable: false,
    write: true,
};
pub(super) const SCHEDULE_VERSION: Call = Call {
    label: "POST /secrets/{secretId}/version/{number}/actions/scheduleDeletion",
    service: Service::Vaults,
    right: "SECRET_VERSION_DELETE (manage secret-versions) or SECRET_UPDATE (use secrets)",
    repeatable: false,
    write: true,
};
