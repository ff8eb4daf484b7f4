//! Vault URLs: which texts name a vault, and to which hosts a token may be sent.

use serde_json::Value;

use crate::destination::entra::{Cloud, cloud_of_vault_host};
use crate::model::connection::is_loopback;

/// A vault's address, checked offline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VaultUrl {
    /// Ends without a slash in its path, unless the path is the root.
    pub url: url::Url,
}

/// Why a text names no vault: (rule, sentence).
pub(super) type Refusal = (&'static str, String);

impl VaultUrl {
    /// Reads a vault URL, or a bare vault name of the public cloud.
    pub fn parse(given: &str) -> Result<Self, Refusal> {
        let given = given.trim();
        if given.contains('\\') {
            return Err(("url", "Vault Base URL must not hold a backslash: programs disagree on the host it names.".into()));
        }
        if let Some(full) = expanded(given) {
            return Self::parse(&full);
        }
        let Ok(url) = url::Url::parse(given) else {
            return Err(("url", "Vault Base URL must be a URL such as https://my-key-vault.vault.azure.net.".into()));
        };
        let Some(host) = url.host_str().map(str::to_ascii_lowercase).filter(|_| matches!(url.scheme(), "http" | "https")) else {
            return Err(("url", "Vault Base URL must be an https URL with a host.".into()));
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(("url", "Vault Base URL must not carry a user or password.".into()));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(("url", "Vault Base URL must not carry a query or fragment.".into()));
        }
        if url.scheme() == "http" && !is_loopback(&url) {
            return Err(("insecure-http", "Vault Base URL must be https.".into()));
        }
        check_host(&host, &url)?;
        let mut url = url;
        let path = url.path().trim_end_matches('/').to_string();
        url.set_path(&path);
        Ok(Self { url })
    }

    /// The host in lower case.
    pub fn host(&self) -> String {
        self.url.host_str().unwrap_or_default().to_ascii_lowercase()
    }

    /// The cloud its host belongs to; `None` for other hosts (emulators, Azure Stack).
    pub fn cloud(&self) -> Option<&'static Cloud> {
        cloud_of_vault_host(&self.host())
    }

    /// True for this machine.
    pub fn loopback(&self) -> bool {
        is_loopback(&self.url)
    }

    /// The vault's name, or host and port where there is none.
    pub fn short(&self) -> String {
        let host = self.host();
        match (self.cloud(), self.url.port()) {
            (Some(_), None) => host.split('.').next().unwrap_or_default().to_string(),
            (_, Some(port)) => format!("{host}:{port}{}", self.url.path().trim_end_matches('/')),
            (None, None) => format!("{host}{}", self.url.path().trim_end_matches('/')),
        }
    }

    /// The vault's name: the first label of its host.
    pub fn name(&self) -> String {
        self.host().split('.').next().unwrap_or_default().to_string()
    }

    /// Equal for equal places.
    pub fn identity(&self) -> String {
        self.url.as_str().trim_end_matches('/').to_string()
    }

    /// Equal texts are the same vault, reached the same way: at its own address, or at `base`.
    pub fn identity_at(&self, base: &url::Url) -> String {
        let own = self.identity();
        if *base == self.url { own } else { format!("{own} at {base}") }
    }

    /// Whether a token may be sent there: a vault of a known cloud, this machine, or a host
    /// the connection allows. Anyone else could use the token at the real service.
    pub fn admitted(&self, allowed: &[String]) -> Result<(), String> {
        let listed = allowed.iter().any(|entry| entry_matches(entry, &self.url));
        if listed || self.loopback() {
            return Ok(());
        }
        if self.cloud().is_none() {
            return Err(format!("{} is no vault of a known Azure cloud, and not in the connection's allowedVaultHosts", self.host()));
        }
        if self.url.path() != "/" || self.url.port().is_some() {
            return Err("a vault's URL has neither a path nor a port".into());
        }
        Ok(())
    }
}

/// The URL that a bare vault name stands for.
pub(super) fn expanded(text: &str) -> Option<String> {
    let name = text.trim();
    is_vault_name(name).then(|| format!("https://{}.vault.azure.net", name.to_ascii_lowercase()))
}

fn check_host(host: &str, url: &url::Url) -> Result<(), Refusal> {
    let refuse = |text: String| Err(("vault-host", text));
    if host.contains(".managedhsm.") {
        return refuse("A managed HSM holds keys only, it has no secrets: give the URL of a vault.".into());
    }
    if host.contains("privatelink") {
        let name = host.split('.').next().unwrap_or_default();
        return refuse(format!("The privatelink name is for DNS only: use https://{name}.vault.azure.net."));
    }
    if host.ends_with(".vault.microsoftazure.de") {
        return refuse("Azure Germany was closed on 29 October 2021.".into());
    }
    let Some(cloud) = cloud_of_vault_host(host) else { return Ok(()) };
    let name = host.strip_suffix(cloud.vault_suffix).unwrap_or_default();
    if !is_vault_name(name) {
        return Err((
            "vault-name",
            format!("{name:?} is no vault name: 3 to 24 letters, digits and single hyphens, a letter first, a letter or digit last."),
        ));
    }
    if !url.path().trim_end_matches('/').is_empty() || url.port().is_some() {
        return Err(("url", "Vault Base URL must end after the host: no path, no port.".into()));
    }
    Ok(())
}

/// 3 to 24 letters, digits and hyphens, a letter first, no hyphen last, none doubled.
fn is_vault_name(text: &str) -> bool {
    (3..=24).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !text.ends_with('-')
        && !text.contains("--")
        && text != "localhost"
}

/// `host`, `host:port`, `.suffix` or `*.suffix`.
fn entry_matches(entry: &str, url: &url::Url) -> bool {
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    let entry = entry.trim().trim_start_matches('*').to_ascii_lowercase();
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.chars().all(|c| c.is_ascii_digit()) => (name.to_string(), port.parse::<u16>().ok()),
        _ => (entry, None),
    };
    if name.trim_matches('.').is_empty() || port.is_some_and(|p| Some(p) != url.port_or_known_default()) {
        return false;
    }
    if name.starts_with('.') { host.len() > name.len() && host.ends_with(&name) } else { host == name }
}

/// The connection's `allowedVaultHosts`: a list of texts, or one text with commas.
pub(super) fn allowed_hosts(setting: Option<&Value>) -> Result<Vec<String>, String> {
    let texts: Vec<String> = match setting {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => text.split(',').map(str::to_owned).collect(),
        Some(Value::Array(list)) => list
            .iter()
            .map(|v| v.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| "allowedVaultHosts must be a list of host names".to_string())?,
        Some(_) => return Err("allowedVaultHosts must be a list of host names, or one text with commas".into()),
    };
    let hosts: Vec<String> = texts.into_iter().map(|t| t.trim().to_ascii_lowercase()).filter(|t| !t.is_empty()).collect();
    match hosts.iter().find(|h| h.contains(['/', '@', '\\', ' ', '?', '#']) || h.trim_matches(['*', '.']).is_empty()) {
        Some(bad) => Err(format!("allowedVaultHosts: {bad:?} is not a host name or a suffix such as .vault.example.com")),
        None => Ok(hosts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<String, &'static str> {
        VaultUrl::parse(text).map(|v| v.identity()).map_err(|(rule, _)| rule)
    }

    #[test]
    fn what_is_a_vault_url() {
        for (text, expected) in [
            ("https://my-key-vault.vault.azure.net", Ok("https://my-key-vault.vault.azure.net")),
            (" https://My-Key-Vault.VAULT.azure.net/ ", Ok("https://my-key-vault.vault.azure.net")),
            ("https://kv1.vault.azure.net:443", Ok("https://kv1.vault.azure.net")),
            ("My-Key-Vault", Ok("https://my-key-vault.vault.azure.net")),
            ("http://127.0.0.1:7400/kv/", Ok("http://127.0.0.1:7400/kv")),
            ("https://localhost:8443", Ok("https://localhost:8443")),
            ("https://kv.vault.test", Ok("https://kv.vault.test")),
            ("http://kv1.vault.azure.net", Err("insecure-http")),
            ("https://u:p@kv1.vault.azure.net", Err("url")),
            ("https://kv1.vault.azure.net?x=1", Err("url")),
            ("https://kv1.vault.azure.net#x", Err("url")),
            ("https://kv1.vault.azure.net/secrets", Err("url")),
            ("https://kv1.vault.azure.net:8443", Err("url")),
            ("https://evil.example\\.vault.azure.net", Err("url")),
            ("ftp://kv1.vault.azure.net", Err("url")),
            ("kv1.vault.azure.net", Err("url")),
            ("not a url", Err("url")),
            ("https://a--b.vault.azure.net", Err("vault-name")),
            ("https://1ab.vault.azure.net", Err("vault-name")),
            ("https://ab.vault.azure.net", Err("vault-name")),
            ("https://abcdefghijklmnopqrstuvwxy.vault.azure.net", Err("vault-name")),
            ("https://hsm1.managedhsm.azure.net", Err("vault-host")),
            ("https://kv1.privatelink.vaultcore.azure.net", Err("vault-host")),
            ("https://kv1.vault.microsoftazure.de", Err("vault-host")),
        ] {
            assert_eq!(rule(text).as_deref(), expected.as_ref().map(|s| &**s), "{text}");
        }
    }

    #[test]
    fn tokens_go_to_vaults_this_machine_and_listed_hosts_only() {
        let allowed = vec!["kv.local.test".to_string(), "*.vault.stack.test".into(), "other.test:8443".into()];
        for (url, admitted) in [
            ("https://kv1.vault.azure.net", true),
            ("https://kv1.vault.usgovcloudapi.net", true),
            ("http://127.0.0.1:9/x", true),
            ("https://kv.local.test/path", true),
            ("https://a.vault.stack.test", true),
            ("https://vault.stack.test", false),
            ("https://other.test:8443", true),
            ("https://other.test", false),
            ("https://kv1.vault.azure.net.evil.example", false),
            ("https://a.b.vault.azure.net", false),
            ("https://evil.example", false),
        ] {
            let vault = VaultUrl::parse(url).expect(url);
            assert_eq!(vault.admitted(&allowed).is_ok(), admitted, "{url}");
        }
    }

    #[test]
    fn the_setting_is_a_list_or_a_text() {
        assert_eq!(allowed_hosts(Some(&serde_json::json!("a.test, .B.test"))), Ok(vec!["a.test".into(), ".b.test".into()]));
        assert_eq!(allowed_hosts(Some(&serde_json::json!(["a.test"]))), Ok(vec!["a.test".into()]));
        assert!(allowed_hosts(Some(&serde_json::json!(["https://a.test"]))).is_err());
        assert!(allowed_hosts(Some(&serde_json::json!("*"))).is_err());
        assert!(allowed_hosts(Some(&serde_json::json!(7))).is_err());
    }

    #[test]
    fn bare_names_stand_for_vaults_of_the_public_cloud() {
        assert_eq!(expanded(" My-Vault1 ").as_deref(), Some("https://my-vault1.vault.azure.net"));
        for other in ["", "kv", "https://kv1.vault.azure.net", "kv1.vault.azure.net", "1kv", "localhost"] {
            assert_eq!(expanded(other), None, "{other}");
        }
    }

    #[test]
    fn labels_are_short() {
        let short = |u: &str| VaultUrl::parse(u).expect("url").short();
        assert_eq!(short("https://kv-billing.vault.azure.net"), "kv-billing");
        assert_eq!(short("http://127.0.0.1:7400/kv"), "127.0.0.1:7400/kv");
    }
}
