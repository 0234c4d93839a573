#!/usr/bin/env bash
# Cross build for arm64 in DIR and the unit tests under qemu-user. Exit 77: the tools or the arm64 packages are not to be had here.
#
# The arm64 libraries are unpacked into DIR/sysroot with a package database of their own: nothing of the machine's architecture
# changes, and no root is needed. Under qemu-user io_uring is refused, so the portable back end is what runs there.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[ $# -eq 1 ] || { echo "usage: scripts/cross-arm64.sh DIR" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
sysroot=$dir/sysroot
triplet=aarch64-linux-gnu

skip() {
	echo "skipped: $*"
	exit 77
}

# The build's libraries, for the other architecture.
libraries() {
	mkv_packages build | grep -E '^lib.*-dev$|evlib'
	echo libcmocka-dev
}

fetch() {
	local apt=$dir/apt opts
	rm -rf "$apt" "$sysroot"
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$sysroot"
	: >"$apt/status"
	opts=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o "Dir::State=$apt" -o "Dir::State::lists=$apt/lists"
	    -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache" -o Debug::NoLocking=1 -o Acquire::Languages=none
	    -o "APT::Sandbox::User=$(id -un)")
	apt-get "${opts[@]}" update || true
	# shellcheck disable=SC2046
	apt-get "${opts[@]}" install -y --no-install-recommends --download-only $(libraries) || return 1
	for package in "$apt"/cache/archives/*.deb; do
		dpkg-deb -x "$package" "$sysroot" || return 1
	done
	rm -rf "$apt"
	libraries >"$sysroot/.complete"
}

for tool in "$triplet-gcc" qemu-aarch64 apt-get dpkg-deb; do
	command -v "$tool" >/dev/null || skip "no $tool"
done
if [ "$(cat "$sysroot/.complete" 2>/dev/null)" != "$(libraries)" ]; then
	fetch || skip "the arm64 packages could not be fetched"
fi

export PKG_CONFIG_SYSROOT_DIR=$sysroot
export PKG_CONFIG_LIBDIR=$sysroot/usr/lib/$triplet/pkgconfig:$sysroot/usr/share/pkgconfig
mkv_configure "$dir" --host="$triplet" CC="$triplet-gcc --sysroot=$sysroot" --enable-werror --enable-crash-points --without-rdma
make -C "$dir" -j "$MKV_JOBS"
make -C "$dir/tests/lib" check
rm -f "$dir"/tests/unit/*.trs
make -C "$dir/tests/unit" -j "$MKV_JOBS" check LOG_COMPILER="qemu-aarch64 -L $sysroot"
