/*
 * The platform's part of probe_priv.h where nothing is known about block devices: files only. Offline commands, their one thread.
 */
#include "config.h"

#include "worker/drive/probe_priv.h"

#include "common/base/assert.h"

void
probe_users(struct probe *p MKV_UNUSED, char *users, size_t n MKV_UNUSED)
{
	users[0] = '\0';
}

void
probe_signature(int fd MKV_UNUSED, char *text, size_t n MKV_UNUSED)
{
	text[0] = '\0';
}

void
probe_each(void (*fn)(void *arg, const char *path) MKV_UNUSED, void *arg MKV_UNUSED)
{
}

void
probe_reread(int fd MKV_UNUSED)
{
}

int
probe_rdma(unsigned n MKV_UNUSED, char *name MKV_UNUSED, size_t name_bytes MKV_UNUSED)
{
	return (0);
}
