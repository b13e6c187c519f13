//! The names of all entries, by GitHub's REST API: one question for a hundred entries in the place of one for each.

use std::collections::HashSet;

use http::Method;
use rbuild_registry::{Client, Exchange, Patience, RelayError, ServiceUrl};
use serde::Deserialize;

use super::Listing;
use super::api::read_error;
use super::token::Scope;
use crate::sign::encoded;

/// Entries of an answer.
const PAGE: usize = 100;
/// Most answers for one scope.
const PAGES_MAX: usize = 100;
/// Largest answer, in bytes.
const PAGE_BYTES_MAX: usize = 1 << 20;

#[derive(Deserialize)]
struct Page {
    total_count: usize,
    actions_caches: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    key: String,
}

/// The names that begin with `prefix` in all scopes. An answer that is not understood ends the list of its scope, so that
/// what is not in it is asked for.
pub(super) async fn all(
    client: &Client,
    listing: &Listing,
    scopes: &[Scope],
    prefix: &str,
) -> Result<HashSet<String>, RelayError> {
    let base = ServiceUrl::given(&listing.api_url)?;
    let top = base.path().trim_end_matches('/');
    let path = format!(
        "{top}/repos/{}/actions/caches",
        encoded(&listing.repository, b"/")
    );
    let mut names = HashSet::new();
    for scope in scopes {
        for page in 1..=PAGES_MAX {
            let (key, reference) = (encoded(prefix, b""), encoded(&scope.scope, b""));
            let query = format!("key={key}&page={page}&per_page={PAGE}&ref={reference}");
            let asked = client.exchange(Patience::default(), || {
                Exchange::new(
                    "list cache entries",
                    Method::GET,
                    base.with(&path, &query)?,
                    read_error,
                )
                .header("accept", "application/vnd.github+json")?
                .header("authorization", &format!("Bearer {}", listing.token.reveal()))?
                .header("x-github-api-version", "2022-11-28")
            });
            let body = asked.await?.body(PAGE_BYTES_MAX).await?;
            let Ok(read) = serde_json::from_slice::<Page>(&body) else {
                break;
            };
            names.extend(read.actions_caches.into_iter().map(|entry| entry.key));
            if read.total_count <= page * PAGE {
                break;
            }
        }
    }
    Ok(names)
}
