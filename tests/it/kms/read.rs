//! Readings: both generations, imports, completeness, conditions.

use std::time::Duration;

use kms_sync::http::{Cx, ErrorKind};
use kms_sync::sandbox::host::{Effect, Fault};
use kms_sync::sandbox::kms::{Generation, NewSecret, Right};
use kms_sync::source::{Polled, SourceRef};

use super::{Bed, pairs};

#[tokio::test]
async fn current_and_old_servers_give_the_same_map() {
    for generation in [Generation::Now, Generation::EarlyV4, Generation::Y2024] {
        let bed = Bed::start().await;
        bed.state.switch(|s| s.generation = generation);
        bed.set("dev", "/app", "A", "own");
        bed.set("dev", "/app", "URL", "http://${HOST}/${shared.smtp.USER}");
        bed.set("dev", "/app", "HOST", "h");
        bed.set("shared", "/smtp", "USER", "mailer");
        bed.set("shared", "/smtp", "A", "imported");
        bed.set("shared", "/smtp", "GREETING", "hello ${USER}");
        bed.state.add_import(&bed.project, "dev", "/app", "shared", "/smtp");
        let map = bed.read("dev", "/app/").await;
        assert_eq!(pairs(&map), ["A=own", "GREETING=hello mailer", "HOST=h", "URL=http://h/mailer", "USER=mailer"], "{generation:?}");
        assert!(map.complete(), "{generation:?}: {:?}", map.incomplete);
        assert_eq!(map.environment_name.as_deref(), Some("Development"));
        assert!(map.folder_id.is_some() && map.environment_id.is_some(), "{generation:?}");
        assert_eq!(map.imports, ["shared:/smtp"]);
        assert_eq!(map.own_keys, ["A", "HOST", "URL"]);
        assert_eq!(map.secrets[1].origin.as_deref(), Some("shared:/smtp"));
        assert!(map.warnings.is_empty(), "{:?}", map.warnings);
    }
}
