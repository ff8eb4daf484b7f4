//! AWS Secrets Manager: every key a secret of its own (one-to-one), or all keys in one secret
//! as a JSON object (many-to-one).
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`spec`] | words, forms, connection methods, regions |
//! | `config` | the sync's settings, checked offline |
//! | `names`, `tags`, `keyid` | pure rules: names and values, tags, KMS keys |
//! | `client` | credentials, clients, TLS, proxies |
//! | `account` | which account a connection is in |
//! | `call`, `lanes`, `errors` | one call until it is answered for good; pacing; error classes |
//! | `ops` | the API operations with our own types |
//! | `facts` | what entries and ledger rows remember, and what follows from it |
//! | `items`, `apply`, `stops` | one-to-one: listing and comparing; writing; what is not tried again |
//! | `document`, `rewrite`, `object` | many-to-one: listing; the read-modify-write; its JSON |
//! | `pauses` | waiting where AWS needs a moment |
//! | `session`, `shared` | one connection: test, pickers; what its syncs share |
//!
//! The stamp of a secret is the id of its version labelled AWSCURRENT, which listings carry:
//! versions never change, so an unchanged sync of N secrets costs ceil(N / 100) ListSecrets
//! and nothing else (one DescribeSecret in many-to-one). The idempotency token of each write
//! becomes the version's id, so a lost answer is found out by asking again with the same token.
//!
//! Not done here: `kms:DescribeKey` is never called. When the KMS Key option names an alias and
//! AWS shows a key id, the two are taken for the same until a secret written by this tool
//! shows which id belongs to the alias; an alias that is pointed to another key later is then
//! noticed only through such a secret.

mod account;
mod apply;
mod call;
mod client;
mod config;
mod document;
mod errors;
mod facts;
mod items;
mod keyid;
mod lanes;
mod names;
mod object;
mod ops;
mod pauses;
mod rewrite;
mod session;
mod shared;
pub mod spec;
mod stops;
mod tags;

use std::sync::Arc;

use crate::destination::{KeySpace, Provider, Session, Spec};
use crate::http::ApiError;
use crate::model::connection::ResolvedConnection;
use crate::model::sync::SyncOptions;
use crate::model::{Map, Memory, Problems};

use config::{is_many, member};

/// The provider, for the registry.
pub static AWS: Aws = Aws;

/// AWS Secrets Manager.
pub struct Aws;

impl Provider for Aws {
    fn spec(&self) -> &'static Spec {
        &spec::SPEC
    }

    fn check(&self, config: &Map, options: &SyncOptions, problems: &mut Problems) {
        config::check(config, options, problems);
    }

    fn label(&self, config: &Map) -> String {
        let region = member(config, "region");
        if is_many(config) { format!("AWS {region} {}", member(config, "secretName")) } else { format!("AWS {region}") }
    }

    fn keys(&self, config: &Map) -> Box<dyn KeySpace> {
        if is_many(config) { Box::new(names::ObjectMembers) } else { Box::new(names::SecretNames) }
    }

    /// Two many-to-one syncs meet only in one secret; a one-to-one sync may reach every secret
    /// of its region.
    fn overlaps(&self, a: &Map, b: &Map) -> bool {
        let same_region = member(a, "region") == member(b, "region");
        same_region && (!is_many(a) || !is_many(b) || member(a, "secretName") == member(b, "secretName"))
    }

    fn connect(&self, connection: ResolvedConnection, memory: Arc<dyn Memory>) -> Result<Arc<dyn Session>, ApiError> {
        Ok(Arc::new(session::AwsSession::new(connection, memory)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn overlap_is_by_region_and_secret() {
        let map = |v: serde_json::Value| v.as_object().cloned().unwrap_or_default();
        let one = map(json!({"region": "us-east-1", "mappingBehavior": "one-to-one"}));
        let far = map(json!({"region": "eu-west-1", "mappingBehavior": "one-to-one"}));
        let many = map(json!({"region": "us-east-1", "mappingBehavior": "many-to-one", "secretName": "a"}));
        let other = map(json!({"region": "us-east-1", "mappingBehavior": "many-to-one", "secretName": "b"}));
        assert!(AWS.overlaps(&one, &one) && AWS.overlaps(&one, &many) && AWS.overlaps(&many, &many));
        assert!(!AWS.overlaps(&one, &far) && !AWS.overlaps(&many, &other));
        assert_eq!(AWS.label(&many), "AWS us-east-1 a");
    }
}
