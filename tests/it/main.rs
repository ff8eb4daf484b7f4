//! Integration tests, in one binary so that it links once.

mod bitbucket;
mod support;
