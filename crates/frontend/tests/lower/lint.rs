//! Lint rules.

use crate::fake::{Fake, lower_with, options};

/// Short texts of all warnings.
fn warnings(dockerfile: &str) -> Vec<String> {
    let mut options = options(dockerfile);
    options.ignore_patterns = vec!["*.tmp".to_owned(), "secret".to_owned()];
    let lowered = lower_with(&options, &Fake::new()).unwrap_or_else(|error| panic!("{error}: {dockerfile}"));
    lowered
        .warnings
        .iter()
        .map(rbuild_frontend::LintWarning::short)
        .collect()
}

#[test]
#[allow(clippy::too_many_lines, reason = "a flat table")]
fn each_rule_and_its_legal_twin() {
    for (dockerfile, expected) in [
        (
            "FROM alpine AS Build\n",
            "StageNameCasing: Stage name 'Build' should be lowercase (line 1)",
        ),
        ("FROM alpine AS build\n", ""),
        (
            "FROM alpine as build\n",
            "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)",
        ),
        ("from alpine as build\n", ""),
        (
            "FROM alpine\nRUN a \\\n\n  b\n",
            "NoEmptyContinuation: Empty continuation line (line 4)",
        ),
        ("FROM alpine\nRUN a \\\n  # c\n  b\n", ""),
        (
            "FROM alpine\nRUN a\nrun b\n",
            "ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase) (line 3)",
        ),
        (
            "from alpine\nRun a\nenv a=b\n",
            "ConsistentInstructionCasing: Command 'Run' should match the case of the command majority (lowercase) (line 2)",
        ),
        (
            "FROM alpine AS a\nFROM alpine AS a\n",
            "DuplicateStageName: Duplicate stage name \"a\", stage names should be unique (line 2)",
        ),
        (
            "FROM alpine AS context\n",
            "ReservedStageName: Stage name should not use the same name as reserved stage \"context\" (line 1)",
        ),
        (
            "FROM alpine\nCMD x\n",
            "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 2)",
        ),
        ("FROM alpine\nSHELL [\"bash\", \"-c\"]\nENTRYPOINT x\n", ""),
        (
            "FROM alpine\nMAINTAINER x\n",
            "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)",
        ),
        (
            "ARG IMAGE=alpine\nFROM ${IMAG:-alpine}\n",
            "UndefinedArgInFrom: FROM argument 'IMAG' is not declared (did you mean IMAGE?) (line 2)",
        ),
        ("ARG IMAGE\nFROM ${IMAGE:-alpine}\n", ""),
        (
            "FROM alpine\nENV NAME=x\nLABEL a=$NAM\n",
            "UndefinedVar: Usage of undefined variable '$NAM' (did you mean $NAME?) (line 3)",
        ),
        ("FROM alpine\nARG NAM\nLABEL a=$NAM\nRUN echo $whatever\n", ""),
        (
            "FROM alpine\nWORKDIR a\nWORKDIR b\n",
            "WorkdirRelativePath: Relative workdir \"a\" can have unexpected results if the base image changes (line 2)",
        ),
        ("FROM alpine\nWORKDIR /a\nWORKDIR b\n", ""),
        (
            "FROM alpine\nCMD [\"a\"]\nCMD [\"b\"]\n",
            "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 2)",
        ),
        ("FROM alpine AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]\n", ""),
        (
            "FROM alpine\nENV a b\n",
            "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2)",
        ),
        ("FROM alpine\nENV a=b\n", ""),
        (
            "FROM alpine\nARG API_KEY\n",
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"API_KEY\") (line 2)",
        ),
        ("FROM alpine\nENV PUBLIC_KEY=x\n", ""),
        (
            "FROM --platform=$TARGETPLATFORM alpine\n",
            "RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 1)",
        ),
        (
            "FROM --platform=linux/amd64 alpine\n",
            "FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\" (line 1)",
        ),
        ("FROM --platform=linux/amd64 alpine AS amd64\n", ""),
        (
            "FROM alpine\nEXPOSE 80/TCP\n",
            "ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 2)",
        ),
        (
            "FROM alpine\nEXPOSE 8080:80\n",
            "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '8080:80' (line 2)",
        ),
        (
            "FROM alpine\nCOPY secret/key /\n",
            "CopyIgnoredFile: Attempting to Copy file \"secret/key\" that is excluded by .dockerignore (line 2)",
        ),
        (
            "FROM alpine\nADD ./x.tmp /\n",
            "CopyIgnoredFile: Attempting to Add file \"x.tmp\" that is excluded by .dockerignore (line 2)",
        ),
        ("FROM alpine\nCOPY . /\nCOPY --from=alpine secret /\n", ""),
        (
            "# check=experimental=all\nFROM alpine\n# words\nARG a=1\n",
            "InvalidDefinitionDescription: Comment for ARG should follow the format: `# a <description>` (line 4)",
        ),
        ("# check=experimental=all\nFROM alpine\n# a words\nARG a=1\n", ""),
    ] {
        let expected: Vec<&str> = if expected.is_empty() {
            Vec::new()
        } else {
            vec![expected]
        };
        assert_eq!(warnings(dockerfile), expected, "{dockerfile}");
    }
}

#[test]
fn a_base_that_needs_build_arguments() {
    let mut options = options("ARG V\nFROM alpine:$V\n");
    options.build_args.insert("V".into(), "latest".into());
    let lowered = lower_with(&options, &Fake::new()).unwrap();
    assert_eq!(
        lowered.warnings[0].short(),
        "InvalidDefaultArgInFrom: Default value for ARG alpine:$V results in empty or invalid base image name (line 2)"
    );
}

#[test]
fn checks_are_switched_in_the_file_and_from_outside() {
    let dockerfile = "# check=skip=JSONArgsRecommended\nFROM alpine\nCMD x\nENV a b\n";
    assert_eq!(warnings(dockerfile).len(), 1);
    assert!(warnings("# check=skip=all\nFROM alpine\nENV a b\n").is_empty());
    assert!(warnings("FROM alpine\n# check=skip=LegacyKeyValueFormat\nENV a b\n").is_empty());
    let mut options = options(dockerfile);
    options
        .build_args
        .insert("BUILDKIT_DOCKERFILE_CHECK".into(), "error=true".into());
    let error = lower_with(&options, &Fake::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "lint violation found for rules: JSONArgsRecommended, LegacyKeyValueFormat"
    );
    assert_eq!(error.warnings.len(), 2);
    assert!(error.warnings[0].url.ends_with("/json-args-recommended/"));
}
