//! Images of the store given to an engine of this machine: docker's or podman's by its API, containerd's by its `ctr`. What
//! the engine has is not sent: not the image if it has all of it, else not the layers below which it has the same ones.
//!
//! What the engine says it has is believed for one attempt only: if it then refuses the archive, all of it is sent.

mod http;

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rbuild_oci::{Descriptor, Digest, ImageConfig};
use rbuild_registry::Excerpt;
use serde_json::Value;

use crate::ops::blocking;
use crate::save::{SaveError, Saved};
use http::{Answer, HttpError, Socket};

/// Most images of an engine that are looked at for layers it has.
const IMAGES_MAX: usize = 300;
/// How much of what an engine or a program says is kept for an error, bytes.
const SAID_BYTES_MAX: u64 = 4 << 10;

/// Which engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineTarget {
    /// One that speaks docker's API on a unix socket.
    Socket(PathBuf),
    /// containerd, by its own program; its address and namespace are what its variables say.
    Containerd,
}

impl std::fmt::Display for EngineTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "unix://{}", path.display()),
            Self::Containerd => f.write_str("containerd"),
        }
    }
}

/// Why an engine did not take images.
#[derive(Debug, thiserror::Error)]
pub enum EngineLoadError {
    /// They are not in the store.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The engine's API.
    #[error("engine at {target}")]
    Http {
        /// Which.
        target: String,
        /// Why.
        #[source]
        source: HttpError,
    },
    /// It refused.
    #[error("engine at {target} refused {what}: {said}")]
    Refused {
        /// Which.
        target: String,
        /// What it was asked.
        what: &'static str,
        /// In its own words.
        said: String,
    },
    /// `ctr` could not be run.
    #[error("run ctr, which containerd comes with")]
    Program(#[source] io::Error),
}

impl EngineLoadError {
    /// What may help, a line each.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Http {
                source: HttpError::Connect { .. },
                ..
            }
            | Self::Program(_) => vec![
                "the image is in rbuild's own store: start the engine, or name another, as in --load=unix:///run/user/1000/podman/podman.sock"
                    .to_owned(),
                "an engine elsewhere takes an archive: --output type=docker,dest=image.tar, and there `docker load -i image.tar`".to_owned(),
            ],
            _ => Vec::new(),
        }
    }
}

/// What it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Given {
    /// Bytes that were sent.
    pub sent_bytes: u64,
    /// Layers that were sent.
    pub layers_sent: usize,
    /// Layers that the engine had.
    pub layers_kept: usize,
    /// The engine's ids of images are the digests of their manifests, as containerd's are, not those of their configs.
    pub by_manifest: bool,
}

/// Counts what goes through.
struct Counting<'a> {
    to: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Gives `saved` to an engine.
///
/// # Errors
/// [`EngineLoadError`].
pub async fn give(saved: Saved, target: &EngineTarget) -> Result<Given, EngineLoadError> {
    let saved = Arc::new(saved);
    match target {
        EngineTarget::Socket(path) => {
            let docker = Docker {
                socket: Socket::new(path.clone()),
                target: target.to_string(),
            };
            docker.give(&saved).await
        }
        EngineTarget::Containerd => to_containerd(&saved).await,
    }
}

struct Docker {
    socket: Socket,
    target: String,
}

impl Docker {
    fn failed(&self, source: HttpError) -> EngineLoadError {
        EngineLoadError::Http {
            target: self.target.clone(),
            source,
        }
    }

    fn refused(&self, what: &'static str, answer: &Answer) -> EngineLoadError {
        let said: Option<Value> = serde_json::from_slice(&answer.body).ok();
        let message = said.and_then(|said| Some(said.get("message")?.as_str()?.to_owned()));
        let text = message.unwrap_or_else(|| String::from_utf8_lossy(&answer.body).into_owned());
        EngineLoadError::Refused {
            target: self.target.clone(),
            what,
            said: format!("{} {}", answer.status, Excerpt::from(text.as_str())),
        }
    }

    /// An answer in JSON; nothing where there is no such thing.
    async fn ask(&self, path: &str) -> Result<Option<Value>, EngineLoadError> {
        let answer = self.socket.get(path).await;
        let answer = answer.map_err(|source| self.failed(source))?;
        match answer.status {
            200 => serde_json::from_slice(&answer.body)
                .map(Some)
                .map_err(|_not_json| self.refused("to be asked", &answer)),
            404 => Ok(None),
            _ => Err(self.refused("to be asked", &answer)),
        }
    }

    async fn give(&self, saved: &Arc<Saved>) -> Result<Given, EngineLoadError> {
        let layers: usize = saved.parts().map(|(_, layers)| layers.len()).sum();
        let info = self.ask("/info").await?.unwrap_or_default();
        let by_manifest = is_on_containerd(&info);
        if self.has_all(saved).await? {
            return Ok(Given {
                layers_kept: layers,
                by_manifest,
                ..Given::default()
            });
        }
        let kept = self.kept_layers(saved, &info).await?;
        let given = give_without(&kept, (kept.len(), layers), async |omit| {
            self.send(saved, omit).await
        });
        Ok(Given {
            by_manifest,
            ..given.await?
        })
    }

    /// Whether every image is there under all its names. Gives those their names that are there under others.
    async fn has_all(&self, saved: &Saved) -> Result<bool, EngineLoadError> {
        for (ids, names) in saved.identities() {
            let mut found = None;
            for id in ids {
                if self.ask(&format!("/images/{id}/json")).await?.is_some() {
                    found = Some(id);
                    break;
                }
            }
            let Some(id) = found else {
                return Ok(false);
            };
            for name in names {
                let known = self.ask(&format!("/images/{name}/json")).await?;
                let is_same = known.is_some_and(|known| known["Id"] == id.as_str());
                if !is_same {
                    let repository = name.name();
                    let tag = name.tag().unwrap_or_default();
                    let path = format!("/images/{id}/tag?repo={repository}&tag={tag}");
                    let answer = self.socket.post_nothing(&path).await;
                    let answer = answer.map_err(|source| self.failed(source))?;
                    if answer.status != 201 {
                        return Err(self.refused("a name", &answer));
                    }
                }
            }
        }
        Ok(true)
    }

    /// Layers that may be left out: the engine has them, on the same ones. Only engines with layers of their own may be sent an archive
    /// with holes; those on containerd know compressed blobs.
    async fn kept_layers(&self, saved: &Saved, info: &Value) -> Result<BTreeSet<Digest>, EngineLoadError> {
        let is_docker = info["ServerVersion"].is_string() && info["Swarm"].is_object();
        if is_on_containerd(info) || !is_docker {
            return Ok(BTreeSet::new());
        }
        let listed = self.ask("/images/json").await?.unwrap_or_default();
        let mut chains: Vec<Vec<String>> = Vec::new();
        for image in listed.as_array().into_iter().flatten().take(IMAGES_MAX) {
            let Some(id) = image["Id"].as_str().filter(|id| Digest::parse(id).is_ok()) else {
                continue;
            };
            let Some(image) = self.ask(&format!("/images/{id}/json")).await? else {
                continue;
            };
            let layers = image["RootFS"]["Layers"].as_array();
            let layers = layers.into_iter().flatten();
            chains.push(
                layers
                    .filter_map(|layer| Some(layer.as_str()?.to_owned()))
                    .collect(),
            );
        }
        let (mut kept, mut needed) = (BTreeSet::new(), BTreeSet::new());
        for (config, descriptors) in saved.parts() {
            let common = common(&config, &chains);
            for (at, layer) in descriptors.iter().enumerate() {
                let set = if at < common { &mut kept } else { &mut needed };
                set.insert(layer.digest.clone());
            }
        }
        // The same blob may be needed elsewhere.
        Ok(kept.difference(&needed).cloned().collect())
    }

    async fn send(&self, saved: &Arc<Saved>, omit: &BTreeSet<Digest>) -> Result<u64, EngineLoadError> {
        let (saved, omit) = (Arc::clone(saved), omit.clone());
        let sent = self.socket.post("/images/load?quiet=1", move |mut to| {
            let mut counting = Counting {
                to: &mut to,
                bytes: 0,
            };
            let written = saved.write_without(&omit, &mut counting);
            written.map(|()| counting.bytes)
        });
        let (answer, bytes) = match sent.await {
            (Err(_), Err(error @ SaveError::Layout(crate::export::layout::LayoutError::Blob { .. }))) => {
                return Err(error.into());
            }
            (Err(source), _) => return Err(self.failed(source)),
            // What it says before it has read everything counts.
            (Ok(answer), written) => (answer, written.unwrap_or_default()),
        };
        // Its errors come with a status of success, after what it said before.
        let lines = answer.body.split(|byte| *byte == b'\n');
        let error = lines
            .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
            .find_map(|said| Some(said.get("error")?.as_str()?.to_owned()));
        match error {
            None if answer.status == 200 => Ok(bytes),
            None => Err(self.refused("the archive", &answer)),
            Some(said) => Err(EngineLoadError::Refused {
                target: self.target.clone(),
                what: "the archive",
                said: Excerpt::from(said.as_str()).to_string(),
            }),
        }
    }
}

/// Whether an engine keeps its images in containerd, as it says of itself.
fn is_on_containerd(info: &Value) -> bool {
    info["DriverStatus"]
        .to_string()
        .contains("io.containerd.snapshotter")
}

/// How many of an image's layers, from the bottom, one of `chains` begins with.
fn common(config: &ImageConfig, chains: &[Vec<String>]) -> usize {
    let ours = &config.rootfs.diff_ids;
    let same = |chain: &Vec<String>| {
        let pairs = ours.iter().zip(chain);
        pairs
            .take_while(|(own, theirs)| own.0.as_str() == theirs.as_str())
            .count()
    };
    chains.iter().map(same).max().unwrap_or(0)
}

/// Gives images to containerd through `ctr images import`, without blobs that its content store has.
async fn to_containerd(saved: &Arc<Saved>) -> Result<Given, EngineLoadError> {
    let has = blocking(blobs_of_containerd).await?;
    let layers: Vec<&Descriptor> = saved.parts().flat_map(|(_, layers)| layers).collect();
    let kept: BTreeSet<Digest> = layers
        .iter()
        .filter(|layer| has.contains(&layer.digest))
        .map(|layer| layer.digest.clone())
        .collect();
    let count = layers.iter().filter(|layer| kept.contains(&layer.digest)).count();
    let layers = layers.len();
    let given = give_without(&kept, (count, layers), async |omit| {
        let (saved, omit) = (Arc::clone(saved), omit.clone());
        blocking(move || import(&saved, &omit)).await
    });
    Ok(Given {
        by_manifest: true,
        ..given.await?
    })
}

fn blobs_of_containerd() -> Result<BTreeSet<Digest>, EngineLoadError> {
    let listed = Command::new("ctr")
        .args(["content", "ls", "-q"])
        .stdin(Stdio::null())
        .output()
        .map_err(EngineLoadError::Program)?;
    if !listed.status.success() {
        return Err(refused_by_ctr("to be asked", &listed.stderr));
    }
    let text = String::from_utf8_lossy(&listed.stdout);
    let digests = text.lines().filter_map(|line| Digest::parse(line.trim()).ok());
    Ok(digests.collect())
}

/// Sends all but `kept`, which are so many of the layers; if that is refused, everything: the engine may have lost what it
/// said it has.
async fn give_without(
    kept: &BTreeSet<Digest>,
    (count, layers): (usize, usize),
    send: impl AsyncFn(&BTreeSet<Digest>) -> Result<u64, EngineLoadError>,
) -> Result<Given, EngineLoadError> {
    let (sent_bytes, layers_kept) = match send(kept).await {
        Ok(bytes) => (bytes, count),
        Err(EngineLoadError::Refused { .. }) if count > 0 => (send(&BTreeSet::new()).await?, 0),
        Err(error) => return Err(error),
    };
    Ok(Given {
        sent_bytes,
        layers_sent: layers.saturating_sub(layers_kept),
        layers_kept,
        by_manifest: false,
    })
}

/// Has containerd read an archive without the layers of `omit`; gives its size.
fn import(saved: &Saved, omit: &BTreeSet<Digest>) -> Result<u64, EngineLoadError> {
    let mut import = Command::new("ctr")
        .args(["images", "import", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(EngineLoadError::Program)?;
    let mut sent_bytes = 0;
    let mut written = Ok(());
    if let Some(mut to) = import.stdin.take() {
        let mut counting = Counting {
            to: &mut to,
            bytes: 0,
        };
        written = saved.write_without(omit, &mut counting);
        sent_bytes = counting.bytes;
    }
    let mut said = Vec::new();
    if let Some(errors) = import.stderr.take() {
        // What it said is for an error only; that it ended is what counts.
        let _unread = errors.take(SAID_BYTES_MAX).read_to_end(&mut said);
    }
    let status = import.wait().map_err(EngineLoadError::Program)?;
    if !status.success() {
        return Err(refused_by_ctr("the archive", &said));
    }
    written?;
    Ok(sent_bytes)
}

fn refused_by_ctr(what: &'static str, said: &[u8]) -> EngineLoadError {
    EngineLoadError::Refused {
        target: EngineTarget::Containerd.to_string(),
        what,
        said: Excerpt::new(said).to_string(),
    }
}

#[cfg(test)]
mod tests;
