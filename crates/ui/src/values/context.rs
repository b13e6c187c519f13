//! `--build-context name=value` (`buildx/util/buildflags/context.go`): the name is an image reference in its short
//! form, the value is as written.

/// Why a text is not a named context.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContextNameError {
    /// There is no `=`.
    #[error("invalid context value: {0}, expected key=value")]
    NoValue(String),
    /// The name is not an image reference.
    #[error("invalid context name {0}: invalid reference format")]
    Name(String),
}

/// Reads one `--build-context`: its normal name and its value.
///
/// # Errors
/// [`ContextNameError`].
pub fn parse(text: &str) -> Result<(String, String), ContextNameError> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| ContextNameError::NoValue(text.to_owned()))?;
    let normal = normal_name(name).ok_or_else(|| ContextNameError::Name(name.to_owned()))?;
    Ok((normal, value.to_owned()))
}

/// The short form of an image reference, without `:latest`: `docker.io/library/alpine:latest` is `alpine`.
#[must_use]
pub(crate) fn normal_name(name: &str) -> Option<String> {
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (name, None),
    };
    let (domain, path) = match rest.split_once('/') {
        Some((first, path)) if is_domain(first) => (Some(first), path),
        _ => (None, rest),
    };
    let (path, tag) = match path.rsplit_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (path, None),
    };
    let domain = domain.filter(|&domain| domain != "docker.io" && domain != "index.docker.io");
    let path = match domain {
        None => path.strip_prefix("library/").unwrap_or(path),
        Some(_) => path,
    };
    let whole = path.split('/').all(is_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(|text| rbuild_oci::Digest::parse(text).is_ok())
        && domain.is_none_or(is_domain_text);
    // A bare digest could be an image id; the reference grammar refuses it.
    if !whole || (domain.is_none() && path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit())) {
        return None;
    }
    let mut normal = String::new();
    if let Some(domain) = domain {
        normal.push_str(domain);
        normal.push('/');
    }
    normal.push_str(path);
    if let Some(tag) = tag.filter(|&tag| tag != "latest" || digest.is_some()) {
        normal.push(':');
        normal.push_str(tag);
    }
    if let Some(digest) = digest {
        normal.push('@');
        normal.push_str(digest);
    }
    Some(normal)
}

/// The rule that tells a registry from a part of the path: it holds a dot or a port, has an upper-case letter, or is
/// `localhost` (`distribution/reference/normalize.go`).
fn is_domain(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_domain_text(domain: &str) -> bool {
    let (host, port) = domain
        .rsplit_once(':')
        .map_or((domain, None), |(host, port)| (host, Some(port)));
    let labels = host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    });
    labels && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) if alphanumeric(first) && alphanumeric(last) => {}
        _ => return false,
    }
    bytes.split(|&b| alphanumeric(b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-')
    })
}

fn is_tag(text: &str) -> bool {
    let bytes = text.as_bytes();
    let first_is_word = bytes
        .first()
        .is_some_and(|&b| b.is_ascii_alphanumeric() || b == b'_');
    first_is_word
        && bytes.len() <= 128
        && bytes
            .iter()
            .all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_take_their_short_form() {
        for (name, normal) in [
            ("base", "base"),
            ("base:latest", "base"),
            ("base:v1", "base:v1"),
            ("docker.io/library/alpine:3", "alpine:3"),
            ("docker.io/library/alpine", "alpine"),
            ("docker.io/me/app", "me/app"),
            ("index.docker.io/me/app", "me/app"),
            ("ghcr.io/a/b:latest", "ghcr.io/a/b"),
            ("localhost:5000/a", "localhost:5000/a"),
            ("a__b-.c", ""),
            ("a__b--c.d", "a__b--c.d"),
            ("Base", ""),
            ("a/../b", ""),
            ("", ""),
            ("a:", ""),
            ("a:-x", ""),
            ("a b", ""),
            ("x@sha256:zz", ""),
        ] {
            let expected = (!normal.is_empty()).then(|| normal.to_owned());
            assert_eq!(normal_name(name), expected, "{name}");
        }
    }

    #[test]
    fn the_value_is_as_written() {
        assert_eq!(
            parse("b=docker-image://x=y").unwrap(),
            ("b".to_owned(), "docker-image://x=y".to_owned())
        );
        assert_eq!(parse("b"), Err(ContextNameError::NoValue("b".to_owned())));
    }
}
