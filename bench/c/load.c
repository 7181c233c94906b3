/* The load generator of the bench.
 *
 *     load port=N file=REQUEST stamps=N [connections=N] [calls=N] [seconds=N] [rate=N] [spread=N]
 *
 * With `rate`, the load is open: call number i is due at start + i / rate, whatever became of those before it, and its
 * latency is counted from then, not from when a connection was free. A generator that waits for an answer before it
 * asks again (wrk, hey) stops asking just when the server is slow, and so leaves the worst out of its percentiles.
 * Without `rate`, each connection asks again as soon as it is answered: what the server can do at most.
 *
 * Every answer is checked: status 200, framing complete, and exactly `stamps` stamps of the upstream in it (upstream.c).
 * The first answer that is wrong is told on standard error; how many were is a part of the result, one line of JSON.
 *
 * In the request, 16 `#` become a number of its own for each call (so that no cache has the answer), and each `@@@@@@@@`
 * that number modulo `spread` (to ask by many keys, for many models).
 */

#include "common.h"

#define MOST_CONNECTIONS 4096
#define MOST_HEAD 16384
#define MOST_MARKS 16
#define PATIENCE_NS (60 * SECOND)

enum body { NO_BODY, COUNTED, CHUNKED };
enum chunk { SIZE, SIZE_END, DATA, DATA_END, TRAILER };

struct connection {
    int fd, busy;
    char *request;
    size_t sent;
    int64_t due_ns, first_ns;
    char head[MOST_HEAD + 1];
    size_t head_length;
    int in_body, closes, stamps;
    enum body body;
    enum chunk chunk;
    size_t left;          /* of the body or the chunk */
    size_t trailer;       /* length of the trailer's line so far */
    int in_stamp;
    int64_t stamp_ns;
};

struct times {
    int64_t *ns;
    size_t count, size;
};

static struct sockaddr_in address;
static struct connection *connections;
static int idle[MOST_CONNECTIONS], idle_count, connection_count = 64;
static char *request;
static size_t request_length, marks[MOST_MARKS], spreads[MOST_MARKS];
static int mark_count, spread_count, epoll;
static long wanted_stamps = 1, spread = 1;
static long started, finished, failed, events;
static uint64_t serial;
static struct times latency, first, lag, late;

static void note(struct times *times, int64_t ns) {
    if (times->count == times->size) {
        times->size = times->size ? times->size * 2 : 4096;
        times->ns = grown(times->ns, times->size * sizeof *times->ns);
    }
    times->ns[times->count++] = ns;
}

/* ── connections ─────────────────────────────────────────────────────────────────────────────────────────────── */

static void open_connection(int i) {
    struct connection *c = &connections[i];
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address)) die("cannot connect: %s", strerror(errno));
    prepare(c->fd);
    struct epoll_event wanted = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u32 = i};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &wanted);
}

static void open_again(struct connection *c) {
    close(c->fd);
    open_connection(c - connections);
}

static void be_idle(struct connection *c) {
    c->busy = 0;
    idle[idle_count++] = c - connections;
}

static void fail(struct connection *c, const char *why) {
    if (failed++ == 0) fprintf(stderr, "%s; %d stamps so far; the answer began: %.600s\n", why, c->stamps, c->head);
    open_again(c);
    be_idle(c);
}

static void send_rest(struct connection *c) {
    while (c->sent < request_length) {
        ssize_t sent = send(c->fd, c->request + c->sent, request_length - c->sent, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) return;
        if (sent < 0) {
            fail(c, "the connection broke while the request was sent");
            return;
        }
        c->sent += sent;
    }
}

static void write_number(char *place, int digits, uint64_t number) {
    while (digits--) {
        place[digits] = '0' + number % 10;
        number /= 10;
    }
}

/* Ask on a free connection; the call was due at `due_ns`. */
static void ask(int64_t due_ns, int64_t now) {
    struct connection *c = &connections[idle[--idle_count]];
    serial++;
    for (int i = 0; i < mark_count; i++) write_number(c->request + marks[i], 16, serial);
    for (int i = 0; i < spread_count; i++) write_number(c->request + spreads[i], 8, serial % spread);
    c->busy = 1;
    c->due_ns = due_ns;
    c->sent = c->head_length = 0;
    c->first_ns = c->in_body = c->closes = c->stamps = c->in_stamp = 0;
    started++;
    note(&late, now - due_ns);
    send_rest(c);
}

/* ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────── */

static void finish(struct connection *c) {
    if (c->stamps != wanted_stamps) {
        fail(c, "an answer has the wrong number of stamps");
        return;
    }
    note(&latency, now_ns() - c->due_ns);
    note(&first, c->first_ns - c->due_ns);
    finished++;
    if (c->closes) open_again(c);
    be_idle(c);
}

static void end_stamp(struct connection *c, int64_t now) {
    c->in_stamp = 0;
    c->stamps++;
    events++;
    if (c->first_ns == 0) c->first_ns = now;
    note(&lag, now - c->stamp_ns);
}

/* Look for stamps; one may lie across two reads. */
static void scan(struct connection *c, const char *at, size_t length, int64_t now) {
    const char *end = at + length;
    while (at < end) {
        if (!c->in_stamp) {
            at = memchr(at, '@', end - at);
            if (at == NULL) return;
            at++;
            c->in_stamp = 1;
            c->stamp_ns = 0;
        }
        while (at < end && *at >= '0' && *at <= '9') c->stamp_ns = c->stamp_ns * 10 + (*at++ - '0');
        if (at < end) end_stamp(c, now);
    }
}

static int begins(const char *line, const char *name) { return strncasecmp(line, name, strlen(name)) == 0; }

/* Returns 0 when it is not the head of a good answer. */
static int read_head(struct connection *c, const char *end) {
    c->body = NO_BODY;
    if (strncmp(c->head, "HTTP/1.1 200", 12)) return 0;
    for (const char *line = strchr(c->head, '\n'); line != NULL && line < end; line = strchr(line, '\n')) {
        line++;
        if (begins(line, "content-length:")) {
            c->body = COUNTED;
            c->left = strtoul(line + 15, NULL, 10);
        } else if (begins(line, "transfer-encoding: chunked")) {
            c->body = CHUNKED;
            c->chunk = SIZE;
            c->left = 0;
        } else if (begins(line, "connection: close")) c->closes = 1;
    }
    return c->body != NO_BODY;
}

static int hex(char digit) { return digit <= '9' ? digit - '0' : (digit | 32) - 'a' + 10; }

/* Returns 1 when the body is complete. */
static int read_chunks(struct connection *c, const char *at, const char *end, int64_t now) {
    while (at < end) {
        if (c->chunk == DATA) {
            size_t some = (size_t)(end - at) < c->left ? (size_t)(end - at) : c->left;
            scan(c, at, some, now);
            at += some;
            if ((c->left -= some) == 0) c->chunk = DATA_END;
            continue;
        }
        char byte = *at++;
        if (c->chunk == SIZE && byte != '\r' && byte != ';') c->left = c->left * 16 + hex(byte);
        else if (c->chunk == SIZE) c->chunk = SIZE_END;
        else if (c->chunk == SIZE_END && byte == '\n') {
            c->chunk = c->left ? DATA : TRAILER;
            c->trailer = 0;
        } else if (c->chunk == DATA_END && byte == '\n') c->chunk = SIZE;
        else if (c->chunk == TRAILER && byte == '\n') {
            if (c->trailer == 0) return 1;
            c->trailer = 0;
        } else if (c->chunk == TRAILER && byte != '\r') c->trailer++;
    }
    return 0;
}

static int read_body(struct connection *c, const char *at, size_t length, int64_t now) {
    if (c->body == CHUNKED) return read_chunks(c, at, at + length, now);
    scan(c, at, length, now);
    c->left -= length < c->left ? length : c->left;
    return c->left == 0;
}

/* Returns 1 when this ended the call, well or not. */
static int take(struct connection *c, char *data, size_t length, int64_t now) {
    if (!c->in_body) {
        size_t some = length < MOST_HEAD - c->head_length ? length : MOST_HEAD - c->head_length;
        memcpy(c->head + c->head_length, data, some);
        c->head[c->head_length + some] = 0;
        const char *end = strstr(c->head, "\r\n\r\n");
        if (end == NULL && some == length) {
            c->head_length += some;
            return 0;
        }
        if (end == NULL || !read_head(c, end)) return fail(c, "not a good answer"), 1;
        size_t used = end + 4 - c->head - c->head_length;
        data += used;
        length -= used;
        c->in_body = 1;
    }
    if (!read_body(c, data, length, now)) return 0;
    finish(c);
    return 1;
}

static void receive(struct connection *c) {
    static char data[1 << 18];
    for (;;) {
        ssize_t got = recv(c->fd, data, sizeof data, 0);
        if (got < 0 && errno == EAGAIN) return;
        if (got > 0 && c->busy) {
            if (take(c, data, got, now_ns())) return;
        } else if (c->busy) {
            fail(c, "the connection was closed in the middle");
            return;
        } else {
            open_again(c); /* it was idle for longer than the server likes */
            return;
        }
    }
}

/* ── the run ─────────────────────────────────────────────────────────────────────────────────────────────────── */

static void run(long calls, double seconds, double rate) {
    struct epoll_event ready[MOST_EVENTS];
    int64_t start = now_ns(), last = start, until = seconds ? start + (int64_t)(seconds * SECOND) : FOREVER;
    if (rate && seconds && !calls) calls = (long)(rate * seconds);
    if (rate) until = FOREVER;
    for (;;) {
        int64_t now = now_ns(), next = FOREVER;
        int more = (!calls || started < calls) && now < until;
        while (more && idle_count) {
            int64_t due = rate ? start + (int64_t)(started / rate * SECOND) : now;
            if (due > now) {
                next = due;
                break;
            }
            ask(due, now);
            more = !calls || started < calls;
        }
        if (!more && idle_count == connection_count) break;
        if (now - last > PATIENCE_NS) die("no answer for a minute; %ld calls of %ld are answered", finished, started);
        if (next > now + SECOND) next = now + SECOND;
        int count = wait_until(epoll, ready, next);
        for (int i = 0; i < count; i++) {
            struct connection *c = &connections[ready[i].data.u32];
            if ((ready[i].events & EPOLLOUT) && c->busy) send_rest(c);
            if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
        }
        if (count) last = now;
    }
    printf("{\"calls\":%ld,\"failed\":%ld,\"events\":%ld,\"seconds\":%.6f", finished, failed, events,
           (double)(now_ns() - start) / SECOND);
}

static int ascending(const void *a, const void *b) {
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

static void print(const char *name, struct times *times) {
    static const double shares[] = {0.5, 0.9, 0.99, 0.999, 1.0};
    if (times->count) qsort(times->ns, times->count, sizeof *times->ns, ascending);
    printf(",\"%s_us\":[", name);
    for (int i = 0; i < 5 && times->count; i++) {
        size_t place = (size_t)(shares[i] * times->count);
        if (place >= times->count) place = times->count - 1;
        printf("%s%.1f", i ? "," : "", times->ns[place] / 1e3);
    }
    printf("]");
}

static void read_request(const char *file) {
    FILE *from = fopen(file, "rb");
    if (from == NULL) die("cannot read %s", file);
    request = grown(NULL, 1 << 23);
    request_length = fread(request, 1, 1 << 23, from);
    fclose(from);
    for (size_t i = 0; i + 16 <= request_length; i++) {
        if (mark_count < MOST_MARKS && memcmp(request + i, "################", 16) == 0) marks[mark_count++] = i;
        if (spread_count < MOST_MARKS && memcmp(request + i, "@@@@@@@@", 8) == 0) spreads[spread_count++] = i;
    }
}

int main(int count, char **arguments) {
    const char *file = "";
    double seconds = 0, rate = 0;
    long calls = 0;
    for (int i = 1; i < count; i++) {
        char *value = strchr(arguments[i], '=');
        if (value == NULL) die("not name=value: %s", arguments[i]);
        *value++ = 0;
        const char *name = arguments[i];
        if (strcmp(name, "port") == 0) address = loopback(atoi(value));
        else if (strcmp(name, "file") == 0) file = value;
        else if (strcmp(name, "connections") == 0) connection_count = atoi(value);
        else if (strcmp(name, "calls") == 0) calls = atol(value);
        else if (strcmp(name, "seconds") == 0) seconds = atof(value);
        else if (strcmp(name, "rate") == 0) rate = atof(value);
        else if (strcmp(name, "stamps") == 0) wanted_stamps = atol(value);
        else if (strcmp(name, "spread") == 0) spread = atol(value);
        else die("no such option: %s", name);
    }
    if (connection_count < 1 || connection_count > MOST_CONNECTIONS) die("1 to %d connections", MOST_CONNECTIONS);
    if (!calls && !seconds) die("say calls= or seconds=");
    read_request(file);
    wake_punctually();
    serial = now_ns(); /* another number than any run before */
    epoll = epoll_create1(0);
    connections = calloc(connection_count, sizeof *connections);
    for (int i = 0; i < connection_count; i++) {
        connections[i].request = memcpy(grown(NULL, request_length), request, request_length);
        open_connection(i);
        be_idle(&connections[i]);
    }
    run(calls, seconds, rate);
    print("latency", &latency);
    print("first", &first);
    print("lag", &lag);
    print("late", &late);
    printf("}\n");
    return 0;
}
