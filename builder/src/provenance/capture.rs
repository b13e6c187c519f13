//! What a graph takes from the outside (`solver/llbsolver/provenance.go`, `captureProvenance`; `provenance/capture.go`).

use std::collections::{BTreeMap, BTreeSet};

use rbuild_graph::{
    DEFAULT_SSH_ID, ExecOp, Graph, GraphError, MountKind, NetMode, Op, SourceOp, VertexDigest,
};
use rbuild_oci::{Digest, Platform, Reference};

use super::purl::Kind;
use super::redact;
use crate::proxy_network::{self, Incomplete};

/// What a source turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// Digest of an image's manifest or index, or of a file.
    Digest(Digest),
    /// A commit, in hexadecimal digits.
    Commit(String),
}

/// An image that was used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageSource {
    /// Its name, without the digest it was resolved to if it has a tag.
    pub reference: String,
    /// From a registry, or from a layout.
    pub kind: Kind,
    /// The platform that was taken of it.
    pub platform: Option<String>,
    /// What the name was.
    pub digest: Option<Digest>,
}

impl ImageSource {
    /// The image that `name` is; without `digest`, its digest is the one in the name. `None` for what is no name.
    #[must_use]
    pub fn of(kind: Kind, name: &str, platform: Option<&Platform>, digest: Option<Digest>) -> Option<Self> {
        let reference = Reference::parse(name).ok()?;
        let digest = digest.or_else(|| reference.digest().cloned());
        // The front end adds the digest it found to a name with a tag; the tag is what was asked for.
        let asked = reference
            .tag()
            .and_then(|tag| reference.repository().with_tag(tag).ok());
        Some(Self {
            reference: asked.unwrap_or(reference).to_string(),
            kind,
            platform: platform.map(ToString::to_string),
            digest,
        })
    }
}

/// What a result was made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capture {
    /// Images.
    pub images: BTreeSet<ImageSource>,
    /// Blobs that were used as files: where from, by which name, and their digest.
    pub blobs: BTreeSet<(Kind, String, Digest)>,
    /// Digests of files, by URL.
    pub http: BTreeMap<String, Digest>,
    /// Commits, by URL.
    pub git: BTreeMap<String, String>,
    /// Bundles that commits were taken from: where from, by which name, their digest, and the URL of the repository.
    pub bundles: BTreeSet<(Kind, String, Digest, String)>,
    /// Names of the client's directories.
    pub locals: BTreeSet<String>,
    /// Ids of secrets, and whether all that used one could do without.
    pub secrets: BTreeMap<String, bool>,
    /// Ids of agents, and whether all that used one could do without.
    pub ssh: BTreeMap<String, bool>,
    /// A step could reach a network.
    pub network_access: bool,
    /// Steps reached it through a proxy only.
    pub proxy_network: bool,
    /// What they fetched that is not known.
    pub proxy_incomplete: BTreeSet<Incomplete>,
    /// Something was used that is not listed.
    pub incomplete_materials: bool,
}

impl Capture {
    /// What `target` of `graph` is made of. `pin` says what a source turned out to be; for an image that is not needed
    /// if its name has a digest.
    ///
    /// # Errors
    /// [`GraphError`] for a target that is not in the graph.
    pub fn of(
        graph: &Graph,
        target: &VertexDigest,
        pin: impl Fn(&VertexDigest, &SourceOp) -> Option<Pin>,
    ) -> Result<Self, GraphError> {
        let mut capture = Self::default();
        for digest in graph.reachable(std::slice::from_ref(target))? {
            let Some(vertex) = graph.get(&digest) else {
                continue;
            };
            match &vertex.op {
                Op::Source(source) => {
                    let pin = pin(&digest, source);
                    capture.add_source(source, vertex.platform.as_ref(), pin);
                }
                Op::Exec(exec) => capture.add_exec(exec),
                Op::Build(_) => capture.incomplete_materials = true,
                _ => {}
            }
        }
        capture.drop_repeated_images();
        Ok(capture)
    }

    /// Adds what another result of the same build is made of.
    pub fn merge(&mut self, other: Self) {
        self.images.extend(other.images);
        self.blobs.extend(other.blobs);
        self.http.extend(other.http);
        self.git.extend(other.git);
        self.bundles.extend(other.bundles);
        self.locals.extend(other.locals);
        for (id, optional) in other.secrets {
            add(&mut self.secrets, &id, optional);
        }
        for (id, optional) in other.ssh {
            add(&mut self.ssh, &id, optional);
        }
        self.network_access |= other.network_access;
        self.proxy_network |= other.proxy_network;
        self.proxy_incomplete.extend(other.proxy_incomplete);
        self.incomplete_materials |= other.incomplete_materials;
        self.drop_repeated_images();
    }

    /// Adds what a step that ran `command` fetched through its proxy.
    pub(crate) fn add_fetched(&mut self, command: &str, fetched: &proxy_network::Capture) {
        self.http.extend(fetched.materials());
        let unknown = fetched.unknown(command);
        self.incomplete_materials |= !unknown.is_empty();
        self.proxy_incomplete.extend(unknown);
    }

    /// Adds images that were looked at while the result was made.
    pub fn add_images(&mut self, images: impl IntoIterator<Item = ImageSource>) {
        self.images.extend(images);
        self.drop_repeated_images();
    }

    fn add_exec(&mut self, exec: &ExecOp) {
        for mount in &exec.mounts {
            match &mount.kind {
                MountKind::Secret { id, optional, .. } => add(&mut self.secrets, id, *optional),
                MountKind::Ssh { id, optional, .. } => {
                    let id = if id.is_empty() { DEFAULT_SSH_ID } else { id };
                    add(&mut self.ssh, id, *optional);
                }
                _ => {}
            }
        }
        for secret in &exec.secret_env {
            add(&mut self.secrets, &secret.id, secret.optional);
        }
        self.network_access |= exec.network != NetMode::None;
    }

    fn add_source(&mut self, source: &SourceOp, platform: Option<&Platform>, pin: Option<Pin>) {
        let Some((scheme, name)) = source.identifier.split_once("://") else {
            self.incomplete_materials = true;
            return;
        };
        let url = || redact::credentials(&source.identifier);
        match (scheme, pin) {
            ("local", _) => drop(self.locals.insert(name.to_owned())),
            ("docker-image", pin) => self.add_image(Kind::Docker, name, platform, pin),
            ("oci-layout", pin) => self.add_image(Kind::Oci, name, platform, pin),
            ("http" | "https", Some(Pin::Digest(digest))) => drop(self.http.insert(url(), digest)),
            ("docker-image+blob", Some(Pin::Digest(digest))) => {
                self.blobs.insert((Kind::Docker, name.to_owned(), digest));
            }
            ("oci-layout+blob", Some(Pin::Digest(digest))) => {
                self.blobs.insert((Kind::Oci, name.to_owned(), digest));
            }
            ("git", Some(Pin::Commit(commit))) => {
                self.add_git(source, name, commit);
            }
            _ => self.incomplete_materials = true,
        }
    }

    fn add_git(&mut self, source: &SourceOp, name: &str, commit: String) {
        let (place, fragment) = name.split_once('#').unwrap_or((name, ""));
        // The directory is not part of what was fetched.
        let reference = fragment.split(':').next().unwrap_or_default();
        // The attribute has the URL as the user wrote it; the identifier has lost its scheme.
        let full = source.attrs.get("git.fullurl");
        let mut url = full.map_or_else(|| format!("git://{place}"), Clone::clone);
        if !reference.is_empty() {
            url.push('#');
            url.push_str(reference);
        }
        let url = redact::credentials(&url);
        let bundle = source
            .attrs
            .get("git.bundle")
            .and_then(|locator| bundle_of(locator));
        if let Some((kind, name, digest)) = bundle {
            self.bundles.insert((kind, name, digest, url.clone()));
        }
        self.git.insert(url, commit);
        let id_of = |name: &str| source.attrs.get(name).filter(|id| !id.is_empty());
        for id in ["git.authtokensecret", "git.authheadersecret"]
            .map(id_of)
            .into_iter()
            .flatten()
        {
            add(&mut self.secrets, id, true);
        }
        if let Some(id) = id_of("git.mountsshsock") {
            add(&mut self.ssh, id, true);
        }
    }

    fn add_image(&mut self, kind: Kind, name: &str, platform: Option<&Platform>, pin: Option<Pin>) {
        let digest = match pin {
            Some(Pin::Digest(digest)) => Some(digest),
            _ => None,
        };
        match ImageSource::of(kind, name, platform, digest) {
            Some(image) => drop(self.images.insert(image)),
            None => self.incomplete_materials = true,
        }
    }

    /// An image by digest is not said again if it is there by a tag.
    fn drop_repeated_images(&mut self) {
        let tag_of = |image: &ImageSource| {
            let reference = Reference::parse(&image.reference).ok()?;
            let tag = reference.tag().unwrap_or(rbuild_oci::DEFAULT_TAG);
            Some((
                format!("{}:{tag}", reference.name()),
                reference.digest().is_some(),
            ))
        };
        let tagged: BTreeSet<String> = self
            .images
            .iter()
            .filter_map(tag_of)
            .filter(|(_, by_digest)| !by_digest)
            .map(|(tag, _)| tag)
            .collect();
        self.images.retain(|image| {
            tag_of(image).is_none_or(|(tag, by_digest)| !by_digest || !tagged.contains(&tag))
        });
    }
}

/// Where a bundle is from, its name without the digest, and that.
fn bundle_of(locator: &str) -> Option<(Kind, String, Digest)> {
    let (scheme, body) = locator.split_once("://")?;
    let (name, digest) = body.rsplit_once('@')?;
    let kind = match scheme {
        "oci-layout+blob" => Kind::Oci,
        _ => Kind::Docker,
    };
    Some((kind, name.to_owned(), Digest::parse(digest).ok()?))
}

/// A thing that one step needs is needed, whatever others say.
fn add(ids: &mut BTreeMap<String, bool>, id: &str, optional: bool) {
    let known = ids.entry(id.to_owned()).or_insert(optional);
    *known &= optional;
}

#[cfg(test)]
mod tests;
