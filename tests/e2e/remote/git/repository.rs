//! Repositories that tests fill commit by commit, served by git's own CGI program.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::web::WebServer;

use crate::e2e::fixture::Fixture;

/// A repository that is filled commit by commit, with a time that does not move.
pub(crate) struct Repository {
    dir: PathBuf,
    home: PathBuf,
}

/// The time of every commit.
pub(crate) const TIME: u64 = 1_577_934_245;

impl Repository {
    /// Makes `name.git` below `root`.
    #[track_caller]
    pub(crate) fn create(root: &Path, name: &str) -> Self {
        Self::of_format(root, name, "sha1")
    }

    #[track_caller]
    pub(super) fn of_format(root: &Path, name: &str, format: &str) -> Self {
        let dir = root.join(format!("{name}.git"));
        fs::create_dir_all(&dir).unwrap();
        let repository = Self {
            dir,
            home: root.to_owned(),
        };
        let format = format!("--object-format={format}");
        repository.git(&["init", "-q", "-b", "main", &format, "."]);
        repository
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs git here and gives what it printed.
    #[track_caller]
    pub(crate) fn git(&self, args: &[&str]) -> String {
        let date = format!("{TIME} +0000");
        RbuildCommand::new("git")
            .args(["-c", "protocol.file.allow=always", "-c", "commit.gpgsign=false"])
            .args(args)
            .current_dir(&self.dir)
            .env("HOME", &self.home)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_NAME", "a")
            .env("GIT_AUTHOR_EMAIL", "a@test")
            .env("GIT_COMMITTER_NAME", "a")
            .env("GIT_COMMITTER_EMAIL", "a@test")
            .env("GIT_AUTHOR_DATE", &date)
            .env("GIT_COMMITTER_DATE", &date)
            .ok()
            .stdout_text()
            .trim()
            .to_owned()
    }

    /// Writes a file; it is in the next commit.
    #[track_caller]
    pub(crate) fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Makes a link; it is in the next commit.
    #[track_caller]
    pub(crate) fn link(&self, path: &str, target: impl AsRef<Path>) -> &Self {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    /// Commits what is there with `commit` as the submodule in `path`, whatever `.gitmodules` says of it.
    #[track_caller]
    pub(crate) fn commit_submodule(&self, path: &str, commit: &str) {
        self.git(&["add", "-A"]);
        let entry = format!("160000,{commit},{path}");
        self.git(&["update-index", "--add", "--cacheinfo", &entry]);
        self.git(&["commit", "-q", "-m", "c"]);
    }

    /// Commits what is there and gives the commit.
    #[track_caller]
    pub(crate) fn commit(&self) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "c"]);
        self.git(&["rev-parse", "HEAD"])
    }
}

/// A server with one repository on it.
pub(crate) struct Remote {
    pub(crate) server: WebServer,
    pub(super) root: tempfile::TempDir,
    pub(crate) repository: Repository,
}

impl Remote {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let repository = Repository::create(root.path(), "r");
        let server = WebServer::start();
        server.serve_git(root.path());
        Self {
            server,
            root,
            repository,
        }
    }

    pub(crate) fn url(&self, rest: &str) -> String {
        self.server.url(&format!("/git/r.git{rest}"))
    }

    /// A build that adds it at `/got`.
    pub(super) fn adding(&self, flags: &str, rest: &str) -> Fixture {
        let url = self.url(rest);
        Fixture::new(&format!(
            "FROM busybox\nADD {flags}{url} /got\nRUN find /got | sort > /seen\n"
        ))
    }

    /// How often the remote was asked for objects.
    pub(super) fn packs(&self) -> usize {
        self.server
            .asked()
            .iter()
            .filter(|asked| {
                asked.method == "POST" && asked.headers.get("content-length") != Some(&"0".to_owned())
            })
            .count()
    }
}
