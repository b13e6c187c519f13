//! `cargo xtask chart`: `benches/chart.svg`, the README's picture of the latest result of each case of `cargo xtask bench`. Bars
//! of a case are drawn to the longest of them, and each says its time: one scale for all would show the slowest case only.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::shell;

const WIDTH: f64 = 760.0;
/// Where bars begin, and what stands behind the longest.
const LEFT: f64 = 90.0;
const RIGHT: f64 = 190.0;
const BAR: f64 = 14.0;
const GAP: f64 = 4.0;
const TITLE: f64 = 24.0;
/// Cases of the design's table, in its order; those of moby/buildkit-bench would make the picture too long.
const CASES: [&str; 8] = [
    "nothing-changed",
    "cold",
    "fifty-steps",
    "sixteen-stages",
    "copy-cold",
    "copy-nothing-changed",
    "copy-one-changed",
    "copy-large",
];
/// A word of each tool's version, its name, and the class of its bar.
const TOOLS: [(&str, &str, &str); 4] = [
    ("rbuild", "rbuild", "us"),
    ("buildkit", "BuildKit", "them"),
    ("docker", "dockerd 20.10", "them"),
    ("buildah", "buildah", "them"),
];

/// One case, drawn.
struct Case {
    about: String,
    date: String,
    /// Name, class and milliseconds: median, least and most.
    bars: Vec<(&'static str, &'static str, [f64; 3])>,
}

/// Draws.
pub(crate) fn run() -> Result<()> {
    let dir = shell::root()?.join("benches");
    let mut latest: BTreeMap<String, (String, Value)> = BTreeMap::new();
    for entry in fs::read_dir(dir.join("results"))? {
        let path = entry?.path();
        let Some(text) =
            (path.extension().is_some_and(|end| end == "json")).then(|| fs::read_to_string(&path))
        else {
            continue;
        };
        let record: Value = serde_json::from_str(&text?).with_context(|| path.display().to_string())?;
        let Some((case, date)) = record["case"].as_str().zip(record["machine"]["date"].as_str()) else {
            continue;
        };
        let (case, date) = (case.to_owned(), date.to_owned());
        if latest.get(&case).is_none_or(|(before, _)| *before < date) {
            latest.insert(case, (date, record));
        }
    }
    let cases: Vec<Case> = CASES
        .iter()
        .filter_map(|name| latest.get(*name))
        .map(|(date, record)| read(date, record))
        .collect();
    ensure!(!cases.is_empty(), "no results: `cargo xtask bench` makes them");
    let path = dir.join("chart.svg");
    fs::write(&path, draw(&cases))?;
    println!("written: {}", path.display());
    Ok(())
}

fn read(date: &str, record: &Value) -> Case {
    let results = record["results"].as_array().map_or(&[][..], Vec::as_slice);
    let times = |word: &str| {
        let of_tool = |result: &&Value| {
            let version = result["tool"].as_str().unwrap_or_default();
            version
                .split(['/', ' '])
                .any(|part| part.eq_ignore_ascii_case(word))
        };
        let samples = results.iter().find(of_tool)?["wall_ms"].as_array()?;
        let mut samples: Vec<f64> = samples.iter().filter_map(Value::as_f64).collect();
        samples.sort_by(f64::total_cmp);
        let (least, most) = samples.first().zip(samples.last())?;
        Some([samples[samples.len() / 2], *least, *most])
    };
    let bars = TOOLS
        .iter()
        .filter_map(|(word, name, class)| Some((*name, *class, times(word)?)));
    Case {
        about: record["about"].as_str().unwrap_or_default().to_owned(),
        date: date.to_owned(),
        bars: bars.collect(),
    }
}

fn draw(cases: &[Case]) -> String {
    let mut body = String::new();
    let mut y = 6.0;
    for case in cases {
        let longest = case
            .bars
            .iter()
            .map(|(.., [median, ..])| *median)
            .fold(f64::MIN_POSITIVE, f64::max);
        y += TITLE;
        let title = format!("{} ({})", case.about, case.date);
        text(&mut body, 0.0, y - 8.0, "title", &title);
        for (name, class, [median, least, most]) in &case.bars {
            let width = (median / longest * (WIDTH - LEFT - RIGHT)).max(1.0);
            text(&mut body, 0.0, y + BAR - 3.0, "name", name);
            rect(&mut body, y, width, class);
            let label = format!("{} ({}\u{2013}{})", time(*median), time(*least), time(*most));
            text(&mut body, LEFT + width + 6.0, y + BAR - 3.0, "name", &label);
            y += BAR + GAP;
        }
    }
    let height = y + 6.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>Time of whole builds: rbuild, BuildKit, buildah and dockerd</title>\n<style>\n\
         text {{ font: 12px sans-serif; fill: #24292f; }} .title {{ font-weight: bold; }}\n\
         .us {{ fill: #1f6feb; }} .them {{ fill: #9aa4af; }}\n\
         @media (prefers-color-scheme: dark) {{ text {{ fill: #d0d7de; }} .them {{ fill: #6e7781; }} }}\n\
         </style>\n{body}</svg>\n"
    )
}

fn text(body: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    // Writing to a string does not fail.
    writeln!(
        body,
        "<text class=\"{class}\" x=\"{x}\" y=\"{y:.1}\">{text}</text>"
    )
    .ok();
}

fn rect(body: &mut String, y: f64, width: f64, class: &str) {
    writeln!(
        body,
        "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\"/>"
    )
    .ok();
}

fn time(ms: f64) -> String {
    if ms < 1000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.1} s", ms / 1000.0)
    }
}
