//! Members of a layer's blob are found again while the blob is there.

use std::io::Read as _;

use rbuild_layer::{GZIP_LEVEL_DEFAULT, Members as _};
use rbuild_testkit::noise::noise;

use super::*;
use crate::members::StoredMembers;

/// The members of a blob, each with what is in it.
fn split(blob: &[u8]) -> Vec<(&[u8], Vec<u8>)> {
    let mut members = Vec::new();
    let mut rest = blob;
    while !rest.is_empty() {
        let mut decoder = flate2::bufread::GzDecoder::new(rest);
        let mut content = Vec::new();
        decoder.read_to_end(&mut content).unwrap();
        let (member, after) = rest.split_at(rest.len() - decoder.into_inner().len());
        members.push((member, content));
        rest = after;
    }
    members
}

/// Fills a root with files of a fixed time, so that its tar is the same every time.
fn fill(root: &Path, files: &[(&str, &[u8])]) {
    let time = std::time::SystemTime::UNIX_EPOCH;
    for (name, text) in files {
        std::fs::write(root.join(name), text).unwrap();
        let file = std::fs::File::options()
            .write(true)
            .open(root.join(name))
            .unwrap();
        file.set_modified(time).unwrap();
    }
    std::fs::File::open(root).unwrap().set_modified(time).unwrap();
}

#[test]
fn privileged_members_are_found_while_their_blob_is_there() {
    let noise = noise(5 << 20, 0);
    let (bench, other) = (Bench::new(), Bench::new());
    let id = bench.step(&[], |root| fill(root, &[("noise", &noise)]));
    let packed = bench
        .snapshotter
        .pack_layer(&bench.lease, &[], &id, &USUAL)
        .unwrap();
    let mut blob = Vec::new();
    let mut file = bench.store.open_blob(&packed.digest).unwrap().unwrap();
    file.read_to_end(&mut blob).unwrap();
    let members = split(&blob);
    assert!(members.len() > 2, "{}", members.len());
    let find = |content: &[u8], level| {
        StoredMembers::new(Arc::clone(&bench.store)).find(&Digest::sha256(content), level)
    };
    for (member, content) in &members {
        assert!(find(content, GZIP_LEVEL_DEFAULT).unwrap() == *member);
        assert_eq!(find(content, GZIP_LEVEL_DEFAULT + 1), None);
    }
    assert_eq!(find(b"other", GZIP_LEVEL_DEFAULT), None);

    // A layer with one more file is what it is in a store that knows no members.
    let files: [(&str, &[u8]); 2] = [("noise", &noise), ("other", b"x")];
    let with = bench.step(&[], |root| fill(root, &files));
    let with = bench
        .snapshotter
        .pack_layer(&bench.lease, &[], &with, &USUAL)
        .unwrap();
    let without = other.step(&[], |root| fill(root, &files));
    let without = other
        .snapshotter
        .pack_layer(&other.lease, &[], &without, &USUAL)
        .unwrap();
    assert_eq!(with, without);

    // Of what is gone nothing is found.
    drop(bench.lease);
    bench.store.gc(&GcPolicy::default()).unwrap();
    assert_eq!(bench.store.has_blob(&packed.digest).unwrap(), None);
    assert_eq!(find(&members[0].1, GZIP_LEVEL_DEFAULT), None);
}
