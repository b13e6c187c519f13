//! What a vertex needs of the server that runs it, as BuildKit's client notes it while it writes an operation
//! (`addCap` in `client/llb/exec.go`, `fileop.go`, `source.go`).

use std::collections::BTreeSet;

use rbuild_graph::{ContentCache, ExecOp, Graph, MountKind, NetMode, Op, SecurityMode, SourceOp, Vertex};

/// Capabilities of attributes of sources, by scheme of the identifier.
const OF_ATTRS: [(&str, &str); 20] = [
    ("git.bundle", "source.git.bundle"),
    ("git.checkoutbundle", "source.git.checkoutbundle"),
    ("git.checksum", "source.git.checksum"),
    ("git.fetchbycommit", "source.git.fetchbycommit"),
    ("git.fullurl", "source.git.fullurl"),
    ("git.keepgitdir", "source.git.keepgitdir"),
    ("git.mountsshsock", "source.git.mountsshsock"),
    ("git.mtime", "source.git.mtime"),
    ("git.skipsubmodules", "source.git.skipsubmodules"),
    ("http.checksum", "source.http.checksum"),
    ("http.gid", "soruce.http.uidgid"),
    ("http.perm", "source.http.perm"),
    ("http.uid", "soruce.http.uidgid"),
    ("image.checksum", "source.image.checksum"),
    ("local.excludepatterns", "source.local.excludepatterns"),
    ("local.followpaths", "source.local.followpaths"),
    ("local.includepattern", "source.local.includepatterns"),
    ("local.session", "source.local.sessionid"),
    ("local.sharedkeyhint", "source.local.sharedkeyhint"),
    ("local.unique", "source.local.unique"),
];

/// Notes in every vertex of `graph` what it needs. A Dockerfile's vertices begin without.
pub fn note(graph: &mut Graph) {
    let found: Vec<_> = graph
        .iter()
        .map(|(digest, vertex)| (digest.clone(), vertex.meta.clone(), of(vertex)))
        .collect();
    for (digest, mut meta, caps) in found {
        meta.caps.extend(caps);
        graph.set_meta(&digest, meta);
    }
}

/// What one vertex needs.
fn of(vertex: &Vertex) -> BTreeSet<String> {
    let mut caps = Caps::default();
    match &vertex.op {
        Op::Source(source) => caps.source(source),
        Op::Exec(exec) => {
            caps.exec(exec);
            caps.add_if(vertex.meta.linux_resources.is_some(), "exec.meta.linux.resources");
        }
        // What single actions need is noted too late to be told (`FileOp.Marshal`).
        Op::File(_) => caps.add("file.base"),
        Op::Merge(_) => caps.add("mergeop"),
        Op::Diff(_) => caps.add("diffop"),
        Op::Build(_) | Op::Passthrough(_) => {}
    }
    caps.0
}

#[derive(Default)]
struct Caps(BTreeSet<String>);

impl Caps {
    fn add(&mut self, cap: &str) {
        self.0.insert(cap.to_owned());
    }

    fn add_if(&mut self, used: bool, cap: &str) {
        if used {
            self.add(cap);
        }
    }

    fn source(&mut self, source: &SourceOp) {
        let scheme = source
            .identifier
            .split_once("://")
            .map_or("", |(scheme, _)| scheme);
        match scheme {
            "docker-image" => self.add("source.image"),
            "local" => self.add("source.local"),
            "git" => self.add("source.git"),
            "oci-layout" => self.add("source.ocilayout"),
            "http" | "https" => self.add("source.http"),
            _ => {}
        }
        for (attr, cap) in OF_ATTRS {
            self.add_if(source.attrs.contains_key(attr), cap);
        }
        // Of an agent the hosts it may be shown to are asked for, whether they were found or not.
        let agent = source.attrs.contains_key("git.mountsshsock");
        self.add_if(agent, "source.git.knownsshhosts");
        let mode = source.attrs.get("image.resolvemode");
        self.add_if(
            mode.is_some_and(|mode| mode == "pull"),
            "source.image.resolvemode",
        );
    }

    fn exec(&mut self, exec: &ExecOp) {
        self.add("exec.meta.base");
        self.add("exec.meta.setsdefaultpath");
        let meta = &exec.meta;
        self.add_if(!meta.valid_exit_codes.is_empty(), "exec.validexitcode");
        self.add_if(!meta.ulimit.is_empty(), "exec.meta.ulimit");
        self.add_if(exec.network != NetMode::Unset, "exec.meta.network");
        self.add_if(exec.security == SecurityMode::Insecure, "exec.meta.security");
        self.add_if(meta.proxy_env.is_some(), "exec.meta.proxyenv");
        self.add_if(!exec.cdi_devices.is_empty(), "exec.meta.cdi");
        for mount in &exec.mounts {
            self.add_if(!mount.selector.is_empty(), "exec.mount.selector");
            match &mount.kind {
                MountKind::Bind => self.add_if(mount.input.is_some(), "exec.mount.bind"),
                MountKind::Cache { .. } => {
                    self.add("exec.mount.cache");
                    self.add("exec.mount.cache.sharing");
                }
                MountKind::Tmpfs { size_bytes } => {
                    self.add("exec.mount.tmpfs");
                    self.add_if(*size_bytes > 0, "exec.mount.tmpfs.size");
                }
                MountKind::Secret { .. } => self.add("exec.mount.secret"),
                MountKind::Ssh { .. } => self.add("exec.mount.ssh"),
            }
            self.add_if(
                mount.content_cache != ContentCache::Default,
                "exec.mount.cache.content",
            );
        }
        // A secret in the environment is a secret, mounted or not.
        self.add_if(!exec.secret_env.is_empty(), "exec.mount.secret");
        self.add_if(!exec.secret_env.is_empty(), "exec.secretenv");
    }
}
