//! A web server in the test's own process: files with the headers a test wants, bodies that break off, never end or
//! trickle, and git repositories by git's own CGI program. One thread a connection, one request a connection.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::listening::Listening;

/// How a body is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// Whole, its length announced.
    #[default]
    Whole,
    /// The first so many bytes, though all are announced; then the connection ends.
    CutTo(usize),
    /// Over and over, no length announced, until the client goes.
    Endless,
    /// A byte at a time, with this pause.
    Trickle(Duration),
}

/// What a path answers.
#[derive(Clone, Debug, Default)]
pub struct Page {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    manner: Manner,
    authorization: Option<String>,
    ignores_etag: bool,
    failures: usize,
}

impl Page {
    /// A file.
    #[must_use]
    pub fn of(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            body: body.into(),
            ..Self::default()
        }
    }

    /// A redirect.
    #[must_use]
    pub fn redirect(status: u16, to: &str) -> Self {
        Self {
            status,
            ..Self::default()
        }
        .header("Location", to)
    }

    /// With this header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Sent in this manner.
    #[must_use]
    pub fn manner(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }

    /// Only for requests with this `Authorization`; 401 for others.
    #[must_use]
    pub fn authorization(mut self, value: &str) -> Self {
        self.authorization = Some(value.to_owned());
        self
    }

    /// `If-None-Match` is not looked at.
    #[must_use]
    pub fn ignoring_etags(mut self) -> Self {
        self.ignores_etag = true;
        self
    }

    /// The first so many requests are answered with 503.
    #[must_use]
    pub fn failing(mut self, times: usize) -> Self {
        self.failures = times;
        self
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Such as `GET`.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
}

/// A running server on a port of 127.0.0.1; dropping it stops it.
#[derive(Debug)]
pub struct WebServer {
    listening: Listening,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pages: HashMap<String, Page>,
    asked: Vec<Asked>,
    repositories: Option<PathBuf>,
    authorization: Option<String>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WebServer {
    /// Starts a server that knows no page.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        let listening = Listening::start(move |stream, stopped| serve(&served, stream, stopped));
        Self { listening, shared }
    }

    /// Host and port.
    #[must_use]
    pub fn host(&self) -> String {
        self.listening.address().to_string()
    }

    /// The URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listening.address())
    }

    /// Sets what a path answers.
    pub fn put(&self, path: &str, page: Page) -> &Self {
        self.shared.state().pages.insert(path.to_owned(), page);
        self
    }

    /// Serves the repositories below `dir` at `/git/`.
    pub fn serve_git(&self, dir: impl Into<PathBuf>) -> &Self {
        self.shared.state().repositories = Some(dir.into());
        self
    }

    /// Serves repositories to requests with this `Authorization` only.
    pub fn protect_git(&self, authorization: &str) -> &Self {
        self.shared.state().authorization = Some(authorization.to_owned());
        self
    }

    /// The requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.state().asked.clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.state().asked.clear();
    }
}

/// The next request of a connection with its body; nothing when there is none.
pub(crate) fn read_request(stream: &TcpStream) -> std::io::Result<Option<(Asked, Vec<u8>)>> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let body = read_body(&mut reader, &headers)?;
    let asked = Asked {
        method: method.to_owned(),
        path: path.to_owned(),
        headers,
    };
    Ok(Some((asked, body)))
}

fn serve(shared: &Shared, stream: TcpStream, stopped: &AtomicBool) -> std::io::Result<()> {
    let Some((asked, body)) = read_request(&stream)? else {
        return Ok(());
    };
    let path = asked.path.as_str();
    let (page, repositories, authorization) = {
        let mut state = shared.state();
        state.asked.push(asked.clone());
        let page = state.pages.get_mut(path).map(|page| {
            let now = page.clone();
            page.failures = page.failures.saturating_sub(1);
            now
        });
        (page, state.repositories.clone(), state.authorization.clone())
    };
    match (page, repositories) {
        (Some(page), _) => answer(stream, &asked, page, stopped),
        (None, Some(dir)) if path.starts_with("/git/") => {
            if authorization.is_some() && asked.headers.get("authorization") != authorization.as_ref() {
                return plain(stream, 401, "WWW-Authenticate: Basic realm=\"git\"\r\n");
            }
            git(stream, &asked, &dir, &body)
        }
        _ => plain(stream, 404, ""),
    }
}

fn read_body(
    reader: &mut BufReader<TcpStream>,
    headers: &HashMap<String, String>,
) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if headers
        .get("transfer-encoding")
        .is_some_and(|value| value == "chunked")
    {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16).unwrap_or_default();
            reader.by_ref().take(size).read_to_end(&mut body)?;
            reader.read_line(&mut line)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
    let size = headers.get("content-length").and_then(|text| text.parse().ok());
    reader.take(size.unwrap_or(0)).read_to_end(&mut body)?;
    Ok(body)
}

fn plain(mut stream: TcpStream, status: u16, headers: &str) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status} Test\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n"
    )
}

fn answer(mut stream: TcpStream, asked: &Asked, page: Page, stopped: &AtomicBool) -> std::io::Result<()> {
    if page.failures > 0 {
        return plain(stream, 503, "");
    }
    if page.authorization.is_some() && asked.headers.get("authorization") != page.authorization.as_ref() {
        return plain(stream, 401, "");
    }
    let mut status = page.status;
    if let (Some(etag), Some(known)) = (page.value("etag"), asked.headers.get("if-none-match"))
        && !page.ignores_etag
        && known.split(", ").any(|one| one == etag.trim_start_matches("W/"))
    {
        status = 304;
    }
    let mut head = format!("HTTP/1.1 {status} Test\r\nConnection: close\r\n");
    for (name, value) in &page.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let announced = !matches!(page.manner, Manner::Endless);
    if announced && status != 304 {
        head += &format!("Content-Length: {}\r\n", page.body.len());
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    if asked.method == "HEAD" || status == 304 {
        return Ok(());
    }
    match page.manner {
        Manner::Whole => stream.write_all(&page.body),
        Manner::CutTo(keep) => stream.write_all(&page.body[..keep.min(page.body.len())]),
        Manner::Endless => {
            while !stopped.load(Ordering::Relaxed) {
                stream.write_all(&page.body)?;
            }
            Ok(())
        }
        Manner::Trickle(pause) => page.body.iter().try_for_each(|byte| {
            std::thread::sleep(pause);
            stream.write_all(&[*byte])
        }),
    }
}

/// One request by `git http-backend` (CGI, RFC 3875).
fn git(mut stream: TcpStream, asked: &Asked, dir: &PathBuf, body: &[u8]) -> std::io::Result<()> {
    let path = asked.path.trim_start_matches("/git");
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let header = |name: &str| asked.headers.get(name).cloned().unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", dir)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        // The tests' user need not own what a test hands to another.
        .env("GIT_CONFIG_COUNT", "3")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("GIT_CONFIG_KEY_1", "uploadpack.allowAnySHA1InWant")
        .env("GIT_CONFIG_VALUE_1", "true")
        .env("GIT_CONFIG_KEY_2", "uploadpack.allowFilter")
        .env("GIT_CONFIG_VALUE_2", "true")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", &asked.method)
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut stdin = child.stdin.take().expect("piped");
    let body = body.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&body).ok());
    let output = child.wait_with_output()?;
    writer.join().ok();
    let end = output
        .stdout
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap_or(output.stdout.len());
    let head = String::from_utf8_lossy(&output.stdout[..end]).into_owned();
    let content = output.stdout.get(end + 4..).unwrap_or_default();
    let status = head
        .lines()
        .find_map(|line| line.strip_prefix("Status: "))
        .unwrap_or("200 OK");
    let headers: String = head
        .lines()
        .filter(|line| !line.starts_with("Status: "))
        .map(|line| format!("{line}\r\n"))
        .collect();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        content.len()
    )?;
    stream.write_all(content)
}
