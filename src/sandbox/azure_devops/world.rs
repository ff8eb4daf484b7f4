//! The data behind the service.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::State;

/// The product that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// Azure DevOps Services: 7.1 released, 7.2 preview.
    Services,
    /// Azure DevOps Server 2022: 7.0.
    Server2022,
    /// Azure DevOps Server 2020: 6.0, variable groups still a preview.
    Server2020,
    /// Azure DevOps Server 2019: 5.1; newer versions get a bare 404, writes are in the project.
    Server2019,
}

impl Server {
    pub(super) fn ceiling(self) -> (u16, u16) {
        match self {
            Self::Services => (7, 2),
            Self::Server2022 => (7, 0),
            Self::Server2020 => (6, 0),
            Self::Server2019 => (5, 1),
        }
    }

    /// The version of a call that names none.
    pub(super) fn usual(self) -> (u16, u16) {
        if self == Self::Services { (7, 1) } else { self.ceiling() }
    }
}

/// How a credential that is not accepted is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignIn {
    /// 401 with `X-TFS-ServiceError` where there is something to say.
    Unauthorized,
    /// 302 to the sign-in host.
    Redirect,
    /// 203 with the page.
    Page203,
    /// 200 with the page.
    Page200,
}

/// What an identity may do in the Library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Administrator,
    /// Creates groups and sees its own.
    Creator,
    Reader,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes {
    pub read_groups: bool,
    pub manage_groups: bool,
    pub read_projects: bool,
}

/// Who calls.
#[derive(Debug, Clone)]
pub struct Identity {
    pub id: String,
    pub name: String,
    pub role: Role,
    pub scopes: Scopes,
    pub expired: bool,
    /// The organisation whose token it is, where that is another one than this.
    pub organisation: Option<String>,
}

impl Identity {
    /// An identity with every right.
    pub fn administrator(name: &str) -> Self {
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            name: name.to_string(),
            role: Role::Administrator,
            scopes: Scopes { read_groups: true, manage_groups: true, read_projects: true },
            expired: false,
            organisation: None,
        }
    }

    /// The same with another role.
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }
}

/// One variable with its real value.
#[derive(Clone, Default, PartialEq)]
pub struct Variable {
    pub value: Option<String>,
    pub secret: bool,
    pub read_only: bool,
    /// Members beyond the three documented ones.
    pub rest: Map<String, Value>,
}

impl std::fmt::Debug for Variable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Variable").field("secret", &self.secret).field("read_only", &self.read_only).finish_non_exhaustive()
    }
}

impl Variable {
    pub fn plain(value: &str) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    pub fn secret(value: &str) -> Self {
        Self { value: Some(value.into()), secret: true, ..Self::default() }
    }

    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    pub fn with(mut self, member: &str, value: Value) -> Self {
        self.rest.insert(member.into(), value);
        self
    }

    /// As it is answered: the value hidden when secret, flags only when true.
    pub(super) fn shown(&self, version: (u16, u16)) -> Value {
        let mut out = self.rest.clone();
        out.insert("value".into(), if self.secret { Value::Null } else { json!(self.value) });
        if self.secret {
            out.insert("isSecret".into(), true.into());
        }
        if self.read_only && version >= (6, 0) {
            out.insert("isReadOnly".into(), true.into());
        }
        Value::Object(out)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Project {
    pub id: String,
    pub name: String,
}

#[derive(Debug, Clone)]
pub(super) struct Group {
    pub id: i64,
    pub name: String,
    pub description: Option<String>,
    pub kind: String,
    pub provider_data: Option<Value>,
    pub variables: BTreeMap<String, Variable>,
    /// Ids; the first is the owner.
    pub projects: Vec<String>,
    pub created_by: String,
    pub created_on: String,
    pub modified_by: String,
    pub modified_on: String,
    /// Identities that made it.
    pub administrators: HashSet<String>,
    pub hidden: bool,
    /// Reads that do not see it yet.
    pub lag: u32,
}

type Act = Box<dyn FnOnce(&State) + Send>;

pub(super) struct World {
    pub organisation: String,
    pub prefix: Vec<String>,
    pub server: Server,
    pub projects: Vec<Project>,
    pub groups: BTreeMap<i64, Group>,
    pub tokens: HashMap<String, Identity>,
    pub bearers: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    pub sign_in: SignIn,
    pub tenant: String,
    pub page: usize,
    pub create_lag: u32,
    pub wait_hint: (u32, u64),
    pub budget: Option<(u32, u32, i64)>,
    pub refused: HashSet<String>,
    pub last_body: Option<Value>,
    pub before_write: Vec<Act>,
    pub after_read: Vec<Act>,
    next_id: i64,
    last_tick: i64,
}

impl World {
    pub fn new(organisation: &str) -> Self {
        Self {
            organisation: organisation.to_string(),
            prefix: Vec::new(),
            server: Server::Services,
            projects: Vec::new(),
            groups: BTreeMap::new(),
            tokens: HashMap::new(),
            bearers: Arc::new(|_| false),
            sign_in: SignIn::Unauthorized,
            tenant: "7f3c0d9e-0000-4000-8000-000000000001".into(),
            page: 100,
            create_lag: 0,
            wait_hint: (0, 0),
            budget: None,
            refused: HashSet::new(),
            last_body: None,
            before_write: Vec::new(),
            after_read: Vec::new(),
            next_id: 1,
            last_tick: 0,
        }
    }

    /// The moment in steps of 1/300 s, as the service's database keeps it; never the same twice.
    pub fn tick(&mut self) -> String {
        let now = jiff::Timestamp::now().as_millisecond() * 3 / 10;
        self.last_tick = now.max(self.last_tick + 1);
        stamp(self.last_tick)
    }

    pub fn project(&self, id_or_name: &str) -> Option<&Project> {
        let wanted = id_or_name.to_lowercase();
        self.projects.iter().find(|p| p.id == wanted || p.name.to_lowercase() == wanted)
    }

    pub fn next_id(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id - 1
    }

    pub fn insert(&mut self, project: &str, name: &str, variables: BTreeMap<String, Variable>) -> i64 {
        let (id, now) = (self.next_id(), self.tick());
        let group = Group {
            id,
            name: name.to_string(),
            description: None,
            kind: "Vsts".into(),
            provider_data: None,
            variables,
            projects: vec![project.to_string()],
            created_by: "somebody else".into(),
            created_on: now.clone(),
            modified_by: "somebody else".into(),
            modified_on: now,
            administrators: HashSet::new(),
            hidden: false,
            lag: 0,
        };
        self.groups.insert(id, group);
        id
    }
}

/// Seconds and up to seven digits of fraction, without trailing zeros.
fn stamp(ticks: i64) -> String {
    let second = jiff::Timestamp::from_second(ticks.div_euclid(300)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let fraction = (ticks.rem_euclid(300) * 10_000_000 + 150) / 300;
    let base = second.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    let digits = format!("{fraction:07}");
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() { format!("{base}Z") } else { format!("{base}.{digits}Z") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_move_in_steps_of_a_three_hundredth() {
        assert_eq!(stamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(stamp(5), "1970-01-01T00:00:00.0166667Z");
        assert_eq!(stamp(24), "1970-01-01T00:00:00.08Z");
        assert_eq!(stamp(300 + 208), "1970-01-01T00:00:01.6933333Z");
        let mut world = World::new("o");
        assert_ne!(world.tick(), world.tick());
    }
}
