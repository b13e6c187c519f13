//! Media types of manifests, indexes, configs and layers, in the OCI and the Docker family.
//!
//! Owns the constants and the questions asked about them; refuses to guess: a layer type it does not know has no
//! compression and no counterpart in the other family.

/// OCI image index (image-spec, media-types.md).
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, plain tar.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer, gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI layer, zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// OCI layer that must not be redistributed, plain tar (deprecated by the spec).
pub(crate) const OCI_LAYER_NONDISTRIBUTABLE: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
/// OCI layer that must not be redistributed, gzip (deprecated by the spec).
pub const OCI_LAYER_NONDISTRIBUTABLE_GZIP: &str =
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
/// OCI layer that must not be redistributed, zstd (deprecated by the spec).
pub(crate) const OCI_LAYER_NONDISTRIBUTABLE_ZSTD: &str =
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd";
/// Docker manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker layer, plain tar; in the wild it may be compressed all the same (containerd's `DiffCompression`).
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker layer, gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker layer, zstd (a containerd and BuildKit extension).
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// Docker layer that must not be redistributed, plain tar.
pub(crate) const DOCKER_LAYER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
/// Docker layer that must not be redistributed, gzip.
pub const DOCKER_LAYER_FOREIGN_GZIP: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
/// Docker manifest, schema 1, signed. Only ever refused, by name.
pub(crate) const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// Docker manifest, schema 1. Only ever refused, by name.
pub(crate) const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// In-toto statement, the layer type of attestation manifests.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

/// A media type as a `Content-Type` header has it: without parameters, in lower case.
#[must_use]
pub fn essence(content_type: &str) -> String {
    content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

/// How a layer blob is compressed, as its media type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerCompression {
    /// Plain tar.
    None,
    /// Gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// Which project's names a document uses. One image keeps to one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `application/vnd.oci.image.*`
    Oci,
    /// `application/vnd.docker.*`
    Docker,
}

impl Family {
    /// What `oci-mediatypes` of an output or a cache chooses.
    #[must_use]
    pub const fn chosen(oci_mediatypes: bool) -> Self {
        if oci_mediatypes { Self::Oci } else { Self::Docker }
    }

    /// The media type of an index (Docker: manifest list).
    #[must_use]
    pub const fn index(self) -> &'static str {
        match self {
            Self::Oci => OCI_INDEX,
            Self::Docker => DOCKER_INDEX,
        }
    }

    /// The media type of an image manifest.
    #[must_use]
    pub const fn manifest(self) -> &'static str {
        match self {
            Self::Oci => OCI_MANIFEST,
            Self::Docker => DOCKER_MANIFEST,
        }
    }

    /// The media type of an image config.
    #[must_use]
    pub const fn config(self) -> &'static str {
        match self {
            Self::Oci => OCI_CONFIG,
            Self::Docker => DOCKER_CONFIG,
        }
    }

    /// The media type of a layer that is compressed so.
    #[must_use]
    pub const fn layer(self, compression: LayerCompression) -> &'static str {
        match (self, compression) {
            (Self::Oci, LayerCompression::None) => OCI_LAYER,
            (Self::Oci, LayerCompression::Gzip) => OCI_LAYER_GZIP,
            (Self::Oci, LayerCompression::Zstd) => OCI_LAYER_ZSTD,
            (Self::Docker, LayerCompression::None) => DOCKER_LAYER,
            (Self::Docker, LayerCompression::Gzip) => DOCKER_LAYER_GZIP,
            (Self::Docker, LayerCompression::Zstd) => DOCKER_LAYER_ZSTD,
        }
    }

    /// The family of an index, manifest, config or layer type; nothing for any other type.
    #[must_use]
    pub fn of(media_type: &str) -> Option<Self> {
        if media_type.starts_with("application/vnd.docker.") {
            Some(Self::Docker)
        } else if media_type.starts_with("application/vnd.oci.image.") {
            Some(Self::Oci)
        } else {
            None
        }
    }
}

/// Whether this is an index or a manifest list.
#[must_use]
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_INDEX)
}

/// Whether this is an image manifest of a kind that is read (schema 1 is not).
#[must_use]
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Whether this is a schema 1 manifest, which is refused everywhere.
#[must_use]
pub(crate) fn is_schema1(media_type: &str) -> bool {
    matches!(media_type, DOCKER_SCHEMA1 | DOCKER_SCHEMA1_SIGNED)
}

/// Whether this is the config of a runnable image.
#[must_use]
pub fn is_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}

/// Whether BuildKit reads this as the config of a base image (`util/imageutil/config.go`, `childrenConfigHandler`): old registries
/// call one bytes, and attestations are read there too. Any other is no image: a chart, a signature.
#[must_use]
pub fn is_config_of_base(media_type: &str) -> bool {
    is_config(media_type) || matches!(media_type, "application/octet-stream" | IN_TOTO)
}

/// Whether a layer of this type may live at a foreign URL and is not pushed elsewhere.
#[must_use]
pub fn is_nondistributable(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}

/// The type of a layer like this that may be sent to any registry (BuildKit: cache/refs.go, `layerToDistributable`).
#[must_use]
pub fn distributable(media_type: &str) -> &str {
    match media_type {
        OCI_LAYER_NONDISTRIBUTABLE => OCI_LAYER,
        OCI_LAYER_NONDISTRIBUTABLE_GZIP => OCI_LAYER_GZIP,
        OCI_LAYER_NONDISTRIBUTABLE_ZSTD => OCI_LAYER_ZSTD,
        DOCKER_LAYER_FOREIGN => DOCKER_LAYER,
        DOCKER_LAYER_FOREIGN_GZIP => DOCKER_LAYER_GZIP,
        other => other,
    }
}

/// The type of a layer like this that is had at its URLs. One of Docker's that is gzip stays what it is
/// (BuildKit: cache/refs.go, `layerToNonDistributable`).
#[must_use]
pub fn nondistributable(media_type: &str) -> &str {
    match media_type {
        OCI_LAYER => OCI_LAYER_NONDISTRIBUTABLE,
        OCI_LAYER_GZIP => OCI_LAYER_NONDISTRIBUTABLE_GZIP,
        OCI_LAYER_ZSTD => OCI_LAYER_NONDISTRIBUTABLE_ZSTD,
        DOCKER_LAYER => DOCKER_LAYER_FOREIGN,
        other => other,
    }
}

/// The name of the same kind of layer in `family`; nothing where the family has none (BuildKit's
/// `util/compression` then keeps the type as it is).
#[must_use]
pub fn convert_layer(media_type: &str, family: Family) -> Option<&'static str> {
    let converted = match media_type {
        OCI_LAYER | DOCKER_LAYER => [OCI_LAYER, DOCKER_LAYER],
        OCI_LAYER_GZIP | DOCKER_LAYER_GZIP => [OCI_LAYER_GZIP, DOCKER_LAYER_GZIP],
        OCI_LAYER_ZSTD | DOCKER_LAYER_ZSTD => [OCI_LAYER_ZSTD, DOCKER_LAYER_ZSTD],
        OCI_LAYER_NONDISTRIBUTABLE | DOCKER_LAYER_FOREIGN => {
            [OCI_LAYER_NONDISTRIBUTABLE, DOCKER_LAYER_FOREIGN]
        }
        OCI_LAYER_NONDISTRIBUTABLE_GZIP | DOCKER_LAYER_FOREIGN_GZIP => {
            [OCI_LAYER_NONDISTRIBUTABLE_GZIP, DOCKER_LAYER_FOREIGN_GZIP]
        }
        OCI_LAYER_NONDISTRIBUTABLE_ZSTD if family == Family::Oci => {
            [OCI_LAYER_NONDISTRIBUTABLE_ZSTD, OCI_LAYER_NONDISTRIBUTABLE_ZSTD]
        }
        _ => return None,
    };
    Some(match family {
        Family::Oci => converted[0],
        Family::Docker => converted[1],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_types_convert_both_ways() {
        for compression in [
            LayerCompression::None,
            LayerCompression::Gzip,
            LayerCompression::Zstd,
        ] {
            let oci = Family::Oci.layer(compression);
            let docker = Family::Docker.layer(compression);
            assert_eq!(convert_layer(oci, Family::Docker), Some(docker));
            assert_eq!(convert_layer(docker, Family::Oci), Some(oci));
            assert_eq!(convert_layer(oci, Family::Oci), Some(oci));
        }
        assert_eq!(
            convert_layer(OCI_LAYER_NONDISTRIBUTABLE_ZSTD, Family::Docker),
            None
        );
        assert!(is_nondistributable(DOCKER_LAYER_FOREIGN_GZIP) && !is_nondistributable(DOCKER_LAYER_GZIP));
    }

    #[test]
    fn layers_that_are_had_elsewhere_have_types_of_their_own() {
        for compression in [
            LayerCompression::None,
            LayerCompression::Gzip,
            LayerCompression::Zstd,
        ] {
            let here = Family::Oci.layer(compression);
            let elsewhere = nondistributable(here);
            assert!(is_nondistributable(elsewhere) && !is_nondistributable(here));
            assert_eq!(distributable(elsewhere), here);
            assert_eq!(
                (nondistributable(elsewhere), distributable(here)),
                (elsewhere, here)
            );
        }
        assert_eq!(nondistributable(DOCKER_LAYER), DOCKER_LAYER_FOREIGN);
        assert_eq!(nondistributable(DOCKER_LAYER_GZIP), DOCKER_LAYER_GZIP);
        assert_eq!(distributable(DOCKER_LAYER_FOREIGN_GZIP), DOCKER_LAYER_GZIP);
    }

    #[test]
    fn row32_unknown_layer_types_stay_what_they_are() {
        for unknown in [
            "application/vnd.oci.image.layer.v1.tar+zstd:chunked",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "application/vnd.oci.image.layer.v1.tar+encrypted",
            "application/vnd.docker.image.rootfs.diff.tar+gzip",
            OCI_CONFIG,
            "",
        ] {
            assert_eq!(convert_layer(unknown, Family::Oci), None, "{unknown}");
        }
    }

    #[test]
    fn documents_are_told_apart() {
        for family in [Family::Oci, Family::Docker] {
            assert!(is_index(family.index()) && !is_manifest(family.index()));
            assert!(is_manifest(family.manifest()) && !is_index(family.manifest()));
            assert!(is_config(family.config()) && is_config_of_base(family.config()));
            assert_eq!(Family::of(family.manifest()), Some(family));
        }
        assert!(is_schema1(DOCKER_SCHEMA1_SIGNED) && !is_manifest(DOCKER_SCHEMA1_SIGNED));
        assert_eq!(Family::of(IN_TOTO), None);
        assert!(is_config_of_base("application/octet-stream") && !is_config("application/octet-stream"));
        assert!(!is_config_of_base("application/vnd.cncf.helm.config.v1+json") && !is_config_of_base(""));
    }
}
