//! The grammar: a Dockerfile out of a row of numbers, mostly one that builds.

use rbuild_testkit::conformance::Recipe;
use rbuild_testkit::context::Entry;

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
        Entry {
            path: "t.tar.gz".to_owned(),
            archive: Some(vec![file("in/x", "x\n"), file("in/y", "y\n")]),
            ..Entry::default()
        },
    ];
    if numbers.one_of(6) {
        let rules = numbers.pick(&["*.txt\n!a.txt\n", "d/sub\n", "# c\n\n**/f\n", "d\n!d/sub/g.txt\n"]);
        files.push(file(".dockerignore", rules));
    }
    let mut recipe = Recipe {
        about: "Generated.".to_owned(),
        bases: ["busybox", "rich", "onbuild"].map(str::to_owned).to_vec(),
        files,
        ..Recipe::default()
    };
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
        match self.numbers.below(40) {
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

    fn heredoc(&mut self) -> String {
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

/// What an instruction may have behind its keyword, and what it may not have.
struct Rests {
    good: &'static [&'static str],
    bad: &'static [&'static str],
}

const ENV: Rests = Rests {
    good: &[
        "E=1",
        "E=$A",
        "E2=${A:-d} F=${B:+set}",
        "P='single $A'",
        "Q=\"double $A \\\"x\\\"\"",
        "OLD style value  spaced",
        "PATH=/x:$PATH",
        "E=\\$A",
        "E=${A#o}",
        "E=${A%e} G=${A/n/N}",
        "E=a\\ b",
        "U=ü$E",
        "E=${A##*n} F=${A%%e*} G=${A//e/}",
        "A=env",
        "E=\"$Q\" P=$P",
        "E='' F=\"\"",
    ],
    bad: &["E=${A:?gone}", "E=${NOPE?unset}", "E", "=x", "E=${A"],
};
const ARG: Rests = Rests {
    good: &[
        "A",
        "A=two",
        "B=$A",
        "A B=b C",
        "D=\"x y\"",
        "E=arg",
        "TARGETARCH",
        "BUILDKIT_X=1",
        "HTTP_PROXY",
        "A=${B-none}",
        "A=b=c",
        "TARGETPLATFORM BUILDOS=x",
    ],
    bad: &["1bad=x", "=x", "A=\"x", "A=${"],
};
const LABEL: Rests = Rests {
    good: &[
        "l=1",
        "a.b=\"c d\" e=f",
        "l=$A",
        "old style",
        "\"q q\"=v",
        "l=multi\\ word",
        "l=",
        "x='$A'",
        "l=1 l=2",
        "$A=key",
    ],
    bad: &["l", "l=\"x", "l=${A:?no}"],
};
const COPY: Rests = Rests {
    good: &[
        "a.txt /",
        "a.txt b.txt /w/",
        "d /d",
        "d/ d2/",
        ". /all/",
        "*.txt /txt/",
        "[\"Sp ace\", \"/sp\"]",
        "link /l",
        "dlink /dl",
        "d/s*/g* /g",
        "a.txt a.txt",
        "no*here /n",
        "empty /em",
        "d/../a.txt /up",
        "/a.txt ../out",
        "./d/./f .",
        "d link /m/",
        "run.sh /usr/bin/r",
        "d/* /each/",
        "a.txt/* /none/",
        "\"a.txt\" '/quoted'",
        "d/sub/ /tmp",
        "t.tar.gz /t/",
        "?.txt /one/",
        "[ab].txt /set/",
        "d/sub/.h /$A/h",
        "*.txt d ./here/",
        "d/**/g.txt /stars/",
        "dlink/f /through/",
        "d/sub/../f //e//f",
    ],
    bad: &[
        "$A /x",
        "nothere /n",
        "a.txt /etc/passwd/x",
        "a.txt b.txt /w",
        "a.txt",
        "[a /x",
        "[\"a.txt\", \"/\"",
        "../../a.txt /x",
    ],
};
const ADD: Rests = Rests {
    good: &[
        "a.txt /add/",
        "t.tar.gz /t/",
        "t.tar.gz /t",
        "--chown=1:2 t.tar.gz /o/",
        "--unpack=false t.tar.gz /n/",
        "*.gz /g/",
        "d /dd/",
        "--chmod=700 t.tar.gz /c/",
        "--link t.tar.gz a.txt /ln/",
        "--exclude=in/x t.tar.gz /ex/",
    ],
    bad: &[
        "nothere.tar /",
        "--keep-git-dir a.txt /k",
        "--unpack=x a.txt /k",
        "--checksum=sha256:x a.txt /k",
    ],
};
/// How rarely a flag stands there, its good values, its bad ones.
const FLAGS: [(usize, Rests); 5] = [
    (
        6,
        Rests {
            good: &[
                "--chown=1:2",
                "--chown=daemon",
                "--chown=7:bin",
                "--chown=",
                "--chown=nosuch",
            ],
            bad: &["--chown=a:b:c", "--chown=-1"],
        },
    ),
    (
        6,
        Rests {
            good: &[
                "--chmod=600",
                "--chmod=u+x",
                "--chmod=go-rwx,a+X",
                "--chmod=${M:-750}",
                "--chmod=4755",
            ],
            bad: &["--chmod=9", "--chmod=u?x", "--chmod=77777"],
        },
    ),
    (
        8,
        Rests {
            good: &["--link", "--link=false"],
            bad: &["--link=x", "--LINK", "--nothere"],
        },
    ),
    (
        8,
        Rests {
            good: &[
                "--exclude=*.txt",
                "--exclude=d/sub --exclude=!d/sub/g.txt",
                "--exclude=",
                "--exclude=**/g*",
            ],
            bad: &["--exclude=[", "--exclude"],
        },
    ),
    (
        10,
        Rests {
            good: &["--parents", "--parents=false"],
            bad: &["--parents=x"],
        },
    ),
];
const RUN: Rests = Rests {
    good: &[
        "echo hi > /e",
        "echo $A > /e; echo ${E-none} >> /e",
        "mkdir -p /w/x && touch /w/x/y",
        "rm -rf /e /w",
        "[\"/bin/sh\", \"-c\", \"echo json > /j\"]",
        "[\"echo\", \"no shell $A\"]",
        "chmod 666 /etc/group || true",
        "ln -s /etc/passwd /pl || true",
        "true",
        "pwd > /tmp/cwd; id -u >> /tmp/cwd",
        "env | grep -v -e HOSTNAME -e OTEL -e TRACE | sort > /tmp/env",
        "echo a \\\n# c\n  && echo b > /tmp/two",
        "umask > /tmp/umask; ls -la /w > /dev/null 2>&1; true",
    ],
    bad: &["false", "exit 7", "nosuchprogram", "[\"/nosuch\"]"],
};
const RUN_FLAGS: Rests = Rests {
    good: &[
        "--mount=type=tmpfs,target=/t ",
        "--mount=target=/ctx,ro ",
        "--mount=type=cache,target=/generated ",
        "--mount=type=bind,source=d,target=/m,rw ",
        "--network=none ",
        "--security=sandbox ",
        "--mount=type=secret,id=s ",
        "--mount=type=bind,source=d/$N,target=/m ",
        "--mount=type=cache,id=$A,target=rel,mode=0700 ",
    ],
    bad: &[
        "--mount=type=nope ",
        "--mount=target=/x,source=nothere ",
        "--network=nope ",
        "--mount=type=secret,id=s,required ",
        "--mount=type=cache ",
    ],
};
const WORKDIR: Rests = Rests {
    good: &[
        "/w",
        "rel",
        "../up",
        "/a b",
        "/x/./y/../z",
        ".",
        "\"/q\"",
        "/",
        "$A",
        "/$A/${B:-b}",
    ],
    bad: &["", "/etc/passwd", "/w${A"],
};
const USER: Rests = Rests {
    good: &["1", "daemon:bin", "nobody", "1:2", "$A$A", "\"root\"", "0"],
    bad: &["", "$NOPE", "-1"],
};
const EXPOSE: Rests = Rests {
    good: &[
        "80",
        "80/tcp 81/udp",
        "8000-8003",
        "80/sctp",
        "81 80 81",
        "80/TCP",
    ],
    bad: &["0", "99999", "x", "127.0.0.1:80:81", "$NOPE", "5-1"],
};
const VOLUME: Rests = Rests {
    good: &["/v", "/v1 /v2", "[\"/j\", \"/k\"]", "/v$A", "/v /v"],
    bad: &["[]", "[\"\"]", "$NOPE"],
};
const COMMAND: Rests = Rests {
    good: &[
        "[\"a\", \"b\"]",
        "echo $A",
        "[\"unclosed\"",
        "[]",
        "exec  spaced   words",
        "[ \"s\" ]",
        "['single']",
        "\"quoted words\"",
        "[\"\\u0041\\t\"]",
    ],
    bad: &["[\"x\", 1]", "", "[1]"],
};
const SHELL: Rests = Rests {
    good: &[
        "[\"/bin/sh\", \"-ec\"]",
        "[\"/bin/sh\", \"-c\"]",
        "[\"/bin/sh\", \"-x\", \"-c\"]",
    ],
    bad: &["/bin/sh -c", "[]"],
};
const HEALTHCHECK: Rests = Rests {
    good: &[
        "CMD true",
        "--interval=5s --timeout=1m CMD [\"x\"]",
        "NONE",
        "--retries=3 CMD x $A",
        "--interval=1ms CMD x",
        "--start-period=0s --start-interval=2s CMD y",
        "cmd lower",
        "--interval=1h2m3.5s CMD z",
    ],
    bad: &[
        "NONE x",
        "CMD",
        "nope",
        "--interval=1us CMD x",
        "--retries=x CMD y",
        "--interval=-1s CMD x",
    ],
};
const STOPSIGNAL: Rests = Rests {
    good: &["9", "SIGTERM", "sigint", "RTMIN+3", "${S:-15}"],
    bad: &["$NONE", "nope", "-1", "99"],
};
const GLOBAL_ARG: Rests = Rests {
    good: &["A=one", "B", "TAG=busybox", "A=\"q $B\"", "C=${A:-c}", "N=sub"],
    bad: &["1x", "A=${A?x}"],
};
const MAINTAINER: Rests = Rests {
    good: &["me <me@example.com>", "$A", "\"q\""],
    bad: &[""],
};
const ONBUILD: Rests = Rests {
    good: &[
        "ENV T=$A",
        "COPY a.txt /onb/",
        "WORKDIR /onb",
        "LABEL on=build",
        "ARG O=1",
        "USER 7",
        "CMD [\"x\"]",
        "RUN echo on > /on",
        "copy d /onb/d",
        "EXPOSE 99",
    ],
    bad: &[
        "FROM x",
        "ONBUILD ENV a=b",
        "MAINTAINER x",
        "COPY --from=s0 /nothere /x",
        "NOPE",
        "",
    ],
};
const FROM_STAGE: Rests = Rests {
    good: &[
        "/etc/passwd /p",
        "/ /root/",
        "/w* /w/",
        "etc/group tmp /g/",
        "/no*thing /n",
        "/bin/busybox /bb",
    ],
    bad: &["/nothere /n", "/e /e2", "[ /x"],
};
const BASES: Rests = Rests {
    good: &[
        "busybox",
        "busybox",
        "busybox",
        "rich",
        "onbuild",
        "${TAG:-busybox}",
        "${X:-rich}",
        "scratch",
    ],
    bad: &["$TAG", "BusyBox", "busy box", "no/such/../thing"],
};
