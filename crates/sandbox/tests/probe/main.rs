//! A program for the sandbox's tests: the hidden mode, and a caller of it that can be killed or be another user.
//!
//! `sandbox-probe bench PLAN.json N` prints how long N steps take, and N bare starts of the host program `PROBE_BARE`.
//! `sandbox-probe run PLAN.json` runs a plan; output goes to its own, the outcome to the last line of standard error.
//! `sandbox-probe join PLAN.json` has its process join a sandbox whose first process sleeps at a terminal.
//! `sandbox-probe connect NAME` tells whether a listener at an abstract socket, and one made by itself, can be reached.
//! `sandbox-probe host SCRIPT` has a program of the host run a script, on no rung.
//! `PROBE_RUNG` names the rung of the ladder to stand on. Without root rights it enters a user namespace first, as rbuild does.
#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "a test program that reports to its tests")]

use std::process::ExitCode;

use rbuild_sandbox::{ExitStatus, Plan, Process, Sandbox, Stdio, TerminalSize};

fn main() -> ExitCode {
    rbuild_sandbox::init_if_requested();
    match run() {
        Ok(code) => code,
        Err(error) => {
            let mut text = error.to_string();
            let mut next = error.source();
            while let Some(source) = next {
                text = format!("{text}: {source}");
                next = source.source();
            }
            eprintln!("probe: error: {text}");
            ExitCode::from(125)
        }
    }
}

fn connect(name: &[u8]) -> Result<ExitCode, Box<dyn std::error::Error>> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    let own = SocketAddr::from_abstract_name([name, b"-own"].concat())?;
    let _listener = UnixListener::bind_addr(&own)?;
    for address in [own, SocketAddr::from_abstract_name(name)?] {
        match UnixStream::connect_addr(&address) {
            Ok(_) => eprintln!("reached"),
            Err(error) => eprintln!("{:?}", error.kind()),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    let mode = args.next().unwrap_or_default();
    if mode == "connect" {
        return connect(args.next().unwrap_or_default().as_encoded_bytes());
    }
    if mode == "host" {
        let script = args.next().unwrap_or_default();
        let sandbox = Sandbox::new()?;
        let mut command = sandbox.host_command("sh");
        let status = command
            .arg("-c")
            .arg(script)
            .env("PATH", "/usr/bin:/bin")
            .status()?;
        return Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(255))?));
    }
    if mode != "run" && mode != "bench" && mode != "join" {
        return Err("usage: sandbox-probe run PLAN.json | join PLAN.json | bench PLAN.json N".into());
    }
    let plan: Plan = serde_json::from_slice(&std::fs::read(args.next().unwrap_or_default())?)?;
    let wanted = std::env::var("PROBE_RUNG").ok();
    let wanted = wanted
        .and_then(|name| rbuild_sys::userns::Choice::parse(&name))
        .unwrap_or_default();
    let rung = rbuild_sys::userns::enter(wanted)?.rung;
    eprintln!("probe: {rung:?}");
    if mode == "bench" {
        return bench(&plan, args.next().unwrap_or_default().to_string_lossy().parse()?);
    }
    let sandbox = Sandbox::new()?;
    let (mut home, mut entered) = (None, None);
    let running = if mode == "join" {
        let mut first = plan.clone();
        first.process = Process::new(["sleep", "600"].map(Into::into).to_vec());
        first.process.env.clone_from(&plan.process.env);
        first.process.stdio = Stdio::Terminal(TerminalSize::default());
        let sleeper = home.insert(sandbox.spawn(&first, &[])?);
        let Some(ready) = sleeper.ready() else {
            return Err(sleeper.wait().err().map_or("it ended".into(), Into::into));
        };
        if ready.terminal.is_none() {
            return Err("there is no terminal".into());
        }
        // The terminal is there as long as somebody holds this end of it.
        let ready = entered.insert(ready);
        sandbox.join(&ready.entrance, &plan.process, &[])?
    } else {
        sandbox.spawn(&plan, &[])?
    };
    let relay = |from: Option<Box<dyn std::io::Read + Send>>, to: fn() -> Box<dyn std::io::Write>| {
        std::thread::spawn(move || from.map(|mut from| std::io::copy(&mut from, &mut to())))
    };
    let stdout = running.take_stdout().map(|pipe| Box::new(pipe) as _);
    let stderr = running.take_stderr().map(|pipe| Box::new(pipe) as _);
    let relays = [
        relay(stdout, || Box::new(std::io::stdout())),
        relay(stderr, || Box::new(std::io::stderr())),
    ];
    let exit = running.wait()?;
    for thread in relays {
        if thread.join().is_err() {
            return Err("a relay panicked".into());
        }
    }
    eprintln!("probe: {exit:?}");
    Ok(match exit.status {
        ExitStatus::Code(code) => ExitCode::from(u8::try_from(code)?),
        ExitStatus::Signal(signal) => ExitCode::from(u8::try_from(128 + signal)?),
    })
}

fn bench(plan: &Plan, rounds: usize) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let sandbox = Sandbox::new()?;
    let bare = std::env::var_os("PROBE_BARE").unwrap_or_else(|| "/bin/true".into());
    let (mut steps, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let start = std::time::Instant::now();
        let exit = sandbox.spawn(plan, &[])?.wait()?;
        steps.push(start.elapsed());
        if exit.status != ExitStatus::Code(0) {
            return Err(format!("{exit:?}").into());
        }
        let start = std::time::Instant::now();
        std::process::Command::new(&bare).env_clear().status()?;
        starts.push(start.elapsed());
    }
    for (name, times) in [("step", &mut steps), ("bare", &mut starts)] {
        times.sort();
        eprintln!(
            "{name}: min {:?} median {:?} p90 {:?}",
            times[0],
            times[rounds / 2],
            times[rounds * 9 / 10]
        );
    }
    Ok(ExitCode::SUCCESS)
}
