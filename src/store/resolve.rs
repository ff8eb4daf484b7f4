//! Credential references resolved at use: environment variable, file, command, sealed text.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::Zeroizing;

use super::error::{StoreError, StoreErrorKind, shown};
use super::files::{self, Access};
use super::process::Group;
use super::{Store, run_blocking};
use crate::model::SecretValue;
use crate::model::connection::{Connection, Credential, ResolvedConnection};
use crate::model::text::brief;

/// How long a credential command may take.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// The largest credential a command may print, in bytes.
const MAX_OUTPUT: u64 = 1 << 20;
/// How much of a failed command's standard error is shown, in bytes.
const MAX_STDERR: u64 = 4096;

impl Store {
    /// Turns every credential of a connection into its text. Errors name the field and what
    /// was tried, never the text.
    pub async fn resolve(&self, connection: &Connection) -> Result<ResolvedConnection, StoreError> {
        let mut resolved = ResolvedConnection {
            id: connection.id.clone(),
            name: connection.name.clone(),
            app: connection.app.clone(),
            method: connection.method.clone(),
            credentials: Default::default(),
            settings: connection.settings.clone(),
            ca_file: connection.ca_file.clone(),
            allow_insecure_http: connection.allow_insecure_http,
        };
        for (field, credential) in &connection.credentials {
            let value = self.resolve_one(credential).await.map_err(|mut e| {
                e.message = format!("connection {}, {field}: {}", brief(&connection.name, 64), e.message);
                e
            })?;
            resolved.credentials.insert(field.clone(), value);
        }
        Ok(resolved)
    }

    async fn resolve_one(&self, credential: &Credential) -> Result<SecretValue, StoreError> {
        match credential {
            Credential::Literal(value) => Ok(value.clone()),
            Credential::Plain(text) => Ok(SecretValue::new(text.clone())),
            Credential::Env(name) => from_env(name),
            Credential::File(path) => {
                let path = PathBuf::from(path);
                run_blocking(move || secret_file(&path)).await
            }
            Credential::Command(argv) => from_command(argv, COMMAND_LIMIT).await,
            Credential::Sealed(sealed) => {
                let (store, sealed) = (self.clone(), sealed.clone());
                run_blocking(move || store.keys().unseal(&sealed)).await
            }
        }
    }
}

fn failed(message: impl AsRef<str>) -> StoreError {
    StoreError::new(StoreErrorKind::Reference, message)
}

/// The text of an environment variable.
pub fn from_env(name: &str) -> Result<SecretValue, StoreError> {
    let shown = brief(name, 100);
    // The lookup panics on names that no environment can hold.
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(failed(format!("{shown:?} is not a name of an environment variable")));
    }
    match std::env::var_os(name) {
        None => Err(failed(format!("the environment variable {shown} is not set"))
            .fix(format!("Set {shown} where kms-sync runs (for the service: EnvironmentFile= or a drop-in)."))),
        Some(text) => match text.into_string() {
            Ok(text) if text.is_empty() => Err(failed(format!("the environment variable {shown} is empty"))),
            Ok(text) => Ok(SecretValue::new(text)),
            Err(_) => Err(failed(format!("the environment variable {shown} is not UTF-8 text"))),
        },
    }
}

/// The text of a file the operator named: links are followed, the file itself must be
/// readable by its owner only. One trailing newline is trimmed.
pub fn secret_file(path: &Path) -> Result<SecretValue, StoreError> {
    let path = &home_expanded(path);
    let (file, meta) = open_secret_file(path)?;
    if !meta.is_file() {
        return Err(failed("is not a regular file").at(path).fix("Name a file, or use a command: {\"command\":[\"prog\",\"arg\"]}."));
    }
    files::check_file(path, &meta, Access::Private)?;
    let mut text = files::read_text(file, path).map_err(|mut e| {
        e.kind = StoreErrorKind::Reference;
        e
    })?;
    trim_newline(&mut text);
    if text.is_empty() {
        return Err(failed("the file is empty").at(path));
    }
    Ok(SecretValue::new(std::mem::take(&mut *text)))
}

fn open_secret_file(path: &Path) -> Result<(std::fs::File, std::fs::Metadata), StoreError> {
    use std::os::unix::fs::OpenOptionsExt;
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let fail = |e: &std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => {
            failed("the file does not exist").at(path).fix(format!("Create it with mode 600: install -m 600 /dev/null {}", shown(path)))
        }
        _ => StoreError { kind: StoreErrorKind::Reference, ..StoreError::io("read it", path, e) },
    };
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nonblock).open(path).map_err(|e| fail(&e))?;
    let meta = file.metadata().map_err(|e| fail(&e))?;
    Ok((file, meta))
}

/// `~/…` with the home directory put in.
pub fn home_expanded(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), directories::BaseDirs::new()) {
        (Ok(rest), Some(base)) => base.home_dir().join(rest),
        _ => path.to_path_buf(),
    }
}

fn trim_newline(text: &mut String) {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
}

/// What a command prints on standard output, without its one trailing newline. No shell; the
/// environment is ours; standard input is empty. The error shows an excerpt of standard
/// error, never of standard output.
pub async fn from_command(argv: &[String], limit: Duration) -> Result<SecretValue, StoreError> {
    let Some((program, args)) = argv.split_first().filter(|(p, _)| !p.is_empty()) else {
        return Err(failed("the command is empty"));
    };
    let name = brief(program, 100);
    let mut child = tokio::process::Command::new(home_expanded(Path::new(program)))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => failed(format!("the command {name} was not found")).fix("Give its full path, or install it."),
            _ => failed(format!("the command {name} could not be started: {e}")),
        })?;
    let mut group = Group::of(&child);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (out, err) = tokio::join!(read_capped(out, MAX_OUTPUT), read_capped(err, MAX_STDERR));
        (out, err, child.wait().await)
    };
    let Ok((out, err, status)) = tokio::time::timeout(limit, work).await else {
        return Err(failed(format!("the command {name} did not end within {} s and was stopped", limit.as_secs_f32()))
            .fix("Run it by hand: it may wait for input or for the network."));
    };
    let broke = |e: std::io::Error| failed(format!("reading from the command {name} failed: {e}"));
    let status = status.map_err(broke)?;
    group.release();
    let (mut out, err) = (out.map_err(broke)?, err.map_err(broke)?);
    if !status.success() {
        let said = brief(&String::from_utf8_lossy(&err), 300);
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        return Err(failed(format!("the command {name} failed ({status}){said}")).fix("Run it by hand to see what it needs."));
    }
    if out.len() as u64 > MAX_OUTPUT {
        return Err(failed(format!("the command {name} printed more than {MAX_OUTPUT} bytes")));
    }
    let text = String::from_utf8(std::mem::take(&mut *out)).map_err(|e| {
        drop(Zeroizing::new(e.into_bytes()));
        failed(format!("the command {name} printed something that is not UTF-8 text"))
    })?;
    let mut text = Zeroizing::new(text);
    trim_newline(&mut text);
    if text.is_empty() {
        return Err(failed(format!("the command {name} printed nothing")));
    }
    Ok(SecretValue::new(std::mem::take(&mut *text)))
}

/// Reads to the end and keeps at most one byte more than `cap`, so that the writer never
/// blocks on a full pipe and the caller sees that it was too much.
async fn read_capped(stream: Option<impl AsyncRead + Unpin>, cap: u64) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut kept = Zeroizing::new(Vec::with_capacity(8192));
    if let Some(mut stream) = stream {
        (&mut stream).take(cap + 1).read_to_end(&mut kept).await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    }
    Ok(kept)
}
