//! The vendors' own clients and third-party servers, in a Python environment under `target/`
//! that is made on first use. Where that is impossible the test says loudly that it skips;
//! in CI (`CI=true`) it fails.

#![allow(dead_code, reason = "not every selection of tests uses every helper")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The environment's interpreter, or `None` (said loudly) where it cannot be made.
pub fn interpreter() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    PYTHON
        .get_or_init(|| match install() {
            Ok(path) => Some(path),
            Err(why) if std::env::var_os("CI").is_some_and(|v| v == "true") => panic!("the vendors' clients are needed in CI: {why}"),
            Err(why) => {
                eprintln!("\n*** SKIPPED: checks against the vendors' own clients and third-party servers: {why} ***\n");
                None
            }
        })
        .as_deref()
}

fn install() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let wanted = std::fs::read_to_string(root.join("tests/vendor/requirements.txt")).map_err(|e| e.to_string())?;
    let home = root.join("target/python");
    let (python, marker) = (home.join("bin/python"), home.join("requirements.installed"));
    std::fs::create_dir_all(&home).map_err(|e| e.to_string())?;
    let lock = std::fs::File::create(home.join("lock")).map_err(|e| e.to_string())?;
    lock.lock().map_err(|e| e.to_string())?;
    if std::fs::read_to_string(&marker).is_ok_and(|have| have == wanted) {
        return Ok(python);
    }
    eprintln!("installing the vendors' clients into {} (once)", home.display());
    step(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
    let list = root.join("tests/vendor/requirements.txt");
    step(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(list))?;
    std::fs::write(&marker, wanted).map_err(|e| e.to_string())?;
    Ok(python)
}

fn step(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))) }
}

/// Runs `tests/vendor/NAME` with arguments and returns its standard output; panics with its
/// standard error when it fails. `None` when there is no environment.
pub fn script(name: &str, args: &[&str]) -> Option<String> {
    let output = run(name, args)?;
    assert!(output.status.success(), "{name} failed:\n{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run(name: &str, args: &[&str]) -> Option<Output> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vendor").join(name);
    let output = Command::new(interpreter()?)
        .arg(path)
        .args(args)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("NO_PROXY", "127.0.0.1,localhost")
        .stdin(Stdio::null())
        .output()
        .expect("the interpreter starts");
    Some(output)
}
