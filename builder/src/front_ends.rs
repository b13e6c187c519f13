//! Who reads a Dockerfile: the front end in this program, or an image that the Dockerfile's first line names. Finds out which,
//! and says what is wanted in the words all front ends understand (`frontend/dockerui/config.go`); running one is left to
//! whoever serves BuildKit's gateway.

pub mod layouts;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use rbuild_dockerfile::directive::detect_syntax;
use rbuild_fileops::{LocalContext, SourceTree};
use rbuild_frontend::RemoteContext;
use rbuild_frontend::subrequest::Subrequest;
use rbuild_graph::{LinuxResources, NetMode};
use rbuild_oci::Reference;
use rbuild_registry::ErrorClass;
use rbuild_store::Lease;
use rbuild_sys::RootFd;
use tokio_util::sync::CancellationToken;

use crate::client::LocalError;
use crate::error::Place;
use crate::export::BuildResult;
use crate::job::Job;
use crate::request::{BuildRequest, ContextSource, NoCache};

/// Build argument that names the front end, whatever the Dockerfile says.
pub const SYNTAX_ARG: &str = "BUILDKIT_SYNTAX";
/// Repositories of the front end that is part of this program.
const OWN: [&str; 2] = [
    "docker.io/docker/dockerfile",
    "docker.io/docker/dockerfile-upstream",
];
/// Its other name.
const OWN_NAME: &str = "dockerfile.v0";

/// The front end that a build argument, or a Dockerfile itself, wants to be read by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syntax {
    /// Its image, and arguments.
    pub line: String,
    /// Line of the Dockerfile that says so; none for an argument.
    pub place: Option<u32>,
}

impl Syntax {
    /// What `argument`, or else `dockerfile`, says; `None` also for the front end in this program.
    #[must_use]
    pub fn foreign(argument: Option<&str>, dockerfile: &[u8]) -> Option<Self> {
        let found = match argument {
            Some(line) => Self {
                line: line.trim().to_owned(),
                place: None,
            },
            None => {
                let (_, directive) = detect_syntax(dockerfile)?;
                Self {
                    line: directive.value,
                    place: Some(directive.span.start),
                }
            }
        };
        let image = found.image();
        (!image.is_empty() && !is_own(image)).then_some(found)
    }

    /// Its image.
    #[must_use]
    pub fn image(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }
}

/// Whether `source` names the Dockerfile front end that is part of this program: it is never fetched.
#[must_use]
pub fn is_own(source: &str) -> bool {
    source == OWN_NAME
        || Reference::parse(source).is_ok_and(|reference| OWN.contains(&reference.name().as_str()))
}

/// A front end failed, in its own words.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct FrontEndFailed {
    /// What it says.
    pub text: String,
    /// Where, if it says that.
    pub place: Option<Place>,
    /// It does not know what it was asked.
    pub is_unsupported: bool,
    /// What kind of trouble a server made for it, or for who wanted to have it.
    pub class: Option<ErrorClass>,
}

/// Runs front ends that are images.
pub trait FrontEnds: Send + Sync + std::fmt::Debug {
    /// Has the front end that `attrs` name read the build, and builds what it answers.
    fn answer<'a>(
        &'a self,
        job: &'a Arc<Job>,
        attrs: BTreeMap<String, String>,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<BuildResult, FrontEndFailed>>;

    /// Has the front end that `attrs` name answer the question in them: what it says is the metadata of its result.
    /// Nothing is built that it does not read itself.
    fn question<'a>(
        &'a self,
        job: &'a Arc<Job>,
        attrs: BTreeMap<String, String>,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<BTreeMap<String, Vec<u8>>, FrontEndFailed>>;
}

/// What the front end must be able to do for `subrequest`, and which it is (`buildx/build/build.go`).
#[must_use]
pub(crate) fn question_attrs(subrequest: Subrequest) -> [(String, String); 2] {
    [
        (
            "frontend.caps".to_owned(),
            "moby.buildkit.frontend.subrequests+forward".to_owned(),
        ),
        ("requestid".to_owned(), subrequest.id().to_owned()),
    ]
}

/// The options of a front end that say what `request` says. `filename` is the Dockerfile's name in the local directory
/// `dockerfile`.
#[must_use]
pub fn attrs(request: &BuildRequest, filename: &str, syntax: &Syntax) -> BTreeMap<String, String> {
    let mut attrs = BTreeMap::new();
    let mut put = |key: &str, value: String| attrs.insert(key.to_owned(), value);
    put("source", syntax.image().to_owned());
    put("cmdline", syntax.line.clone());
    put("filename", filename.to_owned());
    if let Some(target) = &request.target {
        put("target", target.clone());
    }
    if let ContextSource::Remote(url) = &request.context {
        put("context", url.clone());
    }
    if !request.platforms.is_empty() {
        put("platform", request.platforms.join(","));
    }
    match &request.no_cache {
        NoCache::Off => {}
        NoCache::All => drop(put("no-cache", String::new())),
        NoCache::Stages(stages) => drop(put("no-cache", stages.join(","))),
    }
    if request.pull {
        put("image-resolve-mode", "pull".to_owned());
    }
    match request.network {
        Some(NetMode::Host) => drop(put("force-network-mode", "host".to_owned())),
        Some(NetMode::None) => drop(put("force-network-mode", "none".to_owned())),
        Some(NetMode::Unset) | None => {}
    }
    let list = |items: Vec<String>| Some(items.join(",")).filter(|text| !text.is_empty());
    let hosts = request
        .extra_hosts
        .iter()
        .map(|host| format!("{}={}", host.host, host.ip));
    let limits = request.ulimits.iter();
    let limits = limits.map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard));
    let optional = [
        ("add-hosts", list(hosts.collect())),
        ("ulimit", list(limits.collect())),
        ("shm-size", request.shm_size_bytes.map(|bytes| bytes.to_string())),
        ("cgroup-parent", request.cgroup_parent.clone()),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            put(key, value);
        }
    }
    if let Some(resources) = &request.linux_resources {
        for (key, value) in resources_attrs(resources) {
            put(key, value);
        }
    }
    for (name, value) in &request.build_args {
        put(&format!("build-arg:{name}"), value.clone());
    }
    for (name, value) in &request.labels {
        put(&format!("label:{name}"), value.clone());
    }
    for (name, value) in &request.build_contexts {
        let is_remote =
            value.contains("://") || !matches!(RemoteContext::parse(value, false, false), Ok(None));
        let value = if is_remote {
            value.clone()
        } else {
            format!("local:context:{name}")
        };
        put(&format!("context:{name}"), value);
    }
    attrs
}

/// Limits in the words of front ends; what is not limited is not said.
fn resources_attrs(resources: &LinuxResources) -> impl Iterator<Item = (&'static str, String)> {
    let all = [
        ("memory", resources.memory.to_string()),
        ("memswap", resources.memory_swap.to_string()),
        ("cpushares", resources.cpu_shares.to_string()),
        ("cpuperiod", resources.cpu_period.to_string()),
        ("cpuquota", resources.cpu_quota.to_string()),
        ("cpusetcpus", resources.cpuset_cpus.clone()),
        ("cpusetmems", resources.cpuset_mems.clone()),
    ];
    // Processor 0 and node 0 are what they say.
    all.into_iter()
        .filter(|(key, text)| !text.is_empty() && (text != "0" || key.starts_with("cpuset")))
}

/// Why the Dockerfile could not be put where front ends look for it.
#[derive(Debug, thiserror::Error)]
pub enum GivenDockerfileError {
    /// The store has no room for it.
    #[error(transparent)]
    Store(#[from] rbuild_store::DiskError),
    /// It could not be written.
    #[error("write the Dockerfile for its front end")]
    Write(#[source] std::io::Error),
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] LocalError),
}

/// The local directory `dockerfile` of a build: the Dockerfile as it was read, and the ignore patterns that count.
///
/// # Errors
/// [`GivenDockerfileError`].
pub(crate) fn given_dockerfile(
    lease: &Lease,
    filename: &str,
    text: &[u8],
    ignore_patterns: &[String],
) -> Result<Arc<SourceTree>, GivenDockerfileError> {
    let dir = lease.new_dir("dockerfile")?;
    let ignore = format!("{}\n", ignore_patterns.join("\n"));
    for (name, content) in [
        (filename.to_owned(), text),
        (format!("{filename}.dockerignore"), ignore.as_bytes()),
    ] {
        std::fs::write(dir.join(name), content).map_err(GivenDockerfileError::Write)?;
    }
    let root = RootFd::open(&dir).map_err(|source| LocalError::Open {
        name: "dockerfile".to_owned(),
        source,
    })?;
    Ok(Arc::new(SourceTree::Context(LocalContext::new(root, dir, None))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_foreign_front_ends_are_found() {
        let of = |argument, dockerfile: &str| Syntax::foreign(argument, dockerfile.as_bytes());
        let found = of(None, "# syntax=a/b:c  x y\nFROM x\n").unwrap();
        assert_eq!(
            (found.image(), found.line.as_str(), found.place),
            ("a/b:c", "a/b:c  x y", Some(1))
        );
        let found = of(Some(" q/r z"), "# syntax=a/b:c\n").unwrap();
        assert_eq!((found.image(), found.place), ("q/r", None));
        for own in [
            "docker/dockerfile:1",
            "docker/dockerfile-upstream:master x",
            "dockerfile.v0",
            " ",
        ] {
            assert_eq!(of(Some(own), "# syntax=a/b\n"), None, "{own}");
        }
        assert_eq!(of(None, "FROM x\n"), None);
    }

    #[test]
    fn a_request_is_said_in_the_words_of_front_ends() {
        let syntax = Syntax {
            line: "a/b c".to_owned(),
            place: None,
        };
        let mut request = BuildRequest {
            target: Some("t".to_owned()),
            platforms: vec!["linux/amd64".to_owned(), "linux/arm64".to_owned()],
            no_cache: NoCache::Stages(vec!["x".to_owned(), "y".to_owned()]),
            network: Some(NetMode::None),
            ..BuildRequest::default()
        };
        for (name, value) in [("A", "1=2"), ("SOURCE_DATE_EPOCH", "7")] {
            request.build_args.insert(name.to_owned(), value.to_owned());
        }
        request
            .build_contexts
            .insert("near".to_owned(), "./dir".to_owned());
        request
            .build_contexts
            .insert("far".to_owned(), "docker-image://x".to_owned());
        request.linux_resources = Some(LinuxResources {
            memory: 7,
            memory_swap: -1,
            cpuset_cpus: "0,1".to_owned(),
            ..LinuxResources::default()
        });
        let attrs = attrs(&request, "D", &syntax);
        let told: Vec<String> = attrs
            .iter()
            .map(|(key, value)| format!("{key} {value}"))
            .collect();
        assert_eq!(
            told,
            [
                "build-arg:A 1=2",
                "build-arg:SOURCE_DATE_EPOCH 7",
                "cmdline a/b c",
                "context:far docker-image://x",
                "context:near local:context:near",
                "cpusetcpus 0,1",
                "filename D",
                "force-network-mode none",
                "memory 7",
                "memswap -1",
                "no-cache x,y",
                "platform linux/amd64,linux/arm64",
                "source a/b",
                "target t",
            ]
        );
    }
}
