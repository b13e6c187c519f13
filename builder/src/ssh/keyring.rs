//! An agent of this program's own, for `--ssh ID=KEY,…`: it holds private keys of files in memory, says which there are, and
//! signs (draft-miller-ssh-agent; `session/sshforward/sshprovider`). It ends with the build; no key is written anywhere.
//!
//! Not signed: with SHA-1 (`ssh-rsa` without flags), which OpenSSH's clients have not asked for since 8.8.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair,
};

use super::FAILURE;
use super::key_file::{self, KeyFileError};
use super::wire::{Reader, mpint, string};

/// `SSH_AGENTC_REQUEST_IDENTITIES`, `SSH_AGENT_IDENTITIES_ANSWER`.
const LIST: (u8, u8) = (11, 12);
/// `SSH_AGENTC_SIGN_REQUEST`, `SSH_AGENT_SIGN_RESPONSE`.
const SIGN: (u8, u8) = (13, 14);
/// `SSH_AGENT_RSA_SHA2_256` and `SSH_AGENT_RSA_SHA2_512` of a request to sign.
const RSA_SHA2: (u32, u32) = (2, 4);

/// A curve of ECDSA, as SSH calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    /// nistp256, with SHA-256.
    P256,
    /// nistp384, with SHA-384.
    P384,
    /// nistp521, with SHA-512.
    P521,
}

impl Curve {
    /// All there are.
    pub(super) const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::P256 => "nistp256",
            Self::P384 => "nistp384",
            Self::P521 => "nistp521",
        }
    }
}

/// A key that can sign.
pub(super) enum PrivateKey {
    /// `ssh-ed25519`.
    Ed25519(Ed25519KeyPair),
    /// `ecdsa-sha2-…`.
    Ecdsa(Curve, EcdsaKeyPair),
    /// `ssh-rsa`.
    Rsa(RsaKeyPair),
}

/// A key, and the public one as SSH writes it.
struct Held {
    public: Vec<u8>,
    key: PrivateKey,
}

/// Private keys of one `--ssh`.
#[derive(Clone)]
pub struct Keyring(Arc<Vec<Held>>);

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring of {}", self.0.len())
    }
}

impl PartialEq for Keyring {
    fn eq(&self, other: &Self) -> bool {
        let public = |held: &Self| -> Vec<Vec<u8>> { held.0.iter().map(|key| key.public.clone()).collect() };
        public(self) == public(other)
    }
}

impl Eq for Keyring {}

impl Keyring {
    /// The keys in `files`.
    ///
    /// # Errors
    /// [`KeyFileError`] of the first that holds no key.
    pub fn load(files: &[impl AsRef<Path>]) -> Result<Self, KeyFileError> {
        let mut held = Vec::with_capacity(files.len());
        for file in files {
            let key = key_file::load(file.as_ref())?;
            let public = key.public().ok_or_else(|| KeyFileError::Rejected {
                path: file.as_ref().to_owned(),
            })?;
            held.push(Held { public, key });
        }
        Ok(Self(Arc::new(held)))
    }

    /// The answer to one message of the agent protocol, both with their length.
    pub(super) fn answer(&self, request: &[u8]) -> Vec<u8> {
        self.answered(request).unwrap_or_else(|| FAILURE.to_vec())
    }

    fn answered(&self, request: &[u8]) -> Option<Vec<u8>> {
        let mut rest = Reader(request);
        let _length = rest.u32()?;
        let mut body = Vec::new();
        match rest.byte()? {
            kind if kind == LIST.0 => {
                body.push(LIST.1);
                body.extend(u32::try_from(self.0.len()).ok()?.to_be_bytes());
                for held in self.0.iter() {
                    string(&mut body, &held.public);
                    // The comment.
                    string(&mut body, b"");
                }
            }
            kind if kind == SIGN.0 => {
                let (public, message, flags) = (rest.string()?, rest.string()?, rest.u32()?);
                let held = self.0.iter().find(|held| held.public == public)?;
                body.push(SIGN.1);
                string(&mut body, &held.key.sign(message, flags)?);
            }
            _ => return None,
        }
        let mut answer = Vec::with_capacity(4 + body.len());
        string(&mut answer, &body);
        Some(answer)
    }
}

impl PrivateKey {
    /// The public key as SSH writes it (RFC 4253, section 6.6; RFC 5656; RFC 8709).
    fn public(&self) -> Option<Vec<u8>> {
        let mut blob = Vec::new();
        match self {
            Self::Ed25519(key) => {
                string(&mut blob, b"ssh-ed25519");
                string(&mut blob, key.public_key().as_ref());
            }
            Self::Ecdsa(curve, key) => {
                string(&mut blob, format!("ecdsa-sha2-{}", curve.name()).as_bytes());
                string(&mut blob, curve.name().as_bytes());
                string(&mut blob, key.public_key().as_ref());
            }
            Self::Rsa(key) => {
                // Its numbers are written in DER as in SSH.
                let mut der = Reader(key.public_key().as_ref());
                let mut numbers = Reader(der.der(0x30)?);
                let (modulus, exponent) = (numbers.der(2)?, numbers.der(2)?);
                string(&mut blob, b"ssh-rsa");
                string(&mut blob, exponent);
                string(&mut blob, modulus);
            }
        }
        Some(blob)
    }

    /// The signature of `message` as SSH writes it; nothing if it cannot be made so.
    fn sign(&self, message: &[u8], flags: u32) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let (algorithm, signature) = match self {
            Self::Ed25519(key) => ("ssh-ed25519".to_owned(), key.sign(message).as_ref().to_vec()),
            Self::Ecdsa(curve, key) => {
                let made = key.sign(&random, message).ok()?;
                let (r, s) = made.as_ref().split_at(made.as_ref().len() / 2);
                let mut both = Vec::new();
                mpint(&mut both, r);
                mpint(&mut both, s);
                (format!("ecdsa-sha2-{}", curve.name()), both)
            }
            Self::Rsa(key) => {
                let (name, padding) = if flags & RSA_SHA2.1 != 0 {
                    ("rsa-sha2-512", &RSA_PKCS1_SHA512)
                } else if flags & RSA_SHA2.0 != 0 {
                    ("rsa-sha2-256", &RSA_PKCS1_SHA256)
                } else {
                    return None;
                };
                let mut made = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, message, &mut made).ok()?;
                (name.to_owned(), made)
            }
        };
        let mut blob = Vec::new();
        string(&mut blob, algorithm.as_bytes());
        string(&mut blob, &signature);
        Some(blob)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A key that OpenSSH's own program made.
    fn made(dir: &Path, name: &str, options: &[&str]) -> std::path::PathBuf {
        let path = dir.join(name);
        let mut command = Command::new("ssh-keygen");
        command
            .args(["-q", "-N", "", "-C", "a comment", "-f"])
            .arg(&path)
            .args(options);
        assert!(command.status().unwrap().success(), "{options:?}");
        path
    }

    /// The public key beside a private one.
    fn public(path: &Path) -> Vec<u8> {
        use base64::Engine as _;
        let text = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        let blob = text.split(' ').nth(1).unwrap();
        base64::engine::general_purpose::STANDARD.decode(blob).unwrap()
    }

    fn request(kind: u8, parts: &[&[u8]], flags: u32) -> Vec<u8> {
        let mut body = vec![kind];
        for part in parts {
            string(&mut body, part);
        }
        body.extend(flags.to_be_bytes());
        let mut message = Vec::new();
        string(&mut message, &body);
        message
    }

    #[test]
    fn keys_of_every_kind_and_form_are_held() {
        let dir = tempfile::tempdir().unwrap();
        for (at, options) in [
            &["-t", "ed25519"][..],
            &["-t", "rsa", "-b", "2048"],
            &["-t", "rsa", "-b", "3072", "-m", "PEM"],
            &["-t", "rsa", "-b", "2048", "-m", "PKCS8"],
            &["-t", "ecdsa", "-b", "256"],
            &["-t", "ecdsa", "-b", "384", "-m", "PEM"],
            &["-t", "ecdsa", "-b", "521"],
            &["-t", "ecdsa", "-b", "521", "-m", "PKCS8"],
        ]
        .iter()
        .enumerate()
        {
            let path = made(dir.path(), &format!("key{at}"), options);
            let ring = Keyring::load(&[&path]).unwrap();
            let list = ring.answer(&[0, 0, 0, 1, 11]);
            let mut rest = Reader(&list[9..]);
            assert_eq!(rest.string().unwrap(), public(&path), "{options:?}");
            let signed = ring.answer(&request(13, &[&public(&path), b"message"], 4));
            assert_eq!(signed[4], 14, "{options:?}");
        }
    }

    #[test]
    fn what_it_signs_is_what_was_asked() {
        let dir = tempfile::tempdir().unwrap();
        let rsa = made(dir.path(), "rsa", &["-t", "rsa", "-b", "2048"]);
        let ed = made(dir.path(), "ed", &["-t", "ed25519"]);
        let ring = Keyring::load(&[&rsa, &ed]).unwrap();
        assert_eq!(format!("{ring:?}"), "Keyring of 2");
        let algorithm = |flags, key: &Path| {
            let answer = ring.answer(&request(13, &[&public(key), b"m"], flags));
            let mut signature = Reader(answer.get(5..)?);
            let mut rest = Reader(signature.string()?);
            rest.string()
                .map(|name| String::from_utf8_lossy(name).into_owned())
        };
        assert_eq!(algorithm(2, &rsa).as_deref(), Some("rsa-sha2-256"));
        assert_eq!(algorithm(4, &rsa).as_deref(), Some("rsa-sha2-512"));
        assert_eq!(algorithm(0, &rsa), None, "SHA-1");
        assert_eq!(algorithm(0, &ed).as_deref(), Some("ssh-ed25519"));
        // Neither a key it does not have, nor anything but listing and signing.
        assert_eq!(ring.answer(&request(13, &[b"other", b"m"], 0)), FAILURE);
        assert_eq!(ring.answer(&request(17, &[], 0)), FAILURE);
        assert_eq!(ring.answer(&[0, 0, 0, 0]), FAILURE);
    }
}
