//! What a Bitbucket destination and its connections are, as data: words, forms, sentences.

use crate::destination::Spec;
use crate::destination::form::{Field, Input};
use crate::model::Problems;
use crate::model::connection::{AppSpec, Connection, ConnectionMethod, ConnectionSetting, Credential, CredentialField};

use super::place;

/// The word under which requests are counted, and the first word of errors.
pub const SERVICE: &str = "bitbucket";

/// Method words of a connection.
pub const API_TOKEN: &str = "api-token";
pub const ACCESS_TOKEN: &str = "access-token";
pub const CLIENT_CREDENTIALS: &str = "oauth-client-credentials";

/// The destination kind.
pub static SPEC: Spec = Spec {
    kind: "bitbucket",
    title: "Bitbucket",
    short: "Bitbucket",
    service: SERVICE,
    app: &APP,
    import_note: Some("Bitbucket does not support importing secrets."),
    config: &[
        Field::text("workspaceSlug", "Workspace", "The Bitbucket workspace to sync secrets to.").input(Input::Live { depends: &[] }),
        Field::text("repositorySlug", "Repository", "The Bitbucket repository to sync secrets to.")
            .input(Input::Live { depends: &["workspaceSlug"] }),
        Field::text(
            "environmentId",
            "Deployment Environment (Optional)",
            "The Bitbucket deployment environment to sync secrets to. Empty: the repository's own variables.",
        )
        .input(Input::Live { depends: &["workspaceSlug", "repositorySlug"] })
        .when_refused(
            |text| place::uuid(text).is_some(),
            "The environments may not be listed, so a name cannot be looked up: type the environment's uuid ({...}), or leave the field empty.",
        )
        .optional(),
    ],
    options: &[],
    notes: &[
        "Every variable is written as a secured variable: its value can never be read back, so the ledger decides what is unchanged.",
        "Keys are letters, digits and underscores, do not start with a digit, and differ by case. Values must not hold line breaks.",
        "Whoever may write to the repository can print a secured variable from a build, and Bitbucket masks a value in build logs by its text.",
    ],
};

/// Connections to Bitbucket Cloud.
pub static APP: AppSpec = AppSpec {
    app: "bitbucket",
    title: "Bitbucket",
    aliases: &[],
    methods: &[
        ConnectionMethod {
            name: API_TOKEN,
            label: "API Token",
            fields: &[
                field("email", "Email", false, "The e-mail address of the Atlassian account that made the token; not the Bitbucket user name."),
                field(
                    "apiToken",
                    "API Token",
                    true,
                    "Scopes: read:user, read:workspace, read:repository, read:pipeline and admin:pipeline, each with :bitbucket. \
                     The account must be administrator of the repository.",
                ),
            ],
        },
        ConnectionMethod {
            name: ACCESS_TOKEN,
            label: "Access Token",
            fields: &[field(
                "accessToken",
                "Access Token",
                true,
                "A repository, project or workspace access token. Permissions: Repositories Read, Pipelines Read and Edit variables.",
            )],
        },
        ConnectionMethod {
            name: CLIENT_CREDENTIALS,
            label: "OAuth consumer (client credentials)",
            fields: &[
                field("clientId", "Key", false, "The key of a workspace's OAuth consumer that is marked as private."),
                field(
                    "clientSecret",
                    "Secret",
                    true,
                    "The consumer's secret. Permissions: Account Read, Repositories Read, Pipelines Edit variables.",
                ),
            ],
        },
    ],
    settings: &[
        ConnectionSetting {
            name: "endpoint",
            label: "Endpoint",
            url: true,
            help: "The API's address, with or without /2.0. Default: https://api.bitbucket.org.",
        },
        ConnectionSetting {
            name: "tokenUrl",
            label: "Token URL",
            url: true,
            help: "Where an OAuth consumer gets its token. Default: https://bitbucket.org/site/oauth2/access_token.",
        },
        ConnectionSetting {
            name: "hourlyBudget",
            label: "Calls per hour",
            url: false,
            help: "How many calls per hour this credential may make, when it is not Bitbucket's 1,000 (its larger limits are noticed by themselves).",
        },
    ],
    check,
};

const fn field(name: &'static str, label: &'static str, secret: bool, help: &'static str) -> CredentialField {
    CredentialField { name, label, required: true, secret, multiline: false, help }
}

fn check(connection: &Connection, problems: &mut Problems) {
    if let Some(Credential::Plain(email)) = connection.credentials.get("email") {
        let email = email.trim();
        if !is_email(email) {
            problems.add("credentials.email", "email", "credentials.email must be the account's e-mail address, not its Bitbucket user name.");
        }
        if email.chars().count() > 255 {
            problems.add("credentials.email", "max-length", "credentials.email may have at most 255 characters.");
        }
    }
    if let Some(endpoint) = connection.setting("endpoint")
        && let Err(reason) = place::endpoint(Some(endpoint))
    {
        problems.add("endpoint", "url", reason);
    }
    if let Some(budget) = connection.settings.get("hourlyBudget")
        && budget_of(budget).is_none()
    {
        problems.add("hourlyBudget", "range", "hourlyBudget must be a whole number from 10 to 1000000.");
    }
}

/// The setting `hourlyBudget` as a number; forms fill it as text.
pub fn budget_of(value: &serde_json::Value) -> Option<u32> {
    let number = match value {
        serde_json::Value::Number(n) => n.as_u64(),
        serde_json::Value::String(s) => s.trim().parse().ok(),
        _ => None,
    }?;
    u32::try_from(number).ok().filter(|n| (10..=1_000_000).contains(n))
}

fn is_email(text: &str) -> bool {
    match text.rsplit_once('@') {
        Some((local, domain)) => {
            !local.is_empty() && !domain.is_empty() && !domain.starts_with('.') && !domain.ends_with('.') && !text.chars().any(char::is_whitespace)
        }
        None => false,
    }
}
