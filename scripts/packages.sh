# Packages of the system's own, where it has apt: to be sourced after env.sh.
# Elsewhere nothing is installed: what is missing shows where it is used.

lists_are_fresh=
install_packages() {
  command -v apt-get >/dev/null || { say "needed from the system's packages: $*"; return; }
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return
  refresh_lists
  say "installing Debian packages: ${missing[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
}

is_offered() {
  apt-cache show "$1" >/dev/null 2>&1 || { refresh_lists && apt-cache show "$1" >/dev/null 2>&1; }
}

refresh_lists() {
  [ -n "$lists_are_fresh" ] && return
  command -v apt-get >/dev/null || return 0
  say "refreshing the package lists"
  as_root apt-get update -qq >/dev/null || die "apt-get update failed"
  lists_are_fresh=1
}

# Sets mirror to that of Debian which the machine's own sources name, whatever their format.
find_mirror() {
  mirror=$(first_mirror)
  [ -n "$mirror" ] || { refresh_lists && mirror=$(first_mirror); }
}

first_mirror() {
  command -v apt-get >/dev/null || return 0
  apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
    sed -n 's/^Debian Debian //p' | head -n 1
}

install_cargo_tool() { # NAME VERSION
  say "installing $1 $2 (some minutes)"
  cargo install "$1" --version "$2" --locked --root "$root/target/tools" \
    --target-dir "$root/target/tools/build" --quiet
  rm -rf "$root/target/tools/build"
}
