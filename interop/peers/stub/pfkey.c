/*
 * A PF_KEY socket for machines whose kernel has none: OpenIKED runs its IKE against it, and no packet is encrypted.
 *
 * Loaded into iked by LD_PRELOAD. socket(PF_KEY) gives a datagram socket that is connected to itself; what is written
 * to it (RFC 2367) is replaced by the answer of a kernel that does all it is asked, which so is there to be read
 * before the write returns: the message's own header, and for SADB_GETSPI an SPI. A socket's exemption from IPsec,
 * for which such a kernel has no option either, is granted.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define FAMILY_KEY 15
#define OPTION_IPSEC_V4 16
#define OPTION_IPSEC_V6 34
#define SADB_GETSPI 1
#define SADB_GET 5
#define SADB_EXT_SA 1

static const char NAME[] = "obol-interop-pfkey";

struct header { uint8_t version, type, error, satype; uint16_t words, reserved; uint32_t seq, pid; };
struct sa { uint16_t words, ext; uint32_t spi; uint8_t replay, state, auth, encrypt; uint32_t flags; };

/* An abstract address; the number tells sockets apart, as only iked's parent opens them. */
static socklen_t address(struct sockaddr_un *to)
{
    static unsigned number;

    memset(to, 0, sizeof *to);
    to->sun_family = AF_UNIX;
    memcpy(to->sun_path + 1, NAME, sizeof NAME);
    memcpy(to->sun_path + 1 + sizeof NAME, &number, sizeof number);
    number++;
    return offsetof(struct sockaddr_un, sun_path) + 1 + sizeof NAME + sizeof number;
}

static int is_key_socket(int fd)
{
    struct sockaddr_un own;
    socklen_t len = sizeof own;

    return getsockname(fd, (struct sockaddr *)&own, &len) == 0 && own.sun_family == AF_UNIX
        && len > offsetof(struct sockaddr_un, sun_path) + sizeof NAME
        && memcmp(own.sun_path + 1, NAME, sizeof NAME) == 0;
}

static void answer(int fd, const struct header *asked)
{
    struct { struct header header; struct sa sa; } reply;
    size_t size = sizeof reply.header;

    memset(&reply, 0, sizeof reply);
    reply.header = *asked;
    if (asked->type == SADB_GETSPI) {
        while (ntohl(reply.sa.spi) < 256)
            if (getrandom(&reply.sa.spi, sizeof reply.sa.spi, 0) != sizeof reply.sa.spi)
                abort();
        reply.sa.words = sizeof reply.sa / 8;
        reply.sa.ext = SADB_EXT_SA;
        size = sizeof reply;
    } else if (asked->type == SADB_GET) {
        reply.header.error = ESRCH; /* no usage is known */
    }
    reply.header.words = size / 8;
    if (send(fd, &reply, size, 0) != (ssize_t)size)
        abort();
}

int socket(int domain, int type, int protocol)
{
    static int (*real)(int, int, int);
    struct sockaddr_un own;
    socklen_t len;
    int fd;

    if (!real)
        real = (int (*)(int, int, int))dlsym(RTLD_NEXT, "socket");
    if (domain != FAMILY_KEY)
        return real(domain, type, protocol);
    fd = real(AF_UNIX, SOCK_DGRAM | (type & (SOCK_NONBLOCK | SOCK_CLOEXEC)), 0);
    len = address(&own);
    if (fd < 0 || bind(fd, (struct sockaddr *)&own, len) < 0 || connect(fd, (struct sockaddr *)&own, len) < 0)
        return -1;
    return fd;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    static ssize_t (*real)(int, const struct iovec *, int);
    ssize_t len = 0;

    if (!real)
        real = (ssize_t (*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
    if (count < 1 || parts[0].iov_len < sizeof(struct header) || !is_key_socket(fd))
        return real(fd, parts, count);
    answer(fd, parts[0].iov_base);
    for (int i = 0; i < count; i++)
        len += parts[i].iov_len;
    return len;
}

ssize_t write(int fd, const void *data, size_t len)
{
    static ssize_t (*real)(int, const void *, size_t);

    if (!real)
        real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (len < sizeof(struct header) || !is_key_socket(fd))
        return real(fd, data, len);
    answer(fd, data);
    return len;
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t len)
{
    static int (*real)(int, int, int, const void *, socklen_t);

    if ((level == IPPROTO_IP && option == OPTION_IPSEC_V4) || (level == IPPROTO_IPV6 && option == OPTION_IPSEC_V6))
        return 0;
    if (!real)
        real = (int (*)(int, int, int, const void *, socklen_t))dlsym(RTLD_NEXT, "setsockopt");
    return real(fd, level, option, value, len);
}
