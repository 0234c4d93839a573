/*
 * Numbers to words. Any thread; no state; the tables are those of common/base/err.c.
 */
#include "config.h"
#include "clients/lib/client_priv.h"

_Static_assert((int)MKV_ERR_INVAL == (int)MKV_E_INVAL && (int)MKV_ERR_TIMEOUT == (int)MKV_E_TIMEOUT, "one numbering");
_Static_assert((int)MKV_ERR_MISS == (int)MKV_E_MISS && (int)MKV_ERR_FORKED == (int)MKV_E_FORKED, "one numbering");
_Static_assert((int)MKV_ERR_CONFIG == (int)MKV_E_CONFIG && (int)MKV_ERR_SYSTEM == (int)MKV_E_SYSTEM, "one numbering");

const char *
mkv_strerror(int status)
{
	return (mkv_err(status));
}

const char *
mkv_status_name(int status)
{
	return (status == 0 ? "OK" : mkv_err_name(status));
}

const char *
mkv_miss_label(unsigned reason)
{
	return (mkv_reason_label(reason));
}

const char *
mkv_miss_text(unsigned reason)
{
	return (mkv_reason_text(reason));
}
