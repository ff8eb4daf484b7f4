//! Tests against the sandbox.
