#!/usr/bin/env bash
# The lint programs can fail: each finds a planted breach, names it, and accepts the same tree without it.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
status=0
trap 'echo "selftest.sh: line $LINENO: $BASH_COMMAND"' ERR

# plant FILE: the standard input becomes that file of the sample tree.
plant() {
	mkdir -p "$tmp/tree/$(dirname "$1")"
	cat >"$tmp/tree/$1"
}

clean_tree() {
	rm -rf "$tmp/tree"
	plant common/README.md <<<"# common, and \`tbl/\`"
	plant common/base/README.md <<<"# base"
	plant worker/README.md <<<"# worker"
	plant tests/README.md <<<"# tests: \`lint/\`"
	plant common/base/err.h <<<"int	mkv_err(int x);"
	printf '/* Errors. */\n#include "config.h"\n\n#include "common/base/err.h"\n' | plant common/base/err.c
	printf '/* "eventfd(" and io_uring_enter() in words. */\nconst char *s = "memfd_create(";\n' | plant worker/core/ok.c
	sed -i '1a #include "config.h"' "$tmp/tree/worker/core/ok.c"
	plant worker/core/README.md <<<"# core"
	printf 'MKV_ERR(INVAL, 1, 400, 0, 2, "x")\nMKV_ERR(NOMEM, 2, 503, 1, 1, "y")\n' | plant common/tbl/errors.def
	printf 'common/tbl/errors.def INVAL 1\ncommon/tbl/errors.def GONE 7\n' | plant tests/lint/shipped
	printf '#!/bin/sh\necho fine\n' | plant scripts/ok.sh
	plant scripts/README.md <<<"# scripts"
}

# run PROGRAM: its exit status in $got, its words in $out.
run() {
	got=0
	out=$(MKV_LINT_TOP=$tmp/tree MKV_LINT_BUILD=$tmp/tree bash "$here/$1" 2>&1) || got=$?
}

# breach PROGRAM WORDS: after a plant, PROGRAM must fail and say WORDS; then the tree is clean again.
breach() {
	run "$1"
	if [ "$got" -ne 1 ] || ! grep -qF -- "$2" <<<"$out"; then
		printf '%s did not find its breach (exit %d, wanted: %s):\n%s\n' "$1" "$got" "$2" "$out"
		status=1
	fi
	clean_tree
}

clean_tree
for program in includes oscalls headers words tables scripts layout manpages metrics unused; do
	run "$program.sh"
	if [ "$got" -ne 0 ] && [ "$got" -ne 77 ]; then
		printf '%s refuses the clean sample (exit %d):\n%s\n' "$program.sh" "$got" "$out"
		status=1
	fi
done

printf '/* x */\n#include "config.h"\n#include "worker/drive/engine.h"\n' | plant worker/front/bad.c
breach includes.sh "worker/front may not include worker/drive/engine.h"
printf '/* x */\n#include "config.h"\n#include <liburing.h>\n' | plant worker/front/bad.c
breach includes.sh "<liburing.h> is for"
printf '/* x */\n#include "config.h"\n#include "common/base/log_priv.h"\n' | plant common/shm/bad.c
breach includes.sh "is private to common/base"
printf '/* x */\n#include <stdio.h>\n#include "config.h"\n' | plant common/base/bad.c
sed -i '2d' "$tmp/tree/common/base/bad.c"
sed -i '2i #include "common/base/err.h"' "$tmp/tree/common/base/bad.c"
breach includes.sh 'the first include of a .c file'
printf '/* x */\n#include "config.h"\n#include "err.h"\n' | plant common/base/bad.c
breach includes.sh "by its path from the top"
plant elsewhere/none.h </dev/null
mkdir -p "$tmp/tree/worker/other" && printf '/* x */\n' >"$tmp/tree/worker/other/a.c"
breach includes.sh "no row for this directory"

printf '/* x */\n#include "config.h"\nint f(void) { return (eventfd(0, 0)); }\n' | plant worker/core/bad.c
breach oscalls.sh "worker/core/bad.c:3"
printf '/* x */\n#include "config.h"\nint f(void) { return (syscall(SYS_gettid)); }\n' | plant worker/core/bad.c
breach oscalls.sh "worker/core/bad.c:3"

plant common/base/bad.h <<<"size_t	mkv_bad(void);"
breach headers.sh "common/base/bad.h: does not compile alone as C"
plant clients/include/memkv/bad.h <<<"static inline int *bad(void *p) { int *class = p; return class; }"
breach headers.sh "does not compile alone as C++"

printf '/* TO''DO: later */\n' | plant common/base/bad.h
breach words.sh "unfinished by its own words"
printf 'dir = "/wo''rk/main"\n' | plant scripts/bad.py
breach words.sh "a path of one machine"
printf '/* The rings (DES''IGN D5). */\n' | plant common/base/bad.h
breach words.sh "a document that is not in this tree"

printf 'MKV_ERR(NEW, 2, 503, 1, 1, "y")\n' >>"$tmp/tree/common/tbl/errors.def"
breach tables.sh "number 2 is taken"
printf 'MKV_ERR(NEW, 7, 503, 1, 1, "y")\n' >>"$tmp/tree/common/tbl/errors.def"
breach tables.sh "was shipped as GONE"
sed -i 's/INVAL, 1/INVAL, 9/' "$tmp/tree/common/tbl/errors.def"
breach tables.sh "INVAL was shipped as number 1"

if command -v shellcheck >/dev/null; then
	# shellcheck disable=SC2016
	printf '#!/bin/sh\nrm $1\n' | plant scripts/bad.sh
	breach scripts.sh "scripts/bad.sh"
	printf 'def f(:\n' | plant scripts/bad.py
	breach scripts.sh "scripts/bad.py"
fi

printf '#include "config.h"\n' | plant common/base/bad.c
breach layout.sh "does not begin with a comment"
printf '/* x */\nint x; \n' | plant common/base/bad.c
breach layout.sh "blanks at the end"
printf '/* x */\n        int x;\n' | plant common/base/bad.c
breach layout.sh "indented by spaces"
awk 'BEGIN { print "/* x */"; for (i = 0; i < 901; i++) print "int x;" }' | plant common/base/bad.c
breach layout.sh "two rooms"
rm "$tmp/tree/common/base/README.md"
breach layout.sh "common/base: no README.md"
rm "$tmp/tree/common/README.md"
breach layout.sh "common/tbl: no README.md"
plant docs/man/page.1 </dev/null
breach layout.sh "docs/man: no README.md"

if command -v mandoc >/dev/null; then
	printf '.Sh NAME\nno head\n' | plant docs/man/bad.1
	breach manpages.sh "docs/man/bad.1"
fi

plant common/tbl/metrics.def <<<'MKV_METRIC(drive_reads_total,	COUNTER,	DRIVE,	NONE,	"reads")'
plant clients/lib/client_metrics.def <<<'CLIENT_COUNTER(retries_total,	"Requests sent again.")'
plant docs/operate/metrics.md <<<'<!-- The tables below are written by tests/lint/metrics.sh --write. -->'
cp -r "$tmp/tree" "$tmp/written"
MKV_LINT_TOP=$tmp/written bash "$here/metrics.sh" --write
# shellcheck disable=SC2016
if ! grep -qF '| `memkv_drive_reads_total` | counter |  | reads |' "$tmp/written/docs/operate/metrics.md" ||
    ! MKV_LINT_TOP=$tmp/written bash "$here/metrics.sh"; then
	echo "metrics.sh --write does not write what metrics.sh wants"
	status=1
fi
breach metrics.sh "differs from the rows"

printf '/* x */\n#include "config.h"\n\nint\nmkv_lonely(int x)\n{\n\treturn (x);\n}\n' | plant common/base/bad.c
breach unused.sh "common/base/bad.c:5: nobody outside the tests calls mkv_lonely()"
exit "$status"
