//! The API operations this destination uses, each as one function with our own types.
//! What an error means for the plan is decided by the callers.

use aws_sdk_secretsmanager as sm;
use sm::operation::describe_secret::DescribeSecretOutput;
use sm::types::{Filter, FilterNameStringType, SecretListEntry, SortByType, SortOrderType, Tag};

use super::call::{Api, Operation, Pace, operation};
use super::errors::entry;
use super::lanes::Lane;
use super::spec::SERVICE;
use super::tags::{TagDelta, Tags};
use crate::http::{ApiError, Cx, ErrorKind, Pages};
use crate::model::{SecretValue, Time};

/// Ids one BatchGetSecretValue may carry.
pub const BATCH_MAX: usize = 20;
/// The label of the version that readers get.
const CURRENT: &str = "AWSCURRENT";
/// Secrets on one list page.
const PAGE: i32 = 100;

const LIST: Operation = operation("ListSecrets", Lane::List);
const BATCH_GET: Operation = operation("BatchGetSecretValue", Lane::BatchGet);
const GET: Operation = operation("GetSecretValue", Lane::Get);
const DESCRIBE: Operation = operation("DescribeSecret", Lane::Describe);
const CREATE: Operation = operation("CreateSecret", Lane::Create);
const PUT: Operation = operation("PutSecretValue", Lane::Put);
const UPDATE: Operation = operation("UpdateSecret", Lane::Put);
const TAG: Operation = operation("TagResource", Lane::Tag);
const UNTAG: Operation = operation("UntagResource", Lane::Tag);
const DELETE: Operation = operation("DeleteSecret", Lane::Delete);
const RESTORE: Operation = operation("RestoreSecret", Lane::Restore);
const WHO: Operation = operation("GetCallerIdentity", Lane::Sts);

/// What ListSecrets and DescribeSecret tell of one secret.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listed {
    pub arn: String,
    pub name: String,
    /// The id of the version labelled AWSCURRENT; `None` when the secret has no value.
    pub current: Option<String>,
    pub key: Option<String>,
    pub tags: Tags,
    pub deleted: bool,
    pub owner: Option<String>,
    /// Set on managed external secrets.
    pub kind: Option<String>,
    pub primary_region: Option<String>,
    pub rotated: bool,
    pub changed: Option<Time>,
    pub created: Option<Time>,
}

/// One value read.
pub struct Got {
    pub version: String,
    pub value: Content,
}

/// What a version holds.
pub enum Content {
    Text(SecretValue),
    Binary,
}

/// One page of a listing.
pub struct Page {
    pub secrets: Vec<Listed>,
    pub next: Option<String>,
}

/// How a deletion is done.
#[derive(Debug, Clone, Copy)]
pub enum Removal {
    /// Days until it is final.
    Window(i64),
    Force,
}

/// Who the credentials belong to.
pub struct Caller {
    pub account: String,
    pub arn: String,
}

fn time(at: Option<&aws_smithy_types::DateTime>) -> Option<Time> {
    at.and_then(|t| Time::from_millisecond(t.to_millis().ok()?).ok())
}

fn tags(list: &[Tag]) -> Tags {
    list.iter().filter_map(|t| Some((t.key()?.to_string(), t.value().unwrap_or_default().to_string()))).collect()
}

fn current(stages: Option<&std::collections::HashMap<String, Vec<String>>>) -> Option<&String> {
    stages?.iter().find(|(_, labels)| labels.iter().any(|l| l == CURRENT)).map(|(id, _)| id)
}

/// A secret of another AWS service carries its owner as field, and as this reserved tag.
const OWNER_TAG: &str = "aws:secretsmanager:owningService";

/// The two answers that describe a secret have the same members under types of their own.
macro_rules! listed {
    ($answer:ty, $versions:ident) => {
        impl From<&$answer> for Listed {
            fn from(e: &$answer) -> Self {
                let tags = tags(e.tags());
                Self {
                    arn: e.arn().unwrap_or_default().to_string(),
                    name: e.name().unwrap_or_default().to_string(),
                    current: current(e.$versions()).cloned(),
                    key: e.kms_key_id().filter(|k| !k.is_empty()).map(str::to_string),
                    owner: e.owning_service().map(str::to_string).or_else(|| tags.get(OWNER_TAG).cloned()),
                    tags,
                    deleted: e.deleted_date().is_some(),
                    kind: e.r#type().filter(|t| !t.is_empty()).map(str::to_string),
                    primary_region: e.primary_region().map(str::to_string),
                    rotated: e.rotation_enabled().unwrap_or(false),
                    changed: time(e.last_changed_date()),
                    created: time(e.created_date()),
                }
            }
        }
    };
}

listed!(SecretListEntry, secret_versions_to_stages);
listed!(DescribeSecretOutput, version_ids_to_stages);

/// An answer without what every answer of AWS has. The SDK leaves a missing member empty: taken
/// as it is, an empty list would have everything created anew.
fn lacking(about: &str, what: &str) -> ApiError {
    ApiError::new(ErrorKind::NotTheService, SERVICE, format!("{about}: not an answer of AWS Secrets Manager: it lacks {what}"))
        .advice("Check the endpoint and the proxy settings of the connection: something else answers there.")
}

/// What a version holds, for an operation that answers about one.
fn got(about: &str, version: Option<&str>, text: Option<&str>, binary: bool) -> Result<Got, ApiError> {
    let version = version.filter(|v| !v.is_empty()).ok_or_else(|| lacking(about, "the version's id"))?;
    // A version without a value cannot be read: AWS answers ResourceNotFoundException.
    let value = match (text, binary) {
        (Some(text), _) => Content::Text(SecretValue::new(text)),
        (None, true) => Content::Binary,
        (None, false) => return Err(lacking(about, "a value")),
    };
    Ok(Got { version: version.to_string(), value })
}

/// A secret that the answer names.
fn named(about: &str, listed: Listed) -> Result<Listed, ApiError> {
    if listed.arn.is_empty() || listed.name.is_empty() { Err(lacking(about, "a secret's ARN or name")) } else { Ok(listed) }
}

fn sdk_tags(tags: &Tags) -> Option<Vec<Tag>> {
    (!tags.is_empty()).then(|| tags.iter().map(|(k, v)| Tag::builder().key(k).value(v).build()).collect())
}

impl Api {
    /// One page, the ones scheduled for deletion included, sorted by name. `prefix` narrows it
    /// at the server (a case-sensitive prefix, which the caller must check again).
    pub async fn list_page(&self, cx: &Cx, prefix: &str, next: Option<&str>, size: Option<i32>) -> Result<Page, ApiError> {
        let filter = (!prefix.is_empty()).then(|| vec![Filter::builder().key(FilterNameStringType::Name).values(prefix).build()]);
        let answer = self
            .call(cx, LIST, "", |c, probe| {
                c.sm.list_secrets()
                    .include_planned_deletion(true)
                    .max_results(size.unwrap_or(PAGE))
                    .set_next_token(next.map(str::to_string))
                    .set_filters(filter.clone())
                    .sort_by(SortByType::Name)
                    .sort_order(SortOrderType::Asc)
                    .customize()
                    .interceptor(probe)
                    .send()
            })
            .await?;
        let list = answer.secret_list.as_ref().ok_or_else(|| lacking(LIST.name, "the list of secrets"))?;
        let secrets = list.iter().map(|e| named(LIST.name, Listed::from(e))).collect::<Result<_, _>>()?;
        Ok(Page { secrets, next: answer.next_token().map(str::to_string) })
    }

    /// Values of up to [`BATCH_MAX`] secrets: per id what was read or why not. Ids that the
    /// answer passes over in silence are missing from the result.
    pub async fn batch_get(&self, cx: &Cx, arns: &[String]) -> Result<Vec<(String, Result<Got, ApiError>)>, ApiError> {
        let mut out = Vec::with_capacity(arns.len());
        let mut next: Option<String> = None;
        let mut pages = Pages::of(super::spec::SERVICE, format!("{}: the list", BATCH_GET.name));
        loop {
            let before = out.len();
            let answer = self
                .call(cx, BATCH_GET, "", |c, probe| {
                    c.sm.batch_get_secret_value()
                        .set_secret_id_list(Some(arns.to_vec()))
                        .set_next_token(next.clone())
                        .customize()
                        .interceptor(probe)
                        .send()
                })
                .await?;
            // Secrets that the answer passes over are read singly; one without any is none.
            if answer.secret_values.is_none() && answer.errors.is_none() {
                return Err(lacking(BATCH_GET.name, "the values"));
            }
            for value in answer.secret_values() {
                let arn = value.arn().ok_or_else(|| lacking(BATCH_GET.name, "a secret's ARN"))?.to_string();
                let about = format!("{} {arn}", BATCH_GET.name);
                out.push((arn, got(&about, value.version_id(), value.secret_string(), value.secret_binary().is_some())));
            }
            for refused in answer.errors() {
                let id = refused.secret_id().unwrap_or_default().to_string();
                let text = cx.redact(&crate::model::text::brief(refused.message().unwrap_or("no message"), 300));
                out.push((id.clone(), Err(entry(&format!("{} {id}", BATCH_GET.name), refused.error_code().unwrap_or_default(), &text))));
            }
            match answer.next_token() {
                Some(token) if next.as_deref() != Some(token) => {
                    pages.turn(token, out[before..].iter().map(|(id, _)| id.clone()))?;
                    next = Some(token.to_string());
                }
                _ => return Ok(out),
            }
        }
    }

    /// One value.
    pub async fn get(&self, cx: &Cx, id: &str, about: &str) -> Result<Got, ApiError> {
        let answer = self.call(cx, GET, about, |c, probe| c.sm.get_secret_value().secret_id(id).customize().interceptor(probe).send()).await?;
        got(&format!("{} {about}", GET.name), answer.version_id(), answer.secret_string(), answer.secret_binary().is_some())
    }

    /// The secret as it is now (more recent than a listing); `None` when there is none.
    pub async fn describe(&self, cx: &Cx, id: &str, about: &str) -> Result<Option<Listed>, ApiError> {
        match self.call(cx, DESCRIBE, about, |c, probe| c.sm.describe_secret().secret_id(id).customize().interceptor(probe).send()).await {
            Ok(answer) => named(&format!("{} {about}", DESCRIBE.name), Listed::from(&answer)).map(Some),
            Err(e) if e.kind == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Creates a secret with its key and tags; returns ARN and version id.
    pub async fn create(
        &self,
        cx: &Cx,
        name: &str,
        token: &str,
        value: &SecretValue,
        key: Option<&str>,
        tags: &Tags,
    ) -> Result<(String, String), ApiError> {
        let answer = self
            .call(cx, CREATE, name, |c, probe| {
                c.sm.create_secret()
                    .name(name)
                    .client_request_token(token)
                    .secret_string(value.expose())
                    .set_kms_key_id(key.map(str::to_string))
                    .set_tags(sdk_tags(tags))
                    .customize()
                    .interceptor(probe)
                    .send()
            })
            .await?;
        let arn = answer.arn().ok_or_else(|| lacking("CreateSecret", "the ARN"))?;
        Ok((arn.to_string(), answer.version_id().unwrap_or(token).to_string()))
    }

    /// Writes a value. An error of kind `Conflict` with code `Overtaken` says that the version
    /// was stored and another writer's version is current all the same.
    pub async fn put(&self, cx: &Cx, id: &str, about: &str, token: &str, value: &SecretValue, pace: Pace) -> Result<String, ApiError> {
        let answer = self
            .call(cx, PUT.paced(pace), about, |c, probe| {
                c.sm.put_secret_value().secret_id(id).client_request_token(token).secret_string(value.expose()).customize().interceptor(probe).send()
            })
            .await?;
        if answer.arn().is_none() || answer.version_stages.is_none() {
            return Err(lacking(&format!("{} {about}", PUT.name), "the version it made"));
        }
        if !answer.version_stages().iter().any(|s| s == CURRENT) {
            return Err(overtaken(about));
        }
        Ok(answer.version_id().unwrap_or(token).to_string())
    }

    /// Changes the key, and the value when one is given (a version is made only then).
    pub async fn update(
        &self,
        cx: &Cx,
        id: &str,
        about: &str,
        key: &str,
        write: Option<(&str, &SecretValue)>,
        pace: Pace,
    ) -> Result<Option<String>, ApiError> {
        let answer = self
            .call(cx, UPDATE.paced(pace), about, |c, probe| {
                let mut call = c.sm.update_secret().secret_id(id).kms_key_id(key);
                if let Some((token, value)) = write {
                    call = call.client_request_token(token).secret_string(value.expose());
                }
                call.customize().interceptor(probe).send()
            })
            .await?;
        answer.arn().ok_or_else(|| lacking(&format!("{} {about}", UPDATE.name), "the ARN"))?;
        Ok(answer.version_id().map(str::to_string))
    }

    /// Adds tags and overwrites their values.
    async fn tag(&self, cx: &Cx, id: &str, about: &str, tags: &Tags) -> Result<(), ApiError> {
        self.call(cx, TAG, about, |c, probe| c.sm.tag_resource().secret_id(id).set_tags(sdk_tags(tags)).customize().interceptor(probe).send())
            .await
            .map(drop)
    }

    /// Removes tags by key.
    async fn untag(&self, cx: &Cx, id: &str, about: &str, keys: &[String]) -> Result<(), ApiError> {
        self.call(cx, UNTAG, about, |c, probe| {
            c.sm.untag_resource().secret_id(id).set_tag_keys(Some(keys.to_vec())).customize().interceptor(probe).send()
        })
        .await
        .map(drop)
    }

    /// Writes a tag difference: additions first, unless that would pass the limit.
    pub async fn retag(&self, cx: &Cx, id: &str, about: &str, present: &Tags, delta: &TagDelta) -> Result<(), ApiError> {
        let remove: Vec<String> = delta.remove.iter().cloned().collect();
        let first = delta.remove_first(present);
        if first && !remove.is_empty() {
            self.untag(cx, id, about, &remove).await?;
        }
        if !delta.set.is_empty() {
            self.tag(cx, id, about, &delta.set).await?;
        }
        if !first && !remove.is_empty() {
            self.untag(cx, id, about, &remove).await?;
        }
        Ok(())
    }

    /// Deletes or schedules the deletion; returns the day it becomes final.
    pub async fn delete(&self, cx: &Cx, id: &str, about: &str, removal: Removal, pace: Pace) -> Result<Option<Time>, ApiError> {
        let answer = self
            .call(cx, DELETE.paced(pace), about, |c, probe| {
                let call = c.sm.delete_secret().secret_id(id);
                match removal {
                    Removal::Window(days) => call.recovery_window_in_days(days),
                    Removal::Force => call.force_delete_without_recovery(true),
                }
                .customize()
                .interceptor(probe)
                .send()
            })
            .await?;
        answer.arn().ok_or_else(|| lacking(&format!("{} {about}", DELETE.name), "the ARN"))?;
        Ok(time(answer.deletion_date()))
    }

    /// Brings a secret back from its recovery window.
    pub async fn restore(&self, cx: &Cx, id: &str, about: &str) -> Result<String, ApiError> {
        let answer = self.call(cx, RESTORE, about, |c, probe| c.sm.restore_secret().secret_id(id).customize().interceptor(probe).send()).await?;
        Ok(answer.arn().ok_or_else(|| lacking(&format!("{} {about}", RESTORE.name), "the ARN"))?.to_string())
    }

    /// Who we are; needs no permission.
    pub async fn caller(&self, cx: &Cx) -> Result<Caller, ApiError> {
        self.who(cx, WHO).await
    }

    /// [`Self::caller`], asked once: no answer is an answer too.
    pub async fn caller_once(&self, cx: &Cx) -> Result<Caller, ApiError> {
        self.who(cx, WHO.once()).await
    }

    async fn who(&self, cx: &Cx, op: Operation) -> Result<Caller, ApiError> {
        let answer = self.call(cx, op, "", |c, probe| c.sts.get_caller_identity().customize().interceptor(probe).send()).await?;
        let account = answer
            .account()
            .ok_or_else(|| ApiError::new(ErrorKind::NotTheService, SERVICE, "GetCallerIdentity: not an answer of STS: it names no account"))?;
        Ok(Caller { account: account.to_string(), arn: answer.arn().unwrap_or_default().to_string() })
    }
}

/// Our write was stored, and another writer's version is the current one.
pub fn overtaken(about: &str) -> ApiError {
    ApiError::new(
        ErrorKind::Conflict,
        SERVICE,
        format!("{about}: another program wrote this secret at the same moment, and its version is the current one"),
    )
    .code("Overtaken")
    .advice("Run again to see the difference; if it returns, two programs manage this secret.")
}
