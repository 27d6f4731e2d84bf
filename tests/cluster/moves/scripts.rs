//! The scripts in `tools/`, run as an operator runs them, and broken off where a test wants.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// psql, but at a call that has `$AT` in its SQL something else happens before or after. With
/// `$KILLED`, a file, the script is killed at the first call that it has not been killed at yet,
/// once before what psql does and once after.
const PSQL: &str = r#"#!/bin/bash
sql=$(cat)
before= after=
[[ -n "$AT" && "$sql" = *"$AT"* ]] && before=$BEFORE after=$AFTER
if [ -n "$KILLED" ]; then
  # Not by what it copies, which changes.
  call=$(sed '/^copy .* from stdin/,/^\\\.$/d' <<<"$sql" | md5sum)
  for moment in before after; do
    if ! grep -qsF "$moment $call" "$KILLED"; then
      echo "$moment $call" >>"$KILLED"
      printf -v $moment %s 'kill -9 0'
      break
    fi
  done
fi
[ -z "$before" ] || sh -c "$before"
psql "$@" <<<"$sql"
code=$?
[ -z "$after" ] || sh -c "$after"
exit $code
"#;

#[derive(Clone)]
pub struct Script {
    name: &'static str,
    pub arguments: Vec<String>,
    folder: PathBuf,
}

#[derive(Debug)]
pub struct Ran {
    pub succeeded: bool,
    pub printed: String,
}

/// What else happens at a call of psql.
#[derive(Clone, Copy, Default)]
pub struct Hook<'h> {
    pub at: &'h str,
    pub before: &'h str,
    pub after: &'h str,
}

impl Script {
    /// `test` names the test, for files of its own.
    pub fn new(name: &'static str, test: &str, arguments: &[&str]) -> Script {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let psql = folder.join("hooked_psql");
        fs::write(&psql, PSQL).unwrap();
        fs::set_permissions(&psql, fs::Permissions::from_mode(0o755)).unwrap();
        let arguments = arguments.iter().map(|argument| argument.to_string()).collect();
        Script { name, arguments, folder }
    }

    /// A file with these lines, for an option.
    pub fn file(&self, name: &str, lines: &str) -> String {
        let path = self.folder.join(name);
        fs::write(&path, lines).unwrap();
        path.display().to_string()
    }

    pub fn run(&self, more: &[&str]) -> Ran {
        self.run_with(Hook::default(), more)
    }

    pub fn run_with(&self, hook: Hook, more: &[&str]) -> Ran {
        let mut command = self.command(more);
        command.env("AT", hook.at).env("BEFORE", hook.before).env("AFTER", hook.after);
        Ran::of(&mut command)
    }

    /// Kills it at each call of psql, and repeats it each time, until it comes to its end.
    /// Returns how many times it was killed.
    pub fn killed_at_each_call(&self, more: &[&str], mut between: impl FnMut(usize)) -> usize {
        let killed = self.folder.join("killed");
        for times in 1.. {
            let ran = Ran::of(self.command(more).env("KILLED", &killed));
            if ran.succeeded {
                return times - 1;
            }
            let kills = fs::read_to_string(&killed).unwrap().lines().count();
            assert_eq!(kills, times, "it failed by itself: {}", ran.printed);
            between(times);
        }
        unreachable!()
    }

    fn command(&self, more: &[&str]) -> Command {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools");
        let mut command = Command::new(tools.join(format!("{}.sh", self.name)));
        let (path, bin) = (env::var("PATH").unwrap(), env::var("SYNC_EXT_PG_BIN").unwrap());
        command.args(&self.arguments).args(more).stdin(Stdio::null());
        command.env("PATH", format!("{bin}:{path}")).env("PSQL", self.folder.join("hooked_psql"));
        // What is killed is the group.
        command.process_group(0);
        command
    }
}

impl Ran {
    fn of(command: &mut Command) -> Ran {
        let ran = command.output().unwrap();
        let printed = [ran.stdout, ran.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        Ran { succeeded: ran.status.success(), printed }
    }
    pub fn expect(self, succeeds: bool, says: &str) -> Ran {
        assert_eq!(self.succeeded, succeeds, "{}", self.printed);
        assert!(self.printed.contains(says), "{}", self.printed);
        self
    }
}
