//! `cargo xtask bench --scale`: how the time of a build grows with what is in it. Only of rbuild; cost that grows linearly has
//! the same time for one more at every size.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use super::cases::Case;
use super::contexts::{self, Room};
use super::measure::{spread, timed, wait_for_what_was_deleted};
use super::tools::Tool;

/// Builds timed of each size.
const RUNS: usize = 3;

/// Fills a room with so many of something.
type Fill = fn(&Room, &str, usize) -> Result<()>;

struct Growth {
    about: &'static str,
    sizes: [usize; 4],
    fill: Fill,
    /// Whether the store has been filled by the same build, and what is timed is a small one beside it.
    beside: bool,
}

/// Measures; gives the report's lines.
pub(super) fn run(program: PathBuf, base: &str) -> Result<Vec<String>> {
    let tool = Tool::rbuild(program);
    let mut lines = vec![
        format!(
            "{}\n\nMedian of {RUNS} whole builds in ms (smallest to largest), and what each one more costs between two sizes.\n",
            tool.version
        ),
        "| what grows | size | ms | ms for one more |\n|---|---|---|---|".to_owned(),
    ];
    for growth in all() {
        // The row before ended with thousands of layers.
        wait_for_what_was_deleted();
        let mut last: Option<(usize, f64)> = None;
        for size in growth.sizes {
            let (median, least, most) = spread(one(&tool, base, &growth, size)?);
            let slope = last.map_or(String::new(), |(before, ms)| {
                let more = u32::try_from(size - before).unwrap_or(u32::MAX);
                format!("{:.3}", (median - ms) / f64::from(more))
            });
            let line = format!(
                "| {} | {size} | {median:.0} ({least:.0} to {most:.0}) | {slope} |",
                growth.about
            );
            println!("{line}");
            lines.push(line);
            last = Some((size, median));
        }
    }
    Ok(lines)
}

fn all() -> Vec<Growth> {
    let growth = |about, sizes, fill: Fill| Growth {
        about,
        sizes,
        fill,
        beside: false,
    };
    vec![
        growth(
            "stages that copy a file each, and one that copies from all, cold",
            [1, 10, 100, 1000],
            contexts::copying_stages,
        ),
        growth("RUN steps in a row, cold", [1, 10, 100, 1000], contexts::steps),
        growth(
            "layers of COPY in one stage, cold",
            [1, 10, 100, 1000],
            contexts::layers,
        ),
        growth(
            "files in one COPY, cold",
            [10, 100, 1000, 10_000],
            contexts::some_files,
        ),
        Growth {
            beside: true,
            ..growth(
                "stages another build left records of; 2 stages, nothing changed",
                [1, 10, 100, 1000],
                contexts::copying_stages,
            )
        },
    ]
}

/// Times of builds of one size, ms.
fn one(tool: &Tool, base: &str, growth: &Growth, size: usize) -> Result<Vec<f64>> {
    let case = Case::cold("scale", "", |_, _| Ok(()));
    let room = Room::new(1)?;
    (growth.fill)(&room, base, size)?;
    let mut times = Vec::new();
    if growth.beside {
        timed(tool, &case, &room)?;
        fs::remove_dir_all(room.context(0))?;
        fs::create_dir(room.context(0))?;
        contexts::two_stages(&room, base)?;
        timed(tool, &case, &room)?;
    }
    for _ in 0..RUNS {
        if !growth.beside {
            tool.forget(&room)?;
        }
        times.push(timed(tool, &case, &room)?.wall_ms);
    }
    Ok(times)
}
