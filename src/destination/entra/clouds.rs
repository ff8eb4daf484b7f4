//! Microsoft's clouds: their authorities, and the vaults and scopes that belong to them.

/// The default authority.
pub const PUBLIC_AUTHORITY: &str = "https://login.microsoftonline.com";

/// One national cloud.
#[derive(Debug, PartialEq, Eq)]
pub struct Cloud {
    pub title: &'static str,
    /// The authority that is used by default.
    pub authority: &'static str,
    /// Hosts that are authorities of this cloud.
    pub authority_hosts: &'static [&'static str],
    /// What a vault's host ends in, with the dot.
    pub vault_suffix: &'static str,
    /// The scope of Key Vault tokens there.
    pub vault_scope: &'static str,
}

static CLOUDS: &[Cloud] = &[
    Cloud {
        title: "the public cloud",
        authority: PUBLIC_AUTHORITY,
        authority_hosts: &["login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"],
        vault_suffix: ".vault.azure.net",
        vault_scope: "https://vault.azure.net/.default",
    },
    Cloud {
        title: "Azure US Government",
        authority: "https://login.microsoftonline.us",
        authority_hosts: &["login.microsoftonline.us", "login-us.microsoftonline.com"],
        vault_suffix: ".vault.usgovcloudapi.net",
        vault_scope: "https://vault.usgovcloudapi.net/.default",
    },
    Cloud {
        title: "Azure China",
        authority: "https://login.chinacloudapi.cn",
        authority_hosts: &["login.chinacloudapi.cn", "login.partner.microsoftonline.cn"],
        vault_suffix: ".vault.azure.cn",
        vault_scope: "https://vault.azure.cn/.default",
    },
];

impl Cloud {
    /// The cloud most people use.
    pub fn public() -> &'static Cloud {
        &CLOUDS[0]
    }
}

/// The cloud of an authority's host.
pub fn cloud_of_authority(host: &str) -> Option<&'static Cloud> {
    CLOUDS.iter().find(|c| c.authority_hosts.iter().any(|h| h.eq_ignore_ascii_case(host)))
}

/// The cloud of a vault's host: exactly one label before a known suffix.
pub fn cloud_of_vault_host(host: &str) -> Option<&'static Cloud> {
    let host = host.to_ascii_lowercase();
    CLOUDS.iter().find(|c| host.strip_suffix(c.vault_suffix).is_some_and(|label| !label.is_empty() && !label.contains('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vault_host_has_one_label_before_its_suffix() {
        assert_eq!(cloud_of_vault_host("KV-one.vault.azure.net").map(|c| c.vault_scope), Some("https://vault.azure.net/.default"));
        assert_eq!(cloud_of_vault_host("kv.vault.azure.cn").map(|c| c.title), Some("Azure China"));
        for host in ["vault.azure.net", ".vault.azure.net", "a.b.vault.azure.net", "kv.vault.azure.net.evil.example", "kvvault.azure.net"] {
            assert_eq!(cloud_of_vault_host(host), None, "{host}");
        }
    }

    #[test]
    fn authorities_are_known_by_all_their_names() {
        assert_eq!(cloud_of_authority("login.partner.microsoftonline.cn").map(|c| c.vault_suffix), Some(".vault.azure.cn"));
        assert_eq!(cloud_of_authority("login.example.com"), None);
    }
}
