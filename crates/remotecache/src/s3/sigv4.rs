//! AWS Signature Version 4 in headers ("Signature Calculations for the Authorization Header: Transferring Payload in a
//! Single Chunk" of Amazon S3's API reference). S3 differs from other services: paths are encoded once.

use jiff::Timestamp;
use rbuild_registry::{Secret, ServiceUrl};

use crate::sign::{hex, hmac_sha256, sha256_hex};

/// Who signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Id of the key; it is sent.
    pub access_key_id: Secret,
    /// The key; it signs and is not sent.
    pub secret_access_key: Secret,
    /// Goes with keys that are for a time only; it is sent.
    pub session_token: Option<Secret>,
}

/// What is signed besides method, URL and headers.
pub(super) struct Signer<'a> {
    pub(super) keys: &'a Keys,
    pub(super) region: &'a str,
    pub(super) time: Timestamp,
}

impl Signer<'_> {
    /// The headers that make a request this key's: those given, which have lower-case names, and the signature's own.
    /// The query of `url` has to be in canonical form: names sorted, values encoded, `=` after each name.
    pub(super) fn sign(
        &self,
        method: &str,
        url: &ServiceUrl,
        headers: &[(&str, String)],
        payload_sha256: &str,
    ) -> Vec<(String, String)> {
        let time = self.time.strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = &time[..8];
        let mut all: Vec<(String, String)> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.trim().to_owned()))
            .collect();
        all.push(("host".to_owned(), url.authority()));
        all.push(("x-amz-content-sha256".to_owned(), payload_sha256.to_owned()));
        all.push(("x-amz-date".to_owned(), time.clone()));
        if let Some(token) = &self.keys.session_token {
            all.push(("x-amz-security-token".to_owned(), token.reveal().to_owned()));
        }
        all.sort();
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let lines: String = all
            .iter()
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        let request = format!(
            "{method}\n{}\n{}\n{lines}\n{names}\n{payload_sha256}",
            url.path(),
            url.query()
        );
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{time}\n{scope}\n{}",
            sha256_hex(request.as_bytes())
        );
        let first = format!("AWS4{}", self.keys.secret_access_key.reveal()).into_bytes();
        let key = [day, self.region, "s3", "aws4_request"]
            .iter()
            .fold(first, |key, part| hmac_sha256(&key, part.as_bytes()));
        let signature = hex(&hmac_sha256(&key, to_sign.as_bytes()));
        let id = self.keys.access_key_id.reveal();
        all.retain(|(name, _)| name != "host");
        all.push((
            "authorization".to_owned(),
            format!("AWS4-HMAC-SHA256 Credential={id}/{scope},SignedHeaders={names},Signature={signature}"),
        ));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn signature(method: &str, path: &str, query: &str, headers: &[(&str, &str)], payload: &str) -> String {
        let keys = Keys {
            access_key_id: Secret::new("AKIAIOSFODNN7EXAMPLE".into()),
            secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into()),
            session_token: None,
        };
        let signer = Signer {
            keys: &keys,
            region: "us-east-1",
            time: "2013-05-24T00:00:00Z".parse().unwrap(),
        };
        let url = ServiceUrl::given("https://examplebucket.s3.amazonaws.com").unwrap();
        let url = url.with(path, query).unwrap();
        let headers: Vec<(&str, String)> = headers.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        let signed = signer.sign(method, &url, &headers, payload);
        let value = signed
            .iter()
            .find(|(name, _)| name == "authorization")
            .unwrap()
            .1
            .clone();
        let prefix = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=";
        assert!(value.starts_with(prefix), "{value}");
        assert!(
            signed.iter().all(|(name, _)| name != "host"),
            "the client sends it itself"
        );
        value.rsplit_once('=').unwrap().1.to_owned()
    }

    /// The four examples of the API reference.
    #[test]
    fn signatures_are_those_of_the_published_examples() {
        assert_eq!(
            signature("GET", "/test.txt", "", &[("range", "bytes=0-9")], EMPTY),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let text = sha256_hex(b"Welcome to Amazon S3.");
        assert_eq!(
            signature(
                "PUT",
                "/test%24file.text",
                "",
                &[
                    ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                    ("x-amz-storage-class", "REDUCED_REDUNDANCY")
                ],
                &text
            ),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
        assert_eq!(
            signature("GET", "/", "lifecycle=", &[], EMPTY),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
        assert_eq!(
            signature("GET", "/", "max-keys=2&prefix=J", &[], EMPTY),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }

    #[test]
    fn row42_keys_are_not_shown() {
        let keys = Keys {
            access_key_id: Secret::new("an-id".into()),
            secret_access_key: Secret::new("a-secret".into()),
            session_token: Some(Secret::new("a-token".into())),
        };
        let text = format!("{keys:?}");
        for secret in ["an-id", "a-secret", "a-token"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
