//! Devices by name, and what becomes of a plan.

use std::ffi::OsString;

use rbuild_sandbox::{DeviceKind, MountKind, OverlayPlan, Plan, RootPlan, Source};
use rbuild_sys::overlay::Form;

use super::*;

/// Specs in two directories, the second of which counts.
fn devices(first: &[(&str, &str)], second: &[(&str, &str)]) -> Devices {
    let dir = tempfile::tempdir().unwrap();
    let mut config = CdiConfig {
        dirs: Vec::new(),
        auto_allowed: vec!["v.com/free".to_owned(), "v.com/one=b".to_owned()],
    };
    for (name, files) in [("1", first), ("2", second), ("missing", &[])] {
        let place = dir.path().join(name);
        config.dirs.push(place.clone());
        if name != "missing" {
            std::fs::create_dir(&place).unwrap();
        }
        for (name, text) in files {
            std::fs::write(place.join(name), text).unwrap();
        }
    }
    Devices::read(&config)
}

fn spec(kind: &str, devices: &str) -> String {
    format!("cdiVersion: 0.6.0\nkind: {kind}\nannotations: {{class.all: v}}\ndevices:\n{devices}")
}

fn plain(name: &str) -> String {
    format!("- {{name: {name}, containerEdits: {{env: [{name}=1]}}}}\n")
}

fn wanted(name: &str, optional: bool) -> CdiDevice {
    CdiDevice {
        name: name.to_owned(),
        optional,
    }
}

fn names(found: Result<Vec<&Device>, CdiError>) -> Vec<String> {
    found
        .unwrap()
        .into_iter()
        .map(|device| device.name.clone())
        .collect()
}

#[test]
fn names_kinds_wildcards_and_classes_mean_devices() {
    let classed = "- {name: x, annotations: {org.mobyproject.buildkit.device.class: c1}, containerEdits: {env: [X=1]}}\n";
    let devices = devices(
        &[
            ("a.yaml", &spec("v.com/one", &(plain("b") + &plain("a")))),
            ("b.json", &spec("v.com/two", classed)),
            ("c.txt", "this is no spec"),
        ],
        &[],
    );
    assert!(devices.problems.is_empty(), "{:?}", devices.problems);
    let mut all = DeviceGrants::default();
    all.add("").unwrap();
    let means = |name: &str| names(devices.granted(&[wanted(name, false)], &all));
    assert_eq!(means("v.com/one"), ["v.com/one=a"]);
    assert_eq!(means("v.com/one=b"), ["v.com/one=b"]);
    assert_eq!(means("v.com/one=*"), ["v.com/one=a", "v.com/one=b"]);
    assert_eq!(means("c1"), ["v.com/two=x"]);
    let twice = [wanted("v.com/one=*", false), wanted("v.com/one=a", false)];
    assert_eq!(
        names(devices.granted(&twice, &all)),
        ["v.com/one=a", "v.com/one=b"]
    );
    let missing = devices
        .granted(&[wanted("v.com/one=z", false)], &all)
        .unwrap_err();
    assert_eq!(
        missing.to_string(),
        "failed to load LLB: required device \"v.com/one=z\" is not registered"
    );
    assert!(names(devices.granted(&[wanted("v.com/one=z", true)], &all)).is_empty());
}

#[test]
fn row49_devices_are_not_given_without_a_word() {
    let devices = devices(
        &[
            (
                "a.yaml",
                &spec("v.com/one", &(plain("a") + &plain("b") + &plain("c"))),
            ),
            ("b.yaml", &spec("v.com/free", &plain("f"))),
        ],
        &[],
    );
    let grants = |texts: &[&str]| {
        let mut grants = DeviceGrants::default();
        for text in texts {
            grants.add(text).unwrap();
        }
        grants
    };
    let none = grants(&[]);
    let free = [wanted("v.com/free", false), wanted("v.com/one=b", false)];
    assert_eq!(
        names(devices.granted(&free, &none)),
        ["v.com/free=f", "v.com/one=b"]
    );
    let ask = [wanted("v.com/one=*", false)];
    let refused = devices.granted(&ask, &none).unwrap_err().to_string();
    assert_eq!(
        refused,
        "failed to load LLB: devices v.com/one=a, v.com/one=c are requested by the build but not allowed"
    );
    let twice = [
        wanted("v.com/one=*", false),
        wanted("v.com/one=a", false),
        wanted("v.com/one=c", false),
    ];
    assert_eq!(devices.granted(&twice, &none).unwrap_err().to_string(), refused);
    let refused = devices
        .granted(&ask, &grants(&["v.com/one=c"]))
        .unwrap_err()
        .to_string();
    assert_eq!(
        refused,
        "failed to load LLB: device v.com/one=a is requested by the build but not allowed"
    );
    assert_eq!(names(devices.granted(&ask, &grants(&["v.com/one=*"]))).len(), 3);
    // What is allowed and not there is told as soon as a step asks for a device (BuildKit 73ed6825: `ValidateEntitlements`).
    let gone = grants(&["v.com/one=*", "x.com/gone"]);
    assert_eq!(
        devices.granted(&ask, &gone).unwrap_err().to_string(),
        "failed to load LLB: required device \"x.com/gone\" is not registered"
    );
    assert!(names(devices.granted(&[wanted("v.com/one=z", true)], &gone)).is_empty());
    let alias = grants(&["v.com/one=a,alias=mine"]);
    assert_eq!(
        names(devices.granted(&[wanted("mine", false)], &alias)),
        ["v.com/one=a"]
    );
    assert!(devices.granted(&[wanted("v.com/one=a", false)], &alias).is_err());
}

#[test]
fn later_directories_count_and_two_specs_of_one_do_not() {
    let marked = |value: &str| {
        let device = format!("- {{name: a, containerEdits: {{env: [A={value}]}}}}\n");
        spec("v.com/one", &device)
    };
    let (first, second) = (marked("1"), marked("2"));
    let devices_of = |one: &[(&str, &str)], two: &[(&str, &str)]| devices(one, two);
    let found = devices_of(&[("a.yaml", &first)], &[("a.yaml", &second)]);
    assert_eq!(found.all["v.com/one=a"].edits.env, ["A=2"]);
    let found = devices_of(
        &[("a.yaml", &first), ("b.yaml", &second), ("c.yaml", "kind: [")],
        &[],
    );
    assert!(found.all.is_empty());
    let told = found
        .granted(&[wanted("v.com/one=a", false)], &DeviceGrants::default())
        .unwrap_err();
    let told = told.to_string();
    assert!(
        told.contains("conflicting device") && told.contains("c.yaml: line"),
        "{told}"
    );
}

fn plan() -> Plan {
    let overlay = OverlayPlan {
        form: Form::Trusted,
        lowers: Vec::new(),
        upper: None,
        work: None,
        volatile: false,
    };
    let root = RootPlan {
        source: Source::Overlay(overlay),
        readonly: false,
    };
    let mut plan = Plan::new(root, Vec::new());
    plan.process.env = vec!["A=old".into(), "AB=kept".into()];
    plan.process.ids.uid = 7;
    plan
}

fn injected(edits: &str) -> Result<Plan, InjectError> {
    let device = format!(
        "- name: a\n  containerEdits:\n    {}",
        edits.replace('\n', "\n    ")
    );
    let text = spec("v.com/one", &device) + "\ncontainerEdits: {env: [COMMON=1]}\n";
    let found = devices(&[("a.yaml", &text)], &[]);
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    let mut plan = plan();
    inject(&mut plan, &[&found.all["v.com/one=a"]]).map(|()| plan)
}

#[test]
fn what_a_device_needs_is_in_the_plan() {
    let plan = injected(
        "env: [A=new, N=1]\nadditionalGids: [0, 5, 5]\ndeviceNodes:\n- path: /dev/zero\n- {path: /dev/other, hostPath: /gone, type: b, major: 3, minor: 4, fileMode: 0600, uid: 1, gid: 2}\nmounts:\n- {hostPath: /usr, containerPath: /vendor, options: [ro, nosuid, rbind]}",
    );
    let plan = plan.unwrap();
    let env: Vec<OsString> = ["A=new", "AB=kept", "COMMON=1", "N=1"].map(Into::into).to_vec();
    assert_eq!(plan.process.env, env);
    assert_eq!(plan.process.ids.groups, [0, 5]);
    let [zero, other, tree] = plan.mounts.as_slice() else {
        panic!("two nodes and a tree, not {:?}", plan.mounts);
    };
    let MountKind::Device(zero) = &zero.kind else {
        panic!("{zero:?}")
    };
    assert_eq!(
        (zero.kind, zero.major, zero.minor, zero.mode),
        (DeviceKind::Character, 1, 5, 0o666)
    );
    assert_eq!((zero.uid, zero.gid), (7, 0), "the process's");
    let MountKind::Device(other) = &other.kind else {
        panic!("{other:?}")
    };
    assert_eq!(
        (other.kind, other.major, other.minor, other.mode),
        (DeviceKind::Block, 3, 4, 0o600)
    );
    assert_eq!((other.uid, other.gid), (1, 2));
    let MountKind::HostTree(host) = &tree.kind else {
        panic!("{tree:?}")
    };
    assert!(host.readonly && !host.noexec && tree.dest == Path::new("/vendor"));
}

#[test]
fn row49_what_cannot_be_given_is_refused() {
    for (edits, told) in [
        (
            "hooks: [{hookName: prestart, path: /x}]",
            "device v.com/one=a needs hooks",
        ),
        ("intelRdt: {closID: x}", "needs intelRdt"),
        (
            "deviceNodes: [{path: /dev/zero, permissions: r}]",
            "with permissions \"r\"",
        ),
        (
            "deviceNodes: [{path: /dev/zero, type: b}]",
            "is not of type \"b\"",
        ),
        (
            "deviceNodes: [{path: /gone}]",
            "failed to stat CDI host device \"/gone\"",
        ),
        ("deviceNodes: [{path: /etc/passwd}]", "is not of type"),
        ("deviceNodes: [{path: /x, type: p}]", "needs the pipe /x"),
        (
            "mounts: [{hostPath: /a, containerPath: /b, type: tmpfs}]",
            "a mount of type tmpfs",
        ),
        (
            "mounts: [{hostPath: /a, containerPath: /b, options: [idmap]}]",
            "the option \"idmap\"",
        ),
    ] {
        let error = injected(edits).unwrap_err().to_string();
        assert!(error.contains(told), "{edits}: {error}");
    }
}
