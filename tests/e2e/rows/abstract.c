/* Connects to abstract sockets: one of its own, and the one whose name it is given. Says of each whether it was reached. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static socklen_t named(struct sockaddr_un *address, const char *name) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    strncpy(address->sun_path + 1, name, sizeof address->sun_path - 2);
    return offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name);
}

static void reach(const char *name) {
    struct sockaddr_un address;
    socklen_t length = named(&address, name);
    int failed = connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&address, length);
    printf("%s\n", failed ? strerror(errno) : "reached");
}

int main(int count, char **names) {
    struct sockaddr_un own;
    socklen_t length = named(&own, "the-step-s-own");
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (count != 2 || bind(listener, (struct sockaddr *)&own, length) || listen(listener, 1)) {
        return 1;
    }
    reach("the-step-s-own");
    reach(names[1]);
    return 0;
}
