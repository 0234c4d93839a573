/*
 * Errors and miss reasons: the rows of common/tbl/errors.def and reasons.def as functions.
 *
 * Any process, any thread; constant data only. Numbers may be foreign (they come by the wire): every lookup is bounded.
 */
#include "config.h"
#include "common/base/err.h"

#include <errno.h>
#include <stddef.h>

#include "common/base/assert.h"

struct err_row {
	const char	*name, *text;
	int		retry, exit_code;
};

static const struct err_row err_table[] = {
	[0] = { "OK", "no error", 0, 0 },
#define MKV_ERR(name, num, http, retry, exitcode, text)	[num] = { #name, text, retry, exitcode },
#include "common/tbl/errors.def"
#undef MKV_ERR
};
_Static_assert(MKV_ARRAY_LEN(err_table) == MKV_E_MAX_NUMBER + 1, "MKV_E_MAX_NUMBER is the last row of errors.def");

struct reason_row {
	const char	*label, *text;
};

static const struct reason_row reason_table[] = {
#define MKV_REASON(name, num, label, text)	[num] = { label, text },
#include "common/tbl/reasons.def"
#undef MKV_REASON
};
_Static_assert(MKV_ARRAY_LEN(reason_table) == MKV_REASON_COUNT, "reasons are numbered without gaps, the last row last");

static const struct {
	int	from, to;
} errno_table[] = {
	{ EINVAL, MKV_E_INVAL },
	{ ENOMEM, MKV_E_NOMEM }, { ENOBUFS, MKV_E_NOMEM },
	{ EIO, MKV_E_IO }, { ENXIO, MKV_E_IO }, { ENODEV, MKV_E_IO },
	{ EAGAIN, MKV_E_AGAIN }, { EINTR, MKV_E_AGAIN },
	{ ETIMEDOUT, MKV_E_TIMEOUT },
	{ ECONNREFUSED, MKV_E_UNREACHABLE }, { EHOSTUNREACH, MKV_E_UNREACHABLE }, { ENETUNREACH, MKV_E_UNREACHABLE },
	{ EHOSTDOWN, MKV_E_UNREACHABLE }, { ENETDOWN, MKV_E_UNREACHABLE }, { EADDRNOTAVAIL, MKV_E_UNREACHABLE },
	{ ENOENT, MKV_E_MISS },
	{ EEXIST, MKV_E_EXISTS },
	{ E2BIG, MKV_E_TOOBIG }, { EFBIG, MKV_E_TOOBIG }, { EMSGSIZE, MKV_E_TOOBIG },
	{ EBADMSG, MKV_E_CORRUPT }, { EILSEQ, MKV_E_CORRUPT },
	{ ENOSPC, MKV_E_NOSPACE }, { EDQUOT, MKV_E_NOSPACE },
	{ EBUSY, MKV_E_BUSY },
	{ EACCES, MKV_E_DENIED }, { EPERM, MKV_E_DENIED },
	{ EPROTO, MKV_E_PROTO },
	{ ENOSYS, MKV_E_UNSUPPORTED }, { EOPNOTSUPP, MKV_E_UNSUPPORTED }, { ENOTSUP, MKV_E_UNSUPPORTED },
	{ EAFNOSUPPORT, MKV_E_UNSUPPORTED }, { EPROTONOSUPPORT, MKV_E_UNSUPPORTED },
	{ EPIPE, MKV_E_CLOSED }, { ECONNRESET, MKV_E_CLOSED }, { ECONNABORTED, MKV_E_CLOSED },
	{ ENOTCONN, MKV_E_CLOSED }, { ESHUTDOWN, MKV_E_CLOSED },
	{ ECANCELED, MKV_E_CANCELLED },
	{ EROFS, MKV_E_READONLY },
};

/* The row of an error number; NULL for numbers that no table row has. */
static const struct err_row *
err_row(int err)
{
	if (err > 0 || err < -MKV_E_MAX_NUMBER || err_table[-err].name == NULL)
		return (NULL);
	return (&err_table[-err]);
}

const char *
mkv_err(int err)
{
	const struct err_row *row = err_row(err);

	return (row != NULL ? row->text : "unknown error");
}

const char *
mkv_err_name(int err)
{
	const struct err_row *row = err_row(err);

	return (row != NULL ? row->name : "UNKNOWN");
}

int
mkv_err_retry(int err)
{
	const struct err_row *row = err_row(err);

	return (row != NULL && row->retry);
}

int
mkv_err_exit(int err)
{
	const struct err_row *row = err_row(err);

	return (row != NULL ? row->exit_code : 1);
}

int
mkv_err_known(int err)
{
	return (err_row(err) != NULL);
}

int
mkv_err_from_errno(int e)
{
	for (size_t i = 0; i < MKV_ARRAY_LEN(errno_table); i++)
		if (errno_table[i].from == e)
			return (errno_table[i].to);
	return (MKV_E_SYSTEM);
}

const char *
mkv_reason_label(unsigned reason)
{
	return (reason < MKV_REASON_COUNT ? reason_table[reason].label : "unknown");
}

const char *
mkv_reason_text(unsigned reason)
{
	return (reason < MKV_REASON_COUNT ? reason_table[reason].text : "unknown reason");
}
