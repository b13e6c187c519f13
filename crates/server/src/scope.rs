//! Who asked for what in a build, for provenance: every front end has a scope, with the graphs it had solved and the
//! images it looked at (`solver/llbsolver/provenance.go`, `provenanceBridge`). A result was made of all that the scope it
//! comes from took in, whether its graph says so or not.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard_buildkit_proto::pb;
use rbuild_builder::error::chain_text;
use rbuild_builder::job::Job;
use rbuild_builder::provenance::capture::{Capture, ImageSource};
use rbuild_builder::provenance::draft;
use rbuild_builder::provenance::request::{Record, Request};
use rbuild_oci::Platform;
use tonic::Status;

use crate::answer::{Answer, BuildRef};
use crate::front_end::Asked;
use crate::producers::{Producers, Registration};

/// Most graphs, images and scopes of one scope. A build that has more is told to be incomplete.
const ENTRIES_MAX: usize = 10_000;

/// A front end at work, or the client itself.
#[derive(Debug, Default)]
pub struct Scope {
    /// What it was asked for; nothing where the client asks for itself.
    asked: Option<Asked>,
    /// What the client asked for, above all others.
    root: Option<Arc<Asked>>,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    refs: Vec<Arc<BuildRef>>,
    scopes: Vec<Arc<Scope>>,
    images: BTreeSet<ImageSource>,
    /// What it took in beside graphs.
    taken: Capture,
    registered: Vec<Registration>,
}

impl Scope {
    /// The scope of a client that asks for `asked`.
    #[must_use]
    pub fn root(asked: &Asked) -> Self {
        Self {
            root: Some(Arc::new(builtin(asked.clone()))),
            ..Self::default()
        }
    }

    /// A scope for a front end that is asked for `asked` from here.
    #[must_use]
    pub fn child(&self, asked: &Asked) -> Arc<Self> {
        let root = self.root.clone().filter(|root| says_anything(root));
        let above = || self.asked.clone().map(Arc::new);
        let child = Arc::new(Self {
            asked: Some(builtin(asked.clone())),
            root: root.or_else(above),
            entries: Mutex::default(),
        });
        let mut entries = self.lock();
        if entries.scopes.len() < ENTRIES_MAX {
            entries.scopes.push(Arc::clone(&child));
        } else {
            entries.taken.incomplete_materials = true;
        }
        child
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a graph of this scope.
    pub fn add(&self, found: &Arc<BuildRef>) {
        let mut entries = self.lock();
        if entries.refs.len() < ENTRIES_MAX {
            entries.refs.push(Arc::clone(found));
        } else {
            entries.taken.incomplete_materials = true;
        }
    }

    /// Notes images that were looked at.
    pub fn add_images(&self, images: impl IntoIterator<Item = ImageSource>) {
        let mut entries = self.lock();
        entries.images.extend(images);
        if entries.images.len() > ENTRIES_MAX {
            entries.images.clear();
            entries.taken.incomplete_materials = true;
        }
    }

    /// Notes that a directory of the client was read.
    pub(crate) fn add_local(&self, name: &str) {
        self.lock().taken.locals.insert(name.to_owned());
    }

    /// Tells other builds who made the file systems of `answer`, for as long as this build runs.
    pub fn register(&self, producers: &Arc<Producers>, answer: &Answer) {
        for (_, found) in answer.all() {
            let Some(definition) = found.and_then(|found| found.definition()) else {
                continue;
            };
            if let Some(request) = self.request(producers, &Capture::default()) {
                let record = request.located(&Capture::default());
                let registration = producers.register(definition, record);
                self.lock().registered.extend(registration);
            }
        }
    }

    /// The innermost scope that `found` is of.
    fn of(self: &Arc<Self>, found: &Arc<BuildRef>) -> Option<Arc<Self>> {
        let (scopes, is_own) = {
            let entries = self.lock();
            let is_own = entries.refs.iter().any(|known| Arc::ptr_eq(known, found));
            (entries.scopes.clone(), is_own)
        };
        let mut inner = scopes.iter().filter_map(|scope| scope.of(found));
        inner.next().or_else(|| is_own.then(|| Arc::clone(self)))
    }

    fn all_refs(&self) -> Vec<Arc<BuildRef>> {
        let (mut refs, scopes) = {
            let entries = self.lock();
            (entries.refs.clone(), entries.scopes.clone())
        };
        refs.extend(scopes.iter().flat_map(|scope| scope.all_refs()));
        refs
    }

    fn all_images(&self) -> BTreeSet<ImageSource> {
        let (mut images, scopes) = {
            let entries = self.lock();
            (entries.images.clone(), entries.scopes.clone())
        };
        images.extend(scopes.iter().flat_map(|scope| scope.all_images()));
        images
    }

    fn all_taken(&self) -> Capture {
        let (mut taken, scopes) = {
            let entries = self.lock();
            (entries.taken.clone(), entries.scopes.clone())
        };
        for scope in scopes {
            taken.merge(scope.all_taken());
        }
        taken
    }

    /// What was asked for, as provenance says it; nothing where the client asked for itself.
    fn request(&self, producers: &Producers, capture: &Capture) -> Option<Request> {
        let asked = self.asked.as_ref()?;
        let mut request = told(asked, producers);
        let own = request.clone().located(capture);
        let root = self.root.as_deref().filter(|root| says_anything(root));
        let root = root.map(|root| told(root, producers).located(capture));
        request.root = root.filter(|root| !root.is_empty() && *root != own).map(Box::new);
        Some(request)
    }
}

fn told(asked: &Asked, producers: &Producers) -> Request {
    let inputs = asked.inputs.iter();
    let inputs = inputs.filter_map(|(name, input)| Some((name.clone(), producers.find(input)?)));
    Request {
        inputs: inputs.collect::<BTreeMap<String, Record>>(),
        ..Request::new(&asked.frontend, &asked.attrs)
    }
}

fn says_anything(asked: &Asked) -> bool {
    !asked.frontend.is_empty() || !asked.attrs.is_empty() || !asked.inputs.is_empty()
}

/// The front end that is part of this program, asked for through the one that runs others, is asked for itself.
fn builtin(mut asked: Asked) -> Asked {
    const DOCKERFILE: &str = "dockerfile.v0";
    const SOURCE: &str = "source";
    let replaced =
        |key: &String| key == "context:dockerfile.v0" || key.starts_with("context:dockerfile.v0::");
    let is_builtin = asked.attrs.get(SOURCE).is_some_and(|source| source == DOCKERFILE);
    if asked.frontend == "gateway.v0" && is_builtin && !asked.attrs.keys().any(replaced) {
        asked.attrs.remove(SOURCE);
        asked.frontend = DOCKERFILE.to_owned();
    }
    asked
}

/// How a result was asked for and what it was made of.
#[derive(Debug, Clone)]
pub struct Origin {
    /// What it was made of.
    pub capture: Capture,
    /// What was asked for; empty where the client made the graph itself.
    pub request: Request,
}

/// The platforms of an answer, by their ids.
pub type Platforms<'a> = [(&'a str, &'a Platform)];

/// Where `found` of `answer` comes from. With `id`, it is the one of several for that platform.
///
/// # Errors
/// `internal` for a graph that is not whole.
pub async fn origin(
    job: &Job,
    root: &Arc<Scope>,
    producers: &Producers,
    answer: &Answer,
    found: &Arc<BuildRef>,
    (id, platforms): (Option<&str>, &Platforms<'_>),
) -> Result<Origin, Status> {
    let scope = root.of(found).unwrap_or_else(|| Arc::clone(root));
    let mut capture = capture_of(job, found).await?;
    let request = scope.request(producers, &capture).unwrap_or_default();
    for other in others(&scope, answer) {
        capture.merge(capture_of(job, &other).await?);
    }
    capture.merge(scope.all_taken());
    let images = scope.all_images();
    capture.add_images(match id {
        Some(id) => of_platform(images, id, platforms),
        None => images,
    });
    Ok(Origin { capture, request })
}

/// What `scope` had built that is no result of `answer`.
fn others(scope: &Scope, answer: &Answer) -> Vec<Arc<BuildRef>> {
    let results = answer.all().into_iter().filter_map(|(_, found)| found);
    let results = results.chain(answer.attested());
    let mut seen: HashSet<*const BuildRef> = results.map(Arc::as_ptr).collect();
    let mut others = scope.all_refs();
    others.retain(|other| seen.insert(Arc::as_ptr(other)) && other.is_built());
    others
}

async fn capture_of(job: &Job, found: &BuildRef) -> Result<Capture, Status> {
    let Some((graph, target)) = found.ruled() else {
        return Ok(Capture::default());
    };
    let capture = draft::capture(job, graph, target).await;
    capture.map_err(|error| Status::internal(chain_text(&error)))
}

/// Without the images that were looked at for other platforms: those that were looked at for all of them.
fn of_platform(images: BTreeSet<ImageSource>, id: &str, platforms: &Platforms<'_>) -> BTreeSet<ImageSource> {
    let Some((_, current)) = platforms.iter().find(|(known, _)| *known == id) else {
        return images;
    };
    let is_for = |image: &ImageSource, platform: &Platform| {
        image.platform.as_deref() == Some(platform.to_string().as_str())
    };
    let for_all = |reference: &str| {
        platforms.iter().all(|(_, platform)| {
            let mut named = images.iter().filter(|image| image.reference == reference);
            named.any(|image| is_for(image, platform))
        })
    };
    let kept = images
        .iter()
        .filter(|image| is_for(image, current) || !for_all(&image.reference));
    kept.cloned().collect()
}

/// The digest of what a definition's target is.
#[must_use]
pub fn head(definition: &pb::Definition) -> Option<String> {
    use prost::Message as _;
    let last = definition.def.last()?;
    let op = pb::Op::decode(last.as_slice()).ok()?;
    op.inputs.first().map(|input| input.digest.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(frontend: &str, attrs: &[(&str, &str)]) -> Asked {
        let attrs = attrs.iter();
        let attrs = attrs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Asked {
            frontend: frontend.to_owned(),
            attrs: attrs.collect(),
            ..Asked::default()
        }
    }

    #[test]
    fn a_request_has_the_clients_above_it_if_that_is_another() {
        let producers = Producers::default();
        let capture = Capture::default();
        let client = asked("", &[("root-request", "x")]);
        let root = Scope::root(&client);
        assert_eq!(root.request(&producers, &capture), None);
        let inner = root.child(&asked("dockerfile.v0", &[("target", "t")]));
        let request = inner.request(&producers, &capture).unwrap();
        assert_eq!(request.args["target"], "t");
        assert_eq!(request.root.unwrap().request.args["root-request"], "x");
        // The same request is not said twice.
        let same = asked("dockerfile.v0", &[("filename", "F")]);
        let direct = Scope::root(&same).child(&same);
        assert_eq!(direct.request(&producers, &capture).unwrap().root, None);
    }

    #[test]
    fn the_builtin_front_end_is_told_by_its_own_name() {
        let producers = Producers::default();
        let gateway = asked("gateway.v0", &[("source", "dockerfile.v0"), ("target", "t")]);
        let request = Scope::root(&gateway)
            .child(&gateway)
            .request(&producers, &Capture::default())
            .unwrap();
        assert_eq!(request.frontend, "dockerfile.v0");
        assert!(!request.args.contains_key("source"));
        let named = [("source", "dockerfile.v0"), ("context:dockerfile.v0", "x")];
        assert_eq!(builtin(asked("gateway.v0", &named)).frontend, "gateway.v0");
    }

    #[test]
    fn images_of_other_platforms_are_not_told() {
        let image = |name: &str, platform: &str| {
            let platform = Platform::parse(platform).unwrap();
            ImageSource::of(
                rbuild_builder::provenance::purl::Kind::Docker,
                name,
                Some(&platform),
                None,
            )
            .unwrap()
        };
        let images = BTreeSet::from([
            image("base", "linux/amd64"),
            image("base", "linux/arm64"),
            image("tool", "linux/amd64"),
        ]);
        let (amd, arm) = (Platform::new("linux", "amd64"), Platform::new("linux", "arm64"));
        let platforms = [("linux/amd64", &amd), ("linux/arm64", &arm)];
        let kept = of_platform(images, "linux/arm64", &platforms);
        assert_eq!(
            kept,
            BTreeSet::from([image("base", "linux/arm64"), image("tool", "linux/amd64")])
        );
    }

    #[test]
    fn row48_a_scope_that_holds_too_much_is_told_to_be_incomplete() {
        let scope = Arc::new(Scope::default());
        let images = (0..=ENTRIES_MAX).filter_map(|number| {
            let kind = rbuild_builder::provenance::purl::Kind::Docker;
            ImageSource::of(kind, &format!("image{number}"), None, None)
        });
        scope.add_images(images);
        assert!(scope.all_images().is_empty() && scope.all_taken().incomplete_materials);
        let few = Scope::default();
        few.add_local("context");
        assert!(!few.all_taken().incomplete_materials);
    }
}
