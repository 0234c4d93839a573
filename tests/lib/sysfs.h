/*
 * A made-up sysfs in a temporary directory. Names are below it: "devices/system/node/has_cpu".
 */
#ifndef MKV_TESTS_SYSFS_H
#define MKV_TESTS_SYSFS_H

#include <stddef.h>
#include <stdint.h>

void	sysfs_make(char *sys, size_t sys_bytes);	/* a new, empty one; sys is its absolute path */
void	sysfs_remove(const char *sys);
void	sysfs_write(const char *sys, const char *name, const char *line);
void	sysfs_link(const char *sys, const char *name, const char *to);		/* to is below sys, and made if it is not there */
/* Huge pages of one size; node -1: of the whole machine. */
void	sysfs_pages(const char *sys, int node, uint64_t page_bytes, uint64_t reserved, uint64_t free);
/* A block device "MAJOR:MINOR" and its directory. */
void	sysfs_block(const char *sys, const char *number, const char *dir);

#endif
