//! AWS Secrets Manager: our destination against moto (a third-party server, checked with
//! boto3) and against the sandbox (which is as strict as the service and can be made to fail).

mod direct;
mod document;
mod faults;
mod identity;
mod items;
mod lab;
mod moto;
mod tls;
mod vendor;
