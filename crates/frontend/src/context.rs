//! Named contexts: which name means which, and what kind each value is. Two languages: that of `--build-context`, read
//! here, and that of clients of the API ([`client`]).

mod client;

use std::collections::BTreeMap;

use rbuild_dockerfile::Span;
use rbuild_oci::{Digest, Platform, Reference};

use crate::error::{FrontendError, FrontendErrorKind};
use crate::git;
use crate::input::{ClientContexts, ContextOrigin, InputGraph};
use crate::options::FrontendOptions;
use crate::stage::SCRATCH;

/// A named context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedContext {
    /// Its name, with the platform if it was given for one: `[context name] …` in step names.
    pub(crate) name: String,
    pub(crate) source: ContextSource,
}

/// What a named context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContextSource {
    Scratch,
    /// Reference as written.
    Image(String),
    Git {
        url: Box<git::GitUrl>,
        /// As written.
        text: String,
    },
    Http(String),
    Layout {
        directory: String,
        tag: Option<String>,
        digest: Option<Digest>,
    },
    Directory(String),
    /// A content store of a client.
    Store {
        session: String,
        store: String,
        /// What the build calls the image, with its digest.
        reference: String,
        digest: Digest,
    },
    /// A directory of a client.
    Local {
        name: String,
        session: String,
        shared_key: String,
    },
    Input(Box<InputGraph>),
}

/// All named contexts of a build, by normalised name.
#[derive(Debug)]
pub(crate) enum NamedContexts<'a> {
    /// Read.
    Host(BTreeMap<String, NamedContext>),
    /// As written.
    Client(&'a ClientContexts, &'a BTreeMap<String, String>),
}

impl<'a> NamedContexts<'a> {
    pub(crate) fn new(options: &'a FrontendOptions) -> Result<Self, FrontendError> {
        match &options.context_origin {
            ContextOrigin::Host => Self::of_host(&options.build_contexts),
            ContextOrigin::Client(clients) => Ok(Self::Client(clients, &options.build_contexts)),
        }
    }

    fn of_host(given: &BTreeMap<String, String>) -> Result<Self, FrontendError> {
        let mut contexts = BTreeMap::new();
        for (key, value) in given {
            let (name, platform) = key
                .split_once("::")
                .map_or((key.as_str(), None), |(n, p)| (n, Some(p)));
            let mut name = familiar(name)?;
            if let Some(platform) = platform {
                name += &format!("::{platform}");
            }
            let source = source(&name, value)?;
            contexts.insert(name.clone(), NamedContext { name, source });
        }
        Ok(Self::Host(contexts))
    }

    /// The context that replaces stage or image `name` for `platform`.
    pub(crate) fn find(
        &self,
        name: &str,
        platform: &Platform,
        span: Span,
    ) -> Result<Option<NamedContext>, FrontendError> {
        self.named(name, platform).map_err(|error| error.or_at(span))
    }

    /// The context called `name`, for `platform`.
    pub(crate) fn named(
        &self,
        name: &str,
        platform: &Platform,
    ) -> Result<Option<NamedContext>, FrontendError> {
        if name.eq_ignore_ascii_case(SCRATCH) || name.eq_ignore_ascii_case("context") {
            return Ok(None);
        }
        let name = familiar(name)?;
        let for_platform = format!("{name}::{}", platform.normalized());
        match self {
            Self::Host(contexts) => Ok(contexts
                .get(&for_platform)
                .or_else(|| contexts.get(&name))
                .cloned()),
            Self::Client(clients, given) => {
                let found = [&for_platform, &name]
                    .into_iter()
                    .find_map(|key| Some((key, given.get(key)?)));
                found
                    .map(|(key, value)| client::read(clients, &name, key, value))
                    .transpose()
            }
        }
    }
}

/// What `context` is when it is to be read as `value` instead; `None` if its contexts are this machine's.
pub(crate) fn replaced(
    contexts: &NamedContexts<'_>,
    context: &NamedContext,
    value: &str,
) -> Result<Option<NamedContext>, FrontendError> {
    match contexts {
        NamedContexts::Host(_) => Ok(None),
        NamedContexts::Client(clients, _) => {
            let key = &context.name;
            let name = key.split_once("::").map_or(key.as_str(), |(name, _)| name);
            client::read(clients, name, key, value).map(Some)
        }
    }
}

/// The short form of a reference without `:latest`, by which contexts are named.
fn familiar(name: &str) -> Result<String, FrontendError> {
    let reference = Reference::parse(name).map_err(|source| FrontendErrorKind::ContextName {
        name: name.to_owned(),
        reason: source,
    })?;
    let text = reference.familiar();
    Ok(text.strip_suffix(":latest").map_or(text.clone(), str::to_owned))
}

fn source(name: &str, value: &str) -> Result<ContextSource, FrontendError> {
    if let Some(image) = value.strip_prefix("docker-image://") {
        return Ok(match image {
            SCRATCH => ContextSource::Scratch,
            image => ContextSource::Image(image.to_owned()),
        });
    }
    if let Some(layout) = value.strip_prefix("oci-layout://") {
        return layout_source(layout);
    }
    if value.starts_with("target:") || value.starts_with("input:") {
        let (name, value) = (name.to_owned(), value.to_owned());
        return Err(FrontendErrorKind::ContextSource { name, value }.into());
    }
    if let Some(url) = git::parse(value) {
        let url = Box::new(url.map_err(FrontendErrorKind::Git)?);
        let text = value.to_owned();
        return Ok(ContextSource::Git { url, text });
    }
    if value.starts_with("http://") || value.starts_with("https://") {
        return Ok(ContextSource::Http(value.to_owned()));
    }
    Ok(ContextSource::Directory(value.to_owned()))
}

/// `path[:tag][@digest]`; a colon belongs to the tag only behind the last slash.
fn layout_source(layout: &str) -> Result<ContextSource, FrontendError> {
    let (rest, digest) = match layout.rsplit_once('@') {
        Some((rest, digest)) => {
            let digest = Digest::parse(digest).map_err(|source| FrontendErrorKind::LayoutDigest {
                value: layout.to_owned(),
                source,
            })?;
            (rest, Some(digest))
        }
        None => (layout, None),
    };
    let (directory, tag) = split_tag(rest);
    Ok(ContextSource::Layout {
        directory: directory.to_owned(),
        tag: tag.map(str::to_owned),
        digest,
    })
}

fn split_tag(place: &str) -> (&str, Option<&str>) {
    match place.rsplit_once(':') {
        Some((directory, tag)) if !tag.contains('/') => (directory, Some(tag)),
        _ => (place, None),
    }
}
