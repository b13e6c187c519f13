//! `MissingLoader`: a program that was linked against glibc, in an image that has musl or nothing, ends with "no such
//! file or directory" although the file is there: its loader is what is missing.

use rbuild_dockerfile::path;
use rbuild_dockerfile::shell::Variables as _;

use crate::advice::commands::{operands, program};
use crate::env::Env;
use crate::stage::SCRATCH;

/// What an image brings for programs that are not linked statically.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Libc {
    Glibc,
    Musl,
    /// No C library at all.
    Empty,
}

/// Docker's official images that stand on Debian, Fedora and the like, unless the tag says Alpine.
const OFFICIAL: [&str; 28] = [
    "almalinux",
    "amazonlinux",
    "archlinux",
    "buildpack-deps",
    "centos",
    "debian",
    "eclipse-temurin",
    "elixir",
    "erlang",
    "fedora",
    "gcc",
    "golang",
    "gradle",
    "haskell",
    "julia",
    "maven",
    "node",
    "openjdk",
    "oraclelinux",
    "perl",
    "php",
    "pypy",
    "python",
    "rockylinux",
    "ruby",
    "rust",
    "swift",
    "ubuntu",
];

impl Libc {
    /// What the name of a base tells; `None` if nothing.
    pub(super) fn of(base: &str) -> Option<Self> {
        if base == SCRATCH {
            return Some(Self::Empty);
        }
        let base = base.split('@').next().unwrap_or_default();
        let (name, tag) = match base.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (base, ""),
        };
        let said = |word: &str| tag.split('-').any(|part| part.starts_with(word));
        let official = name.strip_prefix("docker.io/library/").unwrap_or(name);
        if official == "alpine" || said("alpine") || said("musl") {
            return Some(Self::Musl);
        }
        match name.strip_prefix("gcr.io/distroless/") {
            Some(name) if name.starts_with("static") => Some(Self::Empty),
            Some(name) if name.starts_with("base") || name.starts_with("cc") => Some(Self::Glibc),
            _ => OFFICIAL.contains(&official).then_some(Self::Glibc),
        }
    }

    /// How an image that lacks a loader is spoken of.
    pub(super) const fn lack(self) -> &'static str {
        match self {
            Self::Musl => "an image with musl",
            Self::Empty | Self::Glibc => "an image without a C library",
        }
    }
}

/// Programs of one step that are remembered.
const BUILT_MAX: usize = 64;

/// A program that a step makes, as far as its command line tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Built {
    /// Absolute, clean; a directory stands for all below it.
    path: String,
    how: How,
}

/// What linked a program, and with that what would link it statically.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Go,
    Rust,
    C,
    /// A package of the distribution.
    Packaged,
}

impl How {
    pub(super) const fn remedy(self) -> &'static str {
        match self {
            Self::Go => "set CGO_ENABLED=0 for 'go build'",
            Self::Rust => "build it for a musl target",
            Self::C => "link it with -static",
            Self::Packaged => "install it there instead",
        }
    }
}

/// What the commands of a step make that needs a loader; `text` is all of it, `resolve` makes a word an absolute path.
pub(super) fn built(
    text: &str,
    commands: &[Vec<String>],
    env: &Env,
    resolve: &dyn Fn(&str) -> Option<String>,
) -> Vec<Built> {
    let says = |name: &str, part: &str| env.get(name).is_some_and(|value| value.contains(part));
    let any = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    // Go links without C as soon as it compiles for another processor.
    let go = !says("CGO_ENABLED", "0")
        && !any(&["CGO_ENABLED=0", "-static", "netgo", "GOARCH"])
        && !says("GOARCH", "");
    let rust = !any(&["musl", "crt-static", "--target"])
        && !says("RUSTFLAGS", "crt-static")
        && !says("CARGO_BUILD_TARGET", "");
    let mut found: Vec<Built> = Vec::new();
    for command in commands {
        if found.len() >= BUILT_MAX {
            break;
        }
        let (name, arguments) = program(command);
        let made = match (name, arguments.first().map(String::as_str)) {
            ("go", Some("build")) if go => go_build(&arguments[1..]).map(|path| (path, How::Go)),
            ("go", Some("install")) if go => Some(("/go/bin".to_owned(), How::Go)),
            ("cargo", Some("build" | "b" | "rustc")) if rust => Some(("target".to_owned(), How::Rust)),
            ("cargo", Some("install")) if rust => Some(("/usr/local/cargo/bin".to_owned(), How::Rust)),
            ("gcc" | "cc" | "g++" | "c++" | "clang" | "clang++", _) => {
                linked(arguments).map(|path| (path, How::C))
            }
            ("cp" | "mv" | "install", _) => {
                found.extend(moved(arguments, &found, resolve));
                None
            }
            _ => None,
        };
        if let Some((path, how)) = made
            && let Some(path) = resolve(&path)
        {
            found.push(Built { path, how });
        }
    }
    found
}

/// Where `go build` puts its program: what `-o` says, or the name of the one package.
fn go_build(arguments: &[String]) -> Option<String> {
    output(arguments).or_else(|| {
        let [.., package] = arguments else { return None };
        let named = package.starts_with("./") && !package.ends_with("...") && !package.contains(".go");
        named.then(|| path::base(&path::clean(package)).to_owned())
    })
}

/// What a C compiler links; nothing if it only compiles, or links a library or statically.
fn linked(arguments: &[String]) -> Option<String> {
    let other = |word: &String| {
        matches!(
            word.as_str(),
            "-c" | "-S" | "-E" | "-shared" | "-static" | "-static-pie"
        )
    };
    if arguments.iter().any(other) {
        return None;
    }
    output(arguments)
}

/// `-o PATH`.
fn output(arguments: &[String]) -> Option<String> {
    let joined = |word: &String| word.strip_prefix("-o=").map(str::to_owned);
    let apart = |pair: &[String]| (pair[0] == "-o").then(|| pair[1].clone());
    arguments
        .iter()
        .find_map(joined)
        .or_else(|| arguments.windows(2).find_map(apart))
}

/// A built program under the name that it is moved or copied to.
fn moved(arguments: &[String], found: &[Built], resolve: &dyn Fn(&str) -> Option<String>) -> Vec<Built> {
    let words: Vec<&str> = operands(arguments).collect();
    let Some((destination, sources)) = words.split_last() else {
        return Vec::new();
    };
    let mut made = Vec::new();
    for source in sources {
        let Some(path) = resolve(source) else { continue };
        let Some(how) = found
            .iter()
            .find(|built| built.holds(&path))
            .map(|built| built.how)
        else {
            continue;
        };
        // Which of the two it is depends on whether the directory is there.
        let inside = path::join(&[destination, path::base(&path)]);
        let names = [(*destination).to_owned(), inside];
        made.extend(
            names
                .iter()
                .filter_map(|name| resolve(name))
                .map(|path| Built { path, how }),
        );
    }
    made
}

impl Built {
    fn holds(&self, path: &str) -> bool {
        let rest = path.strip_prefix(self.path.as_str());
        let below =
            matches!(self.how, How::Rust | How::Go) && self.path.rsplit('/').next().is_some_and(is_bin);
        rest.is_some_and(|rest| rest.is_empty() || (below && rest.starts_with('/')))
    }
}

/// Names of directories that programs are put into.
fn is_bin(name: &str) -> bool {
    matches!(name, "target" | "bin")
}

/// What made the program at `path`, if one of `built` is it.
pub(super) fn how(built: &[&Built], path: &str) -> Option<How> {
    built
        .iter()
        .find(|built| built.holds(path))
        .map(|built| built.how)
}

/// Whether a path is a program that a distribution's package brought: one of its directories, and no sign of a script or
/// of a static one.
pub(super) fn is_packaged(path: &str) -> bool {
    let Some((dir, name)) = path.rsplit_once('/') else {
        return false;
    };
    let plain = !name.is_empty() && !name.contains(['.', '*', '?', '[']) && !name.contains("static");
    match dir {
        "/bin" | "/sbin" | "/usr/bin" | "/usr/sbin" => plain,
        // Where the images of these languages have their interpreter.
        "/usr/local/bin" => matches!(
            name,
            "node" | "python" | "python3" | "ruby" | "php" | "perl" | "julia"
        ),
        _ => false,
    }
}

/// Whether a path copied into an image may bring a loader with it.
pub(super) fn brings_loader(source: &str) -> bool {
    matches!(source, "/" | "/lib" | "/lib64" | "/usr" | "/usr/lib")
        || source.contains("ld-linux")
        || source.contains("/lib64/")
        || (source.contains("-linux-gnu") && source.contains("/lib/"))
}

/// Whether a step brings glibc into an image that has musl.
pub(super) fn installs_glibc(text: &str) -> bool {
    ["gcompat", "libc6-compat", "glibc"]
        .iter()
        .any(|name| text.contains(name))
}
