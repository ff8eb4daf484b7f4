//! Integration tests, in one binary so that it links once.

mod aws;
mod kms;
mod support;
