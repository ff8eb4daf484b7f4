//! Integration tests, in one binary so that it links once.

mod aws;
mod cli;
mod kms;
mod support;
mod world;
