//! The service's methods by name, for the engine's socket: `POST /v1/service/{method}` with
//! the arguments as one JSON array. Both ends are this program, of possibly two versions:
//! an unknown method is an error that says so.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::Map;

use super::{Approval, ChoicesAsk, Draft, FolderAsk, PlanTarget, RunRequest, Service, ServiceError, ServiceErrorKind, SyncInput};

/// Calls a method of `service` by its name.
pub async fn dispatch(service: &dyn Service, method: &str, arguments: Value) -> Result<Value, ServiceError> {
    match method {
        "syncs" => answer(service.syncs().await),
        "sync" => answer(service.sync(&one::<String>(arguments)?).await),
        "check_sync" => {
            let (input, replaces): (SyncInput, Option<String>) = many(arguments)?;
            answer(service.check_sync(input, replaces).await)
        }
        "create_sync" => answer(service.create_sync(one(arguments)?).await),
        "update_sync" => {
            let (name, input): (String, SyncInput) = many(arguments)?;
            answer(service.update_sync(&name, input).await)
        }
        "delete_sync" => answer(service.delete_sync(&one::<String>(arguments)?).await),
        "set_enabled" => {
            let (name, enabled): (String, bool) = many(arguments)?;
            answer(service.set_enabled(&name, enabled).await)
        }
        "document" => answer(service.document(&one::<String>(arguments)?).await),
        "plan" => {
            let (target, verify): (PlanTarget, bool) = many(arguments)?;
            answer(service.plan(target, verify).await)
        }
        "server_rivals" => answer(service.server_rivals(one(arguments)?).await),
        "switch_off_rival" => {
            let (target, id): (PlanTarget, String) = many(arguments)?;
            answer(service.switch_off_rival(target, &id).await)
        }
        "start" => answer(service.start(one::<RunRequest>(arguments)?).await),
        "start_together" => answer(service.start_together(one::<Vec<RunRequest>>(arguments)?).await),
        "finished" => answer(service.finished(&one::<String>(arguments)?).await),
        "cancel" => answer(service.cancel(&one::<String>(arguments)?).await),
        "approve" => answer(service.approve(one::<Approval>(arguments)?).await),
        "history" => {
            let (name, limit): (String, usize) = many(arguments)?;
            answer(service.history(&name, limit).await)
        }
        "connections" => answer(service.connections().await),
        "save_connection" => {
            let (document, replace): (Value, bool) = many(arguments)?;
            answer(service.save_connection(document, replace).await)
        }
        "remove_connection" => answer(service.remove_connection(&one::<String>(arguments)?).await),
        "test_connection" => answer(service.test_connection(&one::<String>(arguments)?).await),
        "test_destination" => {
            let (name, config): (String, Map) = many(arguments)?;
            answer(service.test_destination(&name, config).await)
        }
        "try_connection" => answer(service.try_connection(one::<Value>(arguments)?).await),
        "projects" => answer(service.projects(&one::<String>(arguments)?).await),
        "folders" => answer(service.folders(one::<FolderAsk>(arguments)?).await),
        "choices" => answer(service.choices(one::<ChoicesAsk>(arguments)?).await),
        "draft" => answer(service.draft().await),
        "keep_draft" => answer(service.keep_draft(one::<Option<Draft>>(arguments)?).await),
        "pause" => answer(service.pause(one::<bool>(arguments)?).await),
        "doctor" => answer(service.doctor().await),
        "hand_over" => answer(service.hand_over().await),
        _ => Err(ServiceError::new(ServiceErrorKind::Invalid, "The engine does not know this call: it is of another version. Restart it.")),
    }
}

fn one<T: DeserializeOwned>(arguments: Value) -> Result<T, ServiceError> {
    Ok(many::<(T,)>(arguments)?.0)
}

fn many<T: DeserializeOwned>(arguments: Value) -> Result<T, ServiceError> {
    // The text of a parse error could quote a credential: only its kind is told.
    serde_json::from_value(arguments)
        .map_err(|_| ServiceError::new(ServiceErrorKind::Invalid, "The call's arguments are not what this version of the engine expects."))
}

fn answer<T: Serialize>(result: Result<T, ServiceError>) -> Result<Value, ServiceError> {
    serde_json::to_value(result?).map_err(|e| ServiceError::new(ServiceErrorKind::Storage, e.to_string()))
}
