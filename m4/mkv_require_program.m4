# MKV_REQUIRE_PROGRAM(VAR, PROGRAM, DEBIAN-PACKAGE, FEDORA-PACKAGE)
#
# Like MKV_REQUIRE, for a program that the build runs.
AC_DEFUN([MKV_REQUIRE_PROGRAM], [
	AC_PATH_PROG([$1], [$2])
	AS_IF([test -z "$$1"], [
		MKV_REQUIRE_MISSING([$2 (program)], [$3], [$4])
	])
])
