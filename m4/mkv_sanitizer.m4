# MKV_SANITIZER(NAME, FLAGS)
#
# Add --enable-NAME. With it, MKV_SAN_CFLAGS and MKV_SAN_LDFLAGS get FLAGS and mkv_sanitizer=yes.
AC_DEFUN([MKV_SANITIZER], [
	AC_ARG_ENABLE([$1], [AS_HELP_STRING([--enable-$1], [build with $2])],
	    [], [enable_$1=no])
	AS_VAR_IF([enable_$1], [yes], [
		MKV_SAN_CFLAGS="$MKV_SAN_CFLAGS $2"
		MKV_SAN_LDFLAGS="$MKV_SAN_LDFLAGS $2"
		mkv_sanitizer=yes
	])
])
