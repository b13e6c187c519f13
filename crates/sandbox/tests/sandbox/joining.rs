//! Several processes in one sandbox, their input, signals and terminals.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rbuild_sandbox::{Exit, ExitStatus, Process, Ready, Running, Stdio, TerminalSize};

use crate::fixture::{Fixture, sandbox};

fn shell(script: &str) -> Process {
    let mut process = Process::new(["sh", "-c", script].map(Into::into).to_vec());
    process.env = vec!["PATH=/bin".into()];
    process
}

fn output(running: &Running) -> (String, Exit) {
    let mut text = String::new();
    let mut stdout = running.take_stdout().unwrap();
    stdout.read_to_string(&mut text).unwrap();
    (text, running.wait().unwrap())
}

/// A sandbox whose first process runs `script`.
fn first(fixture: &Fixture, script: &str) -> (Running, Ready) {
    let running = sandbox().spawn(&fixture.plan(script), &[]).unwrap();
    let ready = running.ready().unwrap();
    (running, ready)
}

#[test]
fn privileged_a_process_that_joins_sees_the_same_world_and_has_the_same_rights() {
    let Some(fixture) = Fixture::new() else { return };
    let facts = "echo hi >> /tmp/shared; cat /tmp/shared | wc -l; hostname; \
                 for ns in pid mnt ipc net cgroup; do readlink /proc/self/ns/$ns; done; \
                 grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status; ls /proc/self/fd | wc -l";
    let (running, ready) = first(&fixture, &format!("{facts}; sleep 600"));
    let mut stdout = running.take_stdout().unwrap();
    let mut seen = String::new();
    while seen.lines().count() < 15 {
        let mut part = [0; 4096];
        let len = stdout.read(&mut part).unwrap();
        assert!(len > 0, "{seen}");
        seen.push_str(std::str::from_utf8(&part[..len]).unwrap());
    }
    let joined = sandbox().join(&ready.entrance, &shell(facts), &[]).unwrap();
    let (text, exit) = output(&joined);
    assert_eq!(exit.status, ExitStatus::Code(0));
    let tail = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!((seen.lines().next(), text.lines().next()), (Some("1"), Some("2")));
    assert_eq!(tail(&seen), tail(&text));
}

#[test]
fn privileged_row25_a_process_that_joins_is_not_seen_before_it_is_the_program_nor_is_its_parent() {
    let Some(fixture) = Fixture::new() else { return };
    let (_running, ready) = first(&fixture, "sleep 600");
    let script = "for d in /proc/[0-9]*; do tr '\\0' ' ' < $d/cmdline; echo; done; grep PPid /proc/$$/status; ls / /proc/1/root/";
    let (text, _) = output(&sandbox().join(&ready.entrance, &shell(script), &[]).unwrap());
    assert!(!text.contains("rbuild") && !text.contains("probe"), "{text}");
    assert!(text.contains("PPid:\t0"), "{text}");
}

#[test]
fn privileged_ready_is_who_runs_the_program_and_nobody_else() {
    let Some(fixture) = Fixture::new() else { return };
    for program in ["/bin/none", "/tmp"] {
        let mut plan = fixture.plan("");
        plan.process.args = vec![program.into()];
        let running = sandbox().spawn(&plan, &[]).unwrap();
        assert!(running.ready().is_none(), "{program}");
        let error = running.wait().unwrap_err().to_string();
        assert!(error.contains(program), "{error}");
    }
    // One that is over already did run.
    let (running, _ready) = first(&fixture, "true");
    assert_eq!(running.wait().unwrap().status, ExitStatus::Code(0));
    let mut plan = fixture.plan("");
    plan.process.args = ["sleep", "600"].map(Into::into).to_vec();
    let facts = shell("tr '\\0' ' ' < /proc/1/cmdline");
    for _ in 0..20 {
        let running = sandbox().spawn(&plan, &[]).unwrap();
        let entrance = running.ready().unwrap().entrance;
        let (text, _) = output(&sandbox().join(&entrance, &facts, &[]).unwrap());
        assert_eq!(text, "sleep 600 ");
        running.kill();
        running.wait().unwrap();
    }
}

#[test]
fn privileged_the_end_of_the_first_process_ends_all() {
    let Some(fixture) = Fixture::new() else { return };
    let (running, ready) = first(&fixture, "sleep 1");
    let joined = sandbox().join(&ready.entrance, &shell("sleep 600"), &[]).unwrap();
    let start = Instant::now();
    assert_eq!(running.wait().unwrap().status, ExitStatus::Code(0));
    assert_eq!(joined.wait().unwrap().status, ExitStatus::Signal(9));
    assert!(start.elapsed() < Duration::from_secs(30));
    let late = sandbox().join(&ready.entrance, &shell("true"), &[]).unwrap();
    assert!(late.ready().is_none());
    late.wait().unwrap_err();
}

#[test]
fn privileged_killing_or_dropping_one_that_joined_leaves_the_others() {
    let Some(fixture) = Fixture::new() else { return };
    let (running, ready) = first(&fixture, "cat; sleep 600");
    let joined = sandbox()
        .join(&ready.entrance, &shell("exec sleep 600"), &[])
        .unwrap();
    joined.kill();
    assert_eq!(joined.wait().unwrap().status, ExitStatus::Signal(9));
    drop(
        sandbox()
            .join(&ready.entrance, &shell("exec sleep 601"), &[])
            .unwrap(),
    );
    let (text, _) = output(&sandbox().join(&ready.entrance, &shell("ps"), &[]).unwrap());
    assert!(
        text.contains("sleep 600") && !text.contains("sleep 601"),
        "{text}"
    );
    running.kill();
    assert_eq!(running.wait().unwrap().status, ExitStatus::Signal(9));
}

#[test]
fn privileged_input_is_a_pipe_of_the_caller() {
    let Some(fixture) = Fixture::new() else { return };
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let mut plan = fixture.plan("cat; sleep 600");
    plan.process.stdio = Stdio::Pipes { stdin: Some(0) };
    let running = sandbox().spawn(&plan, &[read.as_fd()]).unwrap();
    drop(read);
    let ready = running.ready().unwrap();
    let mut stdout = running.take_stdout().unwrap();
    std::fs::File::from(write).write_all(b"first").unwrap();
    let mut text = [0; 5];
    stdout.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"first");
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let mut cat = shell("cat");
    cat.stdio = Stdio::Pipes { stdin: Some(0) };
    let joined = sandbox().join(&ready.entrance, &cat, &[read.as_fd()]).unwrap();
    drop(read);
    std::fs::File::from(write).write_all(b"second").unwrap();
    assert_eq!(output(&joined).0, "second");
}

#[test]
fn privileged_signals_arrive_at_their_process() {
    let Some(fixture) = Fixture::new() else { return };
    let script = "trap 'exit 99' HUP; echo up; while :; do sleep 0.1; done";
    let (running, ready) = first(&fixture, script);
    let wait_up = |running: &Running| {
        let mut up = [0; 3];
        let mut stdout = running.take_stdout().unwrap();
        stdout.read_exact(&mut up).unwrap();
        stdout
    };
    let _out = wait_up(&running);
    let joined = sandbox().join(&ready.entrance, &shell(script), &[]).unwrap();
    let _other = wait_up(&joined);
    for nonsense in [0, -1, 4096, i32::MIN] {
        joined.signal(nonsense);
    }
    joined.signal(1);
    assert_eq!(joined.wait().unwrap().status, ExitStatus::Code(99));
    running.signal(1);
    assert_eq!(running.wait().unwrap().status, ExitStatus::Code(99));
}

/// Reads the terminal until `wanted` appears in what it says.
fn expect(terminal: &OwnedFd, said: &mut String, wanted: &str) {
    let start = Instant::now();
    while !said.contains(wanted) {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "no {wanted:?} in {said:?}"
        );
        let mut part = [0; 1024];
        match rustix::io::read(terminal, &mut part) {
            Ok(len) => said.push_str(&String::from_utf8_lossy(&part[..len])),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

#[test]
fn privileged_a_terminal_controls_its_process_and_has_a_size() {
    let Some(fixture) = Fixture::new() else { return };
    let script = "tty; test -t 0 && test -t 1 && test -t 2 && echo all; read line; echo got-$line; stty size; \
                  sleep 600";
    // Asked for at once: it is there before the program is.
    let script = &format!("stty size; {script}");
    let first = TerminalSize {
        rows: 33,
        columns: 77,
    };
    let mut plan = fixture.plan(script);
    plan.process.stdio = Stdio::Terminal(first);
    plan.process.ids.uid = 1000;
    let running = sandbox().spawn(&plan, &[]).unwrap();
    let ready = running.ready().unwrap();
    let check = |terminal: OwnedFd| {
        let mut said = String::new();
        expect(&terminal, &mut said, "all");
        assert!(said.contains("33 77"), "{said}");
        assert!(said.contains("/dev/pts/"), "{said}");
        let size = rustix::termios::Winsize {
            ws_row: 40,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&terminal, size).unwrap();
        rustix::io::write(&terminal, b"it\n").unwrap();
        expect(&terminal, &mut said, "got-it");
        expect(&terminal, &mut said, "40 80");
        // ^C reaches the process by its terminal.
        rustix::io::write(&terminal, b"\x03").unwrap();
        terminal
    };
    let _first = check(ready.terminal.unwrap());
    let mut again = shell(script);
    again.stdio = Stdio::Terminal(first);
    let joined = sandbox().join(&ready.entrance, &again, &[]).unwrap();
    let _second = check(joined.ready().unwrap().terminal.unwrap());
    assert_eq!(joined.wait().unwrap().status, ExitStatus::Signal(2));
}

#[test]
fn privileged_row49_a_terminal_is_not_made_where_a_mount_took_its_place() {
    let Some(fixture) = Fixture::new() else { return };
    let mut plan = fixture.plan("true");
    plan.process.stdio = Stdio::Terminal(TerminalSize::default());
    plan.mounts.push(rbuild_sandbox::MountPlan {
        dest: "/dev/pts".into(),
        kind: rbuild_sandbox::MountKind::Tmpfs {
            size_bytes: None,
            mode: None,
        },
    });
    let running = sandbox().spawn(&plan, &[]).unwrap();
    assert!(running.ready().is_none());
    assert!(running.wait().unwrap_err().to_string().contains("terminal"));
}
