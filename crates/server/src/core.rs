//! What all services of the server share.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::types::{BuildkitVersion, CdiDevice, GcPolicy, WorkerRecord};
use rbuild_builder::cdi::{CdiConfig, Device, Devices};
use rbuild_builder::engine::Engine;
use rbuild_builder::job::Dns;
use rbuild_builder::request::Entitlement;
use rbuild_llb::encode_platform;
use rbuild_oci::Reference;
use rbuild_registry::RegistryConfig;
use rbuild_session::Sessions;
use tokio::sync::Semaphore;

use crate::builds::Builds;
use crate::gc;
use crate::history;
use crate::history::History;
use crate::platforms;
use crate::producers::Producers;

/// Most sessions at once.
const SESSIONS_MAX: usize = 1024;
/// BuildKit's version whose API this is; clients compare it.
const API_VERSION: &str = "v0.29.0";

/// What the server is told when it starts.
#[derive(Debug, Default)]
pub struct Settings {
    /// Labels of the worker.
    pub labels: HashMap<String, String>,
    /// What builds may be given (`insecure-entitlements`).
    pub entitlements: Vec<Entitlement>,
    /// Mirrors, certificates and insecure hosts.
    pub registries: RegistryConfig,
    /// What provenance says of this machine besides its platform (`provenanceEnvDir`).
    pub provenance_keys: serde_json::Map<String, serde_json::Value>,
    /// What is collected by itself.
    pub gc: gc::Rules,
    /// Most steps at once, of all builds together; each build has a limit of its own if absent.
    pub steps_max: Option<usize>,
    /// What the host's resolver file says otherwise.
    pub dns: Dns,
    /// How much of the history is kept.
    pub history: history::Limits,
    /// Front ends that may not be used.
    pub front_ends: FrontEnds,
    /// Steps of all builds reach the network through proxies only.
    pub proxy_network: bool,
    /// Where the devices of the host are described (`[cdi]`); nothing where builds get none.
    pub cdi: Option<CdiConfig>,
}

/// What `[frontend]` of the configuration refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrontEnds {
    /// The built-in Dockerfile front end is switched off.
    pub no_dockerfile: bool,
    /// Images are never front ends.
    pub no_gateway: bool,
    /// Repositories whose images may be front ends, as the file spells them; all if there are none.
    pub repositories: Vec<String>,
}

impl FrontEnds {
    /// Whether the image `reference` may be run as a front end.
    #[must_use]
    pub fn allow(&self, reference: &Reference) -> bool {
        let name = reference.name();
        let same = |text: &String| Reference::parse(text).is_ok_and(|allowed| allowed.name() == name);
        !self.no_gateway && (self.repositories.is_empty() || self.repositories.iter().any(same))
    }
}

/// The server's state.
#[derive(Debug)]
pub struct Core {
    /// Store and sandbox. Its registry client has no credentials: each build has its client's.
    pub engine: Arc<Engine>,
    /// As it was started.
    pub settings: Settings,
    /// Clients that can be asked.
    pub sessions: Sessions,
    /// Builds that run.
    pub builds: Builds,
    /// Builds that ran.
    pub history: History,
    /// What is collected by itself.
    pub gc: Vec<GcPolicy>,
    /// A place for each step that may run.
    pub steps: Option<Arc<Semaphore>>,
    /// Who made the graphs that builds take as inputs.
    pub producers: Arc<Producers>,
    worker_id: String,
}

impl Core {
    /// The state of a new server.
    #[must_use]
    pub fn new(engine: Arc<Engine>, settings: Settings) -> Self {
        let place = engine.store.root().display().to_string();
        let digest = rbuild_oci::Digest::sha256(place.as_bytes());
        Self {
            history: History::new(engine.store.clone(), settings.history),
            gc: settings.gc.policies(engine.store.root()),
            steps: settings.steps_max.map(|most| Arc::new(Semaphore::new(most))),
            producers: Arc::default(),
            engine,
            settings,
            sessions: Sessions::new(SESSIONS_MAX),
            builds: Builds::default(),
            // The same for the same store, as BuildKit's worker id is kept in its root.
            worker_id: digest.hex()[..25].to_owned(),
        }
    }

    /// The devices of the host that builds may ask for.
    fn devices(&self) -> Vec<CdiDevice> {
        let devices = self.settings.cdi.as_ref().map(Devices::read).unwrap_or_default();
        let device = |device: &Device| CdiDevice {
            name: device.name.clone(),
            auto_allow: device.auto_allow,
            annotations: device.annotations.clone().into_iter().collect(),
            on_demand: false,
        };
        devices.all().map(device).collect()
    }

    /// The only worker. Reads the files that describe devices.
    #[must_use]
    pub fn worker(&self) -> WorkerRecord {
        let mut labels = self.settings.labels.clone();
        let mut put = |key: &str, value: &str| {
            labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        };
        put("org.mobyproject.buildkit.worker.executor", "rbuild");
        put("org.mobyproject.buildkit.worker.snapshotter", "overlayfs");
        put("org.mobyproject.buildkit.worker.network", "host");
        WorkerRecord {
            id: self.worker_id.clone(),
            labels,
            platforms: platforms::supported().iter().map(encode_platform).collect(),
            buildkit_version: Some(version()),
            gc_policy: self.gc.clone(),
            cdi_devices: self.devices(),
        }
    }
}

/// What this server says it is.
#[must_use]
pub fn version() -> BuildkitVersion {
    BuildkitVersion {
        package: "github.com/moby/buildkit".to_owned(),
        version: API_VERSION.to_owned(),
        revision: concat!("rbuild-", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}
