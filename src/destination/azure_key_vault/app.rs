//! Connections to Azure: their methods, settings and rules.

use serde_json::Value;

use super::address;
use crate::destination::entra::check_ids;
use crate::model::Problems;
use crate::model::connection::{AppSpec, Connection, ConnectionMethod, ConnectionSetting, Credential, CredentialField};

const fn field(name: &'static str, label: &'static str, required: bool, secret: bool, help: &'static str) -> CredentialField {
    CredentialField { name, label, required, secret, multiline: false, help }
}

/// The app.
pub(super) static APP: AppSpec = AppSpec {
    app: "azure-key-vault",
    title: "Azure",
    aliases: &["azure"],
    methods: &[
        ConnectionMethod {
            name: "client-secret",
            label: "Client secret",
            fields: &[
                field("tenantId", "Tenant ID", true, false, "The directory (tenant) id of the app registration."),
                field("clientId", "Client ID", true, false, "The application (client) id of the app registration."),
                field("clientSecret", "Client Secret", true, true, "The secret's value, not its id; the portal shows it once."),
                field("clientSecretKeyId", "Client Secret Key ID", false, false, "Accepted for documents of the server; not used."),
            ],
        },
        ConnectionMethod {
            name: "access-token",
            label: "Access token",
            fields: &[field("accessToken", "Access Token", true, true, "A ready token for https://vault.azure.net; it cannot be renewed.")],
        },
        ConnectionMethod {
            name: "az-cli",
            label: "Azure CLI",
            fields: &[
                field("tenantId", "Tenant ID", false, false, "Only when the sign-in knows several tenants."),
                field("subscription", "Subscription", false, false, "Only when the sign-in knows several subscriptions."),
            ],
        },
        ConnectionMethod {
            name: "managed-identity",
            label: "Managed identity",
            fields: &[field("clientId", "Client ID", false, false, "Only for a user-assigned identity.")],
        },
        ConnectionMethod {
            name: "workload-identity",
            label: "Workload identity",
            fields: &[
                field("tenantId", "Tenant ID", false, false, "Default: AZURE_TENANT_ID."),
                field("clientId", "Client ID", false, false, "Default: AZURE_CLIENT_ID."),
                field("tokenFile", "Token File", false, false, "Default: AZURE_FEDERATED_TOKEN_FILE."),
            ],
        },
    ],
    settings: &[
        ConnectionSetting {
            name: "authorityUrl",
            label: "Authority URL",
            url: true,
            help: "Where tokens come from; empty means the authority of the vault's cloud.",
        },
        ConnectionSetting {
            name: "allowedVaultHosts",
            label: "Allowed Vault Hosts",
            url: false,
            help: "Further hosts, or suffixes such as .vault.example.com, that may be given a token.",
        },
        ConnectionSetting {
            name: "tokenResource",
            label: "Token Resource",
            url: false,
            help: "Whom tokens are for, where vaults have a name of their own for it (Azure Stack Hub); empty means the cloud's.",
        },
        ConnectionSetting {
            name: "endpoint",
            label: "Endpoint",
            url: true,
            help: "Answers instead of the vault's own host (an emulator); {vault} stands for the vault's name.",
        },
        ConnectionSetting { name: "apiVersion", label: "API Version", url: false, help: "Default: 7.4." },
    ],
    check,
};

/// Methods of the server that a terminal program cannot carry out, with the reason.
static REFUSED: &[(&str, &str)] = &[
    (
        "oauth",
        "The method oauth signs in through a browser and the server's own application, which is not possible here: use client-secret or az-cli.",
    ),
    ("certificate", "The method certificate is not supported: use client-secret, az-cli, or workload-identity, which needs no stored secret either."),
];

fn check(connection: &Connection, problems: &mut Problems) {
    if let Some((_, reason)) = REFUSED.iter().find(|(method, _)| *method == connection.method) {
        problems.add("method", "unsupported", *reason);
        return;
    }
    check_ids(connection, problems);
    if let Some(Credential::Plain(text)) = connection.credentials.get("subscription")
        && text.trim().starts_with('-')
    {
        problems.add("credentials.subscription", "value", "credentials.subscription must not begin with a hyphen.");
    }
    if let Err(message) = address::allowed_hosts(connection.settings.get("allowedVaultHosts")) {
        problems.add("allowedVaultHosts", "host", format!("{message}."));
    }
    match connection.settings.get("tokenResource") {
        None => {}
        Some(Value::String(r)) if !r.is_empty() && r.chars().all(|c| c.is_ascii_graphic()) => {}
        Some(_) => problems.add("tokenResource", "value", "tokenResource must be a text such as https://vault.example.com."),
    }
    match connection.settings.get("apiVersion") {
        None => {}
        Some(Value::String(v)) if v.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')) => {}
        Some(_) => problems.add("apiVersion", "value", "apiVersion must be a text such as 7.4 or 2025-07-01."),
    }
}
