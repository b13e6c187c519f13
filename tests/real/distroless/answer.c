/* Answers one line over HTTP, without a C library at run time. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void) {
    const char *port = getenv("PORT");
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 8000)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 8)) {
        perror("listen");
        return 1;
    }
    for (;;) {
        int peer = accept(listener, NULL, NULL);
        char request[1024], answer[256], body[128];
        if (peer < 0) continue;
        if (read(peer, request, sizeof request) < 0) perror("read");
        snprintf(body, sizeof body, "static answers as %d\n", (int)getuid());
        int length = snprintf(answer, sizeof answer, "HTTP/1.0 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
        if (write(peer, answer, length) < 0) perror("write");
        close(peer);
    }
}
