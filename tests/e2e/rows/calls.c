/* Makes the calls that led out of containers once, and says what each answers: `NAME: ERROR`, or `NAME: DONE`. One that cannot do
 * harm stands at the end: it must work, or the answers of the others would mean nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NEWUSER 0x10000000UL

static void answer(const char *what, long result) {
    printf("%s: %s\n", what, result >= 0 ? "DONE" : strerror(errno));
    fflush(stdout);
}

/* A child that such a call makes must not go on here. */
static void child(const char *what, long pid) {
    if (pid == 0)
        _exit(0);
    answer(what, pid);
}

/* A handle of a file below the root that was guessed: CVE-2014-6407's neighbour, "shocker". */
static long guessed_handle(void) {
    struct {
        unsigned bytes;
        int type;
        unsigned long inode;
    } handle = {8, 1, 2};
    int root = open("/", O_RDONLY | O_DIRECTORY);
    return syscall(SYS_open_by_handle_at, root, &handle, O_RDONLY);
}

int main(void) {
    char page[4096] = {0};
    struct io_uring_params ring = {0};
    answer("open_by_handle_at", guessed_handle());
    answer("unshare", syscall(SYS_unshare, NEWUSER));
    child("clone", syscall(SYS_clone, NEWUSER | SIGCHLD, 0, 0, 0, 0));
    unsigned long arguments[8] = {NEWUSER, 0, 0, 0, SIGCHLD};
    child("clone3", syscall(SYS_clone3, arguments, sizeof arguments));
    answer("setns", syscall(SYS_setns, open("/", O_RDONLY), 0));
    answer("mount", mount("none", "/tmp", "tmpfs", 0, ""));
    answer("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
    answer("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1));
    answer("move_mount", syscall(SYS_move_mount, AT_FDCWD, "/tmp", AT_FDCWD, "/usr", 0));
    answer("pivot_root", syscall(SYS_pivot_root, "/", "/tmp"));
    answer("bpf", syscall(SYS_bpf, 5, page, 128));
    answer("perf_event_open", syscall(SYS_perf_event_open, page, 0, -1, -1, 0));
    answer("userfaultfd", syscall(SYS_userfaultfd, O_CLOEXEC));
    answer("io_uring_setup", syscall(SYS_io_uring_setup, 1, &ring));
    answer("keyctl", syscall(SYS_keyctl, 1, 0));
    answer("add_key", syscall(SYS_add_key, "user", "mine", "x", 1, -3));
    answer("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
    answer("init_module", syscall(SYS_init_module, page, 1, ""));
    answer("swapon", syscall(SYS_swapon, "/tmp", 0));
    answer("acct", syscall(SYS_acct, "/tmp/acct"));
    answer("quotactl", syscall(SYS_quotactl, 0, "/", 0, page));
    answer("reboot", syscall(SYS_reboot, 0, 0, 0, 0));
    answer("syslog", syscall(SYS_syslog, 3, page, sizeof page));
    answer("kcmp", syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0));
    answer("pidfd_getfd", syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, getpid(), 0), 0, 0));
    answer("fanotify_init", syscall(SYS_fanotify_init, 0, 0));
    answer("vsock", socket(40, SOCK_STREAM, 0));
    answer("alg", socket(38, SOCK_SEQPACKET, 0));
    answer("personality", syscall(SYS_personality, 0x0040000));
    answer("sethostname", sethostname("x", 1));
    answer("TIOCSTI", ioctl(0, TIOCSTI, "x"));
    answer("getppid", syscall(SYS_getppid));
    return 0;
}
