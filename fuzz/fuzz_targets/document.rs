//! Any bytes as what a registry sends: a manifest, an index or an image's config, read or refused without a panic. What is read is
//! written in a form that is read as the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rbuild_oci::{Document, ImageConfig, Reference, go_json, parse_document};

fuzz_target!(|bytes: &[u8]| {
    match parse_document(bytes, None) {
        Ok(Document::Manifest(manifest)) => {
            let written = go_json::to_vec(&manifest).expect("what was read can be written");
            assert!(
                matches!(parse_document(&written, None), Ok(Document::Manifest(again)) if again == manifest)
            );
        }
        Ok(Document::Index(index)) => {
            let written = go_json::to_vec(&index).expect("what was read can be written");
            assert!(matches!(parse_document(&written, None), Ok(Document::Index(again)) if again == index));
        }
        Err(_) => {}
    }
    if let Ok(config) = ImageConfig::parse(bytes) {
        let written = go_json::to_vec(&config).expect("what was read can be written");
        assert_eq!(
            ImageConfig::parse(&written).expect("what was written can be read"),
            config
        );
    }
    if let Some(reference) = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| Reference::parse(text).ok())
    {
        assert_eq!(
            Reference::parse(&reference.to_string()).expect("a reference"),
            reference
        );
    }
});
