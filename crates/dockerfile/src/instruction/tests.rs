//! Typed instructions and the texts of their errors.

use super::*;
use crate::shell::ExpandError;
use crate::{parse, parse_trigger};

fn instruction(text: &str) -> InstructionKind {
    let (dockerfile, errors) = parse(format!("FROM a\n{text}").as_bytes());
    assert_eq!(errors, [], "{text}");
    dockerfile.stages[0].instructions[0].kind.clone()
}

fn error(text: &str) -> String {
    let (_, errors) = parse(format!("FROM a\n{text}").as_bytes());
    let text = errors.first().map(ToString::to_string).unwrap_or_default();
    text.replacen("dockerfile parse error on line 2: ", "", 1)
}

#[test]
fn stages() {
    let (dockerfile, errors) =
        parse(b"ARG x\n# Build makes it\n# build really\nFrom --platform=$P a:1 As Build\nRUN b\nFROM c\n");
    assert!(errors.is_empty());
    assert_eq!(dockerfile.global_args.len(), 1);
    let stage = &dockerfile.stages[0];
    assert_eq!((stage.name.as_str(), stage.keyword.as_str()), ("build", "From"));
    let from = &dockerfile.from_lines[0];
    assert_eq!((from.keyword.as_str(), from.span.start), ("From", 4));
    assert_eq!(from.words, ["a:1", "As", "Build"]);
    assert_eq!((stage.base_name.as_str(), stage.platform.as_str()), ("a:1", "$P"));
    assert_eq!((stage.doc_comment.as_str(), stage.span.start), ("really", 4));
    assert_eq!((stage.instructions.len(), dockerfile.stages.len()), (1, 2));
}

/// Mistakes, and what BuildKit says of each.
const MESSAGES: &[(&str, &str)] = &[
    (
        "COPY a",
        "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
    ),
    ("COPY a <<b\nb", "COPY cannot accept a heredoc as a destination"),
    (
        "COPY --chwon=a b c",
        "unknown flag: --chwon (did you mean chown?)",
    ),
    ("COPY --from b c", "missing a value on flag: --from"),
    ("COPY --link= b c", "missing a value on flag: --link"),
    (
        "COPY --link=yes b c",
        "expecting boolean value for flag --link, not: yes",
    ),
    ("COPY --from=a --from=b c d", "duplicate flag specified: --from"),
    ("COPY --link --link=false c d", "duplicate flag specified: --link"),
    (
        "ADD --checksm=a b c",
        "unknown flag: --checksm (did you mean checksum?)",
    ),
    ("ENV", "ENV requires at least one argument"),
    ("ENV =a", "ENV names can not be blank"),
    ("ENV --x a=b", "unknown flag: --x"),
    ("ARG", "ARG requires at least one argument"),
    ("ARG =a", "ARG names can not be blank"),
    ("WORKDIR", "WORKDIR requires exactly one argument"),
    ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
    ("EXPOSE", "EXPOSE requires at least one argument"),
    ("VOLUME [\"\"]", "VOLUME specified can not be an empty string"),
    ("SHELL bash -c", "SHELL requires the arguments to be in JSON form"),
    ("SHELL []", "SHELL requires at least one argument"),
    ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
    ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
    ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
    ("HEALTHCHECK foo", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
    (
        "HEALTHCHECK --interval=1 CMD a",
        "time: missing unit in duration \"1\"",
    ),
    (
        "HEALTHCHECK --timeout=1us CMD a",
        "Interval \"timeout\" cannot be less than 1ms",
    ),
    (
        "HEALTHCHECK --start-interval=999999ns CMD a",
        "Interval \"start-interval\" cannot be less than 1ms",
    ),
    (
        "HEALTHCHECK --retries=-1 CMD a",
        "--retries cannot be negative (-1)",
    ),
    (
        "HEALTHCHECK --retries=x CMD a",
        "strconv.ParseInt: parsing \"x\": invalid syntax",
    ),
    (
        "HEALTHCHECK --retries=9999999999 CMD a",
        "strconv.ParseInt: parsing \"9999999999\": value out of range",
    ),
    ("ONBUILD", "ONBUILD requires at least one argument"),
    (
        "ONBUILD onbuild RUN a",
        "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
    ),
    ("ONBUILD FROM a", "FROM isn't allowed as an ONBUILD trigger"),
    ("RUN --network=lan a", "invalid network mode \"lan\""),
    ("RUN --security=none a", "security \"none\" is not valid"),
    ("RUN --mount=\"a a", "failed to parse csv mounts: EOF"),
    ("RUN --device=a,b c", "invalid field 'b' must be a key=value pair"),
    (
        "RUN --device=a=b,nam=c d",
        "unexpected key 'nam' in 'nam=c' (did you mean name?)",
    ),
    ("FROM a b", "FROM requires either one or three arguments"),
    (
        "FROM a AS 1b",
        "invalid name for build stage: \"1b\", name can't start with a number or contain symbols",
    ),
    (
        "FROM a AS b/c",
        "invalid name for build stage: \"b/c\", name can't start with a number or contain symbols",
    ),
    (
        "ENTRYPONT a",
        "unknown instruction: ENTRYPONT (did you mean ENTRYPOINT?)",
    ),
    (
        "wrokdir a",
        "unknown instruction: wrokdir (did you mean workdir?)",
    ),
];

#[test]
fn messages() {
    for &(text, message) in MESSAGES {
        let found = error(text);
        if text.contains("--mount=\"a") {
            // An open quote takes the rest of the line; what is in it is a mount named `a a`.
            assert_eq!(found, "", "{text}");
        } else {
            assert_eq!(found, message, "{text}");
        }
    }
}

#[test]
fn flags_that_buildkit_does_not_read() {
    assert_eq!(
        instruction("STOPSIGNAL --x 9"),
        InstructionKind::StopSignal("9".to_owned())
    );
    assert!(matches!(instruction("ARG --x a"), InstructionKind::Arg(_)));
    assert!(matches!(
        instruction("HEALTHCHECK --x NONE"),
        InstructionKind::Healthcheck(_)
    ));
}

#[test]
fn a_number_of_retries_may_have_a_sign() {
    for (text, expected) in [("+3", 3), ("-0", 0), ("007", 7)] {
        let InstructionKind::Healthcheck(check) = instruction(&format!("HEALTHCHECK --retries={text} CMD a"))
        else {
            panic!("{text}")
        };
        assert_eq!(check.retries, expected, "{text}");
    }
}

#[test]
fn triggers_keep_their_heredocs() {
    let InstructionKind::Onbuild(text) = instruction("onbuild  RUN --mount=target=/x <<A cat\nbody\nA\n")
    else {
        panic!("no ONBUILD")
    };
    assert_eq!(text, "RUN --mount=target=/x <<A cat\nbody\nA");
    let trigger = parse_trigger(&text, Span::new(7, 8)).unwrap();
    assert_eq!(trigger.span, Span::new(7, 8));
    let InstructionKind::Run(run) = trigger.kind else {
        panic!("no RUN")
    };
    assert_eq!(run.command.heredocs[0].content, "body\n");
    for text in ["RUN a\nRUN b", "", "FROM x", "BAD"] {
        let result: Result<_, ParseError> = parse_trigger(text, Span::new(7, 7));
        assert_eq!(result.unwrap_err().span, Span::new(7, 7), "{text}");
    }
}

fn mount(text: &str) -> Result<MountOptions, MountError> {
    MountOptions::parse(text, &mut |word| Ok::<_, ExpandError>(word.replace("$T", "/t")))
}

#[test]
fn mounts() {
    let bind = mount("target=$T/a,source=b,from=c").unwrap();
    assert_eq!(
        (bind.mount_type, bind.readonly, bind.target.as_str()),
        (MountType::Bind, true, "/t/a")
    );
    assert!(!mount("type=bind,dst=/a,rw").unwrap().readonly);
    for writable in ["readwrite", "rw=true", "ReadWrite=1", "ro=false", "ro,rw"] {
        assert!(
            !mount(&format!("dst=/a,{writable}")).unwrap().readonly,
            "{writable}"
        );
    }
    for readonly in ["readwrite=false", "rw,ro", "rw=0"] {
        assert!(
            mount(&format!("type=cache,dst=/a,{readonly}")).unwrap().readonly,
            "{readonly}"
        );
    }
    assert!(!mount("TYPE=CACHE,Target=/a").unwrap().readonly);
    assert!(mount("type=cache,destination=/a,ro=true").unwrap().readonly);
    let cache = mount("type=cache,target=/a,sharing=LOCKED,id=x,mode=0700,uid=1,gid=2").unwrap();
    assert_eq!(
        (cache.sharing, cache.mode, cache.uid, cache.gid),
        (Some(Sharing::Locked), Some(0o700), Some(1), Some(2))
    );
    assert_eq!(mount("type=tmpfs,target=/a,size=1k").unwrap().size_bytes, 1024);
    let secret = mount("type=secret,id=a,required,env=B").unwrap();
    assert!(secret.required && secret.env.as_deref() == Some("B"));
    assert_eq!(mount("\"target=/a,b\"").unwrap().target, "/a,b");
    for (text, message) in [
        ("type=foo", "unsupported mount type \"foo\""),
        ("type=bnd", "unsupported mount type \"bnd\" (did you mean bind?)"),
        (
            "type=cache,sharing=lock",
            "unsupported sharing value \"lock\" (did you mean locked?)",
        ),
        ("target", "invalid field 'target' must be a key=value pair"),
        (
            "tarrget=/a",
            "unexpected key 'tarrget' in 'tarrget=/a' (did you mean target?)",
        ),
        ("readonly=x", "invalid value for readonly: x"),
        ("required=true", "unexpected key 'required' for mount type 'bind'"),
        ("required=x", "unexpected key 'required' for mount type 'bind'"),
        ("type=ssh,required=x", "invalid value for required: x"),
        (
            "required,type=secret,id=a",
            "unexpected key 'required' for mount type 'bind'",
        ),
        ("size=1,type=tmpfs", "unexpected key 'size' for mount type 'bind'"),
        ("type=tmpfs,size=x", "invalid value for size: x"),
        ("type=cache,mode=9", "invalid value 9 for mode"),
        ("type=cache,uid=-1", "invalid value -1 for uid"),
        ("mode=7", "mode not allowed for \"bind\" type mounts"),
        ("type=tmpfs,gid=7", "gid not allowed for \"tmpfs\" type mounts"),
        (
            "type=secret",
            "invalid secret mount. one of source, target required",
        ),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        (
            "type=secret,id=a,sharing=shared",
            "secret mount should not define sharing",
        ),
        (
            "type=ssh,sharing=shared",
            "invalid cache sharing set for ssh mount",
        ),
        (
            "a\"b",
            "failed to parse csv mounts: parse error on line 1, column 2: bare \" in non-quoted field",
        ),
    ] {
        assert_eq!(mount(text).unwrap_err().to_string(), message, "{text}");
    }
}

#[test]
fn the_type_of_a_health_check_ends_at_a_blank_of_ascii() {
    let error = |text: &str| parse(text.as_bytes()).1.first().map(ToString::to_string);
    for blank in ["\t", " \t ", "\u{b}", "\u{c}"] {
        assert_eq!(
            error(&format!("FROM scratch\nHEALTHCHECK CMD{blank}true\n")),
            None,
            "{blank:?}"
        );
    }
    for blank in ["\u{a0}", "\u{85}", "\u{2003}"] {
        let found = error(&format!("FROM scratch\nHEALTHCHECK CMD{blank}true\n"));
        assert!(
            found.is_some_and(|text| text.contains("Unknown type")),
            "{blank:?}"
        );
    }
}
