//! How a command reaches the service: the engine of this process, or the one another process holds.

use std::sync::Arc;
use std::time::Duration;

use super::Args;
use super::output::note;
use crate::service::local::Local;
use crate::service::{Service, ServiceError, ServiceErrorKind};
use crate::store::{Dirs, EngineLock, LockError, Store};

/// A service, and the lock when this process is the engine.
pub struct Access {
    pub service: Arc<dyn Service>,
    /// Present when the engine lives in this process.
    pub local: Option<Arc<Local>>,
    _lock: Option<EngineLock>,
}

/// Opens the store of the arguments' directories.
pub fn store(args: &Args) -> Result<Store, ServiceError> {
    let dirs = Dirs::resolve(args.config_dir.clone(), args.state_dir.clone())?;
    Ok(Store::open(dirs)?)
}

/// The service for reading and editing: no engine is needed.
pub fn reading(args: &Args) -> Result<Access, ServiceError> {
    let local = Local::new(store(args)?);
    Ok(Access { service: local.clone(), local: Some(local), _lock: None })
}

/// The service for runs: this process becomes the engine, or asks the one that is.
pub async fn running(args: &Args, what: &str, wait: bool) -> Result<Access, ServiceError> {
    let store = store(args)?;
    let mut told = false;
    loop {
        let held = match EngineLock::acquire(store.dirs(), what) {
            Ok(lock) => {
                let local = Local::new(store.clone());
                return Ok(Access { service: local.clone(), local: Some(local), _lock: Some(lock) });
            }
            Err(error @ LockError::HeldBy { .. }) => error,
            Err(error) => return Err(ServiceError::new(ServiceErrorKind::Storage, error.to_string())),
        };
        if !wait {
            return Err(ServiceError::new(ServiceErrorKind::Busy, held.to_string()));
        }
        if !std::mem::replace(&mut told, true) {
            note(&format!("waiting: {held}"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
