//! Text that costs more than it should (security row 50), at one size and at the double: what is linear takes twice as
//! long, what is quadratic four times, and the limit lies between. Counted is the processor time of the test's own thread,
//! which a busy machine does not blur; its memory has a limit too.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rbuild_dockerfile::glob::Glob;
use rbuild_dockerfile::ignore::{PatternMatcher, read_patterns};
use rbuild_dockerfile::shell::{Lexer, Variables};

use crate::fake::{Fake, lower_with, lowered, options};

/// Nanoseconds that this thread ran.
fn ran_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).expect("time is positive")
}

/// Less cannot be told from noise.
const LEAST_NS: u64 = 100_000;

/// Fails if `work` takes more than three times as long at `2n` as it does at `n`. The least of several runs is what it takes.
#[track_caller]
fn grows_with_the_text(what: &str, n: usize, mut work: impl FnMut(usize)) {
    let mut time = |n: usize| {
        let start = ran_ns();
        work(n);
        ran_ns() - start
    };
    let (mut one, mut two) = (u64::MAX, u64::MAX);
    for _ in 0..4 {
        one = one.min(time(n));
        two = two.min(time(2 * n));
        if two < 3 * one {
            break;
        }
    }
    assert!(two < 3 * one, "{what}: {one} ns at {n}, {two} ns at {}", 2 * n);
    assert!(one >= LEAST_NS, "{what}: {one} ns tell nothing, take a larger n");
}

#[test]
fn row50_dockerfiles_of_any_shape_take_linear_time() {
    type Shape = (&'static str, usize, fn(usize) -> String);
    let shapes: [Shape; 14] = [
        ("instructions", 1_000, |n| {
            format!("FROM alpine\n{}", "RUN x\n".repeat(n))
        }),
        ("continued lines", 60_000, |n| {
            format!("FROM alpine\nRUN {}x\n", "word word \\\n".repeat(n))
        }),
        ("comments in a continued line", 60_000, |n| {
            format!("FROM alpine\nRUN a {}x\n", "\\\n# not a word\n".repeat(n))
        }),
        ("heredocs", 1_000, |n| {
            format!("FROM alpine\n{}", "COPY <<A <<B /d/\na\nA\nb\nB\n".repeat(n))
        }),
        ("triggers", 1_000, |n| {
            format!("FROM alpine AS a\n{}FROM a\n", "ONBUILD ENV A=b\n".repeat(n))
        }),
        ("pairs of one instruction", 2_000, |n| {
            let pairs: String = (0..n).fold(String::new(), |mut text, i| {
                write!(text, " k{i}=v{i}").unwrap();
                text
            });
            format!("FROM alpine\nLABEL{pairs}\n")
        }),
        ("sources of one copy", 1_000, |n| {
            let names: String = (0..n).fold(String::new(), |mut text, i| {
                write!(text, " f{i}").unwrap();
                text
            });
            format!("FROM alpine\nCOPY{names} /d/\n")
        }),
        ("stages", 1_000, |n| {
            (1..n).fold("FROM alpine AS s0\n".to_owned(), |mut text, i| {
                writeln!(text, "FROM alpine AS s{i}\nCOPY --from=s{} /a /b", i - 1).unwrap();
                text
            })
        }),
        ("words in quotes", 4_000, |n| {
            format!("FROM alpine\nENV a=\"{}\"\n", "\\$ ' x".repeat(n))
        }),
        ("patterns to leave out", 1_000, |n| {
            format!("FROM alpine\nCOPY {}. /d/\n", "--exclude=**/a*b ".repeat(n))
        }),
        ("wildcards as sources", 1_000, |n| {
            format!("FROM alpine\nCOPY {}/d/\n", "a*b*c[x-z]/** ".repeat(n))
        }),
        ("working directories", 1_000, |n| {
            format!("FROM alpine\n{}", "WORKDIR /a\n".repeat(n))
        }),
        ("words of an array", 4_000, |n| {
            format!("FROM alpine\nCMD [\"a\"{}]\n", ", \"b\"".repeat(n))
        }),
        ("lines behind another escape", 60_000, |n| {
            format!("# escape=`\nFROM alpine\nRUN {}x\n", "word `\n".repeat(n))
        }),
    ];
    for (what, n, shape) in shapes {
        let (small, large) = (shape(n), shape(2 * n));
        grows_with_the_text(what, n, |now| {
            let text = if now == n { &small } else { &large };
            assert!(lowered(text).result.is_some(), "{what}");
        });
    }
}

struct Map(BTreeMap<String, String>);

impl Variables for Map {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

#[test]
fn row50_expansion_takes_linear_time_in_the_value() {
    // Also at ends and beginnings that never match, for which a matcher that goes back tries every place for every star.
    for word in [
        "${A%%*a*a*a*a*b}",
        "${A##*a*a*a*a*b}",
        "${A%*b}",
        "${A#*b}",
        "${A//a/c}",
        "${A/b*b/x}",
        "${A//[b-z]*a/x}",
        "${A:-x}$A",
    ] {
        let value = |n: usize| Map(BTreeMap::from([("A".to_owned(), "a".repeat(n))]));
        let n = 100_000;
        let (small, large) = (value(n), value(2 * n));
        grows_with_the_text(word, n, |now| {
            let variables = if now == n { &small } else { &large };
            let lexer = Lexer::new('\\');
            for _ in 0..20 {
                assert!(!lexer.expand(word, variables).unwrap().text.is_empty());
            }
        });
    }
}

#[test]
fn row50_ignore_files_take_linear_time_in_their_patterns() {
    type Shape = (&'static str, usize, fn(usize) -> String, fn() -> String);
    let shapes: [Shape; 4] = [
        (
            "names",
            20_000,
            |n| numbered(n, "dir#/file#.*\n"),
            || "dir7/x".to_owned(),
        ),
        (
            "exceptions",
            20_000,
            |n| numbered(n, "!keep#\n"),
            || "other".to_owned(),
        ),
        (
            "globstars in one",
            250,
            |n| "**/".repeat(n) + "x\n",
            || "a/".repeat(2_000) + "y",
        ),
        (
            "hard globstars in one",
            150,
            |n| "**/a/".repeat(n) + "[x]\n",
            || "a/".repeat(500) + "y",
        ),
    ];
    for (what, n, shape, path) in shapes {
        let (small, large, path) = (shape(n), shape(2 * n), path());
        grows_with_the_text(what, n, |now| {
            let text = if now == n { &small } else { &large };
            let matcher = PatternMatcher::new(&read_patterns(text.as_bytes()).unwrap()).unwrap();
            assert!(!matcher.matches_or_parent_matches(&path), "{what}");
        });
    }
}

fn numbered(n: usize, line: &str) -> String {
    (0..n).fold(String::new(), |text, i| text + &line.replace('#', &i.to_string()))
}

#[test]
fn row50_a_wildcard_takes_linear_time_in_the_name() {
    let pattern = format!("{}[b]", "*a".repeat(200));
    let glob = Glob::new(&pattern).unwrap();
    let n = 40_000;
    let (small, large) = ("a".repeat(n), "a".repeat(2 * n));
    grows_with_the_text("stars", n, |now| {
        assert!(!glob.is_match(if now == n { &small } else { &large }));
    });
}

/// Most memory that this process had since the last call, bytes (`VmHWM`; 5 in `clear_refs` sets it back).
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("its memory");
    let kib: u64 = line
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .expect("a number");
    std::fs::write("/proc/self/clear_refs", "5").expect("a process may reset its own");
    kib << 10
}

#[test]
fn row50_hostile_text_does_not_take_the_memory_either() {
    const MOST: u64 = 256 << 20;
    let doubling = format!("FROM alpine\nENV A=xxxxxxxx\n{}", "ENV A=$A$A\n".repeat(60));
    let large = format!(
        "FROM alpine\nENV A={}\n{}",
        "x".repeat(60_000),
        "LABEL a=$A$A$A$A\nRUN echo $A\n".repeat(3_000)
    );
    let continued = format!("FROM alpine\nRUN {}x\n", "xxxxxxxxx\\\n".repeat(1_000_000));
    let opened = format!("FROM alpine\nRUN {}\n", "<<A ".repeat(16_000));
    let nested = format!("FROM alpine\nCMD {}{}\n", "[".repeat(30_000), "]".repeat(30_000));
    let chain = (1..20_000).fold("FROM alpine AS s0\n".to_owned(), |mut text, i| {
        writeln!(text, "FROM s{} AS s{i}", i - 1).unwrap();
        text
    });
    let triggers = format!("FROM alpine AS a\n{}FROM a\n", "ONBUILD RUN x\n".repeat(20_000));
    let workdirs = format!("FROM alpine\n{}", "WORKDIR a\n".repeat(20_000));
    let million = "FROM alpine\n".repeat(1_000_000);
    let unclosed = format!("FROM alpine\n{}", "RUN <<A\n".repeat(100_000));
    let patterns = format!(
        "FROM alpine\nENV A={}\nENV B=${{A%%*a*a*a*a*b}}${{A//*/x}}\n",
        "a".repeat(60_000)
    );
    for (what, text) in [
        ("doubling", doubling),
        ("large", large),
        ("continued", continued),
        ("opened", opened),
        ("nested", nested),
        ("chain", chain),
        ("triggers", triggers),
        ("workdirs", workdirs),
        ("million", million),
        ("unclosed", unclosed),
        ("patterns", patterns),
    ] {
        let before = peak();
        // Refused or not, it is over in bounded memory.
        let _outcome = lower_with(&options(&text), &Fake::new());
        let after = peak();
        assert!(after < MOST, "{what}: {after} bytes, {before} before");
    }
}
