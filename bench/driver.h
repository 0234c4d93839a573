/*
 * What the load generator drives: memkv itself and what it is compared with, behind one table.
 *
 * A driver instance belongs to one thread of the bench. It takes requests, keeps many of them in flight and gives them back finished. The
 * memory of a request is the bench's; the driver may touch it from submit until drain gives it back.
 */
#ifndef MKV_BENCH_DRIVER_H
#define MKV_BENCH_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#include <memkv/memkv.h>

enum bench_op { BENCH_PUT, BENCH_GET, BENCH_EXISTS, BENCH_DELETE, BENCH_MATCH };

struct bench_io {
	enum bench_op	op;
	const struct mkv_key *keys;	/* 1 for PUT and GET */
	unsigned	n_keys;
	void		*buf;		/* PUT: bytes; GET: room. 4 KiB aligned, room rounded up to 4 KiB */
	size_t		bytes;
	uint64_t	deadline_us;
	uint8_t		*present;	/* EXISTS: n_keys bytes, filled by the driver; others: NULL */
	/* Out. */
	int64_t		result;		/* PUT 0, GET size, EXISTS and DELETE how many, MATCH length of the prefix; negative MKV_ERR_* */
	unsigned	reason;		/* of a miss, or of the end of the prefix */
	/* The bench's and the driver's own words. */
	void		*user;
	void		*drv;
	struct bench_io	*next;
	unsigned	left;		/* answers that the driver still waits for */
};

struct bench_drv_opts {
	const char	*servers;	/* NULL: the driver's default */
	const char	*transport;
	const char	*namespace_;
	const char	*config_file;
	uint64_t	concurrency;	/* requests in flight at most */
	uint64_t	connections;	/* per server; 0: the driver's default */
	uint64_t	value_bytes;	/* largest value */
	uint64_t	keys;		/* how many different ones there are */
	int		no_crc;
	const char	*durability;	/* "commit", "accepted" or NULL */
	int		files_direct, files_sync;
};

struct bench_drv_info {
	uint64_t	total_bytes, used_bytes;	/* 0: not known */
	char		transport[16];			/* what is in use; "" not known */
	char		version[32];
};

struct bench_drv {
	const struct bench_driver *ops;
};

struct bench_driver {
	const char	*name;
	int		keeps_values;	/* 0: what is put is lost (null, memcpy): nothing to verify */
	int		default_connections;
	/* 0, or a negative MKV_ERR_* with a sentence in why. */
	int		(*open)(struct bench_drv **out, const struct bench_drv_opts *o, char *why, size_t why_bytes);
	void		(*close)(struct bench_drv *d);
	/* 0: taken. MKV_ERR_AGAIN: full, drain first. Any other failure comes out of drain. */
	int		(*submit)(struct bench_drv *d, struct bench_io *io);
	/* Move things on; block at most timeout_us until something is finished. */
	void		(*wait)(struct bench_drv *d, uint64_t timeout_us);
	unsigned	(*drain)(struct bench_drv *d, struct bench_io **out, unsigned max);
	/* The rest may be NULL. */
	void *		(*alloc)(struct bench_drv *d, size_t bytes);	/* memory that is good for transfers; freed by close */
	int		(*info)(struct bench_drv *d, struct bench_drv_info *info);
};

extern const struct bench_driver bench_driver_memkv, bench_driver_redis, bench_driver_memcached, bench_driver_files, bench_driver_memcpy,
    bench_driver_null;

const struct bench_driver *	bench_driver_find(const char *name);

#endif
