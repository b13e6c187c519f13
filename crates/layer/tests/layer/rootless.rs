//! The same tests once more as root of a user namespace with one id, where devices and `trusted.*` are refused.

use std::os::fd::AsFd as _;
use std::process::Command;

use rbuild_layer::{
    ApplyError, Device, DevicePolicy, EntryKind, Limits, TarReader, UnpackOptions, WriteOptions, unpack,
    write_tar,
};
use rbuild_sys::overlay::Form;

use crate::archive::{Block, Tar};
use crate::canary::{Place, is_root};

/// Runs the named tests of this program under `unshare -Ur`.
fn in_user_namespace(filters: &[&str]) {
    let program = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .arg(program)
        .args(filters)
        .arg("--test-threads=1")
        .env("RBUILD_INNER", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("unshare failed") {
        println!("SKIP: no user namespaces here: {stderr}");
        return;
    }
    assert!(output.status.success(), "{text}\n{stderr}");
    assert!(!text.contains("running 0 tests"), "{text}");
}

#[test]
fn rootless_the_rows_hold_in_a_user_namespace() {
    if is_root() {
        in_user_namespace(&[
            "unpacking::",
            "extracting::",
            "writing::row",
            "writing::a_layer",
            "inner_",
        ]);
    }
}

#[test]
fn inner_devices_are_recorded_and_come_back_as_devices() {
    let place = Place::new();
    let tar = Tar::default()
        .block(Block::new(b"sda", b'4', 0).device(8, 1).mode(0o660).mtime(3))
        .block(Block::new(b"null", b'3', 0).device(1, 3).mode(0o666))
        .file(b"plain", b"")
        .end();
    let options = UnpackOptions {
        devices: DevicePolicy::Record,
        ..UnpackOptions::new(Form::User)
    };
    unpack(tar.as_slice(), place.open_root().as_fd(), &options).unwrap();
    assert!(place.root().join("sda").is_file(), "a step sees an empty file");
    let mut out = Vec::new();
    write_tar(
        place.open_root().as_fd(),
        Form::User,
        &WriteOptions::default(),
        &mut out,
    )
    .unwrap();
    let mut reader = TarReader::new(out.as_slice(), Limits::default());
    let null = reader.next_entry().unwrap().unwrap();
    assert_eq!(
        (null.kind, null.mode),
        (EntryKind::CharDevice(Device { major: 1, minor: 3 }), 0o666)
    );
    assert_eq!(
        reader.next_entry().unwrap().unwrap().kind,
        EntryKind::File { size: 0 }
    );
    let sda = reader.next_entry().unwrap().unwrap();
    assert_eq!(sda.kind, EntryKind::BlockDevice(Device { major: 8, minor: 1 }));
    assert_eq!((sda.mode, sda.mtime.seconds), (0o660, 3));
    assert!(!String::from_utf8_lossy(&out).contains("rbuild.device"));
}

#[test]
fn inner_a_device_that_cannot_be_made_is_an_error() {
    if is_root() {
        println!("SKIP: root makes devices; runs in the user namespace");
        return;
    }
    let place = Place::new();
    let tar = Tar::default()
        .block(Block::new(b"sda", b'4', 0).device(8, 1))
        .end();
    let options = UnpackOptions {
        devices: DevicePolicy::Make,
        ..UnpackOptions::new(Form::User)
    };
    let error = unpack(tar.as_slice(), place.open_root().as_fd(), &options).unwrap_err();
    assert!(
        matches!(&error, ApplyError::Io { path, .. } if path == "sda"),
        "{error}"
    );
    assert!(
        !place.root().join("sda").exists(),
        "no file of another type in its place"
    );
}
