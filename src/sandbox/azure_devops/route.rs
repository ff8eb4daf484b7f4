//! From a request to a call: path, credential, API version.

use axum::body::to_bytes;
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use base64::Engine as _;

use super::answer::{self, header};
use super::world::{Identity, Server, SignIn};
use super::{State, discovery, groups};

/// A request understood as far as every call needs it.
pub(super) struct Ask {
    pub method: Method,
    /// Decoded; `None` for calls of the organisation.
    pub project: Option<String>,
    /// Behind `_apis`, lower case, except the last one as it came.
    pub tail: Vec<String>,
    pub query: Vec<(String, String)>,
    pub version: (u16, u16),
    pub identity: Identity,
    /// Scheme, host and path up to the organisation.
    pub base: String,
    pub body: Vec<u8>,
}

impl Ask {
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// Which versions a resource has released ones of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resource {
    Groups,
    Projects,
    Other,
}

pub(super) async fn dispatch(Extract(state): Extract<State>, request: Request) -> Response {
    let session = request.headers().get("x-tfs-session").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let mut response = handle(&state, request).await;
    header(&mut response, "activityid", &uuid::Uuid::new_v4().to_string());
    header(&mut response, "x-tfs-processid", "5b5c1a52-0000-4000-8000-000000000002");
    if let Some(session) = session {
        header(&mut response, "x-tfs-session", &session);
    }
    let mut world = state.world();
    if response.status().is_success() && world.wait_hint.0 > 0 {
        world.wait_hint.0 -= 1;
        header(&mut response, "retry-after", &world.wait_hint.1.to_string());
        header(&mut response, "x-ratelimit-delay", "1.250");
    }
    if let Some((limit, remaining, seconds)) = world.budget {
        header(&mut response, "x-ratelimit-resource", "Core");
        header(&mut response, "x-ratelimit-limit", &limit.to_string());
        header(&mut response, "x-ratelimit-remaining", &remaining.to_string());
        header(&mut response, "x-ratelimit-reset", &(jiff::Timestamp::now().as_second() + seconds).to_string());
    }
    response
}

async fn handle(state: &State, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let host = parts.headers.get("host").and_then(|h| h.to_str().ok()).unwrap_or("127.0.0.1").to_string();
    let raw: Vec<String> = parts.uri.path().split('/').filter(|s| !s.is_empty()).map(decode).collect();
    let (organisation, prefix) = {
        let world = state.world();
        (world.organisation.to_lowercase(), world.prefix.clone())
    };
    let mut segments = raw.as_slice();
    for part in &prefix {
        match segments.split_first() {
            Some((first, rest)) if first.to_lowercase() == *part => segments = rest,
            _ => return answer::not_found_page(),
        }
    }
    let named = match segments.split_first() {
        Some((first, rest)) if first.to_lowercase() == organisation => {
            segments = rest;
            first.clone()
        }
        _ => return answer::not_found_page(),
    };
    let identity = match identify(state, &parts.headers) {
        Ok(identity) => identity,
        Err(response) => return response,
    };
    let (project, segments) = match segments.split_first() {
        Some((first, rest)) if first.eq_ignore_ascii_case("_apis") => (None, rest),
        Some((first, rest)) if rest.first().is_some_and(|s| s.eq_ignore_ascii_case("_apis")) => (Some(first.clone()), &rest[1..]),
        _ => return answer::not_found_page(),
    };
    let mut tail: Vec<String> = segments.iter().map(|s| s.to_lowercase()).collect();
    // A project may be named in the last segment.
    if let (Some(last), Some(original)) = (tail.last_mut(), segments.last())
        && segments.len() > 1
    {
        last.clone_from(original);
    }
    let query = parts.uri.query().map(|q| url::form_urlencoded::parse(q.as_bytes()).into_owned().collect()).unwrap_or_default();
    let mut ask = Ask {
        method: parts.method,
        project,
        tail,
        query,
        version: (0, 0),
        identity,
        base: format!("http://{host}/{}", prefix.iter().chain([&named]).cloned().collect::<Vec<_>>().join("/")),
        body: Vec::new(),
    };
    let kind = match ask.tail.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["distributedtask", "variablegroups", ..] => Resource::Groups,
        ["projects", ..] => Resource::Projects,
        _ => Resource::Other,
    };
    let server = state.world().server;
    if ask.method == Method::OPTIONS {
        return discovery::locations(server, ask.tail.first().map(String::as_str));
    }
    ask.version = match version(server, kind, &parts.headers, ask.param("api-version")) {
        Ok(version) => version,
        Err(response) => return response,
    };
    ask.body = to_bytes(body, 64 << 20).await.map(|b| b.to_vec()).unwrap_or_default();
    match (kind, ask.tail.first().map(String::as_str)) {
        (Resource::Groups, _) => groups::call(state, &ask),
        (Resource::Projects, _) if ask.project.is_none() => discovery::projects(state, &ask),
        (Resource::Other, Some("resourceareas")) if ask.project.is_none() => discovery::areas(server, &ask),
        _ => answer::not_found_page(),
    }
}

fn decode(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

fn identify(state: &State, headers: &HeaderMap) -> Result<Identity, Response> {
    let world = state.world();
    let refuse = |why: Option<&str>| Err(answer::sign_in(world.sign_in, &world.tenant, why));
    let Some(text) = headers.get("authorization").and_then(|v| v.to_str().ok()) else { return refuse(None) };
    if let Some(token) = text.strip_prefix("Bearer ") {
        let connected = world.tenant != "00000000-0000-0000-0000-000000000000";
        if connected && (world.bearers)(token.trim()) {
            return Ok(Identity { id: "8d7c0b1e-0000-4000-8000-000000000003".into(), ..Identity::administrator("service principal") });
        }
        // An Entra token that is not accepted is always sent to the sign-in page.
        return Err(answer::sign_in(SignIn::Redirect, &world.tenant, None));
    }
    let pair = text.strip_prefix("Basic ").and_then(|t| base64::engine::general_purpose::STANDARD.decode(t.trim()).ok());
    let pair = pair.and_then(|p| String::from_utf8(p).ok()).unwrap_or_default();
    let token = pair.split_once(':').map_or("", |(_, token)| token);
    match world.tokens.get(token) {
        // A token of another organisation is as good as none here.
        Some(identity) if identity.organisation.as_ref().is_some_and(|o| !o.eq_ignore_ascii_case(&world.organisation)) => refuse(None),
        Some(identity) if identity.expired => refuse(Some("Access Denied: The Personal Access Token used has expired.")),
        Some(identity) => Ok(identity.clone()),
        None => refuse(None),
    }
}

/// The version of a call: from the query, else from the `Accept` header, else the usual one.
fn version(server: Server, resource: Resource, headers: &HeaderMap, query: Option<&str>) -> Result<(u16, u16), Response> {
    let accept = headers.get("accept").and_then(|a| a.to_str().ok()).map(str::to_lowercase);
    let given = query.map(str::to_owned).or_else(|| {
        let accept = accept?;
        let (_, tail) = accept.split_once("api-version=")?;
        Some(tail.split([';', ',', ' ']).next().unwrap_or_default().to_string())
    });
    let Some(text) = given else { return Ok(server.usual()) };
    let (number, preview) = text.split_once('-').map_or((text.as_str(), false), |(n, p)| (n, p.starts_with("preview")));
    let parsed = number.split_once('.').and_then(|(a, b)| Some((a.parse::<u16>().ok()?, b.parse::<u16>().ok()?)));
    let Some(version) = parsed else {
        return Err(answer::refusal(400, "VssVersionNotSpecifiedException", &format!("The api-version {text} is not valid.")));
    };
    let ceiling = server.ceiling();
    if version > ceiling {
        return Err(if server == Server::Server2019 {
            answer::not_found_page()
        } else {
            let message = format!(
                "The requested REST API version of {number} is out of range for this server. The latest REST API version this server supports is {}.{}.",
                ceiling.0, ceiling.1
            );
            answer::refusal(400, "VssVersionOutOfRangeException", &message)
        });
    }
    let unreleased = match resource {
        Resource::Groups => version == (7, 2) || version < (6, 0) || (version == (6, 0) && server == Server::Server2020),
        Resource::Projects => version == (7, 2),
        Resource::Other => false,
    };
    if unreleased && !preview {
        let revision = match resource {
            Resource::Projects => 4,
            _ if version < (5, 2) => 1,
            _ => 2,
        };
        let message = format!(
            "The requested version \"{number}\" of the resource is under preview. The -preview flag must be supplied in the api-version for such requests. For example: \"{number}-preview.{revision}\""
        );
        return Err(answer::refusal(400, "VssInvalidPreviewVersionException", &message));
    }
    Ok(version)
}
