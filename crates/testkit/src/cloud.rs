//! Stand-ins for the services that keep caches: S3, Azure Blob Storage, GitHub's cache service in both versions. They
//! hold objects in memory and check what real ones check: signatures (computed here anew, from the request as it came),
//! names that are taken, parts that are missing. What they refuse, they refuse with the real one's status and code.

mod azure;
mod gha;
mod s3;

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::listening::Listening;
use crate::web::{Asked, read_request};

/// The key that the stand-in for S3 knows.
pub const ACCESS_KEY_ID: &str = "AKIDSTANDIN";
/// Its secret.
pub const SECRET_ACCESS_KEY: &str = "s3-stand-in-secret-key";
/// The only bucket.
pub const BUCKET: &str = "bucket";
/// Where it is.
pub const REGION: &str = "eu-test-1";
/// The Azure account.
pub const ACCOUNT: &str = "account";
/// Its key, base64.
pub const ACCOUNT_KEY: &str = "YXp1cmUtc3RhbmQtaW4tc2VjcmV0LWtleQ==";

/// A running stand-in on a port of 127.0.0.1; dropping it stops it.
#[derive(Debug)]
pub struct Cloud {
    listening: Listening,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

/// What all three keep.
#[derive(Debug, Default)]
struct State {
    own_url: String,
    objects: BTreeMap<String, Vec<u8>>,
    /// Parts of what is under way, by its name and theirs.
    parts: BTreeMap<(String, String), Vec<u8>>,
    /// Names that were reserved, in order; whether they are committed.
    reserved: Vec<(String, bool)>,
    containers: Vec<String>,
    asked: Vec<Asked>,
    /// Answers to the next requests, in the place of the right ones.
    planned: Vec<Answer>,
    /// Bodies of GET end after so many bytes, that often.
    cuts: (usize, usize),
    modified: Option<String>,
    token: String,
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    /// One without headers.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// With this header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// An error document as S3 and Azure write it. Services tell more than is good to show.
    fn xml(status: u16, code: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>told by the stand-in</Message>\
             <CanonicalRequest>what was sent, secrets and all</CanonicalRequest></Error>"
        );
        Self::new(status, body)
    }

    fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::new(status, value.to_string())
    }
}

/// A request, taken apart.
struct Request<'a> {
    method: &'a str,
    /// As it came, percent-encoded.
    path: &'a str,
    /// As it came.
    query: &'a str,
    headers: &'a HashMap<String, String>,
    body: Vec<u8>,
}

impl Request<'_> {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// A value of the query, decoded; nothing if the name is not there.
    fn value(&self, name: &str) -> Option<String> {
        let mut pairs = self.query.split('&').filter(|pair| !pair.is_empty());
        pairs.find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then(|| decoded(value))
        })
    }
}

impl Cloud {
    /// Starts one that knows no object.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        let listening = Listening::start(move |stream, _stopped| serve(&served, &stream));
        let this = Self { listening, shared };
        this.shared.state().own_url = this.url();
        this
    }

    /// Its URL, without a path.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.listening.address())
    }

    /// The attributes of an s3 cache here.
    #[must_use]
    pub fn s3_attrs(&self) -> BTreeMap<String, String> {
        let pairs = [
            ("bucket", BUCKET),
            ("region", REGION),
            ("endpoint_url", &self.url()),
            ("use_path_style", "true"),
            ("access_key_id", ACCESS_KEY_ID),
            ("secret_access_key", SECRET_ACCESS_KEY),
        ];
        owned(&pairs)
    }

    /// The attributes of an azblob cache here.
    #[must_use]
    pub fn azblob_attrs(&self) -> BTreeMap<String, String> {
        let url = format!("{}/{ACCOUNT}", self.url());
        let pairs = [
            ("account_url", url.as_str()),
            ("account_name", ACCOUNT),
            ("secret_access_key", ACCOUNT_KEY),
        ];
        owned(&pairs)
    }

    /// The attributes of a gha cache here, for a token that writes a branch and reads another.
    #[must_use]
    pub fn gha_attrs(&self, version: u8) -> BTreeMap<String, String> {
        let token = gha::token();
        self.shared.state().token.clone_from(&token);
        let version_text = version.to_string();
        let url = format!("{}/gha/", self.url());
        let key = if version == 2 { "url_v2" } else { "url" };
        owned(&[("token", &token), (key, &url), ("version", &version_text)])
    }

    /// The names of all objects.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.shared.state().objects.keys().cloned().collect()
    }

    /// An object.
    #[must_use]
    pub fn object(&self, name: &str) -> Option<Vec<u8>> {
        self.shared.state().objects.get(name).cloned()
    }

    /// Puts an object there.
    pub fn put(&self, name: &str, body: &[u8]) -> &Self {
        self.shared.state().objects.insert(name.to_owned(), body.to_vec());
        self
    }

    /// Reserves a name of GitHub's service for a build that never comes back.
    pub fn reserve(&self, key: &str) -> &Self {
        self.shared.state().reserved.push((key.to_owned(), false));
        self
    }

    /// The next request gets this answer, and the one after it the next planned one.
    pub fn plan(&self, answer: Answer) -> &Self {
        self.shared.state().planned.push(answer);
        self
    }

    /// Bodies of the next `times` answers to GET end after `bytes` bytes.
    pub fn cut(&self, bytes: usize, times: usize) -> &Self {
        self.shared.state().cuts = (bytes, times);
        self
    }

    /// Says of all objects that they were changed at this time, as HTTP writes it.
    pub fn set_modified(&self, time: &str) -> &Self {
        self.shared.state().modified = Some(time.to_owned());
        self
    }

    /// The requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.state().asked.clone()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn owned(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn serve(shared: &Shared, mut stream: &TcpStream) -> std::io::Result<()> {
    let Some((asked, body)) = read_request(stream)? else {
        return Ok(());
    };
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    let request = Request {
        method: &asked.method,
        path,
        query,
        headers: &asked.headers,
        body,
    };
    let (answer, cut) = {
        let mut state = shared.state();
        state.asked.push(asked.clone());
        let answer = if state.planned.is_empty() {
            route(&mut state, &request)
        } else {
            state.planned.remove(0)
        };
        let cuts = asked.method == "GET" && state.cuts.1 > 0 && answer.body.len() > state.cuts.0;
        if cuts {
            state.cuts.1 -= 1;
        }
        (answer, cuts.then_some(state.cuts.0))
    };
    let mut head = format!("HTTP/1.1 {} Test\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if answer.status != 204 {
        head += &format!("Content-Length: {}\r\n", answer.body.len());
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    if asked.method != "HEAD" {
        stream.write_all(&answer.body[..cut.unwrap_or(answer.body.len())])?;
    }
    Ok(())
}

fn route(state: &mut State, request: &Request<'_>) -> Answer {
    let first = request
        .path
        .trim_start_matches('/')
        .split('/')
        .next()
        .unwrap_or_default();
    match first {
        BUCKET => s3::answer(state, request),
        ACCOUNT => azure::answer(state, request, true),
        "signed" => azure::answer(state, request, false),
        "gha" => gha::answer(state, request),
        _ => s3::elsewhere(request),
    }
}

/// An object, or the part of it that was asked for.
fn content(state: &State, body: &[u8], request: &Request<'_>) -> Answer {
    let modified = state.modified.clone();
    let modified = modified.unwrap_or_else(|| "Fri, 01 Jan 2100 00:00:00 GMT".to_owned());
    let range = request.header("range");
    let answer = match range
        .strip_prefix("bytes=")
        .and_then(|text| text.strip_suffix('-'))
    {
        None => Answer::new(200, body),
        Some(from) => {
            let from: usize = from.parse().expect("a number");
            let (last, size) = (body.len() - 1, body.len());
            Answer::new(206, &body[from..]).header("Content-Range", &format!("bytes {from}-{last}/{size}"))
        }
    };
    answer
        .header("Last-Modified", &modified)
        .header("ETag", "\"tag\"")
}

/// HMAC-SHA256 as RFC 2104 has it.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |pad: u8| block.map(|byte| byte ^ pad);
    let inner = Sha256::new()
        .chain_update(padded(0x36))
        .chain_update(message)
        .finalize();
    Sha256::new()
        .chain_update(padded(0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}

fn hex(bytes: &[u8]) -> String {
    crate::facts::hex(bytes)
}

/// `text` with every `%xx` made its byte.
fn decoded(text: &str) -> String {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [bytes.next().unwrap_or(b'?'), bytes.next().unwrap_or(b'?')];
        let digits = std::str::from_utf8(&digits).expect("digits");
        out.push(u8::from_str_radix(digits, 16).expect("hexadecimal digits"));
    }
    String::from_utf8(out).expect("UTF-8")
}

/// The texts of all elements of this name.
fn elements(body: &[u8], name: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(body).into_owned();
    let open = format!("<{name}>");
    let parts = text.split(&open).skip(1);
    parts
        .map(|part| part.split('<').next().unwrap_or_default().replace("&quot;", "\""))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_hashes_are_those_of_the_standard() {
        // RFC 4231, test cases 2 and 6.
        assert_eq!(
            hex(&hmac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(&hmac(
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First"
            )),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
        assert_eq!(decoded("a%3Ab%20"), "a:b ");
        assert_eq!(elements(b"<L><E>1</E><E>2</E></L>", "E"), ["1", "2"]);
    }
}
