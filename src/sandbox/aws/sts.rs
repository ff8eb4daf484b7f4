//! STS: GetCallerIdentity and AssumeRole, form in, XML out.

use std::collections::HashMap;

use super::ACCOUNT;
use super::auth::Caller;
use super::input::{Refusal, refuse};
use super::world::{Key, World};

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
/// Seconds a role session lasts when nothing is asked for.
const DURATION: i64 = 3600;

/// Answers one form request.
pub fn answer(world: &mut World, caller: &Caller, body: &[u8], id: &str) -> Result<String, Refusal> {
    let form: HashMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
    match form.get("Action").map(String::as_str) {
        Some("GetCallerIdentity") => {
            let result = format!("<Arn>{}</Arn><UserId>{}</UserId><Account>{ACCOUNT}</Account>", escape(&caller.arn), escape(&caller.key_id));
            Ok(envelope("GetCallerIdentity", &result, id))
        }
        Some("AssumeRole") => assume(world, caller, &form, id),
        _ => Err(refuse("InvalidAction", "Could not find the operation for this version.")),
    }
}

fn assume(world: &mut World, caller: &Caller, form: &HashMap<String, String>, id: &str) -> Result<String, Refusal> {
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let (role, session) = (field("RoleArn"), field("RoleSessionName"));
    let allowed = |s: &str| s.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c));
    if !(20..=2048).contains(&role.len()) || !(2..=64).contains(&session.len()) || !allowed(session) {
        return Err(refuse("ValidationError", "1 validation error detected: the role or session name fails its constraint"));
    }
    let duration = match form.get("DurationSeconds").map(|d| d.parse::<i64>()) {
        None => DURATION,
        Some(Ok(d)) if (900..=43_200).contains(&d) => d,
        Some(_) => return Err(refuse("ValidationError", "1 validation error detected: durationSeconds must be 900 to 43200")),
    };
    let trusted = match world.roles.get(role) {
        Some(Some(wanted)) => form.get("ExternalId") == Some(wanted),
        Some(None) => true,
        None => false,
    };
    if !trusted {
        return Err(refuse("AccessDenied", format!("User: {} is not authorized to perform: sts:AssumeRole on resource: {role}", caller.arn)));
    }
    let role_name = role.rsplit('/').next().unwrap_or_default();
    let arn = format!("arn:aws:sts::{ACCOUNT}:assumed-role/{role_name}/{session}");
    let random = || uuid::Uuid::new_v4().simple().to_string();
    let (key_id, secret, token) = (format!("ASIA{}", random()[..16].to_uppercase()), random(), random() + &random());
    let expires = world.now() + duration;
    let end = jiff::Timestamp::from_second(expires).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    world.keys.insert(key_id.clone(), Key { secret: secret.clone(), token: Some(token.clone()), expires: Some(expires), arn: arn.clone() });
    let result = format!(
        "<Credentials><AccessKeyId>{key_id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>\
         <Expiration>{end}</Expiration></Credentials><AssumedRoleUser><Arn>{}</Arn><AssumedRoleId>AROASANDBOX:{}</AssumedRoleId></AssumedRoleUser>",
        escape(&arn),
        escape(session)
    );
    Ok(envelope("AssumeRole", &result, id))
}

fn envelope(action: &str, result: &str, id: &str) -> String {
    format!(
        "<{action}Response xmlns=\"{NAMESPACE}\"><{action}Result>{result}</{action}Result>\
         <ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></{action}Response>"
    )
}

/// An error document.
pub fn error(refusal: &Refusal, id: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>Sender</Type><Code>{}</Code><Message>{}</Message></Error><RequestId>{id}</RequestId></ErrorResponse>",
        refusal.code,
        escape(&refusal.message)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
