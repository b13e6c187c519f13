//! Which records a client wants to see (`solver/llbsolver/history/filter.go`): their id, how they ended, what they
//! built from, when, and for how long.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::BuildHistoryRecord;
use rbuild_dockerfile::{csv, duration};
use rbuild_frontend::RemoteContext;
use rbuild_llb::progress::system_time;

use crate::filter::{Filter, FilterError};

/// Most filters in one request.
const FILTERS_MAX: usize = 64;

/// A filter of the history that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryFilterError {
    /// Not a list of fields.
    #[error(transparent)]
    Csv(#[from] csv::CsvError),
    /// A part that is no filter.
    #[error("failed to parse history filters {text}")]
    Filter {
        /// The filter.
        text: String,
        /// What is wrong with it.
        #[source]
        source: FilterError,
    },
    /// Neither a duration nor an RFC 3339 time.
    #[error("invalid time {0}")]
    Time(String),
    /// No duration.
    #[error("invalid duration {0}")]
    Duration(String),
    /// A negative number of records.
    #[error("invalid limit {0}")]
    Limit(i32),
    /// More than are read.
    #[error("too many filters")]
    TooMany,
}

/// What a record has to be: one of these.
#[derive(Debug, Default)]
pub(super) struct Wanted(Vec<Every>);

/// All of these are true of a record.
#[derive(Debug)]
struct Every {
    times: Vec<TimeTest>,
    fields: Filter,
}

#[derive(Debug)]
struct TimeTest {
    of: Clock,
    order: Order,
    /// Seconds since 1970, or nanoseconds of a duration.
    than: i64,
}

#[derive(Debug, Clone, Copy)]
enum Clock {
    Started,
    Completed,
    Lasted,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    NotBelow,
    NotAbove,
    Above,
    Below,
}

impl Wanted {
    /// Reads the filters of a request that is made at `now`.
    ///
    /// # Errors
    /// [`HistoryFilterError`].
    pub(super) fn parse(texts: &[String], now: SystemTime) -> Result<Self, HistoryFilterError> {
        if texts.len() > FILTERS_MAX {
            return Err(HistoryFilterError::TooMany);
        }
        let parsed = texts.iter().map(|text| Every::parse(text, now));
        Ok(Self(parsed.collect::<Result<_, _>>()?))
    }

    /// Whether a record is wanted.
    #[must_use]
    pub(super) fn matches(&self, record: &BuildHistoryRecord) -> bool {
        self.0.is_empty() || self.0.iter().any(|every| every.matches(record))
    }
}

impl Every {
    fn parse(text: &str, now: SystemTime) -> Result<Self, HistoryFilterError> {
        let mut times = Vec::new();
        let mut fields = Vec::new();
        for part in csv::fields(text)? {
            match TimeTest::parse(&part, now)? {
                Some(test) => times.push(test),
                None => fields.push(part),
            }
        }
        let fields = fields.join(",");
        let fields = Filter::parse(&fields).map_err(|source| HistoryFilterError::Filter {
            text: text.to_owned(),
            source,
        })?;
        Ok(Self { times, fields })
    }

    fn matches(&self, record: &BuildHistoryRecord) -> bool {
        self.times.iter().all(|test| test.matches(record))
            && self.fields.matches(|field| match field {
                "ref" => (!record.r#ref.is_empty()).then_some(Cow::Borrowed(record.r#ref.as_str())),
                "status" => Some(status(record).into()),
                "repository" => repository(record).map(Cow::Owned),
                _ => None,
            })
    }
}

impl TimeTest {
    /// `None` if it is about no time.
    fn parse(text: &str, now: SystemTime) -> Result<Option<Self>, HistoryFilterError> {
        let orders = [
            (">=", Order::NotBelow),
            ("<=", Order::NotAbove),
            (">", Order::Above),
            ("<", Order::Below),
        ];
        let found = orders
            .into_iter()
            .find_map(|(sign, order)| text.split_once(sign).map(|(name, value)| (name, order, value)));
        let Some((name, order, value)) = found else {
            return Ok(None);
        };
        let of = match name {
            "startedAt" => Clock::Started,
            "completedAt" => Clock::Completed,
            "duration" => {
                let than = duration::parse(value);
                let than = than.map_err(|_| HistoryFilterError::Duration(value.to_owned()))?;
                let of = Clock::Lasted;
                return Ok(Some(Self { of, order, than }));
            }
            _ => return Ok(None),
        };
        // So long ago, or then.
        let than = match duration::parse(value) {
            Ok(ago) => {
                let distance = Duration::from_nanos(ago.unsigned_abs());
                let then = if ago < 0 {
                    now.checked_add(distance)
                } else {
                    now.checked_sub(distance)
                };
                then.map_or(0, seconds)
            }
            Err(_) => rbuild_oci::Timestamp::parse(value)
                .map_err(|_| HistoryFilterError::Time(value.to_owned()))?
                .unix_seconds(),
        };
        Ok(Some(Self { of, order, than }))
    }

    fn matches(&self, record: &BuildHistoryRecord) -> bool {
        let time = |time: &Option<Timestamp>| time.as_ref().and_then(system_time);
        let (started, completed) = (time(&record.created_at), time(&record.completed_at));
        let value = match self.of {
            Clock::Started => started.map_or(0, seconds),
            Clock::Completed => completed.map_or(0, seconds),
            Clock::Lasted => started
                .zip(completed)
                .and_then(|(from, to)| to.duration_since(from).ok())
                .map_or(0, |lasted| i64::try_from(lasted.as_nanos()).unwrap_or(i64::MAX)),
        };
        match self.order {
            Order::NotBelow => value >= self.than,
            Order::NotAbove => value <= self.than,
            Order::Above => value > self.than,
            Order::Below => value < self.than,
        }
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn status(record: &BuildHistoryRecord) -> &'static str {
    match (&record.completed_at, &record.error) {
        (None, _) => "running",
        (Some(_), None) => "completed",
        (Some(_), Some(error)) if error.message.contains("context canceled") => "canceled",
        (Some(_), Some(_)) => "error",
    }
}

fn repository(record: &BuildHistoryRecord) -> Option<String> {
    if let Some(source) = record.frontend_attrs.get("vcs:source") {
        return Some(source.clone());
    }
    let context = record.frontend_attrs.get("context")?;
    let remote = RemoteContext::parse(context, false, false).ok()??;
    remote.source.attrs.get("git.fullurl").cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_llb::progress::timestamp;

    fn record(
        id: &str,
        attrs: &[(&str, &str)],
        started: SystemTime,
        lasted: Option<u64>,
    ) -> BuildHistoryRecord {
        let completed = lasted.map(|seconds| timestamp(started + Duration::from_secs(seconds)));
        BuildHistoryRecord {
            r#ref: id.to_owned(),
            frontend_attrs: attrs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            created_at: Some(timestamp(started)),
            completed_at: completed,
            ..BuildHistoryRecord::default()
        }
    }

    #[test]
    fn records_are_found_by_what_they_are() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let hours = |n: u64| now - Duration::from_secs(n * 3600);
        let records = [
            record("foo123", &[], hours(24), Some(60)),
            record(
                "bar456",
                &[("context", "https://github.com/user/repo.git#abcdef123")],
                hours(23),
                None,
            ),
            record("foo789", &[("vcs:source", "testrepo")], hours(22), Some(600)),
        ];
        let found = |filters: &[&str]| -> Vec<&str> {
            let filters: Vec<String> = filters.iter().map(|text| (*text).to_owned()).collect();
            let wanted = Wanted::parse(&filters, now).unwrap();
            let found = records.iter().filter(|record| wanted.matches(record));
            found.map(|record| record.r#ref.as_str()).collect()
        };
        assert_eq!(found(&["ref==foo"]), Vec::<&str>::new());
        assert_eq!(found(&["ref~=foo"]), ["foo123", "foo789"]);
        assert_eq!(found(&["repository!=testrepo"]), ["foo123", "bar456"]);
        assert_eq!(
            found(&["repository==https://github.com/user/repo.git"]),
            ["bar456"]
        );
        assert_eq!(found(&["repository!=testrepo,ref~=foo"]), ["foo123"]);
        assert_eq!(found(&["completedAt>23h"]), ["foo789"]);
        assert_eq!(found(&["startedAt<23h"]), ["foo123"]);
        assert_eq!(found(&["startedAt<=23h"]), ["foo123", "bar456"]);
        assert_eq!(found(&["duration>5m"]), ["foo789"]);
        assert_eq!(found(&["startedAt>24h,completedAt>22h"]), ["foo789"]);
        assert_eq!(
            found(&["startedAt>=23h", "completedAt>22h"]),
            ["bar456", "foo789"]
        );
        assert_eq!(
            found(&["startedAt>2020-01-01T00:00:00Z,status==running"]),
            ["bar456"]
        );
        assert_eq!(found(&[]).len(), 3);
    }

    #[test]
    fn row48_what_is_no_filter_is_refused() {
        let refuse = |text: &str| Wanted::parse(&[text.to_owned()], UNIX_EPOCH).unwrap_err();
        assert!(matches!(refuse("ref+foo"), HistoryFilterError::Filter { .. }));
        assert!(matches!(refuse("startedAt>x"), HistoryFilterError::Time(_)));
        assert!(matches!(refuse("duration<x"), HistoryFilterError::Duration(_)));
        assert!(matches!(refuse("\"a"), HistoryFilterError::Csv(_)));
        let many = vec![String::new(); FILTERS_MAX + 1];
        assert!(matches!(
            Wanted::parse(&many, UNIX_EPOCH),
            Err(HistoryFilterError::TooMany)
        ));
    }
}
