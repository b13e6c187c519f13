//! Which renderer shows a build, and how it looks.

use std::io;

use rbuild_ui::progress::{
    Cadence, Colors, DEFAULT_LOG_LINES, Mode, Plain, PlainOptions, ProgressHandle, Quiet, RawJson, Renderer,
    Tty, TtyOptions,
};

use crate::engine::Engine;
use crate::env::Env;
use crate::terminal;

/// Size assumed when the terminal does not tell (BuildKit's).
const FALLBACK_SIZE: (usize, usize) = (80, 10);

/// Starts showing what `engine` does, and says what is wrong with where it works.
pub(crate) fn start_with(
    mode: Mode,
    phase: &str,
    engine: &dyn Engine,
    env: &mut Env,
) -> io::Result<ProgressHandle> {
    for warning in engine.warnings() {
        // A warning that cannot be written cannot be told either.
        let _unwritten = writeln!(env.stderr, "WARNING: {}", rbuild_ui::text::one_line(&warning));
    }
    start(mode, phase, engine.standing(), env)
}

/// Starts showing what happens on standard error. `phase` is the first word of the live view, `description` the first
/// line of the plain one.
pub(crate) fn start(
    mode: Mode,
    phase: &str,
    description: Option<String>,
    env: &mut Env,
) -> io::Result<ProgressHandle> {
    let renderer: Box<dyn Renderer> = match mode {
        Mode::Quiet | Mode::None => Box::new(Quiet),
        Mode::RawJson => Box::new(RawJson::new(io::stderr())),
        Mode::Tty => Box::new(tty(phase, env)),
        Mode::Auto if env.stderr_is_terminal => Box::new(tty(phase, env)),
        Mode::Plain | Mode::Auto => {
            let truncate_names = env.var("PROGRESS_NO_TRUNC").as_deref() == Some("0");
            Box::new(Plain::new(
                io::stderr(),
                PlainOptions {
                    description,
                    truncate_names,
                },
            ))
        }
    };
    let cadence = Cadence::from_rate(env.var("TTY_DISPLAY_RATE").as_deref());
    ProgressHandle::start(renderer, cadence, &env.temp_dir())
}

fn tty(phase: &str, env: &mut Env) -> Tty<io::Stderr> {
    let colors = match env.filled("NO_COLOR") {
        Some(_) => Colors::none(),
        None => {
            let (colors, unused) = Colors::parse(&env.var("BUILDKIT_COLORS").unwrap_or_default());
            for warning in unused {
                // A warning that cannot be written cannot be told either.
                let _unwritten = writeln!(env.stderr, "WARNING: {warning}");
            }
            colors
        }
    };
    let log_lines = env
        .filled("BUILDKIT_TTY_LOG_LINES")
        .and_then(|text| text.parse().ok())
        .filter(|&lines| lines > 0);
    Tty::new(
        io::stderr(),
        TtyOptions {
            phase: phase.to_owned(),
            description: None,
            colors,
            log_lines: log_lines.unwrap_or(DEFAULT_LOG_LINES),
            size: Box::new(terminal_size),
        },
    )
}

fn terminal_size() -> (usize, usize) {
    let size = terminal::size(io::stderr());
    if size.columns > 0 && size.rows > 0 {
        (size.columns.into(), size.rows.into())
    } else {
        FALLBACK_SIZE
    }
}
