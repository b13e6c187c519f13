//! A resolver that knows a few images and keeps a list of what it was asked.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rbuild_frontend::{
    FrontendError, FrontendOptions, IgnoreFilePlace, IgnoreFileRequest, ImageRequest, LayoutPlace,
    LayoutRequest, Lowered, MetaResolver, ResolveError, ResolvedImage, SourceTimeRequest, lower,
};
use rbuild_graph::SourceOp;
use rbuild_oci::{Digest, Platform, Timestamp};

#[derive(Debug, Default)]
pub(crate) struct Fake {
    images: BTreeMap<String, String>,
    every_image: Option<&'static str>,
    ignore_files: BTreeMap<String, String>,
    times: BTreeMap<String, i64>,
    pub(crate) asked: Mutex<Vec<String>>,
}

/// Config of the usual base: one layer, `PATH` and a shell.
pub(crate) const ALPINE: &str = r#"{"architecture":"amd64","os":"linux","created":"2020-01-01T00:00:00Z",
"config":{"Env":["PATH=/bin"],"Cmd":["/bin/sh"]},
"history":[{"created":"2020-01-01T00:00:00Z","created_by":"ADD rootfs"}],
"rootfs":{"type":"layers","diff_ids":["sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]}}"#;

impl Fake {
    pub(crate) fn new() -> Self {
        Self::default().image("docker.io/library/alpine:latest", ALPINE)
    }

    pub(crate) fn image(mut self, reference: &str, config: &str) -> Self {
        self.images.insert(reference.to_owned(), config.to_owned());
        self
    }

    /// Knows every image there is, with this config.
    pub(crate) fn every_image(mut self, config: &'static str) -> Self {
        self.every_image = Some(config);
        self
    }

    pub(crate) fn ignore_file(mut self, context: &str, text: &str) -> Self {
        self.ignore_files.insert(context.to_owned(), text.to_owned());
        self
    }

    pub(crate) fn time(mut self, identifier: &str, seconds: i64) -> Self {
        self.times.insert(identifier.to_owned(), seconds);
        self
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort();
        asked
    }

    fn find(&self, name: &str) -> Result<ResolvedImage, ResolveError> {
        match self.images.get(name).map(String::as_str).or(self.every_image) {
            Some(config) => Ok(ResolvedImage {
                canonical_reference: name.to_owned(),
                digest: digest(name),
                config: config.as_bytes().to_vec(),
            }),
            None => Err(ResolveError("not found".into())),
        }
    }
}

/// The digest every image of this name has here, short enough to read in a dump.
pub(crate) fn digest(name: &str) -> Digest {
    Digest::sha256(name.as_bytes())
}

impl MetaResolver for Fake {
    async fn image_config(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        self.asked
            .lock()
            .unwrap()
            .push(format!("{} {}", request.reference, request.platform));
        self.find(&request.reference)
    }

    async fn layout_config(&self, request: &LayoutRequest) -> Result<ResolvedImage, ResolveError> {
        let (asked, name) = match &request.place {
            LayoutPlace::Directory { directory, tag, .. } => {
                let tag = tag.as_deref().unwrap_or_default();
                (format!("layout {directory} {tag}"), directory)
            }
            LayoutPlace::Store {
                session,
                store,
                digest,
            } => (format!("store {session} {store} {digest}"), store),
        };
        self.asked.lock().unwrap().push(asked);
        let found = self.find(name)?;
        Ok(ResolvedImage {
            canonical_reference: String::new(),
            ..found
        })
    }

    async fn context_ignore_file(
        &self,
        request: &IgnoreFileRequest,
    ) -> Result<Option<Vec<u8>>, ResolveError> {
        let name = &request.name;
        let asked = match &request.place {
            IgnoreFilePlace::Directory(directory) => format!("ignore {name} {directory}"),
            IgnoreFilePlace::Local {
                name: local, attrs, ..
            } => format!("ignore {name} {local} {attrs:?}"),
        };
        self.asked.lock().unwrap().push(asked);
        Ok(self.ignore_files.get(name).map(|text| text.clone().into_bytes()))
    }

    async fn source_time(&self, request: &SourceTimeRequest) -> Result<Option<Timestamp>, ResolveError> {
        let SourceOp { identifier, attrs } = &request.source;
        let asked = format!("time {identifier} {attrs:?} as {}", request.log_name);
        self.asked.lock().unwrap().push(asked);
        let seconds = self.times.get(identifier);
        Ok(seconds.and_then(|seconds| Timestamp::from_unix(*seconds, 0)))
    }
}

/// Options for a Dockerfile, built on linux/amd64.
pub(crate) fn options(dockerfile: &str) -> FrontendOptions {
    FrontendOptions {
        dockerfile: dockerfile.as_bytes().to_vec(),
        build_platform: Platform::new("linux", "amd64"),
        ..FrontendOptions::default()
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

pub(crate) fn lower_with(options: &FrontendOptions, fake: &Fake) -> Result<Lowered, FrontendError> {
    block_on(lower(options, fake))
}

/// Lowers a Dockerfile that is right.
pub(crate) fn lowered(dockerfile: &str) -> Lowered {
    lower_with(&options(dockerfile), &Fake::new()).unwrap_or_else(|error| panic!("{error}\n{dockerfile}"))
}

/// History texts made by a Dockerfile, those of the base left out; empty layers are in parentheses.
pub(crate) fn history(lowered: &Lowered) -> Vec<String> {
    let base = lowered.base_image.as_ref().map_or(0, |image| image.history.len());
    let shown = |entry: &rbuild_oci::History| match entry.empty_layer {
        true => format!("({})", entry.created_by),
        false => entry.created_by.clone(),
    };
    lowered.image.history[base..].iter().map(shown).collect()
}
