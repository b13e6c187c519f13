//! API capabilities of LLB (`solver/pb/caps.go`): what a server says it can do, and whether that is enough for a
//! definition.

use bollard_buildkit_proto::moby::buildkit::v1::apicaps::ApiCap;

mod needed;

pub use needed::note;

/// Operations may name the worker they need.
pub(crate) const CONSTRAINTS: &str = "constraints";
/// Operations may name their platform.
pub const PLATFORM: &str = "platform";
/// Vertices may be kept from the cache.
pub(crate) const META_IGNORE_CACHE: &str = "meta.ignorecache";
/// Vertices may have descriptions.
pub(crate) const META_DESCRIPTION: &str = "meta.description";
/// Vertices may be kept from cache exports.
pub(crate) const META_EXPORT_CACHE: &str = "meta.exportcache";

/// All that BuildKit has names for, sorted. One is spelled as BuildKit spells it.
pub(crate) const KNOWN: [&str; 90] = [
    "cache.azblob",
    "cache.gha",
    "cache.s3",
    "constraints",
    "diffop",
    "exec.cgroup",
    "exec.meta.base",
    "exec.meta.cdi",
    "exec.meta.cgroup.parent",
    "exec.meta.linux.resources",
    "exec.meta.network",
    "exec.meta.network.proxy",
    "exec.meta.proxyenv",
    "exec.meta.removemountstubs.recursive",
    "exec.meta.security",
    "exec.meta.security.devices.v1",
    "exec.meta.setsdefaultpath",
    "exec.meta.ulimit",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.content",
    "exec.mount.cache.sharing",
    "exec.mount.secret",
    "exec.mount.selector",
    "exec.mount.ssh",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.secretenv",
    "exec.validexitcode",
    "exporter.image.annotations",
    "exporter.image.attestations",
    "exporter.multiple",
    "exporter.session",
    "exporter.sourcedateepoch",
    "file.base",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.includeexcludepatterns",
    "file.copy.modestring",
    "file.copy.requiredpaths",
    "file.rm.nofollowsymlink",
    "file.rm.wildcard",
    "file.symlink.create",
    "gc.freespacefilter",
    "history.filter",
    "mergeop",
    "meta.description",
    "meta.exportcache",
    "meta.ignorecache",
    "passthroughop",
    "platform",
    "soruce.http.uidgid",
    "source.buildop.llbfilename",
    "source.git",
    "source.git.bundle",
    "source.git.checkoutbundle",
    "source.git.checksum",
    "source.git.fetchbycommit",
    "source.git.fullurl",
    "source.git.httpauth",
    "source.git.keepgitdir",
    "source.git.knownsshhosts",
    "source.git.mountsshsock",
    "source.git.mtime",
    "source.git.signatureverify",
    "source.git.skipsubmodules",
    "source.git.subdir",
    "source.http",
    "source.http.auth",
    "source.http.checksum",
    "source.http.header",
    "source.http.perm",
    "source.http.signatureverify",
    "source.image",
    "source.image.checksum",
    "source.image.layerlimit",
    "source.image.resolvemode",
    "source.imageblob",
    "source.local",
    "source.local.differ",
    "source.local.excludepatterns",
    "source.local.followpaths",
    "source.local.includepatterns",
    "source.local.metadatatransfer",
    "source.local.sessionid",
    "source.local.sharedkeyhint",
    "source.local.unique",
    "source.ocilayout",
    "source.policy",
    "source.policy.session",
];

/// A capability this server does not have, though BuildKit knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disabled {
    /// Its name, one of `KNOWN`.
    pub name: &'static str,
    /// What to tell the user; may be empty.
    pub reason: &'static str,
}

/// Why a definition asks for too much. Sentences are BuildKit's (`util/apicaps/caps.go`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapError {
    /// Newer than what this was written from.
    #[error("unknown API capability {0}")]
    Unknown(String),
    /// Known, and not here.
    // Two spaces: BuildKit puts a title between them, which no capability but one has.
    #[error("requested experimental feature {name}  has been disabled on the build server{}", because(.reason))]
    Disabled {
        /// Which.
        name: &'static str,
        /// Why.
        reason: &'static str,
    },
}

fn because(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    }
}

/// The list a server sends to its clients, those of `disabled` marked as such.
#[must_use]
pub fn advertise(disabled: &[Disabled]) -> Vec<ApiCap> {
    let cap = |name: &&str| {
        let off = disabled.iter().find(|off| off.name == *name);
        ApiCap {
            id: (*name).to_owned(),
            enabled: off.is_none(),
            disabled_reason_msg: off.map_or("", |off| off.reason).to_owned(),
            ..ApiCap::default()
        }
    };
    KNOWN.iter().map(cap).collect()
}

/// Looks whether everything a definition needs is here.
///
/// # Errors
/// [`CapError`] for the first that is not.
pub fn check<'a>(needed: impl IntoIterator<Item = &'a str>, disabled: &[Disabled]) -> Result<(), CapError> {
    for name in needed {
        if KNOWN.binary_search(&name).is_err() {
            return Err(CapError::Unknown(name.to_owned()));
        }
        if let Some(Disabled { name, reason }) = disabled.iter().find(|off| off.name == name) {
            return Err(CapError::Disabled { name, reason });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFF: [Disabled; 2] = [
        Disabled {
            name: "exec.meta.cdi",
            reason: "no devices here",
        },
        Disabled {
            name: "passthroughop",
            reason: "",
        },
    ];

    #[test]
    fn what_is_not_there_is_named() {
        assert!(KNOWN.is_sorted(), "it is searched by halves");
        let text = |name: &str| check([PLATFORM, name], &OFF).map_err(|error| error.to_string());
        assert_eq!(text("exec.meta.base"), Ok(()));
        assert_eq!(
            text("exec.warp"),
            Err("unknown API capability exec.warp".to_owned())
        );
        assert_eq!(
            text("exec.meta.cdi"),
            Err("requested experimental feature exec.meta.cdi  has been disabled on the build server: no devices here"
                .to_owned())
        );
        let plain = "requested experimental feature passthroughop  has been disabled on the build server";
        assert_eq!(text("passthroughop"), Err(plain.to_owned()));
    }

    #[test]
    fn clients_are_told_what_is_off() {
        let caps = advertise(&OFF);
        let off: Vec<&str> = caps
            .iter()
            .filter(|cap| !cap.enabled)
            .map(|cap| cap.id.as_str())
            .collect();
        assert_eq!(off, ["exec.meta.cdi", "passthroughop"]);
        assert_eq!(caps.len(), KNOWN.len());
    }
}
