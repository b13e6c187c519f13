//! One stream of `ExecProcess`: the processes a front end starts over it, their input, output and ends.
//!
//! Every process has its own tasks, so that one that does not read holds up nobody; what waits to be read by it is bounded.
//! When the stream ends the processes go on without input: their container ends them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::exec_message::Input as Part;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    DoneMessage, ExecMessage, ExitMessage, FdMessage, InitMessage, StartedMessage,
};
use futures_util::{Stream, StreamExt as _};
use rbuild_builder::container::{
    ContainerProcess, Input, Output, ProcessHandle, ProcessRequest, Streams, TerminalSize,
    UNKNOWN_EXIT_STATUS,
};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::Status;

use super::{Held, container_status, failure_proto};
use crate::forwarder::Forwarder;

/// What the client gets.
type Answers = mpsc::Sender<Result<ExecMessage, Status>>;

/// Messages that wait for the client.
const ANSWERS_MAX: usize = 16;
/// Processes one stream may start.
const PROCESSES_MAX: usize = 1000;
/// Most bytes of input that wait for a process.
const INPUT_BYTES_MAX: usize = 1 << 20;
/// Bytes read of an output at once.
const CHUNK_BYTES: usize = 32 << 10;

/// Serves one stream. The receiver ends when the client has said all it has to say and all processes have ended.
pub fn serve(
    forwarder: Arc<Forwarder>,
    messages: impl Stream<Item = Result<ExecMessage, Status>> + Send + Unpin + 'static,
) -> mpsc::Receiver<Result<ExecMessage, Status>> {
    let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
    let served = async move {
        let mut processes = Processes {
            forwarder,
            answers: answers.clone(),
            started: HashMap::new(),
        };
        let mut messages = messages;
        loop {
            let message = tokio::select! {
                message = messages.next() => message,
                () = answers.closed() => return,
            };
            let done = match message {
                None => return,
                Some(Ok(message)) => processes.take(message).await,
                Some(Err(status)) => Err(status),
            };
            if let Err(status) = done {
                // Nobody is there to hear it if this fails.
                answers.send(Err(status)).await.ok();
                return;
            }
        }
    };
    tokio::spawn(served);
    receiver
}

/// The processes of a stream.
struct Processes {
    forwarder: Arc<Forwarder>,
    answers: Answers,
    started: HashMap<String, Started>,
}

/// A process as its client steers it.
struct Started {
    /// `None` for one that could not be started.
    handle: Option<ProcessHandle>,
    /// `None` when it has no input, or no more.
    input: Option<InputQueue>,
}

impl Processes {
    async fn take(&mut self, message: ExecMessage) -> Result<(), Status> {
        let id = message.process_id;
        if id.is_empty() {
            return Err(Status::invalid_argument("ProcessID required"));
        }
        let unknown = || Status::not_found(format!("IO for process {id:?} not found"));
        match message.input {
            Some(Part::Init(init)) => self.start(id, init).await,
            Some(Part::File(file)) => {
                let process = self.started.get_mut(&id).ok_or_else(unknown)?;
                process.write(file).await
            }
            Some(Part::Resize(size)) => {
                let process = self.started.get(&id).ok_or_else(unknown)?;
                let cells = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
                if let Some(handle) = &process.handle {
                    handle.resize(TerminalSize {
                        rows: cells(size.rows),
                        columns: cells(size.cols),
                    });
                }
                Ok(())
            }
            Some(Part::Signal(signal)) => {
                let process = self.started.get(&id).ok_or_else(unknown)?;
                let number = signal_number(&signal.name)
                    .ok_or_else(|| Status::invalid_argument(format!("Unknown signal {}", signal.name)))?;
                if let Some(handle) = &process.handle {
                    handle.signal(number);
                }
                Ok(())
            }
            // What only this side says.
            Some(Part::Started(_) | Part::Exit(_) | Part::Done(_)) | None => Ok(()),
        }
    }

    async fn start(&mut self, id: String, init: InitMessage) -> Result<(), Status> {
        if self.started.contains_key(&id) {
            return Err(Status::already_exists(format!("Process {id} already exists")));
        }
        if self.started.len() >= PROCESSES_MAX {
            return Err(Status::resource_exhausted("too many processes on one stream"));
        }
        let container = self.forwarder.containers.find(&init.container_id);
        let container = container.ok_or_else(|| {
            Status::not_found(format!(
                "container {:?} previously released or not created",
                init.container_id
            ))
        })?;
        let wanted: HashSet<u32> = init.fds.iter().copied().collect();
        let process = match request(&container, &init) {
            Ok(request) => {
                let started = container.container.start(request).await;
                started.map_err(|error| container_status(&error))
            }
            Err(status) => Err(status),
        };
        let speaker = Speaker {
            id: id.clone(),
            answers: self.answers.clone(),
        };
        speaker.say(Part::Started(StartedMessage {})).await;
        let started = match process {
            Ok(mut process) => {
                let input = process.stdin.take().filter(|_| wanted.contains(&0));
                let started = Started {
                    handle: Some(process.handle.clone()),
                    input: input.map(InputQueue::new),
                };
                tokio::spawn(follow(speaker, process, wanted));
                started
            }
            Err(status) => {
                let error = rpc::Status {
                    code: status.code().into(),
                    message: status.message().to_owned(),
                    details: Vec::new(),
                };
                speaker.end(UNKNOWN_EXIT_STATUS, Some(error)).await;
                Started {
                    handle: None,
                    input: None,
                }
            }
        };
        self.started.insert(id, started);
        Ok(())
    }
}

fn request(container: &Held, init: &InitMessage) -> Result<ProcessRequest, Status> {
    let asked = rbuild_llb::container::process(init);
    let asked = asked.map_err(|error| Status::invalid_argument(error.to_string()))?;
    let mut meta = asked.meta;
    let mut default = |name: &str, value: &str| {
        let set = |pair: &String| pair.split_once('=').is_some_and(|(key, _)| key == name);
        if !meta.env.iter().any(set) {
            meta.env.push(format!("{name}={value}"));
        }
    };
    default("PATH", container.path);
    if init.tty {
        default("TERM", "xterm");
    }
    Ok(ProcessRequest {
        meta,
        secret_env: asked.secret_env,
        security: asked.security,
        streams: if init.tty {
            // The client tells of it once it runs (`ResizeMessage`).
            Streams::Terminal(TerminalSize::default())
        } else {
            Streams::Pipes {
                stdin: init.fds.contains(&0),
            }
        },
    })
}

impl Started {
    async fn write(&mut self, file: FdMessage) -> Result<(), Status> {
        if self.handle.is_none() {
            return Ok(());
        }
        let unavailable = || Status::out_of_range(format!("fd {} unavailable to write", file.fd));
        if file.fd != 0 {
            return Err(unavailable());
        }
        let queue = self.input.as_ref().ok_or_else(unavailable)?;
        queue.push(file.data).await;
        if file.eof {
            self.input = None;
        }
        Ok(())
    }
}

/// Input that waits for its process.
struct InputQueue {
    bytes: Arc<Semaphore>,
    chunks: mpsc::UnboundedSender<(Vec<u8>, OwnedSemaphorePermit)>,
}

impl InputQueue {
    fn new(mut input: Input) -> Self {
        let (chunks, mut queued) = mpsc::unbounded_channel::<(Vec<u8>, OwnedSemaphorePermit)>();
        let bytes = Arc::new(Semaphore::new(INPUT_BYTES_MAX));
        let limit = Arc::clone(&bytes);
        tokio::spawn(async move {
            while let Some((chunk, _permit)) = queued.recv().await {
                // A process that closed its input does not want the rest.
                if input.write_all(&chunk).await.is_err() {
                    break;
                }
            }
            limit.close();
        });
        Self { bytes, chunks }
    }

    /// Queues `chunk`; waits while there is too much already.
    async fn push(&self, chunk: Vec<u8>) {
        let weight = u32::try_from(chunk.len().min(INPUT_BYTES_MAX)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.bytes).acquire_many_owned(weight).await;
        if let Ok(permit) = permit {
            self.chunks.send((chunk, permit)).ok();
        }
    }
}

/// Says what becomes of one process.
#[derive(Clone)]
struct Speaker {
    id: String,
    answers: Answers,
}

impl Speaker {
    /// `false` when nobody listens.
    async fn say(&self, part: Part) -> bool {
        let message = ExecMessage {
            process_id: self.id.clone(),
            input: Some(part),
        };
        self.answers.send(Ok(message)).await.is_ok()
    }

    async fn end(&self, code: u32, error: Option<rpc::Status>) {
        self.say(Part::Exit(ExitMessage { code, error })).await;
        self.say(Part::Done(DoneMessage {})).await;
    }
}

/// Sends what a process writes, and then how it ended.
async fn follow(speaker: Speaker, process: ContainerProcess, wanted: HashSet<u32>) {
    let output = |fd: u32, output: Option<Output>| pump(speaker.clone(), fd, output, wanted.contains(&fd));
    tokio::join!(output(1, process.stdout), output(2, process.stderr));
    match process.handle.wait().await {
        Ok(()) => speaker.end(0, None).await,
        Err(failure) => speaker.end(failure.code, Some(failure_proto(&failure))).await,
    }
}

async fn pump(speaker: Speaker, fd: u32, output: Option<Output>, wanted: bool) {
    let mut heard = wanted;
    if let Some(mut output) = output {
        let mut buffer = vec![0; CHUNK_BYTES];
        // Read on when nobody listens: the process must not wait for that.
        while let Ok(len @ 1..) = output.read(&mut buffer).await {
            let file = FdMessage {
                fd,
                eof: false,
                data: buffer[..len].to_vec(),
            };
            heard = heard && speaker.say(Part::File(file)).await;
        }
    }
    if heard {
        let end = FdMessage {
            fd,
            eof: true,
            data: Vec::new(),
        };
        speaker.say(Part::File(end)).await;
    }
}

/// The number of a signal by its name without `SIG` (`moby/sys/signal`); those of real time are not among them.
fn signal_number(name: &str) -> Option<i32> {
    let (_, signal) = SIGNALS.iter().find(|(known, _)| *known == name)?;
    Some(signal.as_raw())
}

const SIGNALS: [(&str, Signal); 34] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("BUS", Signal::BUS),
    ("CHLD", Signal::CHILD),
    ("CLD", Signal::CHILD),
    ("CONT", Signal::CONT),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("IO", Signal::IO),
    ("IOT", Signal::ABORT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("POLL", Signal::IO),
    ("PROF", Signal::PROF),
    ("PWR", Signal::POWER),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("STKFLT", Signal::STKFLT),
    ("STOP", Signal::STOP),
    ("SYS", Signal::SYS),
    ("TERM", Signal::TERM),
    ("TRAP", Signal::TRAP),
    ("TSTP", Signal::TSTP),
    ("TTIN", Signal::TTIN),
    ("TTOU", Signal::TTOU),
    ("URG", Signal::URG),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("VTALRM", Signal::VTALARM),
    ("WINCH", Signal::WINCH),
    ("XCPU", Signal::XCPU),
    ("XFSZ", Signal::XFSZ),
];
