/*
 * Loading libmemkv-rdma.so, and with it rdma-core, when RDMA is wanted: any process, any thread; once, and for the rest of the process.
 *
 * What can fail is not ours: a package that is missing. So the sentence names it.
 */
#include "config.h"
#include "common/rdma/verbs.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOAD_NAME	"libmemkv-rdma.so.0"
#define LOAD_INSTALLED	MKV_LIBDIR "/" LOAD_NAME

static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;
static const struct mkv_verbs *load_table;

/* What the loader said, in terms of packages. */
static void
load_explain(const char *said, char *why, size_t why_bytes)
{
	if (strstr(said, "libibverbs.so") != NULL)
		snprintf(why, why_bytes, "RDMA needs libibverbs, which is missing or too old here (Debian: libibverbs1 and ibverbs-providers, Fedora: libibverbs)");
	else if (strstr(said, "libmlx5.so") != NULL)
		snprintf(why, why_bytes, "RDMA needs libmlx5, which is missing or too old here (Debian: ibverbs-providers, Fedora: libibverbs)");
	else if (strstr(said, LOAD_NAME ": cannot open") != NULL)
		snprintf(why, why_bytes, "memkv's RDMA module %s is not installed (it is built where libibverbs-dev or rdma-core-devel is)", LOAD_NAME);
	else
		snprintf(why, why_bytes, "memkv's RDMA module %s cannot be loaded: %s", LOAD_NAME, said);
}

static const struct mkv_verbs *
load_module(const char *path, char *why, size_t why_bytes)
{
	const struct mkv_verbs *v;
	const char *said;
	void *h;

	if ((h = dlopen(path, RTLD_NOW | RTLD_LOCAL)) == NULL) {
		said = dlerror();
		load_explain(said != NULL ? said : "unknown error", why, why_bytes);
		return (NULL);
	}
	/* Never closed, also not when it does not fit: rdma-core has started by then. */
	if ((v = dlsym(h, "mkv_verbs_module")) == NULL || v->abi != MKV_VERBS_ABI) {
		snprintf(why, why_bytes, "memkv's RDMA module %s is of another version of memkv than this program: install both from one build", path);
		return (NULL);
	}
	return (v);
}

const struct mkv_verbs *
mkv_verbs_load(char *why, size_t why_bytes)
{
	const struct mkv_verbs *v;

	pthread_mutex_lock(&load_lock);
	if ((v = load_table) == NULL)
		v = load_module(access(LOAD_INSTALLED, F_OK) == 0 ? LOAD_INSTALLED : LOAD_NAME, why, why_bytes);
	load_table = v;
	pthread_mutex_unlock(&load_lock);
	return (v);
}
