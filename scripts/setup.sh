#!/usr/bin/env bash
# Sets up what building and testing needs and is not there yet: Debian or
# Ubuntu packages, cargo-pgrx, a private copy of Postgres' installation tree.
# Says what it does; does nothing twice. Usage: scripts/setup.sh [MAJOR | perf | tests]
set -euo pipefail
. "$(dirname "$0")/env.sh"
. "$(dirname "$0")/packages.sh"

# Postgres with its server headers: that of PG_CONFIG, of packages (of Debian or of
# Postgres' own project), or of `cargo pgrx init`; else what the packages offer.
find_postgres() {
  local packaged=/usr/lib/postgresql/$pg/bin bin
  for bin in "$("${PG_CONFIG:-false}" --bindir || true)" "$packaged" "$(bin_of_pgrx)"; do
    if has_postgres "$bin"; then
      make_private_tree "$bin"
      return
    fi
  done
  # One that the fallback got before stays.
  [ -L "$run/pg$pg" ] && has_postgres "$run/pg$pg/bin" && return
  if is_offered "postgresql-$pg"; then
    install_packages "postgresql-$pg" "postgresql-server-dev-$pg"
    make_private_tree "$packaged"
  else
    "$root/scripts/postgres_fallback.sh" "$pg"
  fi
}

bin_of_pgrx() {
  sed -n "s/^pg$pg = \"\(.*\)\/pg_config\"$/\1/p" "$HOME/.pgrx/config.toml" 2>/dev/null || true
}

has_postgres() {
  [ -x "$1/postgres" ] && "$1/pg_config" --version | grep -q "^PostgreSQL $pg\b" &&
    [ -f "$("$1/pg_config" --includedir-server)/postgres.h" ]
}

# A tree of our own that looks like the installation but has its own
# extension folders: Postgres finds its files relative to its executable, so
# copied programs with linked files around them are a full installation, and
# building and testing writes nothing into the system's.
make_private_tree() {
  local tree=$run/pg$pg bin=$1
  [ "$("$tree/bin/postgres" --version 2>/dev/null)" = "$("$bin/postgres" --version)" ] && return
  say "making a private Postgres $pg tree in $tree"
  rm -rf "$tree" "$tree.tmp"
  mkdir -p "$tree.tmp"
  local share lib prefix=$bin
  share=$("$bin/pg_config" --sharedir) lib=$("$bin/pg_config" --pkglibdir)
  # The common prefix of the three is what Postgres' own paths are relative to.
  while [ "${share#"$prefix"/}" = "$share" ] || [ "${lib#"$prefix"/}" = "$lib" ]; do
    prefix=$(dirname "$prefix")
  done
  mkdir -p "$tree.tmp/root${bin#"$prefix"}" "$tree.tmp/root${share#"$prefix"}/extension" "$tree.tmp/root${lib#"$prefix"}"
  cp "$bin"/* "$tree.tmp/root${bin#"$prefix"}/"
  link_all "$share" "$tree.tmp/root${share#"$prefix"}"
  link_all "$share/extension" "$tree.tmp/root${share#"$prefix"}/extension"
  link_all "$lib" "$tree.tmp/root${lib#"$prefix"}"
  ln -s "$prefix/include" "$tree.tmp/root/include"
  ln -s "root${bin#"$prefix"}" "$tree.tmp/bin"
  mv "$tree.tmp" "$tree"
}

link_all() { # FROM TO: links every entry of FROM that TO has not
  local entry
  for entry in "$1"/*; do
    [ -e "$2/$(basename "$entry")" ] || ln -s "$entry" "$2/"
  done
}

install_cargo_pgrx() {
  [ "$(cargo pgrx --version 2>/dev/null)" = "cargo-pgrx $pgrx_version" ] && return
  [ "$(cargo-pgrx pgrx --version 2>/dev/null)" = "cargo-pgrx $pgrx_version" ] && return
  install_cargo_tool cargo-pgrx "$pgrx_version"
}

register_with_pgrx() {
  forget_trees_that_are_gone
  grep -qs "^pg$pg = \"$run/pg$pg/bin/pg_config\"" "$PGRX_HOME/config.toml" && return
  say "cargo pgrx init for Postgres $pg"
  mkdir -p "$PGRX_HOME"
  cargo pgrx init "--pg$pg" "$run/pg$pg/bin/pg_config" >/dev/null
}

# pgrx refuses to work while its list names a tree that is not there.
forget_trees_that_are_gone() {
  local config=$PGRX_HOME/config.toml name pg_config
  [ -f "$config" ] || return 0
  sed -n 's/^\(pg[0-9]*\) = "\(.*\)"$/\1 \2/p' "$config" | while read -r name pg_config; do
    [ -x "$pg_config" ] || sed -i "/^$name = /d" "$config"
  done
}

install_rust() {
  command -v cargo >/dev/null && return
  refresh_lists
  apt-cache show rustup >/dev/null 2>&1 || die "Rust 1.95 or later is needed; see https://rustup.rs"
  install_packages rustup
  say "installing the stable Rust toolchain"
  rustup default stable
}

# Debian has perf in a package of its own, Ubuntu with the kernel's tools.
install_perf() {
  refresh_lists
  if apt-cache show linux-perf >/dev/null 2>&1; then
    install_packages linux-perf
  else
    install_packages linux-tools-common "linux-tools-$(uname -r)"
  fi
}

# Extensions of others that are tested against, where the system's Postgres has
# them; a test prints that it has not found the one it needs.
install_neighbours() {
  local bin=/usr/lib/postgresql/$pg/bin tree=$run/pg$pg library name
  [ -x "$bin/postgres" ] && [ -d "$tree" ] && [ ! -L "$tree" ] || return 0
  for library in pg_cron pg_repack plproxy; do
    name=${library#pg_}
    [ -e "$("$tree/bin/pg_config" --pkglibdir)/$library.so" ] && continue
    apt-cache show "postgresql-$pg-$name" >/dev/null 2>&1 || continue
    install_packages "postgresql-$pg-$name"
  done
  link_all "$("$bin/pg_config" --pkglibdir)" "$("$tree/bin/pg_config" --pkglibdir)"
  link_all "$("$bin/pg_config" --sharedir)/extension" "$("$tree/bin/pg_config" --sharedir)/extension"
  link_all "$bin" "$tree/bin"
}

# For the test of the gateway behind nginx. Unpacked only: the package would start a server.
unpack_nginx() {
  local to=$root/target/tools
  command -v nginx >/dev/null && return
  refresh_lists
  apt-cache show nginx >/dev/null 2>&1 || return 0
  say "unpacking nginx"
  mkdir -p "$to/bin"
  rm -rf "$to/nginx"
  mkdir "$to/nginx"
  (cd "$to/nginx" && apt-get download -qq nginx && dpkg -x nginx_*.deb .)
  if "$to/nginx/usr/sbin/nginx" -v 2>/dev/null; then
    ln -sf ../nginx/usr/sbin/nginx "$to/bin/nginx"
  fi
}

# The pooling proxy that the gateway is tested through; a test prints that it has not
# found it.
install_bouncer() {
  [ -x /usr/sbin/pgbouncer ] && return
  command -v apt-cache >/dev/null && apt-cache show pgbouncer >/dev/null 2>&1 || return 0
  install_packages pgbouncer
}

# Drivers of other languages, those that tests/clients names.
install_clients() {
  local from=$root/tests/clients to=$root/target/clients
  if ! cmp -s "$from/node/package-lock.json" "$to/node/installed"; then
    command -v node >/dev/null && command -v npm >/dev/null || install_packages nodejs npm
    say "fetching node-postgres"
    mkdir -p "$to/node"
    cp "$from/node"/package*.json "$to/node"
    npm ci --prefix "$to/node" --silent --no-audit --no-fund --ignore-scripts
    cp "$from/node/package-lock.json" "$to/node/installed"
  fi
  if ! cmp -s "$from/python/requirements.txt" "$to/python/installed"; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages python3 python3-venv
    say "fetching psycopg"
    rm -rf "$to/python"
    python3 -m venv "$to/python"
    "$to/python/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
      --require-hashes --requirement "$from/python/requirements.txt"
    cp "$from/python/requirements.txt" "$to/python/installed"
  fi
  # psycopg's own code is Python alone.
  install_packages libpq5
}

case "${1:-}" in
  perf)
    install_perf
    exit
    ;;
  tests)
    pg=$(choose_pg) run=$(run_dir)
    install_neighbours
    install_bouncer
    install_clients
    unpack_nginx
    exit
    ;;
esac
pg=${1:-$(choose_pg)}
[ "$(id -u)" -eq 0 ] && needs="sudo" || needs=
install_packages build-essential pkg-config libclang-dev $needs
install_rust
if [ "$(id -u)" -eq 0 ] && ! id postgres >/dev/null 2>&1; then
  say "adding the user postgres, which runs root's test servers"
  # As Debian's package would, should it be installed later.
  useradd --system --user-group --home-dir /var/lib/postgresql --shell /bin/bash postgres
fi
run=$(run_dir)
mkdir -p "$run"
find_postgres
install_cargo_pgrx
register_with_pgrx
