//! A KMS in this process and the program in another, with directories of its own: what a
//! script on an operator's machine would see.

#![allow(dead_code, reason = "not every selection of tests uses every helper")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use kms_sync::sandbox::host::Host;
use kms_sync::sandbox::kms;
use serde_json::{Value, json};

/// What the program answered.
pub struct Answer {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    /// Standard output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}\nstdout: {}\nstderr: {}", self.stdout, self.stderr))
    }

    /// The JSON document, when the exit code is this one.
    #[track_caller]
    pub fn expect(&self, code: i32) -> Value {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        if self.stdout.trim().is_empty() { Value::Null } else { serde_json::from_str(&self.stdout).unwrap_or(Value::Null) }
    }
}

/// The rig.
pub struct Rig {
    pub kms: kms::State,
    pub kms_host: Host,
    pub project: String,
    pub client_id: String,
    home: tempfile::TempDir,
}

/// The client secret of the rig's identity.
pub const CLIENT_SECRET: &str = "rig-client-secret";

impl Rig {
    /// A KMS with project, environment `dev` ("Development") and folder `/app`, and a stored account.
    pub async fn new() -> Self {
        let kms = kms::State::new();
        let project = kms.add_project("Rig", "rig");
        kms.add_environment(&project, "dev", "Development");
        kms.add_folder(&project, "dev", "/app");
        let client_id = kms.add_identity("rig", CLIENT_SECRET);
        let kms_host = Host::start(kms::router(kms.clone()), None).await.expect("the KMS starts");
        let home = tempfile::tempdir().expect("a directory");
        let rig = Self { kms, kms_host, project, client_id, home };
        let account = json!({
            "name": "kms", "app": "hanzo-kms", "method": "universal-auth", "baseUrl": rig.kms_host.url,
            "credentials": {"clientId": rig.client_id, "clientSecret": CLIENT_SECRET}
        });
        rig.run_with(&["connection", "add", "-f", "-"], &account).await.expect(0);
        rig
    }

    pub fn config_dir(&self) -> PathBuf {
        self.home.path().join("config")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// Sets a secret of `dev:/app`.
    pub fn set(&self, key: &str, value: &str) {
        self.kms.set(&self.project, "dev", "/app", key, value);
    }

    /// Removes a secret of `dev:/app`.
    pub fn unset(&self, key: &str) {
        self.kms.remove(&self.project, "dev", "/app", key);
    }

    /// The program with this rig's directories.
    pub fn command(&self) -> Command {
        let mut command = Command::new(super::KMS_SYNC);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("KMS_SYNC_CONFIG_DIR", self.config_dir())
            .env("KMS_SYNC_STATE_DIR", self.state_dir())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end, off the async threads.
    pub async fn run(&self, args: &[&str]) -> Answer {
        self.finish(args, None).await
    }

    /// Runs the program with a document on standard input.
    pub async fn run_with(&self, args: &[&str], document: &Value) -> Answer {
        self.finish(args, Some(document.to_string())).await
    }

    /// Runs the program with any text on standard input.
    pub async fn run_text(&self, args: &[&str], text: &str) -> Answer {
        self.finish(args, Some(text.to_string())).await
    }

    async fn finish(&self, args: &[&str], input: Option<String>) -> Answer {
        let mut command = self.command();
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output: Output = tokio::task::spawn_blocking(move || {
            if input.is_some() {
                command.stdin(Stdio::piped());
            }
            let mut child = command.spawn().expect("the program starts");
            if let (Some(mut stdin), Some(text)) = (child.stdin.take(), input) {
                use std::io::Write;
                // The program may end without reading.
                let _ = stdin.write_all(text.as_bytes());
            }
            child.wait_with_output().expect("the program ends")
        })
        .await
        .expect("no panic");
        Answer {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
