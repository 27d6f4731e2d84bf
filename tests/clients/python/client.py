"""psycopg 3 as a client of sync_ext. Does what clients.rs asks every driver to do, and
prints what it saw as JSON. Where: PGHOST and its like. Arguments: the workspace, and
the file with the ops of the first push."""

import json
import sys
from pathlib import Path

import psycopg
from psycopg.types.json import set_json_loads

workspace, ops = sys.argv[1:]
client = psycopg.connect(autocommit=True)
listener = psycopg.connect(autocommit=True)


def call(text, *values):
    (reply,) = client.execute(f"SELECT {text}", values).fetchone()
    return reply


def push(ops):
    return call("sync_push(%s, %s::json)", workspace, ops)


def told():
    for notification in listener.notifies(timeout=30, stop_after=1):
        return [notification.channel, json.loads(notification.payload)]


listener.execute("LISTEN sync_ext")

seen = {"pushed": [push(Path(ops).read_text("utf-8"))]}
seen["told"] = told()
stamp = {"deviceId": "python", "opId": "00000000-0000-4000-8000-000000000002", "hlc": "ä", "clock": 1}
op = {"tableName": "notes", "operation": "put", "pk": "ä", "payload": {"text": '"ä" \\ 🐘'}, "stamp": stamp}
seen["pushed"].append(push(json.dumps([op])))
seen["replayed"] = push(json.dumps([op]))

pull = "sync_pull(%s, %s, %s, %s, %s, %s)"
nulls = (workspace, 0, None, None, None, None)
seen["pulled"] = call(pull, *nulls)
for change in seen["pulled"]["changes"]:
    del change["payload"]
seen["counts"] = []
for tables in (["notes", "files"], ["files"], [], None):
    reply = call(pull, workspace, 0, 10, tables, False, seen["pulled"]["proof"])
    seen["counts"].append(len(reply["changes"]))
cursor = seen["pulled"]["nextCursor"]
seen["acknowledged"] = call("sync_update_cursor(%s, %s, %s)", workspace, "python", cursor)
try:
    call("sync_pull(%s, %s)", workspace, -1)
except psycopg.errors.InvalidParameterValue as error:
    diag = error.diag
    seen["error"] = {
        "code": diag.sqlstate,
        "message": diag.message_primary,
        "detail": diag.message_detail,
        "hint": diag.message_hint,
    }

# json as it is sent, for who wants all digits: Python's own loads keeps those of
# integers, but not of fractions.
set_json_loads(lambda data: bytes(data).decode(), client)
seen["text"] = call(pull, *nulls)
print(json.dumps(seen))
