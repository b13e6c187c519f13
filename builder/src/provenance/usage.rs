//! How busy this machine was while a build ran (`capture-usage`): samples of `/proc/stat`, `/proc/meminfo` and
//! `/proc/pressure`, with the names of BuildKit's `executor/resources/types/systypes.go`. They are of the whole machine, as
//! BuildKit's are. What the kernel does not tell is left out, and no build fails for it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rbuild_oci::Timestamp;
use serde_json::{Map, Value as Json, json};
use tokio::task::AbortHandle;

use crate::ops::blocking;

/// Most bytes of a file of `/proc` that are read: `/proc/stat` has a line for each processor and one with each interrupt.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Time between samples, until there are [`SAMPLES_MANY`].
const INTERVAL: Duration = Duration::from_secs(2);
/// After so many intervals they are twice as long.
const SAMPLES_MANY: u32 = 20;
/// Ticks of `/proc/stat` in a second (`USER_HZ`, which is 100 on every processor).
const TICKS: f64 = 100.0;

/// Members of `cpuStat`, in the order of the numbers behind `cpu`.
const PROCESSORS: [&str; 10] = [
    "user",
    "nice",
    "system",
    "idle",
    "iowait",
    "irq",
    "softirq",
    "steal",
    "guest",
    "guestNice",
];
/// Members of `procStat`, and the words of `/proc/stat`.
const PROCESSES: [(&str, &str); 3] = [
    ("contextSwitches", "ctxt"),
    ("processCreated", "processes"),
    ("processesRunning", "procs_running"),
];
/// Members of `memoryStat`, in KiB, and the words of `/proc/meminfo`.
const MEMORY: [(&str, &str); 11] = [
    ("total", "MemTotal"),
    ("free", "MemFree"),
    ("available", "MemAvailable"),
    ("buffers", "Buffers"),
    ("cached", "Cached"),
    ("active", "Active"),
    ("inactive", "Inactive"),
    ("swap", "SwapTotal"),
    ("dirty", "Dirty"),
    ("writeback", "Writeback"),
    ("slab", "Slab"),
];
const PRESSURES: [(&str, &str); 3] = [
    ("cpuPressure", "pressure/cpu"),
    ("memoryPressure", "pressure/memory"),
    ("ioPressure", "pressure/io"),
];

/// The samples of one build, if they are wanted.
#[derive(Debug, Default)]
pub struct Usage(OnceLock<Recorder>);

#[derive(Debug)]
struct Recorder {
    kept: Arc<Mutex<Kept>>,
    task: AbortHandle,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Samples with their times since the first moment.
#[derive(Debug)]
struct Kept {
    interval: Duration,
    samples: Vec<(Duration, Json)>,
}

impl Kept {
    const fn new(interval: Duration) -> Self {
        Self {
            interval,
            samples: Vec::new(),
        }
    }

    /// Takes a sample of that time, and says how long to wait for the next.
    fn add(&mut self, at: Duration, sample: Json) -> Duration {
        self.samples.push((at, sample));
        if self.interval * SAMPLES_MANY <= at {
            self.interval *= 2;
            // Those of before stand closer together than the ones that follow would.
            let mut last = None;
            self.samples.retain(|(at, _)| {
                let far = last.is_none_or(|last| at.saturating_sub(last) >= self.interval);
                if far {
                    last = Some(*at);
                }
                far
            });
        }
        self.interval
    }
}

impl Usage {
    /// From now on, takes samples; once is enough. Has to be called where tasks can be started.
    pub fn record(&self) {
        self.record_every(INTERVAL);
    }

    fn record_every(&self, mut interval: Duration) {
        self.0.get_or_init(|| {
            let kept = Arc::new(Mutex::new(Kept::new(interval)));
            let (shared, start) = (Arc::clone(&kept), Instant::now());
            let task = tokio::spawn(async move {
                loop {
                    tokio::time::sleep(interval).await;
                    let sample = now().await;
                    let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    interval = kept.add(start.elapsed(), sample);
                }
            });
            Recorder {
                kept,
                task: task.abort_handle(),
            }
        });
    }

    /// What was recorded so far, and what is now.
    pub(super) async fn samples(&self) -> Vec<Json> {
        let mut samples = match self.0.get() {
            Some(recorder) => {
                let kept = recorder.kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.samples.iter().map(|(_, sample)| sample.clone()).collect()
            }
            None => Vec::new(),
        };
        samples.push(now().await);
        samples
    }
}

async fn now() -> Json {
    let time = crate::time::from_ms(crate::time::now_ms());
    blocking(move || sample(Path::new("/proc"), time)).await
}

/// A sample of what `proc` says.
fn sample(proc: &Path, time: Option<Timestamp>) -> Json {
    let mut sample = Map::new();
    if let Some(time) = time {
        sample.insert("timestamp".to_owned(), time.to_string().into());
    }
    if let Ok(text) = read(&proc.join("stat")) {
        if let Some(processors) = processors(&text) {
            sample.insert("cpuStat".to_owned(), processors);
        }
        sample.insert("procStat".to_owned(), counts(&text, &PROCESSES, 0));
    }
    if let Ok(text) = read(&proc.join("meminfo")) {
        sample.insert("memoryStat".to_owned(), counts(&text, &MEMORY, Json::Null));
    }
    for (member, file) in PRESSURES {
        if let Ok(text) = read(&proc.join(file)) {
            sample.insert(member.to_owned(), pressure(&text));
        }
    }
    sample.into()
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Seconds of all processors together.
fn processors(stat: &str) -> Option<Json> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks = line
        .split_whitespace()
        .map(|word| word.parse::<f64>().unwrap_or(0.0));
    let seconds = PROCESSORS.iter().zip(ticks.chain(std::iter::repeat(0.0)));
    let seconds = seconds.map(|(name, ticks)| ((*name).to_owned(), json!(ticks / TICKS)));
    Some(seconds.collect::<Map<String, Json>>().into())
}

/// The first number behind each word; `absent` where there is none.
fn counts(text: &str, members: &[(&str, &str)], absent: impl Into<Json>) -> Json {
    let absent = absent.into();
    let number = |word: &str| -> Option<u64> {
        let of_word = |line: &str| {
            let mut words = line.split_whitespace();
            let first = words.next()?;
            let found = first.strip_suffix(':').unwrap_or(first) == word;
            found.then(|| words.next()?.parse().ok()).flatten()
        };
        text.lines().find_map(of_word)
    };
    let members = members.iter().map(|(member, word)| {
        let found = number(word).map_or_else(|| absent.clone(), Json::from);
        ((*member).to_owned(), found)
    });
    members.collect::<Map<String, Json>>().into()
}

/// Lines like `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn pressure(text: &str) -> Json {
    let mut found = Map::from_iter([("some".to_owned(), Json::Null), ("full".to_owned(), Json::Null)]);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(kind) = words.next().and_then(|kind| found.get_mut(kind)) else {
            continue;
        };
        let mut values = json!({"avg10": null, "avg60": null, "avg300": null, "total": null});
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = match key {
                "total" => value.parse::<u64>().ok().map(Json::from),
                _ => value.parse::<f64>().ok().map(Json::from),
            };
            if let (Some(place), Some(value)) = (values.get_mut(key), value) {
                *place = value;
            }
        }
        *kind = values;
    }
    found.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_buildkits_members() {
        let proc = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(proc.path().join(name), text).unwrap();
        put(
            "stat",
            "cpu  150 20 3 4 5 6 7 8 9\ncpu0 1 1\nctxt 42\nbtime 9\nprocesses 7\nprocs_running 2\n",
        );
        put("meminfo", "MemTotal:       100 kB\nMemFree:  60 kB\nSlab: x\n");
        std::fs::create_dir(proc.path().join("pressure")).unwrap();
        put(
            "pressure/cpu",
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=123\nother avg10=1\n",
        );
        let found = sample(proc.path(), Timestamp::from_unix(10, 0));
        assert_eq!(found["timestamp"], "1970-01-01T00:00:10Z");
        assert_eq!(
            found["cpuStat"],
            json!({"user": 1.5, "nice": 0.2, "system": 0.03, "idle": 0.04, "iowait": 0.05, "irq": 0.06, "softirq": 0.07,
                "steal": 0.08, "guest": 0.09, "guestNice": 0.0})
        );
        assert_eq!(
            found["procStat"],
            json!({"contextSwitches": 42, "processCreated": 7, "processesRunning": 2})
        );
        assert_eq!(found["memoryStat"]["total"], 100);
        assert_eq!(found["memoryStat"]["free"], 60);
        assert!(found["memoryStat"]["slab"].is_null() && found["memoryStat"]["swap"].is_null());
        assert_eq!(
            found["cpuPressure"],
            json!({"some": {"avg10": 1.5, "avg60": 0.25, "avg300": 0.0, "total": 123}, "full": null})
        );
        assert!(found.get("ioPressure").is_none(), "not every kernel tells");
        let nothing = sample(&proc.path().join("absent"), None);
        assert_eq!(nothing, json!({}));
    }

    #[test]
    fn a_long_build_has_no_more_samples_than_twice_the_many() {
        let mut kept = Kept::new(INTERVAL);
        let mut at = Duration::ZERO;
        while at < Duration::from_hours(10) {
            at += kept.interval;
            kept.add(at, Json::Null);
            assert!(kept.samples.len() <= 2 * SAMPLES_MANY as usize);
        }
        let far = |pair: &[(Duration, Json)]| pair[1].0 - pair[0].0 >= kept.interval / 2;
        assert!(kept.samples.len() >= SAMPLES_MANY as usize / 2 && kept.samples.windows(2).all(far));
    }

    #[tokio::test]
    async fn what_was_recorded_stands_before_what_is_now() {
        let usage = Usage::default();
        assert_eq!(usage.samples().await.len(), 1);
        usage.record_every(Duration::from_millis(1));
        usage.record();
        let mut samples = Vec::new();
        while samples.len() < 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            samples = usage.samples().await;
        }
        assert!(samples[0]["memoryStat"]["total"].is_u64());
    }
}
