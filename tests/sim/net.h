/*
 * Sockets of the simulation: byte streams between clients and fronts, with delays and odd cuts; and the queue (common/base/ioq.h) that fronts use
 * them by. Tests only.
 */
#ifndef MKV_TESTS_SIM_NET_H
#define MKV_TESTS_SIM_NET_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/ioq.h"

struct sim_front;
typedef void	net_fn(void *client);

#define SIM_KEY_ID	77u

struct mkv_ioq *net_queue_create(struct sim_front *f);
void	net_queue_destroy(struct mkv_ioq **q);
unsigned net_queue_run(struct mkv_ioq *q);	/* completions that are due */

/* Client's side. Connection, or -1. on_news(client): bytes came, or the other side closed. */
int	net_connect(unsigned front, net_fn *on_news, void *client);
void	net_send(int conn, const void *p, size_t n);
size_t	net_has(int conn);
const uint8_t *net_peek(int conn);
void	net_take(int conn, size_t n);
int	net_ended(int conn);			/* the other side has closed */
void	net_close(int conn);
void	net_front_died(unsigned front);
void	net_fini(void);

#endif
