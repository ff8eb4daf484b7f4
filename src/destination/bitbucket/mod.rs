//! Bitbucket Cloud: secured Pipelines variables of a repository, or of one of its deployment
//! environments, through REST API 2.0.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `spec` | words, forms, connection methods |
//! | `place` | endpoint, workspace, repository, environment in every pasted form |
//! | `keys` | the alphabet of names and what values can be |
//! | `auth` | the three kinds of credential |
//! | `budget`, `tempo` | the rolling hour's call budget, and every duration |
//! | `client` | one call: authenticated, counted, repeated when safe |
//! | `paging` | whole lists from a server whose paging lies |
//! | `errors` | error shapes and advice |
//! | `session` | connection test, pickers, opening a target |
//! | `target`, `writes` | one target: listing, and one operation per key |
//! | `diagnose` | why a list is refused |
//! | `overrides` | variables of the repository that an environment hides |
//! | `memory`, `writers` | what is remembered of a repository; whose turn it is to write there |
//!
//! What shapes everything here: a secured value is never returned, so the ledger decides what
//! is unchanged; a variable has no time stamp, so its uuid and its `secured` flag are the
//! stamp; the API allows about 1,000 calls per hour, so an unchanged run costs only its list.
//! A variable's value that was changed outside on the same uuid cannot be noticed.

mod auth;
mod budget;
mod client;
mod diagnose;
mod errors;
mod keys;
mod memory;
mod overrides;
mod paging;
mod place;
mod session;
mod spec;
mod target;
mod tempo;
mod writers;
mod writes;

use std::sync::Arc;

use crate::destination::{KeySpace, Provider, Session, Spec};
use crate::http::{ApiError, ErrorKind};
use crate::model::connection::ResolvedConnection;
use crate::model::sync::{Reader, SyncOptions};
use crate::model::{Map, Memory, Problems, text};

use place::Place;

pub use tempo::Tempo;

/// The provider.
pub struct Bitbucket;

impl Provider for Bitbucket {
    fn spec(&self) -> &'static Spec {
        &spec::SPEC
    }

    fn check(&self, config: &Map, _options: &SyncOptions, problems: &mut Problems) {
        let mut reader = Reader { object: config, prefix: "destinationConfig.", problems };
        reader.text("workspaceSlug", true, 1024);
        reader.text("repositorySlug", false, 1024);
        reader.text("environmentId", false, 1024);
        let place = Place::of(config);
        if let Some(text) = config.get("environmentId").and_then(|e| e.as_str()).map(str::trim)
            && text.contains(['{', '}'])
            && place::uuid(text).is_none()
        {
            problems.add(
                "destinationConfig.environmentId",
                "uuid",
                "destinationConfig.environmentId must be the environment's uuid in braces, its name or its slug.",
            );
        }
        if place.repository.is_empty() {
            problems.add("destinationConfig.repositorySlug", "required", "destinationConfig.repositorySlug is required.");
        }
        if let Some(named) = Place::stranger(config) {
            problems.add(
                "destinationConfig.repositorySlug",
                "contradiction",
                format!(
                    "destinationConfig.repositorySlug names a repository of the workspace {}, but workspaceSlug is {}.",
                    text::brief(&named, 80),
                    text::brief(&place.workspace, 80)
                ),
            );
        }
        for (field, part) in [("workspaceSlug", &place.workspace), ("repositorySlug", &place.repository)] {
            let odd = part.chars().any(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '{' | '}')));
            if odd || part == "." || part == ".." {
                problems.add(
                    format!("destinationConfig.{field}"),
                    "slug",
                    format!("destinationConfig.{field} must be a slug (letters, digits, - _ .), a uuid in braces, or a repository's address."),
                );
            }
        }
    }

    fn label(&self, config: &Map) -> String {
        let place = Place::of(config);
        let environment = config.get("environmentId").and_then(|e| e.as_str()).map(str::trim).filter(|e| !e.is_empty());
        match environment {
            None => format!("Bitbucket {}", place.full_name()),
            // A uuid says nothing to a reader, and its first part tells two apart.
            Some(environment) => match place::uuid(environment) {
                Some(uuid) => format!("Bitbucket {}/{}…", place.full_name(), uuid.chars().take(9).collect::<String>()),
                None => format!("Bitbucket {}/{environment}", place.full_name()),
            },
        }
    }

    fn keys(&self, _config: &Map) -> Box<dyn KeySpace> {
        Box::new(keys::Keys::default())
    }

    /// An environment given by name in one and by uuid in the other may be the same one: that counts.
    fn names_place(&self) -> bool {
        true
    }

    fn overlaps(&self, a: &Map, b: &Map) -> bool {
        let (a, b) = (Place::of(a), Place::of(b));
        a.folded() == b.folded()
            && match (&a.environment, &b.environment) {
                (None, None) => true,
                (Some(a), Some(b)) => a.eq_ignore_ascii_case(b) || place::uuid(a).is_some() != place::uuid(b).is_some(),
                _ => false,
            }
    }

    fn connect(&self, connection: ResolvedConnection, memory: Arc<dyn Memory>) -> Result<Arc<dyn Session>, ApiError> {
        connect_at(connection, memory, Tempo::default())
    }
}

/// Opens a connection at another pace than Bitbucket's (tests run an hour in a second).
pub fn connect_at(connection: ResolvedConnection, memory: Arc<dyn Memory>, tempo: Tempo) -> Result<Arc<dyn Session>, ApiError> {
    let endpoint = place::endpoint(connection.setting("endpoint")).map_err(|reason| ApiError::new(ErrorKind::Invalid, spec::SERVICE, reason))?;
    let api = client::Api::new(&connection, endpoint, memory, tempo)?;
    Ok(Arc::new(session::Connected::new(api)))
}
