/* The provider of the bench: HTTP/1.1 on one epoll loop. It listens on a free port of 127.0.0.1 and prints the port.
 *
 * The query of a request says what the answer is, whatever the path:
 *
 *   (nothing)          a small JSON document with counts
 *   size=N             the same, with N bytes of content
 *   events=N           a stream of N events and one with counts; each event is a chunk, and a write of its own
 *   events=N&every=MS  the same, with an event every MS milliseconds
 *
 * The id of an event has the time at which it was written: CLOCK_MONOTONIC in nanoseconds, as 16 hex digits.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LONGEST_LINE 8192
#define SIZES 16
#define MILLISECOND 1000000u
#define SECOND 1000000000u

static const char JSON_HEAD[] =
    "HTTP/1.1 200 OK\r\ndate: Thu, 01 Oct 2026 10:00:00 GMT\r\ncontent-type: application/json\r\nserver: bench\r\n"
    "x-request-id: req_0123456789abcdef0123456789abcdef\r\nopenai-processing-ms: 12\r\ncontent-length: %zu\r\n\r\n";
static const char JSON_START[] =
    "{\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\"chat.completion\",\"created\":1741569952,"
    "\"model\":\"gpt-4o-2024-08-06\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"";
static const char SENTENCE[] = "Hello! How can I assist you today? ";
static const char JSON_END[] =
    "\",\"refusal\":null,\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
    "\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":12,\"total_tokens\":21,"
    "\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},"
    "\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0}},\"service_tier\":\"default\"}";

static const char STREAM_HEAD[] =
    "HTTP/1.1 200 OK\r\ndate: Thu, 01 Oct 2026 10:00:00 GMT\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    "server: bench\r\nx-request-id: req_0123456789abcdef0123456789abcdef\r\ntransfer-encoding: chunked\r\n\r\n";
static const char EVENT[] =
    "data: {\"id\":\"chatcmpl-%016llx\",\"object\":\"chat.completion.chunk\",\"created\":1741569952,"
    "\"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_44709d6fcb\","
    "\"choices\":[%s],\"usage\":%s}\n\n%s";
static const char DELTA[] = "{\"index\":0,\"delta\":{\"content\":\" word\"},\"logprobs\":null,\"finish_reason\":null}";
static const char USAGE[] = "{\"prompt_tokens\":9,\"completion_tokens\":200,\"total_tokens\":209}";

enum part { REQUEST_LINE, HEADERS, COUNTED, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILERS, ANSWER };

struct connection {
    int socket;
    bool waits_to_write;
    /* The request. */
    enum part part;
    char line[LONGEST_LINE];
    size_t held;   /* of `line` */
    bool chunked;
    uint64_t left; /* of a body or a chunk, in bytes */
    /* The answer. */
    uint64_t size, events_left, every, due;
    bool queued;
    const char *out;
    size_t out_left;
    char event[1024];
    TAILQ_ENTRY(connection) link;
};

/* Streams that wait for their time. They have one pace, so whoever comes last is the last one due. */
static TAILQ_HEAD(, connection) waiting = TAILQ_HEAD_INITIALIZER(waiting);
static int loop;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static void watch(struct connection *c, bool writing) {
    if (c->waits_to_write == writing)
        return;
    c->waits_to_write = writing;
    struct epoll_event event = {.events = writing ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
    if (epoll_ctl(loop, EPOLL_CTL_MOD, c->socket, &event))
        die("epoll_ctl");
}

/* A document with so much content; made once for each size. */
static const char *document(size_t size, size_t *length) {
    static struct { size_t size, length; char *text; } made[SIZES];
    for (int i = 0; i < SIZES; i++) {
        if (!made[i].text) {
            size_t body = sizeof JSON_START - 1 + size + sizeof JSON_END - 1;
            char *text = malloc(sizeof JSON_HEAD + 20 + body);
            if (!text)
                die("malloc");
            char *end = text + sprintf(text, JSON_HEAD, body);
            end = mempcpy(end, JSON_START, sizeof JSON_START - 1);
            for (size_t n = 0; n < size; n++)
                *end++ = SENTENCE[n % (sizeof SENTENCE - 1)];
            end = mempcpy(end, JSON_END, sizeof JSON_END - 1);
            made[i].size = size, made[i].length = (size_t)(end - text), made[i].text = text;
        }
        if (made[i].size == size) {
            *length = made[i].length;
            return made[i].text;
        }
    }
    fprintf(stderr, "more than %d sizes of answers\n", SIZES);
    exit(1);
}

/* Put the next event into `out`. */
static void next_event(struct connection *c) {
    char text[sizeof c->event - 64];
    bool last = --c->events_left == 0;
    int length = snprintf(text, sizeof text, EVENT, (unsigned long long)now(), last ? "" : DELTA, last ? USAGE : "null",
                          last ? "data: [DONE]\n\n" : "");
    c->out = c->event;
    c->out_left = (size_t)sprintf(c->event, "%x\r\n%s\r\n%s", (unsigned)length, text, last ? "0\r\n\r\n" : "");
}

static void begin_answer(struct connection *c) {
    c->part = ANSWER;
    if (c->events_left) {
        c->events_left++; /* and the counts */
        c->out = STREAM_HEAD, c->out_left = sizeof STREAM_HEAD - 1;
    } else {
        c->out = document(c->size ? c->size : sizeof SENTENCE - 2, &c->out_left);
    }
}

/* Write what can be written now; false: the client is gone. */
static bool answer(struct connection *c) {
    ssize_t sent = send(c->socket, c->out, c->out_left, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        return false;
    c->out += sent > 0 ? sent : 0;
    c->out_left -= sent > 0 ? (size_t)sent : 0;
    if (!c->out_left && !c->events_left) {
        c->part = REQUEST_LINE;
    } else if (!c->out_left && c->every) {
        uint64_t time = now();
        c->due += c->every;
        if (c->due < time)
            c->due = time + c->every; /* the first, or too late for the pace */
        c->queued = true;
        TAILQ_INSERT_TAIL(&waiting, c, link);
    } else if (!c->out_left) {
        next_event(c); /* sent when the others have had their turn */
    }
    watch(c, c->out_left > 0);
    return true;
}

/* The number behind a name in the query; 0 without it. */
static uint64_t parameter(const char *query, const char *name) {
    const char *found = query ? strstr(query, name) : NULL;
    return found ? strtoull(found + strlen(name), NULL, 10) : 0;
}

static void take_line(struct connection *c) {
    const char *line = c->line, *query = strchr(line, '?');
    switch (c->part) {
    case REQUEST_LINE:
        c->size = parameter(query, "size=");
        c->events_left = parameter(query, "events=");
        c->every = parameter(query, "every=") * MILLISECOND;
        c->due = c->left = c->chunked = 0;
        c->part = HEADERS;
        break;
    case HEADERS:
        if (!strncasecmp(line, "content-length:", 15))
            c->left = strtoull(line + 15, NULL, 10);
        else if (!strncasecmp(line, "transfer-encoding:", 18))
            c->chunked = true;
        else if (!*line && c->chunked)
            c->part = CHUNK_SIZE;
        else if (!*line && c->left)
            c->part = COUNTED;
        else if (!*line)
            begin_answer(c);
        break;
    case CHUNK_SIZE:
        c->left = strtoull(line, NULL, 16);
        c->part = c->left ? CHUNK_DATA : TRAILERS;
        break;
    case CHUNK_END:
        c->part = CHUNK_SIZE;
        break;
    default: /* TRAILERS */
        if (!*line)
            begin_answer(c);
    }
}

/* Take what was read; false: the client is none that we understand. */
static bool take(struct connection *c, const char *data, size_t size) {
    for (size_t i = 0; i < size;) {
        if (c->part == ANSWER) {
            return false; /* pipelining */
        } else if (c->part == COUNTED || c->part == CHUNK_DATA) {
            uint64_t some = size - i < c->left ? size - i : c->left;
            i += some, c->left -= some;
            if (!c->left && c->part == COUNTED)
                begin_answer(c);
            else if (!c->left)
                c->part = CHUNK_END;
        } else if (data[i] == '\n') {
            c->held -= c->held && c->line[c->held - 1] == '\r';
            c->line[c->held] = 0;
            c->held = 0;
            i++;
            take_line(c);
        } else if (c->held < LONGEST_LINE - 1) {
            c->line[c->held++] = data[i++];
        } else {
            return false;
        }
    }
    return true;
}

/* Read what there is, and begin to answer what is whole; false: the client is gone. */
static bool receive(struct connection *c) {
    static char data[256 * 1024];
    ssize_t size = recv(c->socket, data, sizeof data, 0);
    if (size < 0)
        return errno == EAGAIN;
    return size && take(c, data, (size_t)size) && (c->part != ANSWER || answer(c));
}

static void leave(struct connection *c) {
    if (c->queued)
        TAILQ_REMOVE(&waiting, c, link);
    close(c->socket);
    free(c);
}

static void welcome(int listener) {
    int client, yes = 1;
    while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        struct connection *c = calloc(1, sizeof *c);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (!c)
            die("calloc");
        c->socket = client;
        if (epoll_ctl(loop, EPOLL_CTL_ADD, client, &event))
            die("epoll_ctl");
    }
}

/* Send the events whose time has come; return the milliseconds until the next one's, -1 if there is none. */
static int send_due(void) {
    struct connection *c;
    uint64_t time = now();
    while ((c = TAILQ_FIRST(&waiting))) {
        if (c->due > time)
            return (int)((c->due - time) / MILLISECOND + 1);
        TAILQ_REMOVE(&waiting, c, link);
        c->queued = false;
        next_event(c);
        if (!answer(c))
            leave(c);
    }
    return -1;
}

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct epoll_event events[256] = {{.events = EPOLLIN, .data.ptr = NULL}};

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    loop = epoll_create1(0);
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 4096) ||
        getsockname(listener, (struct sockaddr *)&address, &length) ||
        epoll_ctl(loop, EPOLL_CTL_ADD, listener, events))
        die("listening on 127.0.0.1");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int number = epoll_wait(loop, events, sizeof events / sizeof *events, send_due());
        for (int i = 0; i < number; i++) {
            struct connection *c = events[i].data.ptr;
            bool stays = true;
            if (!c)
                welcome(listener);
            else if (events[i].events & ~(unsigned)EPOLLOUT)
                stays = receive(c);
            else if (c->out_left)
                stays = answer(c);
            if (!stays)
                leave(c);
        }
    }
}
