//! stub
use super::SourceRef;
use super::client::Kms;
use crate::http::{ApiError, Cx};
#[derive(Default)]
pub(super) struct Events {}
impl Kms {
    pub async fn wait_for_hint(&self, _cx: &Cx, _places: &[SourceRef]) -> Result<bool, ApiError> {
        Ok(false)
    }
}
