//! Lists of packages: a scanner image runs as a step on the result, and what it leaves behind is a bundle
//! (`frontend/attestations/sbom`).

use std::collections::BTreeMap;
use std::sync::Arc;

use rbuild_frontend::{ImageRequest, ImageResolveMode, InputGraph, MetaResolver as _, ResolveError};
use rbuild_graph::{
    Edge, ExecMeta, ExecOp, Graph, GraphError, Mount, MountKind, NetMode, Op, SecurityMode, SourceOp, Vertex,
    VertexMeta,
};
use rbuild_oci::{ConfigError, ImageConfig, Platform, Reference};

use super::{Attestation, Content, SPDX};
use crate::resolve::Resolver;
use crate::value::Chain;

/// Name of the result among what is scanned.
pub const CORE: &str = "sbom";
const SOURCES: &str = "/run/src";
const DESTINATION: &str = "/run/out/";
/// Number of the output that [`DESTINATION`] becomes; the scanner's root is the first.
const DESTINATION_OUTPUT: u32 = 1;

/// Why nothing can be scanned.
#[derive(Debug, thiserror::Error)]
pub enum ScannerError {
    /// The scanner could not be had.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Its config is none.
    #[error("scanner {name} has an invalid config")]
    Config {
        /// The scanner.
        name: String,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// It has no program.
    #[error("scanner {0} does not have cmd")]
    NoCommand(String),
    /// What is to be scanned is not whole.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// A scanner that was found.
#[derive(Debug, Clone)]
pub struct Scanner {
    name: String,
    platform: Platform,
    config: ImageConfig,
    parameters: BTreeMap<String, String>,
}

/// What is scanned.
#[derive(Debug)]
pub struct Scanned<'a> {
    /// What it is called in the progress: its platform.
    pub name: &'a str,
    /// The graph of the result and of all extras.
    pub graph: &'a Graph,
    /// The result; nothing is an empty one.
    pub core: Option<&'a Edge>,
    /// What else the scanner may look at, by name.
    pub extras: &'a BTreeMap<String, Option<Edge>>,
    /// Scan again, whatever the cache has.
    pub ignore_cache: bool,
}

impl Scanner {
    /// Finds the image `generator`, whose step gets `parameters`. Its name may be changed by the rules for sources.
    ///
    /// # Errors
    /// [`ScannerError`].
    pub async fn find(
        resolver: &Resolver<'_>,
        generator: &Reference,
        mode: ImageResolveMode,
        parameters: BTreeMap<String, String>,
    ) -> Result<Self, ScannerError> {
        let platform = Platform::host();
        let request = ImageRequest {
            reference: generator.to_string(),
            platform: platform.clone(),
            mode,
            log_name: format!("resolve image config for {generator}"),
        };
        let found = resolver.image_config(&request).await?;
        let config = ImageConfig::parse(&found.config).map_err(|source| ScannerError::Config {
            name: generator.to_string(),
            source,
        })?;
        if config.config.entrypoint.is_empty() && config.config.cmd.is_empty() {
            return Err(ScannerError::NoCommand(generator.to_string()));
        }
        let name = found.canonical_reference;
        let pinned = match Reference::parse(&name) {
            Ok(reference) if reference.digest().is_none() => format!("{name}@{}", found.digest),
            _ => name,
        };
        Ok(Self {
            name: pinned,
            platform,
            config,
            parameters,
        })
    }

    /// The graph of a step that scans.
    ///
    /// # Errors
    /// [`ScannerError::Graph`].
    pub fn scan(&self, scanned: &Scanned<'_>) -> Result<InputGraph, ScannerError> {
        let mut graph = Graph::default();
        let image = Op::Source(SourceOp {
            identifier: format!("docker-image://{}", self.name),
            attrs: BTreeMap::new(),
        });
        let image = graph.add(self.vertex(image, Vec::new(), VertexMeta::default()))?;
        let mut step = Step {
            inputs: vec![Edge {
                vertex: image,
                output: 0,
            }],
            mounts: vec![Mount {
                input: Some(0),
                output: Some(0),
                ..Mount::new("/", MountKind::Bind)
            }],
        };
        step.mounts
            .push(Mount::new("/tmp", MountKind::Tmpfs { size_bytes: 0 }));
        step.look_at(
            &mut graph,
            scanned,
            &format!("{SOURCES}/core/{CORE}"),
            scanned.core,
        )?;
        for (name, extra) in scanned.extras {
            let at = format!("{SOURCES}/extras/{CORE}-{name}");
            step.look_at(&mut graph, scanned, &at, extra.as_ref())?;
        }
        step.mounts.push(Mount {
            output: Some(DESTINATION_OUTPUT),
            ..Mount::new(DESTINATION, MountKind::Bind)
        });
        let meta = VertexMeta {
            name: format!("[{}] generating sbom using {}", scanned.name, self.name),
            ignore_cache: scanned.ignore_cache,
            ..VertexMeta::default()
        };
        let exec = Op::Exec(Box::new(ExecOp {
            meta: self.command(!scanned.extras.is_empty()),
            mounts: step.mounts,
            network: NetMode::Unset,
            security: SecurityMode::Sandbox,
            secret_env: Vec::new(),
            cdi_devices: Vec::new(),
        }));
        let vertex = graph.add(self.vertex(exec, step.inputs, meta))?;
        Ok(InputGraph {
            graph: Arc::new(graph),
            target: Some(Edge {
                vertex,
                output: DESTINATION_OUTPUT,
            }),
            config: None,
        })
    }

    fn vertex(&self, op: Op, inputs: Vec<Edge>, mut meta: VertexMeta) -> Vertex {
        if meta.name.is_empty() {
            meta.name = format!("docker-image://{}", self.name);
        }
        Vertex {
            op,
            inputs,
            platform: Some(self.platform.clone()),
            constraints: Vec::new(),
            meta,
        }
    }

    fn command(&self, with_extras: bool) -> ExecMeta {
        let config = &self.config.config;
        let mut env = config.env.clone();
        let mut set = |name: &str, value: &str| {
            let prefix = format!("{name}=");
            env.retain(|entry| !entry.starts_with(&prefix));
            env.push(format!("{prefix}{value}"));
        };
        set("BUILDKIT_SCAN_DESTINATION", DESTINATION);
        set("BUILDKIT_SCAN_SOURCE", &format!("{SOURCES}/core/{CORE}"));
        if with_extras {
            set("BUILDKIT_SCAN_SOURCE_EXTRAS", &format!("{SOURCES}/extras"));
        }
        for (name, value) in &self.parameters {
            set(&format!("BUILDKIT_SCAN_{name}"), value);
        }
        let cwd = &config.working_dir;
        ExecMeta {
            args: config.entrypoint.iter().chain(&config.cmd).cloned().collect(),
            env,
            cwd: if cwd.is_empty() {
                "/".to_owned()
            } else {
                cwd.clone()
            },
            ..ExecMeta::default()
        }
    }
}

struct Step {
    inputs: Vec<Edge>,
    mounts: Vec<Mount>,
}

impl Step {
    /// Mounts `target` where the scanner can look at it.
    fn look_at(
        &mut self,
        graph: &mut Graph,
        scanned: &Scanned<'_>,
        dest: &str,
        target: Option<&Edge>,
    ) -> Result<(), GraphError> {
        let mut mount = Mount {
            readonly: true,
            ..Mount::new(dest, MountKind::Bind)
        };
        if let Some(target) = target {
            graph.merge(scanned.graph, target)?;
            let known = self.inputs.iter().position(|input| input == target);
            let at = known.unwrap_or_else(|| {
                self.inputs.push(target.clone());
                self.inputs.len() - 1
            });
            mount.input = u32::try_from(at).ok();
        }
        self.mounts.push(mount);
        Ok(())
    }
}

/// What a scanner left behind, as an attestation.
#[must_use]
pub fn attestation(found: Chain) -> Attestation {
    Attestation {
        content: Content::Bundle(found),
        path: String::new(),
        predicate_type: SPDX.to_owned(),
        subjects: Vec::new(),
        sbom_core: Some(CORE.to_owned()),
        inline_only: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanner() -> Scanner {
        let mut config = ImageConfig::default();
        config.config.cmd = vec!["scan".to_owned()];
        config.config.env = vec!["A=b".to_owned(), "BUILDKIT_SCAN_SOURCE=/elsewhere".to_owned()];
        Scanner {
            name: "docker.io/library/scanner:latest".to_owned(),
            platform: Platform::new("linux", "amd64"),
            config,
            parameters: [("deep".to_owned(), "1".to_owned())].into(),
        }
    }

    #[test]
    fn the_scanner_sees_the_result_and_what_else_there_is() {
        let mut graph = Graph::default();
        let scanner = scanner();
        let mut source = |name: &str| {
            let op = Op::Source(SourceOp {
                identifier: format!("local://{name}"),
                attrs: BTreeMap::new(),
            });
            let vertex = graph
                .add(scanner.vertex(op, vec![], VertexMeta::default()))
                .unwrap();
            Edge { vertex, output: 0 }
        };
        let (core, context) = (source("core"), source("context"));
        let extras = [
            ("base".to_owned(), Some(core.clone())),
            ("context".to_owned(), Some(context)),
            ("empty".to_owned(), None),
        ];
        let scanned = Scanned {
            name: "linux/amd64",
            graph: &graph,
            core: Some(&core),
            extras: &extras.into(),
            ignore_cache: false,
        };
        let step = scanner.scan(&scanned).unwrap();
        let target = step.target.unwrap();
        let Op::Exec(exec) = &step.graph.get(&target.vertex).unwrap().op else {
            panic!("a scan is a step");
        };
        let mounts: Vec<_> = exec
            .mounts
            .iter()
            .map(|mount| (mount.dest.as_str(), mount.input, mount.readonly))
            .collect();
        assert_eq!(
            mounts,
            [
                ("/", Some(0), false),
                ("/tmp", None, false),
                ("/run/src/core/sbom", Some(1), true),
                ("/run/src/extras/sbom-base", Some(1), true),
                ("/run/src/extras/sbom-context", Some(2), true),
                ("/run/src/extras/sbom-empty", None, true),
                ("/run/out/", None, false),
            ]
        );
        assert_eq!(
            exec.meta.env,
            [
                "A=b",
                "BUILDKIT_SCAN_DESTINATION=/run/out/",
                "BUILDKIT_SCAN_SOURCE=/run/src/core/sbom",
                "BUILDKIT_SCAN_SOURCE_EXTRAS=/run/src/extras",
                "BUILDKIT_SCAN_deep=1",
            ]
        );
        assert_eq!(
            (exec.meta.args[0].as_str(), exec.meta.cwd.as_str()),
            ("scan", "/")
        );
        assert_eq!(target.output, 1);
    }

    #[test]
    fn an_empty_result_is_scanned_too() {
        let graph = Graph::default();
        let scanned = Scanned {
            name: "linux/amd64",
            graph: &graph,
            core: None,
            extras: &BTreeMap::new(),
            ignore_cache: true,
        };
        let step = scanner().scan(&scanned).unwrap();
        let vertex = step.graph.get(&step.target.unwrap().vertex).unwrap();
        assert!(vertex.meta.ignore_cache);
        assert_eq!(vertex.inputs.len(), 1);
    }
}
