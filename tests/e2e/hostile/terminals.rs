//! Steps and programs at a real terminal, on each rung: whose input they can type, what they leave behind there, and what a step's
//! output makes of a screen on which progress is drawn.

use rbuild_testkit::command::Ran;

use crate::e2e::fixture::{RBUILD, busybox_argument};
use crate::e2e::hostile::canary::{Rung, Site};
use crate::e2e::hostile::texts::{PRINTED, steering};
use crate::e2e::rows::program_in_context;

/// What must not be typed where a shell of the host reads next.
const TYPED: &str = "echo pwned-by-typing";

/// A site whose image has the program that types, and the program's place on the host.
fn with_program(rung: Rung, dockerfile: &str) -> Option<(Site, String)> {
    let site = Site::on(rung, dockerfile);
    let program = program_in_context(&site.fixture, "terminal")?;
    Some((site, program.display().to_string()))
}

/// `line` between looks at the host's terminal: which it is, its settings before and after, and who types there when it has ended.
fn watched(program: &str, line: &str) -> String {
    format!(
        "{program} who | sed s/^/host-/; echo before $(stty -g); {line}; echo code $?; echo after $(stty -g); \
         echo left:; timeout --foreground 1 sh -c 'cat; cat; cat'; echo :end"
    )
}

/// The terminal was one of the step's own, nobody else's was reached, and the host's is as it was.
#[track_caller]
fn assert_nothing_typed(rung: Rung, ran: &Ran) {
    let text = ran.stdout_text().replace('\r', "");
    let value = |start: &str| {
        // What a terminal shows of an input that ended may stand in front.
        let begun = |line: &str| line.trim_start_matches(|c: char| !c.is_alphabetic()).to_owned();
        let line = text
            .lines()
            .find_map(|line| begun(line).strip_prefix(start).map(str::to_owned));
        assert!(line.is_some(), "{rung:?}: no line {start:?}: {text}");
        line.unwrap_or_default()
    };
    assert_ne!(
        value("standing on "),
        value("host-standing on "),
        "{rung:?}: the host's own terminal\n{text}"
    );
    assert_eq!(value("before "), value("after "), "{rung:?}: settings\n{text}");
    let left = text.split("left:\n").nth(1).unwrap_or_default();
    assert!(left.contains(":end") && !left.contains(TYPED), "{rung:?}: {text}");
    for line in text.lines() {
        assert!(!line.ends_with(": DONE"), "{rung:?}: {line}\n{text}");
    }
    // The legal twin: its own input is its own, where the kernel has such a call at all.
    let may =
        std::fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti").is_ok_and(|text| text.trim() == "1");
    let own = value("own: ");
    assert_eq!(own == TYPED, may, "{rung:?}: {own}\n{text}");
}

#[test]
fn beyond_a_program_at_a_terminal_types_into_its_own_alone() {
    for rung in Rung::here() {
        let dockerfile = "FROM busybox\nCOPY terminal /bin/\n";
        let Some((site, program)) = with_program(rung, dockerfile) else {
            return;
        };
        // What is looked for is found: typed by a program of the host, it is there.
        let planted = site.fixture.at_a_terminal(&watched(
            &program,
            &format!("{program} type '{TYPED}' >/dev/null"),
        ));
        let shown = planted.run().stdout_text();
        let left = shown.split("left:").nth(1).unwrap_or_default();
        assert!(left.contains(TYPED), "{rung:?}: {shown}");
        let build = site.fixture.build().args(rung.argument());
        build.arg("--tag=app:1").ok();
        let before = site.fixture.residue();
        // In raw mode, with a terminal of another size, and left so.
        let run = format!(
            "{RBUILD} {} run --rm -it app:1 sh -c \"stty raw cols 7; stty -raw; terminal attack '{TYPED}'; stty raw -echo; exit 5\"",
            rung.argument().unwrap_or_default()
        );
        let ran = site.fixture.at_a_terminal(&watched(&program, &run)).run();
        assert_nothing_typed(rung, &ran);
        assert!(ran.stdout_text().contains("code 5"), "{rung:?}: {ran}");
        site.fixture.assert_clean_since(&before);
    }
}

#[test]
fn beyond_the_shell_of_a_failed_step_types_into_its_own_terminal_alone() {
    for rung in Rung::here() {
        let dockerfile = "FROM busybox\nCOPY terminal /bin/\nRUN exit 7\n";
        let Some((site, program)) = with_program(rung, dockerfile) else {
            return;
        };
        let build = format!(
            "{RBUILD} build {} {} --on-error=shell {}",
            rung.argument().unwrap_or_default(),
            busybox_argument("busybox"),
            site.fixture.context.dir().display()
        );
        let typed = format!("terminal attack '{TYPED}'; exit\n");
        let before = site.fixture.residue();
        let ran = site
            .fixture
            .at_a_terminal(&watched(&program, &build))
            .stdin(typed)
            .run();
        assert_nothing_typed(rung, &ran);
        assert!(ran.stdout_text().contains("exit code: 7"), "{rung:?}: {ran}");
        site.fixture.assert_clean_since(&before);
    }
}

#[test]
fn row44_what_a_step_prints_steers_no_screen_of_progress_on_any_rung() {
    /// What the drawing of progress itself says to a terminal (`crates/ui/src/progress/tty.rs`).
    const OURS: [&str; 6] = [
        "\u{1b}[?25l",
        "\u{1b}[?7l",
        "\u{1b}[J",
        "\u{1b}[?7h",
        "\u{1b}[?25h",
        "\u{1b}[2K",
    ];
    for rung in Rung::here() {
        let site = Site::on(
            rung,
            &format!(
                "FROM busybox\nRUN printf '{PRINTED}'; echo visible; sleep 1\nRUN printf '{PRINTED}'; exit 3\n"
            ),
        );
        let build = format!(
            "stty cols 120 rows 40; {RBUILD} build --progress=tty --no-cache {} {} {}",
            rung.argument().unwrap_or_default(),
            busybox_argument("busybox"),
            site.fixture.context.dir().display()
        );
        let ran = site.fixture.at_a_terminal(&build).fails();
        let mut text = ran.stdout_text().replace('\r', "");
        assert!(text.contains(OURS[0]), "{rung:?}: progress was drawn\n{text:?}");
        for part in OURS {
            text = text.replace(part, "");
        }
        let parts: Vec<&str> = text.split("\u{1b}[").collect();
        let without_up: String = parts
            .iter()
            .enumerate()
            .map(|(at, part)| match part.find(|c: char| !c.is_ascii_digit()) {
                // The cursor goes up.
                Some(end) if at > 0 && end > 0 && part[end..].starts_with('A') => part[end + 1..].to_owned(),
                _ if at > 0 => format!("\u{1b}[{part}"),
                _ => (*part).to_owned(),
            })
            .collect();
        assert_eq!(steering(&without_up), [""; 0], "{rung:?}: {without_up:?}");
        for twin in ["visible", "red"] {
            assert!(text.contains(twin), "{rung:?}: the twin: {twin}\n{text:?}");
        }
        site.canary.assert_untouched();
    }
}
