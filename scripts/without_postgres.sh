# What decides, and what reads and writes JSON, knows nothing of Postgres, so it
# can be built without: a crate of src/rules, src/wire and src/error.rs takes a tenth of the time. To be sourced after env.sh.

make_crate_without_postgres() { # TREE
  local tree=$1
  rm -rf "$tree/src"
  mkdir -p "$tree/src"
  cp -r "$root/src/rules" "$root/src/wire" "$tree/src/"
  cp "$root/Cargo.lock" "$tree/"
  printf '%s\n' 'mod error;' 'mod rules;' 'mod wire;' >"$tree/src/lib.rs"
  cp "$root/src/error.rs" "$tree/src/"
  {
    printf '%s\n' '[package]' 'name = "sync_ext_without_postgres"' 'edition = "2024"' '' '[workspace]' ''
    sed -n '/^\[\(dev-\)\?dependencies\]/,/^$/p' "$root/Cargo.toml" | grep -v '^pgrx'
    printf '%s\n' '[lints.rust]' 'dead_code = "allow"' '' '[profile.dev]' 'debug = false'
  } >"$tree/Cargo.toml"
}
