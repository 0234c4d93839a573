/*
 * A UDP socket for control messages, and the addresses of its ends. Linux. One loop thread each; no call blocks.
 *
 * Datagrams are never fragmented: what is too long for the path is an error of the sender (MKV_E_TOOBIG), not a loss. What the socket has no room for is lost,
 * as anything is that leaves by it; who sends finds out by the answer that does not come.
 */
#ifndef MKV_BASE_UDP_H
#define MKV_BASE_UDP_H

#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define MKV_UDP_BATCH	32u
#define MKV_UDP_OVERHEAD 28u		/* IPv4 and UDP header */
#define MKV_UDP_OVERHEAD6 48u		/* IPv6 and UDP header */
#define MKV_UDP_SAFE	1232u		/* where nothing is known of the path: what every IPv6 path carries */

struct mkv_addr {
	socklen_t	bytes;			/* 0: none */
	struct sockaddr_storage ss;
};

struct mkv_udp_msg {
	void		*buf;
	uint32_t	bytes;			/* received: what came; 0 where it was longer than the buffer */
	struct mkv_addr	addr;			/* received: from where; sent: where to */
};

/* ip: IPv6, or IPv4 mapped. */
void	mkv_addr_make(struct mkv_addr *a, const uint8_t ip[16], uint16_t port);
void	mkv_addr_set_port(struct mkv_addr *a, uint16_t port);
int	mkv_addr_is(const struct mkv_addr *a, const struct mkv_addr *b);	/* 1: the same address and port; IPv4 mapped is IPv4 */

/* Bound to own. The descriptor; MKV_E_BUSY the port is taken, MKV_E_UNREACHABLE no such address here, MKV_E_SYSTEM. */
int	mkv_udp_bind(const struct mkv_addr *own);
/* From now on only from there and to there. 0; MKV_E_*. */
int	mkv_udp_connect(int fd, const struct mkv_addr *to);
int	mkv_udp_port(int fd);			/* its own; or MKV_E_* */
/* Up to n, at most MKV_UDP_BATCH; room: of each buffer. How many; 0: nothing waits. */
int	mkv_udp_recv(int fd, struct mkv_udp_msg *m, unsigned n, uint32_t room);
/* Of an unconnected socket: each to its address; those that cannot leave are lost. How many have left. */
unsigned mkv_udp_send_all(int fd, const struct mkv_udp_msg *m, unsigned n);
/* Of a connected one. 0; MKV_E_AGAIN no room now; MKV_E_TOOBIG for the path; MKV_E_UNREACHABLE nobody listens there, or no way; others. */
int	mkv_udp_send(int fd, const void *buf, uint32_t bytes);

#endif
