//! A solve request before it is read: what old clients say in old fields, and what it is allowed
//! (`control/control.go`, `util/entitlements`, `solver/llbsolver/compat`).

use std::collections::BTreeMap;

use bollard_buildkit_proto::moby::buildkit::v1 as api;
use rbuild_dockerfile::csv::{self, CsvError};

use crate::go;

/// Moves what deprecated fields say to where it is said today, and gives `SOURCE_DATE_EPOCH` to exporters that have
/// none.
pub fn modernize(request: &mut api::SolveRequest) {
    let cache = request.cache.get_or_insert_default();
    let reference = std::mem::take(&mut cache.export_ref_deprecated);
    let attrs = std::mem::take(&mut cache.export_attrs_deprecated);
    if !reference.is_empty() {
        let mut entry = api::CacheOptionsEntry {
            r#type: "registry".to_owned(),
            attrs,
        };
        entry.attrs.insert("ref".to_owned(), reference);
        cache.exports.push(entry);
    }
    for reference in std::mem::take(&mut cache.import_refs_deprecated) {
        cache.imports.push(api::CacheOptionsEntry {
            r#type: "registry".to_owned(),
            attrs: [("ref".to_owned(), reference)].into(),
        });
    }
    let kind = std::mem::take(&mut request.exporter_deprecated);
    let attrs = std::mem::take(&mut request.exporter_attrs_deprecated);
    if request.exporters.is_empty() && !kind.is_empty() {
        request.exporters.push(api::Exporter { r#type: kind, attrs });
    }
    let epoch = request.frontend_attrs.get("build-arg:SOURCE_DATE_EPOCH");
    // Empty turns it off, a word is for the front end alone.
    let epoch = epoch.filter(|text| text.is_empty() || go::int(text).is_ok());
    if let Some(epoch) = epoch {
        for exporter in &mut request.exporters {
            let attrs = &mut exporter.attrs;
            attrs
                .entry("source-date-epoch".to_owned())
                .or_insert_with(|| epoch.clone());
        }
    }
}

/// Versions of results that clients may ask to be compatible with; the last is today's.
const COMPATIBILITY_VERSIONS: [i64; 3] = [10, 20, 30];

/// Why a compatibility version is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CompatibilityError {
    /// Newer than this.
    #[error("unsupported compatibility-version {0}: upgrade buildkit (max supported: 30)")]
    TooNew(i64),
    /// Never was.
    #[error("unsupported compatibility-version {0} (supported: [10 20 30])")]
    Unknown(i64),
    /// One that BuildKit keeps, and whose results are not made here.
    #[error("compatibility-version {0} is not served: results are those of 30")]
    Older(i64),
}

/// Whether results are those of the version that a client asks for; 0 is today's (`solver/llbsolver/compat`).
///
/// # Errors
/// [`CompatibilityError`].
pub fn check_compatibility_version(asked: i64) -> Result<(), CompatibilityError> {
    let [.., current] = COMPATIBILITY_VERSIONS;
    match asked {
        0 => Ok(()),
        known if known == current => Ok(()),
        known if COMPATIBILITY_VERSIONS.contains(&known) => Err(CompatibilityError::Older(known)),
        newer if newer > current => Err(CompatibilityError::TooNew(newer)),
        other => Err(CompatibilityError::Unknown(other)),
    }
}

/// What a build may do beyond the default sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// `network.host`.
    pub network_host: bool,
    /// `security.insecure`.
    pub security_insecure: bool,
    /// `device`.
    pub devices: Option<Devices>,
}

/// Devices a build may use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Devices {
    /// All.
    pub all: bool,
    /// Names, or aliases with the names they stand for.
    pub named: BTreeMap<String, Option<String>>,
}

/// Why entitlements are refused, or are not enough.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntitlementError {
    /// No such entitlement.
    #[error("unknown entitlement {0}")]
    Unknown(String),
    /// A device that cannot be cut.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// An option of a device without a value.
    #[error("invalid device config {0:?}")]
    DeviceConfig(String),
    /// No such option of a device.
    #[error("unknown device config key {0:?}")]
    DeviceKey(String),
    /// The daemon does not give it to anyone.
    #[error("granting entitlement {0} is not allowed by build daemon configuration")]
    NotGranted(&'static str),
    /// More devices than anybody has.
    #[error("more than {DEVICES_MAX} devices are allowed by name")]
    TooMany,
}

impl Entitlements {
    /// Reads what a client asks for; `supported` is what the daemon gives.
    ///
    /// # Errors
    /// [`EntitlementError`].
    pub fn parse<S: AsRef<str>>(asked: &[S], supported: &Self) -> Result<Self, EntitlementError> {
        let mut found = Self::default();
        for text in asked.iter().map(AsRef::as_ref) {
            let (key, config) = text.split_once('=').unwrap_or((text, ""));
            match (key, text) {
                (_, NETWORK_HOST) => found.network_host = true,
                (_, SECURITY_INSECURE) => found.security_insecure = true,
                (DEVICE, _) => found.devices.get_or_insert_default().add(config)?,
                _ => return Err(EntitlementError::Unknown(text.to_owned())),
            }
        }
        for (name, asked, given) in [
            (NETWORK_HOST, found.network_host, supported.network_host),
            (
                SECURITY_INSECURE,
                found.security_insecure,
                supported.security_insecure,
            ),
            (DEVICE, found.devices.is_some(), supported.devices.is_some()),
        ] {
            if asked && !given {
                return Err(EntitlementError::NotGranted(name));
            }
        }
        Ok(found)
    }
}

const NETWORK_HOST: &str = "network.host";
const SECURITY_INSECURE: &str = "security.insecure";
const DEVICE: &str = "device";
/// Most devices that are named.
const DEVICES_MAX: usize = 1000;

impl Devices {
    /// Adds what stands behind `device=`, or all of them for nothing.
    ///
    /// # Errors
    /// [`EntitlementError`].
    pub fn add(&mut self, config: &str) -> Result<(), EntitlementError> {
        if config.is_empty() {
            self.all = true;
            return Ok(());
        }
        let mut fields = csv::fields(config)?.into_iter();
        let name = fields.next().unwrap_or_default();
        let mut alias = None;
        for field in fields {
            match field.split_once('=') {
                None => return Err(EntitlementError::DeviceConfig(field)),
                Some(("alias", value)) => alias = Some(value.to_owned()).filter(|alias| !alias.is_empty()),
                Some((key, _)) => return Err(EntitlementError::DeviceKey(key.to_owned())),
            }
        }
        if self.named.len() >= DEVICES_MAX {
            return Err(EntitlementError::TooMany);
        }
        match alias {
            Some(alias) => self.named.insert(alias, Some(name)),
            None => self.named.insert(name, None),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect()
    }

    #[test]
    fn old_fields_mean_what_new_ones_do() {
        let mut request = api::SolveRequest {
            exporter_deprecated: "image".into(),
            exporter_attrs_deprecated: map(&[("name", "a")]),
            frontend_attrs: map(&[("build-arg:SOURCE_DATE_EPOCH", "7")]),
            cache: Some(api::CacheOptions {
                export_ref_deprecated: "e".into(),
                export_attrs_deprecated: map(&[("mode", "max")]),
                import_refs_deprecated: vec!["i".into(), "j".into()],
                ..api::CacheOptions::default()
            }),
            ..api::SolveRequest::default()
        };
        modernize(&mut request);
        assert_eq!(request.exporters.len(), 1);
        assert_eq!(request.exporters[0].r#type, "image");
        assert_eq!(
            request.exporters[0].attrs,
            map(&[("name", "a"), ("source-date-epoch", "7")])
        );
        assert_eq!(request.exporter_deprecated, "");
        let cache = request.cache.clone().unwrap();
        assert_eq!(cache.exports[0].attrs, map(&[("mode", "max"), ("ref", "e")]));
        assert_eq!(cache.imports[1].attrs, map(&[("ref", "j")]));
        let once = request.clone();
        modernize(&mut request);
        assert_eq!(request, once, "nothing is moved twice");
    }

    #[test]
    fn new_fields_beat_old_ones() {
        let exporter = api::Exporter {
            r#type: "local".into(),
            attrs: map(&[("source-date-epoch", "")]),
        };
        let mut request = api::SolveRequest {
            exporters: vec![exporter.clone()],
            exporter_deprecated: "image".into(),
            frontend_attrs: map(&[("build-arg:SOURCE_DATE_EPOCH", "7")]),
            ..api::SolveRequest::default()
        };
        modernize(&mut request);
        assert_eq!(request.exporters, [exporter]);
    }

    #[test]
    fn an_epoch_that_is_a_word_is_not_for_exporters() {
        let mut request = api::SolveRequest {
            exporters: vec![api::Exporter::default()],
            frontend_attrs: map(&[("build-arg:SOURCE_DATE_EPOCH", "context")]),
            ..api::SolveRequest::default()
        };
        modernize(&mut request);
        assert_eq!(request.exporters[0].attrs, map(&[]));
    }

    #[test]
    fn compatibility_versions_are_few() {
        assert_eq!(check_compatibility_version(0), Ok(()));
        assert_eq!(check_compatibility_version(30), Ok(()));
        assert_eq!(
            check_compatibility_version(10),
            Err(CompatibilityError::Older(10))
        );
        assert_eq!(
            check_compatibility_version(40).unwrap_err().to_string(),
            "unsupported compatibility-version 40: upgrade buildkit (max supported: 30)"
        );
        assert_eq!(
            check_compatibility_version(-1).unwrap_err().to_string(),
            "unsupported compatibility-version -1 (supported: [10 20 30])"
        );
    }

    fn all() -> Entitlements {
        Entitlements {
            network_host: true,
            security_insecure: true,
            devices: Some(Devices::default()),
        }
    }

    #[test]
    fn entitlements_are_read() {
        let asked = ["network.host", "device=a/b=c,alias=x", "device=d"];
        let read = Entitlements::parse(&asked, &all()).unwrap();
        assert!(read.network_host && !read.security_insecure);
        let named = [("d".to_owned(), None), ("x".to_owned(), Some("a/b=c".to_owned()))].into();
        assert_eq!(read.devices, Some(Devices { all: false, named }));
        let every = Entitlements::parse(&["device"], &all()).unwrap();
        assert!(every.devices.unwrap().all);
    }

    #[test]
    fn row48_entitlements_that_nobody_gives_are_refused() {
        let error = |asked: &str, supported: &Entitlements| {
            Entitlements::parse(&[asked], supported).unwrap_err().to_string()
        };
        assert_eq!(
            error("network.host=x", &all()),
            "unknown entitlement network.host=x"
        );
        assert_eq!(error("", &all()), "unknown entitlement ");
        assert_eq!(error("device=a,b", &all()), "invalid device config \"b\"");
        assert_eq!(error("device=a,b=c", &all()), "unknown device config key \"b\"");
        assert_eq!(
            error("security.insecure", &Entitlements::default()),
            "granting entitlement security.insecure is not allowed by build daemon configuration"
        );
        assert!(Entitlements::parse::<&str>(&[], &Entitlements::default()).is_ok());
        let mut many: Vec<String> = (0..DEVICES_MAX)
            .map(|number| format!("device=a/b={number}"))
            .collect();
        assert!(Entitlements::parse(&many, &all()).is_ok());
        many.push("device=c/d".to_owned());
        assert_eq!(Entitlements::parse(&many, &all()), Err(EntitlementError::TooMany));
    }
}
