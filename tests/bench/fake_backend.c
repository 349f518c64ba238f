/* A vLLM that costs nothing: answers at once or at a given pace, so that what is measured is what stands before it.
 *
 *   fake_backend PORT COUNT MODEL     listens on 127.0.0.1:PORT … PORT+COUNT-1, one thread, epoll
 *
 * Of a chat call it reads max_tokens (events of content), seed (milliseconds between them), stream and include_usage,
 * since every proxy hands those on. Each event of content carries when it was sent, in nanoseconds of CLOCK_MONOTONIC
 * as 16 hex digits after a "T": the reader on the same machine knows how long it was under way. Events are sent one by
 * one, as vLLM does. GET /bench/state tells how many calls run and when a client was last seen to leave.
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
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { AT_ONCE = 8 }; /* events that a stream without pace sends before the next stream has its turn */

struct conn {
    int fd, closing;
    char *in;
    size_t in_len, in_cap;
    char out[2048]; /* what the kernel did not take yet */
    size_t out_len;
    long left, made; /* events of content still to send, sent */
    int streaming, usage;
    uint64_t pace, due;
    int at; /* index in the heap, -1: not waiting for time */
};

static char model[128], plain[4096];
static size_t plain_len;
static struct conn **heap;
static int heap_len, heap_cap, ep, timer;
static long running, left_early, served;
static uint64_t last_left;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ------------------------------------------------------------- who is due next: a binary heap */
static void place(struct conn *c, int i) { heap[i] = c, c->at = i; }

static void up(int i) {
    struct conn *c = heap[i];
    for (; i && heap[(i - 1) / 2]->due > c->due; i = (i - 1) / 2) place(heap[(i - 1) / 2], i);
    place(c, i);
}

static void down(int i) {
    struct conn *c = heap[i];
    for (int k; (k = 2 * i + 1) < heap_len; i = k) {
        if (k + 1 < heap_len && heap[k + 1]->due < heap[k]->due) k++;
        if (heap[k]->due >= c->due) break;
        place(heap[k], i);
    }
    place(c, i);
}

static void wait_for_time(struct conn *c, uint64_t due) {
    c->due = due;
    if (c->at >= 0) {
        up(c->at), down(c->at);
        return;
    }
    if (heap_len == heap_cap) heap = realloc(heap, sizeof *heap * (size_t)(heap_cap = heap_cap ? 2 * heap_cap : 256));
    place(c, heap_len++);
    up(c->at);
}

static void stop_waiting(struct conn *c) {
    if (c->at < 0) return;
    int i = c->at;
    struct conn *last = heap[--heap_len];
    c->at = -1;
    if (last == c) return;
    place(last, i);
    up(i), down(last->at);
}

/* ------------------------------------------------------------- writing */
static void forget(struct conn *c) {
    stop_waiting(c);
    if (c->streaming) running--, left_early++, last_left = now();
    close(c->fd);
    free(c->in);
    free(c);
}

/* Send now; keep what the kernel does not take. -1: the client is gone. */
static int emit(struct conn *c, const char *data, size_t n) {
    ssize_t sent = c->out_len ? 0 : send(c->fd, data, n, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN) return -1;
        sent = 0;
    }
    if ((size_t)sent == n) return 0;
    if (c->out_len + n - (size_t)sent > sizeof c->out) return -1;
    memcpy(c->out + c->out_len, data + sent, n - (size_t)sent);
    c->out_len += n - (size_t)sent;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
    return 0;
}

static int flush(struct conn *c) {
    ssize_t sent = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN ? 0 : -1;
    memmove(c->out, c->out + sent, c->out_len - (size_t)sent);
    c->out_len -= (size_t)sent;
    if (c->out_len) return 0;
    struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
    if (c->streaming && c->at < 0) wait_for_time(c, c->pace ? c->due + c->pace : now());
    return 0;
}

static int event(struct conn *c, const char *choices, const char *usage) {
    char body[768], framed[800];
    int n = snprintf(body, sizeof body,
                     "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1795395749,"
                     "\"model\":\"%s\",\"choices\":[%s]%s}\n\n", model, choices, usage);
    int m = snprintf(framed, sizeof framed, "%x\r\n%s\r\n", n, body);
    return emit(c, framed, (size_t)m);
}

static int content(struct conn *c) {
    char choice[256];
    snprintf(choice, sizeof choice,
             "{\"index\":0,\"delta\":{\"content\":\"T%016llx \"},\"logprobs\":null,\"finish_reason\":null,\"token_ids\":null}",
             (unsigned long long)now());
    c->left--, c->made++;
    return event(c, choice, "");
}

static int end_of_stream(struct conn *c) {
    char usage[160];
    c->streaming = 0, running--, served++;
    if (event(c, "{\"index\":0,\"delta\":{\"content\":\"\"},\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null}", "") < 0)
        return -1;
    snprintf(usage, sizeof usage, ",\"usage\":{\"prompt_tokens\":9,\"total_tokens\":%ld,\"completion_tokens\":%ld}", 9 + c->made, c->made);
    if (c->usage && event(c, "", usage) < 0) return -1;
    const char *done = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
    return emit(c, done, strlen(done));
}

/* The stream's turn: an event, or a few where there is no pace. */
static int turn(struct conn *c) {
    for (int i = 0; i < (c->pace ? 1 : AT_ONCE) && c->left && !c->out_len; i++)
        if (content(c) < 0) return -1;
    if (c->out_len) return 0; /* flush() takes it up again */
    if (!c->left) return end_of_stream(c);
    wait_for_time(c, c->pace ? c->due + c->pace : now());
    return 0;
}

/* ------------------------------------------------------------- reading */
static long number(const char *body, size_t n, const char *key, long otherwise) {
    const char *p = memmem(body, n, key, strlen(key));
    if (!p) return otherwise;
    for (p += strlen(key); p < body + n && (*p == ' ' || *p == ':'); p++) {}
    return p < body + n && *p >= '0' && *p <= '9' ? atol(p) : otherwise;
}

static int is_true(const char *body, size_t n, const char *key) {
    const char *p = memmem(body, n, key, strlen(key));
    if (!p) return 0;
    for (p += strlen(key); p < body + n && (*p == ' ' || *p == ':'); p++) {}
    return p < body + n && *p == 't';
}

static int answer(struct conn *c, const char *type, const char *body) {
    char text[2048];
    int n = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 01:02:17 GMT\r\nserver: uvicorn\r\n"
                     "content-type: %s\r\ncontent-length: %zu\r\n\r\n%s", type, strlen(body), body);
    return emit(c, text, (size_t)n);
}

static int chat(struct conn *c, const char *body, size_t n) {
    if (!is_true(body, n, "\"stream\"")) {
        served++;
        return emit(c, plain, plain_len);
    }
    c->left = number(body, n, "\"max_tokens\"", 16), c->made = 0;
    c->pace = (uint64_t)number(body, n, "\"seed\"", 0) * 1000000u;
    c->usage = is_true(body, n, "\"include_usage\"");
    c->streaming = 1, running++;
    const char *head = "HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 01:02:17 GMT\r\nserver: uvicorn\r\n"
                       "content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
    if (emit(c, head, strlen(head)) < 0) return -1;
    if (event(c, "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}", "") < 0) return -1;
    c->due = now();
    return turn(c);
}

static int call(struct conn *c, const char *head, const char *body, size_t n) {
    char text[1024];
    if (!strncmp(head, "POST ", 5)) return chat(c, body, n);
    if (!strncmp(head, "GET /bench/state", 16)) {
        snprintf(text, sizeof text, "{\"running\":%ld,\"left_early\":%ld,\"served\":%ld,\"last_left_ns\":%llu}", running, left_early, served,
                 (unsigned long long)last_left);
        return answer(c, "application/json", text);
    }
    if (!strncmp(head, "GET /v1/models", 14)) {
        snprintf(text, sizeof text, "{\"object\":\"list\",\"data\":[{\"id\":\"%s\",\"object\":\"model\",\"created\":1795395600,"
                 "\"owned_by\":\"vllm\",\"root\":\"%s\",\"parent\":null,\"max_model_len\":131072}]}", model, model);
        return answer(c, "application/json", text);
    }
    if (!strncmp(head, "GET /metrics", 12)) {
        const char *of = "{engine=\"0\",model_name=\"";
        snprintf(text, sizeof text, "vllm:num_requests_running%s%s\"} %ld.0\nvllm:num_requests_waiting%s%s\"} 0.0\n"
                 "vllm:kv_cache_usage_perc%s%s\"} 0.0\nprocess_start_time_seconds 1.7953956e+09\n", of, model, running, of, model, of, model);
        return answer(c, "text/plain; version=0.0.4", text);
    }
    return answer(c, "application/json", !strncmp(head, "GET /version", 12) ? "{\"version\":\"0.32.0\"}" : "{}");
}

/* Take every whole call out of the buffer. -1: the connection is over. */
static int take_calls(struct conn *c) {
    while (!c->streaming && c->in_len) {
        char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
        if (!end) return 0;
        size_t head = (size_t)(end - c->in) + 4, body = 0;
        for (char *line = c->in; line < end; line = (char *)memmem(line, (size_t)(end + 2 - line), "\r\n", 2) + 2)
            if (!strncasecmp(line, "content-length:", 15)) body = (size_t)atol(line + 15);
            else if (!strncasecmp(line, "transfer-encoding:", 18)) return -1; /* no proxy here sends one */
        if (c->in_len < head + body) return 0;
        if (call(c, c->in, c->in + head, body) < 0) return -1;
        memmove(c->in, c->in + head + body, c->in_len -= head + body);
    }
    return 0;
}

static int hear(struct conn *c) {
    for (;;) {
        if (c->in_cap - c->in_len < 16384) c->in = realloc(c->in, c->in_cap = c->in_cap ? 2 * c->in_cap : 32768);
        ssize_t n = recv(c->fd, c->in + c->in_len, c->in_cap - c->in_len, 0);
        if (n == 0) return -1;
        if (n < 0) return errno == EAGAIN ? take_calls(c) : -1;
        c->in_len += (size_t)n;
        if ((size_t)n < 16384) return take_calls(c);
    }
}

/* ------------------------------------------------------------- the loop */
static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 4096)) perror("fake_backend: bind"), exit(1);
    return fd;
}

static void welcome(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *c = calloc(1, sizeof *c);
        c->fd = fd, c->at = -1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = c};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
    }
}

static void set_timer(void) {
    struct itimerspec t = {0};
    if (heap_len) {
        uint64_t due = heap[0]->due ? heap[0]->due : 1;
        t.it_value = (struct timespec){(time_t)(due / 1000000000u), (long)(due % 1000000000u)};
    }
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &t, NULL);
}

int main(int argc, char **argv) {
    if (argc != 4) return fprintf(stderr, "usage: fake_backend PORT COUNT MODEL\n"), 2;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files), files.rlim_cur = files.rlim_max, setrlimit(RLIMIT_NOFILE, &files);
    snprintf(model, sizeof model, "%s", argv[3]);
    char text[1024], body[2048];
    memset(text, 'a', 560), text[560] = 0;
    snprintf(body, sizeof body, "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1795395738,\"model\":\"%s\",\"choices\":[{\"index\":0,"
             "\"message\":{\"role\":\"assistant\",\"content\":\"%s\",\"refusal\":null,\"tool_calls\":[],\"reasoning\":null},\"logprobs\":null,"
             "\"finish_reason\":\"stop\",\"stop_reason\":null}],\"system_fingerprint\":\"vllm-0.32.0-bench\","
             "\"usage\":{\"prompt_tokens\":9,\"total_tokens\":25,\"completion_tokens\":16}}", model, text);
    plain_len = (size_t)snprintf(plain, sizeof plain, "HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 01:02:17 GMT\r\nserver: uvicorn\r\n"
                                 "content-length: %zu\r\ncontent-type: application/json\r\n\r\n%s", strlen(body), body);
    ep = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int count = atoi(argv[2]), listeners[128];
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &timer}, ready[512];
    epoll_ctl(ep, EPOLL_CTL_ADD, timer, &e);
    for (int i = 0; i < count && i < 128; i++) {
        listeners[i] = listen_on(atoi(argv[1]) + i);
        e.data.ptr = &listeners[i];
        epoll_ctl(ep, EPOLL_CTL_ADD, listeners[i], &e);
    }
    for (;;) {
        int n = epoll_wait(ep, ready, 512, heap_len && heap[0]->due <= now() ? 0 : -1);
        for (int i = 0; i < n; i++) {
            void *p = ready[i].data.ptr;
            if (p == &timer) {
                uint64_t ticks;
                if (read(timer, &ticks, sizeof ticks) < 0) continue;
            } else if ((int *)p >= listeners && (int *)p < listeners + count) {
                welcome(*(int *)p);
            } else {
                struct conn *c = p;
                int gone = ready[i].events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP) ? -1 : 0;
                if (!gone && ready[i].events & EPOLLOUT) gone = flush(c);
                if (!gone && ready[i].events & EPOLLIN) gone = hear(c);
                if (gone) forget(c);
            }
        }
        uint64_t until = now();
        for (int budget = 4096; budget && heap_len && heap[0]->due <= until; budget--) {
            struct conn *c = heap[0];
            stop_waiting(c);
            if (turn(c) < 0 || (!c->streaming && take_calls(c) < 0)) forget(c);
        }
        set_timer();
    }
}
