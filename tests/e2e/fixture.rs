//! A build of a small Dockerfile on the busybox base: its home, its context, its image.

use std::path::PathBuf;
use std::time::Duration;

use rbuild_testkit::base;
use rbuild_testkit::command::{Ran, RbuildCommand, TestHome};
use rbuild_testkit::context::BuildContext;
use rbuild_testkit::image::{Image, OciLayout};
use rbuild_testkit::machine::{self, OrdinaryUser};
use rbuild_testkit::residue::Residue;
use rbuild_testkit::validate;

/// The program under test.
pub(crate) const RBUILD: &str = env!("CARGO_BIN_EXE_rbuild");

/// One test's store and context.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) home: TestHome,
    pub(crate) context: BuildContext,
}

impl Fixture {
    /// For the user that the tests run as.
    #[track_caller]
    pub(crate) fn new(dockerfile: &str) -> Self {
        Self::with_home(TestHome::new(), dockerfile)
    }

    /// For the ordinary user of the rootless tests; says why there is none.
    #[track_caller]
    pub(crate) fn rootless(dockerfile: &str) -> Option<Self> {
        let user = ordinary_user()?;
        Some(Self::with_home(
            TestHome::for_user(user.uid, user.gid),
            dockerfile,
        ))
    }

    #[track_caller]
    pub(crate) fn with_home(home: TestHome, dockerfile: &str) -> Self {
        let context = BuildContext::create(home.work().join("context")).expect("a context directory");
        context.dockerfile(dockerfile);
        Self { home, context }
    }

    /// `rbuild` with this store and `args`.
    pub(crate) fn rbuild<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(
        &self,
        args: I,
    ) -> RbuildCommand {
        self.home.hand_over();
        self.home.command(RBUILD).args(args)
    }

    /// `rbuild build` of the context with plain progress and the busybox base, the context still to be added.
    pub(crate) fn build_of(&self) -> RbuildCommand {
        self.rbuild(["build", "--progress=plain"])
            .arg(busybox_argument("busybox"))
    }

    /// `rbuild build` of the context.
    pub(crate) fn build(&self) -> RbuildCommand {
        self.build_of().arg(self.context.dir())
    }

    /// Builds into an OCI archive, checks it against the specification, and returns the transcript with the image.
    #[track_caller]
    pub(crate) fn image(&self, args: &[&str]) -> (Ran, Image) {
        self.image_with(args, &[])
    }

    /// The same with variables in rbuild's environment.
    #[track_caller]
    pub(crate) fn image_with(&self, args: &[&str], env: &[(&str, &str)]) -> (Ran, Image) {
        let archive = self.archive();
        let build = env
            .iter()
            .fold(self.build(), |build, (key, value)| build.env(key, value));
        let ran = build
            .args(args)
            .arg(format!("--output=type=oci,dest={}", archive.display()))
            .ok();
        let layout = OciLayout::open(&archive).expect("an OCI archive");
        validate::assert_valid(&layout);
        (ran, layout.image().expect("one image"))
    }

    /// A shell's `line` at a terminal of its own, at which nothing is typed but what its standard input says. What the terminal
    /// shows is its standard output.
    #[track_caller]
    pub(crate) fn at_a_terminal(&self, line: &str) -> RbuildCommand {
        let script = machine::required("script", "bsdutils").expect("script");
        self.home.hand_over();
        self.home.command(script).args(["-qec", line, "/dev/null"])
    }

    /// Where [`Fixture::image`] writes.
    pub(crate) fn archive(&self) -> PathBuf {
        self.home.work().join("image.tar")
    }

    /// What exists now, to compare with at the end of the test.
    pub(crate) fn residue(&self) -> Residue {
        Residue::snapshot(&self.mark(), &self.home.tmp())
    }

    /// Asserts that nothing is mounted, running or lying in the temporary directory that was not at `before`.
    #[track_caller]
    pub(crate) fn assert_clean_since(&self, before: &Residue) {
        Residue::assert_nothing_new(before, &self.mark(), &self.home.tmp(), Duration::from_secs(10));
    }

    /// Part of the command line of every process of this fixture's builds.
    fn mark(&self) -> String {
        self.home.work().display().to_string()
    }
}

/// `--build-context` argument that gives `name` the image of that name from the fast tier's layout.
#[track_caller]
pub(crate) fn busybox_argument(name: &str) -> String {
    let bases = base::layout().expect("the fast tier's base images");
    format!("--build-context={name}=oci-layout://{}:{name}", bases.display())
}

/// The ordinary user, or a `SKIP:` line.
pub(crate) fn ordinary_user() -> Option<OrdinaryUser> {
    if !machine::is_root() {
        machine::skip("rootless tests become the ordinary user, which needs root");
        return None;
    }
    let user = machine::ordinary_user();
    if user.is_none() {
        machine::skip(
            "no ordinary user with subordinate ids: run `cargo xtask ci` once as root, it makes one",
        );
    }
    user
}

/// Whether this is root; says `SKIP:` if not.
pub(crate) fn is_root(what: &str) -> bool {
    let root = machine::is_root();
    if !root {
        machine::skip(&format!("{what} needs root"));
    }
    root
}
