//! The destinations under test, one module each.

pub mod aws;
pub mod aws_object;
pub mod azure_devops;
pub mod azure_key_vault;
pub mod bitbucket;
pub mod oci;
