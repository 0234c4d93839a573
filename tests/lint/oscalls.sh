#!/usr/bin/env bash
# memfd, eventfd, pidfd, io_uring and Landlock are called in the platform files alone; raw system calls too.
. "$(dirname "$0")/lint.sh"

platform='^(common/base/os_linux\.c|common/base/os_uring\.c|worker/drive/media_uring\.c|clients/preload/memfd\.c)$'
calls='\<(memfd_create|eventfd|eventfd_read|eventfd_write|pidfd_open|pidfd_send_signal|pidfd_getfd|io_uring_[a-z_0-9]+|landlock_[a-z_0-9]+|syscall)[[:space:]]*\('
numbers='\<(SYS|__NR)_[a-z_0-9]+'

# A filter names system calls without making them: SCMP_SYS(io_uring_enter).
calls_in() {
	lint_code "$1" | sed -E 's/SCMP_SYS\([a-z_0-9]+\)//g' | grep -nE "$calls|$numbers" || true
}

while read -r file; do
	[[ ! $file =~ $platform ]] || continue
	while IFS=: read -r line text; do
		lint_breach "$file:$line" "only os_linux.c, os_uring.c, media_uring.c and the preload library's memfd.c call the platform:$text"
	done < <(calls_in "$file")
done < <(lint_files -name '*.c' -o -name '*.h' | grep -vE '^tests/')
lint_end
