/*
 * RDMA, as the rest of the library sees it. rail*.c are it; without rdma-core rail_none.c says no to everything.
 *
 *   fabric  of the handle: the devices, and what is registered with them. Any thread.
 *   rails   of a loop: for each device in use a hub (completions, receives), bounce buffers. The loop's thread, as all below.
 *   rail    of a connection that asked for one (its tether): a queue pair, and the requests on it
 *
 * A request goes by a queue pair if it is a get or put whose memory can, and else by a connection, as without any of this.
 */
#ifndef MKV_CLIENT_RAIL_H
#define MKV_CLIENT_RAIL_H

#include <stdint.h>

struct conf;
struct conn;
struct leg;
struct loop;
struct mkv_client;
struct mkv_hdr;
struct mkv_region;
struct mkv_verbs;
struct pool;
struct rail;
struct server;
struct slot;

/* ---- the handle: rail_dev.c, rail_reg.c ---- */

/* Tests: these instead of rdma-core's, and another sysfs. Set before a handle is opened. */
extern const struct mkv_verbs *mkv_client_verbs;
extern const char *mkv_client_sys;

int	mkv_rail_wanted(const struct conf *cf);			/* 1: this build can, and the transport may be RDMA */
/* 0. Transport `rdma`: module and device must be there (MKV_E_UNSUPPORTED, MKV_E_CONFIG, MKV_E_NOMEM with a sentence); `auto`: when the first rail is met. */
int	mkv_fabric_open(struct mkv_client *c, char *why);
/* 1: this host has an RDMA device, or one was named by hand: values could go by RDMA. */
int	mkv_fabric_is_there(struct mkv_client *c);
void	mkv_fabric_close(struct mkv_client *c);
void	mkv_fabric_add_region(struct mkv_region *r);		/* with the devices that are open */
void	mkv_fabric_warm(struct mkv_client *c);			/* all regions */
/* Take the region off its handle and give its registrations up: 0, no transfer reaches it any more; MKV_E_BUSY. */
int	mkv_fabric_drop_region(struct mkv_region *r);

/* ---- the loop: rail_loop.c ---- */

int		mkv_rails_open(struct loop *l);
unsigned	mkv_rails_ios(const struct conf *cf);		/* that it needs of the queue */
void		mkv_rails_poll(struct loop *l);			/* completions: once a turn, before the timers */
void		mkv_rails_flush(struct loop *l);			/* doorbells: the turn's last word */
int		mkv_rails_may_sleep(struct loop *l);		/* 1: what comes will wake the queue */
void		mkv_rails_stop(struct loop *l);			/* all queue pairs have been failed: give the queue its ios back */
int		mkv_rails_busy(const struct loop *l);		/* a queue pair is not idle yet */
void		mkv_rails_close(struct loop *l);

/* ---- a server's rails: rail_pool.c ---- */

unsigned	mkv_rails_conns(const struct conf *cf);		/* connections of a server beyond the plain ones */
void		mkv_rails_told(struct conn *c, const void *rails, unsigned n);	/* HELLO's reply lists them */
void		mkv_rails_want(struct server *s);			/* make what is missing */
/* Which carrier: NULL with 0: by a connection; NULL with an error: not now (MKV_E_AGAIN), not at all. */
struct conn *	mkv_rails_choose(struct server *s, const struct leg *l, int *err);
void		mkv_rails_dial_failed(struct conn *c, int err);		/* the tether never came up */
uint16_t	mkv_rails_number(const struct conn *c);			/* of its rail, on the wire; 0: none */
int		mkv_rails_settle(struct mkv_client *c, uint64_t until_ns);	/* any thread: until all that is tried has come out */

/* ---- one connection's: rail.c, rail_tx.c, rail_rx.c ---- */

int		mkv_rail_create(struct conn *c);
void		mkv_rail_destroy(struct conn *c);
int		mkv_rail_is_off(const struct conn *c);		/* no queue pair: the connection may begin again */
void		mkv_rail_tether_up(struct conn *c);
void		mkv_rail_tether_down(struct conn *c, int err);	/* fences, then its requests are lost */
int		mkv_rail_is_alone(const struct conn *c);		/* 1: it is live, without its tether */
void		mkv_rail_attach_body(struct conn *c, void *attach);
int		mkv_rail_attached(struct conn *c, const struct slot *s, const struct mkv_hdr *h, const uint8_t *body);	/* 0, or an error that ends the tether */
void		mkv_rail_send(struct conn *c, struct leg *l);	/* -> LEG_QUEUED */
int		mkv_rail_detach(struct leg *l);			/* as transport.h's */
void	mkv_rail_tx(struct rail *r);				/* messages out, as many as may */
/* rail_ctl.c: frames of the tether that are the channel's messages. */
int	mkv_ctl_has_frames(const struct conn *c);
uint32_t mkv_ctl_frame(struct rail *r, uint8_t *to);		/* the next one, not sealed: its bytes; 0: there is none */
/* An answer that may be to one: *taken says so. 0, or an error that ends the tether. */
int	mkv_ctl_tether_frame(struct conn *c, const struct mkv_hdr *h, const uint8_t *body, int *taken);

#endif
