//! Every test of the program as a whole, in one binary so that it links once.
//!
//! - `tidy`: house rules of the repository itself; needs no program.
//! - `conformance`: `tests/conformance/<instruction>/<case>/`, compared with what BuildKit recorded.
//! - `real`: `tests/real/<shape>/`, multi-stage projects of the shapes people write; the images are run.
//! - `e2e`: one file per promise that is not about an instruction: cache, outputs, registries, being killed, two at
//!   once, bad input, secrets, running rootless, what is printed.
//!
//! Names say what a test needs: `privileged_` root, `rootless_` root to become the ordinary user that `cargo xtask ci`
//! makes, `slow_` the base images of `cargo xtask bases`. A test that cannot run says `SKIP:` and why.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy allows them in #[test] functions only, and these files hold nothing but tests"
)]

mod conformance;
mod e2e;
mod real;
mod tidy;
