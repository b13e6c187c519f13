//! Specs that are read, and specs that are not.

use super::*;

const WHOLE: &str = r#"
cdiVersion: 0.7.0
kind: vendor.com/net-card
annotations:
  a.b: true
containerEdits:
  additionalGids: [0, 44]
devices:
- name: "0"
  annotations: {c: d}
  containerEdits:
    env: [A=b, "C=d e"]
    deviceNodes:
    - path: /dev/card0
      hostPath: /dev/dri/card0
      type: c
      major: 226
      minor: 1
      fileMode: 0660
      permissions: rw
      uid: 1
      gid: 2
    mounts:
    - {hostPath: /usr/lib/x.so, containerPath: /lib/x.so, options: [ro, bind]}
    hooks: []
- name: all
  containerEdits:
    hooks:
    - {hookName: createContainer, path: /bin/hook}
"#;

#[test]
fn everything_is_read() {
    let spec = parse(WHOLE).unwrap();
    assert_eq!(
        (spec.kind.as_str(), spec.edits.groups.as_slice()),
        ("vendor.com/net-card", &[0, 44][..])
    );
    assert_eq!(spec.annotations["a.b"], "true");
    let [first, all] = spec.devices.as_slice() else {
        panic!("two devices, not {:?}", spec.devices);
    };
    assert_eq!((first.name.as_str(), first.annotations["c"].as_str()), ("0", "d"));
    assert_eq!(first.edits.env, ["A=b", "C=d e"]);
    assert_eq!(
        first.edits.nodes,
        [NodeEdit {
            path: "/dev/card0".to_owned(),
            host_path: Some("/dev/dri/card0".to_owned()),
            kind: Some("c".to_owned()),
            major: 226,
            minor: 1,
            mode: Some(0o660),
            permissions: "rw".to_owned(),
            uid: Some(1),
            gid: Some(2),
        }]
    );
    assert_eq!(first.edits.mounts[0].options, ["ro", "bind"]);
    assert!(first.edits.others.is_empty());
    assert_eq!(all.edits.others, ["hooks"]);
}

#[test]
fn row48_specs_that_mean_something_else_are_refused() {
    let refused = |from: &str, to: &str| {
        let text = WHOLE.replacen(from, to, 1);
        assert_ne!(text, WHOLE, "{from}");
        parse(&text).unwrap_err().to_string()
    };
    for (from, to, told) in [
        ("0.7.0", "9.7.0", "invalid version \"9.7.0\""),
        ("vendor.com/net-card", "net-card", "invalid kind \"net-card\""),
        ("vendor.com/", "1vendor/", "invalid kind"),
        ("name: \"0\"", "name: \"../0\"", "invalid device name \"../0\""),
        ("name: all", "name: \"0\"", "multiple device \"0\""),
        ("A=b", "=b", "invalid environment variable \"=b\""),
        ("type: c", "type: x", "invalid device type \"x\""),
        ("permissions: rw", "permissions: rx", "invalid permissions \"rx\""),
        (
            "major: 226",
            "major: many",
            "field \"devices.containerEdits.deviceNodes.major\" is not a number",
        ),
        (
            "uid: 1",
            "owner: 1",
            "unknown field \"devices.containerEdits.deviceNodes.owner\"",
        ),
        ("hostPath: /usr/lib/x.so", "hostPath: \"\"", "invalid host path"),
        (
            "env: [A=b, \"C=d e\"]",
            "env: A=b",
            "field \"devices.containerEdits.env\" is not a sequence",
        ),
        ("annotations: {c: d}", "annotations: {c: [d]}", "is not a text"),
    ] {
        let error = refused(from, to);
        assert!(error.contains(told), "{to}: {error}");
    }
    let none = "cdiVersion: 0.6.0\nkind: a.b/c\ndevices: []\n";
    assert!(matches!(parse(none), Err(SpecError::NoDevices)));
    let empty = "cdiVersion: 0.6.0\nkind: a.b/c\ndevices:\n- name: d\n  containerEdits: {}\n";
    assert!(matches!(parse(empty), Err(SpecError::Empty(_))));
}
