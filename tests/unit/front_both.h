/*
 * A TCP front and the front of an RDMA device (fake0) beside it, with fake drives, as one server on loopback that libmemkv can talk to; a thread turns them.
 * Apart from the test that does so: names of the client's header are others in the front.
 */
#ifndef MKV_TESTS_FRONT_BOTH_H
#define MKV_TESTS_FRONT_BOTH_H

#include <stdint.h>

#include "common/shm/metric.h"

#define BOTH_CRED	"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

struct both;

struct both *	both_open(uint32_t num_dcis);		/* 0: RC only. Starts the fabric */
uint16_t	both_port(const struct both *b);
uint64_t	both_count(const struct both *b, enum mkv_metric m);	/* of the RDMA front */
void		both_forget(struct both *b);		/* the RDMA front's sessions without a tether end, as after 60 s of silence */
void		both_close(struct both *b);		/* its client is closed. Asserts that nothing is left */

#endif
