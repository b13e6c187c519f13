//! Marks of overlayfs that a step sets itself (row 7): on each rung and with each way of showing layers they hide nothing, from the
//! next step, from another way of showing the same layers, and from the image.

use rbuild_testkit::image::Files;

use crate::e2e::hostile::canary::{Rung, Site};
use crate::e2e::rows::program_in_context;

/// Paths with an attribute by which layers are shown, or owners are recorded: in an image they would hide and forge elsewhere.
fn marked(files: &Files) -> Vec<String> {
    let is_mark = |name: &String| name.starts_with("user.overlay.") || name.starts_with("user.rbuild.");
    files
        .paths()
        .filter(|path| files.get(path).unwrap().xattrs.keys().any(is_mark))
        .map(str::to_owned)
        .collect()
}

#[test]
fn row07_marks_that_a_step_sets_hide_nothing_however_layers_are_shown() {
    for rung in Rung::here() {
        let site = Site::on(
            rung,
            "FROM busybox AS marked
COPY marks /bin/
RUN marks > /said
FROM marked AS last
RUN (ls /etc; ls -A /forged /home/hidden; ls /bin | wc -l; stat -c '%a %u %g %s' /etc/group /home /forged/passwd) > /seen
",
        );
        if program_in_context(&site.fixture, "marks").is_none() {
            return;
        }
        // Layers that are made of copies, then the same layers by each way that this rung has.
        let build = |snapshotter: &str| {
            let args = [
                format!("--snapshotter={snapshotter}"),
                "--no-cache-filter=last".to_owned(),
            ];
            site.works(&args)
        };
        let copies = build("native");
        assert_eq!(marked(&copies), [""; 0], "{rung:?}: exported");
        let said = copies.text("said").unwrap_or_default().to_owned();
        assert!(said.contains(": DONE"), "{rung:?}: something was set\n{said}");
        let seen = copies.text("seen").unwrap_or_default().to_owned();
        for name in ["passwd", "shadow", "/home/hidden:\nfile", "/forged:\npasswd"] {
            assert!(seen.contains(name), "{rung:?}: {name}\n{seen}");
        }
        assert!(
            seen.contains("755 0 0 "),
            "{rung:?}: no owner and no mode was forged\n{seen}"
        );
        if rung == Rung::Chroot {
            continue;
        }
        let overlay = build("overlayfs");
        assert_eq!(
            overlay.text("seen"),
            Some(seen.as_str()),
            "{rung:?}: of the layers that were copies"
        );
        assert_eq!(overlay.table().len(), copies.table().len(), "{rung:?}");
        assert_eq!(marked(&overlay), [""; 0], "{rung:?}: exported");
        // And the other way round.
        let site = Site::on(
            rung,
            "FROM busybox\nCOPY marks /bin/\nRUN marks > /said; ls -A /forged > /seen\n",
        );
        program_in_context(&site.fixture, "marks").expect("it was compiled before");
        let files = site.works(&["--snapshotter=overlayfs".to_owned()]);
        assert_eq!(files.text("seen"), Some("passwd\n"), "{rung:?}");
        assert_eq!(marked(&files), [""; 0], "{rung:?}: exported");
        assert!(
            files.get("forged/passwd").is_some() && files.get("bin/sh").is_some(),
            "{rung:?}"
        );
    }
}
