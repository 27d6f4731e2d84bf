#!/bin/sh
# When the database is made: the role, the table and the workspace of gateway/README.md.
set -e
{
  echo 'CREATE EXTENSION sync_ext;'
  awk '/^```/ { inside = ($0 == "```sql"); next } inside' /gateway.md
  echo "ALTER ROLE gateway PASSWORD :'password';"
} | psql --no-psqlrc -v ON_ERROR_STOP=1 -v password="$GATEWAY_PASSWORD" app postgres
