//! Integration tests, in one binary so that it links once.

mod aws;
mod kms;
mod oci;
mod support;
