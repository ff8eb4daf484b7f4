//! The embedded destinations of the demo, one module each; the list below is the only one.

mod bitbucket;
mod oci;

use super::values::Values;
use super::{Ports, Stall};

/// Starts and fills every destination.
pub(super) async fn open(ports: &mut Ports, values: &mut Values) -> std::io::Result<Vec<Box<dyn Stall>>> {
    Ok(vec![Box::new(bitbucket::open(ports, values).await?), Box::new(oci::open(ports, values).await?)])
}
