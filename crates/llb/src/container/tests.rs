//! Containers as clients ask for them, legal and hostile.

use rbuild_graph::{MountKind, NetMode};

use super::*;

fn mount(dest: &str, result: &str) -> pb::Mount {
    pb::Mount {
        dest: dest.to_owned(),
        result_id: result.to_owned(),
        // What clients leave at zero must not count as an input or an output.
        ..pb::Mount::default()
    }
}

fn request(mounts: Vec<pb::Mount>) -> NewContainerRequest {
    NewContainerRequest {
        mounts,
        ..NewContainerRequest::default()
    }
}

fn init(args: &[&str]) -> InitMessage {
    InitMessage {
        meta: Some(pb::Meta {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            ..pb::Meta::default()
        }),
        ..InitMessage::default()
    }
}

#[test]
fn mounts_name_results_or_nothing() {
    let asked = request(vec![mount("/", "r1"), mount("/new", ""), mount("rel", "r2")]);
    let made = container(&asked).unwrap();
    assert_eq!(made.inputs, ["r1", "r2"]);
    let places: Vec<_> = made
        .exec
        .mounts
        .iter()
        .map(|mount| (mount.dest.as_str(), mount.input, mount.output))
        .collect();
    assert_eq!(
        places,
        [
            ("/", Some(0), None),
            ("/new", None, None),
            ("/rel", Some(1), None)
        ]
    );
    assert!(made.exec.mounts.iter().all(|mount| mount.kind == MountKind::Bind));
    assert_eq!(made.exec.network, NetMode::Unset);
}

#[test]
fn row49_numbers_that_mean_nothing_are_refused() {
    for number in [2, 7, -1, i32::MIN] {
        let asked = InitMessage {
            security: number,
            ..init(&["true"])
        };
        let error = process(&asked).unwrap_err();
        assert_eq!(error.to_string(), format!("invalid security mode {number}"));
        let asked = NewContainerRequest {
            network: number + 1,
            ..request(vec![mount("/", "r")])
        };
        if !(0..=2).contains(&(number + 1)) {
            container(&asked).unwrap_err();
        }
        let mut odd = mount("/x", "");
        odd.mount_type = if number == 2 { 99 } else { number };
        container(&request(vec![odd])).unwrap_err();
    }
    assert_eq!(process(&init(&["true"])).unwrap().security, SecurityMode::Sandbox);
}

#[test]
fn row49_a_process_gets_no_limits_cgroups_or_proxies_of_its_own() {
    let mut asked = init(&["true"]);
    let meta = asked.meta.as_mut().unwrap();
    meta.cgroup_parent = "/other".to_owned();
    meta.proxy_env = Some(pb::ProxyEnv::default());
    meta.valid_exit_codes = vec![1];
    meta.env = vec!["A=b".to_owned()];
    let made = process(&asked).unwrap().meta;
    assert_eq!(
        made,
        ExecMeta {
            args: vec!["true".to_owned()],
            env: vec!["A=b".to_owned()],
            ..ExecMeta::default()
        }
    );
}

#[test]
fn what_is_missing_or_too_much_is_said() {
    process(&InitMessage::default()).unwrap_err();
    process(&init(&[])).unwrap_err();
    let mut unnamed = init(&["true"]);
    unnamed.secretenv = vec![pb::SecretEnv {
        name: "TOKEN".to_owned(),
        ..pb::SecretEnv::default()
    }];
    assert!(process(&unnamed).unwrap_err().to_string().contains("TOKEN"));
    let hosts = NewContainerRequest {
        extra_hosts: vec![pb::HostIp {
            host: "a".to_owned(),
            ip: "1.2.3".to_owned(),
        }],
        ..request(vec![mount("/", "r")])
    };
    assert_eq!(
        container(&hosts).unwrap_err().to_string(),
        "failed to parse IP 1.2.3"
    );
    let many = request(vec![mount("/x", ""); MOUNTS_MAX + 1]);
    assert!(matches!(container(&many), Err(ContainerRequestError::Mounts(_))));
}
