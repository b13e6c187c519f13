//! What a front end that is an image is started with (`frontend/gateway/gateway.go`, `frontend/gateway/grpcclient`).

use std::collections::BTreeMap;

use bollard_buildkit_proto::moby::buildkit::v1::types::WorkerRecord;
use rbuild_graph::ExecMeta;
use rbuild_oci::ImageConfig;
use serde::Serialize;

/// What front ends are told they are a part of (`util/apicaps`, `ExportedProduct`).
const PRODUCT: &str = "buildkit";

/// A worker as front ends read it (`client.WorkerInfo`).
#[derive(Serialize)]
struct WorkerInfo<'a> {
    id: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
    platforms: Vec<PlatformInfo<'a>>,
}

#[derive(Serialize)]
struct PlatformInfo<'a> {
    architecture: &'a str,
    os: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    variant: &'a str,
}

/// The process of a front end.
pub(super) fn meta(
    config: &ImageConfig,
    attrs: &BTreeMap<String, String>,
    session: &str,
    worker: &WorkerRecord,
) -> ExecMeta {
    let config = &config.config;
    let mut env = config.env.clone();
    for (number, (key, value)) in attrs.iter().enumerate() {
        env.push(format!("BUILDKIT_FRONTEND_OPT_{number}={key}={value}"));
    }
    env.push(format!("BUILDKIT_SESSION_ID={session}"));
    env.push(format!("BUILDKIT_WORKERS={}", workers(worker)));
    env.push(format!("BUILDKIT_EXPORTEDPRODUCT={PRODUCT}"));
    let args = if config.entrypoint.is_empty() {
        vec!["/run".to_owned()]
    } else {
        config.entrypoint.clone()
    };
    ExecMeta {
        args,
        env,
        cwd: if config.working_dir.is_empty() {
            "/".to_owned()
        } else {
            config.working_dir.clone()
        },
        remove_mount_stubs_recursive: true,
        ..ExecMeta::default()
    }
}

fn workers(worker: &WorkerRecord) -> String {
    let info = WorkerInfo {
        id: &worker.id,
        labels: worker
            .labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect(),
        platforms: worker
            .platforms
            .iter()
            .map(|platform| PlatformInfo {
                architecture: &platform.architecture,
                os: &platform.os,
                variant: &platform.variant,
            })
            .collect(),
    };
    // Texts in a plain structure always become JSON.
    serde_json::to_string(&[info]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_defaults() {
        let attrs = BTreeMap::from([
            ("filename".to_owned(), "a=b".to_owned()),
            ("target".to_owned(), String::new()),
        ]);
        let worker = WorkerRecord {
            id: "w".to_owned(),
            ..WorkerRecord::default()
        };
        let mut config = ImageConfig::default();
        let made = meta(&config, &attrs, "s1", &worker);
        assert_eq!(
            (made.args.as_slice(), made.cwd.as_str()),
            (&["/run".to_owned()][..], "/")
        );
        assert_eq!(
            made.env,
            [
                "BUILDKIT_FRONTEND_OPT_0=filename=a=b",
                "BUILDKIT_FRONTEND_OPT_1=target=",
                "BUILDKIT_SESSION_ID=s1",
                r#"BUILDKIT_WORKERS=[{"id":"w","labels":{},"platforms":[]}]"#,
                "BUILDKIT_EXPORTEDPRODUCT=buildkit",
            ]
        );
        config.config.entrypoint = vec!["/bin/fe".to_owned(), "-x".to_owned()];
        config.config.working_dir = "/w".to_owned();
        config.config.env = vec!["A=b".to_owned()];
        let made = meta(&config, &BTreeMap::new(), "s1", &worker);
        assert_eq!(
            (made.args.len(), made.cwd.as_str(), made.env[0].as_str()),
            (2, "/w", "A=b")
        );
    }
}
