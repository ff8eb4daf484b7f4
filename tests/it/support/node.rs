//! The vendors' own JavaScript clients: `tests/vendor/NAME/` holds `package.json`, its lock
//! file and the scripts; the packages are installed under `target/node/NAME` on first use.
//! Where that is impossible the test says loudly that it skips; in CI (`CI=true`) it fails.

#![allow(dead_code, reason = "not every selection of tests uses every helper")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// What is known about each directory asked for so far.
static INSTALLED: Mutex<Option<HashMap<String, Option<PathBuf>>>> = Mutex::new(None);

/// Installs the packages that `tests/vendor/NAME` locks and returns where they are
/// (`…/node_modules`), or `None` (said loudly) where that is impossible.
pub fn install(name: &str) -> Option<PathBuf> {
    let mut known = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(modules) = known.get(name) {
        return modules.clone();
    }
    let modules = match fetch(name) {
        Ok(modules) => Some(modules),
        Err(why) if std::env::var_os("CI").is_some_and(|v| v == "true") => panic!("the vendors' clients are needed in CI: {why}"),
        Err(why) => {
            eprintln!("\n*** SKIPPED: checks against the JavaScript clients of {name}: {why} ***\n");
            None
        }
    };
    known.insert(name.to_string(), modules.clone());
    modules
}

fn fetch(name: &str) -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (from, home) = (root.join("tests/vendor").join(name), root.join("target/node").join(name));
    let read = |file: &str| std::fs::read_to_string(from.join(file)).map_err(|e| format!("{}: {e}", from.join(file).display()));
    let wanted = [("package.json", read("package.json")?), ("package-lock.json", read("package-lock.json")?)];
    step(Command::new("node").arg("--version"))?;
    std::fs::create_dir_all(&home).map_err(|e| e.to_string())?;
    // Several test processes may come here at once.
    let lock = std::fs::File::create(home.join("lock")).map_err(|e| e.to_string())?;
    lock.lock().map_err(|e| e.to_string())?;
    let (modules, marker) = (home.join("node_modules"), home.join("installed"));
    let all: String = wanted.iter().map(|(_, text)| text.as_str()).collect();
    if std::fs::read_to_string(&marker).is_ok_and(|have| have == all) {
        return Ok(modules);
    }
    eprintln!("installing the JavaScript clients of {name} into {} (once)", home.display());
    for (file, text) in &wanted {
        std::fs::write(home.join(file), text).map_err(|e| e.to_string())?;
    }
    // Exactly what is locked, and no package's own scripts are run.
    step(Command::new("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&home))?;
    std::fs::write(&marker, all).map_err(|e| e.to_string())?;
    Ok(modules)
}

fn step(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))) }
}

/// Runs `tests/vendor/NAME/SCRIPT` (CommonJS) with arguments and returns its standard output;
/// panics with its standard error when it fails. `None` when the packages cannot be installed.
pub fn run(name: &str, script: &str, args: &[&str]) -> Option<String> {
    let modules = install(name)?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vendor").join(name).join(script);
    let output = Command::new("node")
        .arg(path)
        .args(args)
        // `require` looks beside the script, and then here.
        .env("NODE_PATH", modules)
        .env("NO_PROXY", "127.0.0.1,localhost")
        .stdin(Stdio::null())
        .output()
        .expect("node starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script} failed:\n{}\n{}", text(&output.stdout), text(&output.stderr));
    Some(text(&output.stdout))
}
