//! `--attest`, `--provenance` and `--sbom` (`buildx/util/buildflags/attests.go`). Nothing is attested unless it is asked
//! for: buildx adds provenance to every image by itself, `buildctl` does not (see docs/attestations.md).

use std::collections::BTreeMap;

use rbuild_builder::error::chain_text;
use rbuild_builder::request::attestations::{self, AttestationError, Attestations};
use rbuild_ui::values::csv::{self, CsvError};
use rbuild_ui::values::scalar::parse_bool;

use crate::args::LowBuild;

/// Why flags about attestations are refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttestError {
    /// It cannot be cut.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// A field without a value, or with one that is no bool.
    #[error("invalid value {0}")]
    Field(String),
    /// No type.
    #[error("attestation type not specified")]
    NoType,
    /// A value that means nothing.
    #[error("{}", chain_text(.0))]
    Value(#[from] AttestationError),
    /// Provenance that cannot be made so.
    #[error(transparent)]
    Provenance(#[from] rbuild_builder::provenance::options::OptionsError),
}

/// What is to be attested. Of several flags for one type, the first holds; of a flag and an argument of the build, the flag.
///
/// # Errors
/// [`AttestError`].
pub(super) fn of(low: &LowBuild, build_args: &BTreeMap<String, String>) -> Result<Attestations, AttestError> {
    let short = [("provenance", &low.provenance), ("sbom", &low.sbom)];
    let short = short
        .into_iter()
        .filter_map(|(kind, value)| canonical(kind, value.as_deref()?));
    let mut asked: BTreeMap<String, Option<String>> = BTreeMap::new();
    for text in low.attest.iter().cloned().chain(short) {
        let (kind, fields) = parse(&text)?;
        // The type comes along, and a scanner is told of it (`BUILDKIT_SCAN_type`).
        let written = |fields: Vec<String>| {
            [vec![csv::field(&format!("type={kind}"))], fields]
                .concat()
                .join(",")
        };
        asked
            .entry(format!("attest:{kind}"))
            .or_insert_with(|| fields.map(written));
    }
    // What is disabled is not sent: BuildKit does not know the word.
    let mut asked: BTreeMap<String, String> = asked
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    asked.extend(low.attest_attributes.iter().cloned());
    let asked_by_args = build_args
        .iter()
        .filter(|(name, _)| name.starts_with("BUILDKIT_ATTEST_"));
    asked.extend(asked_by_args.map(|(name, value)| (format!("build-arg:{name}"), value.clone())));
    let found = attestations::parse(&asked)?;
    if let Some(provenance) = &found.provenance {
        rbuild_builder::provenance::options::Options::parse(provenance)?;
    }
    Ok(found)
}

/// `--provenance` and `--sbom` as `--attest` has them; nothing if nothing is said.
fn canonical(kind: &str, value: &str) -> Option<String> {
    match (value, parse_bool(value)) {
        ("", _) => None,
        (_, Some(on)) => Some(format!("type={kind},disabled={}", !on)),
        (_, None) => Some(format!("type={kind},{value}")),
    }
}

/// The type, and the other fields with whatever quotes they need; none if it is disabled.
fn parse(text: &str) -> Result<(String, Option<Vec<String>>), AttestError> {
    let mut kind = String::new();
    let mut disabled = false;
    let mut rest = Vec::new();
    if text.is_empty() {
        return Err(AttestError::NoType);
    }
    for field in csv::fields(text)? {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| AttestError::Field(field.clone()))?;
        match key.trim().to_lowercase().as_str() {
            "type" => value.clone_into(&mut kind),
            "disabled" => {
                disabled = parse_bool(value).ok_or_else(|| AttestError::Field(field.clone()))?;
            }
            _ => rest.push(csv::field(&field)),
        }
    }
    if kind.is_empty() {
        return Err(AttestError::NoType);
    }
    Ok((kind, (!disabled).then_some(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_flags(
        attest: &[&str],
        provenance: Option<&str>,
        sbom: Option<&str>,
    ) -> Result<Attestations, AttestError> {
        let low = LowBuild {
            attest: attest.iter().map(|text| (*text).to_owned()).collect(),
            provenance: provenance.map(str::to_owned),
            sbom: sbom.map(str::to_owned),
            ..LowBuild::default()
        };
        of(&low, &BTreeMap::new())
    }

    fn of_args(args: &[(&str, &str)], provenance: Option<&str>) -> Result<Attestations, AttestError> {
        let low = LowBuild {
            provenance: provenance.map(str::to_owned),
            ..LowBuild::default()
        };
        let args = args
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        of(&low, &args.collect())
    }

    #[test]
    fn short_flags_are_long_ones() {
        assert_eq!(of_flags(&[], None, None).unwrap(), Attestations::default());
        assert_eq!(
            of_flags(&[], Some("false"), Some("0")).unwrap(),
            Attestations::default()
        );
        let found = of_flags(&[], Some("mode=min,version=v0.2"), Some("generator=x/y")).unwrap();
        assert_eq!(found.provenance.unwrap().parameters["mode"], "min");
        let sbom = found.sbom.unwrap();
        assert_eq!(sbom.generator.to_string(), "docker.io/x/y:latest");
        let told: Vec<_> = sbom.parameters.iter().collect();
        assert_eq!(
            told,
            [(&"type".to_owned(), &"sbom".to_owned())],
            "what a scanner is told"
        );
        let found = of_flags(&["type=sbom,disabled=false,a=b"], None, None).unwrap();
        let told: Vec<_> = found.sbom.unwrap().parameters.into_keys().collect();
        assert_eq!(told, ["a", "type"]);
        assert!(of_flags(&[], Some("true"), None).unwrap().provenance.is_some());
    }

    #[test]
    fn the_first_of_a_type_holds() {
        let first = ["type=provenance,mode=min", "type=provenance,mode=max"];
        let found = of_flags(&first, Some("false"), None).unwrap();
        assert_eq!(found.provenance.unwrap().parameters["mode"], "min");
        let off = of_flags(&["type=sbom,disabled=true"], None, Some("true")).unwrap();
        assert_eq!(off.sbom, None);
        let quoted = of_flags(&["type=provenance,\"builder-id=a,\"\"b\"\"\""], None, None).unwrap();
        assert_eq!(quoted.provenance.unwrap().parameters["builder-id"], "a,\"b\"");
    }

    #[test]
    fn attributes_hold_as_buildkit_reads_them() {
        let with = |value: &str| {
            let low = LowBuild {
                attest_attributes: vec![("attest:provenance".to_owned(), value.to_owned())],
                ..LowBuild::default()
            };
            of(&low, &BTreeMap::new())
        };
        for taken in [
            "",
            "disabled=true",
            "disabled",
            "mode=min,",
            "false",
            "capture-usage",
        ] {
            assert!(with(taken).unwrap().provenance.is_some(), "{taken}");
        }
        for (value, says) in [
            ("mode", "invalid mode \"\""),
            ("version", "provenance SLSA version cannot be empty"),
            (
                "\"mode=min",
                "failed to parse provenance: parse error on line 1, column 2: ",
            ),
        ] {
            let told = with(value).unwrap_err().to_string();
            assert!(told.starts_with(says), "{told}");
        }
    }

    /// The answers are those of a BuildKit that was asked by `buildctl --opt build-arg:…`.
    #[test]
    fn arguments_of_the_build_ask_in_the_words_of_attributes() {
        for (name, value, mode) in [
            ("BUILDKIT_ATTEST_PROVENANCE", "mode=min", Some("min")),
            ("BUILDKIT_ATTEST_Provenance", "mode=max", Some("max")),
            ("BUILDKIT_ATTEST_PROVENANCE", "", None),
            ("BUILDKIT_ATTEST_PROVENANCE", "disabled=true", None),
        ] {
            let found = of_args(&[(name, value)], None).unwrap().provenance.expect(name);
            assert_eq!(found.parameters.get("mode").map(String::as_str), mode, "{value}");
        }
        let both = of_args(&[("BUILDKIT_ATTEST_PROVENANCE", "mode=min")], Some("mode=max")).unwrap();
        assert_eq!(both.provenance.unwrap().parameters["mode"], "max");
        assert_eq!(
            of_args(&[("BUILDKIT_attest_SBOM", "")], None).unwrap(),
            Attestations::default()
        );
        for (name, value, says) in [
            ("BUILDKIT_ATTEST_OTHER", "1", "unknown attestation type \"other\""),
            ("BUILDKIT_ATTEST_", "1", "unknown attestation type \"\""),
            ("BUILDKIT_ATTEST_PROVENANCE", "mode=much", "invalid mode \"much\""),
            (
                "BUILDKIT_ATTEST_SBOM",
                "generator=",
                "sbom generator cannot be empty",
            ),
            (
                "BUILDKIT_ATTEST_PROVENANCE",
                "reproducible=x",
                "failed to parse reproducible flag \"x\": strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(
                of_args(&[(name, value)], None).unwrap_err().to_string(),
                says,
                "{name}"
            );
        }
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let text = |attest: &[&str], provenance| of_flags(attest, provenance, None).unwrap_err().to_string();
        assert_eq!(text(&[], Some("max")), "invalid value max");
        assert_eq!(text(&[], Some("mode=much")), "invalid mode \"much\"");
        assert_eq!(text(&["mode=max"], None), "attestation type not specified");
        assert_eq!(text(&["type=x"], None), "unknown attestation type \"x\"");
        assert_eq!(
            text(&["type=sbom,disabled=maybe"], None),
            "invalid value disabled=maybe"
        );
    }
}
