/* A back-source: answers handshakes with 101, echoes frames, and pushes messages when told to.
 *
 *   back_source PORT           listens on 127.0.0.1, prints "ready"
 *   back_source PORT redirect  the same, but every handshake is answered 302: the generator's own ceiling
 *
 * Commands on standard input, one line of JSON on standard output for each:
 *
 *   stats                      how many sessions it has and had
 *   push COUNT RATE TICK BYTES  sends COUNT messages of BYTES, RATE a second in all, in steps of TICK microseconds,
 *                              to its sessions in turn; says so when the last is sent
 */
#define _GNU_SOURCE
#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { EVENTS = 64, READ_BYTES = 1 << 17, HEAD_LIMIT = 8192, PUSH_LIMIT = 4096 };
enum state { NONE, LISTENING, HEAD, OPEN, ENDING };

struct session {
    enum state state;
    int index;            /* in open_fds, while OPEN */
    uint64_t pushed;      /* messages: the next one's number */
    char *head;           /* until the 101 */
    size_t head_size;
    uint8_t header[14];   /* of the frame under way */
    uint8_t header_size, header_need;
    uint8_t mask[4], mask_at;
    uint8_t opcode;
    uint64_t left;        /* payload bytes still to come */
    char *waiting;        /* what the kernel did not take */
    size_t waiting_size;
};

static struct session *sessions;
static int *open_fds, open_count, descriptor_limit, epoll_fd, timer_fd = -1, redirecting;
static uint64_t accepted, refused;
static char in[READ_BYTES], out[READ_BYTES + 64];

static struct {
    uint64_t count, sent, rate, started;
    size_t bytes;
    int next;
} push;

static void watch(int fd, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll_fd, operation, fd, &event) < 0) die("epoll_ctl");
}

static void end(int fd)
{
    struct session *s = &sessions[fd];
    if (s->state == OPEN || s->state == ENDING) {
        int last = open_fds[--open_count];
        open_fds[s->index] = last;
        sessions[last].index = s->index;
    }
    free(s->head);
    free(s->waiting);
    memset(s, 0, sizeof *s);
    close(fd);
}

/* Sends it or keeps it; returns 0 when the session is gone. */
static int deliver(int fd, const char *data, size_t size)
{
    struct session *s = &sessions[fd];
    if (!s->waiting_size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            end(fd);
            return 0;
        }
        if (sent > 0) data += sent, size -= (size_t)sent;
        if (!size) return 1;
        watch(fd, EPOLLOUT, EPOLL_CTL_MOD);
    }
    s->waiting = realloc(s->waiting, s->waiting_size + size);
    if (!s->waiting) die("realloc");
    memcpy(s->waiting + s->waiting_size, data, size);
    s->waiting_size += size;
    return 1;
}

static void flush(int fd)
{
    struct session *s = &sessions[fd];
    ssize_t sent = send(fd, s->waiting, s->waiting_size, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN) end(fd);
        return;
    }
    s->waiting_size -= (size_t)sent;
    memmove(s->waiting, s->waiting + sent, s->waiting_size);
    if (s->waiting_size) return;
    if (s->state == ENDING) {
        end(fd);
        return;
    }
    watch(fd, EPOLLIN, EPOLL_CTL_MOD);
}

/* Reads frames from data and writes their echo into out; a ping becomes a pong. Returns the size of the echo;
 * *closed says that a Close was among them, after which nothing counts. */
static size_t echo(struct session *s, const uint8_t *data, size_t size, int *closed)
{
    char *to = out;
    while (size || (s->header_need && s->header_size == s->header_need && !s->left)) {
        if (!s->left && s->header_size == s->header_need && s->header_need) {
            /* the frame is whole */
            s->header_size = s->header_need = 0;
            if (s->opcode == 8) {
                *closed = 1;
                break;
            }
            continue;
        }
        if (!s->header_need || s->header_size < s->header_need) {
            s->header[s->header_size++] = *data++;
            size--;
            if (s->header_size == 2) {
                int length = s->header[1] & 127;
                s->header_need = (uint8_t)(2 + (length == 126 ? 2 : length == 127 ? 8 : 0) + (s->header[1] & 128 ? 4 : 0));
            }
            if (s->header_size < 2 || s->header_size < s->header_need) continue;
            int length = s->header[1] & 127, extra = length == 126 ? 2 : length == 127 ? 8 : 0;
            s->left = extra ? 0 : (uint64_t)length;
            for (int i = 0; i < extra; i++) s->left = s->left << 8 | s->header[2 + i];
            memset(s->mask, 0, 4);
            if (s->header[1] & 128) memcpy(s->mask, s->header + 2 + extra, 4);
            s->mask_at = 0;
            s->opcode = s->header[0] & 15;
            size_t written = frame_header((uint8_t *)to, s->opcode == 9 ? 10 : s->opcode, s->left, 0);
            *to = (char)((s->header[0] & 0xf0) | (*to & 15));
            to += written;
            continue;
        }
        size_t part = size < s->left ? size : s->left;
        memcpy(to, data, part);
        if (s->mask[0] | s->mask[1] | s->mask[2] | s->mask[3])
            for (size_t i = 0; i < part; i++) to[i] ^= (char)s->mask[(s->mask_at + i) & 3];
        s->mask_at = (uint8_t)((s->mask_at + part) & 3);
        to += part, data += part, size -= part, s->left -= part;
    }
    return (size_t)(to - out);
}

static void on_head(int fd, const char *data, size_t size)
{
    struct session *s = &sessions[fd];
    s->head = realloc(s->head, s->head_size + size + 1);
    if (!s->head) die("realloc");
    memcpy(s->head + s->head_size, data, size);
    s->head_size += size;
    s->head[s->head_size] = 0;
    if (!strstr(s->head, "\r\n\r\n")) {
        if (s->head_size > HEAD_LIMIT) refused++, end(fd);
        return;
    }
    char answer[512], accept[ACCEPT_CHARS + 1];
    const char *key = strcasestr(s->head, "\r\nsec-websocket-key:");
    const char *target = strchr(s->head, ' '), *target_end = target ? strchr(target + 1, ' ') : NULL;
    if (redirecting && target_end) {
        int length = snprintf(answer, sizeof answer,
            "HTTP/1.1 302 Found\r\nLocation: http://unbj.websocket.test:8102%.*s\r\nContent-Length: 0\r\n"
            "Connection: close\r\n\r\n", (int)(target_end - target - 1), target + 1);
        if (deliver(fd, answer, (size_t)length)) end(fd);
        return;
    }
    if (!key) {
        static const char sentence[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        refused++;
        if (deliver(fd, sentence, sizeof sentence - 1)) end(fd);
        return;
    }
    accept_of(key + 20 + strspn(key + 20, " "), accept);
    int length = snprintf(answer, sizeof answer,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
    free(s->head);
    s->head = NULL;
    s->state = OPEN;
    s->index = open_count;
    open_fds[open_count++] = fd;
    deliver(fd, answer, (size_t)length);
}

static void on_readable(int fd)
{
    struct session *s = &sessions[fd];
    ssize_t size = recv(fd, in, sizeof in, 0);
    if (size <= 0) {
        if (size == 0 || errno != EAGAIN) end(fd);
        return;
    }
    if (s->state == HEAD) {
        on_head(fd, in, (size_t)size);
        return;
    }
    int closed = 0;
    size_t answer = echo(s, (const uint8_t *)in, (size_t)size, &closed);
    if (answer && !deliver(fd, out, answer)) return;
    if (!closed) return;
    if (s->waiting_size) s->state = ENDING;
    else end(fd);
}

static void accept_some(int listener)
{
    for (int i = 0; i < EVENTS; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        if (fd >= descriptor_limit) die("too many descriptors");
        accepted++;
        sessions[fd].state = HEAD;
        watch(fd, EPOLLIN, EPOLL_CTL_ADD);
        on_readable(fd);  /* with TCP_DEFER_ACCEPT the request is there */
    }
}

static void push_due(void)
{
    static char message[PUSH_LIMIT + 16];
    uint64_t due = (now_ns() - push.started) * push.rate / 1000000000u;
    if (due > push.count) due = push.count;
    int blocked = 0;
    while (push.sent < due && open_count && blocked < open_count) {
        int fd = open_fds[push.next++ % open_count];
        struct session *s = &sessions[fd];
        if (s->waiting_size) {
            blocked++;
            continue;
        }
        blocked = 0;
        size_t header = frame_header((uint8_t *)message, 2, push.bytes, 0);
        memset(message + header, 'p', push.bytes);
        memcpy(message + header, &s->pushed, sizeof s->pushed);
        if (!deliver(fd, message, header + push.bytes)) continue;
        s->pushed++;
        push.sent++;
    }
    if (push.sent < push.count) return;
    watch(timer_fd, 0, EPOLL_CTL_DEL);
    close(timer_fd);
    timer_fd = -1;
    printf("{\"pushed\": %lu, \"seconds\": %.6f}\n", push.sent, (double)(now_ns() - push.started) / 1e9);
}

static void start_push(uint64_t count, uint64_t rate, long tick_us, size_t bytes)
{
    if (timer_fd >= 0 || bytes < 8 || bytes > PUSH_LIMIT || tick_us < 1 || tick_us > 999999) {
        printf("{\"error\": \"push: not now, or not so\"}\n");
        return;
    }
    push.count = count, push.sent = 0, push.rate = rate, push.bytes = bytes, push.next = 0;
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct itimerspec every = {{0, tick_us * 1000}, {0, tick_us * 1000}};
    if (timer_fd < 0 || timerfd_settime(timer_fd, 0, &every, NULL) < 0) die("timerfd");
    watch(timer_fd, EPOLLIN, EPOLL_CTL_ADD);
    push.started = now_ns();
}

static void on_command(void)
{
    char line[256];
    ssize_t size = read(0, line, sizeof line - 1);
    if (size <= 0) exit(0);
    line[size] = 0;
    unsigned long count, rate, bytes;
    long tick_us;
    if (!strncmp(line, "stats", 5))
        printf("{\"open\": %d, \"accepted\": %lu, \"refused\": %lu}\n", open_count, accepted, refused);
    else if (sscanf(line, "push %lu %lu %ld %lu", &count, &rate, &tick_us, &bytes) == 4)
        start_push(count, rate, tick_us, bytes);
    else
        printf("{\"error\": \"unknown command\"}\n");
}

static void listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0) die("listen");
    sessions[fd].state = LISTENING;
    watch(fd, EPOLLIN, EPOLL_CTL_ADD);
}

int main(int argc, char **argv)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    descriptor_limit = limit.rlim_cur > 1 << 20 ? 1 << 20 : (int)limit.rlim_cur;
    sessions = calloc((size_t)descriptor_limit, sizeof *sessions);
    open_fds = calloc((size_t)descriptor_limit, sizeof *open_fds);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!sessions || !open_fds || epoll_fd < 0) die("start");
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    watch(0, EPOLLIN, EPOLL_CTL_ADD);
    if (argc < 2) {
        fputs("usage: back_source PORT [redirect]\n", stderr);
        return 2;
    }
    redirecting = argc > 2 && !strcmp(argv[2], "redirect");
    listen_on(atoi(argv[1]));
    puts("ready");
    struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == 0) {
                on_command();
            } else if (fd == timer_fd) {
                uint64_t ticks;
                if (read(fd, &ticks, sizeof ticks) > 0) push_due();
            } else if (sessions[fd].state == LISTENING) {
                accept_some(fd);
            } else if (sessions[fd].state != NONE) {
                if (sessions[fd].waiting_size) flush(fd);
                else on_readable(fd);
            }
        }
    }
}
