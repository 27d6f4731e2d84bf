# What the other scripts share: where things live and who runs the server.
# Everything the project sets up for itself is under target/; the exception is
# named in `run_dir` below.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
pgrx_version=0.18.1
export PATH="$root/target/tools/bin:${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
export PGRX_HOME="$root/target/pgrx"
export CARGO_TARGET_DIR="$root/target"
# pgrx' tests ask for it, and not every environment sets it.
export USER="${USER:-$(id -un)}"

say() { printf '==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

project_version() { sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1; }
project_authors() { sed -n 's/^authors = \["\(.*\)"\]$/\1/p' "$root/Cargo.toml"; }

# Postgres refuses to run as root, so root's servers run as `postgres`, which
# must be able to reach the files: where the checkout is closed to other users
# (below /root, say) they go to a folder of our own in /var/tmp instead.
run_dir() {
  mkdir -p "$root/target"
  if [ "$(id -u)" -ne 0 ] || runuser -u postgres -- test -x "$root/target"; then
    printf '%s/target/run' "$root"
  else
    printf '/var/tmp/sync_ext-%s' "$(printf %s "$root" | cksum | cut -d' ' -f1)"
  fi
}

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

# The major version to build for: PG=16 make test; by default that of PG_CONFIG,
# or 15, or what the machine has, or what its packages offer.
choose_pg() {
  if [ -n "${PG:-}" ]; then
    case "$PG" in 15 | 16 | 17 | 18) printf %s "$PG"; return ;; esac
    die "PG must be 15, 16, 17 or 18, not '$PG'"
  fi
  if [ -n "${PG_CONFIG:-}" ]; then
    "$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/'
    return
  fi
  local v
  for v in 15 16 17 18; do
    [ -x "/usr/lib/postgresql/$v/bin/postgres" ] && { printf %s "$v"; return; }
  done
  offered_pg && return
  # A new machine may have no package lists yet.
  if command -v apt-get >/dev/null; then
    say "refreshing the package lists" >&2
    as_root apt-get update -qq >/dev/null || die "apt-get update failed"
    offered_pg && return
  fi
  printf 15
}

offered_pg() {
  local v
  for v in 15 16 17 18; do
    apt-cache show "postgresql-$v" >/dev/null 2>&1 && { printf %s "$v"; return; }
  done
  return 1
}
