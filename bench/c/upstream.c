/* The upstream of the bench: an OpenAI-shaped server that costs a few microseconds a call.
 *
 *     upstream PORT
 *
 * The model's name in the request's body says how to answer, so that every server under test needs one address only:
 *
 *     whole-BYTES-DELAY               one answer with BYTES of content, after DELAY ms
 *     burst-EVENTS                    a stream of EVENTS events, all at once
 *     paced-EVENTS-FIRST-EVERY        a stream whose first event comes after FIRST ms and each other EVERY ms later
 *
 * Each whole answer, and each event of a stream, carries one stamp, "@" and the time of its sending in nanoseconds: the
 * load generator counts them to see that nothing is missing, and tells by them how long an event was on its way.
 */

#include "common.h"

#define MOST_DESCRIPTORS 65536
#define MOST_OUT (1 << 22)

enum kind { WHOLE, BURST, PACED };

struct call {
    enum kind kind;
    int size;   /* bytes of content, or events */
    int delay, every;
};

struct connection {
    int fd;
    int active;          /* its place in `waiting`, or -1 */
    char *in;            /* the request, as far as it has come */
    size_t in_length, in_size;
    char *out;           /* what the socket has not taken yet */
    size_t out_start, out_length, out_size;
    struct call call;
    int said;            /* events of the stream so far */
    int64_t next_ns;     /* when to say something next */
};

static struct connection *connections[MOST_DESCRIPTORS];
static struct connection *waiting[MOST_DESCRIPTORS];
static int waiting_count;
static int epoll;

static void drop(struct connection *c) {
    if (c->active >= 0) {
        waiting[c->active] = waiting[--waiting_count];
        waiting[c->active]->active = c->active;
    }
    connections[c->fd] = NULL;
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

static void wait_for_time(struct connection *c, int64_t when_ns) {
    c->next_ns = when_ns;
    if (c->active < 0) waiting[c->active = waiting_count++] = c;
}

static void wait_no_more(struct connection *c) {
    waiting[c->active] = waiting[--waiting_count];
    waiting[c->active]->active = c->active;
    c->active = -1;
}

static void add(struct connection *c, const char *data, size_t length) {
    if (c->out_length + length > MOST_OUT) die("a reader is too slow");
    if (c->out_length + length > c->out_size) c->out = grown(c->out, c->out_size = (c->out_length + length) * 2);
    memcpy(c->out + c->out_length, data, length);
    c->out_length += length;
}

/* Returns 0 when the connection is gone. */
static int flush(struct connection *c) {
    while (c->out_start < c->out_length) {
        ssize_t sent = send(c->fd, c->out + c->out_start, c->out_length - c->out_start, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) return 1;
        if (sent < 0) return drop(c), 0;
        c->out_start += sent;
    }
    c->out_start = c->out_length = 0;
    return 1;
}

static void add_chunk(struct connection *c, const char *event, int length) {
    char head[16];
    add(c, head, snprintf(head, sizeof head, "%x\r\n", length));
    add(c, event, length);
    add(c, "\r\n", 2);
}

static void add_event(struct connection *c, const char *delta, const char *finish) {
    char event[512];
    int length = snprintf(event, sizeof event,
                          "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"mock\","
                          "\"choices\":[{\"index\":0,\"delta\":{%s},\"finish_reason\":%s}]}\n\n",
                          delta, finish);
    add_chunk(c, event, length);
}

static void begin_stream(struct connection *c) {
    const char *head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    add(c, head, strlen(head));
}

static void say_one(struct connection *c) {
    char delta[96];
    const char *role = c->said++ ? "" : "\"role\":\"assistant\",";
    snprintf(delta, sizeof delta, "%s\"content\":\"@%lld word \"", role, (long long)now_ns());
    add_event(c, delta, "null");
}

static void end_stream(struct connection *c) {
    char usage[320];
    add_event(c, "", "\"stop\"");
    int length = snprintf(usage, sizeof usage,
                          "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"mock\","
                          "\"choices\":[],\"usage\":{\"prompt_tokens\":200,\"completion_tokens\":%d,\"total_tokens\":%d}}\n\n",
                          c->said, c->said + 200);
    add_chunk(c, usage, length);
    add_chunk(c, "data: [DONE]\n\n", 14);
    add(c, "0\r\n\r\n", 5);
}

static void answer_whole(struct connection *c) {
    static char content[MOST_OUT / 2];
    char head[128], before[256], after[256];
    int size = c->call.size;
    if (content[0] == 0) memset(content, 'w', sizeof content);
    if (size > (int)sizeof content) die("an answer of %d bytes is too large", size);
    int before_length = snprintf(before, sizeof before,
                                 "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"mock\",\"choices\":"
                                 "[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"");
    int after_length = snprintf(after, sizeof after,
                                " @%lld \"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":200,"
                                "\"completion_tokens\":150,\"total_tokens\":350}}",
                                (long long)now_ns());
    add(c, head, snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
                          before_length + size + after_length));
    add(c, before, before_length);
    add(c, content, size);
    add(c, after, after_length);
}

/* Say what is due, and be back when there is more to say. */
static void go_on(struct connection *c) {
    struct call *call = &c->call;
    if (call->kind == PACED) {
        say_one(c);
        if (c->said < call->size) wait_for_time(c, c->next_ns + call->every * MS);
        else end_stream(c), wait_no_more(c);
    } else {
        answer_whole(c);
        wait_no_more(c);
    }
    flush(c);
}

static void answer(struct connection *c) {
    int64_t now = now_ns();
    c->said = 0;
    switch (c->call.kind) {
    case BURST:
        begin_stream(c);
        while (c->said < c->call.size) say_one(c);
        end_stream(c);
        break;
    case PACED:
        begin_stream(c);  /* the head leaves at once, as a model server's does */
        wait_for_time(c, now + c->call.delay * MS);
        break;
    case WHOLE:
        if (c->call.delay) wait_for_time(c, now + c->call.delay * MS);
        else answer_whole(c);
    }
    flush(c);
}

/* Find out how to answer. */
static int understand(struct connection *c, const char *body, size_t length) {
    struct call *call = &c->call;
    const char *name = memmem(body, length, "\"model\":", 8);
    char word[64] = "";
    if (name == NULL) return 0;
    name += 8;
    while (*name == ' ' || *name == '"') name++;
    for (size_t i = 0; i < sizeof word - 1 && name + i < body + length && name[i] != '"'; i++) word[i] = name[i];
    *call = (struct call){0};
    if (sscanf(word, "whole-%d-%d", &call->size, &call->delay) >= 1) call->kind = WHOLE;
    else if (sscanf(word, "burst-%d", &call->size) == 1) call->kind = BURST;
    else if (sscanf(word, "paced-%d-%d-%d", &call->size, &call->delay, &call->every) == 3) call->kind = PACED;
    else return 0;
    return 1;
}

static const char *header(const char *head, const char *end, const char *name) {
    size_t length = strlen(name);
    for (const char *line = head; (line = memchr(line, '\n', end - line)) != NULL;) {
        if (++line + length < end && strncasecmp(line, name, length) == 0) return line + length;
    }
    return NULL;
}

/* Where a chunked body ends, or NULL while it has not; the framing is left in, as nothing here minds it. */
static const char *end_of_chunks(const char *at, const char *end) {
    for (;;) {
        char *digits_end;
        if (memchr(at, '\n', end - at) == NULL) return NULL;
        size_t size = strtoul(at, &digits_end, 16);
        at = (const char *)memchr(digits_end, '\n', end - digits_end) + 1;
        if ((size_t)(end - at) < size + 2) return NULL;
        at += size + 2;
        if (size == 0) return at;
    }
}

/* Answer the request if it has come as a whole. */
static void look(struct connection *c) {
    c->in[c->in_length] = 0;
    char *head_end = memmem(c->in, c->in_length, "\r\n\r\n", 4);
    if (head_end == NULL) return;
    char *body = head_end + 4, *end = c->in + c->in_length;
    const char *length = header(c->in, body, "content-length:");
    if (length != NULL) {
        if ((size_t)(end - body) < strtoul(length, NULL, 10)) return;
    } else if (header(c->in, body, "transfer-encoding:") != NULL && end_of_chunks(body, end) == NULL) return;
    c->in_length = 0;
    if (understand(c, body, end - body)) {
        answer(c);
        return;
    }
    const char *none = "HTTP/1.1 404 Not Found\r\nContent-Length: 16\r\n\r\nno such model  \n";
    add(c, none, strlen(none));
    flush(c);
}

static void receive(struct connection *c) {
    for (;;) {
        if (c->in_size - c->in_length < 8192) c->in = grown(c->in, c->in_size = c->in_size ? c->in_size * 2 : 16384);
        ssize_t got = recv(c->fd, c->in + c->in_length, c->in_size - c->in_length - 1, 0);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) {
            drop(c);
            return;
        }
        size_t room = c->in_size - c->in_length - 1;
        c->in_length += got;
        int fd = c->fd;
        look(c);
        if (connections[fd] != c || (size_t)got < room) return;
    }
}

static void welcome(int listener) {
    int fd;
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        if (fd >= MOST_DESCRIPTORS) die("too many connections");
        prepare(fd);
        struct connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->active = -1;
        connections[fd] = c;
        struct epoll_event wanted = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.fd = fd};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wanted);
    }
}

static int64_t say_what_is_due(void) {
    int64_t next = FOREVER, now = now_ns();
    for (int i = waiting_count - 1; i >= 0; i--) {
        struct connection *c = waiting[i];
        if (c->next_ns <= now) go_on(c);
        if (i < waiting_count && waiting[i]->next_ns < next) next = waiting[i]->next_ns;
    }
    return next;
}

int main(int count, char **arguments) {
    if (count != 2) die("upstream PORT");
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = loopback(atoi(arguments[1]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) die("cannot listen");
    prepare(listener);
    wake_punctually();
    epoll = epoll_create1(0);
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = listener}, events[MOST_EVENTS];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &wanted);
    for (;;) {
        int64_t next = say_what_is_due();
        int ready = wait_until(epoll, events, next);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                welcome(listener);
                continue;
            }
            if ((events[i].events & EPOLLOUT) && connections[fd] != NULL) flush(connections[fd]);
            if ((events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && connections[fd] != NULL) receive(connections[fd]);
        }
    }
}
