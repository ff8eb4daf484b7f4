//! The source: secrets of one project, environment and folder in Hanzo KMS.
//!
//! [`Source`] is what the engine and the wizard ask; [`connect`] opens a KMS account. The
//! client behind it, by subject:
//!
//! | module | subject |
//! | --- | --- |
//! | `client` | one call with its token; delegates the rest |
//! | `wire`, `pace`, `errors` | address, rate limits, and what a refusal means |
//! | `auth` | logins and tokens |
//! | `facts` | projects, environments, folders |
//! | `list`, `proof`, `merge`, `read` | a reading: fetch, prove that it is whole, merge |
//! | `write` | the way back during an import |
//! | `server_syncs` | the syncs that the server runs itself |
//! | `events` | the server's hints that something changed |

mod auth;
mod client;
mod errors;
mod events;
mod facts;
mod list;
mod merge;
mod pace;
mod proof;
mod read;
mod server_syncs;
mod shapes;
mod wire;
mod write;

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::http::{ApiError, Cx};
use crate::model::SecretValue;
use crate::model::connection::{AppSpec, ConnectionMethod, ConnectionSetting, CredentialField, ResolvedConnection, check_words};
use crate::model::filter::KeyFilter;
use crate::model::{Choice, Map, TestReport};

/// Connections to a KMS account.
pub static APP: AppSpec = AppSpec {
    app: "hanzo-kms",
    title: "Hanzo KMS",
    aliases: &["infisical", "kms"],
    methods: &[
        ConnectionMethod {
            name: "universal-auth",
            label: "Machine identity (universal auth)",
            fields: &[
                CredentialField {
                    name: "clientId",
                    label: "Client ID",
                    required: true,
                    secret: false,
                    multiline: false,
                    help: "The client id of the machine identity.",
                },
                CredentialField {
                    name: "clientSecret",
                    label: "Client Secret",
                    required: true,
                    secret: true,
                    multiline: false,
                    help: "A client secret of the machine identity.",
                },
                CredentialField {
                    name: "organizationSlug",
                    label: "Organization",
                    required: false,
                    secret: false,
                    multiline: false,
                    help: "Only for identities that belong to several organizations.",
                },
            ],
        },
        ConnectionMethod {
            name: "token",
            label: "Access token",
            fields: &[CredentialField {
                name: "token",
                label: "Token",
                required: true,
                secret: true,
                multiline: false,
                help: "An identity access token or a service token (st.…).",
            }],
        },
    ],
    settings: &[ConnectionSetting { name: "baseUrl", label: "Base URL", url: true, help: "Where the KMS answers; empty means the cloud." }],
    check: |connection, problems| check_words(connection, &["clientId", "clientSecret", "organizationSlug", "token"], problems),
};

/// The cloud's address.
pub const DEFAULT_BASE_URL: &str = "https://app.kms.hanzo.ai";

/// One place in the KMS.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceRef {
    pub project_id: String,
    /// Slug.
    pub environment: String,
    /// Absolute, without trailing slash; the root is `/`.
    pub path: String,
    /// The folder and everything below it as one flat list.
    #[serde(default)]
    pub recursive: bool,
}

/// One secret of the source.
#[derive(Debug, Clone)]
pub struct SourceSecret {
    pub key: String,
    pub value: SecretValue,
    pub metadata: Vec<(String, String)>,
    /// Where it came from when not from the folder itself: `shared:/smtp`, or a sub-folder's path.
    pub origin: Option<String>,
}

/// What a source holds, merged and resolved as the server's own engine would.
#[derive(Debug, Clone, Default)]
pub struct SourceMap {
    pub secrets: Vec<SourceSecret>,
    /// Keys that exist and whose value could not be read (hidden, broken reference): errors,
    /// never deletions.
    pub unreadable: Vec<(String, String)>,
    /// Keys that two sub-folders both have (recursive reading): (key, paths).
    pub clashes: Vec<(String, Vec<String>)>,
    /// Why nothing may be deleted on the strength of this reading; empty means complete.
    pub incomplete: Vec<String>,
    pub warnings: Vec<String>,
    /// Keys the folder itself holds (imports left out).
    pub own_keys: Vec<String>,
    pub environment_name: Option<String>,
    pub environment_id: Option<String>,
    pub folder_id: Option<String>,
    /// Imports of the folder, for the Review step: `shared:/smtp`.
    pub imports: Vec<String>,
}

impl SourceMap {
    /// The part of it that a filter selects: what is left out counts as if it were not there, so
    /// that a key nobody asks for cannot keep the others from being deleted.
    pub fn selected(mut self, filter: &KeyFilter) -> Self {
        if filter.is_open() {
            return self;
        }
        let all = self.secrets.len();
        self.secrets.retain(|s| filter.selects(&s.key));
        self.unreadable.retain(|(key, _)| filter.selects(key));
        self.clashes.retain(|(key, _)| filter.selects(key));
        self.own_keys.retain(|key| filter.selects(key));
        let left = all - self.secrets.len();
        if left > 0 {
            self.warnings.push(format!("includeKeys and excludeKeys leave out {left} of the source's {all} keys."));
        }
        self
    }

    /// True when absent keys may be taken for deleted.
    pub fn complete(&self) -> bool {
        self.incomplete.is_empty() && self.unreadable.is_empty() && self.clashes.is_empty()
    }
}

/// A conditional reading.
#[derive(Debug, Clone)]
pub enum Polled {
    /// Nothing changed since the tag was given.
    Unchanged,
    Changed {
        map: Box<SourceMap>,
        /// The tag to give next time; `None` when the server sends none.
        etag: Option<String>,
    },
}

/// One secret to write back during an import.
#[derive(Debug, Clone)]
pub struct SourceWrite {
    pub key: String,
    pub value: SecretValue,
    /// False: the key exists in the folder and is updated.
    pub create: bool,
    /// True when a value that somebody else gives the key meanwhile stays.
    pub yields: bool,
}

/// What became of a key written to the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome {
    Done,
    /// A change policy holds it: the text names the change request.
    AwaitsApproval(String),
    Failed(String),
}

/// A project with its environments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Project {
    pub id: String,
    pub name: String,
    pub slug: Option<String>,
    pub environments: Vec<Environment>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    pub slug: String,
    pub name: String,
    pub id: Option<String>,
}

/// A secret sync that the KMS server's own engine runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerSync {
    pub id: String,
    pub name: String,
    /// The destination's kind.
    pub destination: String,
    pub destination_config: Map,
    /// Whether the server runs it by itself.
    pub auto_sync: bool,
    /// The member under which this server shows that.
    pub switch: String,
    pub key_schema: Option<String>,
    /// Slug; `None` when the server does not say it, or the environment is gone.
    pub environment: Option<String>,
    pub secret_path: Option<String>,
    /// Name of the server's connection it goes over.
    pub connection: Option<String>,
    /// A run of it is queued or going.
    pub running: bool,
}

/// A KMS account. Shared by every sync that reads from it.
#[async_trait]
pub trait Source: Send + Sync {
    /// Proves address and credentials.
    async fn test(&self, cx: &Cx) -> Result<TestReport, ApiError>;

    /// Projects this identity may see, with environments.
    async fn projects(&self, cx: &Cx) -> Result<Vec<Project>, ApiError>;

    /// Names of the folders directly below a path.
    async fn folders(&self, cx: &Cx, at: &SourceRef) -> Result<Vec<Choice>, ApiError>;

    /// Reads everything, and proves that environment and folder exist and that all imports were readable.
    async fn read(&self, cx: &Cx, at: &SourceRef) -> Result<SourceMap, ApiError>;

    /// One conditional request when `etag` is given and still holds; otherwise like [`Self::read`].
    async fn poll(&self, cx: &Cx, at: &SourceRef, etag: Option<&str>) -> Result<Polled, ApiError>;

    /// Writes keys into the folder (batches inside). One outcome per key.
    async fn write(&self, cx: &Cx, at: &SourceRef, writes: &[SourceWrite]) -> Result<Vec<(String, WriteOutcome)>, ApiError>;

    /// The rule that KMS names must obey, for keys that an import would create.
    fn check_name(&self, key: &str) -> Result<(), String> {
        if key.trim().is_empty() {
            return Err("a KMS secret name must not be empty".into());
        }
        if key.trim() != key {
            return Err("a KMS secret name must not begin or end with white space".into());
        }
        match key.chars().find(|c| matches!(c, ':' | '/')) {
            Some(c) => Err(format!("a KMS secret name must not hold {c:?}")),
            None => Ok(()),
        }
    }

    /// Whether the KMS holds a value exactly as it is written; otherwise what it makes of it.
    fn check_value(&self, value: &str) -> Result<(), String> {
        if stored_form(value) != value {
            return Err(
                "the KMS takes white space off both ends of a value (of line breaks at its end it keeps one), and would change this one".into()
            );
        }
        if merge::refers(value) {
            return Err("it holds text of the form ${NAME}, which the KMS takes for a reference to another secret and may replace".into());
        }
        Ok(())
    }

    /// `host`, for the header.
    fn host(&self) -> String;

    /// Waits until the server hints that something changed at one of these places (its event
    /// stream), where it offers one, and says where, as far as the server does; `None` means: it
    /// offers none, poll only.
    async fn hint(&self, _cx: &Cx, _places: &[SourceRef]) -> Result<Option<Vec<Change>>, ApiError> {
        Ok(None)
    }

    /// True when the next call needs no login: a rejected one counts against the identity, so that
    /// what nobody asked for does not try one.
    async fn at_hand(&self) -> bool;

    /// The syncs of a project that the server runs itself, as far as they may be seen. None where
    /// the server has no such thing.
    async fn server_syncs(&self, cx: &Cx, project: &str) -> Result<Vec<ServerSync>, ApiError>;

    /// Switches the auto-sync of one of them off. A run of it that is going goes on to its end.
    async fn switch_off(&self, cx: &Cx, sync: &ServerSync) -> Result<(), ApiError>;

    /// What is left of the server's rate limit, as far as it tells, in a few words.
    fn budget(&self) -> Option<String> {
        None
    }

    /// Gives the token back at a clean exit (one request at most, failures do not matter).
    async fn close(&self, _cx: &Cx) {}
}

/// Opens a KMS account. Offline: the first call logs in.
pub fn connect(connection: ResolvedConnection) -> Result<Arc<dyn Source>, ApiError> {
    Ok(Arc::new(client::Kms::new(&connection)?))
}

pub(crate) use errors::SERVICE;
pub use events::Change;
pub use write::stored_form;
