//! The least change that makes what failed work. Lines for people to copy.

use rbuild_sys::userns::UsernsError;

use super::machine::Machine;

/// What helps when a rung could not be entered.
pub(super) fn to_enter(error: &UsernsError, machine: &Machine) -> Vec<String> {
    let one = |line: String| vec![line];
    match error {
        UsernsError::NoRange { file, user, kind } => one(format!(
            "as root: usermod --add-sub{kind}s 100000-165535 {user}   # a line {user}:100000:65536 in {file}"
        )),
        UsernsError::NoHelper { .. } => one(
            "as root: apt-get install uidmap   # Fedora: dnf install shadow-utils; Arch: pacman -S shadow".to_owned(),
        ),
        UsernsError::HelperPowerless { path } => one(format!("as root: chmod u+s {}", path.display())),
        // Where the caller gained no rights, the helper does not either.
        UsernsError::Helper { .. } if machine.no_new_privs => one(
            "this process has no_new_privs, so newuidmap gains no rights: allowPrivilegeEscalation: true in the pod's \
             securityContext, or no --security-opt no-new-privileges"
                .to_owned(),
        ),
        UsernsError::Helper { text, .. } if text.contains("write to uid_map failed") => vec![
            "in the container's image, so that these programs need not be root, which may not do it there:".to_owned(),
            "  chmod u-s /usr/bin/newuidmap /usr/bin/newgidmap".to_owned(),
            "  setcap cap_setuid=ep /usr/bin/newuidmap; setcap cap_setgid=ep /usr/bin/newgidmap".to_owned(),
        ],
        UsernsError::Sysctl { sysctl, needed, .. } => vec![
            format!("as root: sysctl -w {sysctl}={needed}"),
            format!("to keep it: echo {sysctl}={needed} > /etc/sysctl.d/60-rbuild.conf"),
        ],
        UsernsError::AppArmor => app_armor(machine),
        // A profile may say that there is no such call.
        UsernsError::Kernel { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied
                || source.raw_os_error() == Some(rustix::io::Errno::NOSYS.raw_os_error()) =>
        {
            confined(machine)
        }
        UsernsError::Refused(_) => confined(machine),
        UsernsError::NotRoot => Vec::new(),
        UsernsError::Killed => {
            let mut lines = vec![
                "of a systemd unit: SystemCallErrorNumber=EPERM, or no SystemCallFilter= of unshare and mount".to_owned(),
            ];
            lines.extend(confined(machine));
            lines
        }
        UsernsError::OneId => one(
            "none is needed where rung one-id works; else a namespace with more ids: podman unshare, unshare --map-auto --map-root-user"
                .to_owned(),
        ),
        UsernsError::NoProc => {
            one("mount -t proc proc /proc   # not in a step without namespaces (rung chroot): no builder runs there".to_owned())
        }
        UsernsError::Capabilities { missing } => {
            let names = missing.join(", ");
            one(if machine.kubernetes {
                format!("in the container's securityContext: capabilities: {{add: [{names}]}}")
            } else {
                let options: Vec<String> = missing.iter().map(|name| format!("--cap-add {name}")).collect();
                format!("docker run {} …", options.join(" "))
            })
        }
        UsernsError::Listener(_) => one(
            "run rbuild outside of the other's step or container, or on another rung than one-id".to_owned(),
        ),
        UsernsError::Helper { .. }
        | UsernsError::HalfWay
        | UsernsError::Kernel { .. }
        | UsernsError::Read { .. }
        | UsernsError::Threads(_) => Vec::new(),
    }
}

/// What helps when a step could not be run although the rung could be entered.
pub(super) fn to_run(error: &str, machine: &Machine) -> Vec<String> {
    if error.contains("partly hidden") {
        return if machine.kubernetes {
            vec![
                "in the pod: spec.hostUsers: false".to_owned(),
                "and in the container's securityContext: procMount: Unmasked".to_owned(),
            ]
        } else {
            vec![
                "docker run --security-opt systempaths=unconfined …   # podman: --security-opt unmask=ALL"
                    .to_owned(),
            ]
        };
    }
    if error.contains("--security=insecure helps") {
        return vec![
            "in a step of rbuild or BuildKit: RUN --security=insecure, with --allow security.insecure"
                .to_owned(),
        ];
    }
    if machine.ptrace_scope.as_deref() == Some("3") {
        return vec!["as root: sysctl -w kernel.yama.ptrace_scope=2   # takes a restart to lower".to_owned()];
    }
    if error.contains("Operation not permitted") || error.contains("Permission denied") {
        return confined(machine);
    }
    Vec::new()
}

/// A profile for this very program, and the switch.
fn app_armor(machine: &Machine) -> Vec<String> {
    let program = machine.program.display();
    vec![
        "as root, a profile for this program:".to_owned(),
        "  cat > /etc/apparmor.d/rbuild <<'END'".to_owned(),
        "  abi <abi/4.0>,".to_owned(),
        "  include <tunables/global>".to_owned(),
        format!("  profile rbuild {program} flags=(unconfined) {{"),
        "    userns,".to_owned(),
        "  }".to_owned(),
        "  END".to_owned(),
        "  apparmor_parser -r /etc/apparmor.d/rbuild".to_owned(),
        "or, for all programs: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0".to_owned(),
    ]
}

/// The kernel would, but what this process runs under does not.
fn confined(machine: &Machine) -> Vec<String> {
    if machine.kubernetes {
        return vec![
            "in the container's securityContext:".to_owned(),
            "  seccompProfile: {type: Unconfined}".to_owned(),
            "  appArmorProfile: {type: Unconfined}".to_owned(),
            "  procMount: Unmasked   # with spec.hostUsers: false".to_owned(),
        ];
    }
    if machine.seccomp || machine.container {
        let mut lines = vec![
            "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
             --security-opt systempaths=unconfined …"
                .to_owned(),
        ];
        // No filter refuses anything here.
        lines.extend((!machine.seccomp).then(|| format!("or: {OUTSIDE_CHROOT}")));
        return lines;
    }
    if machine
        .apparmor
        .as_deref()
        .is_some_and(|profile| profile != "unconfined")
    {
        return app_armor(machine);
    }
    vec![OUTSIDE_CHROOT.to_owned()]
}

const OUTSIDE_CHROOT: &str = "not in a chroot: user namespaces cannot be made in one";

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &[String]) -> String {
        lines.join("\n")
    }

    #[test]
    fn the_profile_names_this_program_and_gives_it_user_namespaces_only() {
        let machine = Machine {
            program: "/opt/bin/rbuild".into(),
            ..Machine::default()
        };
        let lines = text(&to_enter(&UsernsError::AppArmor, &machine));
        assert!(
            lines.contains("profile rbuild /opt/bin/rbuild flags=(unconfined) {"),
            "{lines}"
        );
        assert!(lines.contains("userns,"), "{lines}");
    }

    #[test]
    fn a_pod_is_told_pod_spec_lines_and_a_container_options() {
        let refused = || UsernsError::Kernel {
            step: "make a user namespace",
            source: std::io::Error::from_raw_os_error(1),
        };
        let pod = Machine {
            kubernetes: true,
            container: true,
            ..Machine::default()
        };
        let lines = text(&to_enter(&refused(), &pod));
        assert!(lines.contains("seccompProfile: {type: Unconfined}"), "{lines}");
        let container = Machine {
            seccomp: true,
            ..Machine::default()
        };
        let lines = text(&to_enter(&refused(), &container));
        assert!(lines.contains("--security-opt seccomp=unconfined"), "{lines}");
        let hidden = to_run("mount \"proc\": is /proc here partly hidden?", &pod);
        assert!(text(&hidden).contains("procMount: Unmasked"), "{hidden:?}");
    }

    #[test]
    fn a_sysctl_is_named_with_its_value() {
        let error = UsernsError::Sysctl {
            sysctl: "user.max_user_namespaces",
            found: "0".to_owned(),
            needed: "15000",
        };
        let lines = to_enter(&error, &Machine::default());
        assert_eq!(lines[0], "as root: sysctl -w user.max_user_namespaces=15000");
    }
}
