//! Settings of the machine that explain what was found. Read, never changed.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// What is known of the machine and of this process on it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// This very program.
    pub(crate) program: PathBuf,
    /// `kernel.unprivileged_userns_clone` (Debian's).
    pub(crate) unprivileged_userns_clone: Option<String>,
    /// `user.max_user_namespaces`.
    pub(crate) max_user_namespaces: Option<String>,
    /// `kernel.apparmor_restrict_unprivileged_userns` (Ubuntu's).
    pub(crate) apparmor_restrict_unprivileged_userns: Option<String>,
    /// The AppArmor profile this process runs under.
    pub(crate) apparmor: Option<String>,
    /// Whether this process runs under a seccomp filter, as in a container.
    pub(crate) seccomp: bool,
    pub(crate) no_new_privs: bool,
    /// `kernel.yama.ptrace_scope`.
    pub(crate) ptrace_scope: Option<String>,
    pub(crate) container: bool,
    pub(crate) kubernetes: bool,
    /// Whether `/dev/fuse` can be opened.
    pub(crate) fuse: bool,
}

impl Machine {
    /// Asks the machine.
    pub(crate) fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map_or("", str::trim)
        };
        let setting = |path: &str| {
            std::fs::read_to_string(path)
                .ok()
                .map(|text| text.trim().to_owned())
        };
        let profile =
            setting("/proc/self/attr/apparmor/current").or_else(|| setting("/proc/self/attr/current"));
        let kubernetes = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        let marks = ["/.dockerenv", "/run/.containerenv"];
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            program: std::env::current_exe().unwrap_or_else(|_| "rbuild".into()),
            unprivileged_userns_clone: setting("/proc/sys/kernel/unprivileged_userns_clone"),
            max_user_namespaces: setting("/proc/sys/user/max_user_namespaces"),
            apparmor_restrict_unprivileged_userns: setting(
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            ),
            apparmor: profile.filter(|text| !text.is_empty()),
            seccomp: !matches!(field("Seccomp:"), "" | "0"),
            no_new_privs: field("NoNewPrivs:") == "1",
            ptrace_scope: setting("/proc/sys/kernel/yama/ptrace_scope"),
            container: kubernetes || marks.iter().any(|mark| Path::new(mark).exists()),
            kubernetes,
            fuse: std::fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/fuse")
                .is_ok(),
        }
    }

    /// What is worth showing to people.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let yes = |value: bool| if value { "yes" } else { "no" }.to_owned();
        let mut lines = vec![
            ("kernel", self.kernel.clone()),
            ("user", format!("{}:{}", self.uid, self.gid)),
            ("container", yes(self.container)),
            ("seccomp", yes(self.seccomp)),
        ];
        let settings = [
            ("apparmor", &self.apparmor),
            ("userns", &self.unprivileged_userns_clone),
            ("max userns", &self.max_user_namespaces),
            ("restricted", &self.apparmor_restrict_unprivileged_userns),
        ];
        let known = settings.into_iter();
        lines.extend(known.filter_map(|(name, value)| Some((name, value.clone()?))));
        lines.push(("/dev/fuse", yes(self.fuse)));
        lines
    }
}
