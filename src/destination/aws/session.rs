//! One AWS connection: its test, its pickers, and what its syncs share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::account::Account;
use super::call::Api;
use super::client::Link;
use super::config::{Config, is_many, member};
use super::document::Object;
use super::items::Items;
use super::shared::Shared;
use super::spec::{REGIONS, SERVICE, is_region, partition};
use crate::destination::{Choice, Destination, Session, Target, TestReport};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::connection::ResolvedConnection;
use crate::model::{Map, Memory};

/// Asked for when no sync names a region yet.
const TEST_REGION: &str = "us-east-1";
/// One connection.
pub struct AwsSession {
    link: Arc<Link>,
    memory: Arc<dyn Memory>,
    account: Arc<Account>,
    regions: Mutex<HashMap<String, Arc<Api>>>,
    /// By place.
    shared: Mutex<HashMap<String, Arc<Shared>>>,
}

impl AwsSession {
    pub fn new(connection: ResolvedConnection, memory: Arc<dyn Memory>) -> Result<Self, ApiError> {
        let link = Arc::new(Link::new(connection)?);
        let account = Arc::new(Account::new(link.clone(), memory.clone()));
        Ok(Self { link, memory, account, regions: Mutex::default(), shared: Mutex::default() })
    }

    /// Account and region of the place.
    async fn place(&self, cx: &Cx, api: &Api) -> Result<String, ApiError> {
        let region = &api.region;
        let host = self.link.endpoint().map(|e| e.trim_end_matches('/')).unwrap_or_else(|| partition(region));
        Ok(format!("{SERVICE}|{host}|{}|{region}", self.account.name(cx, api).await?))
    }

    fn region(&self, region: &str) -> Arc<Api> {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.entry(region.to_string()).or_insert_with(|| Arc::new(Api::new(self.link.clone(), region))).clone()
    }

    fn shared(&self, place: &str) -> Arc<Shared> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Shared::new(self.account.clone(), self.memory.clone(), place.to_string()));
        shared.entry(place.to_string()).or_insert_with(new).clone()
    }
}

#[async_trait]
impl Session for AwsSession {
    async fn test(&self, cx: &Cx, config: Option<&Map>) -> Result<TestReport, ApiError> {
        let region = config.map(|c| member(c, "region")).filter(|r| is_region(r)).unwrap_or(TEST_REGION);
        self.link.check_region(region)?;
        let api = self.region(region);
        let mut report = TestReport::default();
        // An endpoint policy may hide STS while Secrets Manager works: only an error of the
        // credentials themselves ends the test here.
        let stranger = match api.caller(cx).await {
            Ok(caller) => {
                self.account.learn(&caller.account).await;
                report.identity = format!("account {}, as {}", caller.account, caller.arn);
                None
            }
            Err(e) if matches!(e.kind, ErrorKind::Auth | ErrorKind::Cancelled) => return Err(e),
            Err(e) => Some(e),
        };
        let name = config.filter(|c| is_many(c)).map(|c| member(c, "secretName")).filter(|n| !n.is_empty());
        let proved = match name {
            Some(name) => api.describe(cx, name, name).await.map(|found| {
                let state = if found.is_some() { "exists" } else { "does not exist yet" };
                format!("DescribeSecret is allowed in {region}; the secret {name} {state}")
            }),
            None => api.list_page(cx, "", None, Some(1)).await.map(|_| format!("ListSecrets is allowed in {region}")),
        };
        match (proved, stranger) {
            (Ok(note), stranger) => {
                report.notes.push(note);
                report.notes.push("rights to write are not proved by this test".into());
                if let Some(e) = stranger {
                    report.identity = self.link.account_hint();
                    report.notes.push(format!("who this is could not be asked: {}", e.message));
                }
            }
            // The credentials are good; the right may be narrower than this test needs.
            (Err(e), None) if e.kind == ErrorKind::Permission && config.is_none() => {
                report.notes.push(format!("ListSecrets in {region} is denied: one-to-one syncs need it ({})", e.message));
            }
            (Err(e), _) => return Err(e),
        }
        report.notes.extend(api.clock_warning());
        Ok(report)
    }

    async fn choices(&self, _cx: &Cx, field: &str, _filled: &Map) -> Result<Vec<Choice>, ApiError> {
        let regions = if field == "region" { REGIONS } else { &[] };
        Ok(regions.iter().map(|r| Choice { value: r.to_string(), label: r.to_string(), detail: None }).collect())
    }

    async fn open(&self, cx: &Cx, target: &Target) -> Result<Arc<dyn Destination>, ApiError> {
        let config = Config::new(target)?;
        self.link.check_region(&config.region)?;
        let api = self.region(&config.region);
        let place = self.place(cx, &api).await?;
        api.pace_as(&place);
        let shared = self.shared(&place);
        Ok(match &config.secret_name {
            None => Arc::new(Items::new(api, shared, config, place)),
            Some(name) => {
                let identity = format!("{place}|{name}");
                let name = name.clone();
                Arc::new(Object::new(api, shared, config, name, identity))
            }
        })
    }

    fn budget(&self) -> Option<String> {
        let regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let slowed: Vec<String> = regions.iter().filter_map(|(r, api)| Some(format!("{r}: {}", api.lanes().slowed()?))).collect();
        (!slowed.is_empty()).then(|| slowed.join("; "))
    }
}
