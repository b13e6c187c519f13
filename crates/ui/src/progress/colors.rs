//! Colours of the live view and `BUILDKIT_COLORS` (`util/progress/progressui/colors.go`):
//! `run=green:warning=yellow:error=1,2,3:cancel=light-red`.

use std::fmt::Write as _;

/// Parameters of the SGR sequences for each kind of row; empty for no colour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Colors {
    /// Completed rows.
    pub run: String,
    /// Stopped rows and warnings.
    pub cancel: String,
    /// Warnings that stand alone.
    pub warning: String,
    /// Failed rows.
    pub error: String,
    /// Output of steps.
    pub log: String,
}

/// What `BUILDKIT_COLORS` holds that cannot be used; it is left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use {0:?} of BUILDKIT_COLORS")]
pub struct ColorsWarning(pub String);

impl Default for Colors {
    fn default() -> Self {
        let of = |code: &str| code.to_owned();
        Self {
            run: of("34"),
            cancel: of("33"),
            warning: of("33"),
            error: of("31"),
            log: of("2"),
        }
    }
}

impl Colors {
    /// No colour at all (`NO_COLOR`).
    #[must_use]
    pub const fn none() -> Self {
        Self {
            run: String::new(),
            cancel: String::new(),
            warning: String::new(),
            error: String::new(),
            log: String::new(),
        }
    }

    /// The default with what `text` changes, and what in `text` means nothing.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<ColorsWarning>) {
        let mut colors = Self::default();
        let mut warnings = Vec::new();
        for field in text.split(':').filter(|field| !field.is_empty()) {
            let understood = field.split_once('=').and_then(|(key, value)| {
                let code = named(value).or_else(|| rgb(value))?;
                let slot = match key.to_lowercase().as_str() {
                    "run" => &mut colors.run,
                    "cancel" => &mut colors.cancel,
                    "warning" => &mut colors.warning,
                    "error" => &mut colors.error,
                    _ => return None,
                };
                *slot = code;
                Some(())
            });
            if understood.is_none() {
                warnings.push(ColorsWarning(field.to_owned()));
            }
        }
        (colors, warnings)
    }
}

/// `text` in the colour of `code`.
pub(super) fn paint(out: &mut String, code: &str, text: &str) {
    if code.is_empty() {
        out.push_str(text);
    } else {
        // Writing to a String cannot fail.
        let _infallible = write!(out, "\x1b[{code}m{text}\x1b[0m");
    }
}

fn named(name: &str) -> Option<String> {
    let name = name.to_lowercase();
    let (base, name) = match name.strip_prefix("light-") {
        Some(name) => (90, name),
        None if name == "default" => return Some("39".to_owned()),
        None => (30, name.as_str()),
    };
    let names = [
        "black", "red", "green", "yellow", "blue", "magenta", "cyan", "white",
    ];
    let index = names.iter().position(|&known| known == name)?;
    Some((base + index).to_string())
}

/// `r,g,b` as the nearest of the 6×6×6 colours.
fn rgb(text: &str) -> Option<String> {
    let parts: Vec<u8> = text
        .split(',')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    let [red, green, blue] = parts.try_into().ok()?;
    let cube = 16 + u16::from(red / 43) * 36 + u16::from(green / 43) * 6 + u16::from(blue / 43);
    Some(format!("38;5;{cube}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment() {
        let (colors, warnings) = Colors::parse("run=green:ERROR=light-red:cancel=255,0,128:warning=default");
        assert_eq!(warnings, []);
        assert_eq!(
            (
                colors.run.as_str(),
                colors.error.as_str(),
                colors.cancel.as_str(),
                colors.warning.as_str()
            ),
            ("32", "91", "38;5;198", "39")
        );
        let (colors, warnings) = Colors::parse("run=mauve:x=red:error:cancel=1,2:warning=256,0,0");
        assert_eq!(colors, Colors::default());
        assert_eq!(warnings.len(), 5);
    }

    #[test]
    fn no_colour_is_no_sequence() {
        let mut out = String::new();
        paint(&mut out, &Colors::none().run, "x");
        paint(&mut out, &Colors::default().run, "y");
        assert_eq!(out, "x\x1b[34my\x1b[0m");
    }
}
