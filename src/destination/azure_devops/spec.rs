//! Words, forms and connection methods of Azure DevOps, as data.

use crate::destination::Spec;
use crate::destination::form::{Field, Input};
use crate::model::Problems;
use crate::model::connection::{AppSpec, Connection, ConnectionMethod, ConnectionSetting, Credential, CredentialField};

use super::SERVICE;
use super::api::Version;
use super::errors::is_guid;
use crate::model::text::is_segment;

pub(super) static SPEC: Spec = Spec {
    kind: "azure-devops",
    title: "Azure DevOps",
    short: "DevOps",
    service: SERVICE,
    app: &APP,
    import_note: Some("Azure Devops does not support importing secrets."),
    config: &[
        Field::text("devopsProjectId", "Project", "The Azure DevOps project to deploy secrets to.")
            .input(Input::Live { depends: &[] })
            .when_refused(is_guid, "The projects may not be listed, so a name cannot be looked up: type the project's id (a GUID).")
            .label_into("devopsProjectName"),
        Field::text("variableGroupName", "Variable Group", "The variable group to write. Empty: the group named like the environment.")
            .optional()
            .follows_environment(),
    ],
    options: &[],
    notes: &[
        "Secrets go to one variable group of the project, named like the environment unless a name is given; it is created when missing.",
        "Every variable is written as a secret. Variables that this sync does not manage are kept.",
        "The credential must be Administrator of the group to change it, and Creator in the Library to create it.",
    ],
};

const fn field(name: &'static str, label: &'static str, help: &'static str) -> CredentialField {
    CredentialField { name, label, required: true, secret: false, multiline: false, help }
}

const fn secret(name: &'static str, label: &'static str, help: &'static str) -> CredentialField {
    CredentialField { name, label, required: true, secret: true, multiline: false, help }
}

const fn optional(mut field: CredentialField) -> CredentialField {
    field.required = false;
    field
}

const ORGANISATION: CredentialField =
    field("orgName", "Organization Name", "The organization's name as in https://dev.azure.com/NAME; on Azure DevOps Server the collection.");

/// Connections of Azure DevOps. Microsoft: "Use personal access tokens", "Use service
/// principals and managed identities in Azure DevOps".
pub(super) static APP: AppSpec = AppSpec {
    app: "azure-devops",
    title: "Azure DevOps",
    aliases: &[],
    methods: &[
        ConnectionMethod {
            name: "access-token",
            label: "Access Token",
            fields: &[
                ORGANISATION,
                secret(
                    "accessToken",
                    "Access Token",
                    "A personal access token with the scopes Variable Groups (Read, create, & manage) and Project and Team (Read).",
                ),
            ],
        },
        ConnectionMethod {
            name: "client-secret",
            label: "Client Secret",
            fields: &[
                ORGANISATION,
                field("tenantId", "Tenant ID", "The Entra tenant the organization is connected to."),
                field("clientId", "Client ID", "The application (client) id of the app registration."),
                secret("clientSecret", "Client Secret", "The secret's value (not its id). Add the service principal to the organization as a user."),
                optional(field("clientSecretKeyId", "Client Secret Key ID", "Kept for servers that rotate the secret; not used here.")),
            ],
        },
        ConnectionMethod {
            name: "bearer-token",
            label: "Entra token",
            fields: &[
                ORGANISATION,
                secret(
                    "accessToken",
                    "Access Token",
                    "A ready Entra token for the resource 499b84ac-1321-427f-aa17-267ca6975798; it ends within hours.",
                ),
            ],
        },
        ConnectionMethod {
            name: "az-cli",
            label: "Azure CLI",
            fields: &[ORGANISATION, optional(field("tenantId", "Tenant ID", "The tenant to ask a token of; empty: the CLI's own."))],
        },
    ],
    settings: &[
        ConnectionSetting {
            name: "endpoint",
            label: "Endpoint",
            url: true,
            help: "Empty: https://dev.azure.com. Azure DevOps Server: its address, e.g. https://tfs.example.com/tfs.",
        },
        ConnectionSetting {
            name: "authorityUrl",
            label: "Authority URL",
            url: true,
            help: "Where Entra tokens are asked for. Empty: https://login.microsoftonline.com.",
        },
        ConnectionSetting {
            name: "apiVersion",
            label: "API Version",
            url: false,
            help: "Empty: 7.1, or what the server offers. A version such as 6.0-preview.2 pins it.",
        },
    ],
    check,
};

fn check(connection: &Connection, problems: &mut Problems) {
    crate::destination::entra::check_ids(connection, problems);
    if let Some(Credential::Plain(name)) = connection.credentials.get("orgName")
        && (name.contains(['/', '\\', '?', '#']) || (!name.trim().is_empty() && !is_segment(name)))
    {
        problems.add("credentials.orgName", "name", "credentials.orgName is the organization's name alone, without an address.");
    }
    if let Some(version) = connection.settings.get("apiVersion")
        && version.as_str().and_then(Version::parse).is_none_or(|v| v < Version::OLDEST)
    {
        problems.add("apiVersion", "version", "apiVersion must be a version such as 7.1 or 6.0-preview.2, from 4.1 on.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(document: serde_json::Value) -> Result<Connection, Problems> {
        Connection::parse(&document, |w| (w == "azure-devops").then_some(&APP), &["azure-devops"])
    }

    #[test]
    fn connections_are_checked_offline() {
        let good = serde_json::json!({"name": "d", "app": "azure-devops", "method": "access-token", "apiVersion": "6.0-preview.2",
            "credentials": {"orgName": "contoso", "accessToken": " pat "}, "endpoint": "http://127.0.0.1:1/x"});
        parse(good).expect("good");
        let bad = serde_json::json!({"name": "d", "app": "azure-devops", "method": "access-token", "apiVersion": "latest",
            "credentials": {"orgName": "https://dev.azure.com/contoso", "accessToken": "pat"}});
        let problems = parse(bad).expect_err("bad");
        assert!(problems.of("credentials.orgName").is_some() && problems.of("apiVersion").is_some(), "{problems}");
        let newline = serde_json::json!({"name": "d", "app": "azure-devops", "method": "access-token",
            "credentials": {"orgName": "contoso", "accessToken": "pa\nt"}});
        assert!(parse(newline).expect_err("a line break").of("credentials.accessToken").is_some());
        let oauth = serde_json::json!({"name": "d", "app": "azure-devops", "method": "oauth", "credentials": {"orgName": "contoso", "code": "x"}});
        let problems = parse(oauth).expect_err("oauth");
        let text = problems.of("method").expect("a problem of the method");
        assert!(text.contains("access-token") && text.contains("client-secret") && text.contains("browser"), "{text}");
        let plain_http = serde_json::json!({"name": "d", "app": "azure-devops", "method": "access-token",
            "credentials": {"orgName": "contoso", "accessToken": "p"}, "endpoint": "http://tfs.corp:8080/tfs"});
        assert!(parse(plain_http).expect_err("http").of("endpoint").is_some());
    }
}
