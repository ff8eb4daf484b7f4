//! An embedded Hanzo KMS and the five destinations, over real HTTP on loopback, for `demo`
//! and for the tests.
//!
//! One module per service, each with its state and an `axum` router that is as strict as the
//! real service; [`host`] puts a router on a port of its own, with switchable faults and a
//! log of requests. Nothing is kept after the process ends, and nothing outside is touched.
//! The product code does not know that it talks to a sandbox.

pub mod aws;
pub mod azure_devops;
pub mod azure_key_vault;
pub mod bitbucket;
pub mod entra;
pub mod host;
pub mod kms;
pub mod oci;
pub mod tls;
pub mod world;
