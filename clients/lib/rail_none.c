/*
 * Built without rdma-core: no rails, everything goes by connections.
 *
 * Any thread. Owns nothing.
 */
#include "config.h"

#include "clients/lib/client_priv.h"
#include "clients/lib/rail.h"

int
mkv_rail_wanted(const struct conf *cf MKV_UNUSED)
{
	return (0);
}

int
mkv_fabric_open(struct mkv_client *c MKV_UNUSED, char *why MKV_UNUSED)
{
	return (0);
}

void
mkv_fabric_close(struct mkv_client *c MKV_UNUSED)
{
}

void
mkv_fabric_add_region(struct mkv_region *r MKV_UNUSED)
{
}

void
mkv_fabric_warm(struct mkv_client *c MKV_UNUSED)
{
}

int
mkv_fabric_drop_region(struct mkv_region *r)
{
	struct mkv_client *c = r->c;
	int busy;

	(void)pthread_mutex_lock(&c->mutex);
	if ((busy = r->in_flight > 0) == 0) {
		mkv_list_remove(&r->link);
		atomic_fetch_sub_explicit(&c->n_regions, 1, memory_order_relaxed);
	}
	(void)pthread_mutex_unlock(&c->mutex);
	return (busy ? MKV_E_BUSY : 0);
}

int
mkv_rails_open(struct loop *l MKV_UNUSED)
{
	return (0);
}

unsigned
mkv_rails_ios(const struct conf *cf MKV_UNUSED)
{
	return (0);
}

void
mkv_rails_poll(struct loop *l MKV_UNUSED)
{
}

void
mkv_rails_flush(struct loop *l MKV_UNUSED)
{
}

int
mkv_rails_may_sleep(struct loop *l MKV_UNUSED)
{
	return (1);
}

void
mkv_rails_stop(struct loop *l MKV_UNUSED)
{
}

int
mkv_rails_busy(const struct loop *l MKV_UNUSED)
{
	return (0);
}

void
mkv_rails_close(struct loop *l MKV_UNUSED)
{
}

unsigned
mkv_rails_conns(const struct conf *cf MKV_UNUSED)
{
	return (0);
}

void
mkv_rails_told(struct conn *c MKV_UNUSED, const void *rails MKV_UNUSED, unsigned n MKV_UNUSED)
{
}

void
mkv_rails_want(struct server *s MKV_UNUSED)
{
}

struct conn *
mkv_rails_choose(struct server *s MKV_UNUSED, const struct leg *l MKV_UNUSED, int *err)
{
	*err = 0;
	return (NULL);
}

void
mkv_rails_dial_failed(struct conn *c MKV_UNUSED, int err MKV_UNUSED)
{
}

uint16_t
mkv_rails_number(const struct conn *c MKV_UNUSED)
{
	return (0);
}

int
mkv_rails_settle(struct mkv_client *c MKV_UNUSED, uint64_t until_ns MKV_UNUSED)
{
	return (0);
}

int
mkv_rail_create(struct conn *c MKV_UNUSED)
{
	return (0);
}

void
mkv_rail_destroy(struct conn *c MKV_UNUSED)
{
}

int
mkv_rail_is_off(const struct conn *c MKV_UNUSED)
{
	return (1);
}

void
mkv_rail_tether_up(struct conn *c MKV_UNUSED)
{
}

void
mkv_rail_tether_down(struct conn *c MKV_UNUSED, int err MKV_UNUSED)
{
}

int
mkv_rail_is_alone(const struct conn *c MKV_UNUSED)
{
	return (0);
}

void
mkv_rail_attach_body(struct conn *c MKV_UNUSED, void *attach MKV_UNUSED)
{
}

int
mkv_rail_attached(struct conn *c MKV_UNUSED, const struct slot *s MKV_UNUSED, const struct mkv_hdr *h MKV_UNUSED, const uint8_t *body MKV_UNUSED)
{
	return (MKV_E_PEER);
}

void
mkv_rail_send(struct conn *c MKV_UNUSED, struct leg *l MKV_UNUSED)
{
	MKV_ASSERT(!"no rail was chosen");
}

int
mkv_rail_detach(struct leg *l MKV_UNUSED)
{
	return (1);
}

void
mkv_rail_tx(struct rail *r MKV_UNUSED)
{
}

int
mkv_ctl_has_frames(const struct conn *c MKV_UNUSED)
{
	return (0);
}

uint32_t
mkv_ctl_frame(struct rail *r MKV_UNUSED, uint8_t *to MKV_UNUSED)
{
	return (0);
}

int
mkv_ctl_tether_frame(struct conn *c MKV_UNUSED, const struct mkv_hdr *h MKV_UNUSED, const uint8_t *body MKV_UNUSED, int *taken)
{
	*taken = 0;
	return (0);
}
