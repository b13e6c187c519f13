//! What piles up, what is gathered, and who waits for whom.

use std::time::SystemTime;

use super::*;
use crate::progress::testing;

fn log(number: usize, size: usize) -> Event {
    let mut data = vec![b'x'; size];
    data.extend_from_slice(format!("{number}\n").as_bytes());
    Event::Log(VertexLog {
        vertex: Digest::sha256(b"v"),
        stream: Stream::Stdout,
        data,
        timestamp: SystemTime::UNIX_EPOCH,
    })
}

fn status(current: u64) -> Event {
    testing::status("v", "s", (current, 0), 0.0, 0.0, false)
}

fn drain(queue: &Queue) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let batch = queue.take(Duration::ZERO);
        events.extend(batch.events);
        if batch.ended {
            return events;
        }
    }
}

fn numbers(events: &[Event]) -> Vec<String> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Log(log) => Some(
                String::from_utf8_lossy(&log.data)
                    .trim_matches(['x', '\n'])
                    .to_owned(),
            ),
            _ => None,
        })
        .collect()
}

#[test]
fn output_that_piles_up_is_kept_outside_of_memory_and_in_order() {
    let queue = Queue::new(&std::env::temp_dir());
    for number in 0..200 {
        queue.send(log(number, 64 * 1024));
    }
    let state = queue.lock();
    assert!(state.memory_bytes <= MEMORY_BYTES);
    assert!(state.spool.is_some());
    drop(state);
    queue.close();
    let expected: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    assert_eq!(numbers(&drain(&queue)), expected);
    assert_eq!(
        queue.lock().spool.as_ref().map(|spool| spool.end),
        Some(0),
        "the file is given back"
    );
}

fn byte(stream: Stream) -> Event {
    Event::Log(VertexLog {
        vertex: Digest::sha256(b"v"),
        stream,
        data: vec![b'x'],
        timestamp: SystemTime::UNIX_EPOCH,
    })
}

fn bytes(events: &[Event]) -> usize {
    let length = |event: &Event| match event {
        Event::Log(log) => log.data.len(),
        _ => 0,
    };
    events.iter().map(length).sum()
}

#[test]
fn output_byte_by_byte_takes_no_more_memory_than_in_one_piece() {
    for directory in [std::env::temp_dir(), "/proc/self/nowhere".into()] {
        let queue = Queue::new(&directory);
        let (count, piece) = (MEMORY_BYTES + 100_000, byte(Stream::Stdout));
        for _ in 0..count {
            queue.send(piece.clone());
        }
        let entries = queue.lock().entries.len();
        assert!(entries <= COALESCE_FROM + count / JOINED_BYTES + 2, "{entries}");
        queue.close();
        assert_eq!(bytes(&drain(&queue)), count);
    }
}

#[test]
fn a_sender_waits_where_too_much_has_piled_up_and_nothing_is_lost() {
    let small = |entries, spool_bytes| Queue {
        limits: Limits { entries, spool_bytes },
        ..Queue::new(&std::env::temp_dir())
    };
    let many: fn(usize) -> Event = |number| match number % 2 {
        0 => byte(Stream::Stdout),
        _ => byte(Stream::Stderr),
    };
    let large: fn(usize) -> Event = |number| log(number, 64 * 1024);
    for (queue, event, count) in [
        (small(2000, u64::MAX), many, 10_000),
        (small(usize::MAX, 1 << 20), large, 100),
    ] {
        let (queue, sent) = (Arc::new(queue), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
        let (to, done) = (Arc::clone(&queue), Arc::clone(&sent));
        let sender = std::thread::spawn(move || {
            for number in 0..count {
                to.send(event(number));
                done.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
            to.close();
        });
        std::thread::sleep(Duration::from_millis(300));
        let first = sent.load(std::sync::atomic::Ordering::SeqCst);
        assert!(first < count, "it did not wait");
        let mut events = Vec::new();
        loop {
            let batch = queue.take(Duration::from_millis(50));
            events.extend(batch.events);
            if batch.ended {
                break;
            }
        }
        sender.join().unwrap();
        let all: usize = (0..count).map(|number| bytes(&[event(number)])).sum();
        assert_eq!(bytes(&events), all);
    }
}

#[test]
fn without_a_place_for_a_file_memory_is_used() {
    let queue = Queue::new(Path::new("/proc/self/nowhere"));
    for number in 0..40 {
        queue.send(log(number, 64 * 1024));
    }
    assert!(queue.lock().spool_failed);
    queue.close();
    assert_eq!(numbers(&drain(&queue)).len(), 40);
}

#[test]
fn statuses_that_pile_up_are_replaced_by_the_newest() {
    let queue = Queue::new(&std::env::temp_dir());
    for current in 0..100_000 {
        queue.send(status(current));
    }
    assert!(queue.lock().entries.len() <= COALESCE_FROM);
    queue.close();
    let events = drain(&queue);
    assert!(matches!(events.last(), Some(Event::Status(status)) if status.current == 99_999));
}

#[test]
fn few_events_are_gathered_and_many_or_the_end_are_not_waited_for() {
    let queue = Arc::new(Queue::new(&std::env::temp_dir()));
    let from = Arc::clone(&queue);
    let taker = std::thread::spawn(move || {
        let first = from.take(Duration::from_secs(60)).events.len();
        let second = from.take(Duration::from_secs(60)).events.len();
        (first, second, from.take(Duration::from_secs(60)).ended)
    });
    while !queue.lock().is_awaited {
        std::thread::yield_now();
    }
    let start = std::time::Instant::now();
    for number in 0..3 {
        queue.send(log(number, 0));
    }
    while !queue.lock().is_awaited {
        std::thread::yield_now();
    }
    assert!(start.elapsed() >= GATHERED, "{:?}", start.elapsed());
    for number in 0..BATCH_EVENTS {
        queue.send(log(number, 0));
    }
    while queue.lock().taken < 3 + BATCH_EVENTS as u64 {
        std::thread::yield_now();
    }
    queue.send(log(0, 0));
    queue.close();
    let (first, second, ended) = taker.join().unwrap();
    assert_eq!((first, second, ended), (3, BATCH_EVENTS, true));
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "the end was waited for"
    );
}

#[test]
fn an_abandoned_queue_takes_no_more() {
    let queue = Queue::new(&std::env::temp_dir());
    queue.send(status(1));
    queue.abandon();
    queue.send(status(2));
    assert!(queue.lock().entries.is_empty());
}
