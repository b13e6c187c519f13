//! The client's SSH agent (`session/sshforward`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bollard_buildkit_proto::moby::sshforward::v1::{CheckAgentRequest, CheckAgentResponse};
use futures_util::Stream;
use prost::bytes::Bytes;
use tokio::io::{AsyncBufRead as _, AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;
use tokio_util::sync::PollSender;
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::MetadataMap;

use crate::call::{ANSWER_TIMEOUT, CallError};
use crate::header::put;
use crate::session::Session;
use crate::wire::BytesMessage;

const CHECK: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const FORWARD: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
const ID: &str = "buildkit.ssh.id";
/// The agent that is meant if none is named.
const DEFAULT_ID: &str = "default";
/// Bytes of one message, and messages that may wait.
const CHUNK_BYTES: usize = 32 << 10;
const QUEUE: usize = 4;

/// A connection to the client's agent. Shutting it down tells the agent that no more comes; what it answers can
/// still be read.
#[derive(Debug)]
pub struct AgentStream {
    answers: StreamReader<Answers, Bytes>,
    questions: PollSender<BytesMessage>,
    _call: AbortOnDropHandle<()>,
}

type Answer = Result<Bytes, io::Error>;

/// What the agent said, as its task passes it on.
#[derive(Debug)]
struct Answers(mpsc::Receiver<Answer>);

impl Stream for Answers {
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        self.0.poll_recv(cx)
    }
}

impl Session {
    /// Whether the client has agents at all.
    #[must_use]
    pub fn has_agents(&self) -> bool {
        self.supports(CHECK)
    }

    /// Asks whether the client has an agent of this id; an empty one means `default`.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn check_agent(&self, id: &str) -> Result<(), CallError> {
        let question = CheckAgentRequest {
            id: agent_id(id).to_owned(),
        };
        let CheckAgentResponse {} = self
            .ask(CHECK, question, MetadataMap::new(), Some(ANSWER_TIMEOUT))
            .await?;
        Ok(())
    }

    /// Opens a connection to the client's agent of this id; an empty one means `default`. That the client refuses
    /// shows when something is read.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn forward_agent(&self, id: &str) -> Result<AgentStream, CallError> {
        let mut metadata = MetadataMap::new();
        put(&mut metadata, ID, agent_id(id)).map_err(|fault| CallError::Header {
            method: FORWARD,
            fault,
        })?;
        let (questions, mut outbox) = mpsc::channel(QUEUE);
        let (inbox, answers) = mpsc::channel::<Answer>(QUEUE);
        let outward = futures_util::stream::poll_fn(move |cx| outbox.poll_recv(cx));
        let session = self.clone();
        let call = tokio::spawn(async move {
            let opened = session
                .converse::<BytesMessage, BytesMessage>(FORWARD, outward, metadata)
                .await;
            let mut stream = match opened {
                Ok(stream) => stream,
                Err(error) => {
                    inbox.send(Err(io::Error::other(error))).await.ok();
                    return;
                }
            };
            while let Some(answer) = stream.next().await.transpose() {
                let answer = answer.map(|message| message.data).map_err(io::Error::other);
                let last = answer.is_err();
                if inbox.send(answer).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(AgentStream {
            answers: StreamReader::new(Answers(answers)),
            questions: PollSender::new(questions),
            _call: AbortOnDropHandle::new(call),
        })
    }
}

fn agent_id(id: &str) -> &str {
    if id.is_empty() { DEFAULT_ID } else { id }
}

impl AsyncRead for AgentStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut answers = Pin::new(&mut self.answers);
        let available = ready!(answers.as_mut().poll_fill_buf(cx))?;
        let length = available.len().min(buf.remaining());
        buf.put_slice(&available[..length]);
        answers.consume(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for AgentStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.questions.poll_reserve(cx)).map_err(gone)?;
        let now = &buf[..buf.len().min(CHUNK_BYTES)];
        let data = Bytes::copy_from_slice(now);
        self.questions.send_item(BytesMessage { data }).map_err(gone)?;
        Poll::Ready(Ok(now.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.questions.close();
        Poll::Ready(Ok(()))
    }
}
