//! boto3 drives the sandbox: if AWS's own client works against it, and sees the errors AWS
//! documents, our picture of the API is right.

use kms_sync::sandbox::aws::{ACCESS_KEY_ID, ROLE_ARN, SECRET_ACCESS_KEY};
use serde_json::json;

use super::lab::{Lab, REGION};
use crate::support::python;

#[tokio::test(flavor = "multi_thread")]
async fn boto3_works_against_the_sandbox() {
    let lab = Lab::new().await;
    let mut sync = lab.sync(json!({"keySchema": "ours/{{secretKey}}"}));
    sync.run(&[("A", "line\n\"é\"🔑")]).await.clean();
    let url = lab.host.url.clone();
    let run = tokio::task::spawn_blocking(move || python::script("aws_sandbox.py", &[&url, REGION, ACCESS_KEY_ID, SECRET_ACCESS_KEY, ROLE_ARN]));
    let Some(output) = run.await.expect("the script ran") else { return };
    assert!(output.contains("all checks passed"), "{output}");
    // And kms-sync goes on over what boto3 left there.
    assert_eq!(lab.value("boto/tagged").as_deref(), Some("second"));
    let mut over = lab.sync(json!({"keySchema": "boto/{{secretKey}}"}));
    over.approve = true;
    let report = over.run(&[("tagged", "third"), ("page-000", "v")]).await.clean();
    assert_eq!((report.count("update"), report.unchanged), (1, 1));
    assert_eq!(report.count("delete"), 119);
}
