//! Which account a connection is in: the part of a place's identity that outlives the access
//! key, so that a rotated key finds its ledger again.
//!
//! A role's ARN tells it. Otherwise STS is asked once (GetCallerIdentity needs no permission)
//! and the answer is remembered by the public part of the credential. Where STS does not
//! answer, that public part stands in for the account, and goes on doing so once a ledger
//! was kept under it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::call::Api;
use super::client::Link;
use super::spec::SERVICE;
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::Memory;

/// A run waits no longer than this for STS.
const PATIENCE: Duration = Duration::from_secs(4);

/// The account of one connection.
pub struct Account {
    link: Arc<Link>,
    memory: Arc<dyn Memory>,
    /// What this process goes by; held while STS is asked, so that one call does.
    known: tokio::sync::Mutex<Option<String>>,
    /// The stand-in is used and not remembered yet.
    unsettled: AtomicBool,
}

impl Account {
    pub fn new(link: Arc<Link>, memory: Arc<dyn Memory>) -> Self {
        Self { link, memory, known: tokio::sync::Mutex::default(), unsettled: AtomicBool::new(false) }
    }

    /// The account's number, or what stands in for it. Fails only when cancelled.
    pub async fn name(&self, cx: &Cx, api: &Api) -> Result<String, ApiError> {
        if let Some(number) = self.of_role() {
            return Ok(number.to_string());
        }
        let mut known = self.known.lock().await;
        if let Some(name) = &*known {
            return Ok(name.clone());
        }
        let name = match self.memory.get(&self.place()) {
            Some(Value::String(number)) => number,
            Some(_) => self.link.account_hint(),
            None => match ask(cx, api).await {
                Ok(number) => {
                    self.memory.put(&self.place(), Value::String(number.clone()));
                    number
                }
                Err(error) if error.kind == ErrorKind::Cancelled => return Err(error),
                Err(error) => {
                    tracing::debug!("the account could not be asked: {error}");
                    self.unsettled.store(true, Ordering::Relaxed);
                    self.link.account_hint()
                }
            },
        };
        *known = Some(name.clone());
        Ok(name)
    }

    /// Secrets Manager answered this run: when STS did not, the stand-in is kept for good, for
    /// a ledger is about to be kept under it.
    pub fn settle(&self) {
        if self.unsettled.swap(false, Ordering::Relaxed) {
            self.memory.put(&self.place(), Value::Bool(false));
        }
    }

    /// The connection's test learned the number.
    pub async fn learn(&self, number: &str) {
        if !is_number(number) || self.memory.get(&self.place()).is_some_and(|v| !v.is_string()) {
            return;
        }
        let mut known = self.known.lock().await;
        self.unsettled.store(false, Ordering::Relaxed);
        self.memory.put(&self.place(), Value::String(number.into()));
        *known = Some(number.into());
    }

    /// `arn:aws:iam::123456789012:role/x`
    fn of_role(&self) -> Option<&str> {
        if self.link.connection.method != "assume-role" {
            return None;
        }
        self.link.connection.text("roleArn")?.split(':').nth(4).filter(|n| is_number(n))
    }

    fn place(&self) -> String {
        format!("{SERVICE}|account|{}|{}", self.link.endpoint().unwrap_or("aws"), self.link.account_hint())
    }
}

async fn ask(cx: &Cx, api: &Api) -> Result<String, ApiError> {
    // Getting credentials has its own time, and may take longer than the question.
    api.ready(cx).await?;
    let late = || ApiError::new(ErrorKind::Transient, SERVICE, "STS did not answer in time");
    let caller = tokio::time::timeout(PATIENCE, api.caller_once(cx)).await.map_err(|_| late())??;
    if is_number(&caller.account) {
        return Ok(caller.account);
    }
    Err(ApiError::new(ErrorKind::NotTheService, SERVICE, "the answer of GetCallerIdentity names no account"))
}

/// An identity in which AWS's own endpoint, spelled out, is the partition that it belongs to.
pub(super) fn without_own_endpoint(identity: &str) -> String {
    let mut parts: Vec<&str> = identity.splitn(4, '|').collect();
    if let [_, host, _, rest] = &mut parts[..] {
        let region = rest.split('|').next().unwrap_or_default();
        let named = url::Url::parse(host).ok().and_then(|u| u.host_str().map(str::to_lowercase)).unwrap_or_default();
        if named.ends_with(".amazonaws.com") || named.ends_with(".amazonaws.com.cn") {
            *host = super::spec::partition(region);
        }
    }
    parts.join("|")
}

fn is_number(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}
