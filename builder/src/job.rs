//! One build at work: what the graphs it solves share, and what its request sets for all of them.

mod executor;
mod network;
mod results;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_graph::Vertex;
use rbuild_graph::progress::Sink;
use rbuild_store::{LayerId, Lease};
use tokio::sync::{OnceCell, Semaphore};

use crate::cache_transfer::book::Book;
use crate::cdi::{CdiConfig, DeviceGrants};
use crate::client::Client;
use crate::engine::Engine;
use crate::failed::Failures;
use crate::failed_step::FailedStep;
use crate::images::RemoteLayer;
use crate::ops;
pub use crate::ops::network_files::Dns;
use crate::private_network::PrivateNetwork;
use crate::provenance::usage::Usage;
use crate::proxy_network::Captures;
use crate::request::{Entitlement, OnError, StepRules};
use crate::source_policy::SourcePolicies;
use crate::straight;

use network::ProxyAuthority;
pub(crate) use network::{Place, StepNetwork, put_variables};
pub use results::{Invocation, Results};

/// Different warnings of sandboxes that are told.
const TOLD_MAX: usize = 1000;

/// Steps that run at once when the user sets no limit: BuildKit has none, but every one holds processes and threads.
const STEPS_MAX: usize = 128;

/// What a request sets for all steps of its build.
#[derive(Debug, Default)]
pub struct Settings {
    /// What steps may do beyond the sandbox.
    pub entitlements: Vec<Entitlement>,
    /// Where the devices of the host are described; nothing where steps get none.
    pub cdi: Option<CdiConfig>,
    /// Devices that steps may use.
    pub devices: DeviceGrants,
    /// The host's certificates, with `--host-ca`.
    pub host_ca: Option<ops::host_ca::Bundle>,
    /// `--shm-size`, bytes.
    pub shm_size_bytes: Option<u64>,
    /// `--no-cache`: cache mounts with an owner or a mode begin anew.
    pub fresh_mounts: bool,
    /// Rules for the sources of the build.
    pub policies: Arc<SourcePolicies>,
    /// Sets builds of different projects apart when a miss is explained.
    pub site: String,
    /// Most steps at once; a number of our own if absent.
    pub jobs: Option<usize>,
    /// Places for steps that several builds share, instead of a number for this one.
    pub steps: Option<Arc<Semaphore>>,
    /// What becomes of steps that fail, hang, or do not get the limits they were to have.
    pub rules: StepRules,
    /// What steps are told of name servers instead of what the host's file says.
    pub dns: Dns,
    /// Images hold the cache that made them.
    pub inline_cache: bool,
    /// What failed operations leave is kept, for a client that looks into it.
    pub keep_failed: bool,
    /// What the administrator adds to provenance.
    pub provenance_keys: serde_json::Map<String, serde_json::Value>,
}

/// One build: what all the graphs it solves share.
pub struct Job {
    /// Store, images, form: what all builds of a process share.
    pub engine: Arc<Engine>,
    /// Keeps what this build touches from being collected.
    pub lease: Arc<Lease>,
    /// Whoever asked for the build: has its directories and secrets.
    pub client: Arc<dyn Client>,
    /// What the request sets for all its steps.
    pub settings: Settings,
    /// What remote sources answered.
    pub sources: Arc<ops::source::Sources>,
    /// Layers that can be fetched.
    pub remotes: Mutex<HashMap<LayerId, Arc<RemoteLayer>>>,
    /// Layers being fetched or unpacked, each once.
    pub fetches: Mutex<HashMap<LayerId, Arc<OnceCell<LayerId>>>>,
    /// What is known of keys, for caches that are exported, and from caches that were imported.
    pub book: Book,
    /// Cache mounts that were begun anew in this build.
    pub begun_mounts: Mutex<HashSet<String>>,
    /// What its vertices turned out to be.
    pub results: Results,
    /// The vertices whose results are only exported.
    pub(crate) finals: straight::Finals,
    /// What its failed operations left.
    pub failures: Failures,
    /// Names it in provenance.
    pub invocation: Invocation,
    /// How busy the machine is meanwhile, for provenance that tells it.
    pub usage: Usage,
    /// Files of the client, each fetched once.
    pub uploads: ops::source::upload::Uploads,
    /// The step that failed first, kept as long as somebody wants to look at it.
    failed: Mutex<Option<FailedStep>>,
    /// The network of its steps, if they have one of their own.
    network: OnceCell<Arc<PrivateNetwork>>,
    /// Vouches for the proxies of its steps.
    proxy_authority: ProxyAuthority,
    /// What its steps fetched through proxies.
    pub captures: Captures,
    /// Warnings of sandboxes, each told once: what this machine lacks, it lacks for every step.
    told: Mutex<HashSet<String>>,
    /// Limits steps that run at once.
    pub steps: Arc<Semaphore>,
    /// Limits work of our own that keeps a processor busy.
    pub processors: Semaphore,
    /// Where progress goes.
    pub sink: Arc<dyn Sink>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl Job {
    /// A build for `client` that keeps what it makes by `lease`, and shows what it does to `sink`.
    #[must_use]
    pub fn new(
        engine: Arc<Engine>,
        lease: Arc<Lease>,
        client: Arc<dyn Client>,
        settings: Settings,
        sink: Arc<dyn Sink>,
    ) -> Self {
        Self {
            sources: Arc::default(),
            remotes: Mutex::default(),
            fetches: Mutex::default(),
            book: Book::default(),
            begun_mounts: Mutex::default(),
            failed: Mutex::default(),
            network: OnceCell::new(),
            proxy_authority: ProxyAuthority::default(),
            captures: Captures::default(),
            told: Mutex::default(),
            results: Results::default(),
            finals: straight::Finals::default(),
            failures: Failures::default(),
            invocation: Invocation::of(lease.dir()),
            usage: Usage::default(),
            uploads: ops::source::upload::Uploads::default(),
            steps: settings.steps.clone().unwrap_or_else(|| {
                let most = settings.jobs.unwrap_or(STEPS_MAX);
                Arc::new(Semaphore::new(most.clamp(1, STEPS_MAX)))
            }),
            processors: Semaphore::new(rbuild_sys::process::processors()),
            engine,
            lease,
            client,
            settings,
            sink,
        }
    }

    /// Whether the build was given `entitlement`.
    #[must_use]
    pub fn may(&self, entitlement: Entitlement) -> bool {
        self.settings.entitlements.contains(&entitlement)
    }

    /// Keeps what a step left that failed, if somebody wants to look at it and nothing failed before.
    pub(crate) fn keep_failed(&self, failed: FailedStep) {
        if self.settings.rules.on_error != OnError::Fail {
            let mut first = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(failed);
        }
    }

    /// What the first step left that failed.
    pub(crate) fn take_failed(&self) -> Option<FailedStep> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether nobody was told `warning` yet; from here on somebody was.
    pub(crate) fn is_news(&self, warning: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < TOLD_MAX && told.insert(warning.to_owned())
    }

    /// The layer's place to be fetched from, if it has one.
    #[must_use]
    pub fn remote(&self, layer: &LayerId) -> Option<Arc<RemoteLayer>> {
        self.remotes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(layer)
            .cloned()
    }

    /// Names the place of `vertex` in its project, so that a miss is compared with what stood there before.
    pub(crate) fn site_of(&self, vertex: &Vertex) -> String {
        let name = &vertex.meta.name;
        let place = name.split_inclusive(']').next().unwrap_or(name);
        format!("{}{place}", self.settings.site)
    }
}
