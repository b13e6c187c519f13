//! What the front end does with containers. Each sentence of what it found is one line.

use bollard_buildkit_proto::moby::buildkit::v1::frontend::exec_message::Input as Part;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    ExecMessage, ExitMessage, FdMessage, InitMessage, NewContainerRequest, ReadDirRequest, ReadFileRequest,
    ReleaseContainerRequest, ResizeMessage, SignalMessage, StatFileRequest,
};
use bollard_buildkit_proto::pb;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::{Client, input};

/// One stream of processes.
pub(crate) struct Exec {
    say: mpsc::Sender<ExecMessage>,
    hear: Streaming<ExecMessage>,
}

/// What a process did.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) out: String,
    err: String,
    exit: ExitMessage,
    /// Kinds of messages but output, in order.
    order: Vec<&'static str>,
    /// Streams that ended.
    ends: usize,
}

impl Exec {
    pub(crate) async fn open(client: &mut Client) -> Self {
        let (say, said) = mpsc::channel(16);
        let hear = client
            .exec_process(futures_util::stream::unfold(said, |mut said| async move {
                said.recv().await.map(|message| (message, said))
            }))
            .await
            .unwrap()
            .into_inner();
        Self { say, hear }
    }

    async fn send(&self, id: &str, part: Part) {
        let message = ExecMessage {
            process_id: id.to_owned(),
            input: Some(part),
        };
        self.say.send(message).await.unwrap();
    }

    async fn write(&self, id: &str, text: &str, eof: bool) {
        let data = text.as_bytes().to_vec();
        self.send(id, Part::File(FdMessage { fd: 0, eof, data })).await;
    }

    /// Until the process `id` is done, or its output contains `wanted`.
    async fn follow(&mut self, id: &str, wanted: Option<&str>) -> Done {
        let mut done = Done::default();
        while let Some(message) = self.hear.next().await {
            let message = message.unwrap();
            if message.process_id != id {
                continue;
            }
            let kind = match message.input.unwrap() {
                Part::Started(_) => "started",
                Part::File(file) => {
                    let text = String::from_utf8_lossy(&file.data).into_owned();
                    if file.fd == 1 {
                        &mut done.out
                    } else {
                        &mut done.err
                    }
                    .push_str(&text);
                    done.ends += usize::from(file.eof);
                    "file"
                }
                Part::Exit(exit) => {
                    done.exit = exit;
                    "exit"
                }
                Part::Done(_) => "done",
                _ => "other",
            };
            // Two streams end in any order.
            if kind != "file" {
                done.order.push(kind);
            }
            if kind == "done" || wanted.is_some_and(|wanted| done.out.contains(wanted)) {
                break;
            }
        }
        done
    }

    /// Runs `script` in `container` to its end.
    pub(crate) async fn run(&mut self, container: &str, id: &str, script: &str) -> Done {
        self.send(id, Part::Init(shell(container, script))).await;
        self.follow(id, None).await
    }
}

fn shell(container: &str, script: &str) -> InitMessage {
    InitMessage {
        container_id: container.to_owned(),
        meta: Some(pb::Meta {
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["PATH=/bin".to_owned()],
            ..pb::Meta::default()
        }),
        fds: vec![0, 1, 2],
        ..InitMessage::default()
    }
}

pub(crate) fn mount(dest: &str, result: &str) -> pb::Mount {
    pb::Mount {
        dest: dest.to_owned(),
        result_id: result.to_owned(),
        ..pb::Mount::default()
    }
}

pub(crate) fn container(id: &str, mounts: Vec<pb::Mount>) -> NewContainerRequest {
    NewContainerRequest {
        container_id: id.to_owned(),
        mounts,
        ..NewContainerRequest::default()
    }
}

/// Several processes, streams, signals, a terminal, files, ends.
pub(crate) async fn all(client: &mut Client) -> Result<String, String> {
    let root = input(client, "busybox").await;
    let mut lines = Vec::new();
    let request = NewContainerRequest {
        hostname: "inside".to_owned(),
        extra_hosts: vec![pb::HostIp {
            host: "far".to_owned(),
            ip: "10.1.2.3".to_owned(),
        }],
        ..container("c", vec![mount("/", &root), mount("/extra", "")])
    };
    client.new_container(request).await.unwrap();
    let mut exec = Exec::open(client).await;
    exec.send(
        "one",
        Part::Init(shell("c", "hostname; grep far /etc/hosts; echo $PATH; cat")),
    )
    .await;
    let first = exec.follow("one", Some("/bin\n")).await;
    lines.push(format!(
        "first {:?} {} {:?}",
        first.order,
        first.ends,
        first.out.replace('\t', " ")
    ));
    let second = exec
        .run(
            "c",
            "two",
            "echo err >&2; echo text > /extra/file; pidof cat; exit 0",
        )
        .await;
    lines.push(format!(
        "second {:?} {} {:?} {:?} {}",
        second.order, second.ends, second.out, second.err, second.exit.code
    ));
    files(client, &mut exec, &mut lines).await;
    exec.write("one", "through", true).await;
    let first = exec.follow("one", None).await;
    lines.push(format!(
        "first {:?} {} {:?} {}",
        first.order, first.ends, first.out, first.exit.code
    ));
    let late = exec.run("c", "late", "true").await;
    lines.push(format!(
        "late {} {}",
        late.exit.code,
        late.exit.error.unwrap().message
    ));
    let released = client.release_container(release("c")).await;
    lines.push(format!("released {}", released.is_ok()));
    lines.push(format!(
        "again {:?}",
        client.release_container(release("c")).await.unwrap_err().code()
    ));
    terminal(client, &mut exec, &root, &mut lines).await;
    Ok(lines.join("\n"))
}

fn release(id: &str) -> ReleaseContainerRequest {
    ReleaseContainerRequest {
        container_id: id.to_owned(),
    }
}

async fn files(client: &mut Client, exec: &mut Exec, lines: &mut Vec<String>) {
    let read = |index, path: &str| ReadFileRequest {
        r#ref: "c".to_owned(),
        file_path: path.to_owned(),
        mount_index: index,
        ..ReadFileRequest::default()
    };
    let file = client
        .read_file_container(read(1, "/file"))
        .await
        .unwrap()
        .into_inner();
    lines.push(format!("file {:?}", String::from_utf8(file.data).unwrap()));
    let list = ReadDirRequest {
        r#ref: "c".to_owned(),
        dir_path: "/".to_owned(),
        mount_index: 1,
        ..ReadDirRequest::default()
    };
    let list = client
        .read_dir_container(list)
        .await
        .unwrap()
        .into_inner()
        .entries;
    lines.push(format!(
        "list {:?}",
        list.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>()
    ));
    let stat = StatFileRequest {
        r#ref: "c".to_owned(),
        path: "/file".to_owned(),
        mount_index: 1,
    };
    let stat = client
        .stat_file_container(stat)
        .await
        .unwrap()
        .into_inner()
        .stat
        .unwrap();
    lines.push(format!("stat {}", stat.size));
    let made = exec
        .run("c", "special", "mknod /extra/disk b 7 0 && mknod /extra/zero c 1 5 && mkfifo /extra/pipe && ln -s /file /extra/link")
        .await;
    lines.push(format!("special files made {}", made.exit.code));
    for name in ["disk", "zero", "pipe", "link"] {
        let read = client.read_file_container(read(1, name)).await;
        lines.push(format!("read {name} {}", read.is_ok()));
    }
    for index in [2, 7, -1] {
        let missing = client.read_file_container(read(index, "/file")).await;
        lines.push(format!("mount {index} {}", missing.is_err()));
    }
}

async fn terminal(client: &mut Client, exec: &mut Exec, root: &str, lines: &mut Vec<String>) {
    client
        .new_container(container("t", vec![mount("/", root)]))
        .await
        .unwrap();
    let init = InitMessage {
        tty: true,
        ..shell(
            "t",
            "trap 'exit 9' HUP; read line; echo got $line; stty size; echo $TERM; while :; do sleep 0.1; done",
        )
    };
    exec.send("tty", Part::Init(init)).await;
    exec.follow("tty", Some("")).await;
    exec.send("tty", Part::Resize(ResizeMessage { rows: 33, cols: 44 }))
        .await;
    exec.write("tty", "it\n", false).await;
    let said = exec.follow("tty", Some("xterm")).await;
    lines.push(format!(
        "tty {} {}",
        said.out.contains("got it"),
        said.out.contains("33 44")
    ));
    let name = "HUP".to_owned();
    exec.send("tty", Part::Signal(SignalMessage { name })).await;
    let end = exec.follow("tty", None).await;
    let error = end.exit.error.unwrap();
    let detail = &error.details[0];
    lines.push(format!(
        "signal {} {:?} {} {}",
        end.exit.code,
        error.message,
        detail.type_url.rsplit('/').next().unwrap_or_default(),
        String::from_utf8_lossy(&detail.value)
    ));
    lines.push(format!(
        "released {:?}",
        client
            .release_container(release("t"))
            .await
            .unwrap_err()
            .message()
    ));
}

/// Everything that the build was not allowed, and what means nothing.
pub(crate) async fn forbidden(client: &mut Client) -> Result<String, String> {
    let root = input(client, "busybox").await;
    let mut lines = Vec::new();
    let facts = "grep -E 'Seccomp:|CapEff' /proc/self/status | tr '\\n\\t' '  '";
    for (name, network) in [("host", 1), ("odd", 7), ("negative", -1), ("none", 2)] {
        let request = NewContainerRequest {
            network,
            ..container(name, vec![mount("/", &root)])
        };
        match client.new_container(request).await {
            Err(status) => lines.push(format!("network {network}: {}", status.message())),
            Ok(_) => {
                let mut exec = Exec::open(client).await;
                let done = exec.run(name, name, "ls /sys/class/net | tr '\\n' ' '").await;
                let told = done.exit.error.map(|error| error.message);
                lines.push(format!("network {network}: {:?} {told:?}", done.out));
            }
        }
    }
    for (name, security) in [
        ("insecure", 1),
        ("odd-security", 7),
        ("negative-security", -1),
        ("plain", 0),
    ] {
        client
            .new_container(container(name, vec![mount("/", &root)]))
            .await
            .unwrap();
        let mut exec = Exec::open(client).await;
        let init = InitMessage {
            security,
            ..shell(name, facts)
        };
        exec.send(name, Part::Init(init)).await;
        let done = exec.follow(name, None).await;
        let told = done.exit.error.map(|error| error.message);
        lines.push(format!("security {security}: {:?} {told:?}", done.out.trim()));
    }
    // Joining asks too, and what is joined has the sandbox of the first.
    let mut exec = Exec::open(client).await;
    exec.send("p", Part::Init(shell("plain", "true"))).await;
    client
        .new_container(container("joined", vec![mount("/", &root)]))
        .await
        .unwrap();
    exec.send("pid1", Part::Init(shell("joined", "cat"))).await;
    let init = InitMessage {
        security: 1,
        ..shell("joined", facts)
    };
    exec.send("join", Part::Init(init)).await;
    let done = exec.follow("join", None).await;
    lines.push(format!(
        "join insecure: {:?} {:?}",
        done.out,
        done.exit.error.map(|error| error.message)
    ));
    let mut device = mount("/", &root);
    device.selector = "../../../..".to_owned();
    let escaped = client.new_container(container("escape", vec![device])).await;
    lines.push(format!(
        "selector of the root {}",
        escaped.is_err() || listed(client, "escape").await
    ));
    for (what, mounts) in [
        ("secret", vec![mount("/", &root), secret("/s")]),
        ("no root", vec![mount("/x", &root)]),
        ("strange ref", vec![mount("/", "other-build-0")]),
    ] {
        let refused = client.new_container(container(what, mounts)).await;
        lines.push(format!("{what}: {}", refused.is_err()));
    }
    let mut made = 0;
    while client
        .new_container(container(&format!("n{made}"), vec![mount("/", &root)]))
        .await
        .is_ok()
    {
        made += 1;
    }
    lines.push(format!("bounded {}", (10..100).contains(&made)));
    Ok(lines.join("\n"))
}

/// Whether a container shows its own root and not the host's.
async fn listed(client: &mut Client, id: &str) -> bool {
    let mut exec = Exec::open(client).await;
    let done = exec
        .run(id, id, "test -e /bin/busybox && test ! -e /home && echo own")
        .await;
    done.out == "own\n"
}

fn secret(dest: &str) -> pb::Mount {
    pb::Mount {
        mount_type: pb::MountType::Secret.into(),
        secret_opt: Some(pb::SecretOpt {
            id: "nobody-gave-this".to_owned(),
            ..pb::SecretOpt::default()
        }),
        ..mount(dest, "")
    }
}

/// Leaves everything running.
pub(crate) async fn leave(client: &mut Client) -> Result<String, String> {
    let root = input(client, "busybox").await;
    client
        .new_container(container("left", vec![mount("/", &root)]))
        .await
        .unwrap();
    let mut exec = Exec::open(client).await;
    for id in ["a", "b"] {
        exec.send(id, Part::Init(shell("left", "echo up; exec sleep 86479")))
            .await;
        exec.follow(id, Some("up")).await;
    }
    Ok("left".to_owned())
}
