//! Integration tests, in one binary so that it links once.

mod aws;
mod azure_devops;
mod azure_key_vault;
mod bitbucket;
mod cli;
mod conformance;
mod kms;
mod oci;
mod support;
mod tui;
mod world;
