//! `cargo xtask bench`: rbuild against its peers, same machine, same run, same base image from one local registry.
//!
//! Each tool is a row of commands; each case says what is prepared before a timed build. Builds are timed as whole
//! processes, outputs are OCI archives. Runs of the tools alternate, so that a noisy minute hits all of them. Raw numbers go
//! to `benches/results/<date>-<case>.json`, a table of all cases to `<date>.md`.

mod cases;
mod contexts;
mod measure;
pub(crate) mod micro;
mod scale;
mod tools;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rbuild_testkit::machine;
use rbuild_testkit::peer::DockerRegistry;
use serde_json::{Value, json};

use crate::{ci, packages, shell};
use cases::Case;
use measure::{Sample, measure, spread};
use tools::Tool;

/// Runs of each case and tool.
const RUNS: usize = 5;

/// Measures.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let asked = |flag: &str| args.iter().any(|arg| arg == flag);
    if asked("--micro") && asked("--check") {
        return micro::check();
    }
    if asked("--micro") {
        return aside("micro", "Instructions of the parts of a build", &micro::run()?);
    }
    packages::for_bench()?;
    let runs = shell::flag(args, "--runs")
        .map_or(Ok(RUNS), |n| n.parse())
        .context("--runs N")?;
    let only = shell::flag(args, "--case").unwrap_or_default();
    let program = match shell::flag(args, "--rbuild") {
        Some(path) => path.into(),
        None => ci::release()?,
    };
    let registry = DockerRegistry::start()?;
    let base = publish(&registry)?;
    if asked("--scale") {
        return aside("scale", "How cost grows", &scale::run(program, &base)?);
    }
    let mut tools = vec![Tool::rbuild(program)];
    tools.extend(machine::program("buildah").map(Tool::buildah));
    if let (Some(buildctl), Some(buildkitd)) = (machine::program("buildctl"), machine::program("buildkitd")) {
        tools.push(Tool::buildkit(buildctl, buildkitd));
    }
    if let (Some(docker), Some(dockerd)) = (machine::program("docker"), machine::program("dockerd")) {
        tools.push(Tool::docker(docker, dockerd));
    }
    let without = shell::flag(args, "--without").unwrap_or_default();
    tools.retain(|tool| without.split(',').all(|name| name != tool.name));
    let machine = machine_facts(&tools)?;
    let mut table = vec![header(&machine, &tools)];
    let mut medians: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for case in Case::all().into_iter().filter(|case| case.name.contains(&only)) {
        println!("== {}: {}", case.name, case.about);
        let samples = measure(&case, &tools, &base, runs)?;
        let record = json!({
            "case": case.name,
            "about": case.about,
            "machine": machine,
            "runs": runs,
            "results": tools.iter().zip(&samples).filter(|(_, list)| !list.is_empty()).map(|(tool, list)| json!({
                "tool": tool.version,
                "command": tool.shown(),
                "wall_ms": list.iter().map(|s| s.wall_ms).collect::<Vec<_>>(),
                "cpu_ms": list.iter().map(|s| s.cpu_ms).collect::<Vec<_>>(),
                "peak_kib": list.iter().map(|s| s.peak_kib).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        });
        let name = format!(
            "{}-{}.json",
            machine["date"].as_str().unwrap_or("undated"),
            case.name
        );
        let path = results()?.join(name);
        fs::write(&path, serde_json::to_string_pretty(&record)? + "\n")?;
        let median = |list: &Vec<Sample>| match list.as_slice() {
            [] => f64::NAN,
            list => spread(list.iter().map(|sample| sample.wall_ms).collect()).0,
        };
        medians.insert(case.name, samples.iter().map(median).collect());
        let row = row(&case, &samples);
        println!("{row}");
        table.push(row);
    }
    table.extend(step_cost(&tools, &medians)?);
    for tool in &tools {
        if let Some(kib) = tool.daemon_peak_kib() {
            table.push(format!(
                "\n{}: the daemon's own peak over all cases was {} MiB.",
                tool.name,
                kib / 1024
            ));
        }
    }
    if only.is_empty() {
        let path = results()?.join(format!("{}.md", machine["date"].as_str().unwrap_or("undated")));
        fs::write(&path, table.join("\n") + "\n")?;
        println!("written: {}", path.display());
    } else {
        println!("one case alone: the table of all cases is left as it is");
    }
    Ok(())
}

/// Writes a report of its own.
fn aside(name: &str, title: &str, lines: &[String]) -> Result<()> {
    let machine = machine_facts(&[])?;
    let date = machine["date"].as_str().unwrap_or("undated");
    let text = machine["text"].as_str().unwrap_or_default();
    let path = results()?.join(format!("{date}-{name}.md"));
    let lines = lines.join("\n");
    fs::write(
        &path,
        format!("# {title}, {date}\n\n{text}\n\nCommand: `cargo xtask bench --{name}`\n\n{lines}\n"),
    )?;
    println!("written: {}", path.display());
    Ok(())
}

fn results() -> Result<std::path::PathBuf> {
    let dir = shell::root()?.join("benches/results");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// What one more RUN costs each tool, from the cases of 1 and 50 steps, beside a bare fork and exec of the same program.
fn step_cost(tools: &[Tool], medians: &BTreeMap<&str, Vec<f64>>) -> Result<Vec<String>> {
    let (Some(one), Some(fifty)) = (medians.get("one-step"), medians.get("fifty-steps")) else {
        return Ok(Vec::new());
    };
    let busybox = rbuild_testkit::base::static_busybox()?;
    let mut bare = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        ensure!(
            Command::new(&busybox).args(["sh", "-c", ":"]).status()?.success(),
            "busybox fails"
        );
        bare.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    let (median, least, most) = spread(bare);
    let mut lines = vec![format!(
        "\nOne more RUN step, from start to committed layer ((50 steps - 1 step) / 49); a bare fork and exec of the \
         same static shell takes {median:.2} ms ({least:.2} to {most:.2}, 200 runs):"
    )];
    for ((tool, one), fifty) in tools.iter().zip(one).zip(fifty) {
        lines.push(format!("- {}: {:.1} ms", tool.name, (fifty - one) / 49.0));
    }
    Ok(lines)
}

fn header(machine: &Value, tools: &[Tool]) -> String {
    let names: Vec<&str> = tools.iter().map(|tool| tool.name).collect();
    let versions: Vec<String> = tools
        .iter()
        .map(|tool| format!("- {}: {}\n  `{}`", tool.name, tool.version, tool.shown()))
        .collect();
    format!(
        "# {}\n\n{}\n\n{}\n\nMedian of whole builds in ms (smallest to largest); peak memory of the largest process in MiB.\n\n| case | {} |\n|---|{}",
        machine["date"].as_str().unwrap_or("undated"),
        machine["text"].as_str().unwrap_or_default(),
        versions.join("\n"),
        names.join(" | "),
        "---|".repeat(names.len())
    )
}

fn row(case: &Case, samples: &[Vec<Sample>]) -> String {
    let cells: Vec<String> = samples
        .iter()
        .map(|list| {
            if list.is_empty() {
                return "-".to_owned();
            }
            let (median, least, most) = spread(list.iter().map(|sample| sample.wall_ms).collect());
            let peak = list.iter().map(|sample| sample.peak_kib).max().unwrap_or(0) / 1024;
            format!("{median:.0} ({least:.0} to {most:.0}), {peak} MiB")
        })
        .collect();
    format!("| {} | {} |", case.about, cells.join(" | "))
}

fn machine_facts(tools: &[Tool]) -> Result<Value> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']).to_owned();
    let cores = std::thread::available_parallelism()?.get();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?
        .trim()
        .to_owned();
    let memory = fs::read_to_string("/proc/meminfo")?
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    let load = fs::read_to_string("/proc/loadavg")?.trim().to_owned();
    let date = shell::today()?;
    let commit = ci::commit()?;
    let text = format!(
        "{cores} cores of {model}, {memory}, Linux {kernel}, load before {load}, rbuild at {commit}."
    );
    let versions: Vec<&String> = tools.iter().map(|tool| &tool.version).collect();
    Ok(
        json!({"date": date, "cpu": model, "cores": cores, "kernel": kernel, "memory": memory, "load": load,
        "commit": commit, "tools": versions, "text": text}),
    )
}

/// Puts the busybox base into the registry; its name there.
fn publish(registry: &DockerRegistry) -> Result<String> {
    let name = format!("{}/library/busybox:latest", registry.host());
    let mut command = Command::new(machine::required("skopeo", "skopeo")?);
    command.args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]);
    command.arg(format!(
        "oci:{}:busybox",
        rbuild_testkit::base::layout()?.display()
    ));
    shell::output(command.arg(format!("docker://{name}")))?;
    Ok(name)
}
