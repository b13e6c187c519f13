//! Options of checks and their effect.

use super::*;

#[test]
fn check_options() {
    let options =
        CheckOptions::parse("skip=StageNameCasing, UndefinedVar;error=true;experimental=all").unwrap();
    assert!(options.skips(Rule::StageNameCasing) && options.skips(Rule::UndefinedVar));
    assert!(!options.skips(Rule::FromAsCasing) && options.error);
    assert!(options.asks(Rule::InvalidDefinitionDescription));
    for (text, message) in [
        ("nonsense", "invalid check option \"nonsense\""),
        ("what=1", "invalid check option \"what\""),
        (
            "error=maybe",
            "failed to parse check option \"error=maybe\": strconv.ParseBool: parsing \"maybe\": invalid syntax",
        ),
    ] {
        assert_eq!(CheckOptions::parse(text).unwrap_err().to_string(), message);
    }
    assert_eq!(CheckOptions::parse(" ").unwrap(), CheckOptions::default());
}

#[test]
fn a_comment_above_switches_one_instruction() {
    let mut linter = Linter::default();
    let span = Span::new(3, 3);
    let comments = ["some text".to_owned(), "check=skip=UndefinedVar more".to_owned()];
    linter.warn(Rule::UndefinedVar, "x".into(), span, &comments);
    linter.warn(Rule::StageNameCasing, "y".into(), span, &comments);
    linter.warn(Rule::InvalidDefinitionDescription, "z".into(), span, &[]);
    linter.warn(
        Rule::InvalidDefinitionDescription,
        "z".into(),
        span,
        &["check=experimental=all".to_owned()],
    );
    let found: Vec<String> = linter.warnings.iter().map(LintWarning::short).collect();
    assert_eq!(
        found,
        [
            "StageNameCasing: y (line 3)",
            "InvalidDefinitionDescription: z (line 3)"
        ]
    );
    assert_eq!(linter.failures(), None);
    linter.options.error = true;
    assert_eq!(
        linter.failures().unwrap(),
        ["InvalidDefinitionDescription", "StageNameCasing"]
    );
}

#[test]
fn rules_of_our_own_are_asked_for_by_name_or_all_together_and_never_by_all() {
    let on = |file: &str, above: &str| {
        let mut linter = Linter::new(CheckOptions::parse(file).unwrap());
        let comments = [above.to_owned()];
        for rule in Rule::OWN {
            linter.warn(rule, String::new(), Span::new(1, 1), &comments);
        }
        linter
            .warnings
            .iter()
            .map(|warning| warning.rule)
            .collect::<Vec<_>>()
    };
    for silent in [
        "",
        "experimental=all",
        "experimental=InvalidDefinitionDescription",
        "skip=all;experimental=rbuild",
    ] {
        assert_eq!(on(silent, ""), [], "{silent}");
    }
    assert_eq!(on("experimental=rbuild", ""), Rule::OWN);
    assert_eq!(on("experimental=SecretInValue", ""), [Rule::SecretInValue]);
    assert_eq!(on("", "check=experimental=MissingLoader"), [Rule::MissingLoader]);
    assert_eq!(
        on("skip=SecretInValue;experimental=rbuild", "")[..],
        Rule::OWN
            .map(|rule| rule)
            .into_iter()
            .filter(|rule| *rule != Rule::SecretInValue)
            .collect::<Vec<_>>()
    );
    assert_eq!(on("experimental=rbuild", "check=skip=all"), []);
}
