//! `rbuild manifest annotate`: what an image of a list runs on (docker CLI, `cli/command/manifest/annotate.go`, `util.go`).

use rbuild_dockerfile::suggest;
use rbuild_oci::Platform;
use rbuild_ui::values::csv;

use super::list::{self, ListError};
use super::parse;
use crate::args::AnnotateArgs;
use crate::commands::CommandError;
use crate::env::Env;

/// The machines docker takes an image of: those Go was ported to when the list was made.
const MACHINES: [(&str, &[&str]); 9] = [
    ("darwin", &["386", "amd64", "arm", "arm64"]),
    ("dragonfly", &["amd64"]),
    ("freebsd", &["386", "amd64", "arm"]),
    (
        "linux",
        &[
            "386", "amd64", "arm", "arm64", "mips64", "mips64le", "ppc64le", "riscv64", "s390x",
        ],
    ),
    ("netbsd", &["386", "amd64", "arm"]),
    ("openbsd", &["386", "amd64", "arm"]),
    ("plan9", &["386", "amd64"]),
    ("solaris", &["amd64"]),
    ("windows", &["386", "amd64"]),
];

/// Changes the entry of an image in a list of this machine.
pub(super) fn run(args: &AnnotateArgs, env: &Env) -> Result<(), CommandError> {
    let (name, image) = (parse(&args.list)?, parse(&args.manifest)?);
    let (path, mut kept) = list::known(&name, env)?;
    let wanted = image.to_string();
    let entry = kept.entries.iter_mut().find(|entry| entry.reference == wanted);
    let entry = entry.ok_or(ListError::NotInList { image, list: name })?;
    let platform = entry.descriptor.platform.get_or_insert_with(Platform::default);
    change(platform, args)?;
    Ok(list::write(&path, &kept)?)
}

/// What is empty is not said, and features are added to those that are there.
fn change(platform: &mut Platform, args: &AnnotateArgs) -> Result<(), ListError> {
    let said = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    if let Some(arch) = said(&args.arch) {
        platform.architecture = arch;
    }
    if let Some(os) = said(&args.os) {
        platform.os = os;
    }
    for text in args.os_features.iter().filter(|text| !text.is_empty()) {
        let features = csv::fields(text).map_err(|error| ListError::Features {
            text: text.clone(),
            error,
        })?;
        for feature in features {
            if !platform.os_features.contains(&feature) {
                platform.os_features.push(feature);
            }
        }
    }
    if let Some(version) = said(&args.os_version) {
        platform.os_version = Some(version);
    }
    if let Some(variant) = said(&args.variant) {
        platform.variant = Some(variant);
    }
    let of_os = MACHINES.iter().find(|(os, _)| *os == platform.os);
    if of_os.is_some_and(|(_, all)| all.contains(&platform.architecture.as_str())) {
        return Ok(());
    }
    Err(ListError::Platform {
        os: platform.os.clone(),
        arch: platform.architecture.clone(),
        hint: nearest(platform, of_os.map(|(_, all)| *all)),
    })
}

/// The nearest machine: of the names of the system, or of systems.
fn nearest(platform: &Platform, of_os: Option<&[&str]>) -> String {
    let near = match of_os {
        Some(all) => suggest::nearest(&platform.architecture, all.iter().copied(), true),
        None => suggest::nearest(&platform.os, MACHINES.iter().map(|(os, _)| *os), true),
    };
    near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated(flags: &[(&str, &str)]) -> Result<Platform, String> {
        let of = |name: &str| {
            let found = flags.iter().rfind(|(flag, _)| *flag == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let args = AnnotateArgs {
            arch: of("arch"),
            os: of("os"),
            os_version: of("os-version"),
            variant: of("variant"),
            os_features: of("os-features").into_iter().collect(),
            ..AnnotateArgs::default()
        };
        let mut platform = Platform::new("linux", "arm64");
        platform.os_features = vec!["a".to_owned()];
        change(&mut platform, &args).map_err(|error| error.to_string())?;
        Ok(platform)
    }

    #[test]
    fn machines_that_there_are_not_are_refused_as_docker_does() {
        for (flags, says) in [
            (&[("os", "windows")][..], "combination: windows/arm64"),
            (&[("arch", "wasm")], "combination: linux/wasm"),
            (
                &[("os", "linus")],
                "combination: linus/arm64; did you mean \"linux\"?",
            ),
            (
                &[("os", "Linux")],
                "combination: Linux/arm64; did you mean \"linux\"?",
            ),
            (
                &[("arch", "amd46")],
                "combination: linux/amd46; did you mean \"amd64\"?",
            ),
            (&[("os", "solaris"), ("arch", "386")], "combination: solaris/386"),
            (
                &[("os-features", "a\"b")],
                "for --os-features: parse error on line 1, column 2: bare \" in non-quoted field",
            ),
        ] {
            let error = annotated(flags).unwrap_err();
            assert!(error.contains(says), "{flags:?}: {error}");
        }
        let windows = annotated(&[("os", "windows"), ("arch", "amd64"), ("os-version", "10.0")]).unwrap();
        assert_eq!(
            (windows.os.as_str(), windows.os_version.as_deref()),
            ("windows", Some("10.0"))
        );
    }

    #[test]
    fn empty_values_change_nothing_and_features_are_added_once() {
        let all = ["os", "arch", "os-version", "variant", "os-features"].map(|flag| (flag, ""));
        let same = annotated(&all).unwrap();
        assert_eq!((same.os.as_str(), same.architecture.as_str()), ("linux", "arm64"));
        assert_eq!((same.variant, same.os_version), (None, None));
        assert_eq!(
            annotated(&[("os-features", "b,a,\"c,d\"")]).unwrap().os_features,
            ["a", "b", "c,d"]
        );
    }
}
