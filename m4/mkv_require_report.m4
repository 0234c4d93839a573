# MKV_REQUIRE_REPORT
#
# Stop if MKV_REQUIRE or MKV_REQUIRE_PROGRAM found something missing, with one message that
# names all of it and the commands that install it.
AC_DEFUN([MKV_REQUIRE_REPORT], [
	AS_IF([test -n "$mkv_missing_text"], [
		mkv_missing_head=$(printf '  %-24s  %-22s  %s' needed "Debian package" "Fedora package")
		AC_MSG_ERROR([memkv needs what was not found here:
$mkv_missing_head$mkv_missing_text

  Debian, Ubuntu:  apt-get install$mkv_missing_debian
  Fedora, RHEL:    dnf install$mkv_missing_fedora
])
	])
])
