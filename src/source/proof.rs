//! The proof that a reading is whole. The server answers 200 with nothing for a folder that
//! does not exist, and leaves out what this identity may not see: absent is not deleted until
//! environment, folder and imports are known to be there.

use std::collections::BTreeMap;

use super::client::Kms;
use super::errors::{Refusal, SERVICE};
use super::shapes::{Imports, tidy};
use super::wire::Call;
use super::{Environment, SourceRef};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::text::brief;

/// Folders below a source that are looked at in one recursive reading.
const MOST_FOLDERS: usize = 2_000;
/// The server's own limit of depth.
const DEEPEST: usize = 20;
/// Questions in flight at once.
const AT_ONCE: usize = 6;

/// One import link of a folder, in the server's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub environment: String,
    pub path: String,
    /// Replicated secrets are ordinary rows of the folder; the link has no block.
    pub replication: bool,
}

/// What is known of the import links of one folder.
#[derive(Debug)]
pub(super) enum Links {
    Known {
        links: Vec<Link>,
        folder_id: Option<String>,
    },
    /// The folder (or its environment) does not exist.
    NoFolder,
    /// The identity may not read them.
    Forbidden(String),
    /// The server has no such route: it knows no links.
    NoRoute,
}

/// What was proved beside the list itself.
#[derive(Debug, Default)]
pub(super) struct Proof {
    pub environment: Option<Environment>,
    pub folder_id: Option<String>,
    /// Links per folder; the source's own folder only, unless the reading is recursive.
    pub links: BTreeMap<String, Vec<Link>>,
    /// Why absent may not be taken for deleted.
    pub doubts: Vec<String>,
}

impl Kms {
    /// Proves environment and folder, and gathers the import links. `empty`: the list held
    /// nothing, so that every doubt counts.
    pub async fn prove(&self, cx: &Cx, at: &SourceRef, empty: bool) -> Result<Proof, ApiError> {
        let path = tidy(&at.path);
        let (links, environment, folder) =
            futures::future::join3(self.links(cx, at, path), self.environment(cx, at), self.folder_id(cx, at, empty)).await;
        let environment = match environment {
            // Rows came from there, so it exists; only its name stays unknown.
            Err(error) if error.kind == ErrorKind::NotFound && !empty => None,
            other => other?,
        };
        let mut proof = Proof { environment, ..Proof::default() };
        let folder = folder?;
        match links? {
            Links::Known { links, folder_id } => {
                if empty && matches!(folder, Sighting::Absent) {
                    // Two answers contradict each other; an empty source is too dear to guess.
                    proof.doubts.push(format!("folder {path} is empty and does not appear in its parent's folder list"));
                }
                proof.folder_id = folder.id().or(folder_id);
                proof.links.insert(path.to_string(), links);
            }
            Links::NoFolder if empty => {
                self.facts.forget(&at.project_id);
                return Err(self.no_folder(at, proof.environment.as_ref()));
            }
            Links::NoFolder => {
                proof.doubts.push(format!("the server lists secrets of {path} and denies that the folder exists: it may just have been deleted"));
                proof.folder_id = folder.id();
            }
            other => {
                // The links do not prove the folder: its parents' lists do.
                match self.walk(cx, at).await? {
                    Some(true) => {}
                    Some(false) => {
                        self.facts.forget(&at.project_id);
                        return Err(self.no_folder(at, proof.environment.as_ref()));
                    }
                    None if empty => proof.doubts.push(format!("it cannot be proved that folder {path} exists: this identity may not list folders")),
                    None => {}
                }
                if let Links::Forbidden(why) = other {
                    proof.doubts.push(format!("the import links of {path} cannot be read ({why}): secrets they bring in may be missing"));
                }
                proof.folder_id = folder.id();
            }
        }
        if at.recursive {
            self.prove_below(cx, at, &mut proof).await?;
        }
        Ok(proof)
    }

    /// The links of one folder. A missing folder is an answer here, not an error.
    async fn links(&self, cx: &Cx, at: &SourceRef, path: &str) -> Result<Links, ApiError> {
        let rest = [("environment", at.environment.as_str()), ("path", path)];
        let old = Call::get("GET /api/v1/secret-imports", "api/v1/secret-imports").query(&[("workspaceId", &at.project_id)]).query(&rest);
        let new = Call::get("GET /api/v2/secret-imports", "api/v2/secret-imports").query(&[("projectId", &at.project_id)]).query(&rest);
        let answer = match self.call(cx, &old).await {
            Err(refusal) if refusal.route_missing => self.call(cx, &new).await,
            other => other,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(refusal) if refusal.route_missing => return Ok(Links::NoRoute),
            Err(refusal) => {
                return match refusal.kind() {
                    ErrorKind::NotFound => Ok(Links::NoFolder),
                    ErrorKind::Permission => Ok(Links::Forbidden(refusal.error.message)),
                    _ => Err(refusal.into()),
                };
            }
        };
        let mut rows = answer.json::<Imports>(SERVICE)?.secret_imports;
        rows.sort_by_key(|r| r.position.unwrap_or(i64::MAX));
        let folder_id = rows.iter().find_map(|r| r.folder_id.clone());
        let links = rows
            .into_iter()
            .map(|r| Link {
                environment: r.import_env.and_then(|e| e.slug).unwrap_or_default(),
                path: tidy(r.import_path.as_deref().unwrap_or("/")).to_string(),
                replication: r.is_replication.unwrap_or(false),
            })
            .collect();
        Ok(Links::Known { links, folder_id })
    }

    /// The environment by its project. `None` when this identity may not look at the project.
    async fn environment(&self, cx: &Cx, at: &SourceRef) -> Result<Option<Environment>, ApiError> {
        for fresh in [false, true] {
            if fresh {
                self.facts.forget(&at.project_id);
            }
            let Some(project) = self.project(cx, &at.project_id).await? else { return Ok(None) };
            if let Some(found) = project.environments.iter().find(|e| e.slug == at.environment) {
                return Ok(Some(found.clone()));
            }
            // Some answers leave the environments out, which proves nothing.
            if project.environments.is_empty() {
                return Ok(None);
            }
            if fresh {
                let have: Vec<_> = project.environments.iter().map(|e| e.slug.as_str()).collect();
                return Err(ApiError::new(
                    ErrorKind::NotFound,
                    SERVICE,
                    format!(
                        "environment {} does not exist in project {} (it has {})",
                        brief(&at.environment, 80),
                        brief(&project.name, 80),
                        have.join(", ")
                    ),
                )
                .advice("Correct the sync's source: the environment was renamed, deleted, or mistyped."));
            }
        }
        Ok(None)
    }

    /// The folder's id, from memory or its parent's list (of the root: from its children).
    async fn folder_id(&self, cx: &Cx, at: &SourceRef, again: bool) -> Result<Sighting, ApiError> {
        let path = tidy(&at.path);
        let place = (at.project_id.clone(), at.environment.clone(), path.to_string());
        if !again && let Some(known) = self.facts.folder_id(&place) {
            return Ok(known.map_or(Sighting::Unknown, |id| Sighting::Seen(Some(id))));
        }
        let (parent, name) = match path.rsplit_once('/') {
            Some((_, "")) | None => ("/", ""),
            Some(("", name)) => ("/", name),
            Some((parent, name)) => (parent, name),
        };
        let sighting = match self.folder_rows(cx, &at.project_id, &at.environment, parent).await {
            Ok(list) if name.is_empty() => Sighting::Seen(list.folders.into_iter().find_map(|f| f.parent_id)),
            Ok(list) => match list.folders.into_iter().find(|f| f.name == name) {
                Some(row) => Sighting::Seen(row.id),
                None => Sighting::Absent,
            },
            Err(refusal) if matches!(refusal.kind(), ErrorKind::Auth | ErrorKind::Cancelled) => return Err(refusal.into()),
            // The id is a nicety, and the links prove the folder.
            Err(_) => Sighting::Unknown,
        };
        if !matches!(sighting, Sighting::Absent) {
            self.facts.keep_folder_id(place, sighting.clone().id());
        }
        Ok(sighting)
    }

    /// Walks the path segment by segment; `None` when folders may not be listed.
    async fn walk(&self, cx: &Cx, at: &SourceRef) -> Result<Option<bool>, ApiError> {
        let mut parent = String::new();
        let segments: Vec<&str> = tidy(&at.path).split('/').filter(|s| !s.is_empty()).collect();
        if segments.is_empty() {
            // The root exists wherever its environment does.
            return match self.folder_rows(cx, &at.project_id, &at.environment, "/").await {
                Ok(_) => Ok(Some(true)),
                Err(refusal) if refusal.kind() == ErrorKind::NotFound && !refusal.route_missing => Ok(Some(false)),
                Err(refusal) if untold(&refusal) => Ok(None),
                Err(refusal) => Err(refusal.into()),
            };
        }
        for segment in segments {
            let here = if parent.is_empty() { "/" } else { parent.as_str() };
            match self.folder_rows(cx, &at.project_id, &at.environment, here).await {
                Ok(list) if list.folders.iter().any(|f| f.name == segment) => parent = format!("{parent}/{segment}"),
                Ok(_) => return Ok(Some(false)),
                Err(refusal) if refusal.kind() == ErrorKind::NotFound && !refusal.route_missing => return Ok(Some(false)),
                Err(refusal) if untold(&refusal) => return Ok(None),
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Ok(Some(true))
    }

    /// The links of every folder below the source.
    async fn prove_below(&self, cx: &Cx, at: &SourceRef, proof: &mut Proof) -> Result<(), ApiError> {
        use futures::StreamExt as _;
        let mut level = vec![tidy(&at.path).to_string()];
        let mut seen = 0;
        for _ in 0..DEEPEST {
            let lists: Vec<_> = futures::stream::iter(level.drain(..).map(|path| async move {
                let rows = self.folder_rows(cx, &at.project_id, &at.environment, &path).await;
                (path, rows)
            }))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
            for (path, rows) in lists {
                match rows {
                    Ok(list) => level.extend(list.folders.iter().map(|f| format!("{}/{}", path.trim_end_matches('/'), f.name))),
                    Err(refusal) if untold(&refusal) => proof.doubts.push(format!("the folders below {path} cannot be listed")),
                    // Deleted between two questions.
                    Err(refusal) if refusal.kind() == ErrorKind::NotFound => {}
                    Err(refusal) => return Err(refusal.into()),
                }
            }
            seen += level.len();
            if seen > MOST_FOLDERS {
                return Err(ApiError::new(ErrorKind::Invalid, SERVICE, format!("more than {MOST_FOLDERS} folders lie below {}", at.path))
                    .advice("Choose a folder further down, or switch off the sub-folders option."));
            }
            let links: Vec<_> = futures::stream::iter(level.clone().into_iter().map(|path| async move {
                let links = self.links(cx, at, &path).await;
                (path, links)
            }))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
            for (path, links) in links {
                match links? {
                    Links::Known { links, .. } => {
                        proof.links.insert(path, links);
                    }
                    Links::Forbidden(why) => proof.doubts.push(format!("the import links of {path} cannot be read ({why})")),
                    Links::NoFolder | Links::NoRoute => {}
                }
            }
            if level.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn no_folder(&self, at: &SourceRef, environment: Option<&Environment>) -> ApiError {
        let which = if environment.is_some() {
            format!("folder {} does not exist in environment {}", brief(&at.path, 200), at.environment)
        } else {
            format!("environment {} or its folder {} does not exist in project {}", brief(&at.environment, 80), brief(&at.path, 200), at.project_id)
        };
        ApiError::new(ErrorKind::NotFound, SERVICE, which)
            .advice("Correct the sync's source, or make the folder again; the destination is left as it is.")
    }
}

/// Whether a folder was seen in its parent's list.
#[derive(Debug, Clone)]
enum Sighting {
    Seen(Option<String>),
    Absent,
    Unknown,
}

impl Sighting {
    fn id(self) -> Option<String> {
        match self {
            Self::Seen(id) => id,
            Self::Absent | Self::Unknown => None,
        }
    }
}

/// Refusals that leave a question open rather than answer it.
fn untold(refusal: &Refusal) -> bool {
    refusal.route_missing || refusal.kind() == ErrorKind::Permission
}
