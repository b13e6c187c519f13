//! The platforms whose steps this machine runs (`util/archutil`): its own, the levels of it that the processor reaches, and
//! the one with half the word length. Emulated processors are not among them.

use std::path::Path;

use rbuild_oci::Platform;

/// There where the kernel runs 32-bit programs of x86 beside its own (`arch/x86/entry/vdso`, with `CONFIG_COMPAT_32`).
const COMPAT_32: &str = "/proc/sys/abi/vsyscall32";

/// The platforms, the own one first.
#[must_use]
pub fn supported() -> Vec<Platform> {
    of(Platform::host(), level(), Path::new(COMPAT_32).exists())
}

/// `host` of the level `level`, 1 being the lowest, on a kernel that `runs_32` or not.
fn of(host: Platform, level: u8, runs_32: bool) -> Vec<Platform> {
    let is_amd64 = host.architecture == "amd64";
    let variant = |level: u8| Platform {
        variant: Some(format!("v{level}")),
        ..host.clone()
    };
    let levels = (2..=level).filter(|_| is_amd64).map(variant);
    let half = Platform {
        architecture: "386".to_owned(),
        variant: None,
        ..host.clone()
    };
    let half = (is_amd64 && runs_32).then_some(half);
    let mut platforms: Vec<Platform> = levels.chain(half).collect();
    platforms.insert(0, host);
    platforms
}

/// The highest micro-architecture level of the processor (x86-64 psABI, section 3.1.1).
#[cfg(target_arch = "x86_64")]
fn level() -> u8 {
    use std::arch::is_x86_feature_detected as has;
    let two = has!("cmpxchg16b") && has!("popcnt") && has!("sse3") && has!("ssse3") && has!("sse4.2");
    let three = has!("avx2") && has!("bmi1") && has!("bmi2") && has!("f16c") && has!("fma") && has!("lzcnt");
    let three = three && has!("movbe");
    let four =
        has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq") && has!("avx512vl");
    match (two, three, four) {
        (true, true, true) => 4,
        (true, true, false) => 3,
        (true, false, _) => 2,
        (false, ..) => 1,
    }
}

#[cfg(not(target_arch = "x86_64"))]
const fn level() -> u8 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(host: &str, level: u8, runs_32: bool) -> Vec<String> {
        let host = Platform::parse(host).unwrap();
        of(host, level, runs_32).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_machine_runs_what_is_less_than_it() {
        let all = ["linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/386"];
        assert_eq!(names("linux/amd64", 3, true), all);
        assert_eq!(names("linux/amd64", 1, false), ["linux/amd64"]);
        assert_eq!(names("linux/riscv64", 3, true), ["linux/riscv64"]);
        assert_eq!(supported()[0], Platform::host());
    }
}
