//! As much of HTTP/1.1 as an engine's API on a unix socket needs: one request a connection, with a body that is written as it is
//! made; an answer of a bounded size. Knows no engine.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Largest answer that is read, bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Longest line of a head, bytes, and most lines.
const LINE_BYTES_MAX: u64 = 8 << 10;
const LINES_MAX: usize = 200;
/// How long an engine may be silent: it unpacks what it was sent before it answers.
const SILENCE_MAX: Duration = Duration::from_mins(15);
/// Bytes of a chunk of a request's body.
const CHUNK_BYTES: usize = 64 << 10;

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
    /// The connection.
    #[error("{verb} {request}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// Method and path.
        request: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What came is no answer.
    #[error("{request}: the answer is not HTTP")]
    Malformed {
        /// Method and path.
        request: String,
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
pub(super) struct Socket(PathBuf);

/// Writes a request's body.
pub(super) type Body<'a> = &'a mut dyn FnMut(&mut dyn Write) -> io::Result<()>;

impl Socket {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn get(&self, path: &str) -> Result<Answer, HttpError> {
        self.request("GET", path, None)
    }

    pub(super) fn post(&self, path: &str, body: Body<'_>) -> Result<Answer, HttpError> {
        self.request("POST", path, Some(body))
    }

    fn request(&self, method: &str, path: &str, body: Option<Body<'_>>) -> Result<Answer, HttpError> {
        let request = format!("{method} {path}");
        let io = |verb| {
            let request = request.clone();
            move |source| HttpError::Io {
                verb,
                request,
                source,
            }
        };
        let stream = UnixStream::connect(&self.0).map_err(|source| HttpError::Connect {
            path: self.0.clone(),
            source,
        })?;
        let limited = stream
            .set_read_timeout(Some(SILENCE_MAX))
            .and_then(|()| stream.set_write_timeout(Some(SILENCE_MAX)));
        limited.map_err(io("prepare"))?;
        let sent = send(&stream, &request, body);
        let answer = read(&mut BufReader::new(&stream)).map_err(io("read the answer to"));
        // An engine that refuses answers before it has read everything, and closes: what it says counts then.
        match (sent, answer) {
            (_, Ok(Some(answer))) => Ok(answer),
            (Err(source), _) => Err(io("send")(source)),
            (Ok(()), Ok(None)) => Err(HttpError::Malformed { request }),
            (Ok(()), Err(error)) => Err(error),
        }
    }
}

fn send(mut stream: &UnixStream, request: &str, body: Option<Body<'_>>) -> io::Result<()> {
    let framing = match body {
        Some(_) => "Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n",
        None => "",
    };
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: engine\r\nUser-Agent: rbuild\r\nConnection: close\r\n{framing}\r\n"
    )?;
    if let Some(write) = body {
        let mut chunks = io::BufWriter::with_capacity(CHUNK_BYTES, Chunks(stream));
        write(&mut chunks)?;
        chunks.flush()?;
        stream.write_all(b"0\r\n\r\n")?;
    }
    stream.flush()
}

/// Each write is a chunk.
struct Chunks<'a>(&'a UnixStream);

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            write!(self.0, "{:x}\r\n", bytes.len())?;
            self.0.write_all(bytes)?;
            self.0.write_all(b"\r\n")?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads an answer; nothing if what comes is none.
fn read(from: &mut impl BufRead) -> io::Result<Option<Answer>> {
    let first = line(from)?;
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5)?.parse().ok());
    let Some(status) = status else {
        return Ok(None);
    };
    let (mut is_chunked, mut length) = (false, None);
    for _ in 0..LINES_MAX {
        let header = line(from)?;
        if header.is_empty() {
            let body = match (is_chunked, length) {
                (true, _) => chunked(from)?,
                (false, Some(bytes)) => limited(from, bytes)?,
                (false, None) => limited(from, ANSWER_BYTES_MAX)?,
            };
            return Ok(body.map(|body| Answer { status, body }));
        }
        let (name, value) = header.split_once(':').unwrap_or((&header, ""));
        match name.to_ascii_lowercase().as_str() {
            "transfer-encoding" => is_chunked = value.trim().eq_ignore_ascii_case("chunked"),
            "content-length" => length = value.trim().parse::<u64>().ok(),
            _ => {}
        }
    }
    Ok(None)
}

/// A line of a head without its end.
fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut text = Vec::new();
    from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
}

/// At most `bytes`, and never more than an answer may have; nothing if there are more.
fn limited(from: &mut impl BufRead, bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    from.take(bytes.min(ANSWER_BYTES_MAX + 1))
        .read_to_end(&mut body)?;
    Ok((body.len() as u64 <= ANSWER_BYTES_MAX).then_some(body))
}

fn chunked(from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut body: Vec<u8> = Vec::new();
    loop {
        let head = line(from)?;
        let digits = head.split(';').next().unwrap_or_default().trim();
        let Ok(bytes) = u64::from_str_radix(digits, 16) else {
            return Ok(None);
        };
        if bytes == 0 {
            return Ok(Some(body));
        }
        if bytes > ANSWER_BYTES_MAX - body.len() as u64 {
            return Ok(None);
        }
        let before = body.len() as u64;
        from.take(bytes).read_to_end(&mut body)?;
        if body.len() as u64 != before + bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line(from)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<(u16, String)> {
        let answer = read(&mut text.as_bytes()).ok()??;
        Some((answer.status, String::from_utf8(answer.body).unwrap()))
    }

    #[test]
    fn answers_of_every_framing_are_read_and_others_are_none() {
        let ok = |body: &str| Some((200, body.to_owned()));
        assert_eq!(of("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc"), ok("ab"));
        assert_eq!(of("HTTP/1.0 200 OK\r\n\r\nabc"), ok("abc"));
        assert_eq!(
            of("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\n\r\n"),
            ok("abc")
        );
        assert_eq!(of("HTTP/1.1 404 Not Found\r\n\r\n").unwrap().0, 404);
        for bad in [
            "",
            "nonsense\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffff\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\nffffffffffffffff\r\nabc",
        ] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(LINES_MAX + 1));
        assert_eq!(of(&endless), None);
    }
}
