/*
 * Errors: 0 or a negative MKV_E_*; the rows are in common/tbl/errors.def, miss reasons in reasons.def. Any process, any thread.
 */
#ifndef MKV_BASE_ERR_H
#define MKV_BASE_ERR_H

enum {
#define MKV_ERR(name, num, http, retry, exitcode, text)	MKV_E_##name = -(num),
#include "common/tbl/errors.def"
#undef MKV_ERR
	MKV_E_MAX_NUMBER = 27		/* checked against the table in err.c */
};

enum mkv_reason {
#define MKV_REASON(name, num, label, text)	MKV_REASON_##name = (num),
#include "common/tbl/reasons.def"
#undef MKV_REASON
	MKV_REASON_COUNT
};

const char *	mkv_err(int err);		/* text; "unknown error" for foreign numbers; never NULL */
const char *	mkv_err_name(int err);		/* "NOSPACE"; "UNKNOWN" */
int		mkv_err_retry(int err);		/* 1 if the table says retry */
int		mkv_err_exit(int err);		/* exit code of the command line */
int		mkv_err_known(int err);		/* 1 if err is 0 or a row of the table: for numbers that came by the wire */
int		mkv_err_from_errno(int e);	/* positive errno value -> MKV_E_*; never 0 */
const char *	mkv_reason_label(unsigned reason);	/* "evicted"; "unknown" */
const char *	mkv_reason_text(unsigned reason);

#endif
