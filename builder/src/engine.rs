//! What all builds of a process share: the store, the snapshotter, the images it can reach.

use std::sync::Arc;

use rbuild_fileops::{SourceTree, StatCache, StatKey, StatTable};
use rbuild_registry::Client;
use rbuild_sandbox::{Confinement, Sandbox};
use rbuild_snapshotter::{Means, Snapshotter};
use rbuild_store::{FormName, Store};
use rbuild_sys::overlay::Form;

use crate::images::Images;

/// Table of the store with what is known of the files of contexts.
const STAT_SPACE: &str = "context-stat";

/// Store, snapshotter, images.
#[derive(Debug)]
pub struct Engine {
    /// Everything kept on disk.
    pub store: Store,
    /// Layers as mounted trees.
    pub snapshotter: Snapshotter,
    /// Images of the outside.
    pub images: Images,
    /// Starts steps.
    pub sandbox: Arc<Sandbox>,
    /// How layer directories keep overlay metadata here.
    pub form: Form,
    /// The name of that form and its owners.
    pub form_name: FormName,
    /// What keeps steps apart.
    pub confinement: Confinement,
}

impl Engine {
    /// An engine on `store`, which reaches registries through `client`.
    #[must_use]
    pub fn new(store: Store, client: Client, sandbox: Sandbox, form: Form, form_name: FormName) -> Self {
        let snapshotter = Snapshotter::new(Arc::new(store.clone()), form, form_name.clone());
        let images = Images::new(store.clone(), client);
        Self {
            store,
            snapshotter,
            images,
            sandbox: Arc::new(sandbox),
            form,
            form_name,
            confinement: Confinement::default(),
        }
    }

    /// The same with steps that something else keeps apart.
    #[must_use]
    pub fn with_confinement(self, confinement: Confinement) -> Self {
        Self { confinement, ..self }
    }

    /// The same with another way to show stacks of layers.
    #[must_use]
    pub fn with_means(self, means: Means) -> Self {
        Self {
            snapshotter: self.snapshotter.with_means(means),
            ..self
        }
    }

    /// The same store and sandbox for somebody with other credentials.
    #[must_use]
    pub fn with_client(&self, client: Client) -> Self {
        Self {
            store: self.store.clone(),
            snapshotter: self.snapshotter.clone(),
            images: Images::new(self.store.clone(), client),
            sandbox: Arc::clone(&self.sandbox),
            form: self.form,
            form_name: self.form_name.clone(),
            confinement: self.confinement,
        }
    }

    /// What is remembered of the files of a context; nothing for others, whose hashes are kept by their layers' names.
    #[must_use]
    pub fn stat_cache(&self, tree: &SourceTree) -> StoredStats {
        let SourceTree::Context(context) = tree else {
            return StoredStats {
                table: StatTable::default(),
                at: None,
            };
        };
        let name = rbuild_oci::Digest::sha256(context.path().as_os_str().as_encoded_bytes());
        // A table that cannot be read is an empty one: every file is hashed again.
        let bytes = self
            .store
            .kv(STAT_SPACE, name.as_str())
            .ok()
            .flatten()
            .unwrap_or_default();
        StoredStats {
            table: StatTable::load(&bytes),
            at: Some((self.store.clone(), name.to_string())),
        }
    }
}

/// A stat cache that is kept in the store.
#[derive(Debug)]
pub struct StoredStats {
    table: StatTable,
    at: Option<(Store, String)>,
}

impl StoredStats {
    /// Keeps what was learnt.
    pub fn save(&self) {
        if let (Some((store, name)), Some(bytes)) = (&self.at, self.table.save()) {
            // Not kept means hashed again; a build does not fail for that.
            drop(store.put_kv(STAT_SPACE, name, &bytes));
        }
    }
}

impl StatCache for StoredStats {
    fn get(&self, key: &StatKey) -> Option<[u8; 32]> {
        if self.at.is_some() {
            self.table.get(key)
        } else {
            None
        }
    }

    fn put(&self, entries: Vec<(StatKey, [u8; 32])>) {
        if self.at.is_some() {
            self.table.put(entries);
        }
    }
}

/// The place of the store: `--root`, else `RBUILD_ROOT`, else the user's data directory, else the system's.
#[must_use]
pub fn default_root(
    env: impl Fn(&str) -> Option<std::ffi::OsString>,
    is_root: bool,
) -> Option<std::path::PathBuf> {
    let set = |name: &str| {
        env(name)
            .filter(|value| !value.is_empty())
            .map(std::path::PathBuf::from)
    };
    if let Some(root) = set("RBUILD_ROOT") {
        return Some(root);
    }
    if is_root {
        return Some("/var/lib/rbuild".into());
    }
    let data = set("XDG_DATA_HOME").filter(|path| path.is_absolute());
    data.or_else(|| set("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("rbuild"))
}
