#!/usr/bin/env bash
# Builds the Postgres that no package offers here from the source package of a
# later Debian, into $run/built/pg17. Says what it does; does nothing twice:
# what is unfinished has another name, so that it is never taken for finished.
# Usage: scripts/postgres_from_source.sh 17
set -euo pipefail
. "$(dirname "$0")/env.sh"
. "$(dirname "$0")/packages.sh"

pg=$1
case "$pg" in 17) suite=trixie ;; *) die "it is not known which Debian has Postgres $pg" ;; esac
run=$(run_dir)
tree=$run/built/pg$pg
[ -x "$tree/bin/postgres" ] && exit
work=$run/built/pg$pg.tmp
tarball=$run/built/pg$pg.orig.tar

# The mirror that the machine's own sources name, whatever their format. The
# private state below keeps the system's from seeing the other release.
debian_mirror() {
  apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
    sed -n 's/^Debian Debian //p' | head -n 1
}

private_apt() {
  apt-get -qq -o "Dir::Etc::SourceList=$work/apt/sources.list" -o Dir::Etc::SourceParts=- \
    -o "Dir::State=$work/apt/state" -o "Dir::Cache=$work/apt/cache" \
    -o APT::Sandbox::User= -o Acquire::Languages=none "$@"
}

download() {
  local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  mirror=$(debian_mirror)
  [ -n "$mirror" ] || { refresh_lists && mirror=$(debian_mirror); }
  [ -n "$mirror" ] || die "no package offers Postgres $pg and no Debian mirror is known here; install Postgres and its server headers below /usr/lib/postgresql/$pg"
  [ -f "$keyring" ] || install_packages debian-archive-keyring
  say "fetching the source of Postgres $pg (Debian $suite)"
  mkdir -p "$work"/apt/state/lists/partial "$work"/apt/cache/archives/partial "$work/download"
  echo "deb-src [signed-by=$keyring] $mirror $suite main" >"$work/apt/sources.list"
  private_apt update
  (cd "$work/download" && private_apt --download-only --tar-only source "postgresql-$pg")
  mv "$work"/download/*.orig.tar.* "$tarball"
}

# What the tests need and nothing else: no readline, ICU or compression.
build() {
  local log=$run/built/pg$pg.log
  install_packages build-essential bison flex perl bzip2
  say "building Postgres $pg (several minutes; the log is $log)"
  mkdir -p "$work/source" "$work/stage"
  # We may be run by make: Postgres' makefiles make their headers only where
  # they believe to be the outermost.
  unset MAKELEVEL MAKEFLAGS MFLAGS
  tar -xf "$tarball" -C "$work/source" --strip-components 1
  {
    cd "$work/source" &&
      ./configure --prefix="$tree" --without-readline --without-icu --without-zlib &&
      make -j"$(nproc)" && make install DESTDIR="$work/stage" &&
      make -C contrib/amcheck -j"$(nproc)" install DESTDIR="$work/stage"
  } >"$log" 2>&1 || { tail -n 40 "$log"; die "Postgres $pg does not build"; }
  mv "$work/stage$tree" "$tree"
}

rm -rf "$work" "$tree"
[ -f "$tarball" ] || download
build
rm -rf "$work" "$tarball"
