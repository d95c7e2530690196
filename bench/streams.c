/* The client of many slow streams: streams PORT STREAMS SECONDS REQUEST
 *
 * Sends the request in that file on so many connections to 127.0.0.1, a new one each millisecond. A second after the
 * last it prints "measuring", and so many seconds later what it measured, as JSON: how many events came, how many
 * microseconds after the upstream had written them (upstream.c says in each when), and how many streams had ended.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MARK "\"id\":\"chatcmpl-"
#define BEFORE (sizeof MARK - 1)
#define DIGITS 16
#define MILLISECOND 1000000u
#define SECOND 1000000000u

struct stream {
    int socket;
    size_t held;
    char rest[BEFORE + DIGITS]; /* of what was read last, as a mark may have been cut */
};

static struct { double *each; size_t number, room; } delays; /* microseconds */
static bool measuring;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static void note(double delay) {
    if (delays.number == delays.room) {
        delays.room = delays.room ? 2 * delays.room : 1 << 16;
        delays.each = realloc(delays.each, delays.room * sizeof *delays.each);
        if (!delays.each)
            die("realloc");
    }
    delays.each[delays.number++] = delay;
}

/* Read what there is, and note each event's delay; false: the stream has ended. */
static bool receive(struct stream *stream) {
    static char data[256 * 1024];
    memcpy(data, stream->rest, stream->held);
    ssize_t size = recv(stream->socket, data + stream->held, sizeof data - stream->held, MSG_DONTWAIT);
    if (size <= 0)
        return size < 0 && errno == EAGAIN;
    uint64_t time = now();
    const char *position = data, *end = data + stream->held + size, *mark;
    while ((mark = memmem(position, (size_t)(end - position), MARK, BEFORE)) &&
           (size_t)(end - mark) >= BEFORE + DIGITS) {
        char digits[DIGITS + 1] = {0};
        memcpy(digits, mark + BEFORE, DIGITS);
        position = mark + BEFORE + DIGITS;
        if (measuring)
            note((double)(int64_t)(time - strtoull(digits, NULL, 16)) / 1000);
    }
    stream->held = (size_t)(end - position);
    if (stream->held > sizeof stream->rest)
        stream->held = sizeof stream->rest;
    memcpy(stream->rest, end - stream->held, stream->held);
    return true;
}

static void begin(struct stream *stream, int loop, uint16_t port, const char *request, size_t size) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = stream};
    stream->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(stream->socket, (struct sockaddr *)&address, sizeof address) ||
        send(stream->socket, request, size, MSG_NOSIGNAL) != (ssize_t)size ||
        epoll_ctl(loop, EPOLL_CTL_ADD, stream->socket, &event))
        die("opening a stream");
}

static int compare(const void *a, const void *b) {
    double first = *(const double *)a, second = *(const double *)b;
    return (first > second) - (first < second);
}

static double percentile(size_t hundredths) {
    return delays.number ? delays.each[(delays.number - 1) * hundredths / 100] : 0;
}

int main(int count, char **arguments) {
    static char request[1 << 16];
    struct epoll_event events[256];
    FILE *file = count == 5 ? fopen(arguments[4], "rb") : NULL;
    size_t size = file ? fread(request, 1, sizeof request, file) : 0;
    if (!size) {
        fprintf(stderr, "usage: streams PORT STREAMS SECONDS REQUEST\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    uint16_t port = (uint16_t)atoi(arguments[1]);
    size_t wanted = strtoul(arguments[2], NULL, 10), begun = 0, ended = 0;
    struct stream *streams = calloc(wanted, sizeof *streams);
    int loop = epoll_create1(0);
    uint64_t start = now(), from = start + wanted * MILLISECOND + SECOND;
    uint64_t until = from + (uint64_t)(atof(arguments[3]) * SECOND);

    if (!streams)
        die("calloc");
    for (uint64_t time = start; time < until; time = now()) {
        for (; begun < wanted && time >= start + begun * MILLISECOND; begun++)
            begin(&streams[begun], loop, port, request, size);
        if (!measuring && time >= from) {
            measuring = true;
            puts("measuring");
            fflush(stdout);
        }
        int number = epoll_wait(loop, events, sizeof events / sizeof *events, 1);
        for (int i = 0; i < number; i++) {
            struct stream *stream = events[i].data.ptr;
            if (!receive(stream)) {
                ended++;
                close(stream->socket);
            }
        }
    }
    if (delays.number)
        qsort(delays.each, delays.number, sizeof *delays.each, compare);
    printf("{\"whole\": %zu, \"seconds\": %s, \"p50\": %.1f, \"p99\": %.1f, \"failed\": %zu}\n", delays.number,
           arguments[3], percentile(50), percentile(99), ended);
    return 0;
}
