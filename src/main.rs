//! The kms-sync binary: everything is in the library.

fn main() -> std::process::ExitCode {
    kms_sync::cli::main()
}
