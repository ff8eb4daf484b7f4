//! Oracle Cloud identifiers: `ocid1.<type>.<realm>.[region].[more.]<unique>`.
//!
//! An OCID must be of the type its field needs: pasting the vault's OCID into the key's field
//! is the commonest slip. Realm, region and the unique part are not looked at beyond their
//! shape. The documented sample request carries `...` in all three fields and must be storable
//! as it stands, so that one text is no fault here; a run with it is refused by the service.

use crate::model::{Map, Problems};

/// The region part of an OCID, as a full region name; older regions put their code there.
pub(super) fn region(ocid: &str) -> Option<String> {
    let mut parts = ocid.split('.');
    (parts.next() == Some("ocid1")).then_some(())?;
    let region = parts.nth(2)?;
    // The shortest form has no region: `ocid1.tenancy.oc1..unique`.
    (!region.is_empty() && parts.next().is_some()).then(|| super::region::name(region))
}

/// What the documented sample request carries where an OCID belongs.
const PLACEHOLDER: &str = "...";

/// What is wrong with an OCID for a field that takes `types`; `None` when nothing is.
pub(super) fn fault(value: &str, types: &[&str]) -> Option<String> {
    if let Some(bad) = value.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-:".contains(*c))) {
        return Some(format!("an OCID holds letters, digits and . _ - : only; {bad:?} is not allowed"));
    }
    if value == PLACEHOLDER {
        return None;
    }
    let wanted = types.join(" or ");
    let Some(rest) = value.strip_prefix("ocid1.") else {
        return Some(format!("this is no OCID: the OCID of a {wanted} begins with ocid1.{}.", types[types.len() - 1]));
    };
    let parts: Vec<&str> = rest.split('.').collect();
    if !types.contains(&parts[0]) {
        return Some(format!("this is the OCID of a {}, and the field takes the OCID of a {wanted}", parts[0]));
    }
    let realm_ok = parts.get(1).and_then(|r| r.strip_prefix("oc")).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if parts.len() < 4 || !realm_ok || parts.last().is_none_or(|p| p.is_empty()) {
        return Some(format!("an OCID looks like ocid1.{}.oc1.<region>.<unique>; parts of it are missing here", types[types.len() - 1]));
    }
    None
}

/// Checks one member of `destinationConfig`.
pub(super) fn check(config: &Map, field: &str, label: &str, types: &[&str], problems: &mut Problems) {
    let mut reader = crate::model::sync::Reader { object: config, prefix: "destinationConfig.", problems };
    let Some(value) = reader.text(field, true, 255).filter(|v| !v.is_empty()) else { return };
    if let Some(why) = fault(&value, types) {
        problems.add(format!("destinationConfig.{field}"), "ocid", format!("{label}: {why}."));
    }
}

/// The segment that a vault and its keys share: `ocid1.vault.oc1.<region>.<segment>.<unique>`.
pub(super) fn vault_segment(ocid: &str) -> Option<&str> {
    let parts: Vec<&str> = ocid.split('.').collect();
    (parts.len() == 6 && parts[0] == "ocid1").then(|| parts[4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_shapes() {
        for (value, types, good) in [
            ("ocid1.compartment.oc1..aaaa", &["tenancy", "compartment"][..], true),
            ("ocid1.tenancy.oc16..aaaa", &["tenancy", "compartment"], true),
            ("ocid1.vault.oc2.us-langley-1.seg.abc", &["vault"], true),
            ("ocid1.key.oc1.iad.seg.abc", &["key"], true),
            ("...", &["key"], true),
            ("my-vault", &["vault"], false),
            ("....", &["vault"], false),
            ("ocid1.vault.oc1.iad.seg.abc", &["key"], false),
            ("ocid1.key.oc1.iad.", &["key"], false),
            ("ocid1.key.prod.iad.abc", &["key"], false),
            ("ocid1.key", &["key"], false),
            ("a b", &["key"], false),
            ("a/../b", &["key"], false),
        ] {
            assert_eq!(fault(value, types).is_none(), good, "{value}");
        }
    }

    #[test]
    fn regions_by_name_and_code() {
        assert_eq!(region("ocid1.vault.oc1.iad.seg.abc").as_deref(), Some("us-ashburn-1"));
        assert_eq!(region("ocid1.vault.oc1.ap-mumbai-1.b5qg.abrg").as_deref(), Some("ap-mumbai-1"));
        assert_eq!(region("ocid1.tenancy.oc1..aaaa"), None);
        assert_eq!(region("..."), None);
        assert_eq!(vault_segment("ocid1.vault.oc1.ap-mumbai-1.b5qg.abrg"), Some("b5qg"));
    }
}
