//! Connections: how they are shown, read and tested.

use super::*;

impl Local {
    pub(super) fn view(&self, connection: &Connection, syncs: &[SyncConfig]) -> ConnectionView {
        let is_account = connection.app == source::APP.app;
        let only_account = is_account && self.engine.pool().account(None).is_ok_and(|a| a.id == connection.id);
        let uses = |s: &&SyncConfig| {
            let named = |n: &str| n == connection.name || n == connection.id;
            named(&s.connection_id) || s.source_connection.as_deref().is_some_and(named) || (only_account && s.source_connection.is_none())
        };
        ConnectionView {
            id: connection.id.clone(),
            name: connection.name.clone(),
            app: connection.app.clone(),
            method: connection.method.clone(),
            public: registry::app(&connection.app).map(|spec| connection.public(spec)).unwrap_or_default(),
            held: registry::app(&connection.app).map(|spec| connection.held(spec)).unwrap_or_default(),
            used_by: syncs.iter().filter(uses).map(|s| s.name.clone()).collect(),
        }
    }

    pub(super) fn parse_connection(&self, document: Value) -> Result<Connection> {
        let apps: Vec<&str> = registry::apps().iter().map(|a| a.app).collect();
        let document = self.store.with_stored_credentials(document)?;
        Ok(Connection::parse(&document, registry::app, &apps)?)
    }

    /// Tests a connection, with a target when one is given. What fails at a target that was not
    /// given is told beside: the connection works.
    pub(super) async fn test(&self, connection: &Connection, config: Option<Map>) -> Result<TestReport> {
        let (mut report, failed) = self.test_apart(&Cx::quiet(), connection, config).await?;
        report.notes.extend(failed.map(|f| format!("The target of sync {} does not work: {}", f.sync, f.why)));
        Ok(report)
    }

    /// Without a target, that of a sync which uses the connection is tried: some rights show
    /// only there. Its failure is that target's, not the connection's.
    pub(super) async fn test_apart(&self, cx: &Cx, connection: &Connection, config: Option<Map>) -> Result<(TestReport, Option<TargetFailed>)> {
        if connection.app == source::APP.app {
            return Ok((self.engine.pool().open_source(connection).await?.test(cx).await?, None));
        }
        let session = self.engine.pool().open(connection).await?;
        if config.is_some() {
            return Ok((session.test(cx, config.as_ref()).await?, None));
        }
        let mut syncs = self.store.syncs().into_iter().filter_map(|l| l.result.ok());
        let Some(sync) = syncs.find(|s| s.connection_id == connection.name || s.connection_id == connection.id) else {
            return Ok((session.test(cx, None).await?, None));
        };
        match session.test(cx, Some(&sync.destination_config)).await {
            Ok(report) => Ok((report, None)),
            Err(error) => Ok((session.test(cx, None).await?, Some(TargetFailed { sync: sync.name, why: error.text() }))),
        }
    }
}

/// The target of a sync that failed where its connection works.
pub(super) struct TargetFailed {
    sync: String,
    why: String,
}

impl TargetFailed {
    pub(super) fn finding(self) -> Finding {
        let fix = Some(format!("kms-sync plan {} tries again", self.sync));
        Finding { ok: false, what: format!("target of sync {}", self.sync), detail: self.why, fix }
    }
}

/// OCI refuses requests that are 5 minutes off, AWS those that are 15 off.
const CLOCK_WRONG: i64 = 300;

pub(super) fn clock_finding(skew: i64) -> Finding {
    let way = if skew > 0 { "ahead of" } else { "behind" };
    let (off, wrong) = (skew.abs() > CLOCK_SKEW, skew.abs() > CLOCK_WRONG);
    let detail = if off { format!("{} s {way} the servers'", skew.abs()) } else { "agrees with the servers'".into() };
    let fix = off.then(|| {
        let so = if wrong { "signed requests are refused" } else { "signed requests are refused when it is minutes off" };
        format!("set it, and keep it right by NTP (timedatectl set-ntp true): {so}")
    });
    Finding { ok: !wrong, what: "clock".into(), detail, fix }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_fine_doubtful_or_wrong() {
        for (skew, level) in [(0, "ok"), (-60, "ok"), (61, "warning"), (-300, "warning"), (301, "error"), (-86_400, "error")] {
            let finding = clock_finding(skew);
            assert_eq!(finding.level(), level, "{skew}: {finding:?}");
            assert_eq!(finding.fix.is_some(), level != "ok", "{skew}");
        }
    }
}
