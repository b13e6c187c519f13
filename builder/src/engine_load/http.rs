//! Requests to an engine's API on a unix socket: hyper's HTTP/1.1, one request a connection, with a body that is made as it
//! is sent, an answer of a bounded size, and an end to every wait. Knows no engine.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream;
use http::{Method, Request, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Limited, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Largest answer that is read, bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Largest head of one, bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long an engine may be silent: it unpacks what it was sent before it answers.
const SILENCE_MAX: Duration = Duration::from_mins(15);
/// Bytes of a piece of a request's body, and pieces on their way.
const PIECE_BYTES: usize = 64 << 10;
const PIECES_MAX: usize = 4;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody listens.
    #[error("connect to {path:?}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The request is none.
    #[error("{request}")]
    Request {
        /// Method and path.
        request: String,
        /// Why.
        #[source]
        source: http::Error,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("{request}")]
    Broken {
        /// Method and path.
        request: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The answer broke off, or is too large.
    #[error("read the answer to {request}")]
    Answer {
        /// Method and path.
        request: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing came, and nothing was taken.
    #[error("{request}: no answer for {} s", .silence.as_secs())]
    Silent {
        /// Method and path.
        request: String,
        /// How long it was waited.
        silence: Duration,
    },
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// A unix socket on which somebody speaks HTTP.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    silence: Duration,
}

/// What is sent, piece by piece.
type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The far end of a request's body: what is written here is sent. Blocks where the engine takes no more.
#[derive(Debug)]
pub(super) struct BodyWriter(mpsc::Sender<Bytes>);

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
        let sent = self.0.blocking_send(Bytes::copy_from_slice(piece));
        // Whoever took it has its answer, or is gone.
        sent.map_err(|_closed| io::ErrorKind::BrokenPipe)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket {
    pub(super) const fn new(path: PathBuf) -> Self {
        let silence = SILENCE_MAX;
        Self { path, silence }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer, HttpError> {
        let empty = Empty::new().map_err(|never| match never {}).boxed_unsync();
        self.request(Method::GET, path, empty, &AtomicBool::new(false))
            .await
    }

    pub(super) async fn post_nothing(&self, path: &str) -> Result<Answer, HttpError> {
        let empty = Empty::new().map_err(|never| match never {}).boxed_unsync();
        self.request(Method::POST, path, empty, &AtomicBool::new(false))
            .await
    }

    /// Sends what `write` writes on a thread of its own. An engine that refuses may answer before it has read everything:
    /// what it says counts then. What `write` gives comes back beside it.
    pub(super) async fn post<T: Send + 'static>(
        &self,
        path: &str,
        write: impl FnOnce(BodyWriter) -> T + Send + 'static,
    ) -> (Result<Answer, HttpError>, T) {
        let (pieces, taken) = mpsc::channel(PIECES_MAX);
        let moved = Arc::new(AtomicBool::new(false));
        let moves = Arc::clone(&moved);
        let frames = stream::unfold((taken, moves), async |(mut taken, moves)| {
            let piece: Bytes = taken.recv().await?;
            moves.store(true, Ordering::Relaxed);
            Some((Ok(Frame::data(piece)), (taken, moves)))
        });
        let body = StreamBody::new(frames).boxed_unsync();
        let written = tokio::spawn(crate::ops::blocking(move || write(BodyWriter(pieces))));
        let answer = self.request(Method::POST, path, body, &moved).await;
        // The body went with its request: who still writes is told so by the next piece.
        match written.await {
            Ok(written) => (answer, written),
            Err(error) => match error.try_into_panic() {
                Ok(reason) => std::panic::resume_unwind(reason),
                // Only a runtime that is being dropped cancels work, and then nobody waits for it.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// One request. The wait goes on while `moved` is set anew.
    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Body,
        moved: &AtomicBool,
    ) -> Result<Answer, HttpError> {
        let text = format!("{method} {path}");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "engine")
            .header(header::USER_AGENT, "rbuild")
            .header(header::CONNECTION, "close")
            .header(header::CONTENT_TYPE, "application/x-tar")
            .body(body);
        let request = request.map_err(|source| HttpError::Request {
            request: text.clone(),
            source,
        })?;
        let stream = UnixStream::connect(&self.path).await;
        let stream = stream.map_err(|source| HttpError::Connect {
            path: self.path.clone(),
            source,
        })?;
        let answered = async {
            let broken = |source| HttpError::Broken {
                request: text.clone(),
                source,
            };
            let mut builder = http1::Builder::new();
            builder.max_buf_size(HEAD_BYTES_MAX);
            let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
            // Its error is the request's.
            let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
            let response = sender.send_request(request).await.map_err(broken)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|source| HttpError::Answer {
                request: text.clone(),
                source,
            })?;
            Ok(Answer {
                status: head.status.as_u16(),
                body: body.to_bytes().to_vec(),
            })
        };
        tokio::pin!(answered);
        loop {
            match tokio::time::timeout(self.silence, &mut answered).await {
                Ok(answer) => return answer,
                Err(_elapsed) if moved.swap(false, Ordering::Relaxed) => {}
                Err(_elapsed) => {
                    return Err(HttpError::Silent {
                        request: text.clone(),
                        silence: self.silence,
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    /// An engine that reads until `until` came, says `answer` and goes, or stays without a word.
    fn engine(dir: &std::path::Path, until: &'static str, answer: Vec<u8>, stays: bool) -> Socket {
        let path = dir.join("e.sock");
        // A test may have several, one after the other.
        let _none = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            // What was said last, as much as may hold the beginning of `until`.
            let (mut said, mut chunk) = (Vec::new(), vec![0; 4096]);
            while !said.windows(until.len()).any(|part| part == until.as_bytes()) {
                said.drain(..said.len().saturating_sub(until.len()));
                match peer.read(&mut chunk).await {
                    Ok(count @ 1..) => said.extend_from_slice(&chunk[..count]),
                    _ => return,
                }
            }
            // Whoever asked may be gone in the middle of a long answer.
            let _cut = peer.write_all(&answer).await;
            if stays {
                std::future::pending::<()>().await;
            }
        });
        Socket {
            path,
            silence: Duration::from_millis(300),
        }
    }

    /// Writes until nobody takes it.
    fn endless(mut to: BodyWriter) -> io::ErrorKind {
        loop {
            if let Err(error) = to.write_all(&[b'x'; PIECE_BYTES]) {
                return error.kind();
            }
        }
    }

    #[tokio::test]
    async fn answers_of_every_framing_are_read_and_others_are_errors() {
        let room = tempfile::tempdir().unwrap();
        let get = async |answer: &str| {
            let answer = answer.as_bytes().to_vec();
            let socket = engine(room.path(), "\r\n\r\n", answer, false);
            let got = socket.get("/x").await.ok()?;
            Some((got.status, String::from_utf8(got.body).unwrap()))
        };
        let ok = |body: &str| Some((200, body.to_owned()));
        assert_eq!(
            get("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab").await,
            ok("ab")
        );
        assert_eq!(get("HTTP/1.0 200 OK\r\n\r\nabc").await, ok("abc"));
        let chunked =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        assert_eq!(get(chunked).await, ok("abc"));
        assert_eq!(get("HTTP/1.1 404 Not Found\r\n\r\n").await.unwrap().0, 404);
        for bad in [
            "",
            "nonsense\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        ] {
            assert_eq!(get(bad).await, None, "{bad:?}");
        }
        let endless_head = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(2 * HEAD_BYTES_MAX));
        assert_eq!(get(&endless_head).await, None);
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(1000));
        assert_eq!(get(&many).await, None);
        let large = format!("HTTP/1.1 200 OK\r\n\r\n{}", "b".repeat(ANSWER_BYTES_MAX + 1));
        assert_eq!(get(&large).await, None, "an answer has a limit");
    }

    #[tokio::test]
    async fn a_body_is_sent_as_it_is_written() {
        let room = tempfile::tempdir().unwrap();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone".to_vec();
        let socket = engine(room.path(), "the end", answer, false);
        let (answer, written) = socket
            .post("/load", |mut to| {
                for _ in 0..50 {
                    to.write_all(&vec![b'x'; 3 * PIECE_BYTES])?;
                }
                to.write_all(b"the end")
            })
            .await;
        assert_eq!(answer.unwrap().body, b"done");
        written.unwrap();
    }

    #[tokio::test]
    async fn a_refusal_counts_before_everything_is_sent() {
        let room = tempfile::tempdir().unwrap();
        let answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno".to_vec();
        let socket = engine(room.path(), "\r\n\r\n", answer, true);
        let (answer, written) = socket.post("/load", endless).await;
        assert_eq!(answer.unwrap().status, 413);
        assert_eq!(written, io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn silence_has_an_end_and_who_still_writes_is_told() {
        let room = tempfile::tempdir().unwrap();
        let socket = engine(room.path(), "never", Vec::new(), true);
        assert!(matches!(socket.get("/x").await, Err(HttpError::Silent { .. })));
        let socket = engine(room.path(), "\r\n\r\n", Vec::new(), true);
        let (answer, written) = socket.post("/load", endless).await;
        assert!(matches!(answer, Err(HttpError::Silent { .. })));
        assert_eq!(written, io::ErrorKind::BrokenPipe);
    }
}
