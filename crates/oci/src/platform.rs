//! Platforms (`linux/arm64/v8`): parsing, normal forms, and which image fits which machine.
//!
//! Behaviour is containerd's `platforms` package v1 (as vendored by BuildKit): `Normalize`, `Parse`, `FormatAll`,
//! `Only`. Refuses wildcards and, when only one part is given, names it does not know.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an image runs on (OCI image-spec, image-index.md). JSON fields are in Go's struct order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture, a `GOARCH` name.
    #[serde(default)]
    pub architecture: String,
    /// Operating system, a `GOOS` name.
    #[serde(default)]
    pub os: String,
    /// Version of the operating system; used by Windows images.
    #[serde(rename = "os.version", default, skip_serializing_if = "absent")]
    pub os_version: Option<String>,
    /// Features the image needs of the operating system.
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// Variant of the architecture, such as `v7`.
    #[serde(default, skip_serializing_if = "absent")]
    pub variant: Option<String>,
}

/// Go's `omitempty` on a string.
fn absent(text: &Option<String>) -> bool {
    text.as_deref().unwrap_or_default().is_empty()
}

/// Go decodes `null` into an empty slice.
fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What containerd says a system must look like.
const OS_PATTERN: &str = r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$";
/// What containerd says the other parts must look like.
const COMPONENT_PATTERN: &str = "^[A-Za-z0-9_.-]+$";

/// Why a text is not a platform, in containerd's words: BuildKit's clients show and compare them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// `*` has no meaning yet, in containerd neither.
    #[error("{0:?}: wildcards not yet supported: invalid argument")]
    Wildcard(String),
    /// The first part is no system with, perhaps, a version and features.
    #[error(
        "{part:?} is an invalid OS component of {specifier:?}: OSAndVersion specifier component must match {:?}: invalid argument",
        OS_PATTERN
    )]
    Os {
        /// The part.
        part: String,
        /// The whole text.
        specifier: String,
    },
    /// Another part holds a character that is not allowed, or is empty.
    #[error(
        "{part:?} is an invalid component of {specifier:?}: platform specifier component must match {:?}: invalid argument",
        COMPONENT_PATTERN
    )]
    Component {
        /// The part.
        part: String,
        /// The whole text.
        specifier: String,
    },
    /// A single part that is neither a known system nor a known architecture.
    #[error("{0:?}: unknown operating system or architecture: invalid argument")]
    Unknown(String),
    /// More than three parts.
    #[error("{0:?}: cannot parse platform specifier: invalid argument")]
    TooManyParts(String),
}

impl Platform {
    /// The platform of the running program, in normal form. 32-bit ARM counts as `v7`.
    #[must_use]
    pub fn host() -> Self {
        Self::new("linux", host_architecture())
    }

    /// `os/architecture` in normal form.
    #[must_use]
    pub fn new(os: &str, architecture: &str) -> Self {
        Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            ..Self::default()
        }
        .normalized()
    }

    /// Reads `os[(version+feature…)]`, `arch`, `os/arch` or `os/arch/variant`.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn parse(specifier: &str) -> Result<Self, PlatformError> {
        if specifier.contains('*') {
            return Err(PlatformError::Wildcard(specifier.to_owned()));
        }
        let parts: Vec<&str> = specifier.splitn(4, '/').collect();
        let bad = |part: &str| PlatformError::Component {
            part: part.to_owned(),
            specifier: specifier.to_owned(),
        };
        let mut platform = parse_os(parts[0]).ok_or_else(|| PlatformError::Os {
            part: parts[0].to_owned(),
            specifier: specifier.to_owned(),
        })?;
        for part in &parts[1..] {
            if part.is_empty()
                || !part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
            {
                return Err(bad(part));
            }
        }
        match parts.as_slice() {
            [_] if OS_KNOWN.contains(&platform.os.as_str()) => {
                platform.architecture = host_architecture().to_owned();
            }
            [arch] => {
                platform.set_arch(arch, "");
                if !ARCH_KNOWN.contains(&platform.architecture.as_str()) {
                    return Err(PlatformError::Unknown(specifier.to_owned()));
                }
                "linux".clone_into(&mut platform.os);
            }
            [_, arch] => platform.set_arch(arch, ""),
            [_, arch, variant] => {
                let (arch, variant) = normalize_arch(arch, variant);
                // Written out, the default variant of arm64 is shown; left out, it is not.
                let variant = if arch == "arm64" && variant.is_empty() {
                    "v8".to_owned()
                } else {
                    variant
                };
                platform.architecture = arch;
                platform.variant = Some(variant).filter(|v| !v.is_empty());
            }
            _ => return Err(PlatformError::TooManyParts(specifier.to_owned())),
        }
        Ok(platform)
    }

    /// Sets what a specifier without a variant means: `arm` alone stays without `v7`.
    fn set_arch(&mut self, arch: &str, variant: &str) {
        let (arch, variant) = normalize_arch(arch, variant);
        let implied = arch == "arm" && variant == "v7";
        self.architecture = arch;
        self.variant = Some(variant).filter(|v| !v.is_empty() && !implied);
    }

    /// The normal form: `x86_64` is `amd64`, `arm` is `arm/v7`, `arm64/v8` is `arm64`; features are sorted.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let (architecture, variant) =
            normalize_arch(&self.architecture, self.variant.as_deref().unwrap_or_default());
        let mut os_features = self.os_features.clone();
        os_features.sort_unstable();
        os_features.dedup();
        Self {
            architecture,
            os: normalize_os(&self.os),
            os_version: self.os_version.clone().filter(|v| !v.is_empty()),
            os_features,
            variant: Some(variant).filter(|v| !v.is_empty()),
        }
    }

    /// `os/arch[/variant]` without the system's version, as `TARGETPLATFORM` and step names show it.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = if self.os.is_empty() {
            return "unknown".to_owned();
        } else {
            self.os.clone()
        };
        for part in [Some(self.architecture.as_str()), self.variant.as_deref()] {
            if let Some(part) = part.filter(|p| !p.is_empty()) {
                text.push('/');
                text.push_str(part);
            }
        }
        text
    }

    /// Whether an image for `image` is exactly for this platform, other spellings of the same included.
    #[must_use]
    pub fn is_same(&self, image: &Self) -> bool {
        let (wanted, found) = (self.normalized(), image.normalized());
        wanted.os == found.os
            && wanted.architecture == found.architecture
            && wanted.variant == found.variant
            && windows_version_fits(&wanted, image)
            && found
                .os_features
                .iter()
                .filter(|f| found.os != "windows" || *f != "win32k")
                .all(|f| wanted.os_features.contains(f))
    }

    /// How well an image for `image` runs here: 0 is best, nothing means that it does not (containerd's `Only`).
    #[must_use]
    pub(crate) fn rank(&self, image: &Self) -> Option<usize> {
        fallbacks(&self.normalized())
            .iter()
            .position(|wanted| wanted.is_same(image))
    }

    /// The index of the candidate that runs here best, the first of equals; candidates without a platform are
    /// skipped.
    #[must_use]
    pub fn choose<'a>(&self, candidates: impl IntoIterator<Item = Option<&'a Self>>) -> Option<usize> {
        candidates
            .into_iter()
            .enumerate()
            .filter_map(|(at, platform)| Some((self.rank(platform?)?, at)))
            .min()
            .map(|(_, at)| at)
    }
}

/// `wanted` and what it can run besides, best first. `wanted` is in normal form.
fn fallbacks(wanted: &Platform) -> Vec<Platform> {
    let like = |architecture: &str, variant: Option<String>| Platform {
        architecture: architecture.to_owned(),
        variant,
        ..wanted.clone()
    };
    let number = |variant: &str| variant.strip_prefix('v').unwrap_or(variant).parse::<u32>().ok();
    let mut list = vec![wanted.clone()];
    match wanted.architecture.as_str() {
        "amd64" => {
            // Variants above v4 do not exist; the bound keeps `v4000000000` from making a list of that length.
            let level = wanted.variant.as_deref().and_then(number).unwrap_or(1).min(16);
            list.extend((1..level).rev().map(|v| like("amd64", Some(format!("v{v}")))));
            list.push(like("386", None));
        }
        "arm" => {
            list.extend(arm_below(wanted.variant.as_deref()).map(|v| like("arm", Some(format!("v{v}")))));
        }
        "arm64" => {
            let Some(levels) = arm64_levels(wanted.variant.as_deref().unwrap_or("v8")) else {
                return list;
            };
            list.clear();
            for (major, minor) in levels {
                for minor in (0..=minor).rev() {
                    let variant = if minor == 0 {
                        format!("v{major}")
                    } else {
                        format!("v{major}.{minor}")
                    };
                    list.push(like("arm64", Some(variant)));
                }
            }
            list.push(like("arm", Some("v8".to_owned())));
            list.extend(arm_below(Some("v8")).map(|v| like("arm", Some(format!("v{v}")))));
        }
        _ => {}
    }
    list
}

/// ARM versions below `variant`, down to 5.
fn arm_below(variant: Option<&str>) -> impl Iterator<Item = u32> + use<> {
    let level = variant
        .and_then(|v| v.strip_prefix('v').unwrap_or(v).parse::<u32>().ok())
        .unwrap_or(5)
        .min(16);
    (5..level).rev()
}

/// (major, highest minor) pairs an arm64 variant runs: v9.x is a v8.(x+5).
fn arm64_levels(variant: &str) -> Option<Vec<(u32, u32)>> {
    let digits = variant.strip_prefix('v')?;
    let (major, minor) = match digits.split_once('.') {
        Some((major, minor)) => (major, minor.parse::<u32>().ok()?),
        None => (digits, 0),
    };
    match (major, minor) {
        ("8", 0..=9) => Some(vec![(8, minor)]),
        ("9", 0..=7) => Some(vec![(9, minor), (8, (minor + 5).min(9))]),
        _ => None,
    }
}

/// Windows images fit a host of the same build, and an image without a version fits any host.
fn windows_version_fits(wanted: &Platform, image: &Platform) -> bool {
    let (Some(wanted_version), Some(found)) = (wanted.os_version.as_deref(), image.os_version.as_deref())
    else {
        return true;
    };
    wanted.os != "windows"
        || found.is_empty()
        || wanted_version
            .splitn(4, '.')
            .take(3)
            .eq(found.splitn(4, '.').take(3))
}

fn normalize_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "" => "linux".to_owned(),
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

fn normalize_arch(arch: &str, variant: &str) -> (String, String) {
    let (arch, variant) = (arch.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (arch, variant) = match (arch.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", v) => ("arm64", v),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        (arch, v) => (arch, v),
    };
    (arch.to_owned(), variant.to_owned())
}

/// The first part of a specifier: `os`, `os(version)`, `os(version+feature)`, `os(+feature)`.
fn parse_os(part: &str) -> Option<Platform> {
    let (os, options) = match part.split_once('(') {
        Some((os, rest)) => (os, rest.strip_suffix(')')?),
        None => (part, ""),
    };
    if os.is_empty()
        || !os
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    {
        return None;
    }
    let mut options = options.split('+');
    let version = decode_option(options.next().unwrap_or_default())?;
    let features: Vec<String> = options
        .map(|f| decode_option(f).filter(|f| !f.is_empty()))
        .collect::<Option<_>>()?;
    Some(Platform {
        os: normalize_os(os),
        os_version: Some(version).filter(|v| !v.is_empty()),
        os_features: features,
        ..Platform::default()
    })
}

/// Undoes [`encode_option`]; nothing when a character is not allowed.
fn decode_option(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'%' => {
                let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
                if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return None;
                }
                out.push(u8::from_str_radix(hex, 16).ok()?);
                rest = &tail[2..];
            }
            b if is_option_byte(*b) => out.push(*b),
            _ => return None,
        }
    }
    String::from_utf8(out).ok()
}

fn encode_option(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_option_byte(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for nibble in [byte >> 4, byte & 15] {
                out.push(char::from(b"0123456789ABCDEF"[usize::from(nibble)]));
            }
        }
    }
    out
}

fn is_option_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.short();
        let version = self.os_version.as_deref().unwrap_or_default();
        if self.os.is_empty() || (version.is_empty() && self.os_features.is_empty()) {
            return f.write_str(&short);
        }
        write!(f, "{}({}", self.os, encode_option(version))?;
        for feature in &self.os_features {
            write!(f, "+{}", encode_option(feature))?;
        }
        write!(f, "){}", &short[self.os.len()..])
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        Self::parse(text)
    }
}

/// `GOARCH` of this build.
const fn host_architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "amd64"
    } else if cfg!(target_arch = "aarch64") {
        "arm64"
    } else if cfg!(target_arch = "x86") {
        "386"
    } else if cfg!(target_arch = "arm") {
        "arm"
    } else if cfg!(target_arch = "riscv64") {
        "riscv64"
    } else if cfg!(target_arch = "s390x") {
        "s390x"
    } else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
        "ppc64le"
    } else {
        "unknown"
    }
}

/// Systems Go knows (go/build/syslist.go), which is what containerd accepts as a single word.
const OS_KNOWN: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

/// Architectures Go knows (go/build/syslist.go).
const ARCH_KNOWN: [&str; 24] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

#[cfg(test)]
mod tests;
