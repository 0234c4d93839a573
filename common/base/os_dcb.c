/*
 * The platform: what a network device says of its priorities (IEEE 802.1Qaz, "DCB"), by rtnetlink. Linux; called by memkv doctor.
 *
 * Process and thread: any; no state. One socket a call, closed again. The kernel answers at once, within its own system call, or not at all.
 * Fails: -EOPNOTSUPP: the driver has none of it (or the kernel was built without); else as the socket says.
 */
#include "config.h"
#include "common/base/os.h"

#include <errno.h>
#include <linux/dcbnl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/os_priv.h"

#define DCB_NAME_BYTES	16u
#define DCB_ANSWER_MAX	16384u

struct dcb_ask {
	struct nlmsghdr	h;
	struct dcbmsg	d;
	struct rtattr	name;
	char		text[DCB_NAME_BYTES];
};

/* The attribute of this type among those in [at, at + left); NULL: there is none that is whole. */
static const struct rtattr *
dcb_attr(const struct rtattr *at, size_t left, unsigned type)
{
	while (left >= sizeof(*at) && at->rta_len >= sizeof(*at) && at->rta_len <= left) {
		size_t step = MKV_MIN((size_t)RTA_ALIGN(at->rta_len), left);

		if ((at->rta_type & NLA_TYPE_MASK) == type)
			return (at);
		left -= step;
		at = (const struct rtattr *)(const void *)((const char *)at + step);
	}
	return (NULL);
}

static const struct rtattr *
dcb_within(const struct rtattr *a, unsigned type)
{
	return (a == NULL ? NULL : dcb_attr(RTA_DATA(a), RTA_PAYLOAD(a), type));
}

/* DSCPs that have a priority of their own. */
static void
dcb_apps(const struct rtattr *table, struct mkv_os_dcb *out)
{
	const char *at = RTA_DATA(table), *end = at + RTA_PAYLOAD(table);
	const struct rtattr *a;
	struct dcb_app app;

	while ((a = dcb_attr((const struct rtattr *)(const void *)at, (size_t)(end - at), DCB_ATTR_IEEE_APP)) != NULL) {
		if (RTA_PAYLOAD(a) >= sizeof(app)) {
			memcpy(&app, RTA_DATA(a), sizeof(app));
			if (app.selector == IEEE_8021QAZ_APP_SEL_DSCP && app.protocol < MKV_ARRAY_LEN(out->of_dscp))
				out->of_dscp[app.protocol] = (int8_t)(app.priority & 7);
		}
		at = MKV_MIN((const char *)a + RTA_ALIGN(a->rta_len), end);
	}
}

int
os_dcb_parse(const void *msg, size_t bytes, struct mkv_os_dcb *out)
{
	const size_t head = NLMSG_ALIGN(sizeof(struct dcbmsg));
	const struct nlmsghdr *h = msg;
	const struct rtattr *ieee, *a;
	struct nlmsgerr err;
	struct ieee_pfc pfc;

	memset(out->of_dscp, -1, sizeof(out->of_dscp));
	out->pfc = -1;
	if (bytes < sizeof(*h) || h->nlmsg_len < sizeof(*h) || h->nlmsg_len > bytes)
		return (-EBADMSG);
	if (h->nlmsg_type == NLMSG_ERROR && h->nlmsg_len >= NLMSG_LENGTH(sizeof(err))) {
		memcpy(&err, NLMSG_DATA(h), sizeof(err));
		return (err.error < 0 ? err.error : -EBADMSG);
	}
	if (h->nlmsg_len < NLMSG_LENGTH(head))
		return (-EBADMSG);
	ieee = dcb_attr((const struct rtattr *)(const void *)((const char *)NLMSG_DATA(h) + head), h->nlmsg_len - NLMSG_LENGTH(head), DCB_ATTR_IEEE);
	if (ieee == NULL)
		return (-EOPNOTSUPP);
	if ((a = dcb_within(ieee, DCB_ATTR_IEEE_PFC)) != NULL && RTA_PAYLOAD(a) >= sizeof(pfc)) {
		memcpy(&pfc, RTA_DATA(a), sizeof(pfc));
		out->pfc = pfc.pfc_en;
	}
	if ((a = dcb_within(ieee, DCB_ATTR_IEEE_APP_TABLE)) != NULL)
		dcb_apps(a, out);
	return (0);
}

static int
dcb_exchange(int fd, const char *netdev, struct mkv_os_dcb *out)
{
	struct dcb_ask q = {
		.h = { .nlmsg_len = sizeof(q), .nlmsg_type = RTM_GETDCB, .nlmsg_flags = NLM_F_REQUEST, .nlmsg_seq = 1 },
		.d = { .dcb_family = AF_UNSPEC, .cmd = DCB_CMD_IEEE_GET },
		.name = { .rta_len = RTA_LENGTH(DCB_NAME_BYTES), .rta_type = DCB_ATTR_IFNAME },
	};
	_Alignas(struct nlmsghdr) uint8_t answer[DCB_ANSWER_MAX];
	ssize_t n;

	memcpy(q.text, netdev, strlen(netdev));
	if (send(fd, &q, sizeof(q), 0) < 0 || (n = recv(fd, answer, sizeof(answer), MSG_DONTWAIT)) < 0)
		return (-errno);
	return (os_dcb_parse(answer, (size_t)n, out));
}

int
mkv_os_dcb(const char *netdev, struct mkv_os_dcb *out)
{
	int fd, r;

	if (strlen(netdev) >= DCB_NAME_BYTES)
		return (-ENODEV);
	if ((fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)) < 0)
		return (-errno);
	r = dcb_exchange(fd, netdev, out);
	close(fd);
	return (r);
}
