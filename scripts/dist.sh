#!/usr/bin/env bash
# The source archive of the last commit, as PGXN takes it, in target/dist.
set -euo pipefail
. "$(dirname "$0")/env.sh"
. "$root/scripts/packages.sh"
install_packages git python3
cd "$root"
version=$(project_version) into=$root/target/dist
name=sync_ext-$version
rm -rf "$into"
mkdir -p "$into"
sed "s/@VERSION@/$version/; s/@MAINTAINER@/$(project_authors)/" packaging/META.json.in >"$into/META.json"
git archive --format zip --prefix "$name/" --add-file "$into/META.json" --output "$into/$name.zip" HEAD
# What the specification demands (https://pgxn.org/spec/), and that each file is there.
python3 - "$into/$name.zip" "$name" <<'PYTHON'
import json, re, sys, zipfile
archive, name = zipfile.ZipFile(sys.argv[1]), sys.argv[2]
meta = json.loads(archive.read(f"{name}/META.json"))
missing = {"name", "version", "abstract", "maintainer", "license", "provides", "meta-spec"} - meta.keys()
assert not missing, f"META.json lacks {missing}"
assert name == f"{meta['name']}-{meta['version']}" and re.fullmatch(r"\d+\.\d+\.\d+(-\w+)?", meta["version"])
for extension in meta["provides"].values():
    for file in (extension["file"], extension["docfile"], "Makefile", "LICENSE"):
        archive.getinfo(f"{name}/{file}")
PYTHON
ls -l "$into/$name.zip"
