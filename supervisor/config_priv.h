/*
 * Configuration: command line, then MEMKV_* of the environment, then the file, then the default; every complaint with its place.
 */
#ifndef MKV_SUPERVISOR_CONFIG_PRIV_H
#define MKV_SUPERVISOR_CONFIG_PRIV_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/params.h"

#define CONFIG_FRONTS_MAX	64u
#define CONFIG_RAILS_MAX	11u	/* as many as a HELLO reply lists (MKV_WIRE_RAILS_MAX) */
#define CONFIG_DEVICE_BYTES	32u	/* of an RDMA device's name, with the terminator */
#define CONFIG_DRIVES_MAX	MKV_PARAM_DRIVES_MAX
#define CONFIG_SETS_MAX		256u
#define CONFIG_ERRORS_MAX	64u	/* told in one go; the rest is counted */
#define CONFIG_NOTES_MAX	16u
#define CONFIG_KEYS_MAX		256u	/* rows of the table */
#define CONFIG_PATH_MAX		512u
#define CONFIG_ADDR_TEXT	64u	/* "[host]:port" */
#define CONFIG_FILE_DEFAULT	"/etc/memkv/config.yaml"

struct config_args {				/* the command line */
	const char	*file;			/* --config; NULL: MEMKV_CONFIG, then CONFIG_FILE_DEFAULT if it is there */
	const char	*sets[CONFIG_SETS_MAX];	/* --set: "section.key=value" */
	unsigned	n_sets;
	int		ready_fd;		/* -1: none */
	int		json;			/* what is shown, for programs */
};

struct config_errors {
	char		*line[CONFIG_ERRORS_MAX];
	unsigned	n, more;
};

struct config_drive {
	char		media[CONFIG_PATH_MAX];	/* absolute path, or the arena's name */
	uint64_t	max_size;		/* 0: all of a block device */
	double		weight;			/* factor on the capacity */
};

/* What the parameters mean for the supervisor, once they were checked against each other. */
struct config_derived {
	char		data_dir[CONFIG_PATH_MAX];
	char		control_path[CONFIG_PATH_MAX];
	struct mkv_param_addr data, admin;	/* port 0: any */
	int		loopback;		/* the data address is */
	int		explicit_key;
	char		local_path[CONFIG_PATH_MAX];	/* "": no socket for clients on this host */
	uint32_t	shard_count, rail_count;	/* fronts for TCP; for RDMA devices: params.rdma_devices, in that order */
	uint32_t	local_count;		/* for clients on this host: 0 or 1 */
	uint32_t	front_count;		/* of all kinds, in this order */
	uint32_t	drive_count;
	uint64_t	stage_data_bytes;	/* of one front */
	struct config_drive drive[CONFIG_DRIVES_MAX];
};

/* A variable of the environment that looks like a key of ours and is none. */
struct config_stray {
	char		name[MKV_PARAM_KEY_BYTES];	/* cut if it is longer */
	const struct mkv_param_row *near;	/* NULL: none comes close */
};

struct config {
	struct mkv_params params;		/* network_auth_key only until keys_set(); then wiped */
	struct config_derived derived;
	char		file[CONFIG_PATH_MAX];	/* what was read; "": none */
	const struct mkv_param_row *note[CONFIG_NOTES_MAX];	/* keys that were set and have no effect */
	unsigned	n_notes;
	struct config_stray stray[CONFIG_NOTES_MAX];
	unsigned	n_stray;
	uint8_t		bad[CONFIG_KEYS_MAX];	/* by row: a value was refused, so what the key is now says nothing */
	int		unread;			/* a file was not read to its end */
};

/* 0; MKV_E_CONFIG and the errors (config_errors_free()). c is complete or to be thrown away (config_wipe() in both cases). */
int	config_load(struct config *c, const struct config_args *a, struct config_errors *e);
void	config_wipe(struct config *c);
/* "MEMKV_STORAGE_MODEE: ..." in words, for who looks at a terminal. */
void	config_stray_text(const struct config_stray *v, char *dst, size_t dst_bytes);
void	config_error(struct config_errors *e, const char *fmt, ...) MKV_PRINTF(2, 3);
void	config_errors_free(struct config_errors *e);

enum config_run { CONFIG_RUN, CONFIG_SHOW_DEFAULTS, CONFIG_SHOW_MARKDOWN, CONFIG_CHECK, CONFIG_HELP, CONFIG_VERSION };
/* Reads argv, which must stay. 0, or MKV_E_CONFIG with words in why. */
int	config_parse_args(struct config_args *a, int argc, char *const argv[], enum config_run *run, char *why, size_t why_bytes);
void	config_show_help(FILE *out);
void	config_show_defaults(FILE *out);	/* as a configuration file with comments */
void	config_show_markdown(FILE *out);
/*
 * config_json.c: all that is known of the configuration, and of what is wrong with it, as one object in a line.
 * memory: with errors the one of them that is about memory, else in which pages what would lie; "": nothing is said. 0 or -1: the output failed.
 */
int	config_show_json(FILE *out, const struct config *c, const struct config_errors *e, const char *memory);

/* config_yaml.c: what it finds; key is "storage.eviction.high", where is "FILE:LINE" or what the caller said. */
struct config_sink {
	void		(*set)(void *arg, const char *where, const char *key, const char *value);
	void		(*drives_begin)(void *arg, const char *where);
	/* Each text is NULL if it is not given. */
	void		(*drive)(void *arg, const char *where, const char *media, const char *max_size, const char *weight);
	/* The reader complained of this key itself; "": of the text, and nothing behind it is read. */
	void		(*bad)(void *arg, const char *key);
	void		*arg;
	struct config_errors *errors;
};
void	config_yaml_file(const char *name, FILE *f, const struct config_sink *sink);
/* The value of --set storage.drives=... or of its variable: a YAML flow sequence of mappings. */
void	config_yaml_drives(const char *where, const char *text, const struct config_sink *sink);

/* config_derive.c: fills derived; what does not fit together becomes an error, unless a key that it hangs on was refused already. */
void	config_derive(struct config *c, struct config_errors *e);
int	config_is_loopback(const char *host);
uint64_t config_drive_least(const struct mkv_params *p);	/* bytes of the smallest file or arena that is taken */
/* "127.0.0.1:9900", "[::1]:9900". Returns dst. */
char *	config_addr_text(char dst[CONFIG_ADDR_TEXT], const char *host, uint16_t port);

#endif
