/*
 * The pool map: which drives a server has, and which of them is the home of a key. The same at the supervisor, which decides it, at the fronts, which go
 * by it, and at the drives, which keep it. docs/internals/pool.md says who does what when it changes.
 */
#ifndef MKV_BASE_PLACE_H
#define MKV_BASE_PLACE_H

#include <stdint.h>

#define MKV_MAP_DRIVES_MAX	64u

/* As in control.proto. RESTARTING is never kept: it is ONLINE whose process is on its way. */
enum mkv_drive_state {
	MKV_DRIVE_ABSENT, MKV_DRIVE_ONLINE, MKV_DRIVE_RESTARTING, MKV_DRIVE_FAILED, MKV_DRIVE_DRAINING, MKV_DRIVE_REMOVED,
	MKV_DRIVE_STATES
};

struct mkv_map_row {
	uint8_t		uuid[16];
	uint8_t		known;			/* uuid and weight are */
	uint8_t		state;			/* enum mkv_drive_state */
	double		weight;			/* capacity, times its factor */
	double		former;			/* weight in the placement before the present one; 0: it took no part */
	uint64_t	since;			/* version with which it went out of service */
};

struct mkv_map {
	uint64_t	version;		/* 0: none */
	uint32_t	n;			/* rows; a row's number is the drive's for ever */
	struct mkv_map_row row[MKV_MAP_DRIVES_MAX];
};

/* Drives that share keys among them (docs/internals/placement.md). */
struct mkv_place {
	unsigned	n;
	uint64_t	hash[MKV_MAP_DRIVES_MAX];
	double		weight[MKV_MAP_DRIVES_MAX];
	uint8_t		idx[MKV_MAP_DRIVES_MAX];
};

const char *	mkv_drive_state_name(unsigned state);	/* "online" */
/* Gone without a word: it may come back, and then it does not know what was written meanwhile. */
static inline int
mkv_drive_away(unsigned state)
{
	return (state == MKV_DRIVE_FAILED || state == MKV_DRIVE_ABSENT);
}

/* Takes new keys. */
static inline int
mkv_drive_places(unsigned state)
{
	return (state == MKV_DRIVE_ONLINE || state == MKV_DRIVE_RESTARTING);
}

void		mkv_place_add(struct mkv_place *p, uint64_t uuid_hash, double weight, unsigned idx);
/* The drive, -1: none. */
int		mkv_place_home(const struct mkv_place *p, uint64_t key_hash);
/* Who takes part by the map; former: in the placement before. */
void		mkv_place_of(struct mkv_place *p, const struct mkv_map *m, int former);

#endif
