//! S3: objects of one bucket, path style; every request has to be signed (Signature Version 4).

use sha2::{Digest as _, Sha256};

use super::{
    ACCESS_KEY_ID, Answer, BUCKET, REGION, Request, SECRET_ACCESS_KEY, State, content, decoded, elements,
    hex, hmac,
};

/// A bucket that is not there.
pub(super) fn elsewhere(request: &Request<'_>) -> Answer {
    match check(request) {
        Ok(()) => Answer::xml(404, "NoSuchBucket"),
        Err(code) => Answer::xml(403, code),
    }
}

pub(super) fn answer(state: &mut State, request: &Request<'_>) -> Answer {
    if let Err(code) = check(request) {
        return Answer::xml(403, code);
    }
    let key = decoded(
        request
            .path
            .strip_prefix(&format!("/{BUCKET}/"))
            .unwrap_or_default(),
    );
    let upload = request.value("uploadId");
    match (request.method, upload) {
        ("POST", None) if request.value("uploads").is_some() => {
            let body = format!("<R><Bucket>{BUCKET}</Bucket><UploadId>id+/&amp;1</UploadId></R>");
            Answer::new(200, body)
        }
        (_, Some(id)) if id != "id+/&1" => Answer::xml(404, "NoSuchUpload"),
        ("PUT", Some(_)) => {
            let number = request.value("partNumber").expect("a number");
            let tag = format!("\"tag {number}\"");
            state.parts.insert((key, tag.clone()), request.body.clone());
            Answer::new(200, "").header("ETag", &tag)
        }
        ("POST", Some(_)) => {
            let mut whole = Vec::new();
            for (at, tag) in elements(&request.body, "ETag").into_iter().enumerate() {
                assert_eq!(tag, format!("\"tag {}\"", at + 1), "in order");
                let Some(part) = state.parts.remove(&(key.clone(), tag)) else {
                    // This one says so in an answer of success, as the real one may.
                    return Answer::xml(200, "InvalidPart");
                };
                whole.extend(part);
            }
            state.objects.insert(key, whole);
            Answer::new(200, "<R><ETag>x</ETag></R>")
        }
        ("DELETE", Some(_)) => {
            state.parts.retain(|(of, _), _| *of != key);
            Answer::new(204, "")
        }
        ("PUT", None) => {
            let source = request.header("x-amz-copy-source");
            let body = match source.strip_prefix(&format!("{BUCKET}/")) {
                None => request.body.clone(),
                Some(source) => match state.objects.get(&decoded(source)) {
                    Some(body) => body.clone(),
                    None => return Answer::xml(404, "NoSuchKey"),
                },
            };
            state.objects.insert(key, body);
            Answer::new(200, "")
        }
        _ => match state.objects.get(&key) {
            Some(body) => content(state, body, request),
            None => Answer::xml(404, "NoSuchKey"),
        },
    }
}

/// Whether the request is signed with the key.
fn check(request: &Request<'_>) -> Result<(), &'static str> {
    let authorization = request.header("authorization");
    let field = |name: &str| {
        let (_, rest) = authorization.split_once(&format!("{name}="))?;
        rest.split(',').next()
    };
    let credential = field("Credential").ok_or("AccessDenied")?;
    let (id, scope) = credential.split_once('/').ok_or("AccessDenied")?;
    if id != ACCESS_KEY_ID {
        return Err("InvalidAccessKeyId");
    }
    let time = request.header("x-amz-date");
    if scope != format!("{}/{REGION}/s3/aws4_request", &time[..8]) {
        return Err("AuthorizationHeaderMalformed");
    }
    if request.header("x-amz-content-sha256") != hex(&Sha256::digest(&request.body)) {
        return Err("XAmzContentSHA256Mismatch");
    }
    let signed: Vec<&str> = field("SignedHeaders").ok_or("AccessDenied")?.split(';').collect();
    let must = |name: &&String| name.starts_with("x-amz-") || *name == "host";
    if !request
        .headers
        .keys()
        .filter(must)
        .all(|name| signed.contains(&name.as_str()))
    {
        return Err("AccessDenied");
    }
    let headers: String = signed
        .iter()
        .map(|name| format!("{name}:{}\n", request.header(name)))
        .collect();
    let mut query: Vec<String> = request
        .query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            if pair.contains('=') {
                pair.to_owned()
            } else {
                format!("{pair}=")
            }
        })
        .collect();
    query.sort();
    let canonical = [
        request.method,
        request.path,
        &query.join("&"),
        &headers,
        &signed.join(";"),
        request.header("x-amz-content-sha256"),
    ];
    let to_sign = [
        "AWS4-HMAC-SHA256",
        time,
        scope,
        &hex(&Sha256::digest(canonical.join("\n"))),
    ];
    let mut key = format!("AWS4{SECRET_ACCESS_KEY}").into_bytes();
    for part in scope.split('/') {
        key = hmac(&key, part.as_bytes()).to_vec();
    }
    let wanted = hex(&hmac(&key, to_sign.join("\n").as_bytes()));
    if field("Signature") == Some(wanted.as_str()) {
        Ok(())
    } else {
        Err("SignatureDoesNotMatch")
    }
}
