//! The embedded destinations of the demo, one module each; the list below is the only one.

mod aws;
mod azure_devops;
mod azure_key_vault;
mod bitbucket;
mod oci;

use std::time::Duration;

use serde_json::Value;

use super::values::Values;
use super::{Ports, Stall};
use crate::sandbox::host::Effect;

/// An answer that asks to come again later.
fn busy(wait: Duration, body: &Value) -> Effect {
    Effect::Answer {
        status: 429,
        headers: vec![("content-type".into(), "application/json".into()), ("retry-after".into(), wait.as_secs().max(1).to_string())],
        body: body.to_string(),
    }
}

/// Starts and fills every destination, in the order the wizard offers them.
pub(super) async fn open(ports: &mut Ports, values: &mut Values) -> std::io::Result<Vec<Box<dyn Stall>>> {
    Ok(vec![
        Box::new(aws::open(ports, values).await?),
        Box::new(azure_key_vault::open(ports, values).await?),
        Box::new(azure_devops::open(ports, values).await?),
        Box::new(bitbucket::open(ports, values).await?),
        Box::new(oci::open(ports, values).await?),
    ])
}
