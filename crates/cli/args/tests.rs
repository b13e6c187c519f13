//! Spellings, repeated flags, Go's bools, and the help text.

use super::report::globals_last;
use super::*;

fn parse(line: &str) -> Cli {
    Cli::try_parse_from(std::iter::once("rbuild").chain(line.split(' ')))
        .unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn build(line: &str) -> LowBuild {
    match parse(line).command.flatten() {
        Command::Build(low) => *low,
        other => panic!("{line} is {other:?}"),
    }
}

#[test]
fn spellings_of_build() {
    for line in [
        "build -t a .",
        "b -t a .",
        "buildx build -t a .",
        "buildx b -t a .",
        "image build -t a .",
        "builder build -t a .",
    ] {
        let low = build(line);
        assert_eq!(
            (low.context.as_str(), low.tag),
            (".", vec!["a".to_owned()]),
            "{line}"
        );
    }
}

#[test]
fn spellings_of_the_other_commands() {
    assert!(matches!(parse("image ls -q").command.flatten(), Command::Images(args) if args.quiet));
    assert!(matches!(parse("image rm -f a").command.flatten(), Command::Rmi(args) if args.force));
    assert!(matches!(
        parse("image tag a b").command.flatten(),
        Command::Tag(_)
    ));
    assert!(
        matches!(parse("buildx prune -af").command.flatten(), Command::Prune(args) if args.all && args.force)
    );
    assert!(matches!(
        parse("builder prune --keep-storage 1g").command.flatten(),
        Command::Prune(_)
    ));
    assert!(matches!(parse("buildx du --verbose").command.flatten(), Command::Du(args) if args.verbose));
    assert!(
        matches!(parse("--root /x push a").global.root, Some(root) if root == std::path::Path::new("/x"))
    );
    assert!(parse("push a --root /x").global.root.is_some());
}

#[test]
fn bools_are_those_of_go() {
    for (line, value) in [
        ("build .", None),
        ("build --pull .", Some(true)),
        ("build --pull=true .", Some(true)),
        ("build --pull=0 .", Some(false)),
        ("build --pull=F .", Some(false)),
        ("build --pull=false --pull .", Some(true)),
    ] {
        assert_eq!(build(line).pull, value, "{line}");
    }
    assert!(Cli::try_parse_from(["rbuild", "build", "--pull=maybe", "."]).is_err());
}

#[test]
fn the_last_of_a_flag_wins_and_lists_add_up() {
    let low = build("build -f a --file b -t x --tag=y --build-arg A=1,2 --build-arg B --target= . -t z");
    assert_eq!(low.file.as_deref(), Some("b"));
    assert_eq!(low.tag, ["x", "y", "z"]);
    assert_eq!(low.build_arg, ["A=1,2", "B"]);
    assert_eq!(low.target.as_deref(), Some(""));
}

#[test]
fn standard_input_and_hidden_flags_parse() {
    let low = build("build -f - -");
    assert_eq!((low.file.as_deref(), low.context.as_str()), (Some("-"), "-"));
    let low = build(
        "build -m 1g -c 2 --memory-swap -1 --squash --rm=false --security-opt x --isolation y --sbom true --provenance=max --attest type=sbom --cache-from a --cache-to b --call check --ssh default --resource memory=1g --policy reset=true --builder b .",
    );
    assert_eq!(low.step_rules.memory_swap.as_deref(), Some("-1"));
    assert_eq!(low.sbom.as_deref(), Some("true"));
    assert_eq!(low.provenance.as_deref(), Some("max"));
    assert_eq!(low.legacy.rm, Some(false));
}

#[test]
fn what_is_no_command_line() {
    for line in [
        &["build"][..],
        &["build", ".", "."],
        &["build", "--no-such-flag", "."],
        &["tag", "a"],
        &["rmi"],
        &["nothing"],
        &["build", "-j", "0", "."],
        &["du", "--verbose", "--format", "json"],
    ] {
        let error = Cli::try_parse_from(std::iter::once(&"rbuild").chain(line)).expect_err(&line.join(" "));
        assert!(error.use_stderr(), "{line:?}");
    }
    let help = Cli::try_parse_from(["rbuild", "build", "--help"]).expect_err("help is an error to clap");
    assert!(!help.use_stderr());
}

#[test]
fn the_definition_is_sound() {
    use clap::CommandFactory as _;
    Cli::command().debug_assert();
}

#[test]
fn other_spellings_say_the_same_of_themselves_and_take_the_same_flags() {
    use clap::CommandFactory as _;
    let mut whole = Cli::command();
    whole.build();
    let mut second: Vec<Vec<&str>> = Vec::new();
    for parent in ["buildx", "builder", "image", "container", "system"] {
        let parent_command = whole.find_subcommand(parent).expect(parent);
        second.extend(
            parent_command
                .get_subcommands()
                .map(|command| vec![parent, command.get_name()]),
        );
    }
    let about = |command: &clap::Command| command.get_about().map(ToString::to_string);
    let flags = |command: &clap::Command| -> Vec<String> {
        let mut flags: Vec<String> = command
            .get_arguments()
            .map(|arg| arg.get_id().to_string())
            .collect();
        flags.sort();
        flags
    };
    let mut shared = 0;
    for [parent, name] in second
        .iter()
        .filter_map(|path| <[&str; 2]>::try_from(&path[..]).ok())
    {
        let command = whole
            .find_subcommand(parent)
            .and_then(|parent| parent.find_subcommand(name));
        let command = command.expect(name);
        assert!(about(command).is_some(), "{parent} {name}");
        // A command of docker that is refused may have the name of one of ours.
        if command.is_hide_set() {
            continue;
        }
        if let Some(first) = whole.find_subcommand(name)
            && ["build", "bake", "history", "save", "pull"].contains(&name)
        {
            assert_eq!(about(command), about(first), "{parent} {name}");
            assert_eq!(flags(command), flags(first), "{parent} {name}");
            shared += 1;
        }
    }
    assert!(shared >= 8, "{second:?}");
}

#[test]
fn flags_of_every_command_are_last_in_its_help_whatever_is_around_them() {
    let (own, globals) = (
        "Own:\n  -o  \n\n",
        "\x1b[1m\x1b[4mGlobal options:\x1b[0m\n  -D\n\n      D\n",
    );
    let head = "What\n\nUsage: x\n\nOptions:\n  -h\n\n";
    let last = globals_last(&format!("{head}{globals}\n{own}"));
    assert_eq!(last, format!("{head}Own:\n  -o\n\n{globals}"));
    for text in [
        format!("{head}{own}"),
        format!("{head}{own}{globals}"),
        format!("{head}{globals}\nThe end.\n"),
    ] {
        assert_eq!(globals_last(&text), text);
    }
    let framed = globals_last(&format!("{head}{globals}\n{own}The end.\n"));
    assert_eq!(framed, format!("{head}Own:\n  -o\n\n{globals}The end.\n"));
}

#[test]
fn a_command_says_of_itself_what_the_list_of_commands_says() {
    use clap::CommandFactory as _;
    let about = |command: &clap::Command| {
        let below = command.get_subcommands();
        below
            .map(|below| {
                (
                    below.get_name().to_owned(),
                    below.get_about().map(ToString::to_string),
                )
            })
            .collect::<Vec<_>>()
    };
    let mut command = Cli::command();
    let listed = about(&command);
    command.build();
    let mut described = about(&command);
    described.truncate(listed.len());
    assert_eq!(described, listed);
}

#[test]
fn help_of_build_is_as_it_was() {
    use clap::CommandFactory as _;
    let mut command = Cli::command().term_width(100);
    command.build();
    let help = command
        .find_subcommand_mut("build")
        .expect("there is a build")
        .render_help()
        .to_string();
    assert_eq!(
        globals_last(&help),
        include_str!("build-help.txt"),
        "update args/build-help.txt if this is meant"
    );
}
