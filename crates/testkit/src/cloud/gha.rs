//! GitHub's cache service, by what `go-actions-cache` and GitHub's own toolkit send: version 1 (REST, chunks) and
//! version 2 (Twirp, blobs behind signed URLs). Names are found by their beginning, the newest first.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Answer, Request, State, content, decoded};

/// A token as a job has it: it writes `refs/heads/feature` and reads `refs/heads/main`, for an hour.
pub(super) fn token() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let scopes = json!([{"Scope": "refs/heads/main", "Permission": 1}, {"Scope": "refs/heads/feature", "Permission": 3}]);
    let claims = json!({"ac": scopes.to_string(), "exp": now + 3600, "nbf": now - 60, "iss": "stand-in"});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!(
        "{}.{}.c2lnbmF0dXJl",
        part(&json!({"alg": "RS256"})),
        part(&claims)
    )
}

pub(super) fn answer(state: &mut State, request: &Request<'_>) -> Answer {
    let path = request.path.trim_start_matches("/gha/");
    if let Some(name) = path.strip_prefix("archive/") {
        // As with storage behind it: the URL is the proof, and no token is to come here.
        let found = state
            .objects
            .get(&decoded(name))
            .filter(|_| !request.headers.contains_key("authorization"));
        return found.map_or_else(|| Answer::new(403, ""), |body| content(state, body, request));
    }
    if request.header("authorization") != format!("Bearer {}", state.token) {
        return Answer::json(
            401,
            &json!({"message": "told by the stand-in", "typeKey": "Unauthorized"}),
        );
    }
    if let Some(rest) = path.strip_prefix("repos/owner/name/actions/caches") {
        assert_eq!(rest, "");
        let names: Vec<Value> = state
            .objects
            .keys()
            .map(|key| json!({"key": key, "id": 1}))
            .collect();
        return Answer::json(200, &json!({"total_count": names.len(), "actions_caches": names}));
    }
    match path.strip_prefix("_apis/artifactcache/") {
        Some(path) => first(state, request, path),
        None => match path.strip_prefix("twirp/github.actions.results.api.v1.CacheService/") {
            Some(path) => second(state, request, path),
            None => Answer::new(404, "no such page"),
        },
    }
}

/// The newest committed name that begins with `key`.
fn newest(state: &State, key: &str) -> Option<String> {
    let committed = state.reserved.iter().filter(|(_, committed)| *committed);
    let mut found = committed
        .map(|(name, _)| name)
        .filter(|name| name.starts_with(key));
    found.next_back().cloned()
}

fn commit(state: &mut State, key: &str, size: &Value) -> bool {
    let known = state
        .reserved
        .iter_mut()
        .find(|(name, committed)| name == key && !committed);
    let whole = state
        .objects
        .get(key)
        .is_some_and(|body| *size == json!(body.len()));
    match known {
        Some((_, committed)) if whole => {
            *committed = true;
            true
        }
        _ => false,
    }
}

fn first(state: &mut State, request: &Request<'_>, path: &str) -> Answer {
    assert_eq!(
        request.header("accept"),
        "application/json;api-version=6.0-preview.1"
    );
    match (request.method, path.strip_prefix("caches/")) {
        ("GET", _) if path == "cache" => match newest(state, &request.value("keys").expect("keys")) {
            None => Answer::new(204, ""),
            Some(name) => {
                let url = format!("{}/gha/archive/{name}", state.own_url).replace('#', "%23");
                Answer::json(
                    200,
                    &json!({"cacheKey": name, "scope": "x", "archiveLocation": url}),
                )
            }
        },
        ("POST", None) => {
            let key = text(&body(request)["key"]);
            if state.reserved.iter().any(|(name, _)| *name == key) {
                let told = "\u{feff}{\"typeKey\":\"ArtifactCacheItemAlreadyExistsException\",\"message\":\"it is there\"}";
                return Answer::new(409, told);
            }
            state.reserved.push((key, false));
            Answer::json(201, &json!({"cacheId": state.reserved.len()}))
        }
        (method, Some(id)) => {
            let at = id.parse::<usize>().expect("an id") - 1;
            let key = state.reserved[at].0.clone();
            if method == "PATCH" {
                let range = request.header("content-range");
                let start = range
                    .strip_prefix("bytes ")
                    .and_then(|text| text.split('-').next())
                    .expect("a range");
                let start: usize = start.parse().expect("a number");
                let whole = state.objects.entry(key).or_default();
                whole.resize(whole.len().max(start + request.body.len()), 0);
                whole[start..start + request.body.len()].copy_from_slice(&request.body);
                return Answer::new(204, "");
            }
            let done = commit(state, &key, &body(request)["size"]);
            Answer::new(if done { 204 } else { 400 }, "")
        }
        _ => Answer::new(404, "no such page"),
    }
}

fn second(state: &mut State, request: &Request<'_>, path: &str) -> Answer {
    assert_eq!(
        (request.method, request.header("content-type")),
        ("POST", "application/json")
    );
    let asked = body(request);
    let key = text(&asked["key"]);
    let signed = |state: &State| {
        format!(
            "{}/signed/{}?sig=stand-in",
            state.own_url,
            key.replace('#', "%23")
        )
    };
    match path {
        "GetCacheEntryDownloadURL" => match newest(state, &key) {
            None => Answer::json(
                200,
                &json!({"ok": false, "signed_download_url": "", "matched_key": ""}),
            ),
            Some(name) => {
                let url = format!(
                    "{}/signed/{}?sig=stand-in",
                    state.own_url,
                    name.replace('#', "%23")
                );
                Answer::json(
                    200,
                    &json!({"ok": true, "signed_download_url": url, "matched_key": name}),
                )
            }
        },
        "CreateCacheEntry" => {
            if state.reserved.iter().any(|(name, _)| *name == key) {
                return Answer::json(
                    409,
                    &json!({"code": "already_exists", "msg": "cache entry is there"}),
                );
            }
            state.reserved.push((key.clone(), false));
            Answer::json(200, &json!({"ok": true, "signed_upload_url": signed(state)}))
        }
        "FinalizeCacheEntryUpload" => {
            let done = commit(state, &key, &asked["size_bytes"]);
            Answer::json(200, &json!({"ok": done, "entry_id": "1"}))
        }
        _ => Answer::json(404, &json!({"code": "bad_route", "msg": "no such method"})),
    }
}

fn body(request: &Request<'_>) -> Value {
    let read: Value = serde_json::from_slice(&request.body).expect("JSON");
    if let Some(version) = read.get("version") {
        // SHA-256 of `|go-actionscache-1.0`.
        assert_eq!(version.as_str().map(str::len), Some(64));
    }
    read
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
