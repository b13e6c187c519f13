//! Overlay mounts on the machine's own kernel; all need root or the rights of a user namespace.

use super::*;
use std::os::unix::ffi::OsStrExt as _;

struct Layers {
    dir: tempfile::TempDir,
}

impl Layers {
    fn new() -> Self {
        // The machine's /tmp may itself be an overlay or tmpfs without the xattrs needed; that is an error to see.
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn layer(&self, name: &std::ffi::OsStr, files: &[(&str, &str)]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        for (file, text) in files {
            std::fs::write(path.join(file), text).unwrap();
        }
        path
    }

    fn spec(&self, lowers: Vec<PathBuf>, writable: bool) -> OverlaySpec {
        let upper_work = writable.then(|| (self.layer("up".as_ref(), &[]), self.layer("wk".as_ref(), &[])));
        OverlaySpec {
            form: Form::Trusted,
            lowers,
            upper_work,
            volatile: false,
        }
    }
}

fn read(mount: &OwnedFd, name: &str) -> Result<String, io::Error> {
    std::fs::read_to_string(format!("{}/{name}", magic(mount)))
}

#[test]
fn privileged_upper_lower_order_and_write() {
    let layers = Layers::new();
    let top = layers.layer("top".as_ref(), &[("a", "top")]);
    let bottom = layers.layer("bottom".as_ref(), &[("a", "bottom"), ("b", "bottom")]);
    for form in [Form::Trusted, Form::User] {
        let spec = OverlaySpec {
            form,
            ..layers_spec(&layers, &top, &bottom, form)
        };
        let mount = spec.mount().unwrap();
        assert_eq!(read(&mount, "a").unwrap(), "top");
        assert_eq!(read(&mount, "b").unwrap(), "bottom");
        std::fs::write(format!("{}/c", magic(&mount)), "new").unwrap();
        let upper = &spec.upper_work.as_ref().unwrap().0;
        assert_eq!(std::fs::read_to_string(upper.join("c")).unwrap(), "new");
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mountinfo.contains(upper.to_str().unwrap()),
            "the mount is attached nowhere"
        );
    }
}

fn layers_spec(layers: &Layers, top: &Path, bottom: &Path, form: Form) -> OverlaySpec {
    let name = format!("{form:?}");
    let upper = layers.layer(format!("{name}-up").as_ref(), &[]);
    let work = layers.layer(format!("{name}-wk").as_ref(), &[]);
    OverlaySpec {
        form,
        lowers: vec![top.to_owned(), bottom.to_owned()],
        upper_work: Some((upper, work)),
        volatile: true,
    }
}

#[test]
fn privileged_row22_paths_are_never_parsed_as_options() {
    let layers = Layers::new();
    let odd: &[&[u8]] = &[
        b"a,upperdir=canary",
        b"b:c",
        b"d\\e",
        b"f g\nh",
        b"x\\,y\\:z",
        b"\xff\xfe",
        b"=,=:\\\\",
    ];
    let lowers: Vec<PathBuf> = odd
        .iter()
        .enumerate()
        .map(|(i, name)| layers.layer(std::ffi::OsStr::from_bytes(name), &[(&format!("f{i}"), "x")]))
        .collect();
    for way in [Way::Append, Way::Joined, Way::Page] {
        let mut spec = OverlaySpec {
            lowers: lowers.clone(),
            ..layers_spec_named(&layers, way)
        };
        let mount = spec.mount_by(way).unwrap();
        for i in 0..odd.len() {
            assert_eq!(read(&mount, &format!("f{i}")).unwrap(), "x", "{way:?} layer {i}");
        }
        std::fs::write(format!("{}/w", magic(&mount)), "w").unwrap();
        let (upper, _) = spec.upper_work.take().unwrap();
        assert!(upper.join("w").exists(), "{way:?}");
    }
}

fn layers_spec_named(layers: &Layers, way: Way) -> OverlaySpec {
    let upper = layers.layer(format!("{way:?},:\\up").as_ref(), &[]);
    let work = layers.layer(format!("{way:?},:\\wk").as_ref(), &[]);
    OverlaySpec {
        form: Form::Trusted,
        lowers: Vec::new(),
        upper_work: Some((upper, work)),
        volatile: false,
    }
}

#[test]
fn privileged_row22_layer_limits_are_named() {
    let layers = Layers::new();
    let deep = "d".repeat(200);
    let mut lowers = Vec::new();
    for i in 0..LOWERS_MAX {
        let layer = layers.layer(format!("{deep}{i}").as_ref(), &[]);
        std::fs::write(layer.join(format!("f{i}")), "").unwrap();
        lowers.push(layer);
    }
    let spec = layers.spec(lowers.clone(), false);
    let mount = spec.mount().unwrap();
    assert!(
        read(&mount, &format!("f{}", LOWERS_MAX - 1)).is_ok(),
        "500 layers of 200-byte names are stacked"
    );

    let half = OverlaySpec {
        lowers: lowers[..150].to_vec(),
        ..spec.clone()
    };
    let joined = half.mount_by(Way::Joined).unwrap_err();
    assert!(
        matches!(joined, OverlayError::TooManyLayers { found: 150, max } if max > 5),
        "{joined}"
    );
    assert!(
        half.mount_joined().is_ok(),
        "what does not fit fsconfig fits a page"
    );

    lowers.push(lowers[0].clone());
    let over = OverlaySpec { lowers, ..spec }.mount().unwrap_err();
    assert!(
        matches!(over, OverlayError::TooManyLayers { found: 501, max: 500 }),
        "{over}"
    );
}

#[test]
fn privileged_one_lower_is_a_read_only_clone() {
    let layers = Layers::new();
    let only = layers.layer("only".as_ref(), &[("a", "1")]);
    let mount = layers.spec(vec![only.clone()], false).mount().unwrap();
    assert_eq!(read(&mount, "a").unwrap(), "1");
    let refused = std::fs::write(format!("{}/a", magic(&mount)), "2").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
    std::fs::write(only.join("a"), "3").unwrap();
    assert!(matches!(
        layers.spec(Vec::new(), false).mount(),
        Err(OverlayError::NoLower)
    ));
}

#[test]
fn privileged_forged_redirects_lead_nowhere() {
    let layers = Layers::new();
    let bottom = layers.layer("bottom".as_ref(), &[]);
    std::fs::create_dir(bottom.join("hidden")).unwrap();
    std::fs::write(bottom.join("hidden/secret"), "s").unwrap();
    let top = layers.layer("top".as_ref(), &[]);
    std::fs::create_dir(top.join("d")).unwrap();
    for name in ["trusted.overlay.redirect", "user.overlay.redirect"] {
        rustix::fs::setxattr(top.join("d"), name, b"/hidden", rustix::fs::XattrFlags::empty()).unwrap();
    }
    for form in [Form::Trusted, Form::User] {
        let spec = OverlaySpec {
            form,
            lowers: vec![top.clone(), bottom.clone()],
            upper_work: None,
            volatile: false,
        };
        let mount = spec.mount().unwrap();
        assert!(read(&mount, "d/secret").is_err(), "{form:?}");
        assert_eq!(read(&mount, "hidden/secret").unwrap(), "s");
    }
}

#[test]
fn privileged_errors_carry_the_kernel_log() {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    let refused = rustix::mount::fsconfig_set_string(&context, "no_such_option", "x").unwrap_err();
    let error = logged("no_such_option", refused, context.as_fd());
    assert!(
        error.to_string().contains("Unknown parameter 'no_such_option'"),
        "{error}"
    );
    assert_eq!(context_log(context.as_fd()), "", "each message is read once");

    let layers = Layers::new();
    let bottom = layers.layer("bottom".as_ref(), &[]);
    let upper = layers.layer("upper".as_ref(), &[]);
    let work = upper.join("work");
    std::fs::create_dir(&work).unwrap();
    let spec = OverlaySpec {
        form: Form::Trusted,
        lowers: vec![bottom],
        upper_work: Some((upper, work)),
        volatile: false,
    };
    let nested = spec.mount().unwrap_err();
    assert!(
        matches!(nested, OverlayError::Mount { step: "create", .. }),
        "{nested}"
    );
    let missing = OverlaySpec {
        upper_work: None,
        lowers: vec!["/nonexistent/a".into(), "/".into()],
        ..spec
    };
    assert!(
        matches!(missing.mount(), Err(OverlayError::Open { path, .. }) if path == Path::new("/nonexistent/a"))
    );
}
