//! Docker's default seccomp profile (moby/profiles, seccomp/default.json, read in the tree BuildKit vendors in
//! August 2026) reduced to what holds for a step: Linux 4.8 or newer and Docker's default capabilities.
//!
//! Names only; numbers come from the `syscalls` tables, and a name an architecture does not have is left out there.

use super::bpf::{Action, Architecture, ENOSYS, EPERM, Test, audit};

/// Allowed whatever the arguments are. `ptrace` and `process_vm_*` are here because the kernel is newer than 4.8,
/// `chroot` because `CAP_SYS_CHROOT` is a default capability.
#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    "_llseek", "_newselect", "accept", "accept4", "access", "adjtimex", "alarm", "bind", "brk", "cachestat",
    "capget", "capset", "chdir", "chmod", "chown", "chown32", "chroot", "clock_adjtime", "clock_adjtime64",
    "clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep",
    "clock_nanosleep_time64", "close", "close_range", "connect", "copy_file_range", "creat", "dup", "dup2",
    "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2",
    "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "execve", "execveat", "exit", "exit_group",
    "faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fanotify_mark", "fchdir", "fchmod",
    "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "fgetxattr",
    "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs",
    "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futex", "futex_requeue", "futex_time64", "futex_wait",
    "futex_waitv", "futex_wake", "futimesat", "get_robust_list", "get_thread_area", "getcpu", "getcwd",
    "getdents", "getdents64", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32",
    "getgroups", "getgroups32", "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid",
    "getpriority", "getrandom", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit",
    "getrusage", "getsid", "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid", "getuid32",
    "getxattr", "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch",
    "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup",
    "io_submit", "ioctl", "ioprio_get", "ioprio_set", "ipc", "kill", "landlock_add_rule",
    "landlock_create_ruleset", "landlock_restrict_self", "lchown", "lchown32", "lgetxattr", "link", "linkat",
    "listen", "listmount", "listxattr", "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr",
    "lstat", "lstat64", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret",
    "mincore", "mkdir", "mkdirat", "mknod", "mknodat", "mlock", "mlock2", "mlockall", "mmap", "mmap2",
    "mprotect", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64",
    "mq_timedsend", "mq_timedsend_time64", "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv",
    "msgsnd", "msync", "munlock", "munlockall", "munmap", "name_to_handle_at", "nanosleep", "newfstatat",
    "open", "openat", "openat2", "pause", "pidfd_open", "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc",
    "pkey_free", "pkey_mprotect", "poll", "ppoll", "ppoll_time64", "prctl", "pread64", "preadv", "preadv2",
    "prlimit64", "process_mrelease", "process_vm_readv", "process_vm_writev", "pselect6", "pselect6_time64",
    "ptrace", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv",
    "recv", "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "remap_file_pages", "removexattr",
    "removexattrat", "rename", "renameat", "renameat2", "restart_syscall", "riscv_hwprobe", "rmdir", "rseq",
    "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sched_get_priority_max",
    "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler",
    "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr",
    "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop",
    "semtimedop", "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg", "sendmsg", "sendto",
    "set_robust_list", "set_thread_area", "set_tid_address", "setfsgid", "setfsgid32", "setfsuid",
    "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32", "setitimer", "setpgid", "setpriority",
    "setregid", "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid",
    "setreuid32", "setrlimit", "setsid", "setsockopt", "setuid", "setuid32", "setxattr", "setxattrat",
    "shmat", "shmctl", "shmdt", "shmget", "shutdown", "sigaltstack", "signalfd", "signalfd4", "sigprocmask",
    "sigreturn", "socketcall", "socketpair", "splice", "stat", "stat64", "statfs", "statfs64", "statmount",
    "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill", "time",
    "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime",
    "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime",
    "timerfd_settime64", "times", "tkill", "truncate", "truncate64", "ugetrlimit", "umask", "uname", "unlink",
    "unlinkat", "uretprobe", "utime", "utimensat", "utimensat_time64", "utimes", "vfork", "vmsplice", "wait4",
    "waitid", "waitpid", "write", "writev",
];

/// Named by the profile for capabilities a step does not have: always `EPERM`, even when newer than all others.
#[rustfmt::skip]
const NEEDS_CAPABILITY: &[&str] = &[
    "acct", "bpf", "clock_settime", "clock_settime64", "delete_module", "fanotify_init", "finit_module",
    "fsconfig", "fsmount", "fsopen", "fspick", "get_mempolicy", "init_module", "ioperm", "iopl", "kcmp",
    "lookup_dcookie", "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "mbind", "mount",
    "mount_setattr", "move_mount", "open_by_handle_at", "open_tree", "perf_event_open", "pidfd_getfd",
    "process_madvise", "quotactl", "quotactl_fd", "reboot", "set_mempolicy", "set_mempolicy_home_node",
    "setdomainname", "sethostname", "setns", "settimeofday", "stime", "syslog", "umount", "umount2",
    "unshare", "vhangup",
];

/// `CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET`.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;
/// Calls that reach other processes or another root: refused to steps that share both with the caller, on top of the rest.
const REACHES_OTHERS: &[&str] = &[
    "chroot",
    "ioprio_set",
    "process_mrelease",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "sched_setattr",
    "sched_setparam",
    "sched_setscheduler",
    "setpriority",
];

/// Where steps run that the policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Steps {
    /// In namespaces of their own.
    InNamespaces,
    /// In those of the caller.
    OnOwnNetwork,
    /// In those of the caller, and without network.
    Offline,
}

const AF_UNIX: u32 = 1;
const AF_NETLINK: u32 = 16;
const NETLINK_CONNECTOR: u32 = 11;
const AF_ALG: u32 = 38;
const AF_VSOCK: u32 = 40;
/// `PER_LINUX`, `PER_LINUX32`, `UNAME26` with each, and the query.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, u32::MAX];

/// Call numbers of one ABI by name.
struct Table {
    audit: u32,
    calls: Vec<(u32, &'static str)>,
    extra: &'static [&'static str],
}

/// The policies of this machine's architecture and of those the kernel runs beside it.
#[cfg(target_arch = "x86_64")]
pub(super) fn architectures(steps: Steps) -> Vec<Architecture> {
    let native: Vec<_> = syscalls::x86_64::Sysno::iter()
        .map(|call| (number(call.id()), call.name()))
        .collect();
    let i386 = syscalls::x86::Sysno::iter()
        .map(|call| (number(call.id()), call.name()))
        .collect();
    let extra = &["arch_prctl", "modify_ldt"];
    let mut wide = policy(
        steps,
        &Table {
            audit: audit::NATIVE,
            calls: native.clone(),
            extra,
        },
    );
    // x32 shares the architecture and is told apart by a bit of the number, so its ranges simply follow.
    let x32 = policy(
        steps,
        &Table {
            audit: audit::NATIVE,
            calls: x32_calls(&native),
            extra,
        },
    );
    wide.ranges.extend(
        x32.ranges
            .into_iter()
            .map(|(first, action)| (first | X32_BIT, action)),
    );
    vec![
        wide,
        policy(
            steps,
            &Table {
                audit: audit::I386,
                calls: i386,
                extra: &["modify_ldt"],
            },
        ),
    ]
}

/// The policies of this machine's architecture and of those the kernel runs beside it.
#[cfg(target_arch = "aarch64")]
pub(super) fn architectures(steps: Steps) -> Vec<Architecture> {
    const EXTRA: &[&str] = &[
        "arm_fadvise64_64",
        "arm_sync_file_range",
        "sync_file_range2",
        "breakpoint",
        "cacheflush",
        "set_tls",
    ];
    let native = syscalls::aarch64::Sysno::iter()
        .map(|call| (number(call.id()), call.name()))
        .collect();
    let arm = syscalls::arm::Sysno::iter()
        .map(|call| (number(call.id()), call.name()))
        .collect();
    vec![
        policy(
            steps,
            &Table {
                audit: audit::NATIVE,
                calls: native,
                extra: EXTRA,
            },
        ),
        policy(
            steps,
            &Table {
                audit: audit::ARM,
                calls: arm,
                extra: EXTRA,
            },
        ),
    ]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the seccomp profile knows x86_64 and aarch64");

const fn number(id: i32) -> u32 {
    id.cast_unsigned()
}

/// `__X32_SYSCALL_BIT`.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

/// The calls x32 has under numbers of its own, from 512 on (arch/x86/entry/syscalls/syscall_64.tbl).
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const X32_OWN: [&str; 36] = [
    "rt_sigaction", "rt_sigreturn", "ioctl", "readv", "writev", "recvfrom", "sendmsg", "recvmsg", "execve", "ptrace",
    "rt_sigpending", "rt_sigtimedwait", "rt_sigqueueinfo", "sigaltstack", "timer_create", "mq_notify", "kexec_load",
    "waitid", "set_robust_list", "get_robust_list", "vmsplice", "move_pages", "preadv", "pwritev",
    "rt_tgsigqueueinfo", "recvmmsg", "sendmmsg", "process_vm_readv", "process_vm_writev", "setsockopt", "getsockopt",
    "io_setup", "io_submit", "execveat", "preadv2", "pwritev2",
];

#[cfg(target_arch = "x86_64")]
fn x32_calls(native: &[(u32, &'static str)]) -> Vec<(u32, &'static str)> {
    let shared = native.iter().copied().filter(|(_, name)| !X32_OWN.contains(name));
    shared
        .chain(
            X32_OWN
                .iter()
                .enumerate()
                .map(|(i, name)| (512 + i as u32, *name)),
        )
        .collect()
}

/// Ranges over all 32-bit numbers: unnamed calls get `EPERM`, calls newer than every named one `ENOSYS` (as runc
/// adds to the profile, so that programs fall back to older calls).
fn policy(steps: Steps, table: &Table) -> Architecture {
    let mut named: Vec<(u32, Action)> = table
        .calls
        .iter()
        .filter_map(|(number, name)| Some((*number, action(steps, table, name)?)))
        .collect();
    named.sort_by_key(|(number, _)| *number);
    let mut ranges: Vec<(u32, Action)> = Vec::new();
    let mut push = |first: u32, action: Action| {
        if ranges.last().is_none_or(|(_, last)| *last != action) {
            ranges.push((first, action));
        }
    };
    let mut next = 0;
    for (number, action) in named {
        if number > next {
            push(next, Action::Errno(EPERM));
        }
        push(number, action);
        next = number + 1;
    }
    push(next, Action::Errno(ENOSYS));
    Architecture {
        audit: table.audit,
        ranges,
    }
}

fn action(steps: Steps, table: &Table, name: &str) -> Option<Action> {
    let any = |tests: &[Test]| Some(Action::AllowIf(tests.to_vec()));
    match name {
        _ if steps != Steps::InNamespaces && REACHES_OTHERS.contains(&name) => Some(Action::Errno(EPERM)),
        // The limits of other processes; its own are `0`.
        "prlimit64" if steps != Steps::InNamespaces => any(&[Test::Equal(0, 0)]),
        // On i386 it is behind a pointer which family is meant. With a network the step's supervisor is asked (`sockets.rs`).
        "socketcall" if steps == Steps::Offline => Some(Action::Errno(EPERM)),
        "socket" if steps == Steps::Offline => any(&[Test::Equal(0, AF_UNIX)]),
        "socket" => Some(socket()),
        "personality" => any(&PERSONALITIES.map(|value| Test::Equal(0, value))),
        "clone" => any(&[Test::NoneOf(0, CLONE_NAMESPACES)]),
        // Its flags are behind a pointer no filter can read; libc falls back to clone on ENOSYS.
        "clone3" => Some(Action::Errno(ENOSYS)),
        _ if ALLOWED.contains(&name) || table.extra.contains(&name) => Some(Action::Allow),
        _ if NEEDS_CAPABILITY.contains(&name) => Some(Action::Errno(EPERM)),
        _ => None,
    }
}

/// What becomes of `socket(2)`. By a connector the kernel tells what runs on the whole machine to whoever is on its network
/// (cn_proc, since Linux 6.6 without any right); Docker's profile leaves it open.
pub(super) fn socket() -> Action {
    let families = vec![
        Test::Less(0, AF_ALG),
        Test::Equal(0, AF_ALG + 1),
        Test::Greater(0, AF_VSOCK),
    ];
    let connector = vec![Test::Equal(0, AF_NETLINK), Test::Equal(2, NETLINK_CONNECTOR)];
    Action::RefuseIf(connector, Box::new(Action::AllowIf(families)))
}
