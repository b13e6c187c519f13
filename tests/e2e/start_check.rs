//! The warning of an image that will not start reaches the user, and nobody else.

use std::fs;

use crate::e2e::fixture::{Fixture, busybox_argument};

/// A 64-bit ELF program for this architecture with one program header, which names its loader.
fn program(loader: &str) -> Vec<u8> {
    let own = fs::read("/proc/self/exe").expect("the test's own program");
    let mut bytes = own[..64].to_vec();
    bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
    bytes[54..58].copy_from_slice(&[56, 0, 1, 0]);
    let mut header = [0_u8; 56];
    header[0] = 3;
    header[8..16].copy_from_slice(&120_u64.to_le_bytes());
    header[32..40].copy_from_slice(&(loader.len() as u64 + 1).to_le_bytes());
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(loader.as_bytes());
    bytes.push(0);
    bytes
}

/// Copies the program onto a base that no step mounts, and builds.
#[track_caller]
fn told(loader: &str) -> String {
    let fixture = Fixture::new("FROM otherlibc\nCOPY --chmod=755 service /service\nCMD [\"/service\"]\n");
    fs::write(fixture.context.dir().join("service"), program(loader)).expect("a file of the context");
    let (ran, _) = fixture.image(&[&busybox_argument("otherlibc")]);
    let (again, _) = fixture.image(&[&busybox_argument("otherlibc")]);
    let warns = |said: &str| said.contains("needs the loader");
    assert_eq!(warns(&ran.stderr), warns(&again.stderr), "{}", again.stderr);
    ran.stderr
}

#[test]
fn a_copied_program_whose_loader_its_base_has_not_is_explained() {
    let told = told("/lib64/ld-linux-x86-64.so.2");
    assert!(told.contains("1 warning found"), "{told}");
    assert!(
        told.contains("/service is started by this image and needs the loader /lib64/ld-linux-x86-64.so.2"),
        "{told}"
    );
}

#[test]
fn a_loader_in_a_layer_below_is_found() {
    let told = told("/lib/ld-musl-x86_64.so.1");
    assert!(
        !told.contains("warning") && !told.contains("WARN"),
        "otherlibc has that loader\n{told}"
    );
}
