//! Logins, tokens and who may do what.

use std::time::{Duration, Instant};

use axum::response::Response;
use serde_json::{Value, json};

use super::db::{ServiceToken, tidy};
use super::route::{Call, Refused, Why, json_answer};
use super::{Generation, Right, State};

/// Wrong secrets before the lock.
const FAILURES: u32 = 3;
/// How long the lock holds.
const LOCKED: Duration = Duration::from_secs(300);
/// After this long without a failure the count starts anew.
const RESET: Duration = Duration::from_secs(30);

/// Who is calling.
pub(super) enum Actor {
    Identity(String),
    Service(ServiceToken),
}

impl Actor {
    pub fn name(&self) -> String {
        match self {
            Self::Identity(id) => id.clone(),
            Self::Service(token) => token.id.clone(),
        }
    }
}

impl State {
    pub(super) fn login(&self, call: &Call) -> Result<Response, Refused> {
        let (client_id, secret) = (call.text("clientId")?.to_string(), call.text("clientSecret")?.to_string());
        let mut db = self.db();
        if let Some(slug) = call.body.get("organizationSlug").and_then(Value::as_str)
            && slug != "demo"
            && slug != db.organization
        {
            return Err(Refused::new(Why::NotFound, format!("Organization with slug {slug} not found")));
        }
        let locked = || Refused::new(Why::Unauthorized, "This identity auth method is temporarily locked, please try again later");
        if db.switches.locked {
            return Err(locked());
        }
        let wrong = || Refused::new(Why::Unauthorized, "Invalid credentials");
        let identity = db.identities.iter_mut().find(|i| i.client_id == client_id).ok_or_else(wrong)?;
        if identity.locked_until.is_some_and(|until| until > Instant::now()) {
            return Err(locked());
        }
        if identity.client_secret != secret {
            if identity.last_failure.is_none_or(|at| at.elapsed() > RESET) {
                identity.failures = 0;
            }
            identity.failures += 1;
            identity.last_failure = Some(Instant::now());
            if identity.failures >= FAILURES {
                identity.locked_until = Some(Instant::now() + LOCKED);
            }
            return Err(wrong());
        }
        match &mut identity.secret_uses {
            Some(0) => return Err(Refused::new(Why::Unauthorized, "Access denied due to client secret usage limit reached")),
            Some(left) => *left -= 1,
            None => {}
        }
        let identity = identity.clone();
        let token = db.issue(&identity);
        Ok(json_answer(200, &json!({"accessToken": token, "expiresIn": identity.ttl, "accessTokenMaxTTL": identity.max_ttl, "tokenType": "Bearer"})))
    }

    /// Renewing past the ceiling kills the token.
    pub(super) fn renew(&self, call: &Call) -> Result<Response, Refused> {
        let token = call.text("accessToken")?.to_string();
        let mut db = self.db();
        let unknown = || Refused::new(Why::Unauthorized, "No identity access token found");
        let row = db.tokens.get(&token).ok_or_else(unknown)?;
        let identity = db.identities.iter().find(|i| i.id == row.identity).cloned().ok_or_else(unknown)?;
        let renewed = (identity.ttl > 0).then(|| Instant::now() + Duration::from_secs(identity.ttl));
        if row.dies_at.is_some_and(|at| at <= Instant::now()) || row.ceiling.is_some_and(|c| renewed.is_none_or(|r| r > c)) {
            db.tokens.remove(&token);
            return Err(Refused::new(Why::Unauthorized, "Failed to renew MI access token due to Max TTL expiration"));
        }
        if let Some(row) = db.tokens.get_mut(&token) {
            row.dies_at = renewed;
        }
        Ok(json_answer(200, &json!({"accessToken": token, "expiresIn": identity.ttl, "accessTokenMaxTTL": identity.max_ttl, "tokenType": "Bearer"})))
    }

    pub(super) fn revoke(&self, call: &Call) -> Result<Response, Refused> {
        let token = call.text("accessToken")?;
        match self.db().tokens.remove(token) {
            Some(_) => Ok(json_answer(200, &json!({"message": "Successfully revoked access token"}))),
            None => Err(Refused::new(Why::NotFound, "No identity access token found")),
        }
    }

    /// Who calls; counts a use of the token.
    pub(super) fn actor(&self, call: &Call) -> Result<Actor, Refused> {
        let mut db = self.db();
        let old = db.switches.generation == Generation::Y2024;
        let bearer = call.headers.get("authorization").and_then(|h| h.to_str().ok()).and_then(|h| h.strip_prefix("Bearer "));
        let Some(bearer) = bearer else { return Err(Refused::new(Why::Unauthorized, "Token missing")) };
        if bearer.starts_with("st.") {
            return db
                .service_tokens
                .get(bearer)
                .cloned()
                .map(Actor::Service)
                .ok_or_else(|| Refused::new(Why::Unauthorized, "Failed to authenticate"));
        }
        if bearer.split('.').count() != 3 {
            return Err(Refused::new(Why::Token, if old { "invalid token" } else { "jwt malformed" }));
        }
        let Some(token) = db.tokens.get_mut(bearer) else {
            return Err(Refused::new(Why::Unauthorized, "No identity access token found"));
        };
        if token.dies_at.is_some_and(|at| at <= Instant::now()) {
            let why = if old { Why::Unauthorized } else { Why::Token };
            return Err(Refused::new(why, "Your token has expired. Please re-authenticate."));
        }
        match &mut token.uses {
            Some(0) => {
                db.tokens.remove(bearer);
                return Err(Refused::new(Why::BadRequest, "Unable to renew because access token number of uses limit reached"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(Actor::Identity(token.identity.clone()))
    }

    /// An identity with a right; service tokens are refused.
    pub(super) fn identity(&self, call: &Call) -> Result<String, Refused> {
        match self.actor(call)? {
            Actor::Identity(id) => Ok(id),
            Actor::Service(_) => Err(Refused::new(Why::Forbidden, "You are not allowed to access this resource")),
        }
    }

    pub(super) fn allow(&self, right: Right, action: &str, subject: &str) -> Result<(), Refused> {
        if self.db().switches.denied.contains(&right) { Err(Refused::denied(action, subject)) } else { Ok(()) }
    }

    pub(super) fn describe_service_token(&self, call: &Call) -> Result<Response, Refused> {
        let Actor::Service(token) = self.actor(call)? else {
            return Err(Refused::new(Why::Forbidden, "You are not allowed to access this resource"));
        };
        let scopes: Vec<Value> = token.scopes.iter().map(|(e, p)| json!({"environment": e, "secretPath": p})).collect();
        Ok(json_answer(
            200,
            &json!({"id": token.id, "_id": token.id, "name": "sandbox token", "workspace": token.project, "projectId": token.project,
                "scopes": scopes, "permissions": ["read", "write"], "expiresAt": null}),
        ))
    }

    pub(super) fn identity_details(&self, call: &Call) -> Result<Response, Refused> {
        self.identity(call)?;
        let id = self.organization_id();
        Ok(json_answer(200, &json!({"identityDetails": {"organization": {"id": id, "name": "Demo Organization", "slug": "demo"}}})))
    }

    /// The place that is really served: a service token with one plain scope overrides what is asked.
    pub(super) fn place(
        &self,
        actor: &Actor,
        project: Option<&str>,
        environment: Option<&str>,
        path: &str,
    ) -> Result<(String, String, String), Refused> {
        let missing = || Refused::new(Why::BadRequest, "Missing project id or environment");
        if let Actor::Service(token) = actor {
            let plain = |path: &str| !path.contains(['*', '?', '[', '{']);
            if let [(environment, path)] = token.scopes.as_slice()
                && plain(path)
            {
                return Ok((token.project.clone(), environment.clone(), tidy(path)));
            }
            let (project, environment) = (project.unwrap_or(&token.project), environment.ok_or_else(missing)?);
            let path = tidy(path);
            let allowed = token.scopes.iter().any(|(e, p)| {
                e == environment && (tidy(p) == path || (p.ends_with("/**") && path.starts_with(p.trim_end_matches("**").trim_end_matches('/'))))
            });
            if !allowed || project != token.project {
                return Err(Refused::denied("read", "secrets"));
            }
            return Ok((project.to_string(), environment.to_string(), path));
        }
        let (Some(project), Some(environment)) = (project, environment) else { return Err(missing()) };
        Ok((project.to_string(), environment.to_string(), tidy(path)))
    }
}
