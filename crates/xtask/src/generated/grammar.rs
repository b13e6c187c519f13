//! The grammar: a Dockerfile out of a row of numbers, mostly one that builds.

mod rests;

use std::fmt::Write as _;

use rbuild_testkit::conformance::Recipe;
use rbuild_testkit::context::Entry;
use rests::{
    ADD, ARG, BASES, COMMAND, COPY, ENV, EXPANSIONS, EXPOSE, FLAGS, FROM_STAGE, GLOBAL_ARG, HEALTHCHECK,
    IGNORED, LABEL, MAINTAINER, ONBUILD, RUN, RUN_FLAGS, Rests, SHELL, STOPSIGNAL, USER, VOLUME, WORKDIR,
};

/// How often something is wrong: of a Dockerfile of some ten instructions every other is.
const BAD_ONE_OF: usize = 40;

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014): small, and the same everywhere.
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end as u64)).unwrap_or_default()
    }

    /// Whether one of `times` comes out.
    fn one_of(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of the good, and seldom one of the bad.
    fn mostly(&mut self, rests: &Rests) -> &'static str {
        let list = if self.one_of(BAD_ONE_OF) {
            rests.bad
        } else {
            rests.good
        };
        list[self.below(list.len())]
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }

    /// `text`, or nothing.
    fn maybe(&mut self, times: usize, text: &str) -> String {
        if self.one_of(times) {
            text.to_owned()
        } else {
            String::new()
        }
    }
}

/// The context, the arguments and labels that a Dockerfile of these numbers is built with.
pub(super) fn context(numbers: &mut Numbers) -> Recipe {
    let file = |path: &str, text: &str| Entry {
        path: path.to_owned(),
        text: Some(text.to_owned()),
        ..Entry::default()
    };
    let link = |path: &str, target: &str| Entry {
        path: path.to_owned(),
        link: Some(target.to_owned()),
        ..Entry::default()
    };
    let mut files = vec![
        file("a.txt", "a\n"),
        // What the triggers of the base copy.
        file("onbuild.txt", "o\n"),
        file("b.txt", "b\n"),
        file("Sp ace", "s\n"),
        file("d/f", "f\n"),
        file("d/sub/g.txt", "g\n"),
        file("d/sub/.h", "h\n"),
        Entry {
            mode: Some("755".to_owned()),
            ..file("run.sh", "#!/bin/sh\necho run\n")
        },
        link("link", "a.txt"),
        link("dlink", "d"),
        Entry {
            path: "empty/".to_owned(),
            ..Entry::default()
        },
        file("fake.tar.gz", "no archive\n"),
    ];
    for path in ["t.tar.gz", "t.tar", "d/u.tar.xz"] {
        files.push(Entry {
            path: path.to_owned(),
            archive: Some(vec![
                file("in/x", "x\n"),
                Entry {
                    uid: 11,
                    gid: 12,
                    mode: Some("4711".to_owned()),
                    ..file("in/y", "y\n")
                },
                link("in/l", "../in/x"),
                link("l", "/etc"),
            ]),
            ..Entry::default()
        });
    }
    if numbers.one_of(4) {
        let rules =
            (0..=numbers.below(4)).fold(String::new(), |all, _| all + numbers.mostly(&IGNORED) + "\n");
        files.push(file(".dockerignore", &rules));
    }
    let mut recipe = Recipe {
        about: "Generated.".to_owned(),
        bases: ["busybox", "rich", "onbuild"].map(str::to_owned).to_vec(),
        files,
        ..Recipe::default()
    };
    let named = vec![file("n.txt", "n\n"), file("nd/s/q", "q\n"), link("nl", "n.txt")];
    recipe.contexts.insert("nc".to_owned(), named.clone());
    if numbers.one_of(12) {
        // In the place of a stage.
        recipe.contexts.insert("s0".to_owned(), named);
    }
    recipe.secrets.insert("sec".to_owned(), "secret words".to_owned());
    if numbers.one_of(8) {
        let epoch = numbers.pick(&["0", "1700000000", "1", ""]);
        recipe
            .build_args
            .insert("SOURCE_DATE_EPOCH".to_owned(), epoch.to_owned());
    }
    if numbers.one_of(4) {
        recipe.build_args.insert("A".to_owned(), "given".to_owned());
    }
    if numbers.one_of(8) {
        recipe.labels.insert("from".to_owned(), "outside".to_owned());
    }
    if numbers.one_of(10) {
        recipe.target = Some(numbers.pick(&["s0", "S0", "0", "nowhere"]).to_owned());
    }
    recipe
}

/// A Dockerfile.
pub(super) fn dockerfile(numbers: &mut Numbers) -> String {
    let mut maker = Maker {
        numbers,
        stage: 0,
        steps: 0,
        shell: true,
    };
    let mut text = String::new();
    if maker.numbers.one_of(8) {
        let directives = [
            "# escape=`\n",
            "# check=skip=all\n",
            "#check=skip=JSONArgsRecommended;error=false\n",
            "# a comment\n# escape=`\n",
        ];
        text += maker.numbers.pick(&directives);
    }
    let escape = if text.starts_with("# escape=`") { '`' } else { '\\' };
    for _ in 0..maker.numbers.below(3) {
        text += &maker.line("ARG", &GLOBAL_ARG);
    }
    let stages = 1 + maker.numbers.below(3);
    for stage in 0..stages {
        maker.stage = stage;
        text += &maker.from();
        let last = 2 + maker.numbers.below(7);
        for _ in 0..last {
            text += &maker.instruction();
        }
    }
    if escape == '`' {
        text = text.replace('\\', "`");
    }
    match maker.numbers.below(24) {
        0 => text.replace('\n', "\r\n"),
        1 => format!("\u{feff}{text}"),
        2 => text.trim_end().to_owned(),
        _ => text,
    }
}

struct Maker<'a> {
    numbers: &'a mut Numbers,
    stage: usize,
    /// Steps that run, of which there are few: they take most of the time.
    steps: usize,
    /// The stage has a shell.
    shell: bool,
}

impl Maker<'_> {
    fn from(&mut self) -> String {
        let earlier = format!("s{}", self.stage.saturating_sub(1));
        let base = match self.numbers.below(4) {
            0 if self.stage > 0 => earlier,
            _ => self.numbers.mostly(&BASES).to_owned(),
        };
        self.shell = base != "scratch";
        let name = match self.numbers.below(8) {
            0 => String::new(),
            1 => format!(" as s{}", self.stage),
            2 => format!(" AS S{}", self.stage),
            _ => format!(" AS s{}", self.stage),
        };
        let platform = self.numbers.pick(&[
            "",
            "",
            "",
            "",
            "",
            "--platform=$BUILDPLATFORM ",
            "--platform=linux/amd64 ",
        ]);
        let comment = self.numbers.maybe(8, "# What the stage is for.\n");
        let keyword = self.keyword("FROM");
        format!("{comment}{keyword} {platform}{base}{name}\n")
    }

    /// An instruction with one of `rests`, spaced and continued in some way.
    fn line(&mut self, keyword: &str, rests: &Rests) -> String {
        let rest = self.numbers.mostly(rests);
        self.spaced(keyword, rest)
    }

    fn keyword(&mut self, keyword: &str) -> String {
        match self.numbers.below(16) {
            0 => keyword.to_lowercase(),
            1 => keyword[..1].to_owned() + &keyword[1..].to_lowercase(),
            _ => keyword.to_owned(),
        }
    }

    fn spaced(&mut self, keyword: &str, rest: &str) -> String {
        let keyword = self.keyword(keyword);
        let line = match self.numbers.below(14) {
            0 => format!("{keyword}\t {rest}  \n"),
            1 => format!("  {keyword} {rest}\n"),
            2 => match rest.split_once(' ') {
                Some((head, tail)) if !rest.contains("<<") => format!("{keyword} {head} \\\n  {tail}\n"),
                _ => format!("{keyword} {rest}\n"),
            },
            3 => match rest.split_once(' ') {
                Some((head, tail)) if !rest.contains("<<") => {
                    format!("{keyword} {head} \\\n  # between\n\n  {tail}\n")
                }
                _ => format!("{keyword} \\\n {rest}\n"),
            },
            _ => format!("{keyword} {rest}\n"),
        };
        let comment = self.numbers.pick(&[
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "# a comment\n",
            "\n",
            "   # with blanks\n",
        ]);
        format!("{comment}{line}")
    }

    fn instruction(&mut self) -> String {
        match self.numbers.below(48) {
            40..=43 => self.expansion(),
            44..=46 => self.heredoc(),
            47 => self.trigger_of_lines(),
            0..=3 => self.line("ENV", &ENV),
            4..=6 => self.line("ARG", &ARG),
            7..=8 => self.line("LABEL", &LABEL),
            9..=14 => self.copy(),
            15..=16 => self.line("ADD", &ADD),
            17..=21 => self.run(),
            22..=24 => self.line("WORKDIR", &WORKDIR),
            25 => self.line("USER", &USER),
            26..=27 => self.line("EXPOSE", &EXPOSE),
            28 => self.line("VOLUME", &VOLUME),
            29..=30 => self.line("CMD", &COMMAND),
            31..=32 => self.line("ENTRYPOINT", &COMMAND),
            33 => self.line("SHELL", &SHELL),
            34 => self.line("HEALTHCHECK", &HEALTHCHECK),
            35 => self.line("STOPSIGNAL", &STOPSIGNAL),
            36..=37 => self.onbuild(),
            38 => self.line("MAINTAINER", &MAINTAINER),
            _ => self.heredoc(),
        }
    }

    fn copy(&mut self) -> String {
        let mut flags = String::new();
        for (times, choices) in FLAGS {
            if self.numbers.one_of(times) {
                flags += self.numbers.mostly(&choices);
                flags.push(' ');
            }
        }
        if self.stage > 0 && self.numbers.one_of(3) {
            let from = self.numbers.below(self.stage);
            let place = self.numbers.mostly(&FROM_STAGE);
            let name = self.numbers.pick(&["s", "S", ""]);
            return self.spaced("COPY", &format!("{flags}--from={name}{from} {place}"));
        }
        let rest = self.numbers.mostly(&COPY);
        self.spaced("COPY", &format!("{flags}{rest}"))
    }

    fn run(&mut self) -> String {
        if self.steps > 2 || !self.shell {
            return self.line("ENV", &ENV);
        }
        self.steps += 1;
        let flags = match self.numbers.below(8) {
            0 => self.numbers.mostly(&RUN_FLAGS),
            _ => "",
        };
        let rest = self.numbers.mostly(&RUN);
        self.spaced("RUN", &format!("{flags}{rest}"))
    }

    fn onbuild(&mut self) -> String {
        self.line("ONBUILD", &ONBUILD)
    }

    /// A variable expanded in some way, somewhere where variables are.
    fn expansion(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..=self.numbers.below(3) {
            let name = self.numbers.pick(&["A", "A", "B", "E", "PATH", "NOPE"]);
            let how = self.numbers.mostly(&EXPANSIONS);
            let quote = self.numbers.pick(&["", "", "\"", "'", "\\"]);
            let end = if quote == "\\" { "" } else { quote };
            // Writing to a string cannot fail.
            write!(text, "{quote}${{{name}{how}}}{end}").expect("a string");
        }
        match self.numbers.below(8) {
            0 => self.spaced("WORKDIR", &format!("/x{text}")),
            1 => self.spaced("LABEL", &format!("{text}=key x={text}")),
            2 => self.spaced("ARG", &format!("B={text}")),
            3 => self.spaced("COPY", &format!("a.txt /to/{text}")),
            4 => self.spaced("VOLUME", &format!("/v{text}")),
            5 => self.spaced("ENV", &format!("F={text} G=\"<{text}>\"")),
            _ => self.spaced("ENV", &format!("B={text}")),
        }
    }

    /// A heredoc that a stage's children run.
    fn trigger_of_lines(&mut self) -> String {
        let document = self.heredoc();
        format!("ONBUILD {document}")
    }

    fn heredoc(&mut self) -> String {
        if self.numbers.one_of(3) {
            return self.fixed_heredoc();
        }
        let flags = match self.numbers.below(4) {
            0 => self.numbers.pick(&[
                "--chmod=700 ",
                "--chown=1:2 ",
                "--link ",
                "--chmod=u+x ",
                "--parents ",
            ]),
            _ => "",
        };
        let runs = self.shell && self.steps < 3 && self.numbers.one_of(3);
        let mut heads = String::new();
        let mut bodies = String::new();
        for name in ["E", "file.txt"].iter().take(1 + self.numbers.below(2)) {
            let chomp = self.numbers.pick(&["", "", "-"]);
            let head = match self.numbers.below(4) {
                0 => format!("<<{chomp}'{name}' "),
                1 => format!("<<{chomp}\"{name}\" "),
                _ => format!("<<{chomp}{name} "),
            };
            heads += &head;
            for _ in 0..self.numbers.below(4) {
                bodies += if runs {
                    self.numbers.pick(&SCRIPT)
                } else {
                    self.numbers.pick(&TEXT)
                };
            }
            let tabs = if chomp == "-" {
                self.numbers.pick(&["", "\t", "\t\t"])
            } else {
                ""
            };
            bodies += &format!("{tabs}{name}\n");
        }
        if runs {
            self.steps += 1;
            let command = self
                .numbers
                .pick(&["", "", "cat > /cat", "sh -e", "| cat > /piped"]);
            return format!("RUN {heads}{command}\n{bodies}");
        }
        let keyword = self.numbers.pick(&["COPY", "COPY", "ADD"]);
        let to = self
            .numbers
            .pick(&["/here/", "/here/", "/hh", "rel/", "/$A/", "a.txt /mixed/"]);
        format!("{keyword} {flags}{heads}{to}\n{bodies}")
    }

    fn fixed_heredoc(&mut self) -> String {
        match self.numbers.below(6) {
            0 => "COPY <<E /here\nline $A \"q\" \\$A\nE\n".to_owned(),
            1 => "COPY <<'E' <<-F /here/\nraw $A\nE\n\ttabs ${B:-x}\n\tF\n".to_owned(),
            2 => "COPY --chmod=640 a.txt <<\"E F\" /here/\n\nE F\n".to_owned(),
            3 if self.shell => "RUN <<E\necho here > /h\necho $A >> /h\nE\n".to_owned(),
            4 if self.shell => "RUN <<E cat > /cat\nx\nE\n".to_owned(),
            _ => "ADD <<E /h.tar\nno archive\nE\n".to_owned(),
        }
    }
}

/// Lines of a heredoc that is copied.
const TEXT: [&str; 12] = [
    "plain\n",
    "\ttab $A\n",
    "\t\ttwo ${A:-x} ${A%e}\n",
    "back\\slash \\$A \\\\ \\n\n",
    "joined \\\n",
    "\n",
    "# no comment\n",
    "\"double $A\" 'single $A'\n",
    "${B//b/c}${NOPE}\n",
    "$(not run) `not run`\n",
    "  E\n",
    "é $$ $1\n",
];
/// Lines of one that is run.
const SCRIPT: [&str; 8] = [
    "#!/bin/sh\n",
    "echo $A >> /script\n",
    "\techo \"tab $0\" | grep -c . >> /script\n",
    "echo two \\\n",
    "true\n",
    "\n",
    "# comment\n",
    "export X=1; echo $X ${X}y >> /script\n",
];
