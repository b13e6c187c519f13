//! Files of private keys: OpenSSH's own form (`PROTOCOL.key`), PKCS#1, SEC1 and PKCS#8, each as PEM. A key behind a passphrase
//! is refused: there is nobody to ask (`sshprovider/agentprovider.go` does not ask either).

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::keyring::{Curve, PrivateKey};
use super::wire::{Reader, bare, der, der_number, remainder, subtract};

/// Most that is read of a file, as by BuildKit's client.
const FILE_BYTES_MAX: u64 = 100 << 10;
/// Longest modulus of RSA: 16384 bits.
const MODULUS_BYTES_MAX: usize = 2048;
/// How OpenSSH's form begins.
const OPENSSH_MAGIC: &[u8] = b"openssh-key-v1\0";

/// Why a file gives no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It could not be read.
    #[error("failed to read {path:?}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is longer than any key.
    #[error("failed to parse {path:?}: longer than {FILE_BYTES_MAX} bytes")]
    TooLong {
        /// Its path.
        path: PathBuf,
    },
    /// There is no PEM block in it.
    #[error("failed to parse {path:?}: no private key in PEM form")]
    NoKey {
        /// Its path.
        path: PathBuf,
    },
    /// Nobody can be asked for its passphrase.
    #[error(
        "failed to parse {path:?}: this private key is passphrase protected; add it to an ssh-agent and give the agent's socket"
    )]
    Passphrase {
        /// Its path.
        path: PathBuf,
    },
    /// It is of a kind that does not sign here.
    #[error("failed to parse {path:?}: unsupported key type {kind:?}")]
    Unsupported {
        /// Its path.
        path: PathBuf,
        /// What it calls itself.
        kind: String,
    },
    /// It is damaged, or not a sound key.
    #[error("failed to parse {path:?}: not a sound private key")]
    Rejected {
        /// Its path.
        path: PathBuf,
    },
}

/// Why bytes are no key.
enum Fault {
    Passphrase,
    Unsupported(String),
    Rejected,
}

/// The key in the file at `path`.
///
/// # Errors
/// [`KeyFileError`].
pub(super) fn load(path: &Path) -> Result<PrivateKey, KeyFileError> {
    let owned = || path.to_owned();
    let mut text = Zeroizing::new(Vec::new());
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text));
    read.map_err(|source| KeyFileError::Read {
        path: owned(),
        source,
    })?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(KeyFileError::TooLong { path: owned() });
    }
    let Some(block) = std::str::from_utf8(&text).ok().and_then(pem) else {
        return Err(KeyFileError::NoKey { path: owned() });
    };
    parse(&block).map_err(|fault| match fault {
        Fault::Passphrase => KeyFileError::Passphrase { path: owned() },
        Fault::Unsupported(kind) => KeyFileError::Unsupported { path: owned(), kind },
        Fault::Rejected => KeyFileError::Rejected { path: owned() },
    })
}

/// A PEM block.
struct Pem {
    label: String,
    is_encrypted: bool,
    content: Zeroizing<Vec<u8>>,
}

/// The first PEM block of `text`.
fn pem(text: &str) -> Option<Pem> {
    let mut lines = text.lines().map(str::trim);
    let label = lines.find_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"))?;
    let end = format!("-----END {label}-----");
    let (mut body, mut is_encrypted, mut ended) = (Zeroizing::new(String::new()), false, false);
    for line in lines {
        if line == end {
            ended = true;
            break;
        }
        match line.split_once(':') {
            Some(("Proc-Type", value)) => is_encrypted |= value.contains("ENCRYPTED"),
            Some(_) => {}
            None => body.push_str(line),
        }
    }
    let content = if is_encrypted {
        Vec::new()
    } else {
        STANDARD.decode(body.as_bytes()).ok()?
    };
    ended.then(|| Pem {
        label: label.to_owned(),
        is_encrypted,
        content: Zeroizing::new(content),
    })
}

fn parse(block: &Pem) -> Result<PrivateKey, Fault> {
    let found = match block.label.as_str() {
        _ if block.is_encrypted => return Err(Fault::Passphrase),
        "ENCRYPTED PRIVATE KEY" => return Err(Fault::Passphrase),
        "OPENSSH PRIVATE KEY" => return openssh(&block.content),
        "RSA PRIVATE KEY" => RsaKeyPair::from_der(&block.content).ok().map(PrivateKey::Rsa),
        "EC PRIVATE KEY" => ecdsa_of(&block.content),
        "PRIVATE KEY" => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&block.content)
            .ok()
            .map(PrivateKey::Ed25519)
            .or_else(|| RsaKeyPair::from_pkcs8(&block.content).ok().map(PrivateKey::Rsa))
            .or_else(|| ecdsa_of(&block.content)),
        other => return Err(Fault::Unsupported(other.to_owned())),
    };
    found.ok_or(Fault::Rejected)
}

/// A key of one of the curves, as SEC1 or PKCS#8.
fn ecdsa_of(content: &[u8]) -> Option<PrivateKey> {
    Curve::ALL.into_iter().find_map(|curve| {
        let key = EcdsaKeyPair::from_private_key_der(algorithm(curve), content).ok()?;
        Some(PrivateKey::Ecdsa(curve, key))
    })
}

const fn algorithm(curve: Curve) -> &'static EcdsaSigningAlgorithm {
    match curve {
        Curve::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
        Curve::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        Curve::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
    }
}

/// OpenSSH's own form.
fn openssh(content: &[u8]) -> Result<PrivateKey, Fault> {
    let private = openssh_private(content)?;
    let mut rest = Reader(private);
    let read = || Fault::Rejected;
    // Two times the same number: a wrong passphrase would show here.
    if rest.u32().ok_or_else(read)? != rest.u32().ok_or_else(read)? {
        return Err(Fault::Rejected);
    }
    let kind = rest.string().ok_or_else(read)?;
    let found = match kind {
        b"ssh-ed25519" => ed25519(&mut rest),
        b"ssh-rsa" => rsa(&mut rest),
        b"ecdsa-sha2-nistp256" => ecdsa(Curve::P256, &mut rest),
        b"ecdsa-sha2-nistp384" => ecdsa(Curve::P384, &mut rest),
        b"ecdsa-sha2-nistp521" => ecdsa(Curve::P521, &mut rest),
        other => return Err(Fault::Unsupported(String::from_utf8_lossy(other).into_owned())),
    };
    found.ok_or(Fault::Rejected)
}

/// The private part of OpenSSH's form.
fn openssh_private(content: &[u8]) -> Result<&[u8], Fault> {
    let bare = content.strip_prefix(OPENSSH_MAGIC).ok_or(Fault::Rejected)?;
    let mut rest = Reader(bare);
    let mut string = || rest.string().ok_or(Fault::Rejected);
    let (cipher, _derivation, _salt) = (string()?, string()?, string()?);
    if cipher != b"none" {
        return Err(Fault::Passphrase);
    }
    if rest.u32() != Some(1) {
        return Err(Fault::Rejected);
    }
    let _public = rest.string().ok_or(Fault::Rejected)?;
    rest.string().ok_or(Fault::Rejected)
}

fn ed25519(rest: &mut Reader<'_>) -> Option<PrivateKey> {
    let (public, both) = (rest.string()?, rest.string()?);
    let (seed, _public) = both.split_at_checked(32)?;
    let key = Ed25519KeyPair::from_seed_and_public_key(seed, public).ok()?;
    Some(PrivateKey::Ed25519(key))
}

fn ecdsa(curve: Curve, rest: &mut Reader<'_>) -> Option<PrivateKey> {
    let (_name, public, number) = (rest.string()?, rest.string()?, rest.number()?);
    let length = public.len().checked_sub(1)? / 2;
    let mut private = Zeroizing::new(vec![0; length.checked_sub(number.len())?]);
    private.extend(number);
    let key = EcdsaKeyPair::from_private_key_and_public_key(algorithm(curve), &private, public).ok()?;
    Some(PrivateKey::Ecdsa(curve, key))
}

/// OpenSSH leaves two numbers out that PKCS#1 has.
fn rsa(rest: &mut Reader<'_>) -> Option<PrivateKey> {
    let (n, e, d) = (rest.number()?, rest.number()?, rest.number()?);
    let (inverse, p, q) = (rest.number()?, rest.number()?, rest.number()?);
    if n.len() > MODULUS_BYTES_MAX || [e, d, inverse, p, q].iter().any(|part| part.len() > n.len()) {
        return None;
    }
    let reduced = |prime: &[u8]| {
        let mut less = prime.to_vec();
        let mut one = vec![0; less.len()];
        *one.last_mut()? = 1;
        subtract(&mut less, &one);
        remainder(d, bare(&less)).map(Zeroizing::new)
    };
    let (dp, dq) = (reduced(p)?, reduced(q)?);
    let mut numbers = Zeroizing::new(Vec::new());
    for number in [&[][..], n, e, d, p, q, &dp, &dq, inverse] {
        der_number(&mut numbers, number);
    }
    let mut whole = Zeroizing::new(Vec::new());
    der(&mut whole, 0x30, &numbers);
    RsaKeyPair::from_der(&whole).ok().map(PrivateKey::Rsa)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn fault(dir: &Path, text: &[u8]) -> String {
        let path = dir.join("key");
        std::fs::write(&path, text).unwrap();
        match load(&path) {
            Ok(_) => String::new(),
            Err(error) => error.to_string().replace(&format!("{path:?}"), "KEY"),
        }
    }

    #[test]
    fn what_is_no_key_is_told_as_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let block =
            |label: &str, body: &str| format!("x\n-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        for (text, told) in [
            (String::new(), "failed to parse KEY: no private key in PEM form"),
            (
                block("PRIVATE KEY", "AAAA"),
                "failed to parse KEY: not a sound private key",
            ),
            (
                block("OPENSSH PRIVATE KEY", "AAAA"),
                "failed to parse KEY: not a sound private key",
            ),
            (
                block("PRIVATE KEY", "~"),
                "failed to parse KEY: no private key in PEM form",
            ),
            (
                block("DSA PRIVATE KEY", "AAAA"),
                "failed to parse KEY: unsupported key type \"DSA PRIVATE KEY\"",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\nAAAA".to_owned(),
                "failed to parse KEY: no private key in PEM form",
            ),
            (
                "x".repeat(200_000),
                "failed to parse KEY: longer than 102400 bytes",
            ),
        ] {
            assert_eq!(fault(dir.path(), text.as_bytes()), told, "{text:.80}");
        }
        let error = load(&dir.path().join("none")).map(drop).unwrap_err();
        assert!(matches!(error, KeyFileError::Read { .. }), "{error}");
    }

    #[test]
    fn row48_a_key_cut_anywhere_is_no_key() {
        let dir = tempfile::tempdir().unwrap();
        for kind in ["ed25519", "rsa", "ecdsa"] {
            let path = dir.path().join(kind);
            let made = Command::new("ssh-keygen")
                .args(["-q", "-N", "", "-t", kind, "-f"])
                .arg(&path)
                .status();
            assert!(made.unwrap().success());
            let whole = pem(&std::fs::read_to_string(&path).unwrap()).unwrap();
            assert!(openssh(&whole.content).is_ok(), "{kind}");
            // Behind the key there are its comment and padding.
            for length in (0..whole.content.len() - 64).step_by(7) {
                assert!(openssh(&whole.content[..length]).is_err(), "{kind} {length}");
            }
        }
    }

    #[test]
    fn a_passphrase_is_not_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        for (name, form) in [("own", "RFC4716"), ("pem", "PEM"), ("pkcs8", "PKCS8")] {
            let path = dir.path().join(name);
            let mut made = Command::new("ssh-keygen");
            made.args(["-q", "-N", "secret", "-t", "rsa", "-b", "2048", "-m", form, "-f"])
                .arg(&path);
            assert!(made.status().unwrap().success());
            let error = load(&path).map(drop).unwrap_err();
            assert!(
                matches!(error, KeyFileError::Passphrase { .. }),
                "{form}: {error}"
            );
        }
    }
}
