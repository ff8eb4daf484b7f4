//! Azure DevOps: the provider against the embedded service, and Microsoft's own Python client
//! against the same service.

mod access;
mod contract;
mod drift;
mod limits;
mod program;
mod reading;
mod rig;
mod tokens;
mod trouble;
mod vendor;
mod versions;
mod writing;
