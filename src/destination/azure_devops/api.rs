//! Base addresses and API versions. Microsoft: "REST API versioning for Azure DevOps".

use crate::http::{ApiError, ErrorKind};

use super::SERVICE;

/// The cloud's address.
pub(super) const DEFAULT_ENDPOINT: &str = "https://dev.azure.com";

/// `major.minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub major: u16,
    pub minor: u16,
}

impl Version {
    pub const OLDEST: Self = Self::new(4, 1);
    /// Asked for first.
    pub const WANTED: Self = Self::new(7, 1);
    /// From here on groups are written at the organisation, with project references.
    const ORGANISATION_WRITES: Self = Self::new(5, 2);

    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// Reads `7.1`, `6.0-preview` or `6.0-preview.2`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (number, preview) = text.split_once('-').map_or((text, None), |(n, p)| (n, Some(p)));
        if let Some(preview) = preview {
            let rest = preview.strip_prefix("preview")?;
            if !rest.is_empty() {
                rest.strip_prefix('.')?.parse::<u8>().ok()?;
            }
        }
        let (major, minor) = number.split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    pub fn writes_at_organisation(self) -> bool {
        self >= Self::ORGANISATION_WRITES
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What is sent for variable groups in each version: they were a preview up to 6.1.
static GROUPS: &[(Version, &str)] = &[
    (Version::new(7, 2), "7.2-preview.2"),
    (Version::new(7, 1), "7.1"),
    (Version::new(7, 0), "7.0"),
    (Version::new(6, 1), "6.1-preview.2"),
    (Version::new(6, 0), "6.0-preview.2"),
    (Version::new(5, 2), "5.2-preview.2"),
    (Version::new(5, 1), "5.1-preview.1"),
    (Version::new(5, 0), "5.0-preview.1"),
    (Version::new(4, 1), "4.1-preview.1"),
];

/// Two resources with version numbers of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Groups,
    Projects,
}

/// The version in use, settled by the first answers of a connection.
#[derive(Debug, Clone)]
pub(super) struct Api {
    pub version: Version,
    /// What is sent, by resource.
    groups: String,
    projects: String,
    /// Fixed by the connection's `apiVersion`.
    pub pinned: bool,
    /// An answer has shown that the version works.
    pub settled: bool,
}

impl Api {
    /// The version to begin with.
    pub fn new(pin: Option<&str>) -> Result<Self, ApiError> {
        let Some(pin) = pin else {
            return Ok(Self::of(Version::WANTED));
        };
        match Version::parse(pin) {
            Some(version) if version >= Version::OLDEST => {
                Ok(Self { version, groups: pin.to_string(), projects: version.to_string(), pinned: true, settled: false })
            }
            _ => Err(too_old(pin)),
        }
    }

    fn of(version: Version) -> Self {
        let groups = GROUPS.iter().find(|(v, _)| *v == version).map_or_else(|| version.to_string(), |(_, sent)| (*sent).to_string());
        Self { version, groups, projects: version.to_string(), pinned: false, settled: false }
    }

    /// What the query says.
    pub fn sent(&self, resource: Resource) -> &str {
        match resource {
            Resource::Groups => &self.groups,
            Resource::Projects => &self.projects,
        }
    }

    /// The server's newest version is `ceiling`: the newest one known up to it is used.
    pub fn lower_to(&mut self, ceiling: Version) -> Result<(), ApiError> {
        match GROUPS.iter().find(|(v, _)| *v <= ceiling) {
            Some((version, _)) => {
                *self = Self::of(*version);
                Ok(())
            }
            None => Err(too_old(&ceiling.to_string())),
        }
    }

    /// The server wants exactly this text for a resource (it is a preview there).
    pub fn use_text(&mut self, resource: Resource, text: &str) {
        match resource {
            Resource::Groups => self.groups = text.to_string(),
            Resource::Projects => self.projects = text.to_string(),
        }
    }
}

fn too_old(version: &str) -> ApiError {
    ApiError::new(ErrorKind::Invalid, SERVICE, format!("API version {} is older than 4.1, the oldest that has what a sync needs", version))
        .advice("Azure DevOps Services or Azure DevOps Server 2019 or newer is needed.")
}

/// The version that a refusal names: `... this server supports is 7.0.`
pub(super) fn version_offered(message: &str) -> Option<Version> {
    let (_, tail) = message.rsplit_once("supports is")?;
    let number: String = tail.trim().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    Version::parse(number.trim_end_matches('.'))
}

/// The preview text that a refusal names: `... For example: "6.0-preview.2"`.
pub(super) fn preview_offered(message: &str) -> Option<&str> {
    message
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-'))
        .map(|word| word.trim_matches('.'))
        .find(|word| word.contains("-preview") && Version::parse(word).is_some())
}

/// The address under which everything of an organisation (or collection) lives.
///
/// On the older `NAME.visualstudio.com` hosts the organisation is in the host already. One
/// form of an address is never rewritten into another.
pub(super) fn base(endpoint: Option<&str>, organisation: &str) -> Result<url::Url, ApiError> {
    let endpoint = endpoint.unwrap_or(DEFAULT_ENDPOINT);
    let invalid = || {
        ApiError::new(ErrorKind::Invalid, SERVICE, "the connection's endpoint is not an address")
            .advice("Set endpoint to an address such as https://dev.azure.com.")
    };
    let url = url::Url::parse(endpoint).map_err(|_| invalid())?;
    let host = url.host_str().ok_or_else(invalid)?;
    if host.ends_with(".visualstudio.com") {
        return Ok(crate::http::join(&url, &[]));
    }
    if matches!(organisation, "." | "..") {
        return Err(ApiError::new(ErrorKind::Invalid, SERVICE, "the connection's orgName is not a name"));
    }
    Ok(crate::http::join(&url, &[organisation]))
}

/// True for Microsoft's own hosts: their 404 is never a matter of versions.
pub(super) fn is_services(base: &url::Url) -> bool {
    base.host_str().is_some_and(|h| h == "dev.azure.com" || h.ends_with(".visualstudio.com"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_installation() {
        for (endpoint, organisation, expected) in [
            (None, "contoso", "https://dev.azure.com/contoso"),
            (Some("https://dev.azure.com/"), "con toso", "https://dev.azure.com/con%20toso"),
            (Some("https://contoso.visualstudio.com"), "contoso", "https://contoso.visualstudio.com/"),
            (Some("https://contoso.visualstudio.com/DefaultCollection/"), "contoso", "https://contoso.visualstudio.com/DefaultCollection"),
            (Some("https://ado.corp"), "DefaultCollection", "https://ado.corp/DefaultCollection"),
            (Some("http://tfs.corp:8080/tfs/"), "DefaultCollection", "http://tfs.corp:8080/tfs/DefaultCollection"),
            (Some("http://127.0.0.1:7400/devops"), "demo", "http://127.0.0.1:7400/devops/demo"),
        ] {
            assert_eq!(base(endpoint, organisation).expect("a base").as_str(), expected);
        }
        assert!(base(None, "..").is_err());
        assert!(is_services(&base(None, "contoso").expect("base")));
        assert!(!is_services(&base(Some("https://ado.corp"), "c").expect("base")));
    }

    #[test]
    fn versions_are_read_and_lowered() {
        assert_eq!(Version::parse("6.0-preview.2"), Some(Version::new(6, 0)));
        for bad in ["7", "7.1-beta", "7.1-preview2", "latest", "7.x"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
        let mut api = Api::new(None).expect("api");
        assert_eq!(api.sent(Resource::Groups), "7.1");
        for (ceiling, sent, organisation) in [
            (Version::new(7, 0), "7.0", true),
            (Version::new(6, 0), "6.0-preview.2", true),
            (Version::new(5, 1), "5.1-preview.1", false),
            (Version::new(5, 0), "5.0-preview.1", false),
        ] {
            api.lower_to(ceiling).expect("known");
            assert_eq!(api.sent(Resource::Groups), sent);
            assert_eq!(api.version.writes_at_organisation(), organisation);
        }
        assert!(api.lower_to(Version::new(4, 0)).is_err());
        assert!(Api::new(Some("3.2")).is_err());
    }

    #[test]
    fn refusals_name_the_version_to_use() {
        let out = "The requested REST API version of 7.1 is out of range for this server. The latest REST API version this server supports is 6.0.";
        assert_eq!(version_offered(out), Some(Version::new(6, 0)));
        let preview = "The requested version \"6.0\" of the resource is under preview. The -preview flag must be supplied in the api-version for such requests. For example: \"6.0-preview.2\"";
        assert_eq!(preview_offered(preview), Some("6.0-preview.2"));
        assert_eq!(preview_offered("nothing of the kind"), None);
    }
}
