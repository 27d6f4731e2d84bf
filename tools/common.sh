# What the scripts of this folder share: sourced by them.
set -euo pipefail
shopt -s inherit_errexit

say() { printf '%s\n' "$*" >&2; }
# When nobody began to serve what moves; and says for how long that has lasted, unless it was broken
# off meanwhile.
stopped=
stop() {
  stopped=${EPOCHREALTIME/[.,]/}
  say "$1"
}
serves() {
  [ -z "$stopped" ] || say "nobody served for $(((${EPOCHREALTIME/[.,]/} - stopped) / 1000)) ms"
}
die() {
  say "error: $*"
  exit 1
}

# The head of the script that runs is its manual.
usage() {
  sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

# Sets a variable for each option that is given, --new-name as new_name, and mode to that
# which has no value.
options() { # REQUIRED... -- OPTIONAL... -- MODE... -- ARGUMENT...
  local -a kinds=('' '' '')
  local kind option_
  for kind in 0 1 2; do
    while [ "$1" != -- ]; do
      kinds[kind]+=" $1"
      shift
    done
    shift
  done
  mode=
  while [ $# -gt 0 ]; do
    option_=${1#--}
    if [[ "${kinds[2]} " = *" $option_ "* ]]; then
      mode=$option_
    elif [[ "${kinds[0]}${kinds[1]} " = *" $option_ "* && $# -ge 2 ]]; then
      printf -v "${option_//-/_}" %s "$2"
      shift
    else
      usage
    fi
    shift
  done
  for option_ in ${kinds[0]//-/_}; do
    [ -n "${!option_-}" ] || usage
  done
}

# Runs the SQL on stdin on a server. psql's variables are options: -v name=value.
on() { # URL [OPTION]...
  local url=$1
  shift
  {
    cat <<'SQL'
set default_transaction_read_only = off;
set lock_timeout = '10s';
set client_min_messages = warning;
set timezone = 'UTC';
set datestyle = 'ISO';
select set_config('search_path', extnamespace::regnamespace::text, false)
  from pg_extension where extname = 'sync_ext' \g /dev/null
SQL
    cat
  } | "${PSQL:-psql}" -X -q -A -t -v ON_ERROR_STOP=1 -d "$url" "$@"
}

# Prints checks, a line for each: t|what is so, or f|what is not as it must be.
failures=0
report() { # TITLE CHECKS
  local holds text
  say "$1"
  while IFS='|' read -r holds text; do
    case $holds in
      t) say "  ok     $text" ;;
      f)
        say "  FAILS  $text"
        failures=$((failures + 1))
        ;;
    esac
  done <<<"$2"
}

end_of_checks() {
  [ "$failures" -eq 0 ] || die "$failures checks failed; nothing was changed"
}

# Repeats a command until it prints t.
wait_until() { # SECONDS COMMAND...
  local deadline=$((SECONDS + $1))
  shift
  until [ "$("$@")" = t ]; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.2
  done
}

# Repeats a call that does a batch until its reply says that there is no more.
repeat() { # COMMAND...
  local more=true
  while [[ "$more" = t* ]]; do
    more=$("$@")
  done
}

# 1-3,7 as an array of SQL.
buckets_of() {
  local part list=
  [[ $1 =~ ^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$ ]] || die "no buckets: $1"
  for part in ${1//,/ }; do
    list+=$(seq -s , "${part%-*}" "${part#*-}"),
  done
  printf '{%s}' "${list%,}"
}

# SQL that makes a temporary table of what a command prints as CSV.
table_of() { # TABLE COLUMNS COMMAND...
  printf 'create temp table %s (%s);\ncopy %s from stdin (format csv);\n' "$1" "$2" "$1"
  "${@:3}"
  printf '\\.\n'
}

# A file of lines, or nothing.
lines_of() { # [FILE]
  [ -z "$1" ] || sed '$a\' "$1"
}
