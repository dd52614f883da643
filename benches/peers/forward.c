/* The limit of any tunnel in user space: TUN to UDP and back, without a cipher, for IPv4.
 *   forward DEVICE OWN-ADDRESS PEER-ADDRESS PORT
 * It does what a tunnel must do besides: a super-packet of the TUN is cut into one inner packet per datagram with
 * finished checksums, and sent by UDP_SEGMENT; what UDP_GRO brings is checked, joined and written as a super-packet.
 * One thread per direction. Every packet has HEAD octets before it, as ESP would have.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <netinet/udp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define USO (0x20 | 0x40) /* TUN_F_USO4, TUN_F_USO6: newer than Debian 12's headers */
#define GSO_UDP 5         /* VIRTIO_NET_HDR_GSO_UDP_L4 */
enum { HEAD = 16, SEGMENTS = 64, LONGEST = 65000, FRAME = 70000 };
enum { IP = 20, TCP = 6, UDP = 17, PUSH = 8, ACK = 16, FIN = 1 };

static int tun, sock;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static unsigned get16(const uint8_t *p) { return (unsigned)p[0] << 8 | p[1]; }
static void put16(uint8_t *p, unsigned v) { p[0] = (uint8_t)(v >> 8), p[1] = (uint8_t)v; }
static uint32_t get32(const uint8_t *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }
static void put32(uint8_t *p, uint32_t v) { put16(p, v >> 16), put16(p + 2, v); }

/* Sum of 16-bit words in the machine's order, folded (RFC 1071). */
static unsigned sum(uint64_t total, const uint8_t *p, size_t n) {
    for (; n >= 4; p += 4, n -= 4) {
        uint32_t word;
        memcpy(&word, p, 4);
        total += word;
    }
    uint32_t rest = 0;
    memcpy(&rest, p, n);
    total += rest;
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return (unsigned)total;
}
static void store(uint8_t *p, unsigned s) {
    uint16_t v = (uint16_t)s;
    memcpy(p, &v, 2);
}
static unsigned pseudo(const uint8_t *ip, size_t length) {
    return sum((uint64_t)htons(ip[9]) + htons((uint16_t)length), ip + 12, 8);
}
static void finish_ip(uint8_t *ip) {
    put16(ip + 10, 0);
    store(ip + 10, ~sum(0, ip, IP));
}

/* ---- out ---- */
static struct {
    uint8_t octets[FRAME + 4096];
    size_t length, segment;
    int count, closed;
} out;

static void send_out(void) {
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(2)];
    } control = {0};
    struct iovec part = {out.octets, out.length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (out.count > 1) {
        uint16_t segment = (uint16_t)out.segment;
        message.msg_control = control.room, message.msg_controllen = sizeof control.room;
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = IPPROTO_UDP, c->cmsg_type = UDP_SEGMENT, c->cmsg_len = CMSG_LEN(2);
        memcpy(CMSG_DATA(c), &segment, 2);
    }
    if (out.count)
        sendmsg(sock, &message, 0);
    out.length = 0, out.count = out.closed = 0;
}

/* Where the next packet of this length goes. */
static uint8_t *place(size_t length) {
    size_t all = HEAD + length;
    if (out.closed || out.count == SEGMENTS || out.length + all > LONGEST || (out.count && all > out.segment))
        send_out();
    if (!out.count)
        out.segment = all;
    out.closed = all < out.segment;
    uint8_t *at = out.octets + out.length + HEAD;
    memset(at - HEAD, 1, HEAD);
    out.length += all, out.count++;
    return at;
}

static void cut(const struct virtio_net_hdr *h, uint8_t *ip, size_t n) {
    int udp = (h->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) == GSO_UDP;
    if (h->gso_type == VIRTIO_NET_HDR_GSO_NONE) {
        if (h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
            store(ip + h->csum_start + h->csum_offset, ~sum(0, ip + h->csum_start, n - h->csum_start));
        memcpy(place(n), ip, n);
        return;
    }
    size_t headers = IP + (udp ? 8u : (ip[IP + 12] >> 4) * 4u), field = udp ? 6 : 16;
    uint32_t seq = get32(ip + IP + 4);
    unsigned id = get16(ip + 4);
    for (size_t at = headers; at < n; at += h->gso_size) {
        size_t payload = n - at < h->gso_size ? n - at : h->gso_size, length = headers + payload;
        uint8_t *to = place(length), *l4 = to + IP;
        memcpy(to, ip, headers);
        memcpy(to + headers, ip + at, payload);
        put16(to + 2, (unsigned)length), put16(to + 4, id++), finish_ip(to);
        if (udp)
            put16(l4 + 4, (unsigned)(8 + payload));
        else {
            put32(l4 + 4, seq + (uint32_t)(at - headers));
            if (at + payload < n)
                l4[13] &= (uint8_t) ~(PUSH | FIN);
        }
        put16(l4 + field, 0);
        store(l4 + field, ~sum(pseudo(to, length - IP), l4, length - IP));
    }
}

static void *outbound(void *unused) {
    static uint8_t frame[FRAME];
    struct virtio_net_hdr h;
    for (;;) {
        ssize_t n = read(tun, frame, sizeof frame);
        if (n < 0 && errno == EAGAIN) {
            send_out();
            poll(&(struct pollfd){.fd = tun, .events = POLLIN}, 1, -1);
        } else if (n < 0)
            fail("TUN");
        else if (n > (ssize_t)(sizeof h + IP) && frame[sizeof h] == 0x45) {
            memcpy(&h, frame, sizeof h);
            cut(&h, frame + sizeof h, (size_t)n - sizeof h);
        }
    }
    return unused;
}

/* ---- in ---- */
static struct {
    struct virtio_net_hdr header;
    struct iovec parts[2 + SEGMENTS];
    int parts_used, count, open;
    uint8_t *first;
    size_t headers, segment, payload;
} in;

static void write_in(void) {
    if (!in.count)
        return;
    memset(&in.header, 0, sizeof in.header);
    if (in.count > 1) {
        uint8_t *ip = in.first;
        int udp = ip[9] == UDP;
        size_t length = in.headers + in.payload;
        put16(ip + 2, (unsigned)length), finish_ip(ip);
        if (udp)
            put16(ip + IP + 4, (unsigned)(length - IP));
        store(ip + IP + (udp ? 6 : 16), pseudo(ip, length - IP));
        in.header = (struct virtio_net_hdr){
            .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = udp ? GSO_UDP : VIRTIO_NET_HDR_GSO_TCPV4,
            .hdr_len = (uint16_t)in.headers, .gso_size = (uint16_t)in.segment, .csum_start = IP,
            .csum_offset = udp ? 6 : 16};
    }
    if (writev(tun, in.parts, in.parts_used) < 0 && errno != EIO && errno != EINVAL && errno != EAGAIN)
        fail("TUN");
    in.count = 0;
}

/* The length of the headers if this packet can be joined to others, else 0. */
static size_t joinable(const uint8_t *ip, size_t n) {
    if (ip[0] != 0x45 || n < IP + 20 || get16(ip + 2) != n || get16(ip + 6) & 0x3fff)
        return 0;
    size_t headers = ip[9] == UDP ? IP + 8 : ip[9] == TCP ? IP + (ip[IP + 12] >> 4) * 4u : 0;
    if (!headers || n <= headers || (ip[9] == TCP && (ip[IP + 13] & ~PUSH) != ACK))
        return 0;
    return sum(pseudo(ip, n - IP), ip + IP, n - IP) == 0xffff ? headers : 0;
}

static int follows(const uint8_t *ip, size_t n, size_t headers) {
    const uint8_t *a = in.first + IP, *b = ip + IP;
    if (!in.open || headers != in.headers || n - headers > in.segment || in.headers + in.payload + n > LONGEST ||
        in.count == SEGMENTS || in.first[1] != ip[1] || memcmp(in.first + 8, ip + 8, 2) ||
        memcmp(in.first + 12, ip + 12, 12))
        return 0;
    return ip[9] == UDP || (get32(b + 4) == get32(a + 4) + in.payload && !memcmp(a + 8, b + 8, 4) &&
                            !memcmp(a + 14, b + 14, 2) && !memcmp(a + 20, b + 20, headers - IP - 20));
}

static void join(uint8_t *ip, size_t n) {
    size_t headers = joinable(ip, n);
    int push = headers && ip[9] == TCP && ip[IP + 13] & PUSH;
    if (headers && in.count && follows(ip, n, headers)) {
        in.parts[in.parts_used++] = (struct iovec){ip + headers, n - headers};
        in.payload += n - headers, in.count++;
        if (push)
            in.first[IP + 13] |= PUSH;
        in.open = !push && n - headers == in.segment;
        return;
    }
    write_in();
    in.parts[0] = (struct iovec){&in.header, sizeof in.header};
    in.parts[1] = (struct iovec){ip, n};
    in.parts_used = 2, in.count = 1, in.open = headers && !push;
    in.first = ip, in.headers = headers, in.segment = in.payload = n - headers;
}

static void inbound(void) {
    static uint8_t octets[FRAME];
    for (;;) {
        union {
            struct cmsghdr align;
            char room[64];
        } control;
        struct iovec part = {octets, sizeof octets};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room,
                                 .msg_controllen = sizeof control.room};
        ssize_t n = recvmsg(sock, &message, 0);
        int segment = (int)n;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); n > 0 && c; c = CMSG_NXTHDR(&message, c))
            if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO)
                memcpy(&segment, CMSG_DATA(c), sizeof segment);
        for (ssize_t at = 0; at < n; at += segment) {
            ssize_t length = n - at < segment ? n - at : segment;
            if (length > HEAD + IP)
                join(octets + at + HEAD, (size_t)(length - HEAD));
        }
        write_in();
    }
}

int main(int argc, char **argv) {
    if (argc != 5)
        return fprintf(stderr, "usage: forward DEVICE OWN-ADDRESS PEER-ADDRESS PORT\n"), 2;
    struct ifreq device = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    snprintf(device.ifr_name, sizeof device.ifr_name, "%s", argv[1]);
    unsigned basic = TUN_F_CSUM | TUN_F_TSO4;
    tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    if (tun < 0 || ioctl(tun, TUNSETIFF, &device))
        fail("TUN");
    if (ioctl(tun, TUNSETOFFLOAD, basic | TUN_F_TSO6 | USO) && ioctl(tun, TUNSETOFFLOAD, basic))
        fail("TUN offload");
    sock = socket(AF_INET, SOCK_DGRAM, 0);
    int on = 1, queue = 8 << 20;
    setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &queue, sizeof queue);
    setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &queue, sizeof queue);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[4]))}, peer = own;
    inet_pton(AF_INET, argv[2], &own.sin_addr);
    inet_pton(AF_INET, argv[3], &peer.sin_addr);
    if (bind(sock, (struct sockaddr *)&own, sizeof own) || connect(sock, (struct sockaddr *)&peer, sizeof peer) ||
        setsockopt(sock, IPPROTO_UDP, UDP_GRO, &on, sizeof on))
        fail("UDP");
    pthread_t thread;
    if (pthread_create(&thread, NULL, outbound, NULL))
        fail("thread");
    inbound();
    return 0;
}
