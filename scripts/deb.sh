#!/usr/bin/env bash
# Debian packages of the extension, for one Postgres, and of the gateway, in target/deb.
set -euo pipefail
. "$(dirname "$0")/build.sh"
. "$root/scripts/packages.sh"
install_packages debhelper dpkg-dev help2man lintian
"$root/scripts/package.sh"
say "building the gateway"
cd "$root"
cargo build --quiet --release --package sync_ext_gateway --bin sync_ext_gateway

# ~ sorts before the release.
version=$(project_version | tr - '~')-1
maintainer=$(project_authors)
# Two builds of the same commit give the same files.
made=$(git log -1 --format=%ct 2>/dev/null || date +%s)
work=$root/target/deb/pg$pg
extension=postgresql-$pg-sync-ext
gateway=$root/target/release/sync_ext_gateway

say "packaging"
rm -rf "$work" "$root/target/deb/$extension"_* "$root"/target/deb/sync-ext-gateway_*
mkdir -p "$work"
cp -r packaging/debian CHANGELOG.md "$work"
cd "$work/debian"
mv postgresql-sync-ext.install "$extension.install"
cp "$root"/gateway/deploy/sync-ext-gateway.* .
sed "s/@PG@/$pg/; s/@MAINTAINER@/$maintainer/" control.in >control
cat >changelog <<TEXT
sync-ext ($version) unstable; urgency=medium

  * See changelog.gz.

 -- $maintainer  $(date -R -u -d "@$made")
TEXT
{
  printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\n'
  sed -n 's/^Copyright (c)/Copyright:/p' "$root/LICENSE"
  printf 'License: Expat\n'
  sed '1,4d; s/^$/./; s/^/ /' "$root/LICENSE"
} >copyright

# The licenses of the libraries that are linked in.
licenses() { # PACKAGE [FEATURES]
  local crate license
  cargo tree --manifest-path "$root/Cargo.toml" --locked --package "$@" --edges normal \
    --prefix none --format '{p} {l}' |
    sed -n '/(\//d; s/ (\*)$//; s/^\([^ ]*\) v\([^ ]*\) \((proc-macro) \)\?/\1-\2 /p' | sort -u |
    while read -r crate license; do
      printf '\n== %s: %s\n' "$crate" "$license"
      find "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$crate" -maxdepth 1 \
        -iregex '.*/\(un\)?\(licen[cs]e\|copying\|copyright\|notice\).*' -type f -exec cat {} +
    done
}
for package in "$extension" sync-ext-gateway; do
  mkdir -p "../files/$package"
  echo "files/$package/licenses" >"$package.docs"
done
licenses sync_ext --no-default-features --features "pg$pg" >"../files/$extension/licenses"
licenses sync_ext_gateway >../files/sync-ext-gateway/licenses

built=$root/target/release/sync_ext-pg$pg
find "$built" -name '*.so' -exec install -D -m 644 -t "../files/lib/postgresql/$pg/lib" {} +
for folder in extension contrib/sync_ext; do
  find "$built" -path "*/$folder/*" -exec install -D -m 644 -t "../files/share/postgresql/$pg/$folder" {} +
done
cp --preserve=mode "$root"/tools/*.sh "../files/share/postgresql/$pg/contrib/sync_ext"
install -D -t ../files/bin "$gateway"
help2man --no-info --name 'serves sync_ext over HTTP' "$gateway" >../files/sync_ext_gateway.1

cd "$work"
DEB_RULES_REQUIRES_ROOT=no debian/rules binary >log 2>&1 || { cat log; die "the packages do not build"; }
cd ..
# It is no upload to Debian, which would close a bug there.
lintian --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs --allow-root \
  "$extension"_*.deb sync-ext-gateway_*.deb
ls -l -- "$extension"_*.deb sync-ext-gateway_*.deb
