/* UDP at a given rate, and its count at the other end.
 *   blast count ADDRESS PORT                    until 0.3 s after the last datagram
 *   blast send  ADDRESS PORT IPLEN RATE SECONDS IPLEN with both headers; RATE in datagrams/s, 0: as fast as it goes
 * Both print one JSON object; `count` prints "ready" before.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { AT_ONCE = 32, ROOM = 2048, QUEUE = 16 << 20, HEADERS = 28 };

static char octets[AT_ONCE][ROOM];
static struct iovec parts[AT_ONCE];
static struct mmsghdr messages[AT_ONCE];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void prepare(size_t length) {
    for (int i = 0; i < AT_ONCE; i++) {
        parts[i] = (struct iovec){octets[i], length};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
}

static void count(int s) {
    unsigned long got = 0;
    double first = 0, last = 0;
    struct pollfd ready = {.fd = s, .events = POLLIN};
    prepare(ROOM);
    while (poll(&ready, 1, got ? 300 : 10000) > 0) {
        int n = recvmmsg(s, messages, AT_ONCE, MSG_DONTWAIT, NULL);
        if (n <= 0)
            continue;
        last = now();
        if (!got)
            first = last;
        got += (unsigned long)n;
    }
    printf("{\"datagrams\":%lu,\"seconds\":%.6f}\n", got, last - first);
}

static void blast(int s, size_t length, double rate, double seconds) {
    unsigned long sent = 0, refused = 0;
    double begun = now(), since = begun, t;
    prepare(length);
    while ((t = now()) < begun + seconds) {
        long due = rate > 0 ? (long)((t - since) * rate) - (long)(sent + refused) : AT_ONCE;
        if (due > 4096) { /* Off the core for long: what was missed is not made up for in one burst. */
            since += (double)(due - AT_ONCE) / rate;
            due = AT_ONCE;
        }
        while (due > 0) {
            int n = sendmmsg(s, messages, due < AT_ONCE ? (unsigned)due : AT_ONCE, 0);
            if (n > 0)
                sent += (unsigned long)n;
            else
                refused++, n = 1;
            due -= n;
        }
        if (rate > 0)
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    printf("{\"datagrams\":%lu,\"refused\":%lu,\"seconds\":%.6f}\n", sent, refused, now() - begun);
}

int main(int argc, char **argv) {
    int counts = argc == 4 && !strcmp(argv[1], "count");
    long length = argc == 7 ? atol(argv[4]) - HEADERS : 0;
    if (!counts && (argc != 7 || strcmp(argv[1], "send") || length < 0 || length > ROOM))
        return fprintf(stderr, "usage: see the head of blast.c\n"), 2;
    int s = socket(AF_INET, SOCK_DGRAM, 0), queue = QUEUE;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[3]))};
    inet_pton(AF_INET, argv[2], &address.sin_addr);
    setsockopt(s, SOL_SOCKET, counts ? SO_RCVBUFFORCE : SO_SNDBUFFORCE, &queue, sizeof queue);
    if ((counts ? bind : connect)(s, (struct sockaddr *)&address, sizeof address))
        return perror(argv[2]), 1;
    if (!counts)
        return blast(s, (size_t)length, atof(argv[5]), atof(argv[6])), 0;
    puts("ready");
    fflush(stdout);
    return count(s), 0;
}
