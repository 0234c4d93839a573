# Completion of memkv and memkvctl for bash. It asks the programs, so it always knows what the installed ones know.

_memkv_values() {
	local option=$1 current=$2 value
	value=$(printf '%s\n' "$3" | awk -F '\t' -v option="$option" '$1 == option { print $2; exit }')
	case $value in
	'' | -) return 1 ;;
	*'|'*) mapfile -t COMPREPLY < <(compgen -W "${value//|/ }" -- "$current") ;;
	FILE | PATH) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
	*) COMPREPLY=() ;;
	esac
}

_memkv() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]} options
	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "$("$program" help --commands 2>/dev/null | cut -f 1)" -- "$current")
		return
	fi
	if [ "${COMP_WORDS[1]}" = bench ]; then
		if [ "$COMP_CWORD" -eq 2 ]; then
			mapfile -t COMPREPLY < <(compgen -W "$("$program" help --options bench 2>/dev/null | cut -f 1)" -- "$current")
			return
		fi
		options=$("$program" help --options bench "${COMP_WORDS[2]}" 2>/dev/null)
	elif [ "${COMP_WORDS[1]}" = help ]; then
		[ "$COMP_CWORD" -ne 2 ] ||
			mapfile -t COMPREPLY < <(compgen -W "errors $("$program" help --commands 2>/dev/null | cut -f 1)" -- "$current")
		return
	else
		options=$("$program" help --options "${COMP_WORDS[1]}" 2>/dev/null)
	fi
	_memkv_values "$previous" "$current" "$options" && return
	if [ "$COMP_CWORD" -eq 2 ] && [[ $current != -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$("$program" help --words "${COMP_WORDS[1]}" 2>/dev/null)" -- "$current")
		[ "${#COMPREPLY[@]}" -eq 0 ] || return 0
	fi
	if [[ $current == -* ]] || [ "${COMP_WORDS[1]}" = bench ]; then
		mapfile -t COMPREPLY < <(compgen -W "$(printf '%s\n' "$options" | cut -f 1)" -- "$current")
	else
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
	fi
}

_memkvctl() {
	local current=${COMP_WORDS[COMP_CWORD]} program=${COMP_WORDS[0]}
	if [ "$COMP_CWORD" -eq 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "$("$program" help --commands 2>/dev/null | cut -f 1)" -- "$current")
	elif [[ $current == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$("$program" help --options 2>/dev/null | cut -f 1)" -- "$current")
	else
		# Names hold colons, which bash takes for the ends of words.
		mapfile -t COMPREPLY < <(compgen -W "all $("$program" status 2>/dev/null | cut -d ' ' -f 1)" -- "$current")
		declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "$current"
	fi
}

complete -F _memkv memkv
complete -F _memkvctl memkvctl
