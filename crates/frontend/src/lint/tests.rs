//! Options of checks and their effect.

use super::*;

#[test]
fn check_options() {
    let options =
        CheckOptions::parse("skip=StageNameCasing, UndefinedVar;error=true;experimental=all").unwrap();
    assert!(options.switches(Rule::StageNameCasing) && options.switches(Rule::UndefinedVar));
    assert!(!options.switches(Rule::FromAsCasing) && options.error);
    assert!(options.switches(Rule::InvalidDefinitionDescription));
    for (text, message) in [
        ("nonsense", "invalid check option \"nonsense\""),
        ("what=1", "invalid check option \"what\""),
        ("error=maybe", "failed to parse check option \"error=maybe\""),
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
