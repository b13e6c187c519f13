//! Package URLs of images (`util/purl/image.go`; package-url specification).

use rbuild_oci::{Platform, Reference};

/// Where an image is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A registry.
    Docker,
    /// An OCI layout.
    Oci,
}

/// The package URL of an image: `pkg:docker/busybox@latest?platform=linux%2Famd64`.
#[must_use]
pub fn image(kind: Kind, reference: &Reference, platform: Option<&str>) -> String {
    let kind = match kind {
        Kind::Docker => "docker",
        Kind::Oci => "oci",
    };
    let tag = match (reference.tag(), reference.digest()) {
        (None, None) => Some(rbuild_oci::DEFAULT_TAG),
        (tag, _) => tag,
    };
    // A port; nothing else in a name is escaped there.
    let name = familiar_name(reference).replace(':', "%3A");
    let mut url = format!("pkg:{kind}/{name}");
    if let Some(tag) = tag {
        url.push('@');
        url.push_str(tag);
    }
    // Qualifiers are sorted by key.
    let digest = reference.digest().map(|digest| format!("digest={digest}"));
    let platform = platform.map(|platform| format!("platform={}", platform.replace('/', "%2F")));
    for (mark, part) in ['?', '&'].into_iter().zip(digest.into_iter().chain(platform)) {
        url.push(mark);
        url.push_str(&part);
    }
    url
}

/// The package URL of a platform's image by its text; nothing if that is no reference.
#[must_use]
pub fn of_text(kind: Kind, reference: &str, platform: Option<&str>) -> Option<String> {
    let reference = Reference::parse(reference).ok()?;
    let platform =
        platform.map(|text| Platform::parse(text).map_or_else(|_| text.to_owned(), |p| p.to_string()));
    Some(image(kind, &reference, platform.as_deref()))
}

/// A value of a qualifier, with all escaped that could mean something in a query (Go's `url.QueryEscape`).
#[must_use]
pub(crate) fn qualifier(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// The name as users write it: without the host and directory that are understood.
fn familiar_name(reference: &Reference) -> String {
    if reference.host() != rbuild_oci::DEFAULT_HOST {
        return reference.name();
    }
    let path = reference.path();
    let short = path.strip_prefix("library/").filter(|name| !name.contains('/'));
    short.unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_as_buildkit_names_them() {
        let digest = format!("sha256:{}", "9".repeat(64));
        let by_tag_and_digest = format!("docker.io/library/alpine:latest@{digest}");
        let by_digest = format!("docker.io/library/alpine@{digest}");
        for (text, platform, expected) in [
            ("alpine", None, "pkg:docker/alpine@latest".to_owned()),
            ("library/alpine:3.15", None, "pkg:docker/alpine@3.15".to_owned()),
            (
                by_tag_and_digest.as_str(),
                None,
                format!("pkg:docker/alpine@latest?digest={digest}"),
            ),
            (
                by_digest.as_str(),
                None,
                format!("pkg:docker/alpine?digest={digest}"),
            ),
            ("user/test:v2", None, "pkg:docker/user/test@v2".to_owned()),
            (
                "ghcr.io/foo/bar",
                None,
                "pkg:docker/ghcr.io/foo/bar@latest".to_owned(),
            ),
            (
                "localhost:5000/a/b:c",
                None,
                "pkg:docker/localhost%3A5000/a/b@c".to_owned(),
            ),
            (
                "busybox",
                Some("linux/amd64"),
                "pkg:docker/busybox@latest?platform=linux%2Famd64".to_owned(),
            ),
            (
                by_digest.as_str(),
                Some("linux/arm/v7"),
                format!("pkg:docker/alpine?digest={digest}&platform=linux%2Farm%2Fv7"),
            ),
        ] {
            assert_eq!(of_text(Kind::Docker, text, platform), Some(expected), "{text}");
        }
        assert_eq!(of_text(Kind::Oci, "foo", None).unwrap(), "pkg:oci/foo@latest");
        assert_eq!(of_text(Kind::Docker, "inv:al:id", None), None);
    }
}
