/* The load generator: handshakes and messages from pre-built bytes, every answer checked.
 *
 *   load PORT HOST PATH        connects to 127.0.0.1:PORT, prints "ready"
 *
 * Commands on standard input, one line of JSON on standard output for each; ids are taken in turn:
 *
 *   redirect SECONDS CONCURRENT FIRST LAST     a connection and a handshake each, the answer is a 302
 *   cycle SECONDS CONCURRENT FIRST LAST        a handshake, 101, a Close, its answer, the end
 *   open COUNT CONCURRENT FIRST LAST SPREAD    handshakes, 101; the sessions are kept. The id of session i of COUNT
 *                                              is FIRST + i modulo the range, or with SPREAD 1 its even share
 *   echo SECONDS BYTES SESSIONS                one message under way in each of the first sessions, all the time
 *   count MESSAGES BYTES DEADLINE              until so many pushed messages came
 *   closes COUNT DEADLINE LAST                 until so many sessions got their Close with 1012, all with ids up to LAST
 *   probe SECONDS INTERVAL                     one echo each INTERVAL microseconds in the first session
 *   drop                                       the sessions end without a word
 *
 * The clock of an operation runs from before the connect, or from its message's first byte. A command returns when
 * nothing of it is under way any more, so the CPU that the edge took between command and answer belongs to it.
 */
#define _GNU_SOURCE
#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, HEAD_LIMIT = 2048, READ_BYTES = 1 << 16, FINE_US = 100000, BUCKETS = FINE_US + 10000, DEADLINE_S = 5 };
enum state { NONE, CONNECTING, ANSWER, OPEN, CLOSING };
enum job { IDLE, REDIRECT, CYCLE, KEEP, ECHO, COUNT, CLOSES, PROBE };

struct session {
    int fd;
    enum state state;
    uint32_t id;
    uint32_t sent_frames;   /* echo: the number in the message under way */
    uint64_t expected;      /* push: the next message's number */
    uint64_t began;         /* the operation under way; 0: none */
    char *buffer;           /* what came of an unfinished head or frame */
    size_t size;
    size_t unsent;          /* of the frame under way */
    uint64_t serial;        /* of the handshake: makes its key and path */
    char closed;            /* the Close is here */
};

static struct session *sessions, *slots;
static int session_count, epoll_fd;
static struct sockaddr_in address;
static const char *host, *path;
static uint64_t serial, key_seed;

/* the job */
static enum job job;
static uint64_t done, errors, ends_at, began_at, finished_at, deadline;
static uint32_t first_id, last_id, ids;
static int under_way, to_open, opened, spread, last_closing;
static char first_error[256];
static uint32_t *histogram;
static uint64_t slowest_us, reads; /* reads that brought pushed messages */
static size_t frame_bytes, answer_bytes, payload_bytes;
static uint8_t *frame, *expected;
static size_t header_bytes, answer_header_bytes;

static void note_error(const char *format, ...)
{
    va_list arguments;
    if (!errors++) {
        va_start(arguments, format);
        vsnprintf(first_error, sizeof first_error, format, arguments);
        va_end(arguments);
    }
}

static void note_time(uint64_t began)
{
    uint64_t us = (now_ns() - began) / 1000;
    if (us > slowest_us) slowest_us = us;
    uint64_t bucket = us < FINE_US ? us : FINE_US + (us - FINE_US) / 1000;
    histogram[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
}

/* To the microsecond up to 100 ms, to the millisecond above. */
static uint64_t percentile(double share)
{
    uint64_t total = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++) total += histogram[i];
    for (int i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (total && (double)seen >= share * (double)total)
            return i < FINE_US ? (uint64_t)i : (uint64_t)(FINE_US + (i - FINE_US) * 1000);
    }
    return 0;
}

static void report(void)
{
    for (char *c = first_error; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ') *c = '.';
    printf("{\"done\": %lu, \"errors\": %lu, \"error\": \"%s\", \"seconds\": %.6f, \"p50_us\": %lu, \"p99_us\": %lu, "
           "\"slowest_us\": %lu, \"reads\": %lu}\n", done, errors, first_error, (double)((finished_at ? finished_at : now_ns()) - began_at) / 1e9,
           percentile(0.5), percentile(0.99), slowest_us, reads);
    job = IDLE;
}

static void begin(enum job next, double seconds)
{
    job = next;
    done = errors = slowest_us = reads = finished_at = 0;
    first_error[0] = 0;
    memset(histogram, 0, BUCKETS * sizeof *histogram);
    under_way = 0;
    began_at = now_ns();
    ends_at = began_at + (uint64_t)(seconds * 1e9);
}

/* No job finds what another has left in the buffers. */
static void empty_buffers(void)
{
    for (int i = 0; i < session_count; i++) {
        free(sessions[i].buffer);
        sessions[i].buffer = NULL;
        sessions[i].size = 0;
    }
}

static void watch(struct session *s, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = s};
    if (epoll_ctl(epoll_fd, operation, s->fd, &event) < 0) die("epoll_ctl");
}

static void forget(struct session *s)
{
    close(s->fd);
    free(s->buffer);
    memset(s, 0, sizeof *s);
    s->fd = -1;
}

static void make_key(uint64_t number, char key[KEY_CHARS + 1])
{
    uint64_t words[2] = {number ^ key_seed, number * 0x9e3779b97f4a7c15u};
    base64((const uint8_t *)words, 16, key);
}

/* A browser's handshake. */
static int make_head(const struct session *s, char *head)
{
    char key[KEY_CHARS + 1];
    make_key(s->serial, key);
    return snprintf(head, HEAD_LIMIT,
        "GET %s?session=%lu HTTP/1.1\r\n"
        "Host: %s\r\n"
        "Connection: Upgrade\r\n"
        "Pragma: no-cache\r\n"
        "Cache-Control: no-cache\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\n"
        "Upgrade: websocket\r\n"
        "Origin: http://app.websocket.test\r\n"
        "Sec-WebSocket-Version: 13\r\n"
        "Accept-Encoding: gzip, deflate\r\n"
        "Accept-Language: en-GB,en;q=0.9,zh-CN;q=0.8\r\n"
        "Sec-WebSocket-Key: %s\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
        "routerId: %u\r\n\r\n",
        path, s->serial, host, key, s->id);
}

static void fail(struct session *s, const char *what)
{
    note_error("%s (routerId %u, state %d, errno %s)", what, s->id, s->state, strerror(errno));
    forget(s);
    under_way--;
}

static void send_head(struct session *s)
{
    char head[HEAD_LIMIT];
    int size = make_head(s, head);
    ssize_t sent = send(s->fd, head, (size_t)size, MSG_NOSIGNAL);
    if (sent == size) {
        if (s->state == CONNECTING) watch(s, EPOLLIN, s->unsent ? EPOLL_CTL_MOD : EPOLL_CTL_ADD);
        s->state = ANSWER;
        s->unsent = 0;
    } else if (sent < 0 && (errno == EAGAIN || errno == ENOTCONN) && !s->unsent) {
        s->unsent = 1;
        watch(s, EPOLLOUT, EPOLL_CTL_ADD);
    } else {
        fail(s, "the handshake could not be sent");
    }
}

static void start(struct session *s, uint32_t id)
{
    int one = 1;
    memset(s, 0, sizeof *s);
    s->began = now_ns();
    s->id = id;
    s->serial = ++serial;
    s->state = CONNECTING;
    under_way++;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0) die("socket");
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(s->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) {
        fail(s, "no connection");
        return;
    }
    send_head(s);
}

static void start_next(struct session *s)
{
    start(s, first_id + (uint32_t)(serial % ids));
}

static int location_is_right(const struct session *s, const char *head)
{
    char wanted[256];
    const char *found = strcasestr(head, "\r\nlocation:");
    if (!found) return 0;
    found += 11 + strspn(found + 11, " ");
    int size = snprintf(wanted, sizeof wanted, "http://unbj.websocket.test:8102%s?session=%lu\r\n", path, s->serial);
    return !strncmp(found, wanted, (size_t)size);
}

static int accept_is_right(const struct session *s, const char *head)
{
    char key[KEY_CHARS + 1], wanted[ACCEPT_CHARS + 1];
    const char *found = strcasestr(head, "\r\nsec-websocket-accept:");
    if (!found) return 0;
    found += 23 + strspn(found + 23, " ");
    make_key(s->serial, key);
    accept_of(key, wanted);
    return !strncmp(found, wanted, ACCEPT_CHARS);
}

static void redirected(struct session *s, const char *head, const char *body)
{
    const char *length = strcasestr(head, "\r\ncontent-length:");
    if (strncmp(head, "HTTP/1.1 302 ", 13)) {
        fail(s, "an answer that is no 302");
        return;
    }
    if (!location_is_right(s, head)) {
        fail(s, "a 302 with a wrong Location");
        return;
    }
    if (length && strlen(body) < (size_t)atol(length + 17)) return;
    note_time(s->began);
    done++;
    under_way--;
    forget(s);
    if (now_ns() < ends_at) start_next(s);
}

static void send_close(struct session *s, int code)
{
    uint8_t close_frame[8];
    size_t header = frame_header(close_frame, 8, 2, 1);
    close_frame[header] = (uint8_t)(code >> 8);
    close_frame[header + 1] = (uint8_t)code;
    if (send(s->fd, close_frame, header + 2, MSG_NOSIGNAL) != (ssize_t)(header + 2) && job == CYCLE)
        fail(s, "the Close could not be sent");
}

static void switched(struct session *s, const char *head, const char *body)
{
    if (strncmp(head, "HTTP/1.1 101 ", 13)) {
        fail(s, "an answer that is no 101");
        return;
    }
    if (!accept_is_right(s, head) || *body) {
        fail(s, "a 101 with a wrong Sec-WebSocket-Accept, or more behind it");
        return;
    }
    free(s->buffer);
    s->buffer = NULL;
    s->size = 0;
    if (job == CYCLE) {
        s->state = CLOSING;
        send_close(s, 1000);
        return;
    }
    s->state = OPEN;
    note_time(s->began);
    s->began = 0;
    done++;
    under_way--;
}

/* Appends what has come to the session's buffer of `limit` bytes; returns its size, 0 at the end, -1 for nothing yet. */
static ssize_t receive(struct session *s, size_t limit)
{
    if (!s->buffer && !(s->buffer = malloc(limit + 1))) die("malloc");
    ssize_t size = recv(s->fd, s->buffer + s->size, limit - s->size, 0);
    if (size < 0 && errno == EAGAIN) return -1;
    if (size <= 0) return 0;
    s->size += (size_t)size;
    s->buffer[s->size] = 0;
    return (ssize_t)s->size;
}

static void on_answer(struct session *s)
{
    ssize_t size = receive(s, HEAD_LIMIT);
    if (size == 0) fail(s, "the connection ended without a whole answer");
    if (size <= 0) return;
    char *blank = strstr(s->buffer, "\r\n\r\n");
    if (!blank) {
        if (size == HEAD_LIMIT) fail(s, "an answer without an end");
        return;
    }
    if (job == REDIRECT) redirected(s, s->buffer, blank + 4);
    else switched(s, s->buffer, blank + 4);
}

static void prepare_frames(size_t bytes)
{
    payload_bytes = bytes;
    free(frame);
    free(expected);
    frame = calloc(1, bytes + 16);
    expected = calloc(1, bytes + 16);
    if (!frame || !expected) die("calloc");
    header_bytes = frame_header(frame, 2, bytes, 1);
    answer_header_bytes = frame_header(expected, 2, bytes, 0);
    for (size_t i = 0; i < bytes; i++) frame[header_bytes + i] = (uint8_t)('a' + i % 23);
    memcpy(expected + answer_header_bytes, frame + header_bytes, bytes);
    frame_bytes = header_bytes + bytes;
    answer_bytes = answer_header_bytes + bytes;
}

/* The session's number and the message's make each message another. */
static void number(struct session *s, uint8_t *payload)
{
    memcpy(payload, &s->serial, 4);
    memcpy(payload + 4, &s->sent_frames, 4);
}

static void send_rest(struct session *s)
{
    number(s, frame + header_bytes);
    int waited = s->unsent != frame_bytes;
    ssize_t sent = send(s->fd, frame + frame_bytes - s->unsent, s->unsent, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN) {
            fail(s, "a message could not be sent");
            return;
        }
        sent = 0;
    }
    s->unsent -= (size_t)sent;
    if (s->unsent) watch(s, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    else if (waited) watch(s, EPOLLIN, EPOLL_CTL_MOD);
}

static void send_message(struct session *s)
{
    s->began = now_ns();
    s->sent_frames++;
    s->size = 0;
    s->unsent = frame_bytes;
    under_way++;
    send_rest(s);
}

static void on_echo(struct session *s)
{
    ssize_t size = receive(s, answer_bytes);
    if (size == 0) fail(s, "a session ended during the echo");
    if (size <= 0 || (size_t)size < answer_bytes) return;
    number(s, expected + answer_header_bytes);
    if (memcmp(s->buffer, expected, answer_bytes)) {
        fail(s, "an echo that differs from its message");
        return;
    }
    note_time(s->began);
    s->began = 0;
    done++;
    under_way--;
    if (job == ECHO && now_ns() < ends_at) send_message(s);
}

static void on_pushed(struct session *s)
{
    static uint8_t in[READ_BYTES];
    if (s->size) memcpy(in, s->buffer, s->size);
    ssize_t size = recv(s->fd, in + s->size, sizeof in - s->size, 0);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
        fail(s, "a session ended during the push");
        return;
    }
    reads++;
    uint8_t *at = in, *end = in + s->size + size;
    while ((size_t)(end - at) >= answer_bytes) {
        uint64_t found;
        memcpy(&found, at + answer_header_bytes, sizeof found);
        if (memcmp(at, expected, answer_header_bytes) || found != s->expected || at[answer_bytes - 1] != 'p') {
            fail(s, "a pushed message that is not the next one");
            return;
        }
        s->expected++;
        done++;
        at += answer_bytes;
    }
    s->size = (size_t)(end - at);
    if (s->size) {
        if (!s->buffer && !(s->buffer = malloc(answer_bytes))) die("malloc");
        memcpy(s->buffer, at, s->size);
    }
}

/* A session that is to end: its Close frame, then the end. */
static void on_close(struct session *s)
{
    int code = job == CYCLE ? 1000 : 1012;
    ssize_t size = receive(s, 256);
    if (size < 0) return;
    if (size > 0) {
        const uint8_t *in = (const uint8_t *)s->buffer;
        if (size < 2 || size < 2 + in[1]) return;
        if (in[0] != 0x88 || (in[2] << 8 | in[3]) != code) {
            fail(s, "something else than the Close that was due");
            return;
        }
        if (job == CLOSES && s->id > (uint32_t)last_closing) {
            fail(s, "a Close for a session that was to stay");
            return;
        }
        s->closed = 1;
        s->size = 0;
        if (job == CLOSES) {
            s->state = CLOSING;
            send_close(s, code);
        }
        return;
    }
    if (!s->closed) {
        fail(s, "a session ended without a Close");
        return;
    }
    if (job == CYCLE) note_time(s->began);
    if (job == CLOSES) finished_at = now_ns();
    done++;
    under_way--;
    forget(s);
    if (job == CYCLE && now_ns() < ends_at) start_next(s);
}

static void on_event(struct session *s, uint32_t events)
{
    if (s->state == CONNECTING) {
        send_head(s);
        return;
    }
    if (events & EPOLLOUT && s->unsent) send_rest(s);
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)) || s->state == NONE) return;
    if (s->state == ANSWER) on_answer(s);
    else if (job == ECHO || job == PROBE) on_echo(s);
    else if (job == COUNT) on_pushed(s);
    else if (job == CYCLE || job == CLOSES) on_close(s);
    else fail(s, "something came on an idle session");
}

static uint32_t id_of(int index)
{
    return spread ? first_id + (uint32_t)((uint64_t)index * ids / (uint64_t)to_open) : first_id + (uint32_t)index % ids;
}

/* Whether the job is over. */
static int over(void)
{
    if (job == COUNT || job == CLOSES) return done >= ends_at || errors || now_ns() > deadline;
    if (job == KEEP) return opened == to_open && !under_way;
    return now_ns() >= ends_at && !under_way;
}

static void fail_late(struct session *set, int size)
{
    uint64_t now = now_ns();
    errno = ETIMEDOUT;
    for (int i = 0; i < size; i++)
        if (set[i].state != NONE && set[i].began && now - set[i].began > DEADLINE_S * 1000000000ull)
            fail(&set[i], "nothing came in time");
}

static void run(struct session *set, int size, int concurrent, uint64_t interval_us)
{
    struct epoll_event events[EVENTS];
    uint64_t next_look = now_ns() + 500000000u, next_probe = now_ns();
    while (!over()) {
        if (job == KEEP)
            while (opened < to_open && under_way < concurrent) {
                struct session *s = &sessions[session_count++];
                start(s, id_of(opened++));
            }
        struct timespec wait = {0, 100000000};
        if (job == PROBE) {
            uint64_t now = now_ns();
            if (now >= next_probe && !under_way && now < ends_at) {
                send_message(&sessions[0]);
                next_probe = now + interval_us * 1000;
            }
            now = now_ns();
            wait.tv_nsec = under_way ? 100000000 : next_probe > now ? (long)(next_probe - now) : 1000;
        }
        int count = epoll_pwait2(epoll_fd, events, EVENTS, &wait, NULL);
        for (int i = 0; i < count; i++) on_event(events[i].data.ptr, events[i].events);
        if (now_ns() > next_look) {
            fail_late(set, size);
            next_look = now_ns() + 500000000u;
        }
        /* a slot whose operation failed takes the next one */
        if (errors && (job == REDIRECT || job == CYCLE))
            for (int i = 0; i < size && now_ns() < ends_at; i++)
                if (set[i].state == NONE) start_next(&set[i]);
    }
    if ((job == COUNT || job == CLOSES) && done < ends_at) note_error("only %lu of %lu came in time", done, ends_at);
    report();
}

static void take_ids(uint32_t first, uint32_t last)
{
    first_id = first, last_id = last, ids = last - first + 1;
}

static void drop(void)
{
    for (int i = 0; i < session_count; i++)
        if (sessions[i].state != NONE) forget(&sessions[i]);
    session_count = 0;
    report();
}

static void obey(const char *line, int limit)
{
    double seconds, deadline_s;
    unsigned long count, bytes, interval;
    unsigned first, last;
    int concurrent, some;
    begin(IDLE, 0);
    empty_buffers();
    if (sscanf(line, "redirect %lf %d %u %u", &seconds, &concurrent, &first, &last) == 4
        || sscanf(line, "cycle %lf %d %u %u", &seconds, &concurrent, &first, &last) == 4) {
        if (concurrent > limit) concurrent = limit;
        take_ids(first, last);
        begin(*line == 'r' ? REDIRECT : CYCLE, seconds);
        for (int i = 0; i < concurrent; i++) start_next(&slots[i]);
        run(slots, concurrent, concurrent, 0);
    } else if (sscanf(line, "open %d %d %u %u %d", &to_open, &concurrent, &first, &last, &spread) == 5
               && session_count + to_open <= limit) {
        take_ids(first, last);
        opened = 0;
        begin(KEEP, 0);
        run(sessions, limit, concurrent, 0);
    } else if (sscanf(line, "echo %lf %lu %d", &seconds, &bytes, &some) == 3 && some <= session_count && bytes >= 8) {
        prepare_frames(bytes);
        begin(ECHO, seconds);
        for (int i = 0; i < some; i++) send_message(&sessions[i]);
        run(sessions, some, some, 0);
    } else if (sscanf(line, "count %lu %lu %lf", &count, &bytes, &deadline_s) == 3 && bytes >= 9) {
        prepare_frames(bytes);
        begin(COUNT, 0);
        ends_at = count;
        deadline = began_at + (uint64_t)(deadline_s * 1e9);
        run(sessions, session_count, 0, 0);
    } else if (sscanf(line, "closes %lu %lf %d", &count, &deadline_s, &last_closing) == 3) {
        begin(CLOSES, 0);
        ends_at = count;
        deadline = began_at + (uint64_t)(deadline_s * 1e9);
        run(sessions, session_count, 0, 0);
    } else if (sscanf(line, "probe %lf %lu", &seconds, &interval) == 2 && session_count) {
        prepare_frames(100);
        begin(PROBE, seconds);
        run(sessions, 1, 1, interval);
    } else if (!strncmp(line, "drop", 4)) {
        drop();
    } else {
        note_error("unknown command, or more than it can do");
        report();
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fputs("usage: load PORT HOST PATH\n", stderr);
        return 2;
    }
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    int sessions_limit = limit.rlim_cur > 1 << 20 ? 1 << 20 : (int)limit.rlim_cur;
    sessions_limit -= 16;
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    host = argv[2], path = argv[3];
    key_seed = now_ns();
    sessions = calloc((size_t)sessions_limit, sizeof *sessions);
    slots = calloc((size_t)sessions_limit, sizeof *slots);
    histogram = calloc(BUCKETS, sizeof *histogram);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!sessions || !slots || !histogram || epoll_fd < 0) die("start");
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    puts("ready");
    char line[256];
    while (fgets(line, sizeof line, stdin)) obey(line, sessions_limit);
    return 0;
}
