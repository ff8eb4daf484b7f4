//! Projects, resource areas and the locations that Microsoft's clients ask for before they
//! call anything.

use axum::http::Method;
use axum::response::Response;
use serde_json::{Value, json};

use super::State;
use super::answer::{self, header};
use super::route::Ask;
use super::world::{Project, Server};

/// id, area, resource, route template, resource version, min version.
const LOCATIONS: &[(&str, &str, &str, &str, u8, &str)] = &[
    ("e81700f7-3be2-46de-8624-2eb35882fcaa", "Location", "ResourceAreas", "_apis/{resource}/{areaId}", 1, "3.2"),
    ("603fe2ac-9723-48b9-88ad-09305aa6c6e1", "core", "projects", "_apis/{resource}/{*projectId}", 4, "1.0"),
    ("ef5b7057-ffc3-4c77-bbad-c10b4a4abcc7", "distributedtask", "variablegroups", "_apis/{area}/{resource}/{groupId}", 2, "5.2"),
    ("f5b09dd5-9d54-45a1-8b5a-1c8287d634cc", "distributedtask", "variablegroups", "{project}/_apis/{area}/{resource}/{groupId}", 2, "3.2"),
];

/// `OPTIONS /_apis` and `OPTIONS /_apis/{area}`.
pub(super) fn locations(server: Server, area: Option<&str>) -> Response {
    let (max, usual) = (text(server.ceiling()), text(server.usual()));
    let values: Vec<Value> = LOCATIONS
        .iter()
        .filter(|l| area.is_none_or(|a| a.eq_ignore_ascii_case(l.1)))
        .filter(|l| server != Server::Server2019 || l.5 != "5.2")
        .map(|(id, area, resource, route, version, min)| {
            let released = if *area == "Location" || (server.ceiling() <= (6, 0) && *area == "distributedtask") { "0.0" } else { usual.as_str() };
            json!({"id": id, "area": area, "resourceName": resource, "routeTemplate": route, "resourceVersion": version,
                "minVersion": min, "maxVersion": max, "releasedVersion": released})
        })
        .collect();
    answer::list(server.usual(), &values)
}

fn text(version: (u16, u16)) -> String {
    format!("{}.{}", version.0, version.1)
}

/// `GET /_apis/ResourceAreas`: empty on servers, where everything is under one address.
pub(super) fn areas(server: Server, ask: &Ask) -> Response {
    let url = format!("{}/", ask.base);
    let areas = [("a85b8835-c1a1-4aac-ae97-1c3d0ba72dbd", "distributedtask"), ("79134c72-4a58-4b42-976c-04e7115f32bf", "core")];
    let values: Vec<Value> = match server {
        Server::Services => areas.iter().map(|(id, name)| json!({"id": id, "name": name, "locationUrl": url})).collect(),
        _ => Vec::new(),
    };
    answer::list(ask.version, &values)
}

/// `GET /_apis/projects` and `GET /_apis/projects/{idOrName}`.
pub(super) fn projects(state: &State, ask: &Ask) -> Response {
    let world = state.world();
    if ask.method != Method::GET {
        return answer::empty(405);
    }
    if !ask.identity.scopes.read_projects {
        return answer::sign_in(world.sign_in, &world.tenant, None);
    }
    if let Some(wanted) = ask.tail.get(1) {
        return match world.project(wanted) {
            Some(project) => answer::json(200, ask.version, &shown(project, &ask.base)),
            None => missing(404, wanted),
        };
    }
    let number = |name: &str| ask.param(name).map(|v| v.parse::<usize>());
    let (Ok(top), Ok(skip), Ok(token)) = (number("$top").transpose(), number("$skip").transpose(), number("continuationToken").transpose()) else {
        return answer::refusal(400, "VssPropertyValidationException", "A paging parameter is not a number.");
    };
    let (top, start) = (top.unwrap_or(world.page).min(1000), token.or(skip).unwrap_or(0));
    let page: Vec<Value> = world.projects.iter().skip(start).take(top).map(|p| shown(p, &ask.base)).collect();
    let mut response = answer::list(ask.version, &page);
    if start + page.len() < world.projects.len() {
        header(&mut response, "x-ms-continuationtoken", &(start + page.len()).to_string());
    }
    header(&mut response, "x-vss-userdata", &format!("{}:{}@example.com", ask.identity.id, ask.identity.name.replace(' ', ".")));
    response
}

fn shown(project: &Project, base: &str) -> Value {
    json!({"id": project.id, "name": project.name, "url": format!("{base}/_apis/projects/{}", project.id), "state": "wellFormed",
        "revision": 11, "visibility": "private", "lastUpdateTime": "2026-01-05T10:00:00.083Z"})
}

/// A project that is not there, or not shown. One call says 404, all others 400.
pub(super) fn missing(status: u16, wanted: &str) -> Response {
    if uuid::Uuid::try_parse(wanted).is_ok() {
        let message = format!("VS800075: The project with id '{wanted}' does not exist, or you do not have permission to access it.");
        return answer::refusal(status, "ProjectDoesNotExistException", &message);
    }
    let message = format!(
        "TF200016: The following project does not exist: {wanted}. Verify that the name of the project is correct and that the project exists on the specified Azure DevOps Server."
    );
    answer::refusal(status, "ProjectDoesNotExistWithNameException", &message)
}
