//! Lines, arguments, here-documents, errors, limits; any bytes are read.

use proptest::prelude::*;

use super::*;

/// Keyword, flags and arguments of each instruction, as one line each.
fn shown(text: &str) -> Vec<String> {
    let (parsed, errors) = parse(text.as_bytes());
    assert_eq!(errors, [], "{text}");
    parsed
        .nodes
        .iter()
        .map(|node| format!("{} {:?} {:?}", node.keyword, node.flags, node.arguments))
        .collect()
}

fn one(text: &str) -> Node {
    let (parsed, errors) = parse(text.as_bytes());
    assert_eq!(errors, [], "{text}");
    parsed.nodes.into_iter().next().unwrap()
}

#[test]
fn lines_are_joined() {
    for (text, expected) in [
        ("RUN a \\\n  b\n", "RUN a   b"),
        ("RUN a\\\nb", "RUN ab"),
        ("RUN a \\  \t\n b", "RUN a  b"),
        ("RUN a \\\n# comment\n   # another\n b\n", "RUN a  b"),
        ("RUN a \\\n\n  \n b\n", "RUN a  b"),
        ("RUN a \\\\\n", "RUN a \\\\"),
        ("RUN a \\\\\\\n", "RUN a \\\\\\"),
        ("RUN a \\", "RUN a "),
        ("  RUN a", "RUN a"),
        ("RUN a\r\n", "RUN a"),
        ("\\\nRUN a", "RUN a"),
        ("\u{feff}RUN a", "RUN a"),
        ("# escape=`\nRUN a `\n b \\\n", "RUN a  b \\"),
        ("#! x\n# escape=`\nRUN a `\n", "RUN a `"),
        ("RUN a \\\n#b\\\nc", "RUN a c"),
    ] {
        assert_eq!(one(text).original, expected, "{text:?}");
    }
}

#[test]
fn spans_and_comments() {
    let (parsed, _) =
        parse(b"# syntax=x\n# about\n#\n# a is\n# good\nRUN a \\\n\n b\n\n# c\nRUN <<E\nx\nE\n");
    let spans: Vec<(u32, u32)> = parsed
        .nodes
        .iter()
        .map(|node| (node.span.start, node.span.end))
        .collect();
    assert_eq!(spans, [(6, 8), (11, 13)]);
    assert_eq!(parsed.nodes[0].comments, ["a is", "good"]);
    assert_eq!(parsed.nodes[1].comments, ["c"]);
    assert_eq!(parsed.empty_continuations, [8]);
    assert_eq!(parsed.directives.len(), 1);
}

#[test]
fn arguments_by_keyword() {
    for (text, expected) in [
        ("FROM a  as\tb", r#"FROM [] Words(["a", "as", "b"])"#),
        ("RUN  echo  a  b ", r#"RUN [] Words(["echo  a  b"])"#),
        ("RUN [\"a\", \"b c\"]", r#"RUN [] Json(["a", "b c"])"#),
        ("RUN ['a']", r#"RUN [] Words(["['a']"])"#),
        (
            "COPY --from=x --link \"--chown=a b\" d",
            r#"COPY ["--from=x", "--link"] Words(["\"--chown=a", "b\"", "d"])"#,
        ),
        (
            "COPY --a=\"x y\" --b='z' -- --c d",
            r#"COPY ["--a=x y", "--b=z"] Words(["--c", "d"])"#,
        ),
        ("COPY --a\\ b c d", r#"COPY ["--a b"] Words(["c", "d"])"#),
        ("COPY [\"a b\", \"c\"]", r#"COPY [] Json(["a b", "c"])"#),
        (
            "ENV a=b 'c d'=\"e f\" g=h\\ i",
            r#"ENV [] Pairs([("a", "b", false), ("'c d'", "\"e f\"", false), ("g", "h\\ i", false)])"#,
        ),
        ("ENV a  b=c d", r#"ENV [] Pairs([("a", "b=c d", true)])"#),
        ("LABEL a=", r#"LABEL [] Pairs([("a", "", false)])"#),
        ("ARG a b=\"c d\"", r#"ARG [] Words(["a", "b=\"c d\""])"#),
        ("CMD", "CMD [] Words([])"),
        (
            "HEALTHCHECK --interval=1s CMD  a b",
            r#"HEALTHCHECK ["--interval=1s"] Healthcheck("CMD", Words(["a b"]))"#,
        ),
        (
            "ONBUILD COPY --x a b",
            "ONBUILD [] Nested(Node { keyword: \"COPY\"",
        ),
        ("USER a b", r#"USER [] Words(["a b"])"#),
        ("NONSENSE a b", "NONSENSE [] Words([])"),
    ] {
        assert!(shown(text)[0].starts_with(expected), "{text}: {}", shown(text)[0]);
    }
}

#[test]
fn heredocs() {
    let node = one("RUN 3<<A <<-\"B\" << C <<- D x <<<D\na $x\nA\n\tb\n\tB\nc\n  C\nC\n");
    let found: Vec<_> = node
        .heredocs
        .iter()
        .map(|h| {
            (
                h.name.as_str(),
                h.file_descriptor,
                h.expand,
                h.chomp,
                h.content.as_str(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("A", 3, true, false, "a $x\n"),
            ("B", 0, false, true, "\tb\n"),
            ("C", 0, true, false, "c\n  C\n")
        ]
    );
    // A quote that belongs to the name is none around it.
    let escaped = one("RUN <<A\\'B\n$x\nA'B\n");
    assert_eq!(
        (escaped.heredocs[0].name.as_str(), escaped.heredocs[0].expand),
        ("A'B", true)
    );
    for text in [
        "ENV a=<<A\nRUN b",
        "RUN [\"<<A\"]\nRUN b",
        "RUN \"<<A\"\nRUN b",
        "RUN a<<A\nRUN b",
        "RUN 'x <<A\nRUN b",
    ] {
        assert_eq!(shown(text).len(), 2, "{text}");
    }
    assert_eq!(one("ONBUILD RUN <<A\nx\nA\n").heredocs.len(), 1);
    assert_eq!(one("COPY <<A /x\r\nl\r\nA\r\n").heredocs[0].content, "l\r\n");
    assert_eq!(chomp("\t\ta\n\tb\n c\t\n"), "a\nb\n c\t\n");
}

#[test]
fn errors_have_lines_and_do_not_stop() {
    let text = "ENV a\nRUN [1]\nENV a=b c\n# escape=x\nRUN ok\nCOPY <<A b\nx\n";
    let (parsed, errors) = parse(text.as_bytes());
    let found: Vec<String> = errors
        .iter()
        .map(|e| format!("{}-{} {e}", e.span.start, e.span.end))
        .collect();
    assert_eq!(
        found,
        [
            "1-1 ENV must have two arguments",
            "2-2 when using JSON array syntax, arrays must be comprised of strings only",
            "3-3 Syntax error - can't find = in \"c\". Must be of the form: name=value",
            "6-7 unterminated heredoc",
        ]
    );
    assert_eq!(parsed.nodes.len(), 1);
    for (text, message) in [
        (
            "# escape=x\nRUN a",
            "invalid escape token 'x' does not match ` or \\",
        ),
        (
            "# escape=`\n# escape=`\nRUN a",
            "only one escape parser directive can be used",
        ),
        ("", "the Dockerfile cannot be empty"),
        ("\n# x\n", "file with no instructions"),
    ] {
        assert_eq!(parse(text.as_bytes()).1[0].to_string(), message, "{text:?}");
    }
}

#[test]
fn row50_limits_of_lines_and_files() {
    let line = |n: usize| format!("RUN {}\n", "x".repeat(n - 4));
    assert!(parse(line(65_535).as_bytes()).1.is_empty());
    let (_, errors) = parse(format!("RUN a\n{}", line(65_536)).as_bytes());
    assert_eq!(
        errors[0].to_string(),
        "dockerfile line greater than max allowed size of 65535"
    );
    assert_eq!(errors[0].span.start, 1);
    let (_, errors) = parse(line(65_536).as_bytes());
    assert_eq!(errors[0].to_string(), "file with no instructions");
    assert_eq!(errors[0].span.start, 0);
    let (_, errors) = parse(&vec![b'#'; MAX_DOCKERFILE_BYTES + 1]);
    assert_eq!(errors[0].kind, ParseErrorKind::TooLarge);
    let many = "ONBUILD ".repeat(8_000);
    assert!(parse(many.as_bytes()).1.is_empty());
    let joined = format!("RUN {}end\n", "xxxxxxxxx\\\n".repeat(1_000_000));
    let (parsed, errors) = parse(joined.as_bytes());
    assert!(errors.is_empty());
    assert_eq!(parsed.nodes[0].original.len(), 9_000_007);
    let opened = format!("RUN {}\n", "<<A ".repeat(16_000));
    assert_eq!(
        parse(opened.as_bytes()).1[0].kind,
        ParseErrorKind::UnterminatedHeredoc
    );
}

#[test]
fn row50_instructions_are_counted() {
    let text = "RUN x\n".repeat(MAX_INSTRUCTIONS + 5);
    let (parsed, errors) = parse(text.as_bytes());
    assert_eq!(parsed.nodes.len(), MAX_INSTRUCTIONS);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].kind, ParseErrorKind::TooManyInstructions);
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (dockerfile, errors) = crate::parse(&bytes);
        prop_assert!(!errors.is_empty() || !dockerfile.stages.is_empty());
    }

    #[test]
    fn anything_like_a_dockerfile_is_read(
        lines in prop::collection::vec("(FROM|RUN|COPY|ADD|ENV|ARG|ONBUILD|HEALTHCHECK|LABEL|#|EXPOSE|USER|from)[ a-z=<\"'\\\\`$\\-\\[\\],0-9]{0,24}", 0..12),
    ) {
        let text = lines.join("\n");
        let (parsed, _) = parse(text.as_bytes());
        let count = u32::try_from(lines.len()).unwrap();
        for node in &parsed.nodes {
            prop_assert!(node.span.start >= 1 && node.span.start <= node.span.end && node.span.end <= count);
        }
        let _parsed = crate::parse(text.as_bytes());
    }
}
