//! Sealing: literal credentials are encrypted with age before they touch the disk.
//!
//! Credentials are sealed to an X25519 key of this machine. How that key is kept is the
//! operator's choice ([`SealMode`]): in a file of the state directory, or in a file that a
//! passphrase encrypts (age's scrypt). Sealed texts carry the short id of their key, so that
//! during a change of the way, and after a crash in it, each is opened with the right one.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use age::secrecy::{ExposeSecret, SecretString};
use age::x25519::{Identity, Recipient};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::{StoreError, StoreErrorKind};
use super::files::{self, Access};
use crate::model::SecretValue;

/// How the key that seals credentials is kept.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display, strum::EnumString, strum::IntoStaticStr, strum::EnumIter,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum SealMode {
    /// In `key.txt`, readable by its owner only.
    #[default]
    KeyFile,
    /// In `key.passphrase.txt`, encrypted by a passphrase.
    Passphrase,
}

impl SealMode {
    /// What this way protects and what it does not, for `doctor` and the documentation.
    pub fn promise(self) -> &'static str {
        match self {
            Self::KeyFile => {
                "Literal credentials are sealed to key.txt in the state directory. That protects backups and accidental commits of the \
                 configuration; it does not protect against someone who can read this whole account. References (env, file, command) store nothing."
            }
            Self::Passphrase => {
                "Literal credentials are sealed to a key that only the passphrase opens. That protects against someone who copies the files; \
                 it does not protect against someone who controls this account while kms-sync runs."
            }
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::KeyFile => "key.txt",
            Self::Passphrase => "key.passphrase.txt",
        }
    }
}

/// scrypt's cost as a power of two: about half a second and 256 MiB, paid once per start.
const WORK_FACTOR: u8 = if cfg!(test) { 6 } else { 18 };
/// The highest cost we agree to pay for a file found on disk.
const MAX_WORK_FACTOR: u8 = 22;
/// Names a passphrase file for the daemon.
pub const PASSPHRASE_FILE_ENV: &str = "KMS_SYNC_PASSPHRASE_FILE";
/// The systemd credential's name.
pub const PASSPHRASE_CREDENTIAL: &str = "kms-sync-passphrase";

/// The keys of one state directory. The files are asked on every use, because another process
/// may change the way to seal; only what a passphrase opened is remembered.
pub struct Keys {
    state: PathBuf,
    loaded: Mutex<Loaded>,
}

#[derive(Default)]
struct Loaded {
    /// The key that the passphrase opened last.
    opened: Option<Identity>,
    passphrase: Option<SecretValue>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(***)")
    }
}

impl Keys {
    /// The keys of a state directory; nothing is read yet.
    pub fn new(state: &Path) -> Self {
        Self { state: state.to_path_buf(), loaded: Mutex::default() }
    }

    /// Where the key of a way is kept.
    pub fn path(&self, mode: SealMode) -> PathBuf {
        self.state.join(mode.file())
    }

    /// Seals a text for storage, making the key on first use.
    pub fn seal(&self, mode: SealMode, text: &SecretValue) -> Result<String, StoreError> {
        let recipient = self.recipient(mode)?;
        let sealed = age::encrypt(&recipient, text.expose().as_bytes())
            .map_err(|e| StoreError::new(StoreErrorKind::Io, format!("sealing a credential failed: {e}")))?;
        Ok(format!("{}:{}", id_of(&recipient), BASE64_STANDARD.encode(sealed)))
    }

    /// Opens a sealed text with the key it names.
    pub fn unseal(&self, sealed: &str) -> Result<SecretValue, StoreError> {
        let broken = || {
            StoreError::new(StoreErrorKind::Broken, "the sealed credential is truncated or garbled")
                .fix("Enter the credential again: kms-sync connection add -f FILE.")
        };
        let (id, body) = sealed.trim().split_once(':').ok_or_else(broken)?;
        let body = BASE64_STANDARD.decode(body).map_err(|_| broken())?;
        for mode in [SealMode::KeyFile, SealMode::Passphrase] {
            if self.public(mode)?.is_none_or(|r| id_of(&r) != id) {
                continue;
            }
            let identity = self.identity(mode)?;
            let mut plain = Zeroizing::new(Vec::with_capacity(body.len()));
            let decryptor = age::Decryptor::new_buffered(&body[..]).map_err(|_| broken())?;
            let mut reader = decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity)).map_err(|_| broken())?;
            reader.read_to_end(&mut plain).map_err(|_| broken())?;
            return String::from_utf8(std::mem::take(&mut *plain)).map(SecretValue::new).map_err(|e| {
                drop(Zeroizing::new(e.into_bytes()));
                broken()
            });
        }
        Err(StoreError::new(
            StoreErrorKind::Locked,
            format!("the key that sealed this credential (id {}) is not here", crate::model::text::brief(id, 20)),
        )
        .at(&self.path(SealMode::KeyFile))
        .fix("Bring the key file back from a backup, or enter the credential again: kms-sync connection add -f FILE."))
    }

    /// The id of a way's key, when that key exists. Needs no passphrase.
    pub fn key_id(&self, mode: SealMode) -> Result<Option<String>, StoreError> {
        Ok(self.public(mode)?.map(|r| id_of(&r)))
    }

    /// True when using the key of this way would need a passphrase that nobody gave yet.
    pub fn locked(&self, mode: SealMode) -> bool {
        mode == SealMode::Passphrase && {
            let loaded = self.lock();
            loaded.opened.is_none() && loaded.passphrase.is_none() && passphrase_file().is_none()
        }
    }

    /// Gives the passphrase, asked from the operator once per start. A wrong one is an error
    /// and changes nothing.
    pub fn unlock(&self, passphrase: SecretValue) -> Result<(), StoreError> {
        if let Some(text) = files::read(&self.path(SealMode::Passphrase), Access::Private)? {
            let identity = open_with_passphrase(&text, &passphrase, &self.path(SealMode::Passphrase))?;
            self.lock().opened = Some(identity);
        }
        self.lock().passphrase = Some(passphrase);
        Ok(())
    }

    /// Encrypts the passphrase way's key by another passphrase; makes the key when there is
    /// none. The old passphrase must have been given before, or be the same.
    pub fn set_passphrase(&self, passphrase: &SecretValue) -> Result<(), StoreError> {
        let path = self.path(SealMode::Passphrase);
        let there = files::read(&path, Access::Private)?;
        let identity = match there.as_deref().map(|text| open_with_passphrase(text, passphrase, &path)) {
            Some(Ok(identity)) => identity,
            Some(Err(_)) => {
                let identity = self.identity(SealMode::Passphrase)?;
                files::write(&path, closed_with_passphrase(&identity, passphrase)?.as_bytes())?;
                identity
            }
            None => {
                let identity = Identity::generate();
                files::write(&path, closed_with_passphrase(&identity, passphrase)?.as_bytes())?;
                identity
            }
        };
        let mut loaded = self.lock();
        loaded.opened = Some(identity);
        loaded.passphrase = Some(passphrase.clone());
        Ok(())
    }

    /// Removes the key of a way that nothing is sealed to any more.
    pub fn forget(&self, mode: SealMode) -> Result<(), StoreError> {
        files::remove(&self.path(mode)).map(|_| ())
    }

    /// Proves that a key file can be used, as far as that goes without a passphrase.
    pub fn check(&self, mode: SealMode) -> Result<Option<String>, StoreError> {
        if mode == SealMode::KeyFile {
            return Ok(self.load(mode)?.map(|i| id_of(&i.to_public())));
        }
        self.key_id(mode)
    }

    fn lock(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The public half, without a passphrase; `None` when the key does not exist.
    fn public(&self, mode: SealMode) -> Result<Option<Recipient>, StoreError> {
        if mode == SealMode::KeyFile {
            return Ok(self.load(mode)?.map(|i| i.to_public()));
        }
        let path = self.path(mode);
        files::read(&path, Access::Private)?.map(|text| public_in(&text, &path)).transpose()
    }

    /// The public half to seal to; the key is made when it does not exist.
    fn recipient(&self, mode: SealMode) -> Result<Recipient, StoreError> {
        if let Some(recipient) = self.public(mode)? {
            return Ok(recipient);
        }
        let identity = Identity::generate();
        let text = match mode {
            SealMode::KeyFile => key_text(&identity),
            SealMode::Passphrase => closed_with_passphrase(&identity, &self.passphrase()?)?,
        };
        // Two processes may make the first key at once: the one that comes second uses the other's.
        files::stage(&self.path(mode), text.as_bytes())?.commit_new()?;
        self.public(mode)?.ok_or_else(|| StoreError::new(StoreErrorKind::Io, "vanished while it was made").at(&self.path(mode)))
    }

    fn identity(&self, mode: SealMode) -> Result<Identity, StoreError> {
        let missing = || StoreError::new(StoreErrorKind::Locked, "the key is not here").at(&self.path(mode));
        self.load(mode)?.ok_or_else(missing)
    }

    fn load(&self, mode: SealMode) -> Result<Option<Identity>, StoreError> {
        let path = self.path(mode);
        let Some(text) = files::read(&path, Access::Private)? else {
            return Ok(None);
        };
        if mode == SealMode::KeyFile {
            let line = text.lines().map(str::trim).find(|l| l.starts_with("AGE-SECRET-KEY-"));
            return line.and_then(|l| l.parse().ok()).map(Some).ok_or_else(|| garbled(&path));
        }
        let wanted = id_of(&public_in(&text, &path)?);
        if let Some(opened) = self.lock().opened.as_ref().filter(|i| id_of(&i.to_public()) == wanted) {
            return Ok(Some(opened.clone()));
        }
        let identity = open_with_passphrase(&text, &self.passphrase()?, &path)?;
        self.lock().opened = Some(identity.clone());
        Ok(Some(identity))
    }

    /// The passphrase: given by the operator, or from the file the daemon was told of.
    fn passphrase(&self) -> Result<SecretValue, StoreError> {
        if let Some(passphrase) = &self.lock().passphrase {
            return Ok(passphrase.clone());
        }
        let Some(path) = passphrase_file() else {
            return Err(StoreError::new(StoreErrorKind::Locked, "the credentials are sealed by a passphrase")
                .fix(format!("Start kms-sync in a terminal to be asked, or name a file that holds it in {PASSPHRASE_FILE_ENV}.")));
        };
        let text = super::resolve::secret_file(&path)?;
        self.lock().passphrase = Some(text.clone());
        Ok(text)
    }
}

/// The file the passphrase is read from when nobody can be asked.
pub fn passphrase_file() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(PASSPHRASE_FILE_ENV).filter(|p| !p.is_empty()) {
        return Some(path.into());
    }
    let path = Path::new(&std::env::var_os("CREDENTIALS_DIRECTORY")?).join(PASSPHRASE_CREDENTIAL);
    path.exists().then_some(path)
}

fn garbled(path: &Path) -> StoreError {
    StoreError::new(StoreErrorKind::Broken, "is not a key file of kms-sync (truncated, garbled, or from a newer version)")
        .at(path)
        .fix("Bring it back from a backup; without it move it away and enter the sealed credentials again.")
}

/// The public half that a passphrase key's file tells in the clear.
fn public_in(text: &str, path: &Path) -> Result<Recipient, StoreError> {
    text.lines().find_map(|l| l.strip_prefix("# public key: ")).and_then(|k| k.trim().parse().ok()).ok_or_else(|| garbled(path))
}

/// The short name of a key: enough to tell the two or three keys of one machine apart.
fn id_of(recipient: &Recipient) -> String {
    blake3::hash(recipient.to_string().as_bytes()).to_hex()[..8].to_string()
}

fn key_text(identity: &Identity) -> Zeroizing<String> {
    Zeroizing::new(format!(
        "# kms-sync seals stored credentials to this key. Keep it out of backups that hold the configuration.\n# public key: {}\n{}\n",
        identity.to_public(),
        identity.to_string().expose_secret()
    ))
}

fn closed_with_passphrase(identity: &Identity, passphrase: &SecretValue) -> Result<Zeroizing<String>, StoreError> {
    if passphrase.is_empty() {
        return Err(StoreError::new(StoreErrorKind::Invalid, "the passphrase is empty").fix("Give one of at least a few words."));
    }
    let fail = |e: &dyn std::fmt::Display| StoreError::new(StoreErrorKind::Io, format!("sealing the key failed: {e}"));
    let mut recipient = age::scrypt::Recipient::new(SecretString::from(passphrase.expose().to_string()));
    recipient.set_work_factor(WORK_FACTOR);
    let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient)).map_err(|e| fail(&e))?;
    let mut sealed = Vec::new();
    let mut writer = encryptor.wrap_output(&mut sealed).map_err(|e| fail(&e))?;
    writer.write_all(identity.to_string().expose_secret().as_bytes()).map_err(|e| fail(&e))?;
    writer.finish().map_err(|e| fail(&e))?;
    Ok(Zeroizing::new(format!(
        "# kms-sync seals stored credentials to this key; a passphrase opens it.\n# public key: {}\n{}\n",
        identity.to_public(),
        BASE64_STANDARD.encode(sealed)
    )))
}

fn open_with_passphrase(text: &str, passphrase: &SecretValue, path: &Path) -> Result<Identity, StoreError> {
    let body = text.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with('#')).ok_or_else(|| garbled(path))?;
    let body = BASE64_STANDARD.decode(body).map_err(|_| garbled(path))?;
    let mut opener = age::scrypt::Identity::new(SecretString::from(passphrase.expose().to_string()));
    opener.set_max_work_factor(MAX_WORK_FACTOR);
    let decryptor = age::Decryptor::new_buffered(&body[..]).map_err(|_| garbled(path))?;
    let mut reader = decryptor.decrypt(std::iter::once(&opener as &dyn age::Identity)).map_err(|e| match e {
        age::DecryptError::DecryptionFailed | age::DecryptError::KeyDecryptionFailed | age::DecryptError::NoMatchingKeys => {
            StoreError::new(StoreErrorKind::Locked, "the passphrase does not open the key").at(path).fix("Try again.")
        }
        _ => garbled(path),
    })?;
    let mut plain = Zeroizing::new(String::with_capacity(128));
    reader.read_to_string(&mut plain).map_err(|_| garbled(path))?;
    plain.trim().parse().map_err(|_| garbled(path))
}
