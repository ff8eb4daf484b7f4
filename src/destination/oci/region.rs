//! Regions, their three-letter codes, realms and the hosts of the five services.
//!
//! Facts: Oracle's "Regions and Availability Domains" page and the region table of Oracle's
//! Python SDK (November 2026). An unknown region is taken as it is: new ones open every month.

use url::Url;

use crate::http::{ApiError, ErrorKind};
use crate::model::connection::ResolvedConnection;

/// Realm, its domain, and its regions as `name code`.
const REALMS: &[(&str, &str, &str)] = &[
    (
        "oc1",
        "oraclecloud.com",
        "ap-chuncheon-1 yny ap-hyderabad-1 hyd ap-melbourne-1 mel ap-mumbai-1 bom ap-osaka-1 kix ap-seoul-1 icn ap-sydney-1 syd \
         ap-tokyo-1 nrt ca-montreal-1 yul ca-toronto-1 yyz eu-amsterdam-1 ams eu-frankfurt-1 fra eu-zurich-1 zrh me-jeddah-1 jed \
         me-dubai-1 dxb sa-saopaulo-1 gru uk-cardiff-1 cwl uk-london-1 lhr us-ashburn-1 iad us-phoenix-1 phx us-sanjose-1 sjc \
         sa-vinhedo-1 vcp sa-santiago-1 scl il-jerusalem-1 mtz eu-marseille-1 mrs ap-singapore-1 sin me-abudhabi-1 auh eu-milan-1 lin \
         eu-stockholm-1 arn af-johannesburg-1 jnb eu-paris-1 cdg mx-queretaro-1 qro eu-madrid-1 mad us-chicago-1 ord mx-monterrey-1 mty \
         us-saltlake-2 aga sa-bogota-1 bog sa-valparaiso-1 vap ap-singapore-2 xsp me-riyadh-1 ruh ap-delhi-1 onm ap-batam-1 hsg \
         eu-madrid-3 orf eu-turin-1 nrq ap-kulai-2 jbp af-casablanca-1 lej",
    ),
    ("oc2", "oraclegovcloud.com", "us-langley-1 lfi us-luke-1 luf"),
    ("oc3", "oraclegovcloud.com", "us-gov-ashburn-1 ric us-gov-chicago-1 pia us-gov-phoenix-1 tus"),
    ("oc4", "oraclegovcloud.uk", "uk-gov-london-1 ltn uk-gov-cardiff-1 brs"),
    ("oc8", "oraclecloud8.com", "ap-chiyoda-1 nja ap-ibaraki-1 ukb"),
    ("oc9", "oraclecloud9.com", "me-dcc-muscat-1 mct me-ibri-1 ibr"),
    ("oc10", "oraclecloud10.com", "ap-dcc-canberra-1 wga"),
    (
        "oc14",
        "oraclecloud14.com",
        "eu-dcc-milan-1 bgy eu-dcc-milan-2 mxp eu-dcc-dublin-1 ork eu-dcc-dublin-2 snn eu-dcc-rating-1 dus eu-dcc-rating-2 dtm",
    ),
    ("oc15", "oraclecloud15.com", "ap-dcc-gazipur-1 dac"),
    ("oc19", "oraclecloud.eu", "eu-madrid-2 vll eu-frankfurt-2 str"),
    ("oc20", "oraclecloud20.com", "eu-jovanovac-1 beg"),
    ("oc21", "oraclecloud21.com", "me-dcc-doha-1 doh me-alrayyan-1 vve"),
    ("oc23", "oraclecloud23.com", "us-somerset-1 ebb us-thames-1 ebl"),
    ("oc24", "oraclecloud24.com", "eu-dcc-zurich-1 avz eu-crissier-1 avf"),
    ("oc26", "oraclecloud26.com", "me-abudhabi-3 ahu me-alain-1 rba"),
    ("oc29", "oraclecloud29.com", "me-abudhabi-2 rkt me-abudhabi-4 shj"),
    ("oc35", "oraclecloud35.com", "ap-seoul-2 dtz ap-suwon-1 dln ap-chuncheon-2 bno"),
    ("oc42", "oraclecloud42.com", "us-ashburn-2 yxj us-newark-1 pgc"),
    ("oc51", "oraclecloud51.com", "eu-budapest-1 jsk"),
    ("oc52", "oraclecloud52.com", "sa-riodejaneiro-1 hnw"),
];

/// Region, code and domain, by region name or code in any case.
fn known(word: &str) -> Option<(&'static str, &'static str, &'static str)> {
    let word = word.to_ascii_lowercase();
    REALMS.iter().find_map(|(_, domain, list)| {
        let words: Vec<&'static str> = list.split_whitespace().collect();
        words.chunks_exact(2).find(|pair| pair[0] == word || pair[1] == word).map(|pair| (pair[0], pair[1], *domain))
    })
}

/// The region's full name, for a name or a three-letter code in any case; unknown words are kept.
pub(super) fn name(word: &str) -> String {
    known(word.trim()).map_or_else(|| word.trim().to_ascii_lowercase(), |(name, _, _)| name.to_string())
}

/// True for a region that is known by name or code, for a name in the form of Oracle's
/// (`eu-frankfurt-1`: new ones open every month), and for the domain of a private region.
pub(super) fn is_region(word: &str) -> bool {
    let word = word.trim();
    let parts: Vec<&str> = word.split('-').collect();
    let numbered = parts.last().is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let named = parts.len() >= 3 && parts[..parts.len() - 1].iter().all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphabetic()));
    let domain = word.contains('.') && word.split('.').all(|label| !label.is_empty());
    known(word).is_some() || domain || (numbered && named)
}

/// The region in the name of one of Oracle's hosts: `vaults.eu-frankfurt-1.oci.oraclecloud.com`.
fn of_host(host: &str) -> Option<&'static str> {
    host.split('.').find_map(|label| known(label).filter(|(name, ..)| *name == label).map(|(name, ..)| name))
}

/// The domain of a region; for an unknown one the domain of the tenancy's realm.
fn domain(region: &str, tenancy: &str) -> String {
    if let Some((_, _, domain)) = known(region) {
        return domain.to_string();
    }
    let realm = tenancy.split('.').nth(2).unwrap_or("oc1");
    if let Some((_, domain, _)) = REALMS.iter().find(|(r, _, _)| *r == realm) {
        return (*domain).to_string();
    }
    match realm.strip_prefix("oc").filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
        Some(number) => format!("oraclecloud{number}.com"),
        None => "oraclecloud.com".to_string(),
    }
}

/// Where the five services of one connection answer.
#[derive(Debug, Clone)]
pub(super) struct Endpoints {
    /// Full region name, as the connection means it.
    pub region: String,
    /// The region whose vaults are served: that of the host, where its name tells one.
    pub vault_region: String,
    pub identity: Url,
    /// Lists vaults.
    pub kms: Url,
    /// Lists keys; `None`: each vault names its own.
    pub management: Option<Url>,
    /// Secrets without values.
    pub vaults: Url,
    /// Values.
    pub secrets: Url,
    /// The realm's domain, under which a vault's own management endpoint must lie.
    pub domain: String,
    /// Hosts the operator named: a management endpoint there is trusted too.
    pub named_hosts: Vec<String>,
    /// True when the secrets' two hosts are overridden: no host follows from the region then.
    pub overridden: bool,
    pub allow_insecure_http: bool,
}

impl Endpoints {
    /// From the region and the connection's settings. `endpoint` stands for all five.
    pub fn new(connection: &ResolvedConnection, region: &str, tenancy: &str) -> Result<Self, ApiError> {
        let region = name(region);
        // A text with a dot is a whole domain of its own: a private region.
        let whole = region.contains('.');
        let domain = if whole { region.clone() } else { domain(&region, tenancy) };
        let host = |service: &str, oci: bool| match (whole, oci) {
            (true, _) => format!("https://{service}.{domain}"),
            (false, true) => format!("https://{service}.{region}.oci.{domain}"),
            (false, false) => format!("https://{service}.{region}.{domain}"),
        };
        let all = connection.setting("endpoint");
        let mut named_hosts = Vec::new();
        let mut pick = |field: &str, default: Option<String>| -> Result<Option<Url>, ApiError> {
            let given = connection.setting(field).or(all);
            let Some(text) = given.map(str::to_string).or(default) else { return Ok(None) };
            let url = Url::parse(&text).map_err(|_| {
                ApiError::new(ErrorKind::Invalid, super::SERVICE, format!("{text:?} is not a URL"))
                    .advice(format!("Check the connection's region and {field}."))
            })?;
            if given.is_some() {
                named_hosts.extend(url.host_str().map(str::to_ascii_lowercase));
            }
            Ok(Some(url))
        };
        let missing = || ApiError::new(ErrorKind::Invalid, super::SERVICE, "an endpoint is missing");
        let identity = pick("identityEndpoint", Some(host("identity", true)))?.ok_or_else(missing)?;
        // The key service's hosts have no `.oci.` in them.
        let kms = pick("kmsVaultEndpoint", Some(host("kms", false)))?.ok_or_else(missing)?;
        let management = pick("kmsManagementEndpoint", None)?;
        let vaults = pick("vaultEndpoint", Some(host("vaults", true)))?.ok_or_else(missing)?;
        let secrets = pick("secretsEndpoint", Some(host("secrets.vaults", true)))?.ok_or_else(missing)?;
        let overridden = all.is_some() || (connection.setting("vaultEndpoint").is_some() && connection.setting("secretsEndpoint").is_some());
        let vault_region = vaults.host_str().and_then(of_host).unwrap_or(&region).to_string();
        Ok(Self {
            region,
            vault_region,
            identity,
            kms,
            management,
            vaults,
            secrets,
            domain,
            named_hosts,
            overridden,
            allow_insecure_http: connection.allow_insecure_http,
        })
    }

    /// False when a vault of this region cannot be meant. Where the operator named the hosts, a
    /// word that is no region of Oracle's may be an emulator's own.
    pub fn serves(&self, region: &str) -> bool {
        // A private region is told by its domain, which no OCID carries.
        let private = self.vault_region.contains('.');
        region == self.vault_region || private || (self.overridden && (known(region).is_none() || known(&self.vault_region).is_none()))
    }

    /// Checks a management endpoint that a server's answer named: signed requests go only to
    /// https hosts of the realm, or to a host that the operator named.
    pub fn trust_management(&self, text: &str) -> Result<Url, ApiError> {
        let refuse = |why: &str| {
            ApiError::new(
                ErrorKind::NotTheService,
                super::SERVICE,
                format!("the vault's management endpoint {} is not trusted: {why}", crate::model::text::brief(text, 120)),
            )
            .advice("If the address is right, set kmsManagementEndpoint on the connection; the key's OCID can also be typed.")
        };
        let url = Url::parse(text.trim()).map_err(|_| refuse("it is not a URL"))?;
        let host = url.host_str().map(str::to_ascii_lowercase).unwrap_or_default();
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("it carries a user name"));
        }
        let named = self.named_hosts.contains(&host);
        let plain_ok = named && (self.allow_insecure_http || crate::model::connection::is_loopback(&url));
        if url.scheme() != "https" && !(url.scheme() == "http" && plain_ok) {
            return Err(refuse("it is not https"));
        }
        if !named && !host.ends_with(&format!(".{}", self.domain)) {
            return Err(refuse(&format!("its host is not under {}", self.domain)));
        }
        Ok(url)
    }

    /// True when the secrets are served from this machine: an emulator, which has no quota to respect.
    pub fn local(&self) -> bool {
        crate::model::connection::is_loopback(&self.vaults) && crate::model::connection::is_loopback(&self.secrets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(settings: serde_json::Value) -> ResolvedConnection {
        ResolvedConnection {
            id: String::new(),
            name: "oci".into(),
            app: "oci".into(),
            method: "access-key".into(),
            credentials: Default::default(),
            settings: settings.as_object().cloned().unwrap_or_default(),
            ca_file: None,
            allow_insecure_http: false,
        }
    }

    fn endpoints(region: &str, tenancy: &str, settings: serde_json::Value) -> Endpoints {
        Endpoints::new(&connection(settings), region, tenancy).expect("endpoints")
    }

    #[test]
    fn what_can_be_a_region() {
        for (word, fits) in [
            ("eu-frankfurt-1", true),
            ("FRA", true),
            ("us-gov-phoenix-1", true),
            ("xx-newtown-12", true),
            ("region.private.example", true),
            ("ZQCANARYZQ", false),
            ("frankfurt", false),
            ("eu-frankfurt", false),
            ("eu--1", false),
            ("eu-1", false),
            ("a..b", false),
            ("", false),
        ] {
            assert_eq!(is_region(word), fits, "{word}");
        }
    }

    #[test]
    fn hosts_follow_region_code_and_realm() {
        let t = "ocid1.tenancy.oc1..aaaa";
        let e = endpoints("FRA", t, serde_json::json!({}));
        assert_eq!(e.region, "eu-frankfurt-1");
        assert_eq!(e.identity.as_str(), "https://identity.eu-frankfurt-1.oci.oraclecloud.com/");
        assert_eq!(e.kms.as_str(), "https://kms.eu-frankfurt-1.oraclecloud.com/");
        assert_eq!(e.vaults.as_str(), "https://vaults.eu-frankfurt-1.oci.oraclecloud.com/");
        assert_eq!(e.secrets.as_str(), "https://secrets.vaults.eu-frankfurt-1.oci.oraclecloud.com/");
        for (region, tenancy, host) in [
            ("us-gov-phoenix-1", t, "vaults.us-gov-phoenix-1.oci.oraclegovcloud.com"),
            ("uk-gov-london-1", t, "vaults.uk-gov-london-1.oci.oraclegovcloud.uk"),
            ("eu-frankfurt-2", t, "vaults.eu-frankfurt-2.oci.oraclecloud.eu"),
            ("xx-new-1", "ocid1.tenancy.oc77..a", "vaults.xx-new-1.oci.oraclecloud77.com"),
            ("xx-new-1", "ocid1.tenancy.oc4..a", "vaults.xx-new-1.oci.oraclegovcloud.uk"),
            ("xx-new-1", t, "vaults.xx-new-1.oci.oraclecloud.com"),
            ("region.private.example", t, "vaults.region.private.example"),
        ] {
            assert_eq!(endpoints(region, tenancy, serde_json::json!({})).vaults.host_str(), Some(host), "{region}");
        }
    }

    #[test]
    fn one_endpoint_stands_for_all_and_a_named_one_wins() {
        let e = endpoints("fra", "t", serde_json::json!({"endpoint": "http://127.0.0.1:1/oci", "identityEndpoint": "http://127.0.0.1:2"}));
        assert_eq!(e.identity.as_str(), "http://127.0.0.1:2/");
        assert_eq!(e.management.as_ref().map(Url::as_str), Some("http://127.0.0.1:1/oci"));
        assert!(e.overridden && e.local());
    }

    #[test]
    fn a_vault_of_another_region_is_never_meant() {
        let named = serde_json::json!({"vaultEndpoint": "https://vaults.us-phoenix-1.oci.oraclecloud.com", "secretsEndpoint": "https://secrets.vaults.us-phoenix-1.oci.oraclecloud.com"});
        let local = serde_json::json!({"endpoint": "http://127.0.0.1:1/fra"});
        for (region, settings, vault, served) in [
            ("fra", serde_json::json!({}), "eu-frankfurt-1", true),
            ("fra", serde_json::json!({}), "us-ashburn-1", false),
            ("fra", serde_json::json!({}), "xx-new-1", false),
            // An endpoint names no region: the connection's counts.
            ("fra", local.clone(), "eu-frankfurt-1", true),
            ("fra", local.clone(), "us-ashburn-1", false),
            // A region that only an emulator knows, on either side.
            ("fra", local.clone(), "test", true),
            ("local", local, "us-ashburn-1", true),
            ("region.private.example", serde_json::json!({}), "private-1", true),
            // Hosts of another region than the account's home: theirs counts.
            ("iad", named.clone(), "us-phoenix-1", true),
            ("iad", named, "us-ashburn-1", false),
        ] {
            assert_eq!(endpoints(region, "ocid1.tenancy.oc1..a", settings.clone()).serves(vault), served, "{region} {settings} {vault}");
        }
    }

    #[test]
    fn management_endpoints_of_strangers_are_refused() {
        let e = endpoints("bom", "ocid1.tenancy.oc1..a", serde_json::json!({"kmsVaultEndpoint": "http://127.0.0.1:9"}));
        for (text, good) in [
            ("https://b5-management.kms.ap-mumbai-1.oraclecloud.com", true),
            ("https://b5-management.kms.ap-mumbai-1.oci.oraclecloud.com", true),
            ("http://b5-management.kms.ap-mumbai-1.oraclecloud.com", false),
            ("https://evil.example", false),
            ("https://evil.example/.oraclecloud.com", false),
            ("https://fakeoraclecloud.com", false),
            ("https://u:p@x.oraclecloud.com", false),
            ("http://127.0.0.1:77", true),
            ("not a url", false),
        ] {
            assert_eq!(e.trust_management(text).is_ok(), good, "{text}");
        }
    }
}
