#!/usr/bin/env bash
# Checks that CHANGELOG.md describes the version of Cargo.toml; with TAG, which must be that of the
# version, publishes what is in target/deb and target/dist.
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$root"
version=$(project_version)

notes=$(awk -v version="$version" '/^## / { inside = ($2 == version); next } inside' CHANGELOG.md)
[ -n "$notes" ] || die "CHANGELOG.md has no section '## $version'"
say "CHANGELOG.md describes version $version"

[ -n "${TAG:-}" ] || exit 0
[ "$TAG" = "v$version" ] || die "the tag of version $version is v$version, not $TAG"
rm -rf target/published
mkdir target/published
cp target/deb/*.deb target/dist/*.zip target/published
cd target/published
sha256sum -- * >SHA256SUMS
gh release create "$TAG" --verify-tag --title "sync_ext $version" --notes "$notes" -- *
