//! Clients that are wrong or gone: an error for them, nothing for the others (security rows 48 and 49).

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bollard_buildkit_proto::moby::buildkit::v1::frontend::PingRequest;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge as _;
use bollard_buildkit_proto::moby::buildkit::v1::{Exporter, SolveRequest};
use bollard_buildkit_proto::pb;
use rbuild_session::fake::FakeClient;
use tonic::{Code, Request};

use crate::bench::{Bench, dockerfile};
use crate::builds::hello;

fn llb(id: &str, definition: pb::Definition) -> SolveRequest {
    SolveRequest {
        r#ref: id.to_owned(),
        session: "none".to_owned(),
        definition: Some(definition),
        ..SolveRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_malformed_definitions_are_errors_and_others_are_built() {
    let bench = Bench::new();
    let mut cut = hello("x");
    cut.def[0].truncate(3);
    let mut swapped = hello("x");
    swapped.def.reverse();
    let lonely = pb::Definition {
        def: vec![vec![0xff; 64]],
        ..pb::Definition::default()
    };
    for (number, bad) in [cut, swapped, lonely].into_iter().enumerate() {
        let id = format!("bad{number}");
        let (bad, good) = tokio::join!(
            bench.solve(llb(&id, bad)),
            bench.solve(llb(&format!("good{number}"), hello("twin"))),
        );
        assert_eq!(bad.unwrap_err().code(), Code::Unknown, "{id}");
        good.unwrap();
    }
    assert_eq!(bench.core.builds.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_requests_for_nothing_are_named_errors() {
    let bench = Bench::new();
    let no_ref = bench.solve(SolveRequest::default()).await.unwrap_err();
    assert_eq!(no_ref.code(), Code::InvalidArgument);
    let unknown = SolveRequest {
        frontend: "evil.v0".to_owned(),
        ..llb("f", hello("x"))
    };
    let unknown = SolveRequest {
        definition: None,
        ..unknown
    };
    assert!(
        bench
            .solve(unknown)
            .await
            .unwrap_err()
            .message()
            .contains("evil.v0")
    );
    let exporter = SolveRequest {
        exporters: vec![Exporter {
            r#type: "evil".to_owned(),
            ..Exporter::default()
        }],
        ..llb("e", hello("x"))
    };
    let error = bench.solve(exporter).await.unwrap_err();
    assert!(
        error.message().contains("exporter \"evil\" could not be found"),
        "{error}"
    );
    let ping = bench.bridge.ping(Request::new(PingRequest {})).await.unwrap_err();
    assert!(ping.message().contains("no buildid found in context"), "{ping}");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_progress_of_a_refused_build_ends_with_its_refusal() {
    let bench = Bench::new();
    let refused = SolveRequest {
        exporters: vec![Exporter {
            r#type: "evil".to_owned(),
            ..Exporter::default()
        }],
        ..llb("id", hello("x"))
    };
    // Asked for while the build is refused, and when it has been.
    let (solved, beside) = tokio::join!(bench.solve(refused), bench.status("id"));
    assert!(solved.unwrap_err().message().contains("evil"));
    assert!(beside.unwrap().is_empty());
    assert!(bench.status("id").await.unwrap().is_empty());
    // The id may be used again.
    let (solved, beside) = tokio::join!(bench.solve(llb("id", hello("x"))), bench.status("id"));
    solved.unwrap();
    drop(beside.unwrap());
    let told = bench.status("id").await.unwrap();
    assert!(told.iter().any(|part| !part.vertexes.is_empty()), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_a_client_that_goes_away_ends_its_build_alone() {
    let bench = Bench::new();
    // Nothing is named, so the build waits for the front end of a client that will never speak.
    let waiting = SolveRequest {
        r#ref: "waiting".to_owned(),
        session: "none".to_owned(),
        ..SolveRequest::default()
    };
    let gone = tokio::time::timeout(Duration::from_millis(300), bench.solve(waiting)).await;
    assert!(gone.is_err(), "it waits");
    let since = Instant::now();
    while bench.core.builds.count() > 0 {
        assert!(
            since.elapsed() < Duration::from_secs(30),
            "the build goes on without its client"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.solve(llb("after", hello("twin"))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_a_session_that_never_answers_is_an_error_for_its_build_alone() {
    let bench = Bench::new();
    let context = bench.files(
        "context",
        &[("Dockerfile", "FROM scratch\nCOPY a /b\n"), ("a", "text")],
    );
    let before = left_of(bench.dir.path());
    let mute = FakeClient::new("mute")
        .header("x-buildkit-session-health-custom-timeout", "1000")
        .file_sync(|_| std::future::pending());
    let mute = mute.connect(&bench.core.sessions).await.unwrap();
    mute.freeze();
    let out = Arc::new(Mutex::new(Vec::new()));
    let _client = bench.client("s", &context, &out).await;
    let solve = |id, session| bench.solve(dockerfile(id, session, "tar", &[]));
    let (mute, absent, good) = tokio::time::timeout(Duration::from_secs(60), async {
        tokio::join!(
            solve("mute", "mute"),
            solve("absent", "absent"),
            solve("good", "s")
        )
    })
    .await
    .expect("nobody is waited for without end");
    mute.unwrap_err();
    let absent = absent.unwrap_err();
    assert!(
        absent.message().contains("no active session for absent"),
        "{absent}"
    );
    good.unwrap();
    assert!(!out.lock().unwrap().is_empty());
    assert_eq!(bench.core.builds.count(), 0);
    assert_eq!(left_of(bench.dir.path()), before);
    bench.solve(llb("after", hello("twin"))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_ten_clients_at_once_do_not_meet() {
    let bench = Bench::new();
    let context = bench.files(
        "context",
        &[("Dockerfile", "FROM scratch\nCOPY a /b\n"), ("a", "text")],
    );
    let mut clients = Vec::new();
    for number in 0..10 {
        let out = Arc::new(Mutex::new(Vec::new()));
        let client = bench.client(&format!("s{number}"), &context, &out).await;
        clients.push((client, out));
    }
    let solves = (0..10).map(|number| {
        // Every third asks for a stage there is none of.
        let target = if number % 3 == 0 { "absent" } else { "" };
        bench.solve(dockerfile(
            &format!("b{number}"),
            &format!("s{number}"),
            "tar",
            &[("target", target)],
        ))
    });
    let done = futures_util::future::join_all(solves).await;
    for (number, (outcome, (_, out))) in done.iter().zip(&clients).enumerate() {
        assert_eq!(outcome.is_err(), number % 3 == 0, "{number}: {outcome:?}");
        assert_eq!(out.lock().unwrap().is_empty(), number % 3 == 0, "{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row49_what_the_server_does_not_grant_is_refused_before_anything_runs() {
    let bench = Bench::new();
    for name in ["network.host", "security.insecure"] {
        let request = SolveRequest {
            entitlements: vec![name.to_owned()],
            ..llb(name, hello("x"))
        };
        let refused = bench.solve(request).await.unwrap_err();
        assert!(
            refused.message().contains(&format!("{name} is not allowed")),
            "{refused}"
        );
    }
    let unknown = SolveRequest {
        entitlements: vec!["everything".to_owned()],
        ..llb("u", hello("x"))
    };
    assert!(bench.solve(unknown).await.is_err());
    bench.solve(llb("twin", hello("x"))).await.unwrap();
}

/// Mounts of any process of this machine below `dir`, and processes that name it.
fn left_of(dir: &std::path::Path) -> Vec<String> {
    let mark = dir.display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let processes = processes.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    let mut left = Vec::new();
    for process in processes {
        // A process that ends meanwhile has nothing.
        let mounts = std::fs::read_to_string(process.path().join("mountinfo")).unwrap_or_default();
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&mark))
                .map(str::to_owned),
        );
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains("sleep\u{0}4242") {
            left.push(format!("{}", process.path().display()));
        }
    }
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_a_client_that_goes_away_in_a_step_leaves_nothing_mounted() {
    let Some((bench, _specs)) = crate::devices::bench(false) else {
        return;
    };
    let text = "FROM scratch\nCOPY bin /bin\nRUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t sleep 4242\n";
    let context = bench.files("context", &[("Dockerfile", text)]);
    std::fs::create_dir_all(context.join("bin")).unwrap();
    std::fs::copy("/bin/busybox", context.join("bin/busybox")).unwrap();
    for name in ["sh", "sleep"] {
        std::os::unix::fs::symlink("busybox", context.join("bin").join(name)).unwrap();
    }
    let before = left_of(bench.dir.path());
    let out = Arc::new(Mutex::new(Vec::new()));
    let client = bench.client("s", &context, &out).await;
    let since = Instant::now();
    {
        let solve = bench.solve(dockerfile("step", "s", "tar", &[]));
        tokio::pin!(solve);
        loop {
            let ended = tokio::time::timeout(Duration::from_millis(50), &mut solve).await;
            assert!(ended.is_err(), "the step goes on for an hour: {ended:?}");
            if left_of(bench.dir.path())
                .iter()
                .any(|line| line.starts_with("/proc/"))
            {
                break;
            }
            assert!(
                since.elapsed() < Duration::from_secs(60),
                "the step does not begin"
            );
        }
    }
    drop(client);
    let since = Instant::now();
    while left_of(bench.dir.path()) != before || bench.core.builds.count() > 0 {
        let left = left_of(bench.dir.path());
        assert!(since.elapsed() < Duration::from_secs(60), "{left:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bench.solve(llb("after", hello("twin"))).await.unwrap();
}
