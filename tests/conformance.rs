//! Same answer as BuildKit: every case's image is compared with what BuildKit recorded for it, member by member, layer by
//! layer, entry by entry; an error by its words and the lines that it shows.
//!
//! What belongs here: anything that one Dockerfile and one context decide. The directories:
//! the instructions by their names; `config`, what those that only set metadata make together; flags and parts that have more
//! than a few cases (`mount`, `heredoc`, `link`, `parents`, `exclude`, `chmod`, `chown`, `platform`); `parse`, what holds for
//! all of them; `ignore`; and `check`, the questions that are asked about a Dockerfile.

use std::path::{Path, PathBuf};

use rbuild_testkit::base;
use rbuild_testkit::command::TestHome;
use rbuild_testkit::conformance::{Case, ObservedImage, answer, excerpt};
use rbuild_testkit::image::{Image, OciLayout};
use rbuild_testkit::validate;

use crate::e2e::{RBUILD, ordinary_user};

/// What one id range mapped into a user namespace cannot do, with the reason.
const NOT_ROOTLESS: [(&str, &str); 3] = [
    (
        "run/special_files",
        "the kernel refuses mknod in a user namespace",
    ),
    (
        "copy/special_files",
        "the base holds a device node, and the kernel refuses mknod in a user namespace",
    ),
    (
        "run/odd_resolv_conf",
        "the base holds a device node, and the kernel refuses mknod in a user namespace",
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

struct Runner {
    home: TestHome,
    bases_dir: PathBuf,
    bases: Vec<Image>,
    rung: Option<&'static str>,
}

impl Runner {
    /// The same on one rung alone.
    fn on(rung: &'static str, home: TestHome) -> Self {
        Self {
            rung: Some(rung),
            ..Self::new(home)
        }
    }

    fn new(home: TestHome) -> Self {
        let bases_dir = base::layout().expect("the fast tier's base images");
        let bases = OciLayout::open(&bases_dir)
            .and_then(|layout| layout.images())
            .expect("their layout");
        Self {
            home,
            bases_dir,
            bases,
            rung: None,
        }
    }

    /// What is wrong with this case, if anything is.
    fn verdict(&self, case: &Case) -> Result<(), String> {
        let expected = case.expected().map_err(|error| format!("{error:#}"))?;
        let dir = self.home.work().join(case.name.replace('/', "-"));
        case.lay_out(&dir).map_err(|error| format!("{error:#}"))?;
        self.home.hand_over();
        let archive = self.home.work().join("image.tar");
        let mut command = self.home.command(RBUILD);
        command = command.args(case.rbuild_args(&dir, &self.bases_dir));
        if case.recipe.call.is_none() {
            command = command.arg(format!("--output=type=oci,dest={}", archive.display()));
        }
        if let Some(rung) = self.rung {
            command = command.env("RBUILD_RUNG", rung);
        }
        let ran = command.run();
        if expected.answer.is_some() {
            // The status of a question is that there are warnings, 1, or none.
            let answered = ran.status.success() || !ran.stdout.is_empty();
            if !answered
                || ran.status.code().is_none_or(|code| code > 1)
                || ran.stderr.contains("panicked at")
            {
                return Err(ran.to_string());
            }
            return match expected.answer_difference(&answer(&ran.stdout_text(), &dir)) {
                Some(sentence) if !case.recipe.differs.contains_key("answer") => {
                    Err(format!("{sentence}\n{ran}"))
                }
                _ => Ok(()),
            };
        }
        let last = ran.stderr.lines().rfind(|line| line.starts_with("ERROR: "));
        let last = last.unwrap_or_default();
        if expected.error.is_some() {
            // What cannot be built there may be built here, with a reason.
            if ran.status.success() && case.recipe.differs.contains_key("an image, not an error") {
                return Ok(());
            }
            if ran.status.code().is_none_or(|code| code == 0) || ran.stderr.contains("panicked at") {
                return Err(format!(
                    "must fail with an exit code; BuildKit says {:?}\n{ran}",
                    expected.error
                ));
            }
            let mut found = expected.error_differences(last, excerpt(&ran.stderr).as_deref());
            found.retain(|sentence| {
                !case
                    .recipe
                    .differs
                    .keys()
                    .any(|part| sentence.contains(part.as_str()))
            });
            return match found.is_empty() {
                true => Ok(()),
                false => Err(format!("{}\n{ran}", found.join("\n"))),
            };
        }
        if !ran.status.success() {
            // What is built there may be refused here, with a reason.
            let mut reasons = case.recipe.differs.keys();
            return match reasons.any(|part| last.contains(part.as_str())) {
                true => Ok(()),
                false => Err(ran.to_string()),
            };
        }
        let layout = OciLayout::open(&archive).map_err(|error| format!("{error:#}"))?;
        let mut found = validate::problems(&layout).map_err(|error| format!("{error:#}"))?;
        let images = layout.images().map_err(|error| format!("{error:#}"))?;
        let have: Result<Vec<ObservedImage>, String> = images
            .iter()
            .map(|image| ObservedImage::of(image, &self.bases).map_err(|error| format!("{error:#}")))
            .collect();
        found.extend(expected.image_differences(&have?, &case.recipe.differs));
        if found.is_empty() {
            Ok(())
        } else {
            Err(found.join("\n  "))
        }
    }

    #[track_caller]
    fn all(&self, cases: &[Case]) {
        assert!(!cases.is_empty(), "no case");
        let failed: Vec<String> = cases
            .iter()
            .filter_map(|case| {
                let error = self.verdict(case).err()?;
                Some(format!("{}: {}\n  {error}", case.name, case.recipe.about))
            })
            .collect();
        assert!(
            failed.is_empty(),
            "{} of {} cases differ:\n\n{}",
            failed.len(),
            cases.len(),
            failed.join("\n\n")
        );
    }
}

#[track_caller]
fn group(name: &str) {
    let cases = Case::all(&root()).expect("the cases");
    let cases: Vec<Case> = cases
        .into_iter()
        .filter(|case| case.name.starts_with(&format!("{name}/")))
        .collect();
    Runner::new(TestHome::new()).all(&cases);
}

macro_rules! groups {
    ($($name:ident)*) => {
        $(#[test] fn $name() { group(stringify!($name)); })*

        #[test]
        fn every_directory_has_its_test() {
            let cases = Case::all(&root()).expect("the cases");
            for case in &cases {
                let group = case.name.split('/').next().unwrap_or_default();
                assert!([$(stringify!($name)),*].contains(&group), "no test runs {}", case.name);
                assert!(case.expected().is_ok(), "{} is not recorded", case.name);
            }
        }
    };
}

groups! {
    add arg check chmod chown cmd config copy entrypoint env exclude expose from healthcheck heredoc ignore label link mount onbuild
    parents parse platform run shell stopsignal user volume workdir
}

/// A number that no account has and that no range of ids was given to.
const WITHOUT_RANGES: u32 = 3_999_999_777;

/// What a step is not shown where there is one id, with the reason.
const NOT_WITH_ONE_ID: [(&str, &str); 1] = [(
    "run/umask_and_limits",
    "/proc/PID/status tells the truth: no groups, and the capabilities of root",
)];

/// The rung of one id: devices are made and recorded there, so their cases are not left out.
#[test]
fn rootless_one_id_answers_are_the_same() {
    if ordinary_user().is_none() {
        return;
    }
    let cases = Case::all(&root()).expect("the cases");
    let cases: Vec<Case> = cases
        .into_iter()
        .filter(|case| NOT_WITH_ONE_ID.iter().all(|(name, _)| case.name != *name))
        .collect();
    Runner::new(TestHome::for_user(WITHOUT_RANGES, WITHOUT_RANGES)).all(&cases);
}

#[test]
fn rootless_answers_are_the_same() {
    let Some(user) = ordinary_user() else { return };
    let cases = Case::all(&root()).expect("the cases");
    let cases: Vec<Case> = cases
        .into_iter()
        .filter(|case| NOT_ROOTLESS.iter().all(|(name, _)| case.name != *name))
        .collect();
    Runner::new(TestHome::for_user(user.uid, user.gid)).all(&cases);
}

/// What a step without namespaces has not, with the reason (docs/rootless.md).
const NOT_WITHOUT_NAMESPACES: [(&str, &str); 18] = [
    ("arg/of_clients_declared", HOST),
    ("heredoc/script_is_read_only", COPIES),
    ("mount/bind_context", COPIES),
    ("mount/cache_readonly", COPIES),
    ("mount/secret", SECRETS),
    ("mount/secret_env_and_target", SECRETS),
    ("mount/secret_targets", SECRETS),
    ("mount/tmpfs_size", SIZES),
    ("run/dev_nodes", KERNEL),
    ("run/hosts_and_name", HOST),
    ("run/loopback", KERNEL),
    ("run/mount_in_read_only_mount", COPIES),
    ("run/network_none", KERNEL),
    ("run/network_of_the_build", KERNEL),
    ("run/no_stubs", HOST),
    ("run/shared_memory_and_limits", SIZES),
    ("run/special_files", MKNOD),
    ("run/umask_and_limits", KERNEL),
];
const HOST: &str = "the host name is that of the container";
const COPIES: &str = "what is to be read only is given as a copy";
const SECRETS: &str = "a secret is a variable, unless the store is in memory";
const SIZES: &str = "nothing is mounted, so nothing has a size of its own";
const KERNEL: &str = "/proc and /sys are empty, and devices are no mounts";
const MKNOD: &str = "no device can be made";

/// What an ordinary user without a namespace cannot keep, with the reason.
const NOT_OF_FILES: [(&str, &str); 1] = [(
    "copy/capability_and_chown",
    "a file capability is refused and not lost: nobody but root may set one",
)];

/// Cases that run steps, or those that run none, but for what is not there.
fn cases(with_steps: bool, but: &[(&str, &str)]) -> Vec<Case> {
    let cases = Case::all(&root()).expect("the cases");
    let runs = |case: &Case| {
        let dockerfile = std::fs::read_to_string(root().join(&case.name).join("Dockerfile"));
        let text = dockerfile.unwrap_or_default();
        text.split_whitespace()
            .any(|word| word.eq_ignore_ascii_case("run"))
    };
    let is_out = |case: &Case| but.iter().any(|(name, _)| case.name == *name);
    cases
        .into_iter()
        .filter(|case| runs(case) == with_steps && !is_out(case))
        .collect()
}

/// The rung without namespaces: every case that runs a step.
#[test]
fn privileged_chroot_answers_are_the_same() {
    if ordinary_user().is_none() {
        return;
    }
    let cases = cases(true, &NOT_WITHOUT_NAMESPACES);
    Runner::on("chroot", TestHome::new()).all(&cases);
}

/// The rung of files alone: every case that runs none.
#[test]
fn rootless_files_answers_are_the_same() {
    if ordinary_user().is_none() {
        return;
    }
    let cases = cases(false, &NOT_OF_FILES);
    assert!(cases.len() > 300, "{} cases", cases.len());
    Runner::on("files", TestHome::for_user(WITHOUT_RANGES, WITHOUT_RANGES)).all(&cases);
}
