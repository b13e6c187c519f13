/* Two steps that share a directory: `give` opens files of its root and passes the descriptors through a socket there, `take`
 * changes what they mean when the giver's layer is long finished. What each call answered is printed.
 *
 * passing give SOCKET SECONDS
 * passing take SOCKET DONE SECONDS
 *
 * And a step that exchanges two names of a directory until a file is there, but so often at least, and says how often; the file
 * TOLD grows by a byte with each:
 *
 * passing exchange DIRECTORY NAME NAME END TOLD LEAST SECONDS
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define FILES 4

static int at(const char *path, struct sockaddr_un *address) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    strncpy(address->sun_path, path, sizeof address->sun_path - 1);
    return socket(AF_UNIX, SOCK_STREAM, 0);
}

static int give(const char *path, int seconds) {
    struct sockaddr_un address;
    int peer = at(path, &address);
    for (int tenths = seconds * 10; connect(peer, (struct sockaddr *)&address, sizeof address) != 0; tenths--) {
        if (tenths == 0) {
            puts("nobody took");
            return 0;
        }
        usleep(100000);
    }
    int files[FILES] = {
        open("/given", O_RDWR),
        open("/mapped", O_RDWR),
        open("/", O_RDONLY | O_DIRECTORY),
        open("/etc/read", O_PATH),
    };
    char byte = 'x', space[CMSG_SPACE(sizeof files)] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *control = CMSG_FIRSTHDR(&message);
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(sizeof files);
    memcpy(CMSG_DATA(control), files, sizeof files);
    if (sendmsg(peer, &message, 0) != 1 || read(peer, &byte, 1) != 1)
        return perror("give"), 1;
    puts("gave");
    return 0;
}

static void answer(const char *what, long result) {
    printf("%s: %s\n", what, result >= 0 ? "DONE" : strerror(errno));
}

static int exchange(int dir, const char *one, const char *other, const char *end, int told, int least, int seconds) {
    /* Odd, so that each name is the other during every second pause. */
    const char dots[] = "...........";
    const int burst = sizeof dots - 1;
    int done = 0;
    time_t until = time(NULL) + seconds;
    while (time(NULL) < until && (done < least || access(end, F_OK) != 0)) {
        int most = done < least && least - done < burst ? least - done : burst, now = 0;
        for (int times = 0; times < most; times++)
            now += renameat2(dir, one, dir, other, RENAME_EXCHANGE) == 0;
        if (told >= 0 && write(told, dots, now) != now)
            return -1;
        done += now;
        /* The kernel lets nobody look a path up while names change without a pause. */
        usleep(100);
    }
    return done;
}

static int take(const char *path, const char *done, int seconds) {
    struct sockaddr_un address;
    int here = at(path, &address);
    unlink(path);
    if (bind(here, (struct sockaddr *)&address, sizeof address) != 0 || listen(here, 1) != 0)
        return perror("take"), 1;
    struct pollfd waits = {here, POLLIN, 0};
    if (poll(&waits, 1, seconds * 1000) == 0) {
        puts("nobody gave");
        return 0;
    }
    int peer = accept(here, NULL, NULL), files[FILES];
    char byte, space[CMSG_SPACE(sizeof files)];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *control;
    if (recvmsg(peer, &message, 0) != 1 || (control = CMSG_FIRSTHDR(&message)) == NULL)
        return perror("take"), 1;
    memcpy(files, CMSG_DATA(control), sizeof files);
    char *mapped = mmap(NULL, 4, PROT_READ | PROT_WRITE, MAP_SHARED, files[1], 0);
    close(files[1]);
    if (write(peer, "x", 1) != 1)
        return perror("take"), 1;
    puts("took");
    for (int tenths = seconds * 10; access(done, F_OK) != 0; tenths--) {
        if (tenths == 0)
            return fputs("the giver's layer was never used\n", stderr), 1;
        usleep(100000);
    }
    answer("write", pwrite(files[0], "bad\n", 4, 0));
    if (mapped != MAP_FAILED)
        memcpy(mapped, "bad\n", 4);
    answer("map", mapped == MAP_FAILED ? -1 : msync(mapped, 4, MS_SYNC));
    answer("make", openat(files[2], "planted", O_WRONLY | O_CREAT, 0644));
    answer("link", symlinkat("bad", files[2], "etc/planted"));
    answer("remove", unlinkat(files[2], "etc/kept", 0));
    char name[32];
    snprintf(name, sizeof name, "/proc/self/fd/%d", files[3]);
    int again = open(name, O_WRONLY | O_TRUNC);
    answer("reopen", again);
    answer("reopened write", again < 0 ? -1 : pwrite(again, "bad\n", 4, 0));
    /* Whoever reads the layer now meets a directory that comes and goes. */
    answer("name", symlinkat("/", files[2], "other"));
    printf("exchanged: %d\n", exchange(files[2], "etc", "other", "/none", -1, 0, 2) > 100);
    return 0;
}

int main(int count, char **words) {
    if (count == 4 && strcmp(words[1], "give") == 0)
        return give(words[2], atoi(words[3]));
    if (count == 5 && strcmp(words[1], "take") == 0)
        return take(words[2], words[3], atoi(words[4]));
    if (count == 9 && strcmp(words[1], "exchange") == 0) {
        int dir = open(words[2], O_RDONLY | O_DIRECTORY), told = open(words[6], O_WRONLY | O_CREAT | O_APPEND, 0644);
        if (told < 0)
            return perror("exchange"), 1;
        printf("%d\n", exchange(dir, words[3], words[4], words[5], told, atoi(words[7]), atoi(words[8])));
        return 0;
    }
    return 2;
}
