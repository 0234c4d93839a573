/*
 * A counter of a handle, as its text of metrics has it.
 */
#ifndef MKV_TESTS_CLIENT_COUNTER_H
#define MKV_TESTS_CLIENT_COUNTER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <memkv/memkv.h>

static inline unsigned long
counter(struct mkv_client *c, const char *name)
{
	static char text[256 * 1024];
	char line[128];
	const char *at;

	assert_true(mkv_client_metrics(c, text, sizeof(text)) < sizeof(text));
	(void)snprintf(line, sizeof(line), "\nmemkv_client_%s ", name);
	assert_non_null(at = strstr(text, line));
	return (strtoul(at + strlen(line), NULL, 10));
}

#endif
