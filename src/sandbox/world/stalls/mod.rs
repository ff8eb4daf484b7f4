//! The embedded destinations of the demo, one module each; the list below is the only one.

mod aws;
mod azure_devops;
mod azure_key_vault;
mod bitbucket;
mod oci;

use super::values::Values;
use super::{Ports, Stall};

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
