//! Request members, read with the limits of the API reference, and refusals.

use axum::http::StatusCode;
use serde_json::{Map, Value};

/// An error answer.
#[derive(Debug)]
pub struct Refusal {
    pub code: &'static str,
    pub message: String,
}

/// A refusal with its code and text.
pub fn refuse(code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { code, message: message.into() }
}

impl Refusal {
    /// Secrets Manager answers 400 to everything that is the caller's fault, missing secrets included.
    pub fn json_status(&self) -> StatusCode {
        if self.code == "InternalServiceError" { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::BAD_REQUEST }
    }

    /// STS answers 403 to refused callers and 400 to bad input.
    pub fn xml_status(&self) -> StatusCode {
        if matches!(self.code, "ValidationError" | "InvalidAction") { StatusCode::BAD_REQUEST } else { StatusCode::FORBIDDEN }
    }
}

/// One request.
pub struct Call<'a> {
    pub operation: &'a str,
    pub region: &'a str,
    /// ARN of the caller.
    pub caller: &'a str,
    pub input: &'a Map<String, Value>,
}

impl<'a> Call<'a> {
    fn wrong(&self, member: &str, what: &str) -> Refusal {
        refuse("ValidationException", format!("1 validation error detected: Value at '{member}' failed to satisfy constraint: {what}"))
    }

    /// A text of `min` to `max` characters, when it is given.
    pub fn text(&self, member: &str, min: usize, max: usize) -> Result<Option<&'a str>, Refusal> {
        match self.input.get(member) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(s)) => {
                let length = s.chars().count();
                if length < min {
                    return Err(self.wrong(member, &format!("Member must have length greater than or equal to {min}")));
                }
                if length > max {
                    return Err(self.wrong(member, &format!("Member must have length less than or equal to {max}")));
                }
                Ok(Some(s))
            }
            Some(_) => Err(refuse("SerializationException", format!("{member} must be a string."))),
        }
    }

    /// A text that must be given.
    pub fn required(&self, member: &str, min: usize, max: usize) -> Result<&'a str, Refusal> {
        self.text(member, min, max)?.ok_or_else(|| self.wrong(member, "Member must not be null"))
    }

    /// The secret's name or ARN.
    pub fn secret_id(&self) -> Result<&'a str, Refusal> {
        self.required("SecretId", 1, 2048)
    }

    pub fn flag(&self, member: &str) -> Result<bool, Refusal> {
        match self.input.get(member) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(b)) => Ok(*b),
            Some(_) => Err(refuse("SerializationException", format!("{member} must be a boolean."))),
        }
    }

    pub fn number(&self, member: &str) -> Result<Option<i64>, Refusal> {
        match self.input.get(member) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => v.as_i64().map(Some).ok_or_else(|| refuse("SerializationException", format!("{member} must be a number."))),
        }
    }

    /// A number within bounds, or the upper bound.
    pub fn page_size(&self, max: i64) -> Result<usize, Refusal> {
        match self.number("MaxResults")? {
            None => Ok(max as usize),
            Some(n) if (1..=max).contains(&n) => Ok(n as usize),
            Some(n) if n < 1 => Err(self.wrong("maxResults", "Member must have value greater than or equal to 1")),
            Some(_) => Err(self.wrong("maxResults", &format!("Member must have value less than or equal to {max}"))),
        }
    }

    /// A list member.
    pub fn list(&self, member: &str) -> Result<&'a [Value], Refusal> {
        match self.input.get(member) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(_) => Err(refuse("SerializationException", format!("{member} must be a list."))),
        }
    }

    pub fn has(&self, member: &str) -> bool {
        self.input.get(member).is_some_and(|v| !v.is_null())
    }
}
