/*
 * Configuration: every key of common/tbl/params.def as a field, with its type, range and help. Any process, any thread; no state.
 *
 * The supervisor fills a struct mkv_params from defaults, file, environment and command line; children get (key, value text) pairs and use the
 * same mkv_params_set(). What several keys must satisfy together is the supervisor's business. Texts are foreign: nothing here asserts on them.
 */
#ifndef MKV_BASE_PARAMS_H
#define MKV_BASE_PARAMS_H

#include <stddef.h>
#include <stdint.h>

#define MKV_PARAM_STR_BYTES	256u		/* with the terminator */
#define MKV_PARAM_KEY_BYTES	64u
#define MKV_PARAM_SECRET_BYTES	65u		/* 64 hex digits */
#define MKV_PARAM_ITEMS_MAX	16u		/* of a LIST */
#define MKV_PARAM_ITEM_BYTES	64u
#define MKV_PARAM_DRIVES_MAX	64u
#define MKV_PARAM_TEXT_BYTES	2048u		/* enough for the text of any value */
#define MKV_PARAM_WHY_BYTES	512u		/* enough for any complaint */

enum mkv_param_type {
	MKV_PARAM_U32, MKV_PARAM_U64, MKV_PARAM_SIZE, MKV_PARAM_POW2, MKV_PARAM_DURATION, MKV_PARAM_BOOL, MKV_PARAM_AUTO, MKV_PARAM_ENUM,
	MKV_PARAM_STR, MKV_PARAM_ADDR, MKV_PARAM_SECRET, MKV_PARAM_LIST, MKV_PARAM_DRIVES
};
enum mkv_param_scope { MKV_PARAM_RESTART, MKV_PARAM_RELOAD, MKV_PARAM_IGNORED };

/* Values of the ENUM fields, in the order of their rows. log.level is enum mkv_log_level. */
enum { MKV_NUMA_AUTO, MKV_NUMA_OFF };
enum { MKV_LOG_FORMAT_LOGFMT, MKV_LOG_FORMAT_JSON };
enum { MKV_HUGEPAGES_AUTO, MKV_HUGEPAGES_REQUIRE, MKV_HUGEPAGES_OFF };
enum { MKV_HUGEPAGE_AUTO, MKV_HUGEPAGE_2M, MKV_HUGEPAGE_1G };
enum { MKV_VERIFY_PUT_AUTO, MKV_VERIFY_PUT_ON, MKV_VERIFY_PUT_OFF };
enum { MKV_STORAGE_DIRECT, MKV_STORAGE_FILE, MKV_STORAGE_MEMORY };
enum { MKV_STORAGE_IO_AUTO, MKV_STORAGE_IO_URING, MKV_STORAGE_IO_THREADS };
enum { MKV_STORAGE_TRIM_AUTO, MKV_STORAGE_TRIM_OFF, MKV_STORAGE_TRIM_PUNCH };
enum { MKV_DURABILITY_COMMIT, MKV_DURABILITY_ACCEPTED };

struct mkv_param_addr {
	char		host[46];		/* numeric, no brackets; "": not set */
	uint16_t	port;			/* 0: any */
};

struct mkv_param_list {
	unsigned	count;
	char		item[MKV_PARAM_ITEMS_MAX][MKV_PARAM_ITEM_BYTES];
};

struct mkv_drive_conf {
	char		media[MKV_PARAM_STR_BYTES];
	uint64_t	max_size;		/* 0: not given */
	double		weight;			/* factor on the capacity in placement */
};

/* How a field of each type is declared. */
#define MKV_PARAM_FIELD_U32(f)		uint32_t f;
#define MKV_PARAM_FIELD_U64(f)		uint64_t f;
#define MKV_PARAM_FIELD_SIZE(f)		uint64_t f;		/* bytes */
#define MKV_PARAM_FIELD_POW2(f)		uint64_t f;		/* bytes */
#define MKV_PARAM_FIELD_DURATION(f)	uint64_t f;		/* microseconds */
#define MKV_PARAM_FIELD_BOOL(f)		int f;
#define MKV_PARAM_FIELD_AUTO(f)		int32_t f;		/* -1: auto */
#define MKV_PARAM_FIELD_ENUM(f)		int f;
#define MKV_PARAM_FIELD_STR(f)		char f[MKV_PARAM_STR_BYTES];
#define MKV_PARAM_FIELD_ADDR(f)		struct mkv_param_addr f;
#define MKV_PARAM_FIELD_SECRET(f)	char f[MKV_PARAM_SECRET_BYTES];
#define MKV_PARAM_FIELD_LIST(f)		struct mkv_param_list f;
#define MKV_PARAM_FIELD_DRIVES(f)	struct mkv_drive_conf f[MKV_PARAM_DRIVES_MAX]; unsigned n_##f;

struct mkv_params {
#define MKV_PARAM(key, type, field, def, min, max, unit, scope, help)	MKV_PARAM_FIELD_##type(field)
#include "common/tbl/params.def"
#undef MKV_PARAM
};

struct mkv_param_row {
	const char	*key;
	enum mkv_param_type type;
	size_t		off;			/* of the field in struct mkv_params */
	const char	*def, *min, *max, *unit;
	enum mkv_param_scope scope;
	const char	*help;
};

const struct mkv_param_row *mkv_param_rows(void);
unsigned	mkv_param_count(void);
const struct mkv_param_row *mkv_param_find(const char *key);		/* NULL if there is none */
/* The known key that is most like this one; NULL if none comes close. */
const struct mkv_param_row *mkv_param_nearest(const char *key);
/* What a row accepts, in words: "a whole number from 1 to 4096 (requests)". Returns dst. */
char *		mkv_param_allowed(const struct mkv_param_row *row, char *dst, size_t dst_bytes);

/* Variable of the environment: "network.auth_key" -> MEMKV_NETWORK_AUTH_KEY. Returns dst. */
char *		mkv_params_env_name(const char *key, char *dst, size_t dst_bytes);
/* The short name that users know besides (MEMKV_AUTH_KEY); NULL if the key has none. The long one wins. */
const char *	mkv_params_env_alias(const char *key);

void		mkv_params_defaults(struct mkv_params *p);
/*
 * Set one key from its text.
 *
 * why   on failure a sentence: the key, the value (never of a SECRET), what is allowed, and for an unknown key the nearest known one.
 * Returns: 0; MKV_E_CONFIG, p is then unchanged. storage.drives is refused here: mkv_params_add_drive().
 * rdma.device also becomes the only item of rdma.devices unless that was set to something else.
 */
int		mkv_params_set(struct mkv_params *p, const char *key, const char *value, char *why, size_t why_bytes);
/* One more drive. max_size: text of a size, NULL or "" if not given; weight: text of a number, likewise (1). 0 or MKV_E_CONFIG and why. */
int		mkv_params_add_drive(struct mkv_params *p, const char *media, const char *max_size, const char *weight, char *why, size_t why_bytes);
/*
 * The text that mkv_params_set() would take for the present value.
 * Returns: 0; MKV_E_DENIED for a SECRET; MKV_E_UNSUPPORTED for DRIVES; MKV_E_TOOBIG if dst is too small.
 */
int		mkv_params_get_text(const struct mkv_params *p, const struct mkv_param_row *row, char *dst, size_t dst_bytes);
void		mkv_params_wipe(struct mkv_params *p);			/* forgets the secrets */

#endif
