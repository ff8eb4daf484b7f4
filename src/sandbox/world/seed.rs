//! What the demo's KMS holds: one shop with three services, in three environments, each with
//! a shared mail folder that the services import.

use super::values::{Shape, Values};
use crate::sandbox::kms::{NewSecret, State};

/// The demo project's id: fixed, so that documents can be prepared.
pub const PROJECT: &str = "5d0e4b5c-1c1f-4c53-9a55-0d3a7f2e8b11";
/// Environments: slug and name.
pub const ENVIRONMENTS: &[(&str, &str)] = &[("dev", "Development"), ("staging", "Staging"), ("prod", "Production")];
/// The services' folders, and the folder they all import.
pub const SERVICES: &[&str] = &["/payments", "/billing", "/web"];
pub const SHARED: &str = "/shared/smtp";

use Shape::{Flag, Hex, Json, Number, Password, Pem, Text, Token, Word};

type Key = (&'static str, Shape);

const COMMON: &[Key] = &[
    ("DATABASE_HOST", Text("db.demo.invalid")),
    ("DATABASE_NAME", Word(&["ledger", "orders", "shop"])),
    ("DATABASE_USER", Text("svc_demo")),
    ("DATABASE_PASSWORD", Password),
    ("DATABASE_URL", Text("postgres://${DATABASE_USER}:${DATABASE_PASSWORD}@${DATABASE_HOST}:5432/${DATABASE_NAME}?sslmode=require")),
    ("REDIS_PASSWORD", Password),
    ("REDIS_URL", Text("rediss://:${REDIS_PASSWORD}@cache.demo.invalid:6379/0")),
    ("LOG_LEVEL", Word(&["info", "warn", "debug"])),
    ("SENTRY_DSN", Text("https://demokey@errors.demo.invalid/42")),
    ("OTEL_EXPORTER_TOKEN", Token("otel_")),
    ("SESSION_SECRET", Hex(64)),
    ("INTERNAL_API_KEY", Token("int_")),
];

const PAYMENTS: &[Key] = &[
    ("STRIPE_SECRET_KEY", Token("sk_")),
    ("STRIPE_WEBHOOK_SECRET", Token("whsec_")),
    ("ADYEN_API_KEY", Token("adyen_")),
    ("ADYEN_HMAC_KEY", Hex(64)),
    ("PAYPAL_CLIENT_ID", Token("pp_")),
    ("PAYPAL_CLIENT_SECRET", Token("pps_")),
    ("CARD_VAULT_KEY", Hex(64)),
    ("SETTLEMENT_SFTP_KEY", Pem),
    ("SETTLEMENT_SFTP_PASSWORD", Password),
    ("FRAUD_MODEL_TOKEN", Token("fm_")),
    ("MAX_RETRIES", Number(3, 9)),
    ("CAPTURE_DELAY_MINUTES", Number(5, 60)),
    ("PAYOUT_SIGNING_KEY", Pem),
    ("BANK_GATEWAY_CERTIFICATE", Pem),
    ("THREE_DS_ENABLED", Flag),
    ("RISK_SERVICE_ACCOUNT", Json),
];

const BILLING: &[Key] = &[
    ("INVOICE_SIGNING_KEY", Pem),
    ("INVOICE_BUCKET_KEY", Token("bk_")),
    ("TAX_SERVICE_TOKEN", Token("tax_")),
    ("ERP_CLIENT_ID", Text("erp-demo-client")),
    ("ERP_CLIENT_SECRET", Token("erp_")),
    ("MAIL_SIGNING_KEY", Pem),
    ("DUNNING_ENABLED", Flag),
    ("DUNNING_DAYS", Number(7, 30)),
    ("PDF_RENDERER_TOKEN", Token("pdf_")),
    ("LEDGER_EXPORT_ACCOUNT", Json),
    ("ACCOUNTING_WEBHOOK", Text("https://hooks.demo.invalid/accounting/${INTERNAL_API_KEY}")),
];

const WEB: &[Key] = &[
    ("COOKIE_SECRET", Hex(48)),
    ("CSRF_SECRET", Hex(32)),
    ("OAUTH_CLIENT_ID", Text("web-demo-client")),
    ("OAUTH_CLIENT_SECRET", Token("oa_")),
    ("CDN_PURGE_TOKEN", Token("cdn_")),
    ("MAPS_API_KEY", Token("maps_")),
    ("SEARCH_API_KEY", Token("srch_")),
    ("FEATURE_CHECKOUT_V2", Flag),
    ("FEATURE_GIFT_CARDS", Flag),
    ("FEATURE_DARK_MODE", Flag),
    ("SSR_CACHE_SECONDS", Number(10, 600)),
    ("PUBLIC_URL", Text("https://shop.demo.invalid")),
];

// One line each: these reach destinations that hold no line breaks.
const SMTP: &[Key] = &[
    ("SMTP_HOST", Text("mail.demo.invalid")),
    ("SMTP_PORT", Text("587")),
    ("SMTP_USER", Text("postmaster@demo.invalid")),
    ("SMTP_PASSWORD", Password),
    ("SMTP_URL", Text("smtps://${SMTP_USER}:${SMTP_PASSWORD}@${SMTP_HOST}:${SMTP_PORT}")),
    ("DKIM_SELECTOR", Text("demo2026")),
];

/// Fills a KMS.
pub(super) fn fill(kms: &State, values: &mut Values) {
    kms.add_project_with_id(PROJECT, "Demo Shop", "demo-shop");
    for (slug, name) in ENVIRONMENTS {
        kms.add_environment(PROJECT, slug, name);
        folder(kms, values, slug, SHARED, SMTP, "platform");
        for (path, keys, owner) in [("/payments", PAYMENTS, "payments"), ("/billing", BILLING, "billing"), ("/web", WEB, "storefront")] {
            folder(kms, values, slug, path, COMMON, owner);
            folder(kms, values, slug, path, keys, owner);
            kms.add_import(PROJECT, slug, path, slug, SHARED);
        }
        kms.add_folder(PROJECT, slug, "/payments/workers");
        folder(kms, values, slug, "/payments/workers", &[("QUEUE_TOKEN", Token("q_")), ("WORKER_CONCURRENCY", Number(2, 16))], "payments");
    }
    kms.add_folder(PROJECT, "dev", "/empty");
    // For the warnings: a reference that leads nowhere.
    kms.set(PROJECT, "dev", "/web", "LEGACY_ENDPOINT", "https://${prod.legacy.HOST}/v1");
}

fn folder(kms: &State, values: &mut Values, environment: &str, path: &str, keys: &[Key], owner: &str) {
    for (key, shape) in keys {
        let secret = NewSecret {
            value: values.make(*shape),
            comment: format!("demo value of {owner}"),
            metadata: vec![("owner".to_string(), owner.to_string()), ("environment".to_string(), environment.to_string())],
            tags: Vec::new(),
            skip_multiline_encoding: false,
        };
        kms.put(PROJECT, environment, path, key, secret);
    }
}
