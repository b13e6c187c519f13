//! The JSON is what Go's encoder makes of `client.SolveStatus`.

use super::super::testing::*;
use super::{Event, RawJson, Renderer as _};

fn shown(batches: Vec<Vec<Event>>) -> String {
    let screen = Screen::default();
    let mut raw = RawJson::new(screen.clone());
    for events in batches {
        raw.update(events, at(0.0)).unwrap();
    }
    raw.finish(at(0.0)).unwrap();
    screen.text()
}

#[test]
fn a_vertex() {
    let id = digest("a <b> & c");
    assert_eq!(
        shown(vec![vec![
            vertex("a <b> & c")
                .from(0.0)
                .to(1.5)
                .group("g", "G", true)
                .event()
        ]]),
        format!(
            "{{\"vertexes\":[{{\"digest\":\"{id}\",\"name\":\"a \\u003cb\\u003e \\u0026 c\",\
             \"started\":\"1970-01-01T00:16:40Z\",\"completed\":\"1970-01-01T00:16:41.5Z\",\
             \"progressGroup\":{{\"id\":\"g\",\"name\":\"G\",\"weak\":true}}}}]}}\n"
        )
    );
}

#[test]
fn every_kind_in_its_member() {
    let id = digest("a");
    assert_eq!(
        shown(vec![vec![
            log("a", 0.25, "hi\n"),
            vertex("a").from(0.0).cached().error("bad").missed("why").event(),
            status("a", "s", (1, 0), 0.0, 0.0, false),
        ]]),
        format!(
            "{{\"vertexes\":[{{\"digest\":\"{id}\",\"name\":\"a\",\"started\":\"1970-01-01T00:16:40Z\",\
             \"cached\":true,\"error\":\"bad\",\"missCause\":\"why\"}}],\
             \"statuses\":[{{\"id\":\"s\",\"vertex\":\"{id}\",\"current\":1,\"timestamp\":\"1970-01-01T00:16:40Z\",\
             \"started\":\"1970-01-01T00:16:40Z\"}}],\
             \"logs\":[{{\"vertex\":\"{id}\",\"stream\":1,\"data\":\"aGkK\",\
             \"timestamp\":\"1970-01-01T00:16:40.25Z\"}}]}}\n"
        )
    );
}

#[test]
fn a_warning_with_its_place() {
    let id = digest("a");
    let Event::Warning(mut warning) = warn("a", "short") else {
        unreachable!("made above")
    };
    warning.detail = vec!["more".to_owned()];
    warning.url = "https://example.test/?a=1&b=2".to_owned();
    warning.location = Some(("Dockerfile".to_owned(), vec![(1, 2)]));
    assert_eq!(
        shown(vec![vec![Event::Warning(warning)]]),
        format!(
            "{{\"warnings\":[{{\"vertex\":\"{id}\",\"level\":1,\"short\":\"c2hvcnQ=\",\"detail\":[\"bW9yZQ==\"],\
             \"url\":\"https://example.test/?a=1\\u0026b=2\",\"sourceInfo\":{{\"filename\":\"Dockerfile\"}},\
             \"range\":[{{\"start\":{{\"line\":1}},\"end\":{{\"line\":2}}}}]}}]}}\n"
        )
    );
}

#[test]
fn row44_hostile_text_is_valid_json_on_one_line() {
    let name = "a\n\x1b]0;pwn\x07\u{9b}\u{202e}\u{2028}\u{e0001}\"\\";
    let text = shown(vec![
        vec![vertex(name).from(0.0).event()],
        vec![
            log_bytes(name, 0.0, b"\xff\x1b[2J\n"),
            status(name, "s\n\x1b", (0, 0), 0.0, 0.0, true),
        ],
    ]);
    assert_eq!(text.lines().count(), 2);
    assert!(
        text.chars().all(|c| c == '\n' || !crate::text::tests::steers(c)),
        "{text:?}"
    );
    let values: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(values[0]["vertexes"][0]["name"], name);
    assert_eq!(values[1]["statuses"][0]["id"], "s\n\x1b");
}
