//! Batches of events and the responses they become.

use super::*;

fn digest(name: &str) -> Digest {
    Digest::sha256(name.as_bytes())
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::new(seconds, 500)
}

fn vertex(name: &str, started: Option<u64>) -> Event {
    Event::Vertex(VertexState {
        digest: digest(name),
        inputs: vec![digest("input")],
        name: name.to_owned(),
        started: started.map(at),
        completed: None,
        cached: false,
        error: None,
        miss_cause: None,
        group: None,
    })
}

fn log(data: Vec<u8>, seconds: u64) -> Event {
    Event::Log(VertexLog {
        vertex: digest("a"),
        stream: Stream::Stderr,
        data,
        timestamp: at(seconds),
    })
}

fn warning(file: &str) -> Event {
    Event::Warning(Warning {
        vertex: digest("a"),
        level: 1,
        short: "short".into(),
        detail: vec!["one".into(), "two".into()],
        url: "https://example.com".into(),
        location: Some((file.into(), vec![(3, 4)])),
    })
}

#[test]
fn a_vertex_is_called_by_the_clients_digest() {
    let mut digests = ClientDigests::default();
    digests.insert(digest("client a"), VertexDigest(digest("a")));
    digests.insert(digest("client input"), VertexDigest(digest("input")));
    let mut writer = StatusWriter::default();
    writer.name_vertices(&digests);
    let event = Event::Vertex(VertexState {
        digest: digest("a"),
        inputs: vec![digest("input"), digest("unknown")],
        name: "[1/2] RUN x".into(),
        started: Some(at(7)),
        completed: Some(at(8)),
        cached: true,
        error: Some("context canceled".into()),
        miss_cause: Some("not for clients".into()),
        group: Some(ProgressGroup {
            id: "g".into(),
            name: "group".into(),
            weak: true,
        }),
    });
    let responses = writer.responses([event]);
    let time = |seconds| Some(Timestamp { seconds, nanos: 500 });
    let expected = api::Vertex {
        digest: digest("client a").to_string(),
        inputs: vec![digest("client input").to_string(), digest("unknown").to_string()],
        name: "[1/2] RUN x".into(),
        cached: true,
        started: time(7),
        completed: time(8),
        error: "context canceled".into(),
        progress_group: Some(pb::ProgressGroup {
            id: "g".into(),
            name: "group".into(),
            weak: true,
        }),
    };
    assert_eq!(responses.len(), 1);
    assert_eq!(responses[0].vertexes, [expected]);
}

#[test]
fn a_batch_is_one_response_in_order_of_time() {
    let status = |seconds| {
        Event::Status(VertexStatus {
            id: format!("at {seconds}"),
            vertex: digest("a"),
            current: u64::MAX,
            total: 5,
            timestamp: at(seconds),
            started: None,
            completed: Some(at(seconds)),
        })
    };
    let events = [
        vertex("b", Some(9)),
        status(2),
        vertex("a", Some(3)),
        log(b"second".to_vec(), 6),
        vertex("c", None),
        log(b"first".to_vec(), 5),
        status(1),
    ];
    let responses = StatusWriter::default().responses(events);
    let [response] = responses.as_slice() else {
        panic!("{responses:?}");
    };
    let names: Vec<&str> = response
        .vertexes
        .iter()
        .map(|vertex| vertex.name.as_str())
        .collect();
    assert_eq!(names, ["c", "a", "b"]);
    let ids: Vec<&str> = response
        .statuses
        .iter()
        .map(|status| status.id.as_str())
        .collect();
    assert_eq!(ids, ["at 1", "at 2"]);
    assert_eq!(response.statuses[0].current, i64::MAX, "no wrap around");
    assert_eq!(response.logs[0].msg, b"first");
    assert_eq!(
        (response.logs[1].stream, response.logs[1].msg.as_slice()),
        (2, &b"second"[..])
    );
}

#[test]
fn logs_are_split_at_a_mebibyte_and_nothing_is_said_twice() {
    let half = LOG_BYTES_MAX / 2;
    let events = [
        vertex("a", None),
        warning("Dockerfile"),
        log(vec![b'a'; half], 1),
        log(vec![b'b'; half], 2),
        log(vec![b'c'; 2 * LOG_BYTES_MAX], 3),
        log(Vec::new(), 4),
    ];
    let responses = StatusWriter::default().responses(events);
    let sizes: Vec<usize> = responses
        .iter()
        .map(|response| response.logs.iter().map(|log| log.msg.len()).sum())
        .collect();
    assert!(sizes.iter().all(|size| *size <= LOG_BYTES_MAX), "{sizes:?}");
    let all: Vec<u8> = responses
        .iter()
        .flat_map(|response| &response.logs)
        .flat_map(|log| log.msg.clone())
        .collect();
    let mut expected = vec![b'a'; half];
    expected.resize(2 * half, b'b');
    expected.resize(2 * half + 2 * LOG_BYTES_MAX, b'c');
    assert!(all == expected, "every byte once and in order");
    let last = responses
        .last()
        .and_then(|response| response.logs.last())
        .unwrap();
    assert_eq!(last.msg, b"", "an empty message is sent too");
    assert_eq!(
        responses
            .iter()
            .map(|response| response.vertexes.len())
            .sum::<usize>(),
        1
    );
    assert_eq!(
        responses
            .iter()
            .map(|response| response.warnings.len())
            .sum::<usize>(),
        1
    );
}

#[test]
fn nothing_is_no_response() {
    assert_eq!(StatusWriter::default().responses([]), []);
}

#[test]
fn a_warning_brings_the_text_it_is_about() {
    let mut writer = StatusWriter::default();
    writer.add_source(&SourceText {
        filename: "Dockerfile".into(),
        text: b"FROM scratch".to_vec(),
        language: "Dockerfile".into(),
        definition: None,
    });
    let responses = writer.responses([warning("Dockerfile"), warning("other")]);
    let [known, unknown] = responses[0].warnings.as_slice() else {
        panic!("{responses:?}");
    };
    let position = |line| Some(pb::Position { line, character: 0 });
    assert_eq!(
        known.ranges,
        [pb::Range {
            start: position(3),
            end: position(4)
        }]
    );
    assert_eq!(known.detail, [b"one".to_vec(), b"two".to_vec()]);
    assert_eq!((known.short.as_slice(), known.level), (&b"short"[..], 1));
    assert_eq!(known.info.as_ref().unwrap().data, b"FROM scratch");
    let unknown = unknown.info.as_ref().unwrap();
    assert_eq!(
        (unknown.filename.as_str(), unknown.data.as_slice()),
        ("other", &b""[..])
    );
}

#[test]
fn times_before_1970_count_forward_too() {
    for (time, seconds, nanos) in [
        (UNIX_EPOCH, 0, 0),
        (UNIX_EPOCH + Duration::new(1, 999_999_999), 1, 999_999_999),
        (UNIX_EPOCH - Duration::new(1, 0), -1, 0),
        (UNIX_EPOCH - Duration::new(0, 1), -1, 999_999_999),
        (UNIX_EPOCH - Duration::new(1, 250_000_000), -2, 750_000_000),
    ] {
        let stamp = timestamp(time);
        assert_eq!(stamp, Timestamp { seconds, nanos });
        assert_eq!(system_time(&stamp), Some(time));
    }
}

#[test]
fn row48_times_out_of_range_are_no_times() {
    for (seconds, nanos) in [
        (i64::MIN, 0),
        (i64::MAX, 0),
        (253_402_300_800, 0),
        (0, -1),
        (0, 1_000_000_000),
    ] {
        assert_eq!(system_time(&Timestamp { seconds, nanos }), None);
    }
    for seconds in [-62_135_596_800, 253_402_300_799] {
        assert!(system_time(&Timestamp { seconds, nanos: 1 }).is_some());
    }
}
