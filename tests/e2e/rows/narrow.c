/* Sockets as an old C library of i386 makes them: by socketcall, whose arguments are behind a pointer. A line `NAME: ERROR` or
 * `NAME: DONE` for each way; the last must work. `narrow to PORT` connects to this machine and says how that went.
 *
 * Needs no library and no start file, which few machines have for i386.
 */
#define CALL_FORK 2
#define CALL_WAITPID 7
#define CALL_SOCKETCALL 102
#define CALL_FSTAT 197
#define CALL_GETUID 199
#define CALL_GETGID 200
#define CALL_SETUID 213
#define CALL_SETGID 214

enum { SOCKET = 1, BIND, CONNECT, LISTEN, ACCEPT, GETSOCKNAME, SEND = 9, RECV = 10, GETSOCKOPT = 15 };
enum { UNIX = 1, INET = 2, NETLINK = 16, ALG = 38, VSOCK = 40 };
enum { STREAM = 1, DATAGRAM = 2, RAW = 3, CLOSED_ON_EXEC = 02000000 };

static long call(long number, long a, long b, long c, long d, long e) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "0"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
    return result;
}

static long socketcall(int part, long a, long b, long c, long d, long e) {
    long arguments[6] = {a, b, c, d, e, 0};
    return call(CALL_SOCKETCALL, part, (long)arguments, 0, 0, 0);
}

static long opened(int family, int kind, int protocol) { return socketcall(SOCKET, family, kind, protocol, 0, 0); }

static void say(const char *text) {
    long length = 0;
    while (text[length])
        length++;
    call(4, 1, (long)text, length, 0, 0);
}

static void answer(const char *what, long result) {
    char digits[] = ": error 000\n";
    say(what);
    if (result >= 0) {
        say(": DONE\n");
        return;
    }
    for (int at = 10; at > 7; at--, result /= 10)
        digits[at] = (char)('0' + -result % 10);
    say(digits);
}

static long quit(long code) { return call(1, code, 0, 0, 0, 0); }

/* What a child of this process gives, which is no more than 255. */
static long in_child(long (*work)(void)) {
    int status = 0;
    long child = call(CALL_FORK, 0, 0, 0, 0, 0);
    if (child == 0) {
        long result = work();
        quit(result < 0 ? -result : 0);
    }
    call(CALL_WAITPID, child, (long)&status, 0, 0, 0);
    return -(status >> 8 & 255);
}

static long family_of(long socket) {
    int family = 0, length = sizeof family;
    socketcall(GETSOCKOPT, socket, 1 /* SOL_SOCKET */, 39 /* SO_DOMAIN */, (long)&family, (long)&length);
    return family;
}

/* Whether arguments that another process changes all the time are judged as one thing and used as another. */
static long exchanged(void) {
    /* mmap2: readable, writable, shared, anonymous */
    volatile long *arguments = (volatile long *)call(192, 0, 4096, 3, 0x21, -1);
    arguments[0] = INET, arguments[1] = DATAGRAM, arguments[2] = 0;
    long child = call(CALL_FORK, 0, 0, 0, 0, 0);
    if (child == 0)
        for (;;) {
            arguments[0] = VSOCK;
            arguments[0] = INET;
        }
    long made = 0, refused = 0, result = -11;
    for (int round = 0; round < 3000; round++) {
        long socket = call(CALL_SOCKETCALL, SOCKET, (long)arguments, 0, 0, 0);
        if (socket < 0) {
            refused++;
            continue;
        }
        made++;
        if (family_of(socket) == VSOCK)
            result = 0;
        call(6, socket, 0, 0, 0, 0);
    }
    call(37, child, 9, 0, 0, 0);
    call(CALL_WAITPID, child, 0, 0, 0, 0);
    /* Both were seen, or nothing was tried. */
    return made == 0 || refused == 0 ? 0 : result;
}

static long raw_of_a_user(void) {
    call(CALL_SETUID, 1000, 0, 0, 0, 0);
    return opened(INET, RAW, 1);
}

/* Whose a socket is says who may reach it later, and is in rules of firewalls. */
static long owner_of_a_users(void) {
    /* struct stat64 of asm/stat.h */
    unsigned found[24] = {0};
    call(CALL_SETGID, 7, 0, 0, 0, 0);
    call(CALL_SETUID, 1000, 0, 0, 0, 0);
    long socket = opened(INET, DATAGRAM, 0);
    if (socket < 0)
        return socket;
    call(CALL_FSTAT, socket, (long)found, 0, 0, 0);
    int is_own = found[6] == (unsigned)call(CALL_GETUID, 0, 0, 0, 0, 0) && found[7] == (unsigned)call(CALL_GETGID, 0, 0, 0, 0, 0);
    return is_own ? 0 : -50;
}

struct address {
    unsigned short family, port;
    unsigned char host[4], rest[8];
};

static const struct address loopback = {INET, 0, {127, 0, 0, 1}, {0}};

/* A connection of this process with itself, and sockets of the other families that programs use. */
static long network(void) {
    struct address here = loopback;
    int length = sizeof here;
    char byte = 0;
    long listener = opened(INET, STREAM | CLOSED_ON_EXEC, 6);
    if (listener < 0)
        return listener;
    /* fcntl: its flags */
    if (call(55, listener, 1, 0, 0, 0) != 1)
        return -1001;
    long client = opened(INET, STREAM, 0);
    if (call(55, client, 1, 0, 0, 0) != 0)
        return -1002;
    if (socketcall(BIND, listener, (long)&here, length, 0, 0) < 0 || socketcall(LISTEN, listener, 1, 0, 0, 0) < 0)
        return -1003;
    socketcall(GETSOCKNAME, listener, (long)&here, (long)&length, 0, 0);
    long result = socketcall(CONNECT, client, (long)&here, sizeof here, 0, 0);
    if (result < 0)
        return result;
    long served = socketcall(ACCEPT, listener, 0, 0, 0, 0);
    socketcall(SEND, served, (long)"x", 1, 0, 0);
    socketcall(RECV, client, (long)&byte, 1, 0, 0);
    if (byte != 'x')
        return -1004;
    if (family_of(opened(UNIX, STREAM, 0)) != UNIX || family_of(opened(NETLINK, RAW, 0)) != NETLINK)
        return -1005;
    return opened(INET, DATAGRAM, 17);
}

static long connect_to(const char *port) {
    struct address there = loopback;
    int number = 0;
    for (; *port; port++)
        number = number * 10 + (*port - '0');
    there.port = (unsigned short)((number & 255) << 8 | number >> 8);
    long client = opened(INET, STREAM, 0);
    return client < 0 ? client : socketcall(CONNECT, client, (long)&there, sizeof there, 0, 0);
}

__attribute__((used)) static void begin(long *stack) {
    const char **words = (const char **)(stack + 1);
    if (stack[0] == 3) {
        answer("connected", connect_to(words[2]));
        quit(0);
    }
    answer("connector", opened(NETLINK, DATAGRAM, 11));
    answer("kernel's ciphers", opened(ALG, 5 /* SOCK_SEQPACKET */, 0));
    answer("the machine's host", opened(VSOCK, STREAM, 0));
    answer("a family that is none", opened(0x10000 | INET, STREAM, 0));
    answer("arguments nowhere", call(CALL_SOCKETCALL, SOCKET, 8, 0, 0, 0));
    answer("raw packets of a user", in_child(raw_of_a_user));
    answer("whose a user's is", in_child(owner_of_a_users));
    answer("exchanged arguments", exchanged());
    answer("network", network());
    quit(0);
}

__asm__(".globl _start\n_start: mov %esp, %eax\n push %eax\n call begin\n");
