# MKV_REQUIRE_REPORT
#
# Stop if MKV_REQUIRE or MKV_REQUIRE_PROGRAM found something missing, with one message that
# names all of it and the commands that install it.
AC_DEFUN([MKV_REQUIRE_REPORT], [
	AS_IF([test -n "$mkv_missing_text"], [
		AC_MSG_ERROR([memkv needs what was not found here:
$(printf '  %-24s  %-26s  %s' "pkg-config module" "Debian package" "Fedora package")$mkv_missing_text

  Debian, Ubuntu:  apt-get install$mkv_missing_debian
  Fedora, RHEL:    dnf install$mkv_missing_fedora
])
	])
])
