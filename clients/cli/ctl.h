/*
 * Inside memkvctl: the request line, the answer, how rows are shown.
 */
#ifndef MKV_CLI_CTL_H
#define MKV_CLI_CTL_H

#include <stdio.h>

#include <jansson.h>

int		ctl_main(int argc, char **argv);
/* Connect, ask, take the answer: 0 and *answer, or an exit status with a message. */
int		ctl_ask(const char *path, const char *cmd, const char *const *names, unsigned timeout_s, json_t **answer);
/* Show an answer as lines; returns the exit status. */
int		ctl_show(FILE *to, const char *cmd, const json_t *answer);
/* The first socket that is there among the usual places; NULL: none. */
const char *	ctl_find(char *dst, size_t dst_bytes);

#endif
