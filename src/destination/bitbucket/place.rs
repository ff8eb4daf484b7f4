//! Where things are: the endpoint, and the workspace, repository and environment of a
//! configuration, in every form an operator may paste them.

use url::Url;

use crate::model::{Map, text};

const CLOUD: &str = "https://api.bitbucket.org";

/// An endpoint as it is used.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Without `/2.0`, without trailing slash.
    pub root: Url,
    /// With `/2.0`.
    pub api: Url,
    /// True for Bitbucket Cloud itself.
    pub cloud: bool,
    /// Set when the text was corrected.
    pub note: Option<String>,
}

impl Endpoint {
    /// Host, port and path: what tells two endpoints apart.
    pub fn identity(&self) -> String {
        let port = self.root.port().map(|p| format!(":{p}")).unwrap_or_default();
        format!("{}{port}{}", self.root.host_str().unwrap_or_default(), self.root.path().trim_end_matches('/'))
    }
}

/// Reads the endpoint setting: with or without a trailing slash and `/2.0`; the web address
/// `https://bitbucket.org` is corrected. The error is a sentence.
pub fn endpoint(setting: Option<&str>) -> Result<Endpoint, String> {
    let given = setting.map(str::trim).filter(|s| !s.is_empty()).unwrap_or(CLOUD);
    let mut root = Url::parse(given).map_err(|_| "endpoint must be a URL such as https://api.bitbucket.org.".to_string())?;
    let mut note = None;
    if matches!(root.host_str(), Some("bitbucket.org" | "www.bitbucket.org")) {
        note = Some(format!("{} is the web site; its API at {CLOUD} is used.", text::brief(given, 80)));
        root = Url::parse(CLOUD).map_err(|e| e.to_string())?;
    }
    root.set_query(None);
    root.set_fragment(None);
    let path = root.path().trim_end_matches('/');
    let path = path.strip_suffix("/2.0").unwrap_or(path).trim_end_matches('/').to_string();
    root.set_path(&path);
    let api = crate::http::join(&root, &["2.0"]);
    let cloud = root.host_str() == Some("api.bitbucket.org");
    Ok(Endpoint { root, api, cloud, note })
}

/// The target of a sync as its configuration spells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Slug, or uuid in braces.
    pub workspace: String,
    /// Slug, or uuid in braces.
    pub repository: String,
    /// A uuid in braces, a name or a slug; `None`: the repository's own variables.
    pub environment: Option<String>,
}

impl Place {
    /// Reads `destinationConfig`. A pasted repository URL or `workspace/repository` in either
    /// field is taken apart. Missing parts are empty.
    pub fn of(config: &Map) -> Self {
        let get = |name: &str| config.get(name).and_then(serde_json::Value::as_str).map(str::trim).unwrap_or_default();
        let (mut workspace, mut repository) = (get("workspaceSlug").to_string(), get("repositorySlug").to_string());
        for field in [repository.clone(), workspace.clone()] {
            if let Some((ws, repo)) = pasted(&field) {
                if workspace.is_empty() || workspace == field {
                    workspace = ws;
                }
                if repository.is_empty() || repository == field {
                    repository = repo;
                }
            }
        }
        let environment = Some(get("environmentId")).filter(|e| !e.is_empty()).map(|e| uuid(e).unwrap_or_else(|| e.to_string()));
        Self { workspace: uuid(&workspace).unwrap_or(workspace), repository: uuid(&repository).unwrap_or(repository), environment }
    }

    /// The workspace that a pasted repository names, when it is another than the configuration's.
    pub fn stranger(config: &Map) -> Option<String> {
        let get = |name: &str| config.get(name).and_then(serde_json::Value::as_str).map(str::trim).unwrap_or_default();
        let (named, _) = pasted(get("repositorySlug"))?;
        let workspace = Self::of(config).workspace;
        // A uuid and a slug may be the same one: that is not known here.
        let known = uuid(&workspace).is_none() && uuid(&named).is_none();
        (known && !named.eq_ignore_ascii_case(&workspace)).then_some(named)
    }

    /// `workspace/repository`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.workspace, self.repository)
    }

    /// For comparing two places: Bitbucket finds workspaces and repositories whatever their case.
    pub fn folded(&self) -> (String, String) {
        (self.workspace.to_lowercase(), self.repository.to_lowercase())
    }
}

/// `https://bitbucket.org/ws/repo/…`, `bitbucket.org/ws/repo`, `git@bitbucket.org:ws/repo.git` or `ws/repo`.
fn pasted(text: &str) -> Option<(String, String)> {
    let rest = text.strip_prefix("git@bitbucket.org:").or_else(|| {
        let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
        let bare = bare.rsplit_once('@').map_or(bare, |(user, rest)| if user.contains('/') { bare } else { rest });
        bare.strip_prefix("bitbucket.org/").or_else(|| bare.strip_prefix("www.bitbucket.org/"))
    });
    let path = match rest {
        Some(path) => path,
        None if !text.contains(':') && text.matches('/').count() == 1 => text,
        None => return None,
    };
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let mut parts = path.split('/').filter(|p| !p.is_empty());
    let (workspace, repository) = (parts.next()?, parts.next()?);
    Some((workspace.to_string(), repository.strip_suffix(".git").unwrap_or(repository).to_string()))
}

/// A uuid in Bitbucket's spelling (in braces) from one that is bare, in braces, or with encoded
/// braces. Its case stays. `None` for anything else.
pub fn uuid(text: &str) -> Option<String> {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        // No name has braces, so what stands in them is an id even when it is an unusual one.
        let plain = !inner.is_empty() && inner.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        return plain.then(|| text.to_string());
    }
    let encoded = text.get(..3).filter(|p| p.eq_ignore_ascii_case("%7b")).and_then(|_| {
        let (inner, end) = text[3..].split_at_checked(text.len().checked_sub(6)?)?;
        end.eq_ignore_ascii_case("%7d").then_some(inner)
    });
    let bare = encoded.unwrap_or(text);
    let dashes = [8, 13, 18, 23];
    let fits = bare.len() == 36 && bare.bytes().enumerate().all(|(i, b)| if dashes.contains(&i) { b == b'-' } else { b.is_ascii_hexdigit() });
    fits.then(|| format!("{{{bare}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(workspace: &str, repository: &str, environment: &str) -> Place {
        let config = serde_json::json!({"workspaceSlug": workspace, "repositorySlug": repository, "environmentId": environment});
        Place::of(config.as_object().expect("object"))
    }

    #[test]
    fn endpoints_in_every_spelling() {
        for text in ["https://api.bitbucket.org", "https://api.bitbucket.org/", "https://api.bitbucket.org/2.0", "https://api.bitbucket.org/2.0/"] {
            assert_eq!(endpoint(Some(text)).expect("endpoint").api.as_str(), "https://api.bitbucket.org/2.0", "{text}");
        }
        for text in ["http://127.0.0.1:7400/bitbucket", "http://127.0.0.1:7400/bitbucket/", "http://127.0.0.1:7400/bitbucket/2.0/"] {
            let endpoint = endpoint(Some(text)).expect("endpoint");
            assert_eq!(endpoint.api.as_str(), "http://127.0.0.1:7400/bitbucket/2.0", "{text}");
            assert_eq!(endpoint.identity(), "127.0.0.1:7400/bitbucket");
        }
        let web = endpoint(Some("https://bitbucket.org/acme")).expect("endpoint");
        assert_eq!(web.api.as_str(), "https://api.bitbucket.org/2.0");
        assert!(web.note.is_some());
        assert!(endpoint(None).expect("default").cloud);
    }

    #[test]
    fn pasted_addresses_are_taken_apart() {
        let wanted = Place { workspace: "acme".into(), repository: "api".into(), environment: None };
        for (workspace, repository) in [
            ("acme", "api"),
            ("https://bitbucket.org/acme/api/src/main/", ""),
            ("", "https://bitbucket.org/acme/api"),
            ("acme", "acme/api"),
            ("https://bitbucket.org/acme/api", "https://bitbucket.org/acme/api"),
            ("git@bitbucket.org:acme/api.git", ""),
            ("https://me@bitbucket.org/acme/api.git", ""),
        ] {
            assert_eq!(place(workspace, repository, ""), wanted, "{workspace} {repository}");
        }
    }

    #[test]
    fn a_pasted_repository_of_another_workspace_is_noticed() {
        for (workspace, repository, stranger) in [
            ("acme", "https://bitbucket.org/other/api", Some("other")),
            ("acme", "other/api", Some("other")),
            ("https://bitbucket.org/acme/web", "https://bitbucket.org/other/api", Some("other")),
            ("ACME", "https://bitbucket.org/acme/api", None),
            ("", "https://bitbucket.org/acme/api", None),
            ("https://bitbucket.org/acme/api", "api", None),
            ("{3c90c3cc-0d44-4b50-8888-8dd25736052a}", "acme/api", None),
        ] {
            let config = serde_json::json!({"workspaceSlug": workspace, "repositorySlug": repository});
            assert_eq!(Place::stranger(config.as_object().expect("object")).as_deref(), stranger, "{workspace} {repository}");
        }
    }

    #[test]
    fn uuids_bare_braced_or_encoded_are_one() {
        let id = "3C90C3CC-0d44-4b50-8888-8dd25736052a";
        let wanted = Some(format!("{{{id}}}"));
        for text in [id.to_string(), format!("{{{id}}}"), format!("%7B{id}%7D"), format!("%7b{id}%7d")] {
            assert_eq!(place("a", "b", &text).environment, wanted, "{text}");
        }
        assert_eq!(place("a", "b", "production").environment.as_deref(), Some("production"));
        assert_eq!(uuid("{prod-1}").as_deref(), Some("{prod-1}"));
        for text in ["{}", "{a/b}", "{..}", "%7B%7D", "%7B", "production"] {
            assert_eq!(uuid(text), None, "{text}");
        }
        assert_eq!(uuid(""), None);
    }
}
