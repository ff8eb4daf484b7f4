//! Integration tests, in one binary so that it links once.

mod aws;
mod azure_devops;
mod azure_key_vault;
mod bitbucket;
mod canary;
mod cli;
mod conformance;
mod kms;
mod life;
mod oci;
mod offline;
mod parallel;
mod support;
mod takeover;
mod tui;
mod world;
