# MKV_REQUIRE(VAR, MODULE, DEBIAN-PACKAGE, FEDORA-PACKAGE)
#
# Probe one pkg-config module (with an optional version bound) and set VAR_CFLAGS and VAR_LIBS.
# A missing module does not stop configure here: it joins the list that MKV_REQUIRE_REPORT
# prints once, so that one run names everything there is to install.
AC_DEFUN([MKV_REQUIRE], [
	PKG_CHECK_MODULES([$1], [$2], [:], [
		MKV_REQUIRE_MISSING([$2], [$3], [$4])
	])
])
