# Packages of the system's own, where it has apt: to be sourced after env.sh.

lists_are_fresh=
install_packages() {
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || die "please install: ${missing[*]}"
  refresh_lists
  say "installing Debian packages: ${missing[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
}

refresh_lists() {
  [ -n "$lists_are_fresh" ] && return
  command -v apt-get >/dev/null || return 0
  say "refreshing the package lists"
  as_root apt-get update -qq >/dev/null || die "apt-get update failed"
  lists_are_fresh=1
}
