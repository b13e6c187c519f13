//! Named contexts (`--build-context name=value`): which name means which, and what kind each value is.

use std::collections::BTreeMap;

use rbuild_dockerfile::Span;
use rbuild_oci::{Digest, Platform, Reference};

use crate::error::{FrontendError, FrontendErrorKind};
use crate::git;
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
}

/// All named contexts of a build, by normalised name.
#[derive(Debug, Default)]
pub(crate) struct NamedContexts(BTreeMap<String, NamedContext>);

impl NamedContexts {
    pub(crate) fn new(given: &BTreeMap<String, String>) -> Result<Self, FrontendError> {
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
        Ok(Self(contexts))
    }

    /// The context that replaces stage or image `name` for `platform`.
    pub(crate) fn find(
        &self,
        name: &str,
        platform: &Platform,
        span: Span,
    ) -> Result<Option<&NamedContext>, FrontendError> {
        if name.eq_ignore_ascii_case(SCRATCH) || name.eq_ignore_ascii_case("context") {
            return Ok(None);
        }
        let name = familiar(name).map_err(|error| error.or_at(span))?;
        let for_platform = format!("{name}::{}", platform.normalized());
        Ok(self.0.get(&for_platform).or_else(|| self.0.get(&name)))
    }
}

/// The short form of a reference without `:latest`, by which contexts are named.
fn familiar(name: &str) -> Result<String, FrontendError> {
    let reference = Reference::parse(name).map_err(|source| FrontendErrorKind::ContextName {
        name: name.to_owned(),
        source,
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
    let (directory, tag) = match rest.rsplit_once(':') {
        Some((directory, tag)) if !tag.contains('/') => (directory, Some(tag.to_owned())),
        _ => (rest, None),
    };
    Ok(ContextSource::Layout {
        directory: directory.to_owned(),
        tag,
        digest,
    })
}
