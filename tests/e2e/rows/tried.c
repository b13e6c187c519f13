/* More ways out that somebody once took: a line `NAME: ERROR` or `NAME: DONE` for each. The last may work, and must: it shows that
 * the others were tried by a program that runs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* Numbers that are the same on all architectures since 2019 (asm-generic/unistd.h). */
#define CALL_LSM_GET 459
#define CALL_LSM_SET 460
#define CALL_OPEN_TREE_ATTR 467

static void answer(const char *what, long result) {
    printf("%s: %s\n", what, result >= 0 ? "DONE" : strerror(errno));
    fflush(stdout);
}

/* A file by the handle that the kernel itself gave for it: nothing has to be guessed. */
static long own_handle(void) {
    struct {
        struct file_handle head;
        unsigned char rest[128];
    } handle = {.head.handle_bytes = sizeof handle.rest};
    int mount;
    int root = open("/", O_RDONLY | O_DIRECTORY);
    if (name_to_handle_at(AT_FDCWD, "/tmp", &handle.head, &mount, 0) != 0)
        return -1;
    return open_by_handle_at(root, &handle.head, O_RDONLY);
}

/* Packets of the machine, given to this program: a message of NFNL_SUBSYS_ULOG (4), NFULNL_MSG_CONFIG (1), NFULNL_CFG_CMD_PF_BIND. */
static long packet_log(int subsystem) {
    struct {
        struct nlmsghdr head;
        unsigned char family, version;
        unsigned short group;
        unsigned short length, kind;
        unsigned char command, pad[3];
    } message = {{32 - 4, subsystem << 8 | 1, NLM_F_REQUEST | NLM_F_ACK, 1, 0}, AF_INET, 0, 0, 5, 1, 3, {0}};
    char heard[1024];
    int peer = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
    if (peer < 0 || send(peer, &message, sizeof message, 0) < 0 || recv(peer, heard, sizeof heard, MSG_DONTWAIT) < 0)
        return -1;
    struct nlmsgerr *error = NLMSG_DATA((struct nlmsghdr *)heard);
    return error->error == 0 ? 0 : (errno = -error->error, -1);
}

/* An event of a device, as only the kernel tells them. */
static long forged_event(void) {
    static const char text[] = "add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM=block";
    struct sockaddr_nl everybody = {.nl_family = AF_NETLINK, .nl_groups = 1};
    int peer = socket(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT);
    return peer < 0 ? -1 : sendto(peer, text, sizeof text, 0, (struct sockaddr *)&everybody, sizeof everybody);
}

/* Processes of the machine as they start: a message to cn_proc of the connector (linux/cn_proc.h), and one process to be told of. */
static long process_events(void) {
    struct sockaddr_nl group = {.nl_family = AF_NETLINK, .nl_groups = 1};
    struct {
        struct nlmsghdr head;
        unsigned index, value, sequence, acknowledgement;
        unsigned short length, flags;
        unsigned listen;
    } message = {{sizeof message, NLMSG_DONE, 0, 1, 0}, 1, 1, 0, 0, 4, 0, 1};
    char heard[1024];
    int peer = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_CONNECTOR);
    if (peer < 0 || bind(peer, (struct sockaddr *)&group, sizeof group) != 0 || send(peer, &message, sizeof message, 0) < 0)
        return -1;
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    struct timeval patience = {0, 300000};
    setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return recv(peer, heard, sizeof heard, 0);
}

static long write_to(const char *path, const char *text) {
    int file = open(path, O_WRONLY);
    return file < 0 ? -1 : write(file, text, strlen(text));
}

/* Whether a process's root is another than this one's. */
static long other_root(const char *path) {
    struct stat here, there;
    stat("/", &here);
    if (stat(path, &there) != 0)
        return -1;
    return here.st_dev == there.st_dev && here.st_ino == there.st_ino ? (errno = EXDEV, -1) : 0;
}

/* Any descriptor but 0, 1, 2 and the one that looks; by number, for where there is no /proc. */
static long foreign_descriptor(void) {
    for (int number = 3; number < 4096; number++)
        if (fcntl(number, F_GETFD) >= 0)
            return number;
    return errno = EBADF, -1;
}

static long raise_interface(void) {
    struct ifreq request = {.ifr_name = "lo"};
    int peer = socket(AF_INET, SOCK_DGRAM, 0);
    if (peer < 0 || ioctl(peer, SIOCGIFFLAGS, &request) != 0)
        return -1;
    return ioctl(peer, SIOCSIFFLAGS, &request);
}

int main(void) {
    char page[4096] = {0};
    unsigned long attributes[4] = {0};
    answer("descriptor of another", foreign_descriptor());
    answer("handle of its own file", own_handle());
    answer("root of the first process", other_root("/proc/1/root"));
    answer("root of its own program's loader", other_root("/proc/self/root"));
    answer("packet log", packet_log(4));
    answer("packet queue", packet_log(3));
    answer("event of a device", forged_event());
    answer("events of processes", process_events());
    answer("interface", raise_interface());
    answer("own program", write_to("/proc/self/exe", "x"));
    answer("program of the first process", write_to("/proc/1/exe", "x"));
    answer("map of the first process", write_to("/proc/1/uid_map", "0 0 1"));
    answer("groups of the first process", write_to("/proc/1/setgroups", "allow"));
    answer("profile of the next program", write_to("/proc/self/attr/exec", "exec unconfined"));
    answer("move a mount", mount("/tmp", "/usr", NULL, MS_MOVE, NULL));
    answer("share mounts", mount(NULL, "/", NULL, MS_REC | MS_SHARED, NULL));
    answer("remount", mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
    answer("remount /proc", mount(NULL, "/proc", NULL, MS_REMOUNT, NULL));
    answer("request_key", syscall(SYS_request_key, "user", "x", "y", -3));
    answer("new time", unshare(0x00000080));
    answer("new mounts", unshare(CLONE_NEWNS));
    answer("new control groups", unshare(0x02000000));
    answer("lsm_get_self_attr", syscall(CALL_LSM_GET, 100, page, page + 2048, 0));
    answer("lsm_set_self_attr", syscall(CALL_LSM_SET, 100, page, 32, 0));
    answer("open_tree_attr", syscall(CALL_OPEN_TREE_ATTR, AT_FDCWD, "/", 1, attributes, sizeof attributes));
    answer("uselib", syscall(134, "/bin/busybox"));
    answer("lookup_dcookie", syscall(SYS_lookup_dcookie, 0, page, sizeof page));
    answer("ioperm", syscall(SYS_ioperm, 0x70, 2, 1));
    answer("finit_module", syscall(SYS_finit_module, 0, "", 0));
    answer("delete_module", syscall(SYS_delete_module, "x", 0));
    answer("kexec_file_load", syscall(SYS_kexec_file_load, 0, 0, 0, "", 0));
    answer("swapoff", syscall(SYS_swapoff, "/tmp"));
    answer("name of the domain", setdomainname("x", 1));
    page[0] = 1; /* ADJ_OFFSET: asking alone is nobody's harm. */
    answer("clock of adjustments", syscall(SYS_clock_adjtime, 0, page));
    answer("userfaultfd device", open("/dev/userfaultfd", O_RDWR));
    answer("fuse", open("/dev/fuse", O_RDWR));
    answer("tunnel", open("/dev/net/tun", O_RDWR));
    answer("virtual machines", open("/dev/kvm", O_RDWR));
    answer("loop", open("/dev/loop-control", O_RDWR));
    answer("mapper", open("/dev/mapper/control", O_RDWR));
    answer("console", open("/dev/console", O_RDWR));
    answer("terminal of the machine", open("/dev/tty1", O_RDWR));
    answer("own memory", open("/proc/self/mem", O_RDONLY) >= 0 || errno == ENOENT ? 0 : -1);
    return 0;
}
