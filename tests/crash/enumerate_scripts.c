/*
 * The histories of the crash enumeration (enumerate.h). Each is about one matter, so short that all of what a crash could leave of it can be tried.
 */
#include "config.h"

#include "tests/crash/enumerate.h"

#define PIN		MKV_DRV_F_PIN
#define IF_ABSENT	MKV_DRV_F_IF_ABSENT
#define ACCEPTED	MKV_DRV_F_ACCEPTED
#define VERIFIED	MKV_DRV_F_VERIFIED

static const struct step overwrite[] = {
	{ S_PUT, 0, 5000, 0 }, { S_PUT, 1, 70000, 0 }, { S_PUT, 0, 9000, 0 }, { S_PUT, 0, 100, 0 }, { S_WAIT, 0, 30, 0 },
	{ S_PUT, 1, 65536, 0 }, { S_PUT, 1, 20000, ASYNC }, { S_PUT, 1, 9000, ASYNC }, { S_JOIN, 0, 0, 0 }, { S_PUT, 0, 4096, 0 }, { S_END, 0, 0, 0 },
};

static const struct step delete[] = {
	{ S_PUT, 0, 5000, 0 }, { S_DELETE, 0, 0, 0 }, { S_PUT, 0, 3000, 0 }, { S_PUT, 1, 9000, 0 },
	{ S_DELETE, 1, 0, ASYNC }, { S_PUT, 1, 8000, ASYNC }, { S_JOIN, 0, 0, 0 },
	{ S_PUT, 2, 8000, ASYNC }, { S_DELETE, 2, 0, ASYNC }, { S_DELETE, 0, 0, ASYNC }, { S_JOIN, 0, 0, 0 }, { S_DELETE, 3, 0, 0 },
	{ S_PUT, 1, 100, IF_ABSENT }, { S_DELETE, 1, 0, 0 }, { S_PUT, 1, 100, IF_ABSENT },
	{ S_PUT, 4, 5000, IF_ABSENT | ASYNC }, { S_PUT, 4, 6000, IF_ABSENT | ASYNC }, { S_JOIN, 0, 0, 0 }, { S_END, 0, 0, 0 },
};

/* Several answers by one flush, records of a block and more, while the next group gathers. */
static const struct step group[] = {
	{ S_PUT, 0, 5000, ASYNC }, { S_PUT, 1, 9000, ASYNC }, { S_PUT, 2, 70000, ASYNC }, { S_PUT, 3, 100, ASYNC }, { S_PUT, 6, 4096, ASYNC },
	{ S_JOIN, 0, 0, 0 },
	{ S_PUT, 4, 300, ASYNC }, { S_PUT, 5, 300, ASYNC }, { S_DELETE, 0, 0, ASYNC }, { S_TOUCH, 1, 0, TTL | ASYNC }, { S_PUT, 2, 9000, ASYNC },
	{ S_DELETE, 3, 0, ASYNC }, { S_PUT, 6, 100, ASYNC }, { S_PUT, 3, 200, ASYNC }, { S_JOIN, 0, 0, 0 },
	{ S_PUT, 0, 40, ASYNC }, { S_PUT, 7, 40, ASYNC }, { S_PUT, 8, 40, ASYNC }, { S_PUT, 9, 40, ASYNC }, { S_JOIN, 0, 0, 0 }, { S_END, 0, 0, 0 },
};

/* Both areas, records on all sides of the scan, an orderly end, a power loss, and crashes of the recovery from it. */
static const struct step checkpoint[] = {
	{ S_PUT, 0, 5000, 0 }, { S_PUT, 1, 9000, 0 }, { S_CHECKPOINT, 0, 0, 0 }, { S_PUT, 0, 100, 0 }, { S_DELETE, 1, 0, 0 }, { S_PUT, 2, 3000, 0 },
	{ S_PUT, 1, 4000, ASYNC }, { S_CHECKPOINT, 0, 0, ASYNC }, { S_DELETE, 2, 0, ASYNC }, { S_TURNS, 0, 2, 0 }, { S_PUT, 3, 200, ASYNC },
	{ S_JOIN, 0, 0, 0 }, { S_CHECKPOINT, 0, 0, 0 }, { S_PUT, 2, 5000, 0 }, { S_RESTART, 0, 0, 0 }, { S_PUT, 0, 3000, 0 }, { S_DELETE, 3, 0, 0 },
	{ S_PUT, 1, 100, ASYNC }, { S_PUT, 4, 70000, ASYNC }, { S_TURNS, 0, 3, 0 }, { S_CUT, 0, SIM_SOME, 0 }, { S_PUT, 3, 100, 0 },
	{ S_CHECKPOINT, 0, 0, 0 }, { S_DELETE, 0, 0, 0 }, { S_END, 0, 0, 0 },
};

static const struct step purge[] = {
	{ S_PUT, 6, 5000, 0 }, { S_PUT, 7, 100, 0 }, { S_PUT, 0, 3000, 0 }, { S_PURGE, 1, 0, 0 }, { S_PUT, 6, 2000, 0 }, { S_PUT, 8, 200, 0 },
	{ S_PURGE, 1, 0, ASYNC }, { S_PUT, 7, 4000, ASYNC }, { S_DELETE, 8, 0, ASYNC }, { S_JOIN, 0, 0, 0 }, { S_CHECKPOINT, 0, 0, 0 },
	{ S_PUT, 6, 9000, 0 }, { S_PURGE, 0, 0, 0 }, { S_PUT, 0, 50, 0 }, { S_PURGE, 1, 0, 0 }, { S_CHECKPOINT, 0, 0, 0 }, { S_PUT, 7, 50, 0 },
	{ S_END, 0, 0, 0 },
};

static const struct step ttl_pin[] = {
	{ S_PUT, 0, 5000, TTL }, { S_PUT, 1, 3000, PIN }, { S_PUT, 2, 100, 0 }, { S_TOUCH, 2, 0, TTL }, { S_TOUCH, 1, 0, TTL | PIN },
	{ S_PUT, 3, 2000, PIN }, { S_PUT, 3, 1000, 0 }, { S_TOUCH, 3, 0, PIN }, { S_WAIT, 0, 20000, 0 }, { S_TOUCH, 0, 0, TTL },
	{ S_WAIT, 0, 20000, 0 }, { S_PUT, 2, 300, 0 }, { S_CHECKPOINT, 0, 0, 0 }, { S_TOUCH, 2, 0, TTL | PIN }, { S_WAIT, 0, 60000, 0 },
	{ S_PUT, 0, 100, 0 }, { S_PUT, 2, 100, TTL }, { S_END, 0, 0, 0 },
};

/* Puts of what is there, before their bytes come; deletes, puts and a purge that meet them. */
static const struct step same[] = {
	{ S_PUT, 0, 5000, VERIFIED }, { S_SAME, 0, 0, TTL }, { S_SAME, 0, 0, 0 }, { S_SAME, 0, 0, 0 }, { S_PUT, 1, 3000, VERIFIED | TTL }, { S_SAME, 1, 0, PIN },
	{ S_SAME, 0, 0, TTL | ASYNC }, { S_DELETE, 0, 0, ASYNC }, { S_JOIN, 0, 0, 0 },
	{ S_SAME, 1, 0, TTL | ASYNC }, { S_PUT, 1, 9000, VERIFIED | ASYNC }, { S_JOIN, 0, 0, 0 }, { S_SAME, 1, 0, TTL }, { S_CHECKPOINT, 0, 0, 0 },
	{ S_PUT, 6, 2000, VERIFIED }, { S_SAME, 6, 0, TTL | ASYNC }, { S_PURGE, 1, 0, ASYNC }, { S_JOIN, 0, 0, 0 },
	{ S_PUT, 2, 4000, VERIFIED | ACCEPTED }, { S_SYNC, 0, 0, 0 }, { S_SAME, 2, 0, PIN | ACCEPTED }, { S_PUT, 3, 100, 0 }, { S_SAME, 3, 0, TTL },
	{ S_WAIT, 0, 20000, 0 }, { S_CUT, 0, SIM_DROP, 0 }, { S_SAME, 2, 0, TTL }, { S_WAIT, 0, 40000, 0 }, { S_END, 0, 0, 0 },
};

static const struct step accepted[] = {
	{ S_PUT, 0, 5000, ACCEPTED }, { S_PUT, 1, 9000, ACCEPTED }, { S_PUT, 0, 100, ACCEPTED }, { S_SYNC, 0, 0, 0 }, { S_PUT, 0, 3000, ACCEPTED },
	{ S_PUT, 2, 4000, 0 }, { S_PUT, 1, 200, ACCEPTED }, { S_DELETE, 1, 0, 0 }, { S_PUT, 1, 5000, ACCEPTED }, { S_CHECKPOINT, 0, 0, 0 },
	{ S_PUT, 0, 200, ACCEPTED }, { S_PUT, 3, 70000, ACCEPTED }, { S_WAIT, 0, 2000, 0 }, { S_PUT, 2, 300, ACCEPTED }, { S_RESTART, 0, 0, 0 },
	{ S_END, 0, 0, 0 },
};

/* Space for five of them. */
static const struct step evict[] = {
	{ S_QUIET, 0, 1, 0 }, { S_PUT, 0, 190000, PIN }, { S_PUT, 1, 190000, 0 }, { S_PUT, 2, 190000, 0 }, { S_PUT, 3, 190000, 0 },
	{ S_PUT, 4, 190000, 0 }, { S_QUIET, 0, 0, 0 }, { S_PUT, 5, 190000, 0 }, { S_PUT, 6, 190000, ASYNC }, { S_PUT, 7, 100000, ASYNC },
	{ S_JOIN, 0, 0, 0 }, { S_CHECKPOINT, 0, 0, 0 }, { S_PUT, 1, 190000, 0 }, { S_END, 0, 0, 0 },
};

/* Three extents are full, all happens in the fourth, so what is put lands where something was discarded. */
static const struct step trim[] = {
	{ S_QUIET, 0, 1, 0 }, { S_PUT, 9, 262144, 0 }, { S_PUT, 10, 262144, 0 }, { S_PUT, 11, 262144, 0 }, { S_PUT, 0, 90000, 0 }, { S_PUT, 1, 90000, 0 },
	{ S_PUT, 2, 60000, 0 }, { S_WAIT, 0, 200, 0 }, { S_QUIET, 0, 0, 0 },
	{ S_DELETE, 1, 0, 0 }, { S_WAIT, 0, 10, 0 }, { S_PUT, 3, 80000, 0 }, { S_CHECKPOINT, 0, 0, 0 },
	{ S_HOLD_DISCARD, 0, 1, 0 }, { S_DELETE, 0, 0, 0 }, { S_WAIT, 0, 10, 0 }, { S_PUT, 4, 50000, 0 }, { S_HOLD_DISCARD, 0, 0, 0 },
	{ S_WAIT, 0, 10, 0 }, { S_PUT, 5, 30000, 0 }, { S_DELETE, 4, 0, 0 }, { S_HOLD_READS, 0, 1, 0 }, { S_GET, 3, 0, ASYNC },
	{ S_TURNS, 0, 3, 0 }, { S_DELETE, 3, 0, ASYNC }, { S_WAIT, 0, 6000, 0 }, { S_HOLD_READS, 0, 0, 0 }, { S_JOIN, 0, 0, 0 },
	{ S_HOLD_DISCARD, 0, 1, 0 }, { S_WAIT, 0, 10, 0 }, { S_CUT, 0, SIM_TEAR, 0 }, { S_PUT, 4, 90000, 0 }, { S_WAIT, 0, 10, 0 }, { S_END, 0, 0, 0 },
};

/* Groups that end at, and go over, the end of the ring. */
static const struct step wrap[] = {
	{ S_QUIET, 0, 1, 0 }, { S_PUT, 1, 5000, 0 }, { S_AGE, 0, 126, 0 }, { S_QUIET, 0, 0, 0 }, { S_PUT, 0, 5000, 0 },
	{ S_PUT, 0, 200, ASYNC }, { S_PUT, 1, 200, ASYNC }, { S_PUT, 2, 200, ASYNC }, { S_PUT, 3, 200, ASYNC }, { S_PUT, 4, 200, ASYNC },
	{ S_PUT, 5, 200, ASYNC }, { S_PUT, 6, 200, ASYNC }, { S_PUT, 7, 200, ASYNC }, { S_PUT, 8, 200, ASYNC }, { S_PUT, 9, 200, ASYNC },
	{ S_JOIN, 0, 0, 0 }, { S_DELETE, 1, 0, 0 }, { S_CHECKPOINT, 0, 0, 0 }, { S_DELETE, 0, 0, 0 }, { S_END, 0, 0, 0 },
};

const struct script scripts[] = {
	{ .name = "overwrite", .step = overwrite },
	{ .name = "delete", .step = delete },
	{ .name = "group", .step = group },
	{ .name = "checkpoint", .step = checkpoint, .ckpts = 4 },
	{ .name = "purge", .step = purge, .ckpts = 2 },
	{ .name = "ttl-pin", .step = ttl_pin, .ckpts = 1 },
	{ .name = "same", .step = same, .ckpts = 1, .sames = 8 },
	{ .name = "accepted", .step = accepted, .ckpts = 2 },
	{ .name = "evict", .step = evict, .evict = 1, .evicted = 2, .ckpts = 1 },
	{ .name = "trim", .step = trim, .trim = 1, .discards = 4, .reused = 3, .ckpts = 1 },
	{ .name = "wrap", .step = wrap, .ckpts = 1 },
	{ .name = NULL },
};
