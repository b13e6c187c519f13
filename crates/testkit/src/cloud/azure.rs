//! Azure Blob Storage: containers and block blobs of one account, path style; requests have to be signed with its shared
//! key, or to have a URL that is signed (`/signed/NAME?sig=…`), which is how GitHub's service hands blobs out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{ACCOUNT, ACCOUNT_KEY, Answer, Request, State, content, decoded, elements, hmac};

pub(super) fn answer(state: &mut State, request: &Request<'_>, by_key: bool) -> Answer {
    let allowed = if by_key {
        request.header("authorization") == wanted(request)
    } else {
        // The signature of the URL is proof enough, and nobody else's token is to come here.
        request.value("sig").as_deref() == Some("stand-in") && !request.headers.contains_key("authorization")
    };
    if !allowed {
        return Answer::xml(403, "AuthenticationFailed");
    }
    let top = if by_key {
        format!("/{ACCOUNT}/")
    } else {
        "/signed/".to_owned()
    };
    let name = decoded(request.path.strip_prefix(&top).unwrap_or_default());
    let (container, blob) = name.split_once('/').unwrap_or((&name, ""));
    if by_key && blob.is_empty() {
        return container_answer(state, request, container);
    }
    if by_key && !state.containers.iter().any(|known| known == container) {
        return Answer::xml(404, "ContainerNotFound");
    }
    let taken = request.header("if-none-match") == "*" && state.objects.contains_key(&name);
    match (request.method, request.value("comp").as_deref()) {
        ("PUT", Some("block")) => {
            let id = request.value("blockid").expect("an id");
            state.parts.insert((name, id), request.body.clone());
            Answer::new(201, "")
        }
        ("PUT", _) if taken => Answer::xml(409, "BlobAlreadyExists"),
        ("PUT", Some("blocklist")) => {
            let mut whole = Vec::new();
            for id in elements(&request.body, "Latest") {
                match state.parts.remove(&(name.clone(), id)) {
                    Some(part) => whole.extend(part),
                    None => return Answer::xml(400, "InvalidBlockList"),
                }
            }
            state.objects.insert(name, whole);
            Answer::new(201, "")
        }
        ("PUT", _) if request.header("x-ms-blob-type") != "BlockBlob" => {
            Answer::xml(400, "MissingRequiredHeader")
        }
        ("PUT", _) => {
            state.objects.insert(name, request.body.clone());
            Answer::new(201, "")
        }
        _ => match state.objects.get(&name) {
            Some(body) => content(state, body, request),
            None => Answer::xml(404, "BlobNotFound"),
        },
    }
}

fn container_answer(state: &mut State, request: &Request<'_>, container: &str) -> Answer {
    let known = state.containers.iter().any(|known| known == container);
    match (request.method, known) {
        ("PUT", true) => Answer::xml(409, "ContainerAlreadyExists"),
        ("PUT", false) => {
            state.containers.push(container.to_owned());
            Answer::new(201, "")
        }
        (_, true) => Answer::new(200, ""),
        (_, false) => Answer::xml(404, "ContainerNotFound"),
    }
}

/// The authorization the request has to have.
fn wanted(request: &Request<'_>) -> String {
    let length = request.header("content-length");
    let mut lines: Vec<String> = vec![
        request.method.to_owned(),
        request.header("content-encoding").to_owned(),
        request.header("content-language").to_owned(),
        if length == "0" {
            String::new()
        } else {
            length.to_owned()
        },
    ];
    for name in [
        "content-md5",
        "content-type",
        "date",
        "if-modified-since",
        "if-match",
        "if-none-match",
    ] {
        lines.push(request.header(name).to_owned());
    }
    lines.push(request.header("if-unmodified-since").to_owned());
    lines.push(request.header("range").to_owned());
    let mut own: Vec<(&String, &String)> = request
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .collect();
    own.sort();
    lines.extend(own.into_iter().map(|(name, value)| format!("{name}:{value}")));
    lines.push(format!("/{ACCOUNT}{}", request.path));
    let mut query: Vec<String> = request
        .query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| format!("{}:{}", name.to_lowercase(), decoded(value)))
        .collect();
    query.sort();
    lines.extend(query);
    let key = STANDARD.decode(ACCOUNT_KEY).expect("base64");
    let signature = STANDARD.encode(hmac(&key, lines.join("\n").as_bytes()));
    format!("SharedKey {ACCOUNT}:{signature}")
}
