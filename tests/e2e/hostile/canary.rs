//! What stands beside the store and must stay as it is, and one attack on one rung: a build that works or is refused, told
//! apart.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rbuild_testkit::command::{RbuildCommand, TestHome};
use rbuild_testkit::image::{Files, OciLayout, entries};
use rbuild_testkit::layout::{ImageBuilder, LayerBuilder};
use rbuild_testkit::leak::{holders, holds};
use rbuild_testkit::machine;

use crate::e2e::fixture::Fixture;
use crate::e2e::ladder::WITHOUT_RANGES;

/// The bytes of the canary's files: they are in nothing that a build makes, prints or keeps.
pub(crate) const BYTES: &str = "c4n4ry-bytes-of-the-host";

/// A directory of the host on the file system of the store, owned by the user that builds.
pub(crate) struct Canary {
    pub(crate) dir: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

impl Canary {
    pub(crate) fn in_home(fixture: &Fixture) -> Self {
        let dir = fixture.home.work().join("canary");
        fs::create_dir_all(dir.join("dir")).unwrap();
        fs::create_dir(dir.join("emptyd")).unwrap();
        for name in ["secret", "victim", "dir/inner"] {
            fs::write(dir.join(name), BYTES).unwrap();
        }
        fs::write(dir.join("empty"), "").unwrap();
        fixture.home.hand_over();
        let before = Self::look(&dir);
        Self { dir, before }
    }

    fn look(dir: &Path) -> BTreeMap<PathBuf, String> {
        let mut seen = BTreeMap::new();
        let mut todo = vec![dir.to_owned()];
        while let Some(path) = todo.pop() {
            let m = path.symlink_metadata().unwrap();
            let content = if m.is_file() {
                fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            let facts = format!(
                "{:o} {}:{} ino {} links {} size {} mtime {}.{} {content:?}",
                m.mode(),
                m.uid(),
                m.gid(),
                m.ino(),
                m.nlink(),
                m.size(),
                m.mtime(),
                m.mtime_nsec()
            );
            if m.is_dir() {
                todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            seen.insert(path, facts);
        }
        seen
    }

    #[track_caller]
    pub(crate) fn assert_untouched(&self) {
        assert_eq!(Self::look(&self.dir), self.before, "the host was touched");
    }

    /// The canary's path as text.
    pub(crate) fn absolute(&self) -> String {
        self.dir.display().to_string()
    }

    /// The canary's path as the name it has below a root.
    pub(crate) fn inside(&self) -> String {
        self.absolute().trim_start_matches('/').to_owned()
    }

    /// The canary as a name inside an archive, by `..`.
    pub(crate) fn climbing(&self) -> String {
        format!("{}{}", "../".repeat(24), self.inside())
    }
}

/// The rungs of the ladder that this machine has, told by `--rung`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rung {
    Root,
    Subids,
    OneId,
    Chroot,
    /// No steps.
    Files,
}

impl Rung {
    /// Root has all four where there is an ordinary user; anybody else is on a rung already, which is left to the program.
    pub(crate) fn here() -> Vec<Self> {
        if crate::e2e::ordinary_user().is_some() {
            vec![Self::Root, Self::Subids, Self::OneId, Self::Chroot]
        } else {
            vec![Self::Root]
        }
    }

    /// The same with the rung that runs no step, for what needs none.
    pub(crate) fn unpacking() -> Vec<Self> {
        let mut all = Self::here();
        all.extend(crate::e2e::ordinary_user().map(|_| Self::Files));
        all
    }

    /// Those of them on which files can be mounted.
    pub(crate) fn with_mounts() -> Vec<Self> {
        let all = Self::here().into_iter();
        all.filter(|rung| *rung != Self::Chroot).collect()
    }

    fn home(self) -> TestHome {
        match (self, machine::ordinary_user()) {
            (Self::Subids, Some(user)) => TestHome::for_user(user.uid, user.gid),
            (Self::OneId | Self::Files, _) => TestHome::for_user(WITHOUT_RANGES, WITHOUT_RANGES),
            _ => TestHome::new(),
        }
    }

    /// Who builds there.
    pub(crate) fn user(self) -> u32 {
        match (self, machine::ordinary_user()) {
            (Self::Subids, Some(user)) => user.uid,
            (Self::OneId | Self::Files, _) => WITHOUT_RANGES,
            _ => rustix::process::getuid().as_raw(),
        }
    }

    pub(crate) fn argument(self) -> Option<&'static str> {
        match self {
            Self::Root => machine::is_root().then_some("--rung=root"),
            Self::Subids => Some("--rung=subids"),
            Self::OneId => Some("--rung=one-id"),
            Self::Chroot => Some("--rung=chroot"),
            Self::Files => Some("--rung=files"),
        }
    }
}

/// Nobody's number, and not that of the one-id rung.
pub(crate) const OTHER: u32 = 3_999_999_778;

/// A second user of the machine finds the directory of the store, and nothing in it.
#[track_caller]
fn assert_nothing_for_others(store: &Path) {
    if !machine::is_root() || !store.exists() {
        return;
    }
    let find = RbuildCommand::new(machine::program("find").expect("find"));
    let listed = find.user(OTHER, OTHER).arg(store).run();
    assert_eq!(listed.stdout_text(), store.display().to_string(), "{listed}");
    assert!(listed.stderr.contains("Permission denied"), "{listed}");
}

/// One attack on one rung.
pub(crate) struct Site {
    pub(crate) fixture: Fixture,
    pub(crate) canary: Canary,
    rung: Rung,
}

impl Site {
    pub(crate) fn on(rung: Rung, dockerfile: &str) -> Self {
        let fixture = Fixture::with_home(rung.home(), dockerfile);
        // The way to the store is open: what keeps others out is the store's own.
        for dir in fixture.home.store().ancestors().skip(1).take(1) {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let canary = Canary::in_home(&fixture);
        Self {
            fixture,
            canary,
            rung,
        }
    }

    pub(crate) fn rung(&self) -> Rung {
        self.rung
    }

    /// Builds. The host is as it was, nothing stays, no bytes of the host are printed or kept, and the end is one of
    /// two: the tree that was built, or the words of the refusal.
    #[track_caller]
    pub(crate) fn build(&self, args: &[String]) -> Result<Files, String> {
        let before = self.fixture.residue();
        let archive = self.fixture.home.work().join("tree.tar");
        let ran = self
            .fixture
            .build()
            .args(self.rung.argument())
            .args(args)
            .arg(format!("--output=type=tar,dest={}", archive.display()))
            .run();
        assert!(
            ran.status.code().is_some() && !ran.stderr.contains("panicked at"),
            "{:?}: {ran}",
            self.rung
        );
        self.canary.assert_untouched();
        self.fixture.assert_clean_since(&before);
        assert_nothing_for_others(&self.fixture.home.store());
        assert!(!ran.stderr.contains(BYTES), "{:?}: {ran}", self.rung);
        assert_eq!(
            holders(&self.fixture.home.store(), BYTES),
            [""; 0],
            "{:?}: {ran}",
            self.rung
        );
        if !ran.status.success() {
            return Err(ran.stderr);
        }
        let tar = fs::read(&archive).unwrap();
        assert!(
            !holds(&tar, BYTES),
            "{:?}: the host's bytes were exported",
            self.rung
        );
        let mut files = Files::default();
        files.apply(entries(&tar).unwrap()).unwrap();
        Ok(files)
    }

    /// The tree of a build that must work.
    #[track_caller]
    pub(crate) fn works(&self, args: &[String]) -> Files {
        let built = self.build(args);
        let told = built.as_ref().err();
        assert!(
            told.is_none(),
            "{:?}: it was refused\n{}",
            self.rung,
            told.unwrap()
        );
        built.unwrap()
    }

    /// The words of a build that must fail.
    #[track_caller]
    pub(crate) fn refused(&self, args: &[String], because: &str) {
        let told = self
            .build(args)
            .map(|files| files.table())
            .expect_err("it was built");
        assert!(
            told.contains(because),
            "{:?}: refused, but not for {because:?}\n{told}",
            self.rung
        );
    }

    /// Makes the image `evil`: busybox below `layers`. The argument that lets a Dockerfile name it.
    pub(crate) fn evil(&self, config: serde_json::Value, layers: Vec<LayerBuilder>) -> String {
        let bases = OciLayout::open(&rbuild_testkit::base::layout().unwrap()).unwrap();
        let busybox = bases.images().unwrap().swap_remove(0);
        let dir = self.fixture.home.work().join("evil");
        let image = ImageBuilder::new(config).layer(busybox.layer_tar(0).unwrap(), "busybox");
        layers
            .into_iter()
            .fold(image, |image, layer| image.layer(layer.finish(), "evil"))
            .write(&dir, "evil")
            .unwrap();
        format!("--build-context=evil=oci-layout://{}:evil", dir.display())
    }
}
