//! Integration tests, in one binary so that it links once.

mod azure_key_vault;
mod support;
