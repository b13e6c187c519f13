//! Any bytes as a Dockerfile: read without a panic, and what is read can be told again line by line.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (dockerfile, errors) = rbuild_dockerfile::parse(bytes);
    assert!(!errors.is_empty() || !dockerfile.stages.is_empty());
    let lines = u32::try_from(bytes.iter().filter(|byte| **byte == b'\n').count() + 1).unwrap_or(u32::MAX);
    for stage in &dockerfile.stages {
        for instruction in &stage.instructions {
            let span = instruction.span;
            assert!(
                span.start >= 1 && span.start <= span.end && span.end <= lines,
                "{span:?} of {lines}"
            );
        }
    }
    // Detectors that look at the bytes by themselves.
    let _syntax = rbuild_dockerfile::directive::detect_syntax(bytes);
});
