/* A library that leaves a mark wherever it is loaded: row 14. `MARK` is a file of the host. */
#include <fcntl.h>
#include <unistd.h>

__attribute__((constructor)) static void loaded(void) {
    const char *marks[] = {MARK, "/ran-library"};
    for (int i = 0; i < 2; i++) {
        int fd = open(marks[i], O_WRONLY | O_CREAT | O_APPEND, 0666);
        if (fd >= 0)
            close(fd);
    }
}
