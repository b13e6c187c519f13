/* Sets the attributes by which overlayfs marks what a layer hides, and those in which this program's builder records owners, on
 * files of the image and on new ones. What each call answers is printed and means nothing by itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static void mark(const char *path, const char *name, const char *value) {
    int failed = setxattr(path, name, value, strlen(value), 0);
    printf("%s %s: %s\n", path, name, failed ? strerror(errno) : "DONE");
}

static void make(const char *path) {
    close(open(path, O_CREAT | O_WRONLY, 0644));
}

int main(void) {
    mkdir("/forged", 0755);
    mkdir("/home/hidden", 0755);
    make("/forged/passwd");
    make("/home/hidden/file");
    mark("/etc", "user.overlay.opaque", "y");
    mark("/bin", "user.overlay.opaque", "x");
    mark("/bin/busybox", "user.overlay.whiteout", "y");
    mark("/forged", "user.overlay.opaque", "x");
    mark("/forged", "user.overlay.redirect", "/bin");
    mark("/forged/passwd", "user.overlay.whiteout", "y");
    mark("/forged/passwd", "user.overlay.metacopy", "");
    mark("/forged/passwd", "user.overlay.redirect", "/etc/shadow");
    mark("/home/hidden", "user.overlay.opaque", "x");
    mark("/home/hidden", "user.overlay.origin", "abc");
    mark("/home/hidden/file", "user.overlay.whiteout", "y");
    mark("/etc/group", "user.rbuild.owner", "9 9");
    mark("/home", "user.rbuild.mode", "777");
    return 0;
}
