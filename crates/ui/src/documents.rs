//! Documents of registries as Go's programs print them: indented, with fields in the order of their structures, which are those
//! of `image-spec/specs-go/v1` (buildx, `util/imagetools/printers.go`; docker's client, `cli/manifest/types`). Everything else is
//! a map, and in the order of its keys.

use rbuild_oci::go_json;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// Fields as they follow each other, in whichever structure they are.
const ORDER: [&str; 47] = [
    "Ref",
    "Descriptor",
    "Raw",
    "SchemaV2Manifest",
    "OCIManifest",
    "name",
    "manifest",
    "image",
    "schemaVersion",
    "mediaType",
    "digest",
    "size",
    "manifests",
    "urls",
    "annotations",
    "data",
    "platform",
    "artifactType",
    "created",
    "created_by",
    "author",
    "comment",
    "empty_layer",
    "architecture",
    "os",
    "os.version",
    "os.features",
    "variant",
    "config",
    "layers",
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "ArgsEscaped",
    "rootfs",
    "type",
    "diff_ids",
    "history",
    "SPDX",
    "AdditionalSPDXs",
    "SLSA",
];
/// Fields that are maps.
const MAPS: [&str; 7] = [
    "annotations",
    "ExposedPorts",
    "Volumes",
    "Labels",
    "SPDX",
    "AdditionalSPDXs",
    "SLSA",
];
/// What only templates see: methods in Go.
const METHODS: [&str; 2] = ["SBOM", "Provenance"];

/// How a document is printed.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// What stands before a field, once for each level.
    pub indent: &'static str,
    /// Entries give their size before their digest (`github.com/docker/distribution`, `manifestlist`).
    pub size_first: bool,
}

/// buildx's, in templates.
pub(crate) const BUILDX: Form = Form {
    indent: "  ",
    size_first: false,
};

/// The text of `value`.
#[must_use]
pub fn text(value: &Value, form: Form) -> String {
    let shown = Shown {
        value,
        form,
        is_map: false,
    };
    let json = go_json::to_vec_indented_by(&shown, form.indent);
    assert!(json.is_ok(), "values always serialise");
    String::from_utf8(json.unwrap_or_default()).unwrap_or_default()
}

/// A value with its fields in order.
struct Shown<'a> {
    value: &'a Value,
    form: Form,
    /// It is a map, or in one.
    is_map: bool,
}

impl Shown<'_> {
    fn inside<'a>(&self, value: &'a Value, is_map: bool) -> Shown<'a> {
        Shown {
            value,
            form: self.form,
            is_map,
        }
    }
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Array(items) => {
                serializer.collect_seq(items.iter().map(|item| self.inside(item, self.is_map)))
            }
            Value::Object(fields) => {
                let is_map = self.is_map || !fields.keys().all(|key| is_typed(key));
                let fields = ordered(fields, self.form, is_map)
                    .into_iter()
                    .map(|(key, value)| {
                        let inside = is_map || MAPS.contains(&key.as_str());
                        (key, self.inside(value, inside))
                    });
                serializer.collect_map(fields)
            }
            value => value.serialize(serializer),
        }
    }
}

/// A field of a structure, or a platform in a map of them.
fn is_typed(key: &str) -> bool {
    key.contains('/') || ORDER.contains(&key) || METHODS.contains(&key)
}

fn ordered(fields: &Map<String, Value>, form: Form, is_map: bool) -> Vec<(&String, &Value)> {
    let mut all: Vec<_> = fields
        .iter()
        .filter(|(key, _)| is_map || !METHODS.contains(&key.as_str()))
        .collect();
    let place = |key: &str| {
        let key = if key == "size" && form.size_first {
            "digest"
        } else {
            key
        };
        ORDER.iter().position(|known| *known == key)
    };
    all.sort_by_key(|(key, _)| {
        (
            place(key).filter(|_| !is_map),
            form.size_first && !is_map && *key != "size",
            key.as_str(),
        )
    });
    all
}
