//! Where control groups are on this machine: what `/proc/self/mountinfo` and `/proc/self/cgroup` say. Makes nothing.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use super::values::{Controller, Version};

/// One tree of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    /// Controllers of version 1 that it has, by the kernel's names.
    pub(super) controllers: Vec<String>,
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// The group of this process, as an absolute path below the mount.
    pub(super) own: PathBuf,
}

impl Hierarchy {
    /// Whether it is of version 1 and has controllers, not just a name.
    pub(super) fn is_controlled(&self) -> bool {
        self.controllers.iter().any(|name| !name.starts_with("name="))
    }

    pub(super) fn has(&self, controller: Controller) -> bool {
        self.controllers.iter().any(|name| name == controller.name())
    }
}

/// All trees that this process sees, each once.
pub(super) fn read() -> Vec<Hierarchy> {
    let text = |path: &str| std::fs::read(path).unwrap_or_default();
    parse(&text("/proc/self/mountinfo"), &text("/proc/self/cgroup"))
}

/// `mountinfo` and `cgroup` are files of proc(5).
pub(super) fn parse(mountinfo: &[u8], cgroup: &[u8]) -> Vec<Hierarchy> {
    let groups = groups(cgroup);
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.split(|byte| *byte == b'\n') {
        let Some((version, options, root, mount)) = mounted(line) else {
            continue;
        };
        let in_use = |(names, path): &(Vec<String>, PathBuf)| {
            let matches = match version {
                Version::V2 => names.is_empty(),
                Version::V1 => names.iter().any(|name| options.contains(name)),
            };
            matches.then(|| (names.clone(), path.clone()))
        };
        let Some((controllers, path)) = groups.iter().find_map(in_use) else {
            continue;
        };
        // A bind of a part, as in a container: what is above it cannot be named here.
        let below = path.strip_prefix(&root).unwrap_or(Path::new(""));
        let outside = below.components().any(|part| part == Component::ParentDir);
        let own = rbuild_sys::clean(if outside { Path::new("") } else { below });
        let same = |known: &Hierarchy| known.version == version && known.controllers == controllers;
        if !found.iter().any(same) {
            found.push(Hierarchy {
                version,
                controllers,
                mount,
                own,
            });
        }
    }
    found
}

/// Controllers and path of each line; the unified tree names none.
fn groups(text: &[u8]) -> Vec<(Vec<String>, PathBuf)> {
    let line = |line: &[u8]| {
        let mut parts = line.splitn(3, |byte| *byte == b':');
        let (_, names, path) = (parts.next()?, parts.next()?, parts.next()?);
        let names = String::from_utf8_lossy(names);
        let names = names.split(',').filter(|name| !name.is_empty());
        let path = PathBuf::from(OsString::from_vec(path.to_vec()));
        Some((names.map(str::to_owned).collect(), path))
    };
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// Version, options of the file system, root and place of a mount of control groups.
fn mounted(line: &[u8]) -> Option<(Version, Vec<String>, PathBuf, PathBuf)> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let version = match *fields.get(dash + 1)? {
        b"cgroup" => Version::V1,
        b"cgroup2" => Version::V2,
        _ => return None,
    };
    let options = String::from_utf8_lossy(fields.get(dash + 3)?).into_owned();
    let options = options.split(',').map(str::to_owned).collect();
    Some((
        version,
        options,
        unescaped(fields.get(3)?),
        unescaped(fields.get(4)?),
    ))
}

/// Blanks and backslashes are written as three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let code = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_machines_have_both_versions() {
        let mounts = b"20 1 0:5 / /proc rw - proc proc rw\n\
            31 30 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
            32 30 0:28 / /sys/fs/cgroup/cpu\\040x rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let groups = b"4:memory:/a/b\n2:cpu,cpuacct:/\n1:name=systemd:/s\n0::/u\n";
        let found = parse(mounts, groups);
        let shown: Vec<String> = found
            .iter()
            .map(|tree| {
                format!(
                    "{:?} {:?} {:?} {:?}",
                    tree.version, tree.controllers, tree.mount, tree.own
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                r#"V1 ["memory"] "/sys/fs/cgroup/memory" "/a/b""#,
                r#"V1 ["cpu", "cpuacct"] "/sys/fs/cgroup/cpu x" "/""#,
                r#"V1 ["name=systemd"] "/sys/fs/cgroup/systemd" "/s""#,
                r#"V2 [] "/sys/fs/cgroup/unified" "/u""#,
            ]
        );
        assert!(found[1].has(Controller::Cpu) && !found[1].has(Controller::Memory));
    }

    #[test]
    fn a_container_sees_a_part() {
        let part = b"34 30 0:30 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup rw,nsdelegate\n";
        assert_eq!(parse(part, b"0::/docker/1/x\n")[0].own, Path::new("/x"));
        assert_eq!(parse(part, b"0::/docker/1\n")[0].own, Path::new("/"));
        // A group outside of the namespace is shown by dots, and cannot be named.
        assert_eq!(parse(part, b"0::/../other\n")[0].own, Path::new("/"));
        let whole = b"34 30 0:30 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(parse(whole, b"0::/../other\n")[0].own, Path::new("/"));
        assert_eq!(parse(part, b"4:memory:/\n"), []);
        assert_eq!(parse(b"", b""), []);
        assert_eq!(parse(b"a b - cgroup2\n- - -\n\n", b"::\n0\n"), []);
    }
}
