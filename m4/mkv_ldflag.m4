# MKV_LDFLAG(VAR, FLAG)
#
# Append FLAG to the substituted variable VAR where the linker takes it.
AC_DEFUN([MKV_LDFLAG], [
	AS_VAR_PUSHDEF([mkv_cv], [mkv_cv_ldflag_$2])
	AC_CACHE_CHECK([whether the linker takes $2], [mkv_cv], [
		mkv_save_ldflags="$LDFLAGS"
		LDFLAGS="$LDFLAGS $2"
		AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])],
		    [AS_VAR_SET([mkv_cv], [yes])], [AS_VAR_SET([mkv_cv], [no])])
		LDFLAGS="$mkv_save_ldflags"
	])
	AS_VAR_IF([mkv_cv], [yes], [$1="$$1 $2"])
	AS_VAR_POPDEF([mkv_cv])
])
