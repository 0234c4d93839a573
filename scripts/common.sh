# shellcheck shell=bash
# What quickstart, check and the bench scripts share: packages, the build, the staged tree, the server's life.
# Sourced; the caller has set -euo pipefail. Names of this file begin with mkv_ or MKV_.

MKV_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
MKV_BUILD=$MKV_TOP/build
MKV_STAGE=$MKV_BUILD/stage
MKV_LOGS=$MKV_BUILD/check-logs
MKV_JOBS=${MEMKV_JOBS:-$(nproc 2>/dev/null || echo 2)}
MKV_SERVER_PID=
MKV_SERVER_READY=

# One line for who waits: seconds since the start, then what is being done.
mkv_say() {
	printf '[%4ds] %s\n' "$SECONDS" "$*"
}

mkv_die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# Before a command: run it as the owner of the tree when sudo made us root, so that nothing built ends up owned by root.
MKV_AS_OWNER=()
if [ "$EUID" -eq 0 ] && [ "${SUDO_UID:-0}" -ne 0 ] && [ "$(stat -c %u "$MKV_TOP")" -eq "$SUDO_UID" ]; then
	MKV_AS_OWNER=(setpriv --reuid "$SUDO_UID" --regid "${SUDO_GID:-$SUDO_UID}" --init-groups --)
fi

mkv_as_owner() {
	"${MKV_AS_OWNER[@]}" "$@"
}

# mkv_step LOG COMMAND...: run in silence, show the end of the log if it fails.
mkv_step() {
	local log=$1
	shift
	mkv_as_owner mkdir -p "$(dirname "$log")"
	rm -f "$log"
	if "$@" >"$log" 2>&1 </dev/null; then
		return 0
	fi
	printf '%s\n' "--- the end of $log:" >&2
	tail -n 40 "$log" >&2
	printf '%s\n' "---" >&2
	return 1
}

# mkv_packages KIND...: names of the packages of these kinds.
mkv_packages() {
	local kind
	for kind in "$@"; do
		awk -F '\t' -v kind="$kind" '$1 == kind { print $2 }' "$MKV_TOP/scripts/packages"
	done
}

mkv_package_installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# mkv_need_packages KIND...: install what is missing of these kinds, and only that.
mkv_need_packages() {
	local name missing=()
	if ! command -v dpkg-query >/dev/null; then
		mkv_say "not a Debian system: ./configure will name what is missing"
		return 0
	fi
	for name in $(mkv_packages "$@"); do
		mkv_package_installed "$name" || missing+=("$name")
	done
	[ "${#missing[@]}" -gt 0 ] || return 0
	[ "$EUID" -eq 0 ] || mkv_die "packages are missing; run again with sudo, or first: apt-get install ${missing[*]}"
	mkv_say "installing ${#missing[@]} packages: ${missing[*]}"
	mkv_step "$MKV_LOGS/packages.log" mkv_apt_install "${missing[@]}" || mkv_die "apt-get could not install: ${missing[*]}"
}

mkv_apt_install() {
	export DEBIAN_FRONTEND=noninteractive
	apt-get -o DPkg::Lock::Timeout=120 update || echo "apt-get update failed; going on with the lists that are here"
	apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@"
}

# mkv_need_tools: put the programs of "tool" packages on the PATH, out of the package, without installing its service.
mkv_need_tools() {
	local kind package program dir=$MKV_BUILD/tools
	PATH=$dir/usr/bin:$dir/usr/sbin:$PATH
	command -v dpkg-deb >/dev/null || return 0
	while IFS=$'\t' read -r kind package program; do
		[ "$kind" = tool ] || continue
		command -v "$program" >/dev/null && continue
		mkv_say "unpacking $program out of the package $package"
		mkv_step "$MKV_LOGS/tool-$package.log" mkv_unpack_tool "$package" "$dir" ||
			mkv_say "$program is not to be had; what needs it is skipped"
	done <"$MKV_TOP/scripts/packages"
	if ! command -v redis-server >/dev/null && [ -x /usr/bin/redis-check-rdb ]; then
		mkdir -p "$dir/usr/bin"
		# One program under several names; redis-tools has it without the service.
		ln -sf /usr/bin/redis-check-rdb "$dir/usr/bin/redis-server"
	fi
}

mkv_unpack_tool() {
	local package=$1 dir=$2 tmp
	tmp=$(mktemp -d)
	mkdir -p "$dir"
	if (cd "$tmp" && apt-get download "$package") && dpkg-deb -x "$tmp"/*.deb "$dir"; then
		rm -rf "$tmp"
		return 0
	fi
	rm -rf "$tmp"
	return 1
}

# mkv_configure DIR FLAGS...: configure there unless it was already, with these flags.
mkv_configure() {
	local dir=$1 flags
	shift
	# What configure leaves out in silence when it is not there yet, and would not look for again.
	flags="$* cmocka=$(pkg-config --modversion cmocka 2>/dev/null || true) systemd=$(pkg-config --modversion libsystemd 2>/dev/null || true)"
	flags+=" rdma=$(pkg-config --modversion libibverbs libmlx5 2>/dev/null | tr '\n' ' ' || true)"
	mkv_as_owner mkdir -p "$dir"
	if [ ! -f "$dir/config.status" ] || [ "$(cat "$dir/configure-flags" 2>/dev/null)" != "$flags" ]; then
		(cd "$dir" && mkv_as_owner "$MKV_TOP/configure" "$@") || return 1
		printf '%s\n' "$flags" | mkv_as_owner tee "$dir/configure-flags"
	fi
}

mkv_autoreconf() {
	[ ! -x "$MKV_TOP/configure" ] || [ "$MKV_TOP/configure.ac" -nt "$MKV_TOP/configure" ] || return 0
	(cd "$MKV_TOP" && mkv_as_owner autoreconf -fi)
}

# mkv_make DIR ARGS...
mkv_make() {
	local dir=$1
	shift
	mkv_as_owner nice -n 5 make -C "$dir" -j "$MKV_JOBS" "$@"
}

# mkv_build: the tree in build/, its installation in build/stage. Two at once wait for each other.
mkv_build() {
	[ -x "$MKV_TOP/configure" ] || mkv_say "making configure"
	mkv_as_owner mkdir -p "$MKV_BUILD" "$MKV_LOGS"
	mkv_as_owner touch "$MKV_BUILD/.lock"
	exec {MKV_LOCK_FD}>"$MKV_BUILD/.lock"
	flock -n "$MKV_LOCK_FD" || { mkv_say "waiting for another build in $MKV_BUILD"; flock "$MKV_LOCK_FD"; }
	mkv_step "$MKV_LOGS/autoreconf.log" mkv_autoreconf &&
		mkv_say "configuring" &&
		mkv_step "$MKV_LOGS/configure.log" mkv_configure "$MKV_BUILD" --prefix="$MKV_STAGE" &&
		mkv_say "building with $MKV_JOBS jobs, some minutes the first time (log: $MKV_LOGS/make.log)" &&
		mkv_step "$MKV_LOGS/make.log" mkv_make "$MKV_BUILD" &&
		mkv_step "$MKV_LOGS/install.log" mkv_make "$MKV_BUILD" install || return 1
	exec {MKV_LOCK_FD}>&-
}

# mkv_server_start LOG ARGS...: start the staged server and wait until it serves. Sets MKV_SERVER_PID and MKV_SERVER_READY.
# It has a session of its own, so that Ctrl-C reaches us and we end it in order.
mkv_server_start() {
	local log=$1 dir fd
	shift
	dir=$(mktemp -d)
	rm -f "$log"				# one of root, after sudo, cannot be written but can be removed
	mkfifo "$dir/ready"
	exec {fd}<>"$dir/ready"
	rm -rf "$dir"
	setsid "$MKV_STAGE/bin/memkv" start --ready-fd 3 "$@" 3>&"$fd" {fd}>&- </dev/null >"$log" 2>&1 &
	MKV_SERVER_PID=$!
	MKV_SERVER_READY=
	while [ -z "$MKV_SERVER_READY" ]; do
		if IFS= read -r -t 0.2 -u "$fd" MKV_SERVER_READY; then
			break
		fi
		if ! kill -0 "$MKV_SERVER_PID" 2>/dev/null; then
			exec {fd}>&-
			MKV_SERVER_PID=
			tail -n 20 "$log" >&2
			return 1
		fi
		if [ "$SECONDS" -gt "$((${MKV_SERVER_LIMIT:-60} + ${MKV_SERVER_T0:=$SECONDS}))" ]; then
			exec {fd}>&-
			tail -n 20 "$log" >&2
			mkv_server_stop
			return 1
		fi
	done
	unset MKV_SERVER_T0
	exec {fd}>&-
}

# mkv_ready FIELD: the value of data, admin, local or control in the ready line.
mkv_ready() {
	local word
	for word in $MKV_SERVER_READY; do
		case $word in
		"$1="*) printf '%s\n' "${word#*=}" ;;
		esac
	done
}

# mkv_server_stop: ask, wait 15 s, then end it. Its children end with it.
mkv_server_stop() {
	local i
	[ -n "$MKV_SERVER_PID" ] || return 0
	kill -TERM "$MKV_SERVER_PID" 2>/dev/null || true
	for ((i = 0; i < 150; i++)); do
		kill -0 "$MKV_SERVER_PID" 2>/dev/null || break
		sleep 0.1
	done
	kill -KILL "$MKV_SERVER_PID" 2>/dev/null || true
	wait "$MKV_SERVER_PID" 2>/dev/null || true
	MKV_SERVER_PID=
}
