/*
 * RoCE by custom and by address. No state; any process, any thread. Nothing fails.
 */
#include "config.h"
#include "common/base/roce.h"

#include <string.h>

enum mkv_roce_rank
mkv_roce_rank(const uint8_t gid[16])
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff }, zero[16];

	if (memcmp(gid, zero, 16) == 0)
		return (MKV_ROCE_EMPTY);
	if (memcmp(gid, mapped, 12) == 0)
		return (MKV_ROCE_IPV4);
	return (gid[0] == 0xfe && (gid[1] & 0xc0) == 0x80 ? MKV_ROCE_LINK_LOCAL : MKV_ROCE_IPV6);
}

/* Pairs of the sender's priority and the VLAN's, in one line: "EGRESS priority mappings: 0:0 5:3 ". */
int
mkv_roce_vlan_marks(const char *text)
{
	static const char head[] = "EGRESS priority mappings:", wanted[] = { ':', '0' + MKV_ROCE_PRIORITY, '\0' };
	const char *at = strstr(text, head), *end;

	if (at == NULL)
		return (0);
	at += sizeof(head) - 1;
	end = at + strcspn(at, "\n");
	for (; (at = strstr(at, wanted)) != NULL && at < end; at++)
		if (strchr(" \n", at[2]) != NULL)			/* the end of the text, too */
			return (1);
	return (0);
}
