//! What a graph takes from the outside (`solver/llbsolver/provenance.go`, `captureProvenance`; `provenance/capture.go`).

use std::collections::{BTreeMap, BTreeSet};

use rbuild_graph::{ExecOp, Graph, GraphError, MountKind, NetMode, Op, SourceOp, VertexDigest};
use rbuild_oci::{Digest, Platform, Reference};

use super::purl::Kind;
use super::redact;

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

/// What a result was made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capture {
    /// Images.
    pub images: BTreeSet<ImageSource>,
    /// Digests of files, by URL.
    pub http: BTreeMap<String, Digest>,
    /// Commits, by URL.
    pub git: BTreeMap<String, String>,
    /// Names of the client's directories.
    pub locals: BTreeSet<String>,
    /// Ids of secrets, and whether all that used one could do without.
    pub secrets: BTreeMap<String, bool>,
    /// Ids of agents, and whether all that used one could do without.
    pub ssh: BTreeMap<String, bool>,
    /// A step could reach a network.
    pub network_access: bool,
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
        pin: impl Fn(&SourceOp, Option<&Platform>) -> Option<Pin>,
    ) -> Result<Self, GraphError> {
        let mut capture = Self::default();
        for digest in graph.reachable(std::slice::from_ref(target))? {
            let Some(vertex) = graph.get(&digest) else {
                continue;
            };
            match &vertex.op {
                Op::Source(source) => {
                    let platform = vertex.platform.as_ref();
                    capture.add_source(source, platform, pin(source, platform));
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
        self.http.extend(other.http);
        self.git.extend(other.git);
        self.locals.extend(other.locals);
        for (id, optional) in other.secrets {
            add(&mut self.secrets, &id, optional);
        }
        for (id, optional) in other.ssh {
            add(&mut self.ssh, &id, optional);
        }
        self.network_access |= other.network_access;
        self.incomplete_materials |= other.incomplete_materials;
        self.drop_repeated_images();
    }

    fn add_exec(&mut self, exec: &ExecOp) {
        for mount in &exec.mounts {
            match &mount.kind {
                MountKind::Secret { id, optional, .. } => add(&mut self.secrets, id, *optional),
                MountKind::Ssh { id, optional, .. } => {
                    let id = if id.is_empty() { "default" } else { id };
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
            ("git", Some(Pin::Commit(commit))) => {
                // The attribute has the URL as the user wrote it; the identifier has lost its scheme.
                let full = source.attrs.get("git.fullurl").map_or_else(url, |full| {
                    let fragment = name.split_once('#').map(|(_, fragment)| format!("#{fragment}"));
                    redact::credentials(&format!("{full}{}", fragment.unwrap_or_default()))
                });
                self.git.insert(full, commit);
            }
            _ => self.incomplete_materials = true,
        }
    }

    fn add_image(&mut self, kind: Kind, name: &str, platform: Option<&Platform>, pin: Option<Pin>) {
        let Ok(reference) = Reference::parse(name) else {
            self.incomplete_materials = true;
            return;
        };
        let digest = match pin {
            Some(Pin::Digest(digest)) => Some(digest),
            _ => reference.digest().cloned(),
        };
        // The front end adds the digest it found to a name with a tag; the tag is what was asked for.
        let asked = reference
            .tag()
            .and_then(|tag| reference.repository().with_tag(tag).ok());
        self.images.insert(ImageSource {
            reference: asked.unwrap_or(reference).to_string(),
            kind,
            platform: platform.map(ToString::to_string),
            digest,
        });
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

/// A thing that one step needs is needed, whatever others say.
fn add(ids: &mut BTreeMap<String, bool>, id: &str, optional: bool) {
    let known = ids.entry(id.to_owned()).or_insert(optional);
    *known &= optional;
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_graph::{Edge, ExecMeta, MergeOp, Mount, SecretEnv, SecurityMode, Vertex, VertexMeta};

    fn vertex(op: Op, inputs: Vec<VertexDigest>) -> Vertex {
        Vertex {
            op,
            inputs: inputs
                .into_iter()
                .map(|vertex| Edge { vertex, output: 0 })
                .collect(),
            platform: Some(Platform::new("linux", "amd64")),
            constraints: vec![],
            meta: VertexMeta::default(),
        }
    }

    fn source(graph: &mut Graph, identifier: &str, attrs: &[(&str, &str)]) -> VertexDigest {
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let op = Op::Source(SourceOp {
            identifier: identifier.to_owned(),
            attrs: attrs.collect(),
        });
        graph.add(vertex(op, vec![])).unwrap()
    }

    fn all(graph: &mut Graph, inputs: Vec<VertexDigest>) -> VertexDigest {
        let list = (0..u32::try_from(inputs.len()).unwrap()).map(Some).collect();
        graph
            .add(vertex(Op::Merge(MergeOp { inputs: list }), inputs))
            .unwrap()
    }

    #[test]
    fn row41_sources_are_listed_without_credentials() {
        let digest = Digest::sha256(b"image");
        let mut graph = Graph::default();
        let inputs = vec![
            source(
                &mut graph,
                &format!("docker-image://docker.io/library/busybox:latest@{digest}"),
                &[],
            ),
            source(
                &mut graph,
                &format!("docker-image://docker.io/library/busybox@{digest}"),
                &[],
            ),
            source(&mut graph, "local://context", &[]),
            source(&mut graph, "https://u:secret@host/file", &[]),
            source(
                &mut graph,
                "git://host/repo#main",
                &[("git.fullurl", "https://u:secret@host/repo")],
            ),
        ];
        source(&mut graph, "local://unused", &[]);
        let target = all(&mut graph, inputs);
        let pin = |source: &SourceOp, _: Option<&Platform>| match source.identifier.split_once(':')?.0 {
            "https" => Some(Pin::Digest(Digest::sha256(b"file"))),
            "git" => Some(Pin::Commit("a".repeat(40))),
            _ => None,
        };
        let found = Capture::of(&graph, &target, pin).unwrap();
        let images = found
            .images
            .iter()
            .map(|image| (image.reference.as_str(), image.digest.clone()));
        assert_eq!(
            images.collect::<Vec<_>>(),
            [("docker.io/library/busybox:latest", Some(digest))]
        );
        assert!(found.http.keys().eq(["https://xxxxx:xxxxx@host/file"]));
        assert!(found.git.keys().eq(["https://xxxxx:xxxxx@host/repo#main"]));
        assert!(found.locals.iter().eq(["context"]), "only what the target needs");
        assert!(!found.incomplete_materials && !found.network_access);
        assert!(!format!("{found:?}").contains("secret@"));
    }

    #[test]
    fn a_source_nobody_can_pin_makes_the_list_incomplete() {
        let mut graph = Graph::default();
        let file = source(&mut graph, "https://host/file", &[]);
        assert!(
            Capture::of(&graph, &file, |_, _| None)
                .unwrap()
                .incomplete_materials
        );
        let tape = source(&mut graph, "tape://1", &[]);
        assert!(
            Capture::of(&graph, &tape, |_, _| None)
                .unwrap()
                .incomplete_materials
        );
    }

    fn step(network: NetMode, optional: bool) -> ExecOp {
        let secret = MountKind::Secret {
            id: "s".into(),
            uid: 0,
            gid: 0,
            mode: 0,
            optional,
        };
        let ssh = MountKind::Ssh {
            id: String::new(),
            uid: 0,
            gid: 0,
            mode: 0,
            optional: true,
        };
        ExecOp {
            meta: ExecMeta::default(),
            mounts: vec![Mount::new("/s", secret), Mount::new("/a", ssh)],
            network,
            security: SecurityMode::Sandbox,
            secret_env: vec![SecretEnv {
                id: "e".into(),
                name: "E".into(),
                optional: true,
            }],
            cdi_devices: vec![],
        }
    }

    fn capture(steps: Vec<ExecOp>) -> Capture {
        let mut graph = Graph::default();
        let mut inputs = Vec::new();
        for step in steps {
            inputs.push(graph.add(vertex(Op::Exec(Box::new(step)), vec![])).unwrap());
        }
        let target = all(&mut graph, inputs);
        Capture::of(&graph, &target, |_, _| None).unwrap()
    }

    #[test]
    fn steps_say_their_secrets_agents_and_network() {
        let quiet = capture(vec![step(NetMode::None, true)]);
        assert!(!quiet.network_access);
        assert_eq!(
            quiet.secrets,
            BTreeMap::from([("e".to_owned(), true), ("s".to_owned(), true)])
        );
        assert_eq!(quiet.ssh, BTreeMap::from([("default".to_owned(), true)]));
        let both = capture(vec![step(NetMode::None, true), step(NetMode::Unset, false)]);
        assert!(both.network_access);
        assert!(!both.secrets["s"], "one step needs it");
        let mut merged = quiet;
        merged.merge(both.clone());
        assert_eq!(merged, both);
    }
}
