//! The variable group calls. Microsoft: "Variablegroups" (list, get, add, update, delete).

use std::collections::{BTreeMap, HashSet};

use axum::http::Method;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::State;
use super::answer::{self, header};
use super::discovery::missing;
use super::route::Ask;
use super::world::{Group, Identity, Role, Variable, World};

pub(super) fn call(state: &State, ask: &Ask) -> Response {
    let project = match &ask.project {
        None => None,
        Some(wanted) => match state.world().project(wanted) {
            Some(project) => Some(project.id.clone()),
            None => return missing(400, wanted),
        },
    };
    let scopes = ask.identity.scopes;
    let allowed = if ask.method == Method::GET { scopes.read_groups || scopes.manage_groups } else { scopes.manage_groups };
    if !allowed {
        let world = state.world();
        return answer::sign_in(world.sign_in, &world.tenant, None);
    }
    let id = match ask.tail.get(2).map(|t| t.parse::<i64>()) {
        None => None,
        Some(Ok(id)) => Some(id),
        Some(Err(_)) => return answer::not_found_page(),
    };
    // Since 5.2 groups are written at the organisation, before that in their project.
    let write_scope = if ask.version >= (5, 2) { ask.project.is_none() } else { ask.project.is_some() };
    if ask.method == Method::GET {
        let Some(project) = project else { return answer::empty(405) };
        let response = match id {
            None => list(&mut state.world(), ask, &project),
            Some(id) => get(&mut state.world(), ask, &project, id),
        };
        let acts = std::mem::take(&mut state.world().after_read);
        acts.into_iter().for_each(|act| act(state));
        return response;
    }
    if !write_scope {
        return answer::empty(405);
    }
    let acts = std::mem::take(&mut state.world().before_write);
    acts.into_iter().for_each(|act| act(state));
    let mut world = state.world();
    match (ask.method.clone(), id) {
        (Method::POST, None) => write(&mut world, ask, project.as_deref(), None),
        (Method::PUT, Some(id)) => write(&mut world, ask, project.as_deref(), Some(id)),
        (Method::DELETE, Some(id)) => delete(&mut world, ask, project.as_deref(), id),
        (Method::PATCH, None) => sharing(),
        _ => answer::empty(405),
    }
}

fn visible(group: &Group, identity: &Identity, project: &str) -> bool {
    let own = group.administrators.contains(&identity.id);
    group.projects.iter().any(|p| p == project) && (own || (!group.hidden && identity.role != Role::Creator))
}

fn may_change(group: &Group, identity: &Identity) -> bool {
    group.administrators.contains(&identity.id) || (!group.hidden && identity.role == Role::Administrator)
}

/// Counts a read against the lag of a new group; true while it is not shown.
fn lagging(group: &mut Group) -> bool {
    let lags = group.lag > 0;
    group.lag = group.lag.saturating_sub(1);
    lags
}

fn list(world: &mut World, ask: &Ask, project: &str) -> Response {
    let name = ask.param("groupName");
    let ids: Option<HashSet<i64>> = ask.param("groupIds").map(|ids| ids.split(',').filter_map(|i| i.trim().parse().ok()).collect());
    let manage = matches!(ask.param("actionFilter").map(str::to_lowercase).as_deref(), Some("manage" | "2"));
    let mut found = Vec::new();
    for group in world.groups.values_mut() {
        let fits = name.is_none_or(|n| wildcard(&n.to_lowercase(), &group.name.to_lowercase()))
            && ids.as_ref().is_none_or(|i| i.contains(&group.id))
            && (!manage || may_change(group, &ask.identity));
        if visible(group, &ask.identity, project) && !lagging(group) && fits {
            found.push(group.id);
        }
    }
    let ascending = matches!(ask.param("queryOrder").map(str::to_lowercase).as_deref(), Some("idascending" | "0"));
    if !ascending {
        found.reverse();
    }
    let number = |name: &str| ask.param(name).map(|v| v.parse::<i64>()).transpose();
    let (Ok(top), Ok(token)) = (number("$top"), number("continuationToken")) else {
        return answer::refusal(400, "VssPropertyValidationException", "A paging parameter is not a number.");
    };
    // The token is the id of the next page's first group.
    if let Some(token) = token {
        found.retain(|id| if ascending { *id >= token } else { *id <= token });
    }
    let top = top.and_then(|t| usize::try_from(t).ok()).unwrap_or(world.page).min(world.page);
    let page: Vec<Value> = found.iter().take(top).filter_map(|id| world.groups.get(id)).map(|g| shown(world, g, ask.version)).collect();
    let mut response = answer::list(ask.version, &page);
    if let Some(next) = found.get(top) {
        header(&mut response, "x-ms-continuationtoken", &next.to_string());
    }
    response
}

/// `*` stands for any text.
fn wildcard(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => {
            text.strip_prefix(head).is_some_and(|rest| (0..=rest.len()).filter(|i| rest.is_char_boundary(*i)).any(|i| wildcard(tail, &rest[i..])))
        }
    }
}

fn get(world: &mut World, ask: &Ask, project: &str, id: i64) -> Response {
    let there = world.groups.get_mut(&id).is_some_and(|g| visible(g, &ask.identity, project) && !lagging(g));
    let value = match world.groups.get(&id).filter(|_| there) {
        Some(group) => shown(world, group, ask.version),
        None => Value::Null,
    };
    answer::json(200, ask.version, &value)
}

fn shown(world: &World, group: &Group, version: (u16, u16)) -> Value {
    let variables: Map<String, Value> = group.variables.iter().map(|(n, v)| (n.clone(), v.shown(version))).collect();
    let mut out = json!({
        "id": group.id,
        "type": group.kind,
        "name": group.name,
        "variables": variables,
        "createdBy": {"id": uuid_of(&group.created_by), "displayName": group.created_by},
        "createdOn": group.created_on,
        "modifiedBy": {"id": uuid_of(&group.modified_by), "displayName": group.modified_by},
        "modifiedOn": group.modified_on,
    });
    if let Some(description) = &group.description {
        out["description"] = description.clone().into();
    }
    if let Some(data) = &group.provider_data {
        out["providerData"] = data.clone();
    }
    if version >= (5, 2) {
        out["isShared"] = (group.projects.len() > 1).into();
        let references = group.projects.iter().map(|id| {
            let name = world.project(id).map_or(id.as_str(), |p| p.name.as_str());
            let mut reference = json!({"name": group.name, "projectReference": {"id": id, "name": name}});
            if let Some(description) = &group.description {
                reference["description"] = description.clone().into();
            }
            reference
        });
        out["variableGroupProjectReferences"] = references.collect();
    }
    out
}

fn uuid_of(name: &str) -> String {
    let hash = blake3::hash(name.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

/// POST and PUT.
fn write(world: &mut World, ask: &Ask, project: Option<&str>, id: Option<i64>) -> Response {
    let body: Value = match serde_json::from_slice(&ask.body) {
        Ok(Value::Object(map)) => Value::Object(map),
        _ => return answer::unparsable("Value cannot be null. Parameter name: group"),
    };
    let existing = match id {
        None if ask.identity.role == Role::Reader => return answer::denied("create variable groups in the library; the role Creator is needed"),
        None => None,
        Some(id) => match world.groups.get(&id) {
            Some(group) if group.hidden && !may_change(group, &ask.identity) => return gone(id),
            Some(group) if !may_change(group, &ask.identity) => {
                return answer::denied("manage this variable group; the role Administrator is needed");
            }
            Some(group) => Some(group.clone()),
            None => return gone(id),
        },
    };
    let checked = check(world, ask, project, existing.as_ref(), &body);
    let (name, projects) = match checked {
        Ok(checked) => checked,
        Err(response) => return response,
    };
    let variables = match variables(existing.as_ref(), &body) {
        Ok(variables) => variables,
        Err(response) => return response,
    };
    let sent = |name: &str| body["variables"][name]["value"].is_string();
    if let Some(bad) = variables.keys().find(|n| sent(n) && world.refused.contains(&n.to_lowercase())) {
        return answer::refusal(400, "ArgumentException", &format!("Variable name '{bad}' is not valid."));
    }
    let now = world.tick();
    let text = |member: &str| body.get(member).and_then(Value::as_str).map(str::to_owned);
    let id = existing.as_ref().map_or_else(|| world.next_id(), |g| g.id);
    let by = ask.identity.name.clone();
    let mut administrators = existing.as_ref().map(|g| g.administrators.clone()).unwrap_or_default();
    if existing.is_none() {
        administrators.insert(ask.identity.id.clone());
    }
    let group = Group {
        id,
        name,
        description: text("description"),
        kind: text("type").unwrap_or_else(|| "Vsts".into()),
        provider_data: body.get("providerData").filter(|p| !p.is_null()).cloned(),
        variables,
        projects,
        created_by: existing.as_ref().map_or_else(|| by.clone(), |g| g.created_by.clone()),
        created_on: existing.as_ref().map_or_else(|| now.clone(), |g| g.created_on.clone()),
        modified_by: by,
        modified_on: now,
        administrators,
        hidden: existing.as_ref().is_some_and(|g| g.hidden),
        lag: if existing.is_none() { world.create_lag } else { 0 },
    };
    let value = shown(world, &group, ask.version);
    world.groups.insert(id, group);
    world.last_body = Some(body);
    answer::json(200, ask.version, &value)
}

fn gone(id: i64) -> Response {
    answer::refusal(
        404,
        "VariableGroupNotFoundException",
        &format!("Variable group {id} does not exist, or you do not have permission to access it."),
    )
}

fn sharing() -> Response {
    answer::refusal(500, "Exception", "Sharing of variable group is not allowed.")
}

/// The name and the projects of the group that a body asks for.
fn check(world: &World, ask: &Ask, project: Option<&str>, existing: Option<&Group>, body: &Value) -> Result<(String, Vec<String>), Response> {
    let bad = |message: &str| Err(answer::refusal(400, "ArgumentException", message));
    let Some(name) = body.get("name").and_then(Value::as_str).map(str::trim).filter(|n| !n.is_empty()) else {
        return bad("Variable group name is required.");
    };
    if body.get("variables").and_then(Value::as_object).is_none_or(Map::is_empty) {
        return bad("Variable group must have at least one variable defined.");
    }
    let projects: Vec<String> = match (existing, project) {
        _ if ask.version >= (5, 2) => {
            let Some(references) = body.get("variableGroupProjectReferences").and_then(Value::as_array).filter(|r| !r.is_empty()) else {
                return bad("Atleast one variable group project reference is required");
            };
            let mut ids = Vec::new();
            for reference in references {
                if reference.get("name").and_then(Value::as_str).is_none_or(|n| n.trim().is_empty()) {
                    return bad("Project information name is not valid for variable group.");
                }
                let wanted = reference.pointer("/projectReference/id").and_then(Value::as_str).unwrap_or_default();
                if uuid::Uuid::try_parse(wanted).is_err() {
                    return Err(answer::unparsable(&format!("Error converting value \"{wanted}\" to type 'System.Guid'.")));
                }
                match world.project(wanted) {
                    Some(project) => ids.push(project.id.clone()),
                    None => return Err(missing(400, wanted)),
                }
            }
            ids
        }
        (Some(group), Some(project)) if !group.projects.iter().any(|p| p == project) => return Err(gone(group.id)),
        (Some(group), _) => group.projects.clone(),
        (None, Some(project)) => vec![project.to_string()],
        (None, None) => return bad("A project is required."),
    };
    match existing {
        None if projects.len() > 1 => return Err(sharing()),
        Some(group) => {
            if let Some(foreign) = projects.iter().find(|p| !group.projects.contains(p)) {
                return bad(&format!("Variable group is not part of project {foreign}."));
            }
        }
        None => {}
    }
    let renamed = existing.is_none_or(|g| g.name != name);
    let taken = renamed
        && world.groups.values().any(|g| {
            g.name.to_lowercase() == name.to_lowercase() && Some(g.id) != existing.map(|e| e.id) && g.projects.iter().any(|p| projects.contains(p))
        });
    if taken {
        return Err(answer::refusal(409, "VariableGroupExistsException", &format!("Variable group '{name}' already exists.")));
    }
    Ok((name.to_string(), projects))
}

/// What each variable of a body does to what is stored.
fn variables(existing: Option<&Group>, body: &Value) -> Result<BTreeMap<String, Variable>, Response> {
    let mut out = BTreeMap::new();
    let sent = body.get("variables").and_then(Value::as_object).into_iter().flatten();
    for (name, entry) in sent {
        let Some(entry) = entry.as_object() else {
            return Err(answer::unparsable(&format!("Error converting the variable {name}.")));
        };
        let flag = |member: &str| match entry.get(member) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(answer::unparsable(&format!("Could not convert {member} of {name} to boolean."))),
        };
        let (secret, read_only) = (flag("isSecret")?, flag("isReadOnly")?);
        let value = match entry.get("value") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(_) => return Err(answer::unparsable(&format!("Error converting the value of {name} to type 'System.String'."))),
        };
        let stored =
            existing.and_then(|g| g.variables.get(name).or_else(|| g.variables.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)));
        let kept = stored.filter(|s| s.secret && secret).and_then(|s| s.value.clone());
        let value = match value {
            // An empty text for a stored secret is ignored without a word.
            Some(text) if text.is_empty() && kept.is_some() => kept,
            Some(text) => Some(text),
            None if secret => kept,
            // A secret that is sent as plain without a value loses it.
            None => None,
        };
        let rest =
            entry.iter().filter(|(m, _)| !["value", "isSecret", "isReadOnly"].contains(&m.as_str())).map(|(m, v)| (m.clone(), v.clone())).collect();
        out.insert(name.clone(), Variable { value, secret, read_only, rest });
    }
    Ok(out)
}

fn delete(world: &mut World, ask: &Ask, project: Option<&str>, id: i64) -> Response {
    let projects: Vec<String> = match (ask.version >= (5, 2), project) {
        (true, _) => match ask.param("projectIds").filter(|p| !p.is_empty()) {
            Some(ids) => ids.split(',').map(|i| i.trim().to_lowercase()).collect(),
            None => return answer::refusal(400, "ArgumentNullException", "Value cannot be null. Parameter name: projectIds"),
        },
        (false, project) => project.map(str::to_owned).into_iter().collect(),
    };
    match world.groups.get_mut(&id) {
        None => gone(id),
        Some(group) if !projects.iter().all(|p| group.projects.contains(p)) => gone(id),
        Some(group) if !may_change(group, &ask.identity) => answer::denied("delete this variable group; the role Administrator is needed"),
        Some(group) => {
            group.projects.retain(|p| !projects.contains(p));
            if group.projects.is_empty() {
                world.groups.remove(&id);
            }
            answer::empty(204)
        }
    }
}
