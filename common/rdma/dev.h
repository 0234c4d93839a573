/*
 * An RDMA device of this process: one context and one protection domain, the port, GID and path MTU that its queue pairs use.
 *
 * Opened and closed by one thread; in between any thread may register memory, and each loop thread has a hub of its own (hub.h). Owns the context, the
 * protection domain, and the descriptor of asynchronous events.
 */
#ifndef MKV_RDMA_DEV_H
#define MKV_RDMA_DEV_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/rdma/verbs.h"

#define MKV_RDMA_NAME_BYTES	64u

struct mkv_rdma_conf {
	const char	*device;		/* name as in /sys/class/infiniband */
	unsigned	port;			/* 1..; 0: the first that is active */
	int		gid_index;		/* -1: by type and address */
	const uint8_t	*address;		/* 16 bytes, IPv4 mapped: the GID must be this one; NULL: the first that fits */
	int		traffic_class, service_level;	/* -1: auto */
	unsigned	mtu;			/* path MTU in bytes; 0: the port's active one. More than that is refused with both numbers */
};

struct mkv_rdma_dev {				/* all but magic and the count at the end: constant after opening, for reading */
	uint32_t	magic;
	const struct mkv_verbs *v;
	struct ibv_context *ctx;
	struct ibv_pd	*pd;
	struct ibv_device_attr attr;
	char		name[MKV_RDMA_NAME_BYTES];
	uint8_t		port, traffic_class, service_level;
	int		gid_index;
	union ibv_gid	gid;
	int		is_roce;		/* Ethernet: addressed by GID; else by LID as well */
	int		is_soft;		/* a driver's own, over a network device: posts by write(), and ERR does not wait for the packet in hand */
	uint16_t	lid;
	enum ibv_mtu	mtu;
	uint32_t	mtu_bytes, speed_mbit;
	uint8_t		address[16];		/* of the GID, where it is one of an IP address; else zeroes */
	uint32_t	ifindex;		/* its network device; 0: unknown */
	uint8_t		rd_atomic_out, rd_atomic_in;	/* READs that one queue pair may have under way; may answer */
	int		odp;			/* 1: RC READ and WRITE on memory that is paged in on demand */
	_Atomic uint32_t gids_changed;		/* times; written by mkv_rdma_dev_event(), read by hubs */
};

/*
 * Open by name and choose port, GID and MTU. 0; MKV_E_UNSUPPORTED no such device, no port, no GID that fits, a port that is down; MKV_E_CONFIG a number that
 * does not fit the port (MTU, GID index); MKV_E_SYSTEM. why: a sentence that names device, port and what mends it.
 */
int		mkv_rdma_dev_open(struct mkv_rdma_dev **out, const struct mkv_verbs *v, const struct mkv_rdma_conf *c, char *why, size_t why_bytes);
/* Everything made of it must be gone. Accepts NULL. */
void		mkv_rdma_dev_close(struct mkv_rdma_dev **d);
/* Names of the devices that are there, in order of their names, up to max; how many there are, or MKV_E_*. */
int		mkv_rdma_dev_names(const struct mkv_verbs *v, char (*name)[MKV_RDMA_NAME_BYTES], unsigned max);

/* Non-blocking; readable when the next call has something to say. */
int		mkv_rdma_dev_event_fd(const struct mkv_rdma_dev *d);
enum mkv_rdma_event { MKV_RDMA_EV_NONE, MKV_RDMA_EV_PORT_DOWN, MKV_RDMA_EV_PORT_UP, MKV_RDMA_EV_GID_CHANGED, MKV_RDMA_EV_QP, MKV_RDMA_EV_SRQ_LIMIT, MKV_RDMA_EV_GONE, MKV_RDMA_EV_OTHER };
/* qpn: which queue pair MKV_RDMA_EV_QP is of (mkv_rdma_hub_failed()); NULL: nobody wants to know. */
enum mkv_rdma_event mkv_rdma_dev_event(struct mkv_rdma_dev *d, uint32_t *qpn);
/*
 * After MKV_RDMA_EV_GID_CHANGED: what became of the GID (and LID) that its queue pairs have and that others were told. OTHER: by now another would be chosen, no worse than it
 * (c as at opening): who opens the device anew has that. Asks the kernel; what cannot be read STANDS.
 */
enum mkv_rdma_gid { MKV_RDMA_GID_STANDS, MKV_RDMA_GID_OTHER, MKV_RDMA_GID_NONE };
enum mkv_rdma_gid mkv_rdma_dev_gid(const struct mkv_rdma_dev *d, const struct mkv_rdma_conf *c);
/* 1: its port is active now. Asks the kernel. */
int		mkv_rdma_dev_is_up(const struct mkv_rdma_dev *d);

#endif
