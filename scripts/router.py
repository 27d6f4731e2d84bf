#!/usr/bin/env python3
"""Writes sql/router/functions.sql from the declarations of the extension, so that the
router has the same functions; --check fails if that file says anything else.

Each function that runs on a shard becomes one of PL/Proxy, which runs there, and one with
the declared name, which callers know.
"""

import re
import sys
from pathlib import Path
from textwrap import indent

SQL = Path(__file__).resolve().parent.parent / "sql"
OUTPUT = SQL / "router" / "functions.sql"

# On the shard of the workspace that the first argument names.
ON_ONE = """push put patch delete pull snapshot update_cursor exchange create_workspace
    drop_workspace set_member remove_member list_members get_role forget_device explain""".split()
# On all shards, with the function that makes one reply of theirs, if they reply.
ON_ALL = {"register_table": None, "unregister_table": None, "list_workspaces": "merged_list"}
# On one, and without a workspace on all.
ON_ONE_OR_ALL = {"gc": "merged_gc", "status": "merged_status"}
# On the shard of a number, for those who move workspaces.
ON_NUMBER = """own_buckets set_key_range export_begin export_page export_hold export_depart
    export_cancel export_forget import_begin import_page import_arrive import_cancel""".split()
# Here, as declared.
HERE = ["hlc_now", "hlc_parse"]
# Not here: they are called on a shard.
ABSENT = """disown gc_all set_scope_field attach_table detach_table check_table backfill_table
    repair_table split_depart split_arrive""".split()

# What a value of this type names is on the shards, not here.
TYPE_HERE = {"regprocedure": "text"}

# Who calls.
SETTINGS = {"caller": "sync_ext.user_id", "claims": "request.jwt.claims"}


class Routine:
    def __init__(self, match):
        self.text, self.name, arguments, self.returns, self.rest = match.group(0, 2, 3, 4, 5)
        # No default has a comma.
        self.arguments = [argument.strip() for argument in arguments.split(",") if argument.strip()]
        # sync_snapshot is volatile, but reads only.
        self.reads = " stable " in self.rest or self.name == "snapshot"

    def parts(self):
        """Name, type and default of each argument."""
        return [re.match(r"(\S+) (.+?)( default .+)?$", argument).groups("") for argument in self.arguments]


def declarations():
    routines, comments = [], {}
    for path in sorted(SQL.glob("[a-z]*.sql")):
        if "--" not in path.name:
            text = path.read_text()
            declaration = r"^create (function|procedure) sync_(\w+)\((.*?)\)(?:\s+returns (\w+))?\nlanguage (.*?)(?:'|^end|\$\$);$"
            routines += map(Routine, re.finditer(declaration, text, re.S | re.M))
            comment = r"^(comment on (?:function|procedure) sync_(\w+)\(.*;)$"
            comments |= {name: line for line, name in re.findall(comment, text, re.M)}
    return routines, comments


def proxy(routine, name, is_on_all=False, settings=SETTINGS):
    """Runs the call on shards. Who calls goes along in the same statement, for its
    transaction."""
    own = ["cluster text"] if routine.reads else []
    own += [] if is_on_all else ["shard integer"]
    cluster = "pg_catalog.concat($1)" if routine.reads else "'sync'"
    run = "all" if is_on_all else f"${len(own)}"
    set_caller, passed = [], []
    for argument, setting in settings.items():
        own.append(f"{argument} text")
        set_caller.append(f"pg_catalog.set_config('{setting}', ${len(own)}, true) is not null")
    for argument, declared, _ in routine.parts():
        here = TYPE_HERE.get(declared)
        own.append(f"{argument} {here or declared}")
        passed.append(f"${len(own)}::{declared}" if here else f"${len(own)}")
    # PL/Proxy knows no rows of type void.
    returns, cast = ("text", "::text") if routine.returns == "void" else (routine.returns, "")
    answer = f"sync_{routine.name}({', '.join(passed)}){cast}"
    if set_caller:
        condition = "\n      and ".join(set_caller)
        answer = f"case\n    when {condition}\n    then {answer}\n  end"
    return f"""
create function sync_router.{name}({listed(own)}) returns {"setof " if is_on_all else ""}{returns}
language plproxy
as $$
  cluster {cluster};
  run on {run};
  select {answer};
$$;
"""


def listed(arguments):
    """On one line if they fit."""
    line = ", ".join(arguments)
    return line if len(line) < 60 else "\n  " + ",\n  ".join(arguments) + "\n"


def call(routine, name, is_on_all=False):
    arguments = ["sync_router.cluster_of_reads()"] if routine.reads else []
    arguments += [] if is_on_all else ["shard"]
    arguments += [*SETTINGS, *(f"${place}" for place, _ in enumerate(routine.arguments, 1))]
    return f"sync_router.{name}({', '.join(arguments)})"


def answer(routine):
    """The statements that call the shards and return."""
    name = routine.name
    names = [argument for argument, _, _ in routine.parts()]
    # Of a list that has pages, the merged one has no more than one of a shard.
    limit = f", ${names.index('page_limit') + 1}" if "page_limit" in names else ""
    if name in ON_ONE:
        statement = "perform {};\nreturn;" if routine.returns == "void" else "return {};"
        return statement.format(call(routine, name))
    if name in ON_ONE_OR_ALL:
        on_all = f"sync_router.{ON_ONE_OR_ALL[name]}(array(select {call(routine, f'{name}_on_all', True)}){limit})"
        return f"if $1 is null then\n  return {on_all};\nend if;\nreturn {call(routine, name)};"
    on_all = call(routine, name, True)
    merged = ON_ALL[name]
    return f"return sync_router.{merged}(array(select {on_all}){limit});" if merged else f"perform {on_all};\nreturn;"


def face(routine, comment):
    """What callers know. With an exception block it must not be parallel restricted."""
    is_on_one = routine.name not in ON_ALL
    arguments = [f"{name} {TYPE_HERE.get(declared, declared)}{default}" for name, declared, default in routine.parts()]
    check = "" if routine.reads else f"  perform sync_router.require_writable('sync_{routine.name}');\n"
    variables = ["shard integer := sync_router.shard_of($1);"] if is_on_one else []
    for variable, setting in SETTINGS.items():
        variables.append(f"{variable} constant text := coalesce(pg_catalog.current_setting('{setting}', true), '');")
    variables.append("error sync_router.error;")
    after = "shard := sync_router.shard_after(error, shard, $1)" if is_on_one else "perform sync_router.raise(error)"
    volatility = re.search("stable|volatile", routine.rest)[0]
    return f"""
create function sync_{routine.name}({listed(arguments)}) returns {routine.returns}
language plpgsql {volatility}
as $$
declare
{indent(chr(10).join(variables), "  ")}
begin
{check}  loop
    begin
{indent(answer(routine), "      ")}
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    {after};
  end loop;
end
$$;
{retyped(comment)}
"""


def retyped(comment):
    for declared, here in TYPE_HERE.items():
        comment = comment.replace(declared, here)
    return comment


def functions():
    yield "-- Written by scripts/router.py from the declarations of the extension; included by router.sql.\n"
    routines, comments = declarations()
    for routine in routines:
        name = routine.name
        if name in HERE:
            text = routine.text.replace("create function", "create or replace function", 1)
            yield f"\n{text}\n{comments[name]}\n"
            continue
        if name in ON_NUMBER:
            yield proxy(routine, name, settings={})
            yield f"revoke execute on function sync_router.{name} from public;\n"
            continue
        if name in ON_ONE or name in ON_ONE_OR_ALL:
            yield proxy(routine, name)
        if name in ON_ONE_OR_ALL:
            yield proxy(routine, f"{name}_on_all", True)
        if name in ON_ALL:
            yield proxy(routine, name, True)
        if name not in ABSENT:
            yield face(routine, comments[name])
    known = {*ON_ONE, *ON_ALL, *ON_ONE_OR_ALL, *ON_NUMBER, *HERE, *ABSENT}
    declared = {routine.name for routine in routines}
    if known != declared:
        sys.exit(f"error: {sorted(known ^ declared)} in scripts/router.py or in sql/, not in both")


def main():
    text = "".join(functions())
    if sys.argv[1:] != ["--check"]:
        OUTPUT.write_text(text)
    elif not OUTPUT.exists() or OUTPUT.read_text() != text:
        sys.exit(f"error: {OUTPUT.relative_to(SQL.parent)} is out of date: scripts/router.py")


main()
