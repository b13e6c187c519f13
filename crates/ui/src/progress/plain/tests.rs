//! Byte-exact snapshots of the plain grammar.

use super::super::testing::*;
use super::*;

/// Shows batches, each at its time, and the end one second after the last.
fn shown(batches: Vec<(f64, Vec<Event>)>) -> String {
    shown_with(PlainOptions::default(), batches)
}

fn shown_with(options: PlainOptions, batches: Vec<(f64, Vec<Event>)>) -> String {
    let screen = Screen::default();
    let mut plain = Plain::new(screen.clone(), options);
    let mut last = 0.0;
    for (time, events) in batches {
        plain.update(events, at(time)).unwrap();
        plain.refresh(at(time)).unwrap();
        last = time;
    }
    plain.finish(at(last + 1.0)).unwrap();
    screen.text()
}

#[test]
fn a_vertex_that_begins_and_ends() {
    assert_eq!(
        shown(vec![
            (
                0.0,
                vec![
                    vertex("[1/2] FROM a").event(),
                    vertex("[1/2] FROM a").from(0.0).event()
                ]
            ),
            (1.0, vec![vertex("[1/2] FROM a").from(0.0).to(1.25).event()]),
            (2.0, vec![vertex("[2/2] RUN x").from(2.0).to(2.04).event()]),
        ]),
        "#1 [1/2] FROM a\n#1 DONE 1.2s\n\n#2 [2/2] RUN x\n#2 DONE 0.0s\n"
    );
}

#[test]
fn nothing_is_shown_of_what_has_not_begun() {
    assert_eq!(
        shown(vec![(0.0, vec![vertex("a").event(), vertex("b").event()])]),
        ""
    );
}

#[test]
fn the_description_is_number_zero() {
    let options = PlainOptions {
        description: Some("building rootless".to_owned()),
        truncate_names: false,
    };
    assert_eq!(
        shown_with(
            options,
            vec![(0.0, vec![vertex("a").from(0.0).to(0.0).cached().event()])]
        ),
        "#0 building rootless\n\n#1 a\n#1 CACHED\n"
    );
}

#[test]
fn cached_failed_and_stopped() {
    assert_eq!(
        shown(vec![
            (0.0, vec![vertex("a").from(0.0).to(0.1).cached().event()]),
            (
                1.0,
                vec![
                    vertex("c")
                        .from(0.1)
                        .to(1.0)
                        .error("failed: context canceled")
                        .event()
                ]
            ),
            (
                2.0,
                vec![
                    vertex("b").from(0.1).event(),
                    log("b", 0.3, "one\ntwo\n"),
                    vertex("b").from(0.1).to(2.0).error("exit code: 1").event(),
                ]
            ),
        ]),
        "#1 a\n#1 CACHED\n\n#2 c\n#2 CANCELED\n\n#3 b\n#3 0.200 one\n#3 0.200 two\n#3 ERROR: exit code: 1\n\
         ------\n > b:\n0.200 one\n0.200 two\n------\n"
    );
}

#[test]
fn only_the_last_ten_lines_of_a_failure_are_repeated() {
    let many: String = (0..15).map(|number| format!("line {number}\n")).collect();
    let text = shown(vec![(
        0.0,
        vec![
            vertex("a").from(0.0).event(),
            log("a", 0.0, &many),
            vertex("a").from(0.0).to(0.1).error("x").event(),
        ],
    )]);
    let (_, end) = text.split_once("------\n > a:\n").unwrap();
    assert_eq!(end.lines().count(), 11);
    assert!(end.starts_with("0.000 line 5\n"), "{end}");
    assert!(text.contains("#1 0.000 line 0\n"), "{text}");
}

#[test]
fn a_switch_suspends_the_current_vertex() {
    assert_eq!(
        shown(vec![
            (0.0, vec![vertex("a").from(0.0).event(), log("a", 0.0, "a1\n")]),
            (
                0.5,
                vec![
                    vertex("b").from(0.5).event(),
                    vertex("b").from(0.5).to(0.6).event()
                ]
            ),
            (0.7, vec![log("a", 0.7, "a2\n")]),
            (0.8, vec![vertex("a").from(0.0).to(0.8).event()]),
        ]),
        "#1 a\n#1 0.000 a1\n#1 ...\n\n#2 b\n#2 DONE 0.1s\n\n#1 a\n#1 0.700 a2\n#1 DONE 0.8s\n"
    );
}

#[test]
fn after_a_completed_vertex_an_open_one_is_current_again() {
    assert_eq!(
        shown(vec![
            (0.0, vec![vertex("a").from(0.0).event()]),
            (0.1, vec![vertex("b").from(0.1).to(0.2).event()]),
            (0.3, vec![]),
            (9.0, vec![vertex("a").from(0.0).to(9.0).event()]),
        ]),
        "#1 a\n#1 ...\n\n#2 b\n#2 DONE 0.1s\n\n#1 a\n#1 DONE 9.0s\n"
    );
}

#[test]
fn a_quiet_vertex_waits_its_turn_but_not_for_ever() {
    let mut batches = vec![(0.0, vec![vertex("a").from(0.0).event(), log("a", 0.0, "a\n")])];
    batches.push((
        0.1,
        vec![
            vertex("b").from(0.1).event(),
            log("b", 0.1, "b\n"),
            log("a", 0.1, "a\n"),
        ],
    ));
    for step in 1..=11 {
        let time = f64::from(step);
        batches.push((time, vec![log("a", time, "a\n"), log("a", time, "a\n")]));
    }
    let text = shown(batches);
    let switch = text.find("#1 ...\n\n#2 b\n#2 0.000 b\n").unwrap();
    let before = text[..switch].matches("#1 ").count();
    assert!(
        (10..=25).contains(&before),
        "b is shown after its ten seconds, not at once: {text}"
    );
}

#[test]
fn what_steps_say_at_once_and_without_end_is_shown_by_turns_and_not_kept() {
    let mut plain = Plain::new(Screen::default(), PlainOptions::default());
    let names = ["a", "b", "c", "d"];
    let begun = names.map(|name| vertex(name).from(0.0).event());
    plain.update(begun.to_vec(), at(0.0)).unwrap();
    let lines = "x\n".repeat(10_000);
    for batch in 1..100 {
        let time = f64::from(batch) / 1000.0;
        let said = names.map(|name| log(name, time, &lines));
        plain.update(said.to_vec(), at(time)).unwrap();
        plain.refresh(at(time)).unwrap();
        let kept: usize = plain
            .trace
            .vertices
            .iter()
            .map(|vertex| vertex.output.len())
            .sum();
        // Two pieces a line; one of them is shown each time, so that none waits for more than the others.
        assert!(kept <= 3 * 5 * 20_000, "{batch}: {kept}");
    }
}

#[test]
fn completed_vertices_come_in_the_order_they_ended() {
    assert_eq!(
        shown(vec![(
            1.0,
            vec![
                vertex("late").from(0.0).to(0.9).event(),
                vertex("early").from(0.0).to(0.3).event(),
                vertex("middle").from(0.0).to(0.5).event(),
            ]
        )]),
        "#1 early\n#1 DONE 0.3s\n\n#2 middle\n#2 DONE 0.5s\n\n#3 late\n#3 DONE 0.9s\n"
    );
}

#[test]
fn a_partial_line_goes_on_without_prefix() {
    assert_eq!(
        shown(vec![
            (0.0, vec![vertex("a").from(0.0).event(), log("a", 0.0, "one tw")]),
            (0.1, vec![log("a", 0.1, "o thr")]),
            (0.2, vec![log("a", 0.2, "ee\nfour\n")]),
            (0.3, vec![vertex("a").from(0.0).to(0.3).event()]),
        ]),
        "#1 a\n#1 0.000 one two three\n#1 0.200 four\n#1 DONE 0.3s\n"
    );
}

#[test]
fn a_partial_line_is_shown_again_after_a_switch() {
    assert_eq!(
        shown(vec![
            (0.0, vec![vertex("a").from(0.0).event(), log("a", 0.0, "half")]),
            (0.1, vec![vertex("b").from(0.1).to(0.1).event()]),
            (
                0.2,
                vec![log("a", 0.2, " line\n"), vertex("a").from(0.0).to(0.2).event()]
            ),
        ]),
        "#1 a\n#1 0.000 half\n#1 ...\n\n#2 b\n#2 DONE 0.0s\n\n#1 a\n#1 0.000 half line\n#1 DONE 0.2s\n"
    );
}

#[test]
fn a_partial_line_ends_with_its_vertex_and_is_in_the_tail() {
    assert_eq!(
        shown(vec![
            (0.0, vec![vertex("a").from(0.0).event(), log("a", 0.0, "no end")]),
            (0.1, vec![vertex("a").from(0.0).to(0.1).error("x").event()]),
        ]),
        "#1 a\n#1 0.000 no end\n#1 ERROR: x\n------\n > a:\n0.000 no end\n------\n"
    );
}

#[test]
fn a_partial_line_of_a_stopped_build_ends_the_screen_line() {
    assert_eq!(
        shown(vec![(
            0.0,
            vec![vertex("a").from(0.0).event(), log("a", 0.0, "no end")]
        )]),
        "#1 a\n#1 0.000 no end\n"
    );
}

#[test]
fn notes_do_not_join_a_partial_line() {
    assert_eq!(
        shown(vec![
            (0.0, vec![vertex("a").from(0.0).event(), log("a", 0.0, "no end")]),
            (0.1, vec![warn("a", "careful")]),
            (
                0.2,
                vec![log("a", 0.2, " yet\n"), vertex("a").from(0.0).to(0.2).event()]
            ),
        ]),
        "#1 a\n#1 0.000 no end\n#1 WARN: careful\n#1 0.000 no end yet\n#1 DONE 0.2s\n"
    );
}

#[test]
fn places_of_seconds() {
    assert_eq!(
        shown(vec![(
            200.0,
            vec![
                vertex("a").from(0.0).event(),
                log("a", 9.9994, "a\n"),
                log("a", 10.0, "b\n"),
                log("a", 99.99, "c\n"),
                log("a", 100.0, "d\n\n"),
                vertex("a").from(0.0).to(200.0).event(),
            ]
        )]),
        "#1 a\n#1 9.999 a\n#1 10.00 b\n#1 99.99 c\n#1 100.0 d\n#1 100.0 \n#1 DONE 200.0s\n"
    );
}

#[test]
fn statuses_with_sizes_and_times() {
    assert_eq!(
        shown(vec![
            (
                0.0,
                vec![
                    vertex("a").from(0.0).event(),
                    status("a", "resolve x", (0, 0), 0.0, 0.0, false)
                ]
            ),
            (0.2, vec![status("a", "resolve x", (0, 0), 0.0, 0.2, true)]),
            (
                0.3,
                vec![status("a", "sha256:ab", (1_000, 2_000_000), 0.2, 0.3, false)]
            ),
            // Less than 5 % and less than 5 s later: not shown.
            (
                0.4,
                vec![status("a", "sha256:ab", (50_000, 2_000_000), 0.2, 0.4, false)]
            ),
            (
                0.5,
                vec![status("a", "sha256:ab", (500_000, 2_000_000), 0.2, 0.5, false)]
            ),
            (
                6.0,
                vec![status("a", "sha256:ab", (500_001, 2_000_000), 0.2, 6.0, false)]
            ),
            (
                7.0,
                vec![status("a", "sha256:ab", (2_000_000, 2_000_000), 0.2, 7.0, true)]
            ),
            (
                7.1,
                vec![status("a", "transferring context: ", (512, 0), 7.1, 7.1, true)]
            ),
            (8.0, vec![vertex("a").from(0.0).to(8.0).event()]),
        ]),
        "#1 a\n#1 resolve x\n#1 resolve x 0.2s done\n#1 sha256:ab 1.00kB / 2.00MB 0.1s\n\
         #1 sha256:ab 500.00kB / 2.00MB 0.3s\n#1 sha256:ab 500.00kB / 2.00MB 5.8s\n\
         #1 sha256:ab 2.00MB / 2.00MB 6.8s done\n#1 transferring context:  512B done\n#1 DONE 8.0s\n"
    );
}

#[test]
fn a_status_that_outlives_its_vertex_does_not_hide_the_end() {
    assert_eq!(
        shown(vec![(
            1.0,
            vec![
                vertex("a").from(0.0).to(1.0).event(),
                status("a", "s", (0, 0), 0.0, 1.0, false),
            ]
        )]),
        "#1 a\n#1 s 1.0s\n#1 DONE 1.0s\n"
    );
    assert_eq!(
        shown(vec![
            (
                1.0,
                vec![
                    vertex("a").from(0.0).to(1.0).error("no route").event(),
                    status("a", "s", (0, 0), 0.0, 1.0, false),
                ]
            ),
            (2.0, vec![vertex("b").from(2.0).to(2.0).cached().event()]),
        ]),
        "#1 a\n#1 s 1.0s\n#1 ERROR: no route\n\n#2 b\n#2 CACHED\n------\n > a:\n------\n"
    );
}

#[test]
fn warnings_are_shown_once() {
    assert_eq!(
        shown(vec![
            (0.0, vec![vertex("a").from(0.0).event(), warn("a", "W1: first")]),
            (0.1, vec![warn("a", "W2: second"), log("a", 0.1, "x\n")]),
            (0.2, vec![vertex("a").from(0.0).to(0.2).event()]),
        ]),
        "#1 a\n#1 WARN: W1: first\n#1 WARN: W2: second\n#1 0.100 x\n#1 DONE 0.2s\n"
    );
}

#[test]
fn the_cause_of_a_miss_is_shown_once() {
    assert_eq!(
        shown(vec![
            (
                0.0,
                vec![vertex("a").from(0.0).missed("COPY source changed: b.txt").event()]
            ),
            (0.1, vec![log("a", 0.1, "x\n")]),
            (
                0.2,
                vec![
                    vertex("a")
                        .from(0.0)
                        .to(0.2)
                        .missed("COPY source changed: b.txt")
                        .event()
                ]
            ),
        ]),
        "#1 a\n#1 cache miss: COPY source changed: b.txt\n#1 0.100 x\n#1 DONE 0.2s\n"
    );
}

#[test]
fn times_of_a_vertex_that_ran_twice_are_added() {
    assert_eq!(
        shown(vec![
            (0.0, vec![vertex("a").from(0.0).to(1.0).event()]),
            (5.0, vec![vertex("a").from(5.0).event()]),
            (6.0, vec![vertex("a").from(5.0).to(6.5).event()]),
        ]),
        "#1 a\n#1 DONE 1.0s\n\n#1 a\n#1 DONE 2.5s\n"
    );
}

#[test]
fn a_group_is_one_vertex() {
    let member = |name: &str, weak| vertex(name).group("g", "[shared] group", weak);
    assert_eq!(
        shown(vec![
            (0.0, vec![member("weak", true).from(0.0).event()]),
            (0.5, vec![member("weak", true).from(0.0).to(0.5).event()]),
            (
                1.0,
                vec![
                    member("strong", false).from(1.0).event(),
                    log("strong", 1.0, "said\n")
                ]
            ),
            (2.0, vec![member("strong", false).from(1.0).to(2.0).event()]),
        ]),
        "#1 [shared] group\n#1 0.000 said\n#1 DONE 1.5s\n"
    );
    assert_eq!(
        shown(vec![(0.0, vec![member("weak", true).from(0.0).to(1.0).event()])]),
        ""
    );
    assert_eq!(
        shown(vec![(
            0.0,
            vec![
                member("a", false).from(0.0).to(1.0).cached().event(),
                member("b", false).from(0.0).to(1.0).cached().event()
            ]
        )]),
        "#1 [shared] group\n#1 CACHED\n"
    );
    assert_eq!(
        shown(vec![(
            0.0,
            vec![member("weak", true).from(0.0).to(1.0).error("broke").event()]
        )]),
        "#1 [shared] group\n#1 ERROR: broke\n------\n > [shared] group:\n------\n"
    );
}

#[test]
fn names_are_cut_only_when_that_is_asked_for() {
    let name = "x".repeat(80);
    let batches = || vec![(0.0, vec![vertex(&name).from(0.0).to(0.0).event()])];
    assert_eq!(shown(batches()), format!("#1 {name}\n#1 DONE 0.0s\n"));
    let options = PlainOptions {
        description: None,
        truncate_names: true,
    };
    assert_eq!(
        shown_with(options, batches()),
        format!("#1 {}...\n#1 DONE 0.0s\n", &name[..72])
    );
}

#[test]
fn what_belongs_to_no_vertex_is_not_shown() {
    assert_eq!(
        shown(vec![(
            0.0,
            vec![
                log("?", 0.0, "x\n"),
                warn("?", "x"),
                status("?", "s", (0, 0), 0.0, 0.0, true)
            ]
        )]),
        ""
    );
}

#[test]
fn row44_every_line_has_a_prefix() {
    let hostile: &[u8] = b"\x1b]0;pwn\x07\x1b]52;c;cHdu\x07\x1b[2J\x1b[?1049h\x1bP...\x1b\\\r#9 DONE\n\
        ::set-output name=x::y\n::add-mask::\n##vso[task.setvariable]x\n#7 [2/2] forged step\nno end";
    let name = "[1/1] RUN \r\n#9 DONE 0.0s\x1b[2J\u{202e}";
    let text = shown(vec![
        (
            0.0,
            vec![
                vertex(name).from(0.0).missed("a\nb").event(),
                log_bytes(name, 0.0, hostile),
            ],
        ),
        (0.1, vec![vertex("other").from(0.1).to(0.1).event()]),
        (
            0.2,
            vec![
                log_bytes(name, 0.2, b"\xff\x9b31m\r"),
                warn(name, "short\x1b[2J\n#1 x"),
            ],
        ),
        (0.3, vec![status(name, "s\r\n#9 x", (0, 0), 0.3, 0.3, true)]),
        (
            0.4,
            vec![
                vertex(name)
                    .from(0.0)
                    .to(0.4)
                    .error("404 \x1b]0;t\x07\n#3 DONE 0.0s")
                    .event(),
            ],
        ),
    ]);
    for line in text.lines().filter(|line| !line.is_empty()) {
        let known = line.starts_with("#1 ") || line.starts_with("#2 ");
        let tail = line == "------" || line.starts_with(" > [1/1]") || line.starts_with("0.");
        assert!(known || tail, "{line:?} in {text}");
    }
    assert!(
        text.chars().all(|c| c == '\n' || !crate::text::tests::steers(c)),
        "{text:?}"
    );
    assert!(
        text.contains("#1 0.000 #9 DONE\n"),
        "the forged line is output of step 1: {text}"
    );
}

#[test]
fn row44_colours_pass_and_end_with_their_line() {
    assert_eq!(
        shown(vec![(
            0.0,
            vec![
                vertex("a").from(0.0).event(),
                log("a", 0.0, "\x1b[32mgreen\n\tplain ünï\n"),
                vertex("a").from(0.0).to(0.0).event()
            ]
        )]),
        "#1 a\n#1 0.000 \x1b[32mgreen\x1b[0m\n#1 0.000 \tplain ünï\n#1 DONE 0.0s\n"
    );
}
