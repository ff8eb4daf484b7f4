//! Connections: the list, and the form that adds or edits one. Both are drawn from the apps'
//! descriptions; no app is named here.

pub mod edit;
pub mod list;
