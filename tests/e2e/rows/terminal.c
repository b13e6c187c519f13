/* What a program does to the terminal it was given, and to any other that it finds: types into it, takes it, pastes, moves it.
 *
 * terminal who: says which device standard input is.
 * terminal type TEXT: types TEXT and a line's end into its own, for whoever reads there next.
 * terminal attack TEXT: types them into every terminal it can open, says `NAME: ERROR` or `NAME: DONE` for what reaches
 * others, reads a line from its own, says `own: LINE`, and leaves the rest typed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

/* linux/tiocl.h, linux/kd.h, linux/vt.h, linux/tty.h: not in every C library. */
#define LINUX_SET_SELECTION 2
#define LINUX_PASTE 3
#define KEYBOARD_ENTRY 0x4B47 /* KDSKBENT */
#define CONSOLE_ACTIVATE 0x5606 /* VT_ACTIVATE */
#define DISCIPLINE_GSM 21

static void answer(const char *what, long result) {
    printf("%s: %s\r\n", what, result >= 0 ? "DONE" : strerror(errno));
    fflush(stdout);
}

static int type(int terminal, const char *text) {
    for (; *text; text++)
        if (ioctl(terminal, TIOCSTI, text) != 0)
            return -1;
    return ioctl(terminal, TIOCSTI, "\n");
}

static void who(void) {
    struct stat seen;
    fstat(0, &seen);
    printf("standing on %lx:%lx\r\n", (unsigned long)seen.st_dev, (unsigned long)seen.st_rdev);
    fflush(stdout);
}

/* Types into what is there by this name; tells of it if that is not the terminal of standard input. */
static void type_by_name(const char *name, const char *text) {
    int terminal = open(name, O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (terminal < 0)
        return;
    struct stat own, other;
    fstat(0, &own);
    fstat(terminal, &other);
    int typed = type(terminal, text);
    if (strcmp(name, "/dev/tty") && own.st_rdev != other.st_rdev)
        answer(name, typed);
    close(terminal);
}

int main(int count, char **words) {
    if (count < 2)
        return 1;
    if (count < 3) {
        who();
        return 0;
    }
    const char *text = words[2];
    if (!strcmp(words[1], "type"))
        return type(0, text) != 0;
    printf("\r\n");
    who();
    tcflush(0, TCIFLUSH);
    char name[64], line[256];
    static const char *const names[] = {"/dev/tty", "/dev/console", "/dev/tty0", "/dev/tty1", "/dev/ttyS0", "/dev/hvc0"};
    for (unsigned number = 0; number < sizeof names / sizeof *names; number++)
        type_by_name(names[number], text);
    for (int number = 0; number < 64; number++) {
        snprintf(name, sizeof name, "/dev/pts/%d", number);
        type_by_name(name, text);
    }
    char selection[16] = {LINUX_SET_SELECTION}, paste = LINUX_PASTE;
    answer("select", ioctl(0, TIOCLINUX, selection));
    answer("paste", ioctl(0, TIOCLINUX, &paste));
    struct {
        unsigned char table, index;
        unsigned short value;
    } key = {0, 30, 0x0b61};
    answer("change a key", ioctl(0, KEYBOARD_ENTRY, &key));
    answer("change the console", ioctl(0, CONSOLE_ACTIVATE, 2));
    answer("take the console", ioctl(0, TIOCCONS, 0));
    int discipline = DISCIPLINE_GSM;
    answer("multiplex", ioctl(0, TIOCSETD, &discipline));
    answer("steal", ioctl(0, TIOCSCTTY, 1));
    /* Its own it may type into, where the kernel lets anybody (dev.tty.legacy_tiocsti). */
    if (type(0, text) != 0) {
        printf("own: %s\r\n", strerror(errno));
        return 0;
    }
    /* What a terminal that ended had sent before is no text. */
    const char *own = "";
    for (int tries = 0; tries < 4 && !*own; tries++) {
        long got = read(0, line, sizeof line - 1);
        line[got > 0 ? got : 0] = 0;
        for (own = line; own < line + got && *own < ' '; own++)
            ;
    }
    printf("\r\nown: %.*s\r\n", (int)strcspn(own, "\r\n"), own);
    return 0;
}
