/*
 * What goes into a log line: printf formats whose strings cannot break the line, and logfmt quoting. Any thread; no state.
 *
 * Strings may be foreign (keys, paths, texts of a library). `key=%s` is therefore quoted as a value, whatever it holds, and control bytes
 * elsewhere become '?'. The formats are ours. From a conversion on that is not handled here a format is printed as it stands: what its arguments
 * are is not known any more, and no log call ends a process.
 */
#include "config.h"
#include "common/base/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#include "common/base/log_priv.h"

#define SPEC_MAX	32u	/* "%-+ #09999.9999lld" and some zeros to spare */
#define SPEC_PIECE	5u	/* most that one step adds: a number in the place of '*', its terminator */

struct spec {				/* one conversion */
	char	text[SPEC_MAX];		/* "%-8.3lu", for snprintf(3) */
	char	size;			/* 0, 'h', 'l', 'q' (ll), 'z', 'j', 't' */
	char	conv;
	int	precision;		/* of strings; -1: none */
};

void
log_put(struct log_out *o, const char *s, size_t bytes)
{
	bytes = MKV_MIN(bytes, o->max - o->bytes);
	for (size_t i = 0; i < bytes; i++)
		o->line[o->bytes++] = (unsigned char)s[i] < ' ' || s[i] == 127 ? '?' : s[i];
}

void
log_put_format(struct log_out *o, const char *fmt, ...)
{
	char text[128];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n > 0)
		log_put(o, text, MKV_MIN((size_t)n, sizeof(text) - 1));
}

static int
log_must_quote(const char *s, size_t bytes)
{
	if (bytes == 0)
		return (1);
	for (size_t i = 0; i < bytes; i++)
		if ((unsigned char)s[i] <= ' ' || s[i] == '"' || s[i] == '=' || s[i] == '\\' || s[i] == 127)
			return (1);
	return (0);
}

/* One byte as it stands between quotes; how many bytes of out it takes. */
static size_t
log_escape(char out[4], unsigned char c)
{
	static const char hex[] = "0123456789abcdef";

	if (c == '"' || c == '\\' || c == '\n' || c == '\t') {
		out[0] = '\\';
		out[1] = c == '\n' ? 'n' : c == '\t' ? 't' : (char)c;
		return (2);
	}
	if (c < ' ' || c == 127) {
		memcpy(out, (char[4]){ '\\', 'x', hex[c >> 4], hex[c & 15] }, 4);
		return (4);
	}
	out[0] = (char)c;
	return (1);
}

char *
mkv_log_quote(char *dst, size_t dst_bytes, const char *s, size_t s_bytes)
{
	size_t n = 0, add, room;
	char esc[4];

	MKV_ASSERT(dst_bytes >= 3);
	if (!log_must_quote(s, s_bytes) && s_bytes < dst_bytes) {
		memcpy(dst, s, s_bytes);
		dst[s_bytes] = '\0';
		return (dst);
	}
	room = dst_bytes - 2;			/* closing quote, terminator */
	dst[n++] = '"';
	for (size_t i = 0; i < s_bytes; i++) {
		add = log_escape(esc, (unsigned char)s[i]);
		if (n + add > room)
			break;
		memcpy(dst + n, esc, add);
		n += add;
	}
	dst[n++] = '"';
	dst[n] = '\0';
	return (dst);
}

/* The conversion at fmt (which is its '%') into *sp; returns what follows it, NULL if it is none that we handle. '*' takes its number from ap. */
static const char *
log_parse_spec(const char *fmt, struct spec *sp, va_list *ap)
{
	size_t n = 0;

	*sp = (struct spec){ .precision = -1 };
	sp->text[n++] = *fmt++;
	for (; strchr("-+ #0123456789.*hlzjt", *fmt) != NULL && *fmt != '\0'; fmt++) {
		if (n + SPEC_PIECE + 2 > SPEC_MAX)
			return (NULL);
		if (*fmt == '.')
			sp->precision = 0;
		if (*fmt == '*') {
			int v = va_arg(*ap, int);

			if (sp->precision == 0)
				sp->precision = v;
			n += (size_t)snprintf(sp->text + n, SPEC_MAX - n, "%d", v < 0 ? 0 : v > 9999 ? 9999 : v);
			continue;
		}
		if (*fmt >= '0' && *fmt <= '9' && sp->precision >= 0)
			sp->precision = sp->precision * 10 + *fmt - '0';
		if (*fmt >= 'h' && *fmt <= 'z')
			sp->size = *fmt == 'l' && sp->size == 'l' ? 'q' : *fmt;
		sp->text[n++] = *fmt;
	}
	sp->conv = *fmt;
	sp->text[n] = *fmt;
	return (*fmt != '\0' && strchr("diuxXocefgps%", *fmt) != NULL ? fmt + 1 : NULL);
}

static void
log_put_string(struct log_out *o, const char *s, int precision, int whole_value)
{
	char quoted[LOG_LINE_MAX];
	size_t bytes;

	if (s == NULL)
		s = "-";
	bytes = precision >= 0 ? strnlen(s, (size_t)precision) : strnlen(s, LOG_LINE_MAX);
	if (!whole_value)
		log_put(o, s, bytes);
	else if (o->max - o->bytes >= 3) {
		mkv_log_quote(quoted, MKV_MIN(sizeof(quoted), o->max - o->bytes + 1), s, bytes);
		log_put(o, quoted, strlen(quoted));
	}
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"	/* sp->text is a piece of a literal that the compiler has checked */

static void
log_put_number(struct log_out *o, const struct spec *sp, va_list *ap)
{
	char text[64];
	int n = 0;

	switch (sp->conv) {
	case 'd': case 'i': case 'u': case 'x': case 'X': case 'o': case 'c':
		if (sp->size == 'l')
			n = snprintf(text, sizeof(text), sp->text, va_arg(*ap, long));
		else if (sp->size == 'q')
			n = snprintf(text, sizeof(text), sp->text, va_arg(*ap, long long));
		else if (sp->size == 'z' || sp->size == 't')
			n = snprintf(text, sizeof(text), sp->text, va_arg(*ap, size_t));
		else if (sp->size == 'j')
			n = snprintf(text, sizeof(text), sp->text, va_arg(*ap, intmax_t));
		else
			n = snprintf(text, sizeof(text), sp->text, va_arg(*ap, int));
		break;
	case 'e': case 'f': case 'g':
		n = snprintf(text, sizeof(text), sp->text, va_arg(*ap, double));
		break;
	case 'p':
		n = snprintf(text, sizeof(text), sp->text, va_arg(*ap, void *));
		break;
	default:
		MKV_ASSERT(sp->conv == '%');
		text[n++] = '%';
	}
	if (n > 0)
		log_put(o, text, MKV_MIN((size_t)n, sizeof(text) - 1));
}

#pragma GCC diagnostic pop

void
log_put_args(struct log_out *o, const char *fmt, va_list ap)
{
	const char *begin = fmt, *end, *next;
	struct spec sp;
	va_list rest;
	int whole;

	va_copy(rest, ap);
	while (*fmt != '\0') {
		if (*fmt != '%') {
			end = strchr(fmt, '%');
			end = end != NULL ? end : fmt + strlen(fmt);
			log_put(o, fmt, (size_t)(end - fmt));
			fmt = end;
			continue;
		}
		whole = fmt > begin && fmt[-1] == '=';
		if ((next = log_parse_spec(fmt, &sp, &rest)) == NULL) {
			log_put(o, fmt, strlen(fmt));
			break;
		}
		fmt = next;
		if (sp.conv == 's')
			log_put_string(o, va_arg(rest, const char *), sp.precision, whole && (*fmt == '\0' || *fmt == ' '));
		else
			log_put_number(o, &sp, &rest);
	}
	va_end(rest);
}
