//! What the integration tests share.

pub mod hurry;
pub mod moto;
pub mod node;
pub mod pty;
pub mod python;
pub mod rig;

/// The binary under test.
#[allow(dead_code, reason = "not every selection of tests starts the binary")]
pub const KMS_SYNC: &str = env!("CARGO_BIN_EXE_kms-sync");
