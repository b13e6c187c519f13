//! Named contexts as clients of the API write them: a kind, a colon, and what (`frontend/dockerui/namedcontext.go`).
//! Read when they are used and not before, so that a wrong one that nothing needs is no error.

use rbuild_oci::Digest;

use super::{ContextSource, NamedContext};
use crate::error::{FrontendError, FrontendErrorKind};
use crate::git;
use crate::input::ClientContexts;
use crate::stage::SCRATCH;

/// Reads `value` of the context called `name` (as `familiar` makes names), found under `key`, which has the platform
/// too if it was given for one.
pub(super) fn read(
    clients: &ClientContexts,
    name: &str,
    key: &str,
    value: &str,
) -> Result<NamedContext, FrontendError> {
    Ok(NamedContext {
        name: key.to_owned(),
        source: source(clients, name, key, value)?,
    })
}

fn source(
    clients: &ClientContexts,
    name: &str,
    key: &str,
    value: &str,
) -> Result<ContextSource, FrontendError> {
    let (kind, rest) = value
        .split_once(':')
        .ok_or_else(|| FrontendErrorKind::ContextSpecifier {
            name: key.to_owned(),
            value: value.to_owned(),
        })?;
    let bare = rest.strip_prefix("//").unwrap_or(rest);
    match kind {
        "docker-image" if bare == SCRATCH => Ok(ContextSource::Scratch),
        "docker-image" => Ok(ContextSource::Image(bare.to_owned())),
        "oci-layout" => store(clients, name, bare),
        "local" => Ok(ContextSource::Local {
            name: rest.to_owned(),
            session: clients.session_of(rest).to_owned(),
            shared_key: clients.shared_keys.get(key).cloned().unwrap_or_default(),
        }),
        "input" => match clients.inputs.get(rest) {
            Some(input) => Ok(ContextSource::Input(Box::new(input.clone()))),
            None => Err(FrontendErrorKind::ContextInput {
                name: key.to_owned(),
                input: rest.to_owned(),
            }
            .into()),
        },
        "http" | "https" => match git::parse(value) {
            Some(url) => Ok(ContextSource::Git {
                url: Box::new(url.map_err(FrontendErrorKind::Git)?),
                text: value.to_owned(),
            }),
            None => Ok(ContextSource::Http(value.to_owned())),
        },
        // `git@host:path` is an address without a scheme.
        kind if kind == "git" || kind.starts_with("git@") => match git::parse(value) {
            Some(url) => Ok(ContextSource::Git {
                url: Box::new(url.map_err(FrontendErrorKind::Git)?),
                text: value.to_owned(),
            }),
            None => Err(FrontendErrorKind::ContextGit(value.to_owned()).into()),
        },
        kind => Err(FrontendErrorKind::ContextSource {
            name: key.to_owned(),
            value: kind.to_owned(),
        }
        .into()),
    }
}

/// `store@digest`: a content store of the client's session. A tag in between is not looked at.
fn store(clients: &ClientContexts, name: &str, text: &str) -> Result<ContextSource, FrontendError> {
    let (place, digest) = text
        .rsplit_once('@')
        .ok_or_else(|| FrontendErrorKind::LayoutWithoutDigest(text.to_owned()))?;
    let digest = Digest::parse(digest).map_err(|source| FrontendErrorKind::LayoutDigest {
        value: text.to_owned(),
        source,
    })?;
    let (store, _) = super::split_tag(place);
    let reference = rbuild_oci::Reference::parse(name).map_err(|source| FrontendErrorKind::ContextName {
        name: name.to_owned(),
        reason: source,
    })?;
    Ok(ContextSource::Store {
        session: clients.session_id.clone(),
        store: store.to_owned(),
        reference: format!("{}@{digest}", reference.name()),
        digest,
    })
}
