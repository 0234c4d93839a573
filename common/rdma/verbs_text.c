/*
 * What verbs say, in words: for sentences that a person reads. No state, any thread.
 */
#include "config.h"
#include "common/rdma/dev_priv.h"

#include <stdarg.h>
#include <stdio.h>

int
rdma_why(int e, char *why, size_t why_bytes, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (why != NULL && why_bytes > 0)
		vsnprintf(why, why_bytes, fmt, ap);
	va_end(ap);
	return (e);
}

const char *
rdma_wc_text(enum ibv_wc_status s)
{
	switch (s) {
	case IBV_WC_SUCCESS: return ("success");
	case IBV_WC_LOC_LEN_ERR: return ("a message is longer than the receive posted here");
	case IBV_WC_LOC_QP_OP_ERR: return ("the device could not carry out a request of ours, or the far end's message did not fit");
	case IBV_WC_LOC_PROT_ERR: return ("memory of ours is not registered for what was asked");
	case IBV_WC_WR_FLUSH_ERR: return ("the connection had already broken");
	case IBV_WC_LOC_ACCESS_ERR: return ("the far end wanted at memory that we do not give it");
	case IBV_WC_BAD_RESP_ERR: return ("the far end answered nonsense");
	case IBV_WC_REM_INV_REQ_ERR: return ("the far end calls the request invalid: a message longer than its receive, or an operation that it does not allow");
	case IBV_WC_REM_ACCESS_ERR: return ("the far end does not let us at that memory (wrong key or range, or it was withdrawn)");
	case IBV_WC_REM_OP_ERR: return ("the far end could not carry out the request: a message longer than its receive, or it broke");
	case IBV_WC_RETRY_EXC_ERR: return ("the far end does not answer (gone, its port is down, or packets are lost)");
	case IBV_WC_RNR_RETRY_EXC_ERR: return ("the far end posts no receives");
	case IBV_WC_REM_ABORT_ERR: return ("the far end aborted");
	case IBV_WC_FATAL_ERR: return ("the device failed");
	case IBV_WC_RESP_TIMEOUT_ERR: return ("the far end does not answer in time");
	default: return ("the device reports an error of its own");
	}
}
