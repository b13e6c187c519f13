//! Devices of the host: listed, given to steps that may have them, refused to others.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::moby::buildkit::v1::ListWorkersRequest;
use bollard_buildkit_proto::moby::buildkit::v1::control_server::Control as _;
use rbuild_builder::cdi::CdiConfig;
use rbuild_sandbox::Sandbox;
use rbuild_server::core::Settings;
use tempfile::TempDir;
use tonic::{Request, Status};

use crate::bench::{Bench, dockerfile};
use crate::builds::files;
use crate::gateway::program;

const SPEC: &str = r#"
cdiVersion: "0.6.0"
kind: "vendor.test/card"
containerEdits:
  env: [CARDS=yes]
devices:
- name: free
  annotations:
    org.mobyproject.buildkit.device.autoallow: true
  containerEdits:
    env: [FREE=yes]
- name: kept
  containerEdits:
    deviceNodes:
    - {path: /dev/card, hostPath: /dev/zero}
"#;

/// A server that knows the devices of [`SPEC`], if `enabled`; nothing, with the reason printed, without busybox.
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
pub(crate) fn bench(enabled: bool) -> Option<(Bench, TempDir)> {
    if !Path::new("/bin/busybox").exists() {
        assert!(
            std::env::var_os("RBUILD_REQUIRE_PEERS").is_none(),
            "RBUILD_REQUIRE_PEERS is set and there is no /bin/busybox"
        );
        println!("SKIP: /bin/busybox is missing (apt-get install busybox-static)");
        return None;
    }
    let specs = tempfile::tempdir().unwrap();
    std::fs::write(specs.path().join("card.yaml"), SPEC).unwrap();
    let cdi = CdiConfig {
        dirs: vec![specs.path().to_owned()],
        auto_allowed: Vec::new(),
    };
    let settings = Settings {
        cdi: enabled.then_some(cdi),
        ..Settings::default()
    };
    let sandbox = Sandbox::with_program(program()).unwrap();
    Some((Bench::with_settings(sandbox, settings), specs))
}

/// What `/out` says after a step with `flag`, in a build that may do what `allowed` says.
async fn run(bench: &Bench, id: &str, flag: &str, allowed: &[&str]) -> Result<String, Status> {
    let script = "(env | grep -E 'CARDS|FREE' | sort; head -c 3 /dev/card | wc -c) >/out 2>&-; true";
    let text = format!(
        "FROM scratch AS run\nCOPY bin /bin\nRUN --device={flag} {script}\nFROM scratch\nCOPY --from=run /out /out\n"
    );
    let context = bench.files(id, &[("Dockerfile", &text)]);
    std::fs::create_dir_all(context.join("bin")).unwrap();
    std::fs::copy("/bin/busybox", context.join("bin/busybox")).unwrap();
    std::fs::set_permissions(context.join("bin/busybox"), Permissions::from_mode(0o755)).unwrap();
    for name in ["sh", "env", "sort", "grep", "head", "wc", "true"] {
        symlink("busybox", context.join("bin").join(name)).unwrap();
    }
    let out = Arc::new(Mutex::new(Vec::new()));
    let _client = bench.client(id, &context, &out).await;
    let mut request = dockerfile(id, id, "tar", &[]);
    request.entitlements = allowed.iter().map(|name| (*name).to_owned()).collect();
    bench.solve(request).await?;
    let found = files(&out.lock().unwrap());
    Ok(found["out"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row49_steps_get_the_devices_they_may_have() {
    let Some((bench, _specs)) = bench(true) else {
        return;
    };
    let workers = bench
        .control
        .list_workers(Request::new(ListWorkersRequest::default()));
    let worker = workers.await.unwrap().into_inner().record.remove(0);
    let listed: Vec<(&str, bool)> = worker
        .cdi_devices
        .iter()
        .map(|device| (device.name.as_str(), device.auto_allow))
        .collect();
    assert_eq!(
        listed,
        [("vendor.test/card=free", true), ("vendor.test/card=kept", false)]
    );
    let free = run(&bench, "free", "vendor.test/card=free", &[]).await.unwrap();
    assert_eq!(free, "CARDS=yes\nFREE=yes\n0\n");
    let refused = run(&bench, "refused", "vendor.test/card=kept", &[])
        .await
        .unwrap_err();
    assert!(
        refused
            .message()
            .contains("device vendor.test/card=kept is requested by the build but not allowed"),
        "{refused}"
    );
    for (id, allowed) in [("all", "device"), ("kind", "device=vendor.test/card=*")] {
        let kept = run(&bench, id, "vendor.test/card=kept", &[allowed])
            .await
            .unwrap();
        assert_eq!(kept, "CARDS=yes\n3\n", "{allowed}");
    }
    // It was allowed once, and its result is there; that is no permission.
    assert!(run(&bench, "again", "vendor.test/card=kept", &[]).await.is_err());
    let optional = run(&bench, "optional", "vendor.test/none=x", &[]).await.unwrap();
    assert_eq!(optional, "0\n");
    let required = run(&bench, "required", "vendor.test/none=x,required", &[])
        .await
        .unwrap_err();
    assert!(
        required
            .message()
            .contains("required device \"vendor.test/none=x\" is not registered")
    );
    let unknown = run(&bench, "unknown", "x", &["device=a,b=c"]).await.unwrap_err();
    assert!(
        unknown.message().contains("unknown device config key"),
        "{unknown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row49_devices_can_be_switched_off() {
    let Some((bench, _specs)) = bench(false) else {
        return;
    };
    let refused = run(&bench, "a", "vendor.test/card=free,required", &["device"])
        .await
        .unwrap_err();
    assert!(
        refused
            .message()
            .contains("granting entitlement device is not allowed by build daemon configuration"),
        "{refused}"
    );
    let disabled = run(&bench, "b", "vendor.test/card=free,required", &[])
        .await
        .unwrap_err();
    assert!(disabled.message().contains("CDI is disabled"), "{disabled}");
    assert_eq!(
        run(&bench, "c", "vendor.test/card=free", &[]).await.unwrap(),
        "0\n"
    );
}
