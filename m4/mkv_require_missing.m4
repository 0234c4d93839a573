# MKV_REQUIRE_MISSING(WHAT, DEBIAN-PACKAGE, FEDORA-PACKAGE)
#
# Note one missing requirement for MKV_REQUIRE_REPORT; a package is named once.
AC_DEFUN([MKV_REQUIRE_MISSING], [
	mkv_missing_text="$mkv_missing_text
$(printf '  %-24s  %-22s  %s' "$1" "$2" "$3")"
	AS_CASE(["$mkv_missing_debian "], [*" $2 "*], [], [mkv_missing_debian="$mkv_missing_debian $2"])
	AS_CASE(["$mkv_missing_fedora "], [*" $3 "*], [], [mkv_missing_fedora="$mkv_missing_fedora $3"])
])
