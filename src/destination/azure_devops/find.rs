//! Finding the group: by name over pages, by id, and when it is not where it was.

use std::collections::HashMap;
use std::time::Duration;

use reqwest::Method;

use super::SERVICE;
use super::api::Resource;
use super::client::{Call, Client, Scope};
use super::errors::Doing;
use super::group::{Group, Tally, continuation};
use super::target::{DevOpsTarget, Removal};
use crate::destination::Listing;
use crate::http::{ApiError, Cx, ErrorKind, Pages};
use crate::model::text::brief;

const LIST: &str = "GET /{project}/_apis/distributedtask/variablegroups";
const GET: &str = "GET /{project}/_apis/distributedtask/variablegroups/{id}";
/// A group made so recently (seconds) may be missing from a list.
const JUST_MADE: i64 = 15;

impl DevOpsTarget {
    /// Proves that the groups of a project may be listed.
    pub async fn probe(client: &Client, cx: &Cx, project: &str) -> Result<(), ApiError> {
        let answer = client.send(cx, &list_call(project, vec![("$top", "1".into())])).await?;
        Group::list(&answer, &mut Tally::default()).map(|_| ())
    }

    /// All groups of the project, or those a name pattern finds.
    async fn groups(&self, cx: &Cx, name: Option<&str>) -> Result<Vec<Group>, ApiError> {
        let mut all: HashMap<i64, Group> = HashMap::new();
        let mut token: Option<String> = None;
        let mut pages = Pages::of(SERVICE, "the list of variable groups");
        let mut tally = Tally::default();
        loop {
            let mut query = Vec::with_capacity(4);
            query.extend(name.map(|n| ("groupName", n.to_string())));
            query.extend([("$top", "100".to_string()), ("queryOrder", "idAscending".to_string())]);
            query.extend(token.clone().map(|t| ("continuationToken", t)));
            let answer = self.client.send(cx, &list_call(&self.project, query)).await?;
            let groups = Group::list(&answer, &mut tally)?;
            let ids: Vec<i64> = groups.iter().map(|g| g.id).collect();
            all.extend(groups.into_iter().map(|g| (g.id, g)));
            let Some(next) = continuation(&answer) else { break };
            // A list in part could hide the group, and a second one would be made.
            pages.turn(&next, ids.iter().map(|id| id.to_ne_bytes()))?;
            token = Some(next);
        }
        tally.complete("variable groups")?;
        let mut groups: Vec<Group> = all.into_values().collect();
        groups.sort_by_key(|g| g.id);
        Ok(groups)
    }

    /// The group by its name. The service's filter knows wildcards, so the name is compared
    /// again; a name with unusual characters is also looked for without the filter.
    pub(super) async fn find(&self, cx: &Cx) -> Result<Option<Group>, ApiError> {
        if let Some(group) = self.pick(self.groups(cx, Some(&self.group)).await?)? {
            return Ok(Some(group));
        }
        if self.group.chars().any(|c| !(c.is_ascii_alphanumeric() || " ._-".contains(c))) {
            return self.pick(self.groups(cx, None).await?);
        }
        Ok(None)
    }

    fn pick(&self, groups: Vec<Group>) -> Result<Option<Group>, ApiError> {
        let folded = self.group.to_lowercase();
        let mut near: Vec<Group> = groups.into_iter().filter(|g| g.name.to_lowercase() == folded).collect();
        let exact: Vec<usize> = (0..near.len()).filter(|i| near[*i].name == self.group).collect();
        if let [one] = exact[..] {
            return Ok(Some(near.swap_remove(one)));
        }
        if near.len() > 1 {
            let names: Vec<String> = near.iter().map(|g| format!("{:?} (id {})", brief(&g.name, 80), g.id)).collect();
            let (how, advice) = if exact.is_empty() {
                ("differ only by case from", "Set variableGroupName to the one that is meant.")
            } else {
                ("answer to", "Delete or rename all but one of them in Pipelines > Library, or set variableGroupName to another name.")
            };
            return Err(ApiError::new(
                ErrorKind::Conflict,
                SERVICE,
                format!("several variable groups {how} {:?}: {}; nothing is written", self.group, names.join(", ")),
            )
            .advice(advice));
        }
        Ok(near.pop())
    }

    /// One group by id; `None` when there is no such group (the service answers `null`).
    pub(super) async fn get(&self, cx: &Cx, id: i64) -> Result<Option<Group>, ApiError> {
        let id = id.to_string();
        let call = Call {
            method: Method::GET,
            label: GET,
            doing: Doing::Read,
            resource: Resource::Groups,
            scope: Scope::Project(&self.project),
            tail: &[&id],
            query: Vec::new(),
            body: None,
        };
        match self.client.send(cx, &call).await {
            Ok(answer) => match Group::of(&answer)? {
                Some(group) if group.id.to_string() != id => Err(ApiError::new(
                    ErrorKind::NotTheService,
                    SERVICE,
                    format!("asked for the variable group {id}, another one came ({})", group.id),
                )
                .advice("Check the connection's endpoint and the proxies on the way.")),
                Some(group) => group.sound().map(|()| Some(group)),
                None => Ok(None),
            },
            Err(error) if error.status == Some(404) && error.code.as_deref().is_some_and(|c| c.starts_with("VariableGroupNotFound")) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fails on a group whose variables are not its own, or did not come whole: it is never written.
    pub(super) fn usable(&self, group: &Group) -> Result<(), ApiError> {
        if group.plain() {
            return group.sound();
        }
        let what = if group.kind.eq_ignore_ascii_case("AzureKeyVault") {
            "is linked to an Azure Key Vault".into()
        } else {
            format!("has the type {:?}", brief(&group.kind, 40))
        };
        Err(ApiError::new(ErrorKind::Conflict, SERVICE, format!("the variable group {:?} {what}: it is not written", brief(&group.name, 80)))
            .advice("Set variableGroupName to another name, or rename that group."))
    }

    /// For a removal: settles on the group this sync wrote. When the environment was renamed
    /// since, that group has the old name, and so have the ledger's rows.
    pub async fn follow(&mut self, cx: &Cx) -> Result<(), ApiError> {
        let wanted = self.group.clone();
        let row = self.trace.sync(&self.sync_id);
        self.removal = Some(Removal { group: None, wanted });
        let Some(row) = row else { return Ok(()) };
        if row.name.to_lowercase() != self.group.to_lowercase() {
            let environment_renamed = !self.explicit && !row.explicit && row.environment == self.environment;
            // A group of the wanted name that this installation wrote is meant itself.
            let known = |id: i64| !self.trace.group(id).chain.is_empty();
            if !environment_renamed || self.find(cx).await?.is_some_and(|g| known(g.id)) || self.get(cx, row.group).await?.is_none() {
                return Ok(());
            }
            self.group.clone_from(&row.name);
        }
        if let Some(removal) = &mut self.removal {
            removal.group = Some(row.group);
        }
        Ok(())
    }

    /// The group is not there under its name. When the one this sync wrote still exists under
    /// another, a second one must not be made beside it in silence; a removal takes from it.
    pub(super) async fn elsewhere(&self, cx: &Cx, ask: &Listing<'_>) -> Result<Option<Group>, ApiError> {
        let (id, same_name) = match self.trace.sync(&self.sync_id) {
            Some(row) => {
                let same_name = row.name.to_lowercase() == self.group.to_lowercase();
                let environment_renamed = !self.explicit && !row.explicit && row.environment == self.environment;
                if !same_name && !environment_renamed {
                    return Ok(None);
                }
                (row.group, same_name)
            }
            // The ledger is kept per name, so its rows belong to this one.
            None => match ask.ledger.rows.values().find_map(|r| r.remote_id.as_ref()?.parse().ok()) {
                Some(id) => (id, true),
                None => return Ok(None),
            },
        };
        let Some(group) = self.get(cx, id).await? else { return Ok(None) };
        if self.removal.is_some() {
            return Ok(Some(group));
        }
        let name = brief(&group.name, 80);
        let message = if same_name {
            format!("the variable group this sync wrote (id {}) is now called {name:?}, not {:?}", group.id, self.group)
        } else {
            format!("the environment is now called {:?}, but this sync's secrets are in the variable group {name:?} (id {})", self.group, group.id)
        };
        Err(ApiError::new(ErrorKind::Conflict, SERVICE, message).advice(format!(
            "Rename the group to {:?}, or set variableGroupName to {name:?} to go on with it, or to a new name to begin another group. remove-secrets takes \
             this sync's keys out of {name:?}.",
            self.group
        )))
    }

    /// A group that was made seconds ago may not be listed yet: it is looked for again before
    /// it is believed to be gone.
    pub(super) async fn wait_for_new(&self, cx: &Cx, ask: &Listing<'_>) -> Result<Option<Group>, ApiError> {
        let Some(row) = self.trace.sync(&self.sync_id) else { return Ok(None) };
        let (id, now) = (row.group.to_string(), jiff::Timestamp::now().as_second());
        let new = self.trace.group(row.group).chain.len() == 1
            && ask.ledger.rows.values().any(|r| r.remote_id.as_ref() == Some(&id) && (0..JUST_MADE).contains(&(now - r.written_at.as_second())));
        if !new {
            return Ok(None);
        }
        for pause in [400, 800, 1600] {
            cx.wait("the new variable group is not listed yet", Duration::from_millis(pause)).await?;
            if let Some(group) = self.find(cx).await? {
                return Ok(Some(group));
            }
        }
        Ok(None)
    }
}

fn list_call<'a>(project: &'a str, query: Vec<(&'static str, String)>) -> Call<'a> {
    Call {
        method: Method::GET,
        label: LIST,
        doing: Doing::Read,
        resource: Resource::Groups,
        scope: Scope::Project(project),
        tail: &[],
        query,
        body: None,
    }
}
