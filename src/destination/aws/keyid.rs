//! The encryption key of a secret: reading the forms AWS accepts and returns, and telling
//! whether two of them name the same key without asking KMS.
//!
//! AWS leaves the key out of its answers when a secret uses `aws/secretsmanager`, and may
//! return a key in another form than it was given. An alias and a key id cannot be compared
//! from their texts alone; what this tool wrote itself, and pairs it has seen, decide then.

/// A parsed `KmsKeyId`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRef {
    /// `aws/secretsmanager`: what AWS uses when no key is named.
    Default,
    /// A key id (UUID or `mrk-…`), with account and region when an ARN named them.
    Key { id: String, place: Option<Place> },
    /// An alias without its `alias/`.
    Alias { name: String, place: Option<Place> },
}

/// Account and region of an ARN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub region: String,
    pub account: String,
}

/// What a comparison can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyMatch {
    Same,
    Different,
    /// An alias on one side, a key id on the other.
    CannotTell,
}

impl KeyRef {
    /// Reads a key id, key ARN, alias or alias ARN; `None` for anything else (a bare name).
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("arn:") {
            let parts: Vec<&str> = rest.splitn(5, ':').collect();
            let [_, "kms", region, account, resource] = parts.as_slice() else { return None };
            let place = Some(Place { region: region.to_string(), account: account.to_string() });
            return match resource.split_once('/') {
                Some(("key", id)) if is_key_id(id) => Some(Self::Key { id: id.to_ascii_lowercase(), place }),
                Some(("alias", name)) if !name.is_empty() => Some(Self::alias(name, place)),
                _ => None,
            };
        }
        match text.strip_prefix("alias/") {
            Some("") => None,
            Some(name) => Some(Self::alias(name, None)),
            None if is_key_id(text) => Some(Self::Key { id: text.to_ascii_lowercase(), place: None }),
            None => None,
        }
    }

    fn alias(name: &str, place: Option<Place>) -> Self {
        if name == "aws/secretsmanager" { Self::Default } else { Self::Alias { name: name.to_string(), place } }
    }

    /// What an answer says; absent and empty mean the default key.
    pub fn returned(text: Option<&str>) -> Self {
        match text.map(str::trim).filter(|t| !t.is_empty()) {
            None => Self::Default,
            // A form this page does not know is compared as a key of that very text.
            Some(text) => Self::parse(text).unwrap_or_else(|| Self::Key { id: text.to_string(), place: None }),
        }
    }

    /// Compares; a missing account and region match anything.
    pub fn compare(&self, other: &Self) -> KeyMatch {
        let same = |equal: bool| if equal { KeyMatch::Same } else { KeyMatch::Different };
        match (self, other) {
            (Self::Default, Self::Default) => KeyMatch::Same,
            (Self::Key { id: a, place: p }, Self::Key { id: b, place: q }) => same(a == b && Place::fits(p.as_ref(), q.as_ref())),
            (Self::Alias { name: a, place: p }, Self::Alias { name: b, place: q }) => same(a == b && Place::fits(p.as_ref(), q.as_ref())),
            (Self::Alias { .. }, Self::Key { .. }) | (Self::Key { .. }, Self::Alias { .. }) => KeyMatch::CannotTell,
            (Self::Default, _) | (_, Self::Default) => KeyMatch::Different,
        }
    }
}

impl Place {
    fn fits(a: Option<&Self>, b: Option<&Self>) -> bool {
        match (a, b) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        }
    }
}

fn is_key_id(text: &str) -> bool {
    if let Some(rest) = text.strip_prefix("mrk-") {
        return rest.len() == 32 && rest.bytes().all(|b| b.is_ascii_hexdigit());
    }
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|g| g.len()).eq([8, 4, 4, 4, 12]) && groups.iter().all(|g| g.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn the_compare_table() {
        let arn = format!("arn:aws:kms:us-east-1:111122223333:key/{ID}");
        let other = format!("arn:aws:kms:us-east-1:999922223333:key/{ID}");
        let mrk = "mrk-1234abcd12ab34cd56ef1234567890ab";
        let cases = [
            ("alias/aws/secretsmanager", None, KeyMatch::Same),
            ("alias/aws/secretsmanager", Some(""), KeyMatch::Same),
            ("arn:aws:kms:us-east-1:111122223333:alias/aws/secretsmanager", None, KeyMatch::Same),
            (ID, Some(ID), KeyMatch::Same),
            (ID, Some(arn.as_str()), KeyMatch::Same),
            (arn.as_str(), Some(ID), KeyMatch::Same),
            (arn.as_str(), Some(other.as_str()), KeyMatch::Different),
            (mrk, Some(mrk), KeyMatch::Same),
            (ID, Some(mrk), KeyMatch::Different),
            (ID, None, KeyMatch::Different),
            ("alias/app", None, KeyMatch::Different),
            ("alias/app", Some("alias/app"), KeyMatch::Same),
            ("alias/app", Some("arn:aws:kms:us-east-1:111122223333:alias/app"), KeyMatch::Same),
            ("alias/app", Some("alias/other"), KeyMatch::Different),
            ("alias/app", Some(arn.as_str()), KeyMatch::CannotTell),
            (ID, Some("alias/app"), KeyMatch::CannotTell),
        ];
        for (configured, returned, expected) in cases {
            let key = KeyRef::parse(configured).expect(configured);
            assert_eq!(key.compare(&KeyRef::returned(returned)), expected, "{configured} {returned:?}");
        }
    }

    #[test]
    fn bare_names_are_no_keys() {
        for text in ["app", "alias/", "", "arn:aws:s3:::x", "1234abcd", "mrk-1"] {
            assert_eq!(KeyRef::parse(text), None, "{text}");
        }
    }
}
