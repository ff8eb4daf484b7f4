//! Integration tests, in one binary so that it links once.

mod azure_devops;
mod support;
