# MKV_CFLAG(VAR, FLAG)
#
# Append FLAG to the substituted variable VAR where the compiler takes it in silence.
AC_DEFUN([MKV_CFLAG], [
	AS_VAR_PUSHDEF([mkv_cv], [mkv_cv_cflag_$2])
	AC_CACHE_CHECK([whether $CC takes $2], [mkv_cv], [
		mkv_save_cflags="$CFLAGS"
		CFLAGS="$CFLAGS -Werror $2"
		AC_COMPILE_IFELSE([AC_LANG_PROGRAM([], [])],
		    [AS_VAR_SET([mkv_cv], [yes])], [AS_VAR_SET([mkv_cv], [no])])
		CFLAGS="$mkv_save_cflags"
	])
	AS_VAR_IF([mkv_cv], [yes], [$1="$$1 $2"])
	AS_VAR_POPDEF([mkv_cv])
])
