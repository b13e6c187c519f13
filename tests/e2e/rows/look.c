/* Looks around by calls alone, for where there is no /proc: a line `asked NAME VALUE` for each thing. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

static void file_system(const char *path) {
    struct statvfs seen;
    if (statvfs(path, &seen) != 0) {
        printf("asked file system %s: %s\n", path, strerror(errno));
        return;
    }
    printf("asked file system %s:%s%s%s%s\n", path, seen.f_flag & ST_RDONLY ? " read-only" : "",
           seen.f_flag & ST_NOSUID ? " nosuid" : "", seen.f_flag & ST_NODEV ? " nodev" : "",
           seen.f_flag & ST_NOEXEC ? " noexec" : "");
}

static unsigned long set(int of, unsigned long which) {
    unsigned long found = 0;
    for (unsigned long number = 0; number < 64; number++)
        if (prctl(of, of == PR_CAP_AMBIENT ? which : number, of == PR_CAP_AMBIENT ? number : 0, 0, 0) == 1)
            found |= 1UL << number;
    return found;
}

int main(void) {
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2];
    syscall(SYS_capget, &head, sets);
    printf("asked effective %08x%08x\n", sets[1].effective, sets[0].effective);
    printf("asked permitted %08x%08x\n", sets[1].permitted, sets[0].permitted);
    printf("asked inheritable %08x%08x\n", sets[1].inheritable, sets[0].inheritable);
    printf("asked bounding %016lx\n", set(PR_CAPBSET_READ, 0));
    printf("asked ambient %016lx\n", set(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET));
    printf("asked no_new_privs %d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    printf("asked seccomp %d\n", prctl(PR_GET_SECCOMP));
    printf("asked securebits %d\n", prctl(PR_GET_SECUREBITS));
    printf("asked dumpable %d\n", prctl(PR_GET_DUMPABLE));
    printf("asked death signal %d\n", ({ int death = 0; prctl(PR_GET_PDEATHSIG, &death); death; }));
    printf("asked subreaper %d\n", ({ int reaper = 0; prctl(PR_GET_CHILD_SUBREAPER, &reaper); reaper; }));
    printf("asked timer slack %d\n", prctl(PR_GET_TIMERSLACK));
    unsigned user[3], group[3], groups[64];
    getresuid(user, user + 1, user + 2);
    getresgid(group, group + 1, group + 2);
    printf("asked ids %u %u %u %u %u %u\n", user[0], user[1], user[2], group[0], group[1], group[2]);
    printf("asked groups");
    for (int number = 0, count = getgroups(64, groups); number < count; number++)
        printf(" %u", groups[number]);
    printf("\nasked umask %03o\n", umask(0));
    printf("asked priority %d policy %d\n", getpriority(PRIO_PROCESS, 0), sched_getscheduler(0));
    struct utsname names;
    uname(&names);
    printf("asked host %s\n", names.nodename);
    static const char *const limits[] = {"cpu", "file size", "data", "stack", "core", "resident", "processes", "files",
                                         "locked memory", "address space", "locks", "signals", "queues", "nice", "real time"};
    for (int number = 0; number < 15; number++) {
        struct rlimit limit;
        getrlimit(number, &limit);
        printf("asked limit of %s %ld %ld\n", limits[number], (long)limit.rlim_cur, (long)limit.rlim_max);
    }
    sigset_t blocked;
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    for (int number = 1; number < 64; number++) {
        struct sigaction action;
        if (sigaction(number, NULL, &action) == 0 && (action.sa_handler == SIG_IGN || sigismember(&blocked, number) == 1))
            printf("asked signal %d is ignored or blocked\n", number);
    }
    static const char *const places[] = {"/", "/tmp", "/dev", "/dev/shm", "/dev/mqueue", "/dev/pts", "/proc", "/sys", "/sys/fs/cgroup"};
    for (unsigned number = 0; number < sizeof places / sizeof *places; number++)
        file_system(places[number]);
    return 0;
}
