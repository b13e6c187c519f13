//! What steps find at their mounts.

use std::fs;

use crate::e2e::fixture::Fixture;

#[test]
fn a_mounted_context_is_open_to_steps_of_every_user() {
    let fixture = Fixture::new(
        "FROM busybox\nUSER 1000\nRUN --mount=type=bind,target=/context cat /context/file && stat -c %a /context\n",
    );
    fs::write(fixture.context.dir().join("file"), "read by everyone\n").expect("a file of the context");
    let ran = fixture.build().ok();
    assert!(ran.stderr.contains("read by everyone"), "{}", ran.stderr);
    assert!(
        ran.stderr.lines().any(|line| line.ends_with(" 755")),
        "{}",
        ran.stderr
    );
}
