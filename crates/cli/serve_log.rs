//! The log of the server: few lines, as buildkitd writes them (logrus), on standard error.

use std::io::Write;
use std::time::SystemTime;

use rbuild_ui::units::rfc3339;

/// What a line is about, most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Level {
    Error,
    Warning,
    #[default]
    Info,
    Debug,
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
}

/// What is written, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ServeLog {
    pub(crate) level: Level,
    pub(crate) format: Format,
}

/// A setting of the log that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LogError {
    #[error("unsupported log type {0:?}")]
    Format(String),
    #[error("unsupported log level: not a valid logrus Level: {0:?}")]
    Level(String),
}

impl ServeLog {
    /// The log that `format` and `level` describe; empty texts mean the usual.
    pub(crate) fn new(format: &str, level: &str) -> Result<Self, LogError> {
        Ok(Self {
            format: match format {
                "" | "text" => Format::Text,
                "json" => Format::Json,
                other => return Err(LogError::Format(other.to_owned())),
            },
            level: match level.to_ascii_lowercase().as_str() {
                "panic" | "fatal" | "error" => Level::Error,
                "warn" | "warning" => Level::Warning,
                "" | "info" => Level::Info,
                "debug" | "trace" => Level::Debug,
                _ => return Err(LogError::Level(level.to_owned())),
            },
        })
    }

    /// Writes `message`, if lines of `level` are wanted.
    pub(crate) fn write(self, out: &mut dyn Write, level: Level, message: &str) {
        if level <= self.level {
            // There is no other place to complain.
            let _unwritten = writeln!(out, "{}", self.line(level, message, SystemTime::now()));
        }
    }

    fn line(self, level: Level, message: &str, now: SystemTime) -> String {
        let level = match level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
        };
        let time = rfc3339(now);
        // The same escapes serve both forms.
        let message = serde_json::Value::from(message);
        match self.format {
            Format::Text => format!("time=\"{time}\" level={level} msg={message}"),
            Format::Json => format!("{{\"level\":\"{level}\",\"msg\":{message},\"time\":\"{time}\"}}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_like_buildkitds() {
        let text = ServeLog::new("", "").unwrap();
        let time = SystemTime::UNIX_EPOCH;
        let line = text.line(Level::Info, "running \"x\"\n", time);
        assert_eq!(
            line,
            format!(
                "time=\"{}\" level=info msg=\"running \\\"x\\\"\\n\"",
                rfc3339(time)
            )
        );
        let json = ServeLog::new("json", "WARN").unwrap();
        let line = json.line(Level::Warning, "a\tb", time);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&read["level"], &read["msg"]),
            (&"warning".into(), &"a\tb".into())
        );
    }

    #[test]
    fn what_is_less_important_is_left_out() {
        let log = ServeLog::new("text", "warn").unwrap();
        let mut out = Vec::new();
        log.write(&mut out, Level::Info, "no");
        log.write(&mut out, Level::Warning, "yes");
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("yes") && !out.contains("no"), "{out}");
    }

    #[test]
    fn other_words_are_refused() {
        assert_eq!(ServeLog::new("xml", ""), Err(LogError::Format("xml".into())));
        assert_eq!(ServeLog::new("", "loud"), Err(LogError::Level("loud".into())));
    }
}
