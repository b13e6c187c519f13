//! Values of `buildkitd.toml` that are written in several ways (`cmd/buildkitd/config/gcpolicy.go`).

use std::fmt;
use std::time::Duration;

use rbuild_server::gc::Space;
use rbuild_ui::units::parse_size;
use rbuild_ui::values::scalar::parse_duration;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// An amount of disk: bytes, `"512MB"`, or `"10%"` of the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DiskSpace(pub(crate) Space);

/// A time: seconds, or `"48h"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Duration);

/// How a value is read from a number and from a text.
trait Written: Sized {
    const EXPECTED: &'static str;
    fn of_number(number: u64) -> Self;
    fn of_text(text: &str) -> Option<Self>;
}

impl Written for DiskSpace {
    const EXPECTED: &'static str = "a number of bytes, a size such as \"512MB\", or a part such as \"10%\"";

    fn of_number(number: u64) -> Self {
        Self(Space::Bytes(number))
    }

    fn of_text(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let space = match text.strip_suffix('%') {
            Some(part) => Space::Percent(part.parse().ok().filter(|part| *part <= 100)?),
            None => Space::Bytes(parse_size(text).ok()?),
        };
        Some(Self(space))
    }
}

impl Written for Time {
    const EXPECTED: &'static str = "a number of seconds, or a duration such as \"48h\"";

    fn of_number(number: u64) -> Self {
        Self(Duration::from_secs(number))
    }

    fn of_text(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let seconds = || text.parse().ok().map(Duration::from_secs);
        parse_duration(text).or_else(seconds).map(Self)
    }
}

struct Reader<T>(std::marker::PhantomData<T>);

impl<T: Written> Visitor<'_> for Reader<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        let number = u64::try_from(number);
        number
            .map(T::of_number)
            .map_err(|_negative| E::custom(format_args!("not {}", T::EXPECTED)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::of_text(text).ok_or_else(|| E::custom(format_args!("{text:?} is not {}", T::EXPECTED)))
    }
}

impl<'de> Deserialize<'de> for DiskSpace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader(std::marker::PhantomData))
    }
}
