/*
 * Asserts and small macros, for every process.
 *
 * MKV_ASSERT is for our own mistakes only (CONTRIBUTING.md): it is alive in release builds, prints the expression, place and
 * a backtrace on stderr and aborts. Bytes that came from a client, a medium or the far end of a ring are never asserted on.
 */
#ifndef MKV_BASE_ASSERT_H
#define MKV_BASE_ASSERT_H

#include <stddef.h>
#include <stdint.h>

#define MKV_UNUSED		__attribute__((unused))
#define MKV_PRINTF(f, a)	__attribute__((format(printf, f, a)))
#define MKV_NORETURN		__attribute__((noreturn))

#define MKV_CONTAINER_OF(ptr, type, member) \
	((type *)((char *)(ptr) - offsetof(type, member)))
#define MKV_ARRAY_LEN(a)	(sizeof(a) / sizeof((a)[0]))
/* Each argument is evaluated once. The result has the type of a ?: of both. No constant expressions: inside of functions only. */
#define MKV_MIN(a, b)		MKV_CHOOSE_(<, a, b, __COUNTER__)
#define MKV_MAX(a, b)		MKV_CHOOSE_(>, a, b, __COUNTER__)
#define MKV_CHOOSE_(is, a, b, n) MKV_CHOOSE_N_(is, a, b, n)
#define MKV_CHOOSE_N_(is, a, b, n) __extension__ ({				\
	__typeof__(1 ? (a) : (b)) mkv_a_##n = (a), mkv_b_##n = (b);	\
	mkv_a_##n is mkv_b_##n ? mkv_a_##n : mkv_b_##n;			\
})
#define MKV_DIV_UP(n, d)	(((n) + (d) - 1) / (d))
#define MKV_ALIGN_UP(n, a)	(((n) + (a) - 1) & ~((uint64_t)(a) - 1))	/* a: power of two */

/* Ownership moves from src to *dst, and src becomes NULL. */
#define TAKE(dst, src)		do { (dst) = (src); (src) = NULL; } while (0)

MKV_NORETURN void	mkv_assert_failed(const char *expr, const char *file, int line, const char *func);

#define MKV_ASSERT(e)		\
	do { if (__builtin_expect(!(e), 0)) mkv_assert_failed(#e, __FILE__, __LINE__, __func__); } while (0)

/* Long-lived structs begin with `uint32_t magic`. */
#define MKV_CHECK_OBJ(p, m)	do { MKV_ASSERT((p) != NULL); MKV_ASSERT((p)->magic == (m)); } while (0)

/* Loads what a backtrace needs while files may still be opened: before the jail. mkv_log_init() calls it. */
void	mkv_assert_prepare(void);

/*
 * Test builds (--enable-crash-points) die here with SIGKILL when MKV_CRASH_POINT in the environment names the point;
 * "name:3" means the third time it is passed. Include "config.h" before this header.
 */
#ifdef MKV_WITH_CRASH_POINTS
void	mkv_crash_point(const char *name);
#define MKV_CRASH_POINT(name)	mkv_crash_point(name)
#else
#define MKV_CRASH_POINT(name)	((void)0)
#endif

#endif
