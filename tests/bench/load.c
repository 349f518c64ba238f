/* Load with a stopwatch: closed-loop calls or streams over keep-alive connections, one thread, epoll.
 *
 *   load PORT MODEL CONNECTIONS SECONDS WARM_S RAMP_S BODY_BYTES STREAM TOKENS PACE_MS [HEADER]
 *
 * CONNECTIONS calls are in flight at any time; RAMP_S spreads their start; what ends within the WARM_S after that is not
 * counted. STREAM 1: each call streams TOKENS events, PACE_MS apart (see fake_backend.c for the time stamp in them).
 * Prints "begin NS" and "end NS" as the counted part begins and ends, hangs up on everybody, and then one line of JSON:
 * counts, errors, and quantiles in microseconds of latency (whole calls), ttft (to the first content), delay (an
 * event's way from the backend to here) and jitter (by how much a gap differs from the gap at which it was sent).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct samples { uint32_t *us; size_t n, cap; };

enum state { HEAD, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, LAST };

struct conn {
    int fd, in_flight, connected;
    size_t sent; /* bytes of the call that are out */
    uint64_t start, opens, last_at, last_sent;
    enum state state;
    size_t need; /* bytes of the body or of this chunk still to come */
    int status_ok, done;
    long events;
    size_t line_len;
    char line[8192]; /* a head, a chunk's size or an event, while it is incomplete */
};

static struct samples latency, ttft, delay, jitter;
static long calls, events, wrong_status, broken, refused, incomplete;
static char *request;
static size_t request_len;
static int port, stream, tokens, counting;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void note(struct samples *s, uint64_t ns) {
    if (!counting) return;
    if (s->n == s->cap) s->us = realloc(s->us, sizeof *s->us * (s->cap = s->cap ? 2 * s->cap : 65536));
    s->us[s->n++] = (uint32_t)(ns / 100); /* tenths of a microsecond */
}

/* ------------------------------------------------------------- understanding the answer */
static void content(struct conn *c, const char *hex, uint64_t at) {
    uint64_t sent = strtoull(hex, NULL, 16);
    if (!c->events++) note(&ttft, at - c->start);
    else {
        int64_t moved = (int64_t)(at - c->last_at) - (int64_t)(sent - c->last_sent);
        note(&jitter, (uint64_t)(moved < 0 ? -moved : moved));
    }
    note(&delay, at - sent);
    if (counting) events++;
    c->last_at = at, c->last_sent = sent;
}

/* An event's bytes, however they were cut on the way. */
static void event_bytes(struct conn *c, const char *p, size_t n, uint64_t at) {
    for (size_t i = 0; i < n; i++) {
        if (c->line_len < sizeof c->line - 1) c->line[c->line_len++] = p[i];
        if (p[i] != '\n') continue;
        c->line[c->line_len] = 0;
        const char *stamp = c->line_len > 60 ? strstr(c->line, "\"content\":\"T") : NULL;
        if (!stamp && c->line_len > 60) stamp = strstr(c->line, "\"content\": \"T");
        if (stamp) content(c, strchr(stamp, 'T') + 1, at);
        else if (!strncmp(c->line, "data: [DONE]", 12)) c->done = 1;
        c->line_len = 0;
    }
}

static int whole(struct conn *c, uint64_t at) {
    if (stream && counting && c->status_ok && (!c->done || c->events != tokens)) incomplete++;
    if (counting) calls++, wrong_status += !c->status_ok;
    note(&latency, at - c->start);
    c->in_flight = 0;
    return 1;
}

static int head(struct conn *c) {
    c->line[c->line_len] = 0;
    c->status_ok = !strncmp(c->line, "HTTP/1.1 200", 12);
    c->state = CHUNK_SIZE, c->need = 0;
    char *length = strcasestr(c->line, "\r\ncontent-length:");
    if (length) c->state = BODY, c->need = (size_t)atol(length + 17);
    else if (!strcasestr(c->line, "\r\ntransfer-encoding: chunked")) return -1;
    c->line_len = 0;
    return 0;
}

/* Feed what was read. 1: the answer is whole, 0: more to come, -1: this is no HTTP. */
static int feed(struct conn *c, const char *p, size_t n, uint64_t at) {
    char size[24];
    static _Thread_local char sizes[65536][24]; /* by descriptor: a chunk's size line may be cut too */
    static _Thread_local int size_len[65536];
    while (n || (c->state == BODY && !c->need)) {
        if (c->state == HEAD) {
            if (c->line_len >= sizeof c->line - 1) return -1;
            c->line[c->line_len++] = *p++, n--;
            if (c->line_len >= 4 && !memcmp(c->line + c->line_len - 4, "\r\n\r\n", 4) && head(c) < 0) return -1;
        } else if (c->state == BODY || c->state == CHUNK) {
            size_t take = n < c->need ? n : c->need;
            if (stream) event_bytes(c, p, take, at);
            p += take, n -= take, c->need -= take;
            if (c->need) return 0;
            if (c->state == BODY) return whole(c, at);
            c->state = CHUNK_END, c->need = 2;
        } else if (c->state == CHUNK_END) {
            p++, n--;
            if (!--c->need) c->state = CHUNK_SIZE;
        } else if (c->state == LAST) {
            if (*p++ != '\n') { n--; continue; }
            return whole(c, at);
        } else {
            int *k = &size_len[c->fd];
            if (*k > 20) return -1;
            sizes[c->fd][(*k)++] = *p;
            n--;
            if (*p++ != '\n') continue;
            memcpy(size, sizes[c->fd], (size_t)*k), size[*k] = 0, *k = 0;
            c->need = strtoul(size, NULL, 16);
            c->state = c->need ? CHUNK : LAST;
        }
    }
    return 0;
}

/* ------------------------------------------------------------- connections */
static int ep;

static void dial(struct conn *c) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a) && errno != EINPROGRESS) refused++;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
    c->connected = 0;
}

static void begin(struct conn *c) {
    c->state = HEAD, c->sent = c->line_len = 0, c->events = 0, c->done = 0, c->in_flight = 1;
    c->start = now();
}

static int push(struct conn *c) {
    if (c->sent == request_len) return 0;
    ssize_t n = send(c->fd, request + c->sent, request_len - c->sent, MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN ? 0 : -1;
    int was_cut = c->sent > 0 || !c->connected;
    c->sent += (size_t)n;
    if (c->sent < request_len || was_cut) {
        struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP | (c->sent < request_len ? EPOLLOUT : 0), .data.ptr = c};
        epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
    }
    c->connected = 1;
    return 0;
}

static void again(struct conn *c, int failed) {
    if (failed) {
        broken += counting && c->in_flight;
        close(c->fd);
        c->in_flight = 0;
        c->opens = now() + 20000000u; /* somebody who refuses is not asked again at once */
        c->fd = -1;
        return;
    }
    begin(c);
    if (push(c) < 0) again(c, 1);
}

static void hear(struct conn *c) {
    static char buffer[262144];
    for (;;) {
        ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) { again(c, 1); return; }
        uint64_t at = now();
        int got = c->in_flight ? feed(c, buffer, (size_t)n, at) : -1;
        if (got) { again(c, got < 0); return; }
        if ((size_t)n < sizeof buffer) return;
    }
}

/* ------------------------------------------------------------- the report */
static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void quantiles(const char *name, struct samples *s) {
    if (!s->n) return;
    qsort(s->us, s->n, sizeof *s->us, ascending);
    printf(", \"%s\": {\"n\": %zu", name, s->n);
    double at[] = {0.5, 0.9, 0.99, 0.999, 1};
    const char *as[] = {"p50", "p90", "p99", "p999", "max"};
    for (int i = 0; i < 5; i++) printf(", \"%s\": %.1f", as[i], s->us[(size_t)(at[i] * (double)(s->n - 1))] / 10.0);
    printf("}");
}

static void write_request(const char *model, size_t body_bytes, int pace_ms, const char *header) {
    char *body = malloc(body_bytes + 1024), *fill = malloc(body_bytes + 1);
    const char *words = "token router spark ";
    for (size_t i = 0; i < body_bytes; i++) fill[i] = words[i % strlen(words)];
    size_t around = 150 + strlen(model);
    fill[body_bytes > around ? body_bytes - around : 16] = 0;
    int n = sprintf(body, "{\"model\":\"%s\",\"max_tokens\":%d,\"seed\":%d,\"stream\":%s,\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}",
                    model, tokens, pace_ms, stream ? "true" : "false", fill);
    request_len = (size_t)asprintf(&request, "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                                   "Accept: */*\r\nUser-Agent: load\r\n%s%sContent-Length: %d\r\n\r\n%s", port, header, *header ? "\r\n" : "", n, body);
}

int main(int argc, char **argv) {
    if (argc < 11) return fprintf(stderr, "usage: see the top of load.c\n"), 2;
    port = atoi(argv[1]), stream = atoi(argv[8]), tokens = atoi(argv[9]);
    int count = atoi(argv[3]);
    double seconds = atof(argv[4]), warm = atof(argv[5]), ramp = atof(argv[6]);
    write_request(argv[2], (size_t)atol(argv[7]), atoi(argv[10]), argc > 11 ? argv[11] : "");
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files), files.rlim_cur = files.rlim_max, setrlimit(RLIMIT_NOFILE, &files);
    ep = epoll_create1(EPOLL_CLOEXEC);
    struct conn *all = calloc((size_t)count, sizeof *all);
    struct epoll_event ready[512];
    uint64_t zero = now(), from = zero + (uint64_t)((ramp + warm) * 1e9), to = from + (uint64_t)(seconds * 1e9);
    for (int i = 0; i < count; i++) all[i].fd = -1, all[i].opens = zero + (uint64_t)(ramp * 1e9 * i / count);
    int closed = count; /* connections that are yet to open */
    uint64_t look = 0;
    for (uint64_t t = zero; t < to; t = now()) {
        if (!counting && t >= from) counting = 1, printf("begin %llu\n", (unsigned long long)t), fflush(stdout);
        if (t >= look) {
            look = t + 1000000u, closed = 0;
            for (int i = 0; i < count; i++) {
                if (all[i].fd < 0 && all[i].opens <= t) dial(&all[i]), begin(&all[i]);
                closed += all[i].fd < 0;
            }
        }
        uint64_t until = counting ? to : from;
        int wait_ms = closed ? 1 : (int)((until - t) / 1000000u) + 1;
        int n = epoll_wait(ep, ready, 512, wait_ms);
        for (int i = 0; i < n; i++) {
            struct conn *c = ready[i].data.ptr;
            if (c->fd < 0) continue;
            if (ready[i].events & EPOLLERR) { refused += !c->connected; again(c, 1), closed++; continue; }
            if (ready[i].events & EPOLLOUT && push(c) < 0) { again(c, 1), closed++; continue; }
            if (ready[i].events & (EPOLLIN | EPOLLRDHUP)) hear(c), closed += c->fd < 0;
        }
    }
    uint64_t end = now();
    counting = 0;
    printf("end %llu\n", (unsigned long long)end), fflush(stdout);
    char answer[8];
    ssize_t told = read(0, answer, sizeof answer); /* whoever measures has looked: now hang up */
    uint64_t hung_up = now();
    for (int i = 0; i < count; i++)
        if (all[i].fd >= 0) close(all[i].fd);
    double s = (double)(end - from) / 1e9;
    printf("{\"told\": %zd, \"seconds\": %.4f, \"calls\": %ld, \"events\": %ld, \"wrong_status\": %ld, \"broken\": %ld, \"refused\": %ld, \"incomplete\": %ld, "
           "\"hung_up_ns\": %llu", told, s, calls, events, wrong_status, broken, refused, incomplete, (unsigned long long)hung_up);
    quantiles("latency", &latency), quantiles("ttft", &ttft), quantiles("delay", &delay), quantiles("jitter", &jitter);
    printf("}\n");
    return 0;
}
