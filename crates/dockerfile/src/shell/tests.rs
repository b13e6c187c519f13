//! Tables of words and what becomes of them, limits, and properties.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Default)]
struct Map(BTreeMap<&'static str, String>);

impl Variables for Map {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn names(&self) -> Vec<&str> {
        self.0.keys().copied().collect()
    }
}

fn map(pairs: &[(&'static str, &str)]) -> Map {
    Map(pairs.iter().map(|(k, v)| (*k, (*v).to_owned())).collect())
}

fn variables() -> Map {
    map(&[
        ("PWD", "/home"),
        ("SHELL", "bash"),
        ("KOREAN", "한국어"),
        ("NULL", ""),
        ("VAR", "a b  c"),
    ])
}

const ERROR: &str = "\u{0}error";

#[test]
fn one_word() {
    for (word, expected) in [
        ("hello", "hello"),
        ("he'll'o", "hello"),
        ("he'llo", ERROR),
        ("he\\'llo", "he'llo"),
        ("he\\\\'llo", ERROR),
        ("abc\\tdef", "abctdef"),
        ("\"abc\\tdef\"", "abc\\tdef"),
        ("\"abc\\\\tdef\"", "abc\\tdef"),
        ("'abc\\tdef'", "abc\\tdef"),
        ("hello\\", "hello"),
        ("hello\\\\", "hello\\"),
        ("\"hello", ERROR),
        ("\"hello\\\"", ERROR),
        ("\"hel'lo\"", "hel'lo"),
        ("'hello\\there'", "hello\\there"),
        ("\"''\"", "''"),
        ("$.", "$."),
        ("he$1x", "hex"),
        ("he$.x", "he$.x"),
        ("he$pwd.", "he."),
        ("he$PWD", "he/home"),
        ("he\\$PWD", "he$PWD"),
        ("he\\\\$PWD", "he\\/home"),
        ("\"he\\$PWD\"", "he$PWD"),
        ("\\${}", "${}"),
        ("${}", ERROR),
        ("he${hi}xx", "hexx"),
        ("he${PWD}", "he/home"),
        ("he${.}", ERROR),
        ("he${XXX:-000}xx", "he000xx"),
        ("he${PWD:-000}xx", "he/homexx"),
        ("he${XXX:-${YYY:-yyy}}xx", "heyyyxx"),
        ("he${XXX:YYY}", ERROR),
        ("he${XXX?}", ERROR),
        ("he${XXX:?}", ERROR),
        ("he${PWD:?}", "he/home"),
        ("he${NULL?}", "he"),
        ("he${NULL:?}", ERROR),
        ("he${NULL-x}", "he"),
        ("he${NULL:-x}", "hex"),
        ("he${NULL+x}", "hex"),
        ("he${NULL:+x}", "he"),
        ("he${PWD:+${SHELL}}xx", "hebashxx"),
        ("he${XXX:+000}xx", "hexx"),
        ("'he${XX}'", "he${XX}"),
        ("\"he'$PWD'\"", "he'/home'"),
        ("he${PWD", ERROR),
        ("he${PWD:=000}xx", ERROR),
        ("he${PWD:+${PWD}:}xx", "he/home:xx"),
        ("he${XXX:-\\$PWD:}xx", "he$PWD:xx"),
        ("안\\\\'녕하세요", ERROR),
        ("안녕$KOREAN", "안녕한국어"),
        ("${{aaa}", ERROR),
        ("${aaa}}", "}"),
        ("${aaa:-bbb ${foo}", ERROR),
        ("${aaa:-bbb {foo}", "bbb {foo"),
        ("${:-bbb}", ERROR),
        ("$1$2${3}", ""),
        ("$999aaa", "aaa"),
        ("${001:-bbb}aaa", "bbbaaa"),
        ("$@@@", "@@"),
        ("$$", ""),
        ("${?:+b}", ""),
        ("a<<EOF<b", "a<<EOF<b"),
    ] {
        let found = Lexer::new('\\').expand(word, &variables());
        match found {
            Ok(found) => assert_eq!(found.text, expected, "{word}"),
            Err(error) => assert_eq!(expected, ERROR, "{word}: {error}"),
        }
    }
}

#[test]
fn patterns() {
    let vars = map(&[
        ("x", "foobarbaz"),
        ("p", "/usr/local/bin/tool.tar.gz"),
        ("s", "a*b?c\\d"),
        ("e", ""),
    ]);
    for (word, expected) in [
        ("${x#f*o}", "obarbaz"),
        ("${x##*b}", "az"),
        ("${x#*b}", "arbaz"),
        ("${x%b*}", "foobar"),
        ("${x%%b*}", "foo"),
        ("${x%nothing}", "foobarbaz"),
        ("${x#}", "foobarbaz"),
        ("${p##*/}", "tool.tar.gz"),
        ("${p%/*}", "/usr/local/bin"),
        ("${p%.*}", "/usr/local/bin/tool.tar"),
        ("${p%%.*}", "/usr/local/bin/tool"),
        ("${x/o/0}", "f0obarbaz"),
        ("${x//o/0}", "f00barbaz"),
        ("${x//b?/X}", "fooXrXz"),
        ("${x/b*/X}", "fooX"),
        ("${x//\\//X}", "foobarbaz"),
        ("${p//\\//-}", "-usr-local-bin-tool.tar.gz"),
        ("${s/\\*/X}", "aXb?c\\d"),
        ("${s/\\\\/X}", "a*b?cXd"),
        ("${s/\\?/X}", "a*bXc\\d"),
        ("${s%\\?c*}", "a*b"),
        ("${s%%\\**}", "a"),
        ("${x//[o]/X}", "foobarbaz"),
        ("${x//a.b/X}", "foobarbaz"),
        ("${unset/a/b}", ""),
        ("${unset#a}", ""),
        ("${e//*/x}", "x"),
        ("${x/$unset/y}", "yfoobarbaz"),
    ] {
        assert_eq!(
            Lexer::new('\\').expand(word, &vars).unwrap().text,
            expected,
            "{word}"
        );
    }
    for (word, message) in [
        (
            "${x/a}",
            "failed to process \"${x/a}\": syntax error: missing '/' in ${}",
        ),
        (
            "${x/a/b",
            "failed to process \"${x/a/b\": syntax error: missing '}'",
        ),
        (
            "${x#\\a}",
            "failed to process \"${x#\\\\a}\": invalid pattern (\\a) in substitution: invalid escape '\\a'",
        ),
        (
            "${x:#a}",
            "failed to process \"${x:#a}\": unsupported modifier (:#) in substitution",
        ),
        (
            "${x:=a}",
            "failed to process \"${x:=a}\": unsupported modifier (:=) in substitution",
        ),
        (
            "${nope?}",
            "failed to process \"${nope?}\": nope: is not allowed to be unset",
        ),
        (
            "${e:?}",
            "failed to process \"${e:?}\": e: is not allowed to be empty",
        ),
        (
            "${nope:?say why}",
            "failed to process \"${nope:?say why}\": nope: say why",
        ),
    ] {
        assert_eq!(
            Lexer::new('\\').expand(word, &vars).unwrap_err().to_string(),
            message
        );
    }
}

#[test]
fn words_are_split_after_expansion() {
    for (word, expected) in [
        ("hello", &["hello"][..]),
        ("hello hello  x", &["hello", "hello", "x"]),
        ("'hello there' x", &["hello there", "x"]),
        ("hello\\ there", &["hello there"]),
        ("$VAR", &["a", "b", "c"]),
        ("\"$VAR\"", &["a b  c"]),
        ("x${VAR}y", &["xa", "b", "cy"]),
        ("\"\" x", &["x"]),
        ("", &[]),
        ("  ", &[]),
        ("<< EOF cat", &["<< EOF", "cat"]),
        ("3<<EOF x<y", &["3<<EOF", "x<y"]),
        // BuildKit loses the beginning of a word here.
        ("80${NOPE:-81}", &["81"]),
    ] {
        assert_eq!(
            Lexer::new('\\').split(word, &variables()).unwrap().words,
            expected,
            "{word}"
        );
    }
}

#[test]
fn switches() {
    let vars = map(&[("x", "1")]);
    let raw = Lexer {
        raw_quotes: true,
        skip_unset: true,
        ..Lexer::new('\\')
    };
    for (word, expected) in [
        (
            "a 'b $x' \"$x\" $y ${y} ${y:-$x} ${y%z} ${y/a/b}",
            "a 'b $x' \"1\" $y ${y} ${y:-1} ${y%z} ${y/a/b}",
        ),
        ("\\$x", "$x"),
    ] {
        assert_eq!(raw.expand(word, &vars).unwrap().text, expected);
    }
    let escapes = Lexer {
        raw_escapes: true,
        ..Lexer::new('\\')
    };
    assert_eq!(
        escapes.expand("\\a\"\\$x\\n\"", &vars).unwrap().text,
        "\\a\\$x\\\\n"
    );
    let text = Lexer {
        skip_quotes: true,
        ..Lexer::new('\\')
    };
    assert_eq!(
        text.expand("it's \"$x\" \\$x", &vars).unwrap().text,
        "it's \"1\" $x"
    );
    let backtick = Lexer::new('`');
    assert_eq!(backtick.expand("C:\\$x `$x", &vars).unwrap().text, "C:\\1 $x");
}

#[test]
fn seen_variables_are_reported() {
    let found = Lexer::new('\\')
        .expand("$PWD ${nope:-$other} $PWD", &variables())
        .unwrap();
    assert_eq!(found.matched.into_iter().collect::<Vec<_>>(), ["PWD"]);
    assert_eq!(found.unmatched.into_iter().collect::<Vec<_>>(), ["nope", "other"]);
}

#[test]
fn row50_doubling_stops_at_the_limit() {
    let mut value = "xxxxxxxx".to_owned();
    let mut rounds = 0;
    let error = loop {
        match Lexer::new('\\').expand("$A$A", &map(&[("A", &value)])) {
            Ok(found) => value = found.text,
            Err(error) => break error,
        }
        rounds += 1;
        assert!(rounds < 60);
    };
    assert_eq!(error.kind, ExpandErrorKind::TooLong);
    assert!(value.len() <= MAX_GROWTH_BYTES);
}

#[test]
fn row50_a_long_literal_is_no_expansion() {
    let long = "x".repeat(3 << 20);
    assert_eq!(
        Lexer::new('\\').expand(&long, &NoVariables).unwrap().text.len(),
        long.len()
    );
    assert_eq!(
        Lexer::new('\\')
            .expand(&format!("\"{long}\""), &NoVariables)
            .unwrap()
            .text
            .len(),
        long.len()
    );
}

#[test]
fn row50_replacing_cannot_multiply() {
    let vars = map(&[("A", &"a".repeat(100_000)), ("B", &"b".repeat(100_000))]);
    let error = Lexer::new('\\').expand("${A//a/$B}", &vars).unwrap_err();
    assert_eq!(error.kind, ExpandErrorKind::TooLong);
    assert_eq!(
        Lexer::new('\\').expand("${A//a/b}", &vars).unwrap().text,
        vars.0["B"]
    );
}

#[test]
fn row50_patterns_do_not_backtrack() {
    let start = std::time::Instant::now();
    let vars = map(&[("A", &"a".repeat(100_000))]);
    assert_eq!(
        Lexer::new('\\')
            .expand("${A%%*a*a*a*a*b}", &vars)
            .unwrap()
            .text
            .len(),
        100_000
    );
    assert_eq!(
        Lexer::new('\\')
            .expand("${A##*a*a*a*a*b}", &vars)
            .unwrap()
            .text
            .len(),
        100_000
    );
    assert_eq!(Lexer::new('\\').expand("${A//*/x}", &vars).unwrap().text, "x");
    let error = Lexer::new('\\')
        .expand(&format!("${{A#{}}}", "*".repeat(5000)), &vars)
        .unwrap_err();
    assert!(matches!(
        error.kind,
        ExpandErrorKind::InvalidPattern {
            reason: PatternProblem::TooLong,
            ..
        }
    ));
    assert!(start.elapsed().as_secs() < 20, "took {:?}", start.elapsed());
}

#[test]
fn row50_nesting_has_a_limit() {
    let nested = |n: usize| format!("{}x{}", "${a:-".repeat(n), "}".repeat(n));
    assert_eq!(
        Lexer::new('\\')
            .expand(&nested(MAX_NESTING), &NoVariables)
            .unwrap()
            .text,
        "x"
    );
    let error = Lexer::new('\\')
        .expand(&nested(100_000), &NoVariables)
        .unwrap_err();
    assert_eq!(error.kind, ExpandErrorKind::TooDeep);
}

proptest! {
    #[test]
    fn never_panics(word in "[a$\\{}:?#%/*'\"<\\\\ xé-]{0,40}", raw in any::<[bool; 4]>()) {
        let lexer = Lexer { escape: '\\', raw_quotes: raw[0], raw_escapes: raw[1], skip_quotes: raw[2], skip_unset: raw[3] };
        if let Ok(found) = lexer.expand(&word, &map(&[("a", "aéa"), ("x", "")])) {
            prop_assert!(found.text.len() <= word.len() + MAX_GROWTH_BYTES);
        }
    }

    #[test]
    fn text_without_special_characters_is_itself(word in "[a-z.=,/ ]{0,40}") {
        prop_assert_eq!(Lexer::new('\\').expand(&word, &NoVariables).unwrap().text, word);
    }
}

#[test]
fn a_byte_order_mark_in_front_is_no_part_of_a_word() {
    let variables = map(&[("A", "\u{feff}b")]);
    let lexer = Lexer::new('\\');
    for (word, expected) in [
        ("\u{feff}a", "a"),
        ("\u{feff}\u{feff}a", "\u{feff}a"),
        ("a\u{feff}", "a\u{feff}"),
        ("$A", "\u{feff}b"),
        ("${A#\u{feff}}", "\u{feff}b"),
        ("${A#\u{feff}\u{feff}}", "b"),
    ] {
        assert_eq!(lexer.expand(word, &variables).unwrap().text, expected, "{word:?}");
    }
}

#[test]
fn what_a_shell_knows_more_of_stays_where_unset_variables_stay() {
    let lexer = Lexer {
        skip_unset: true,
        ..Lexer::new('\\')
    };
    let text = |word: &str| lexer.expand(word, &variables()).map(|found| found.text);
    for word in ["${x:=y}", "${x:0:3}", "${x:@Q}"] {
        assert_eq!(text(word).as_deref(), Ok(word));
    }
    for (word, modifier) in [
        ("${PWD:=y}", ":="),
        ("${x=y}", "="),
        ("${x^^}", "^"),
        ("${x:#y}", ":#"),
    ] {
        let expected = ExpandErrorKind::UnsupportedModifier(modifier.to_owned());
        assert_eq!(text(word).unwrap_err().kind, expected, "{word}");
    }
}

#[test]
fn a_backslash_at_the_end_of_a_pattern_quotes_nothing() {
    let variables = map(&[("A", "ab"), ("P", "a\\")]);
    for word in ["${A#$P}", "${A/$P/x}"] {
        let error = Lexer::new('\\').expand(word, &variables).unwrap_err();
        assert_eq!(
            error.kind.to_string(),
            "invalid pattern (a\\) in substitution: invalid escape '\\\u{fffd}'",
            "{word}"
        );
    }
}
