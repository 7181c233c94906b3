/* What the upstream and the load generator share: clocks, sockets, and how to wait. */

#ifndef COMMON_H
#define COMMON_H

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MS 1000000LL
#define SECOND 1000000000LL
#define FOREVER INT64_MAX
#define MOST_EVENTS 256

static void die(const char *why, ...) {
    va_list more;
    va_start(more, why);
    vfprintf(stderr, why, more);
    va_end(more);
    fputc('\n', stderr);
    exit(1);
}

/* The clock of all stamps and latencies: one machine, so one clock for both programs. */
static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

/* Wait for events until `until_ns`. In nanoseconds: epoll_wait's milliseconds would add up to one to every latency. */
static int wait_until(int epoll, struct epoll_event *events, int64_t until_ns) {
    struct timespec left, *timeout = NULL;
    if (until_ns != FOREVER) {
        int64_t left_ns = until_ns - now_ns();
        if (left_ns < 0) left_ns = 0;
        left.tv_sec = left_ns / SECOND;
        left.tv_nsec = left_ns % SECOND;
        timeout = &left;
    }
    int count = epoll_pwait2(epoll, events, MOST_EVENTS, timeout, NULL);
    if (count < 0 && errno != EINTR) die("epoll_pwait2: %s", strerror(errno));
    return count < 0 ? 0 : count;
}

/* By default the kernel wakes a sleeper up to 50 us late. */
static void wake_punctually(void) { prctl(PR_SET_TIMERSLACK, 1UL, 0, 0, 0); }

static struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void prepare(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

static void *grown(void *memory, size_t size) {
    void *more = realloc(memory, size);
    if (more == NULL) die("out of memory");
    return more;
}

#endif
