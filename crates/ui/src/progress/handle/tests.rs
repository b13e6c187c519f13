//! The thread: nothing is lost, and a reader that goes away is no reason to stop.

use std::sync::Mutex;

use super::super::testing::*;
use super::super::{Plain, PlainOptions};
use super::*;

fn fast() -> Cadence {
    Cadence {
        idle: Duration::from_millis(5),
        at_least: Duration::from_millis(1),
    }
}

#[test]
fn plain_loses_nothing_whatever_the_speed() {
    let screen = Screen::default();
    let plain = Plain::new(screen.clone(), PlainOptions::default());
    let handle = ProgressHandle::start(Box::new(plain), fast(), &std::env::temp_dir()).unwrap();
    let sink = handle.sink();
    sink.send(vertex("a").from(0.0).event());
    let senders: Vec<_> = (0..4)
        .map(|thread| {
            let sink = handle.sink();
            std::thread::spawn(move || {
                for number in 0..5000 {
                    sink.send(log("a", 0.0, &format!("{thread}:{number}\n")));
                }
            })
        })
        .collect();
    for sender in senders {
        sender.join().unwrap();
    }
    sink.send(vertex("a").from(0.0).to(1.0).event());
    sink.send(warn("a", "same"));
    sink.send(warn("a", "same"));
    let summary = handle.finish();
    assert_eq!(summary.warnings.len(), 1);
    assert!(summary.write_error.is_none());
    let text = screen.text();
    for thread in 0..4 {
        let prefix = format!(" {thread}:");
        let seen: Vec<u32> = text
            .lines()
            .filter_map(|line| line.split_once(&prefix)?.1.parse().ok())
            .collect();
        assert_eq!(seen, (0..5000).collect::<Vec<_>>());
    }
    sink.send(warn("a", "too late"));
}

struct Broken;

impl Renderer for Broken {
    fn update(&mut self, _events: Vec<Event>, _now: SystemTime) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn refresh(&mut self, _now: SystemTime) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, _now: SystemTime) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_went_away_stops_nothing() {
    let handle = ProgressHandle::start(Box::new(Broken), fast(), &std::env::temp_dir()).unwrap();
    let sink = handle.sink();
    for _ in 0..100_000 {
        sink.send(log("a", 0.0, "0123456789012345678901234567890123456789\n"));
    }
    sink.send(warn("a", "kept"));
    let summary = handle.finish();
    assert_eq!(
        summary.write_error.map(|error| error.kind()),
        Some(io::ErrorKind::BrokenPipe)
    );
    assert_eq!(summary.warnings.len(), 1);
}

/// Counts refreshes.
struct Counter(Arc<Mutex<u32>>);

impl Renderer for Counter {
    fn update(&mut self, _events: Vec<Event>, _now: SystemTime) -> io::Result<()> {
        Ok(())
    }

    fn refresh(&mut self, _now: SystemTime) -> io::Result<()> {
        *self.0.lock().unwrap() += 1;
        Ok(())
    }

    fn finish(&mut self, _now: SystemTime) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_view_is_refreshed_at_most_at_its_rate() {
    let count = Arc::new(Mutex::new(0));
    let handle = ProgressHandle::start(
        Box::new(Counter(Arc::clone(&count))),
        Cadence::default(),
        &std::env::temp_dir(),
    )
    .unwrap();
    let sink = handle.sink();
    let start = Instant::now();
    let refreshed = || *count.lock().unwrap() > 0;
    while start.elapsed() < Duration::from_millis(450) || !refreshed() {
        sink.send(log("a", 0.0, "x\n"));
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(handle.finish());
    let limit = u32::try_from(start.elapsed().as_millis() / 100).unwrap() + 1;
    let count = *count.lock().unwrap();
    assert!(
        (1..=limit).contains(&count),
        "{count} refreshes, at most {limit} are allowed"
    );
}

#[test]
fn rates_from_the_environment() {
    assert_eq!(Cadence::from_rate(Some("20")).at_least, Duration::from_millis(20));
    for text in [None, Some("0"), Some("x"), Some("-5")] {
        assert_eq!(Cadence::from_rate(text).idle, Duration::from_millis(150));
    }
}
