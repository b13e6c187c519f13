/* Keeps a key of the host, and looks for it: row 29.
 *
 *   keys plant NAME PROGRAM ARG...   puts a key into the session and the user keyring, runs the program, says on
 *                                    standard output whether both keys are still there, and takes them away
 *   keys look NAME                   says what each way to a key answers
 *
 * Exit code 77: this kernel gives the caller no keys, so there is nothing to show.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SESSION -3L
#define USER -4L
#define JOIN_SESSION 1
#define CLEAR 7
#define UNLINK 9
#define SEARCH 10

static const char VALUE[] = "k3yr1ng-c4n4ry";

static long search(long ring, const char *name) {
    return syscall(SYS_keyctl, SEARCH, ring, "user", name, 0);
}

static void answer(const char *what, long result) {
    printf("%s: %s\n", what, result >= 0 ? "DONE" : strerror(errno));
}

static int plant(const char *name, char **program) {
    if (syscall(SYS_keyctl, JOIN_SESSION, 0) < 0)
        return 77;
    long session = syscall(SYS_add_key, "user", name, VALUE, strlen(VALUE), SESSION);
    long user = syscall(SYS_add_key, "user", name, VALUE, strlen(VALUE), USER);
    if (session < 0 || user < 0 || search(SESSION, name) < 0)
        return 77;
    pid_t child = fork();
    if (child == 0) {
        execv(program[0], program);
        _exit(127);
    }
    int status = 1;
    waitpid(child, &status, 0);
    if (search(SESSION, name) == session && search(USER, name) == user)
        puts("both keys are still there");
    syscall(SYS_keyctl, UNLINK, user, USER);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv) {
    if (argc > 3 && strcmp(argv[1], "plant") == 0)
        return plant(argv[2], argv + 3);
    if (argc != 3 || strcmp(argv[1], "look") != 0)
        return 2;
    answer("search session", search(SESSION, argv[2]));
    answer("search user", search(USER, argv[2]));
    answer("clear session", syscall(SYS_keyctl, CLEAR, SESSION));
    answer("request", syscall(SYS_request_key, "user", argv[2], 0, SESSION));
    answer("add", syscall(SYS_add_key, "user", "mine", "x", 1, SESSION));
    return 0;
}
