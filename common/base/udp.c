/*
 * UDP sockets for control messages (udp.h). Any process, one loop thread a socket. Owns nothing: descriptors and buffers are the caller's. Fails as udp.h says;
 * EINTR is tried again, everything else that a datagram meets on its way is a loss.
 */
#include "config.h"

#include "common/base/udp.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/err.h"

static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

/* ---- Addresses ------------------------------------------------------------------------------------------------------------- */

void
mkv_addr_make(struct mkv_addr *a, const uint8_t ip[16], uint16_t port)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&a->ss;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&a->ss;

	memset(a, 0, sizeof(*a));
	if (memcmp(ip, mapped, sizeof(mapped)) == 0) {
		v4->sin_family = AF_INET;
		memcpy(&v4->sin_addr, ip + 12, 4);
		a->bytes = sizeof(*v4);
	} else {
		v6->sin6_family = AF_INET6;
		memcpy(&v6->sin6_addr, ip, 16);
		a->bytes = sizeof(*v6);
	}
	mkv_addr_set_port(a, port);
}

void
mkv_addr_set_port(struct mkv_addr *a, uint16_t port)
{
	if (a->ss.ss_family == AF_INET)
		((struct sockaddr_in *)&a->ss)->sin_port = htons(port);
	else if (a->ss.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&a->ss)->sin6_port = htons(port);
}

static uint16_t
addr_port(const struct mkv_addr *a)
{
	if (a->ss.ss_family == AF_INET)
		return (ntohs(((const struct sockaddr_in *)&a->ss)->sin_port));
	if (a->ss.ss_family == AF_INET6)
		return (ntohs(((const struct sockaddr_in6 *)&a->ss)->sin6_port));
	return (0);
}

/* 0: neither IPv4 nor IPv6. */
static int
addr_ip(const struct mkv_addr *a, uint8_t ip[16])
{
	if (a->bytes != 0 && a->ss.ss_family == AF_INET) {
		memcpy(ip, mapped, sizeof(mapped));
		memcpy(ip + 12, &((const struct sockaddr_in *)&a->ss)->sin_addr, 4);
		return (1);
	}
	if (a->bytes != 0 && a->ss.ss_family == AF_INET6) {
		memcpy(ip, &((const struct sockaddr_in6 *)&a->ss)->sin6_addr, 16);
		return (1);
	}
	return (0);
}

int
mkv_addr_is(const struct mkv_addr *a, const struct mkv_addr *b)
{
	uint8_t ip_a[16], ip_b[16];

	return (addr_ip(a, ip_a) && addr_ip(b, ip_b) && memcmp(ip_a, ip_b, sizeof(ip_a)) == 0 && addr_port(a) == addr_port(b));
}

/* ---- Sockets --------------------------------------------------------------------------------------------------------------- */

int
mkv_udp_bind(const struct mkv_addr *own)
{
	int fd = socket(own->ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), v4 = own->ss.ss_family == AF_INET, r;
	int whole = v4 ? IP_PMTUDISC_DO : IPV6_PMTUDISC_DO, room = 1 << 20;

	if (fd < 0)
		return (mkv_err_from_errno(errno));
	(void)setsockopt(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER, &whole, sizeof(whole));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	if (bind(fd, (const struct sockaddr *)&own->ss, own->bytes) == 0)
		return (fd);
	r = errno == EADDRINUSE ? MKV_E_BUSY : mkv_err_from_errno(errno);
	(void)close(fd);
	return (r);
}

int
mkv_udp_connect(int fd, const struct mkv_addr *to)
{
	return (connect(fd, (const struct sockaddr *)&to->ss, to->bytes) == 0 ? 0 : mkv_err_from_errno(errno));
}

int
mkv_udp_port(int fd)
{
	struct mkv_addr own = { .bytes = sizeof(own.ss) };

	if (getsockname(fd, (struct sockaddr *)&own.ss, &own.bytes) != 0)
		return (mkv_err_from_errno(errno));
	return (addr_port(&own));
}

int
mkv_udp_recv(int fd, struct mkv_udp_msg *m, unsigned n, uint32_t room)
{
	struct mmsghdr h[MKV_UDP_BATCH];
	struct iovec v[MKV_UDP_BATCH];
	int got;

	n = MKV_MIN(n, MKV_UDP_BATCH);
	memset(h, 0, n * sizeof(h[0]));
	for (unsigned i = 0; i < n; i++) {
		v[i] = (struct iovec){ .iov_base = m[i].buf, .iov_len = room };
		h[i].msg_hdr = (struct msghdr){ .msg_iov = &v[i], .msg_iovlen = 1, .msg_name = &m[i].addr.ss, .msg_namelen = sizeof(m[i].addr.ss) };
	}
	do
		got = recvmmsg(fd, h, n, MSG_DONTWAIT, NULL);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return (0);
	for (int i = 0; i < got; i++) {
		m[i].bytes = (h[i].msg_hdr.msg_flags & MSG_TRUNC) ? 0 : h[i].msg_len;
		m[i].addr.bytes = h[i].msg_hdr.msg_namelen;
	}
	return (got);
}

unsigned
mkv_udp_send_all(int fd, const struct mkv_udp_msg *m, unsigned n)
{
	struct mmsghdr h[MKV_UDP_BATCH];
	struct iovec v[MKV_UDP_BATCH];
	unsigned at = 0, left = 0;

	MKV_ASSERT(n <= MKV_UDP_BATCH);
	memset(h, 0, n * sizeof(h[0]));
	for (unsigned i = 0; i < n; i++) {
		v[i] = (struct iovec){ .iov_base = m[i].buf, .iov_len = m[i].bytes };
		h[i].msg_hdr = (struct msghdr){ .msg_iov = &v[i], .msg_iovlen = 1, .msg_name = (void *)(uintptr_t)&m[i].addr.ss,
			.msg_namelen = m[i].addr.bytes };
	}
	while (at < n) {
		int r = sendmmsg(fd, h + at, n - at, MSG_DONTWAIT);

		if (r > 0) {
			left += (unsigned)r;
			at += (unsigned)r;
		} else if (r == 0 || errno != EINTR) {
			at++;				/* this one is lost */
		}
	}
	return (left);
}

int
mkv_udp_send(int fd, const void *buf, uint32_t bytes)
{
	ssize_t r;

	do
		r = send(fd, buf, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	if (r >= 0)
		return (0);
	return (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? MKV_E_AGAIN : mkv_err_from_errno(errno));
}
