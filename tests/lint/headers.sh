#!/usr/bin/env bash
# Every header compiles alone; the installed ones also as strict C11 and as C++.
. "$(dirname "$0")/lint.sh"

read -r -a cc <<<"${CC:-cc}"
read -r -a cxx <<<"${CXX:-c++}"
command -v "${cc[0]}" >/dev/null || lint_skip "no C compiler"
read -r -a flags <<<"-Wall -Wextra -Wstrict-prototypes -Werror -fsyntax-only -D_GNU_SOURCE -I$MKV_LINT_TOP -I$MKV_LINT_BUILD -I$MKV_LINT_TOP/clients/include"
modules='libcrypto libuv libwebsockets yaml-0.1 jansson liburing libprotobuf-c'
read -r -a packages <<<"$(for m in $modules; do pkg-config --cflags "$m" 2>/dev/null || true; done | tr '\n' ' ')"

# What needs headers that a build can do without.
absent='^$'
echo '#include <infiniband/verbs.h>' | "${cc[@]}" -fsyntax-only -x c - 2>/dev/null || absent='^(common/rdma/|tests/lib/fakeverbs)'

# compile COMMAND...: the header's path on the standard input as one include.
compile() {
	local file=$1 as=$2 out
	shift 2
	if ! out=$(printf '#include "%s"\n' "$MKV_LINT_TOP/$file" | "$@" - 2>&1); then
		lint_breach "$file" "does not compile alone as $as: $(grep -m 1 -E 'error|fatal' <<<"$out")"
	fi
}

while read -r file; do
	compile "$file" C "${cc[@]}" -x c -std=gnu11 "${flags[@]}" "${packages[@]}"
	if [[ $file == clients/include/* ]]; then
		compile "$file" "strict C11" "${cc[@]}" -x c -std=c11 -pedantic -Wall -Wextra -Werror -fsyntax-only -I"$MKV_LINT_TOP/clients/include"
		command -v "${cxx[0]}" >/dev/null || continue
		compile "$file" C++ "${cxx[@]}" -x c++ -std=c++11 -Wall -Wextra -Werror -fsyntax-only -I"$MKV_LINT_TOP/clients/include"
	fi
done < <(lint_files -name '*.h' | grep -vE "$absent")
lint_end
