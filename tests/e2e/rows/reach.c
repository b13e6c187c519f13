/* Tries to reach what is not the step's: a line `NAME: ERROR` or `NAME: DONE` for each way. Ways whose effect is on somebody else
 * say DONE only if the kernel said so; that nothing came of them is what the build shows, by going on.
 *
 * reach PID: the number of the process that started the step, as far as the step can name it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static void answer(const char *what, long result) {
    printf("%s: %s\n", what, result >= 0 ? "DONE" : strerror(errno));
    fflush(stdout);
}

/* A descriptor whose signals go to somebody else, and then a reason for one. */
static long signal_by_descriptor(pid_t target) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return -1;
    struct f_owner_ex owner = {F_OWNER_PID, target};
    if (fcntl(pair[0], F_SETOWN_EX, &owner) != 0 || fcntl(pair[0], F_SETSIG, SIGKILL) != 0)
        return -1;
    fcntl(pair[0], F_SETFL, O_ASYNC);
    (void)!write(pair[1], "x", 1);
    /* Whether it arrived is not told. */
    return errno = EINPROGRESS, -1;
}

/* The same for a child of this process: the twin. */
static long signal_own_child(void) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        sleep(20);
        _exit(0);
    }
    signal_by_descriptor(child);
    return waitpid(child, &status, 0) == child && WIFSIGNALED(status) ? 0 : (errno = EPERM, -1);
}

/* The way out of chroot(2) that every right to it opens: a working directory above a new root. 0 if it leads above the first. */
static long leave_root(void) {
    struct stat before, after;
    stat("/", &before);
    int here = open("/", O_RDONLY | O_DIRECTORY);
    mkdir("/tmp/deeper", 0700);
    if (chroot("/tmp/deeper") != 0)
        return -1;
    fchdir(here);
    for (int level = 0; level < 64; level++)
        (void)!chdir("..");
    (void)!chroot(".");
    stat("/", &after);
    if (before.st_dev != after.st_dev || before.st_ino != after.st_ino)
        return 0;
    return errno = EXDEV, -1;
}

static long set_link_down(void) {
    struct {
        struct nlmsghdr head;
        struct ifinfomsg info;
    } message = {
        {sizeof message, RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0},
        {.ifi_family = AF_UNSPEC, .ifi_index = 1, .ifi_change = 1, .ifi_flags = 0},
    };
    char heard[1024];
    int peer = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    if (peer < 0 || send(peer, &message, sizeof message, 0) < 0)
        return -1;
    if (recv(peer, heard, sizeof heard, 0) < 0)
        return -1;
    struct nlmsgerr *error = NLMSG_DATA((struct nlmsghdr *)heard);
    return error->error == 0 ? 0 : (errno = -error->error, -1);
}

/* Credentials that are not the sender's, to a socket that believes the kernel. */
static long forge_credentials(pid_t target) {
    int pair[2], on = 1;
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) != 0)
        return -1;
    setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    struct ucred forged = {target, 4242, 4242};
    char byte = 'x', space[CMSG_SPACE(sizeof forged)] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *control = CMSG_FIRSTHDR(&message);
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_CREDENTIALS;
    control->cmsg_len = CMSG_LEN(sizeof forged);
    memcpy(CMSG_DATA(control), &forged, sizeof forged);
    return sendmsg(pair[0], &message, 0);
}

static long write_to(const char *path, const char *text) {
    int file = open(path, O_WRONLY);
    return file < 0 ? -1 : write(file, text, strlen(text));
}

int main(int count, char **words) {
    pid_t target = count > 1 ? atoi(words[1]) : 0;
    /* Where the starter has no number here, one that nobody has. */
    if (target <= 1)
        target = 4194303;
    struct iovec part = {words, 8};
    struct timespec now = {0};
    struct timex clock = {.modes = ADJ_OFFSET};
    struct sched_param real_time = {1};
    struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY}, files;
    struct sched_attr_like {
        unsigned size, policy;
        unsigned long flags;
        int nice;
        unsigned priority;
        unsigned long runtime, deadline, period;
    } attributes = {sizeof attributes, 2, 0, 0, 1, 0, 0, 0};
    unsigned long mount_attributes[4] = {0}, processors = 1;

    answer("kill", kill(target, SIGKILL));
    answer("tgkill", syscall(SYS_tgkill, target, target, SIGKILL));
    siginfo_t info = {.si_code = SI_QUEUE};
    answer("sigqueue", syscall(SYS_rt_sigqueueinfo, target, SIGKILL, &info));
    int pidfd = syscall(SYS_pidfd_open, target, 0);
    answer("pidfd_send_signal", syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0));
    answer("signal by descriptor", signal_by_descriptor(target));
    answer("ptrace", ptrace(PTRACE_SEIZE, target, 0, 0));
    answer("process_vm_readv", process_vm_readv(target, &part, 1, &part, 1, 0));
    answer("process_vm_writev", process_vm_writev(target, &part, 1, &part, 1, 0));
    answer("process_madvise", syscall(SYS_process_madvise, pidfd, &part, 1, 21, 0));
    answer("pidfd_getfd", syscall(SYS_pidfd_getfd, pidfd, 0, 0));
    answer("move_pages", syscall(SYS_move_pages, target, 0, NULL, NULL, NULL, 0));
    answer("setpgid", setpgid(0, target));
    answer("setns by process", syscall(SYS_setns, pidfd, 0x00020000));
    answer("prlimit of others", syscall(SYS_prlimit64, target, RLIMIT_NOFILE, NULL, &files));
    answer("setpriority of others", setpriority(PRIO_PROCESS, target, 19));
    answer("sched_setaffinity of others", syscall(SYS_sched_setaffinity, target, sizeof processors, &processors));

    answer("raise a limit", setrlimit(RLIMIT_CORE, &all));
    answer("nice", setpriority(PRIO_PROCESS, 0, -20));
    answer("real time", sched_setscheduler(0, SCHED_FIFO, &real_time));
    answer("sched_setattr", syscall(SYS_sched_setattr, 0, &attributes, 0));
    answer("ioprio_set", syscall(SYS_ioprio_set, 1, 0, 1 << 13));
    answer("clock_settime", clock_settime(CLOCK_REALTIME, &now));
    answer("adjtimex", adjtimex(&clock));
    answer("settimeofday", settimeofday(&(struct timeval){1, 1}, NULL));
    answer("vhangup", syscall(SYS_vhangup));
    answer("iopl", syscall(SYS_iopl, 3));

    answer("fsconfig", syscall(SYS_fsconfig, 0, 6, NULL, NULL, 0));
    answer("fspick", syscall(SYS_fspick, AT_FDCWD, "/", 0));
    answer("mount_setattr", syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, mount_attributes, sizeof mount_attributes));
    answer("umount", syscall(SYS_umount2, "/", 2));
    answer("leave the root", leave_root());
    answer("link down", set_link_down());
    answer("audit", socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT) < 0 ? -1 : (errno = ENOTSUP, -1));
    answer("forged credentials", forge_credentials(target));
    answer("sysrq", write_to("/proc/sysrq-trigger", "h"));
    answer("core_pattern", write_to("/proc/sys/kernel/core_pattern", "|/bin/x"));
    answer("modprobe", write_to("/proc/sys/kernel/modprobe", "/bin/x"));
    answer("oom_score_adj", write_to("/proc/self/oom_score_adj", "-1000"));
    answer("uid_map", write_to("/proc/self/uid_map", "0 0 4294967295"));
    answer("mem of the starter", open("/proc/1/../../proc/4194303/mem", O_RDWR));
    answer("kmsg", write_to("/dev/kmsg", "x"));
    answer("memory of the machine", open("/dev/mem", O_RDONLY));
    answer("release_agent", write_to("/sys/fs/cgroup/release_agent", "/bin/x"));
    answer("uevent_helper", write_to("/sys/kernel/uevent_helper", "/bin/x"));
    answer("own child by descriptor", signal_own_child());
    return 0;
}
